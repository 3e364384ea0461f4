"""Threads: what is timed, the ratios, the tables, one run in small of each question."""

from __future__ import annotations

import pytest

from benchmarks import harness, record, threads
from benchmarks.machine import Machine
from benchmarks.measure import Quartiles
from benchmarks.record import Case, Row, Run, Settings


def _run(*cases: Case) -> Run:
    settings = Settings(threads=2, rounds=3, backends=("onnx",))
    machine = Machine("Some CPU", 2, "Linux x86_64", None)
    return Run("2026-01-02T03:04:05+00:00", "", settings, machine, {"torch": "2.13.0"}, cases)


def _exact(value: float) -> Quartiles:
    return Quartiles(value, value, value, 3)


def _rows(page: str) -> list[list[str]]:
    """The cells of a page's table rows, its headers among them."""
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines]


def test_of_a_call_and_the_operator_after_it_the_operator_is_timed():
    order = []
    followed = threads.Followed(lambda: order.append("call"), lambda: order.append("operator"))
    assert 0 <= followed.timed() < 1e4
    assert order == ["call", "operator"]


def test_two_models_in_turn_are_compared_with_their_sum_by_round():
    row = threads.in_turn_row("onnx", [1.0, 10.0], [2.0, 20.0], [6.0, 60.0])
    assert row.values["ratio"] == Quartiles(2.0, 2.0, 2.0, 2)
    assert row.median("alone_ms") == 16.5


def test_each_question_has_a_table():
    def scaled(backend: str, one_ms: float, two_ms: float, ratio: float) -> Row:
        times = {"1_threads_ms": _exact(one_ms), "2_threads_ms": _exact(two_ms)}
        ratios = {"1_threads_ratio": _exact(ratio), "2_threads_ratio": _exact(ratio)}
        return Row(backend, times | ratios)

    rows = (scaled("eager", 80.0, 50.0, 1.0), scaled("onnx", 40.0, 20.0, 0.5))
    after = (
        Row("eager", {"mm_us": _exact(90.0), "ratio": _exact(1.0)}),
        Row("onnx", {"mm_us": _exact(99.0), "ratio": _exact(1.1)}),
    )
    in_turn = (threads.in_turn_row("onnx", [1.0, 1.0], [2.0, 2.0], [3.0, 3.0]),)
    page = threads.page(
        _run(
            Case("scaling bert-base", {"threads": [1, 2]}, rows=rows),
            Case(threads.AFTER, {"matrix_side": 256, "model": "m"}, rows=after),
            Case(threads.IN_TURN, {"models": ["a", "b"]}, rows=in_turn),
        )
    )
    found = _rows(page)
    assert ["bert-base", "2", "50 ms", "20 ms (2.00×)", "1.60×", "2.00×"] in found
    assert ["after onnx", "99 µs", "1.10×"] in found
    assert ["onnx", "3 ms", "3 ms", "1.00×"] in found


@pytest.mark.parametrize(
    "name", [threads.AFTER, pytest.param(threads.IN_TURN, marks=pytest.mark.slow)]
)
def test_a_small_case_is_measured_from_the_command_line(name, tmp_path):
    out = tmp_path / "run.json"
    argv = ["--small", "--cases", name, "--backends", "onnx", "--rounds", "3", "--out", str(out)]
    assert harness.main(threads.BENCHMARK, argv) == 0
    (case,) = record.read(out, Run).cases
    assert [row.contender for row in case.rows] == ["eager", "onnx"]
    assert all(row.values["ratio"].median > 0 for row in case.rows)
    assert out.with_suffix(".png").exists()


@pytest.mark.slow
def test_a_small_model_is_scaled_from_the_command_line(tmp_path):
    out = tmp_path / "run.json"
    argv = ["--small", "--cases", "scaling resnet50", "--backends", "onnx", "--threads", "2"]
    assert harness.main(threads.BENCHMARK, [*argv, "--rounds", "3", "--out", str(out)]) == 0
    (case,) = record.read(out, Run).cases
    assert case.facts == {"threads": [1, 2]}
    assert all(case.median("onnx", f"{n}_threads_ms") for n in (1, 2))
    assert out.with_suffix(".png").exists()
