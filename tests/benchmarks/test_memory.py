"""The memory: how it is read, the ratios, the table, one run in small."""

from __future__ import annotations

import sys
import time

import pytest

from benchmarks import harness, memory, record
from benchmarks.machine import Machine
from benchmarks.measure import Quartiles
from benchmarks.record import Case, Row, Run, Settings


def _run(*cases: Case) -> Run:
    settings = Settings(threads=2, rounds=3, backends=("eager", "onnx frozen"))
    machine = Machine("Some CPU", 2, "Linux x86_64", None)
    return Run("2026-01-02T03:04:05+00:00", "", settings, machine, {"torch": "2.13.0"}, cases)


def _exact(value: float) -> Quartiles:
    return Quartiles(value, value, value, 3)


def _rows(page: str) -> list[list[str]]:
    """The cells of a page's table rows, its headers among them."""
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines]


def test_resident_memory_is_read_in_megabytes_of_ten_to_the_six(tmp_path):
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmHWM:\t   2000 kB\nVmRSS:\t   1000 kB\nnothing\n")
    assert memory.resident_mb(status) == {"now": 1.024, "peak": 2.048}


def test_without_a_proc_the_peak_alone_is_known(tmp_path):
    found = memory.resident_mb(tmp_path / "absent")
    assert set(found) == {"peak"}
    assert 10 < found["peak"] < 100_000


def test_a_devices_peak_is_what_any_reading_found():
    readings = iter([3.0, 8.0, *[2.0] * 10_000])
    meter = memory.DeviceMemory(lambda: next(readings), every_s=0.0005)
    while meter.read()["peak"] < 8.0:
        time.sleep(0.001)
    meter.close()
    assert meter.read() == {"now": 2.0, "peak": 8.0}


def test_the_peaks_ratio_to_eagers_is_paired_by_round():
    eager = [{"peak_mb": 100.0}, {"peak_mb": 200.0}]
    row = memory.row_of("onnx frozen", [{"peak_mb": 150.0}, {"peak_mb": 300.0}], eager)
    assert row.values["ratio"] == Quartiles(1.5, 1.5, 1.5, 2)
    assert set(row.values) == {"peak_mb", "ratio"}
    assert "ratio" not in memory.row_of("onnx frozen", eager, None).values


def test_the_table_shows_the_peak_with_its_ratio_and_what_stays():
    kept = {"base_mb": _exact(90.0), "steady_mb": _exact(110.0), "after_mb": _exact(95.0)}
    eager = Row("eager", {"peak_mb": _exact(120.0), **kept})
    ours = Row("onnx frozen", {"peak_mb": _exact(180.0), "ratio": _exact(1.5)})
    _, _, row = _rows(memory.page(_run(Case("a", rows=(eager, ours)))))
    assert row == ["a", "90 MB", "120 MB", "180 MB (1.50×)", "110 / 95", ""]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_small_model_is_measured_from_the_command_line(tmp_path):
    out = tmp_path / "run.json"
    argv = ["--small", "--cases", "resnet50", "--backends", "onnx live", "--rounds", "1"]
    assert harness.main(memory.BENCHMARK, [*argv, "--out", str(out)]) == 0
    (case,) = record.read(out, Run).cases
    (row,) = case.rows
    assert row.values["peak_mb"].median >= row.values["steady_mb"].median > 0
    assert row.values["after_mb"].median > 0
    assert out.with_suffix(".png").exists()
