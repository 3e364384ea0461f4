"""The overhead of a call: the cases, the bare sessions, the table, one run in small."""

from __future__ import annotations

import pytest
import torch

from benchmarks import call_overhead, harness, record
from benchmarks.machine import Machine
from benchmarks.measure import Quartiles
from benchmarks.record import Case, Row, Run, Settings


def _run(*cases: Case) -> Run:
    settings = Settings(threads=2, rounds=3, backends=("onnx", "bare"))
    machine = Machine("Some CPU", 2, "Linux x86_64", None)
    return Run("2026-01-02T03:04:05+00:00", "", settings, machine, {"torch": "2.13.0"}, cases)


def _exact(value: float) -> Quartiles:
    return Quartiles(value, value, value, 3)


def _rows(page: str) -> list[list[str]]:
    """The cells of a page's table rows, its headers among them."""
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("name", call_overhead.CASES)
def test_a_case_runs_in_eager(name):
    module, kwargs = call_overhead.CASES[name].make(True)
    with torch.no_grad():
        assert torch.isfinite(module(**kwargs)).all()


def test_the_cases_have_as_many_weights_and_inputs_as_they_promise():
    weights = call_overhead.CASES["many weights"].make(False)
    assert len(list(weights.module.parameters())) == 200
    assert len(call_overhead.CASES["many inputs"].make(False).kwargs) == 300
    assert len(list(call_overhead.CASES["mlp"].make(False).module.parameters())) == 8


def test_bare_sessions_compute_what_the_compiled_model_does():
    torch.manual_seed(0)
    tiny = call_overhead.CASES["mlp"]
    module, kwargs = tiny.make(True)
    example = call_overhead.Example(
        module, {name: torch.ones_like(x) for name, x in kwargs.items()}
    )
    with torch.no_grad():
        contender = call_overhead.bare(example, tiny.options)
        (output,) = contender.tensors(contender.call())
        torch.testing.assert_close(output, module(**example.kwargs))


def test_the_table_shows_what_comes_beyond_the_bare_session():
    row = Row("onnx", {"call_us": _exact(40.0), "over_bare_us": _exact(34.5)})
    bare = Row("bare", {"call_us": _exact(5.5), "over_bare_us": _exact(0.0)})
    facts = {"weights": 8, "inputs": 1, "regions": 1}
    run = _run(Case("mlp", facts, rows=(row, bare)), Case("regions", error="the process died"))
    page = call_overhead.page(run)
    header, _, mlp, regions = _rows(page)
    assert header[-3:] == ["onnx", "bare session", "onnx beyond the bare session"]
    assert mlp == ["mlp", "8", "1", "1", "40 µs", "5.5 µs", "34.5 µs"]
    assert regions == ["regions", *[""] * 6]
    assert "- regions: `the process died`" in page


def test_a_small_case_is_measured_from_the_command_line(tmp_path):
    out = tmp_path / "run.json"
    argv = ["--small", "--cases", "regions", "--backends", "eager,onnx,bare", "--rounds", "3"]
    assert harness.main(call_overhead.BENCHMARK, [*argv, "--out", str(out)]) == 0
    (case,) = record.read(out, Run).cases
    assert case.facts == {"weights": 8, "inputs": 1, "regions": 4}
    onnx = case.row("onnx")
    assert onnx is not None
    assert onnx.facts["eager_ops"] == 3
    assert onnx.facts["max_error"] < 1e-5
    assert case.median("bare", "over_bare_us") == 0
    assert out.with_suffix(".png").exists()
