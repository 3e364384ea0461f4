"""The compile time: what is taken from what, the means, the table, one run in small."""

from __future__ import annotations

import pytest

from benchmarks import compile_time, harness, record
from benchmarks.machine import Machine
from benchmarks.measure import Quartiles
from benchmarks.record import Case, Row, Run, Settings


def _run(*cases: Case) -> Run:
    settings = Settings(threads=2, rounds=3, backends=("aot_eager", "inductor", "onnx"))
    machine = Machine("Some CPU", 2, "Linux x86_64", None)
    return Run("2026-01-02T03:04:05+00:00", "", settings, machine, {"torch": "2.13.0"}, cases)


def _exact(value: float) -> Quartiles:
    return Quartiles(value, value, value, 3)


def _rows(page: str) -> list[list[str]]:
    """The cells of a page's table rows, its headers among them."""
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines]


def _start(first_call_s: float, lowering_ms: float | None = None) -> dict:
    timings = {"partition_ms": 1.0, "lowering_ms": lowering_ms, "session_ms": 9.0}
    report = {"native_ops": 90, "eager_ops": 10, "onnx_nodes": 50, "timings": timings}
    steps = dict.fromkeys(compile_time.STEPS, 0.25)
    report = None if lowering_ms is None else report
    return {**steps, "first_call_s": first_call_s, "report": report}


def _case(name: str, theirs_s: float, ours_s: float, timed_ms: float) -> Case:
    """Capture takes 2 s; what comes beyond it is given."""
    inductor = Row(
        "inductor", {"first_call_s": _exact(2 + theirs_s), "own_compile_s": _exact(theirs_s)}
    )
    parts = dict.fromkeys(compile_time.PARTS, _exact(timed_ms / 3))
    timed = {"timed_ms": _exact(timed_ms), "own_compile_s": _exact(ours_s), **parts}
    ours = Row("onnx", timed, {"fx_nodes": 100, "onnx_nodes": 50})
    return Case(name, rows=(Row("aot_eager", {"first_call_s": _exact(2.0)}), inductor, ours))


def test_a_backends_own_share_is_paired_by_round():
    floor = [_start(1.0), _start(10.0), _start(2.0)]
    row = compile_time.row_of("inductor", [_start(4.0), _start(13.0), _start(5.0)], floor)
    assert row.values["own_compile_s"] == Quartiles(3.0, 3.0, 3.0, 3)
    assert "own_compile_s" not in compile_time.row_of("aot_eager", floor, floor).values


def test_the_lowering_is_counted_by_the_node():
    row = compile_time.row_of("onnx", [_start(4.0, 5.0), _start(4.0, 7.0)], None)
    assert row.median("lowering_us_per_node") == pytest.approx(60.0)
    assert row.median("timed_ms") == pytest.approx(16.0)
    assert row.facts["fx_nodes"] == 100


def test_a_share_lost_in_the_noise_has_no_ratio_of_differences():
    assert compile_time.ratio_of_differences(_case("a", 8.0, 2.0, 500)) == 4.0
    assert compile_time.ratio_of_differences(_case("b", 8.0, -0.1, 500)) is None
    assert compile_time.ratio_to_timed(_case("b", 8.0, -0.1, 500)) == 16.0


def test_the_geometric_means_say_how_many_models_they_cover():
    page = compile_time.page(_run(_case("a", 8.0, 2.0, 500), _case("b", 2.0, -0.1, 500)))
    mean = next(row for row in _rows(page) if row[0].startswith("geometric mean"))
    assert mean[-2:] == ["4.00×** (of 1)", "8.00×"]


def test_a_model_that_failed_is_told_and_has_no_parts():
    case = Case("a", rows=(Row("aot_eager", error="no"), Row("inductor"), Row("onnx", error="no")))
    page = compile_time.page(_run(case))
    assert "- a, onnx: `no`" in page


def test_an_unknown_model_in_the_cold_process_is_an_error():
    settings = Settings(threads=1, rounds=1, backends=("aot_eager",))
    case = compile_time.measure_case("unheard-of", settings)
    assert case.rows[0].error == "KeyError: 'unheard-of'"


@pytest.mark.slow
def test_a_small_model_is_measured_from_the_command_line(tmp_path):
    out = tmp_path / "run.json"
    argv = ["--small", "--cases", "bert-base", "--rounds", "1", "--out", str(out)]
    assert harness.main(compile_time.BENCHMARK, argv) == 0
    (case,) = record.read(out, Run).cases
    ours = case.row("onnx")
    assert ours is not None
    assert ours.facts["regions"] == 1
    assert ours.values["lowering_ms"].median > 0
    assert case.row("inductor").values["first_call_s"].median > 0
    assert out.with_suffix(".png").exists()
