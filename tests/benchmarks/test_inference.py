"""The inference benchmark: its record, table and README section, and one run in small."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks import inference, inference_report, record
from benchmarks.inference_report import BackendResult, ModelResult, Settings, Sweep
from benchmarks.machine import Load, Machine
from benchmarks.measure import Quartiles


def _spread(value: float) -> Quartiles:
    return Quartiles(value * 0.9, value, value * 1.1, 20)


def _timed(backend: str, time_ms: float, eager_ms: float, **rest) -> BackendResult:
    spreads = {"time_ms": _spread(time_ms), "ratio": _spread(time_ms / eager_ms)}
    return BackendResult(backend, first_call_s=1.0, max_error=2e-6, **spreads, **rest)


@pytest.fixture
def run() -> Sweep:
    ours = {"own_compile_s": 1.5, "report": {"regions": 1, "eager_ops": 0}}
    models = (
        ModelResult(
            "one",
            parameters=10,
            capture_s=3.0,
            load=Load(0.1, 0.2, 0.03, 0.0),
            backends=(_timed("eager", 1200, 1200), _timed("onnx", 300, 1200, **ours)),
        ),
        ModelResult("two", backends=(_timed("eager", 8, 8), _timed("onnx", 8, 8, **ours))),
        ModelResult(
            "three",
            backends=(_timed("eager", 5, 5), BackendResult("onnx", error="SessionError: no")),
        ),
        ModelResult("four", error="the process died"),
    )
    return Sweep(
        date="2026-01-02T03:04:05+00:00",
        command="python -m benchmarks.inference",
        settings=Settings(models=("one", "two", "three", "four"), backends=("eager", "onnx")),
        machine=Machine("Some CPU", 2, "Linux x86_64", None),
        versions={"torch": "2.13.0"},
        sgemm_gflops=145.2,
        models=models,
    )


def test_a_record_read_back_is_the_one_written(run, tmp_path):
    path = tmp_path / "results" / "run.json"
    record.write(run, path)
    assert record.read(path, Sweep) == run
    assert list(path.parent.iterdir()) == [path]


def test_the_speed_up_is_the_inverse_of_the_median_ratio(run):
    assert inference_report.speedups(run, "onnx") == [4.0, 1.0, None, None]


def test_the_geometric_mean_covers_the_models_that_every_backend_ran(run):
    means, count = inference_report.common_geometric_means(run)
    assert count == 2
    assert means == pytest.approx({"eager": 1.0, "onnx": 2.0})


def test_the_table_has_a_row_per_model_and_tells_what_failed(run):
    rows = {
        row.split(" | ")[0].strip("| *"): row
        for row in inference_report.table(run).splitlines()
        if row.startswith("| ")
    }
    assert rows["one"] == "| one | 1200 ms | 300 ms (4.00×) | 3.0 s | 1.5 s | 2e-06 | 1 / 0 |"
    assert "failed" in rows["three"]
    assert rows["geometric mean of 2"].count("**2.00×**") == 1
    assert len({row.count("|") for row in rows.values()}) == 1
    assert "- three, onnx: `SessionError: no`" in inference_report.table(run)
    assert "- four: `the process died`" in inference_report.table(run)


def test_a_model_measured_beside_other_work_is_marked(run):
    assert "(busy)" not in inference_report.table(run)
    assert "Busy" not in inference_report.conditions(run)
    noisy = replace(run.models[0], load=Load(0.1, 2.0, 0.4, 0.0))
    disturbed = replace(run, models=(noisy, *run.models[1:]))
    assert inference_report.table(disturbed).count("| one (busy) |") == 1
    assert "do not trust" in inference_report.conditions(disturbed)


def test_the_conditions_name_the_machine_and_how_quiet_it_was(run):
    text = inference_report.conditions(run)
    assert "Some CPU, 2 cores" in text
    assert "145 GFLOP/s" in text
    assert "at most 3%" in text


def test_the_share_of_the_machines_limits_is_that_of_the_flops_and_of_the_weights(run):
    limited = replace(run.models[0], flops=3 * 10**9, parameter_bytes=6 * 10**9)
    run = replace(run, models=(limited, *run.models[1:]), sgemm_gflops=100.0, copy_gb_s=40.0)
    # 300 ms: 10 GFLOP/s of 100, 20 GB/s of 40
    assert inference_report.compute_share(run, limited, "onnx") == pytest.approx(0.1)
    assert inference_report.memory_share(run, limited, "onnx") == pytest.approx(0.5)
    assert "| 10% / 50% |" in inference_report.table(run)


def test_results_from_before_the_limits_were_measured_have_no_column_for_them(run):
    assert inference_report.compute_share(run, run.models[0], "onnx") is None
    assert "of sgemm / of copy" not in inference_report.table(run)


def test_an_unknown_model_ends_with_the_known_ones(capsys):
    with pytest.raises(SystemExit):
        inference.main(["--models", "bert"])
    assert "bert-base" in capsys.readouterr().err


def test_a_small_model_is_measured_in_a_process_of_its_own():
    settings = Settings(
        threads=torch.get_num_threads(), rounds=3, small=True, backends=("eager", "raw")
    )
    result = inference.measured_apart("resnet50", settings)
    assert result.error is None
    eager, raw = result.backends
    assert eager.ratio == Quartiles(1.0, 1.0, 1.0, 3)
    assert eager.max_error == 0
    assert raw.error is None
    assert raw.max_error is not None
    assert raw.max_error < 1e-4
    assert result.flops is not None
    assert result.flops > result.parameters


def test_a_model_that_cannot_be_measured_is_recorded_and_not_raised():
    result = inference.measured_apart("resnet50", Settings(small=True, backends=("raw",)))
    assert result.error is not None
    assert result.error.startswith("RuntimeError: ")
