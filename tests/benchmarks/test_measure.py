"""The measuring helpers: statistics, pairing, error, the order of the rounds, the load."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks import measure
from benchmarks.measure import CpuClock, Quartiles

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0], Quartiles(3.0, 3.0, 3.0, 1)),
        ([1.0, 3.0], Quartiles(1.5, 2.0, 2.5, 2)),
        ([5.0, 1.0, 4.0, 2.0, 3.0], Quartiles(2.0, 3.0, 4.0, 5)),
        ([1.0, 1.0, 1.0, 100.0], Quartiles(1.0, 1.0, 25.75, 4)),
    ],
)
def test_quartiles_interpolate_between_the_values(values, expected):
    assert measure.quartiles(values) == expected


def test_no_value_has_no_quartiles():
    with pytest.raises(ValueError, match="no measurement"):
        measure.quartiles([])


def test_ratios_are_paired_by_round_and_not_taken_of_the_medians():
    slow_machine_in_round_two = [10.0, 100.0, 10.0]
    ours = [5.0, 50.0, 5.0]
    assert measure.paired_ratios(ours, slow_machine_in_round_two) == [0.5, 0.5, 0.5]


def test_ratios_of_different_numbers_of_rounds_are_refused():
    with pytest.raises(ValueError, match="argument 2"):
        measure.paired_ratios([1.0, 2.0], [1.0])


def test_the_error_is_relative_to_the_scale_of_the_worst_output():
    expected = [torch.tensor([0.0, 100.0]), torch.tensor([1.0, -2.0])]
    actual = [torch.tensor([1.0, 100.0]), torch.tensor([1.0, -2.5])]
    assert measure.relative_error(actual, expected) == pytest.approx(0.25)


def test_the_error_against_an_output_of_zeros_is_absolute():
    assert measure.relative_error([torch.tensor([0.5])], [torch.tensor([0.0])]) == 0.5


@pytest.mark.parametrize("position", [0, 1])
def test_a_nan_in_any_output_is_a_nan_error(position):
    expected = [torch.ones(2), torch.ones(2)]
    actual = [output.clone() for output in expected]
    actual[position][1] = math.nan
    assert math.isnan(measure.relative_error(actual, expected))


def test_outputs_of_another_shape_or_number_are_refused():
    with pytest.raises(ValueError, match="shape"):
        measure.relative_error([torch.ones(1, 2)], [torch.ones(2)])
    with pytest.raises(ValueError, match="argument 2"):
        measure.relative_error([], [torch.ones(2)])


def test_every_contender_is_timed_once_a_round_and_the_first_one_rotates():
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}
    times = measure.interleave(calls, CPU, rounds=3, limit_s=60, settle_s=0, warm_s=0)
    assert {name: len(values) for name, values in times.items()} == dict.fromkeys("abc", 3)
    turns = order[::2]  # a warm-up and a timed call make a turn
    assert order[1::2] == turns
    assert turns == [*"abc", *"bca", *"cab"]


def test_rounds_end_at_the_time_limit_but_not_before_the_least_number():
    times = measure.interleave(
        {"a": lambda: None}, CPU, rounds=1000, limit_s=0, settle_s=0, warm_s=0
    )
    assert len(times["a"]) == measure.MIN_ROUNDS


def test_the_load_separates_other_processes_from_this_one():
    before = CpuClock(wall_s=100.0, busy_s=50.0, stolen_s=1.0, own_s=20.0)
    after = CpuClock(wall_s=110.0, busy_s=65.0, stolen_s=2.0, own_s=30.0)
    load = measure.load_between(before, after, 0.5, 0.7, cores=2)
    assert load == measure.Load(0.5, 0.7, others_share=0.25, stolen_share=0.05)


def test_the_cpu_clock_reads_proc_stat(tmp_path):
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 20 30 999 40 5 6 700 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n")
    clock = measure.read_cpu_clock(stat)
    assert clock is not None
    assert clock.busy_s / clock.stolen_s == pytest.approx(161 / 700)
    assert measure.read_cpu_clock(tmp_path / "absent") is None


def test_versions_name_torch_and_leave_out_what_is_not_installed():
    found = measure.versions()
    assert found["torch"] == torch.__version__
    assert set(found) <= {"python", *measure.PACKAGES}
    assert all(found.values())
