"""The first answer: what is taken from what, the table, one run in small."""

from __future__ import annotations

import pytest

from benchmarks import bundle, harness, record
from benchmarks.machine import Machine
from benchmarks.measure import Quartiles
from benchmarks.record import Case, Row, Run, Settings

TIMINGS = {"partition_ms": 1.0, "lowering_ms": 4.0, "session_ms": 10.0}


def _start(import_s: float, answer_s: float, *, compiled: bool = True) -> dict:
    report = {"graphs": 1, "timings": TIMINGS} if compiled else None
    return {"import_s": import_s, "answer_s": answer_s, "error": 1e-6, "report": report}


def _run(*cases: Case) -> Run:
    settings = Settings(threads=2, rounds=2, backends=bundle.WAYS)
    machine = Machine("Some CPU", 2, "Linux x86_64", None)
    return Run("2026-01-02T03:04:05+00:00", "", settings, machine, {"torch": "2.13.0"}, cases)


STARTS = {
    "compile": [_start(2, 10), _start(4, 20)],
    "cache": [_start(2, 4), _start(4, 8)],
    "bundle": [_start(0.5, 0.5, compiled=False), _start(1, 1, compiled=False)],
}


def test_how_many_times_as_long_the_others_took_is_paired_by_round():
    row = bundle.row_of("bundle", STARTS)
    assert row.values["compile_ratio"] == Quartiles(12, 12, 12, 2)
    assert row.values["cache_ratio"] == Quartiles(6, 6, 6, 2)
    assert row.median("total_s") == 1.5
    assert "own_ms" not in row.values


def test_what_is_ours_of_compiling_is_the_sum_of_its_parts():
    row = bundle.row_of("cache", STARTS)
    assert row.median("own_ms") == 15
    assert row.facts["graphs"] == 1


def test_the_page_has_ratios_their_mean_and_what_failed():
    rows = tuple(bundle.row_of(way, STARTS) for way in bundle.WAYS)
    whole = Case("a", {"bundle_bytes": 5_000_000}, rows=rows)
    failed = Case("b", rows=(Row("compile", error="no"), Row("cache"), Row("bundle")))
    page = bundle.page(_run(whole, failed))
    told = "| a | 5 MB | 3 s | 15 s | 3 s | 6 s | 0.75 s | 0.75 s | 12.00× | 6.00× | 1e-06 |"
    assert told in page
    assert "| **geometric mean** |  |  |  |  |  |  |  | **12.00×** | **6.00×** |  |" in page
    assert "| a | cache | 1 ms | 4 ms | 10 ms | 15 ms |" in page
    assert "- b, compile: `no`" in page


def test_an_unknown_model_is_an_error_of_the_case():
    settings = Settings(threads=1, rounds=1, backends=("bundle",))
    with pytest.raises(bundle.ProcessFailedError, match="KeyError: 'unheard-of'"):
        bundle.measure_case("unheard-of", settings)


@pytest.mark.slow
def test_a_small_model_is_measured_from_the_command_line(tmp_path):
    out = tmp_path / "run.json"
    argv = ["--small", "--cases", "bert-base", "--rounds", "1", "--out", str(out)]
    assert harness.main(bundle.BENCHMARK, argv) == 0
    (case,) = record.read(out, Run).cases
    compiled, cached, saved = (case.row(way) for way in bundle.WAYS)
    assert compiled.facts["native_ops"] == cached.facts["native_ops"] > 10
    assert cached.median("lowering_ms") < compiled.median("lowering_ms")
    assert saved.values["compile_ratio"].median > 1
    assert max(row.median("error") for row in case.rows) < 1e-4
    assert out.with_suffix(".png").exists()
