"""The training step: the table, the same model each time, one run in small."""

from __future__ import annotations

import torch

from benchmarks import harness, record, training
from benchmarks.machine import Machine
from benchmarks.measure import Quartiles
from benchmarks.record import Case, Row, Run, Settings


def _exact(value: float) -> Quartiles:
    return Quartiles(value, value, value, 3)


def test_the_table_has_speeds_compile_times_and_memory():
    settings = Settings(threads=2, rounds=3, backends=("eager", "onnx", "aot_eager"))
    eager = Row("eager", {"step_ms": _exact(30.0), "ratio": _exact(1.0), "peak_mb": _exact(200.0)})
    values = {"step_ms": _exact(20.0), "ratio": _exact(0.5), "own_compile_s": _exact(0.25)}
    ours = Row(
        "onnx",
        {**values, "peak_mb": _exact(220.0)},
        {"regions": 3, "eager_ops": 2, "loss": 1.5},
    )
    eager.facts["loss"] = 1.25
    machine = Machine("Some CPU", 2, "Linux x86_64", None)
    run = Run(
        "2026-01-02T03:04:05+00:00", "", settings, machine, {}, (Case("a", rows=(eager, ours)),)
    )
    lines = [line for line in training.page(run).splitlines() if line.startswith("| ")]
    cells = [cell.strip(" *") for cell in lines[2].strip("|").split("|")]
    assert cells == [
        "a",
        "30 ms",
        "20 ms (2.00×)",
        "0.25 s",
        "200 MB",
        "220 MB (1.10×)",
        "3 / 2",
        "2e-01",
    ]
    means = [cell.strip(" *") for cell in lines[3].strip("|").split("|")]
    assert means[:3] == ["geometric mean", "", "2.00×"]


def test_each_contender_trains_the_same_model():
    first, second = (training.build("resnet18", small=True) for _ in range(2))
    assert first[0].training
    torch.testing.assert_close(dict(first[0].state_dict()), dict(second[0].state_dict()))
    torch.testing.assert_close(first[1], second[1])


def test_a_small_model_is_trained_from_the_command_line(tmp_path):
    out = tmp_path / "run.json"
    argv = ["--small", "--cases", "resnet18", "--backends", "eager,onnx", "--rounds", "1"]
    assert harness.main(training.BENCHMARK, [*argv, "--out", str(out)]) == 0
    (case,) = record.read(out, Run).cases
    ours, eager = case.row("onnx"), case.row("eager")
    assert ours is not None
    assert eager is not None
    assert ours.facts["eager_ops"] == 0
    assert abs(ours.facts["loss"] - eager.facts["loss"]) < 1e-4
    assert ours.values["step_ms"].median > 0
