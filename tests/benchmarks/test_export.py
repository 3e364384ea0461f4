"""The exports: shards, ratios, the table, one run in small."""

from __future__ import annotations

import torch
from safetensors import safe_open

from benchmarks import export, harness, record
from benchmarks.machine import Machine
from benchmarks.models import MODELS
from benchmarks.record import Case, Run, Settings


def _found(export_s: float, peak_mb: float) -> dict[str, float]:
    return {
        "load_s": 1.0,
        "export_s": export_s,
        "save_s": 0.5,
        "base_mb": 100.0,
        "peak_mb": peak_mb,
        "weights_mb": 200.0,
        "peak_per_weight": (peak_mb - 100.0) / 200.0,
        "nodes": 7,
    }


def test_speeds_are_paired_with_torchs_of_the_same_round():
    found = {
        export.THEIRS: [_found(10.0, 400.0), _found(20.0, 400.0)],
        export.OURS: [_found(2.0, 320.0), _found(4.0, 320.0)],
    }
    times = {export.THEIRS: [30.0, 40.0], export.OURS: [15.0, 20.0]}
    row = export.row_of(export.OURS, found, times, 1e-6)
    assert row.median("times_faster") == 5.0
    assert row.median("run_times_faster") == 2.0
    assert row.median("peak_per_weight") == 1.1
    assert row.facts == {"nodes": 7, "weights_mb": 200.0, "error": 1e-6}


def test_the_table_has_a_row_for_each_exporter_and_ratios_for_ours():
    found = {export.THEIRS: [_found(10.0, 400.0)], export.OURS: [_found(2.0, 320.0)]}
    rows = tuple(export.row_of(name, found, {}, 1e-6) for name in found)
    run = Run(
        "2026-01-02T03:04:05+00:00",
        "",
        Settings(threads=2, rounds=1, backends=tuple(found)),
        Machine("Some CPU", 2, "Linux x86_64", None),
        {"torch": "2.13.0"},
        (Case("a", rows=rows),),
    )
    lines = [line for line in export.page(run).splitlines() if line.startswith("| a ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0][:5] == ["a", "torch.onnx", "10 s", "", "0.5 s"]
    assert cells[1][:7] == ["a", "dynamo_onnx", "2 s", "5.00×", "0.5 s", "320 MB", "1.1"]


def test_shards_hold_every_weight_once(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "SHARD_MB", 0.1)
    export.write_shards("llama-30x576", tmp_path, Settings(threads=1, small=True))
    module = MODELS["llama-30x576"].build(small=True).module
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 1
    names: list[str] = []
    for file in files:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - no mapping
                names.append(name)
                assert torch.equal(opened.get_tensor(name), module.state_dict()[name])
    assert len(names) == len(set(names))
    assert {n for n, _ in module.named_parameters()} <= set(names)


def test_a_small_model_is_exported_by_each_from_the_command_line(tmp_path):
    out = tmp_path / "run.json"
    argv = ["--small", "--cases", "llama-30x576 dynamic", "--rounds", "1", "--limit-s", "1"]
    assert harness.main(export.BENCHMARK, [*argv, "--out", str(out)]) == 0
    (case,) = record.read(out, Run).cases
    assert {row.contender for row in case.rows} == {export.THEIRS, export.OURS, export.FAKE}
    assert all(row.facts["error"] < 1e-5 for row in case.rows)
    assert all(row.values["run_ms"].median > 0 for row in case.rows)
    assert out.with_suffix(".png").exists()
