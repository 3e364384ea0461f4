"""The measuring helpers: statistics, pairing, error, the order of the rounds."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks import measure
from benchmarks.measure import Quartiles

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


def test_a_timer_of_ones_own_decides_what_is_timed():
    calls = {"a": lambda: None}
    seen = measure.interleave(
        calls, CPU, rounds=3, limit_s=60, settle_s=0, warm_s=0, timer=lambda call: 7.0
    )
    assert seen == {"a": [7.0] * 3}


def test_a_block_of_short_calls_is_divided_by_their_number():
    counts = {"a": 0}

    def call() -> None:
        counts["a"] += 1

    times = measure.interleave_blocks({"a": call}, rounds=3, limit_s=0, block_s=0.002)
    assert len(times["a"]) == 3
    assert all(0 < us < 50 for us in times["a"])
    assert counts["a"] > 100


def test_the_geometric_mean_of_nothing_is_none():
    assert measure.geometric_mean([1.0, 4.0]) == pytest.approx(2.0)
    assert measure.geometric_mean([]) is None


def test_the_slope_is_that_of_the_line_of_least_squares():
    assert measure.slope([1, 2, 4, 8], [15.0, 20.0, 30.0, 50.0]) == pytest.approx(5.0)
