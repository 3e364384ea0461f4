"""Graph breaks: the models, the slope, the table, one run in small."""

from __future__ import annotations

import pytest
import torch

from benchmarks import graph_breaks, harness, record
from benchmarks.machine import Machine
from benchmarks.measure import Quartiles
from benchmarks.record import Case, Row, Run, Settings


def _run(*cases: Case) -> Run:
    settings = Settings(threads=2, rounds=3, backends=("eager", "onnx"))
    machine = Machine("Some CPU", 2, "Linux x86_64", None)
    return Run("2026-01-02T03:04:05+00:00", "", settings, machine, {"torch": "2.13.0"}, cases)


def _exact(value: float) -> Quartiles:
    return Quartiles(value, value, value, 3)


def _rows(page: str) -> list[list[str]]:
    """The cells of a page's table rows, its headers among them."""
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines]


def test_the_numbers_of_regions_are_the_powers_of_two_up_to_the_blocks():
    assert graph_breaks.regions_of(64) == [1, 2, 4, 8, 16, 32, 64]


@pytest.mark.parametrize("regions", [1, 2, 4])
def test_a_chain_is_cut_as_often_as_asked_and_breaks_change_nothing(regions):
    torch.manual_seed(0)
    module, kwargs = graph_breaks.chain("graph break", 4, regions)
    breaks = [n for n in module.graph.nodes if n.target is torch._dynamo.graph_break]
    assert len(breaks) == regions - 1
    torch.manual_seed(0)
    whole, _ = graph_breaks.chain("graph break", 4, 1)
    assert torch.equal(module(**kwargs), whole(**kwargs))


def test_a_further_region_costs_the_slope_of_each_rounds_line():
    times = {1: [10.0, 20.0], 2: [15.0, 25.0], 4: [25.0, 35.0]}
    row = graph_breaks.row_of("onnx", times)
    assert row.median("per_region_us") == pytest.approx(5.0)
    assert row.median("2_regions_us") == 20.0


def test_the_table_has_a_row_per_case_and_contender():
    values = {f"{n}_regions_us": _exact(10.0 * n) for n in (1, 2, 4)}
    rows = (Row("eager", values | {"per_region_us": _exact(10.0)}), Row("onnx", error="no"))
    page = graph_breaks.page(_run(Case("graph break", {"blocks": 4}, rows=rows)))
    _, _, eager, onnx = _rows(page)
    assert eager == ["graph break", "eager", "10", "20", "40", "10 µs"]
    assert onnx == ["graph break", "onnx", "", "", "", ""]


@pytest.mark.parametrize(
    "name", ["eager operator", pytest.param("graph break", marks=pytest.mark.slow)]
)
def test_small_chains_are_measured_from_the_command_line(name, tmp_path):
    out = tmp_path / "run.json"
    argv = ["--small", "--cases", name, "--backends", "onnx", "--rounds", "3", "--out", str(out)]
    assert harness.main(graph_breaks.BENCHMARK, argv) == 0
    (case,) = record.read(out, Run).cases
    assert case.facts == {"blocks": 4, "onnx_regions": [1, 2, 4]}
    assert case.median("onnx", "per_region_us") is not None
    assert out.with_suffix(".png").exists()
