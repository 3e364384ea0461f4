"""The inference benchmark's record, its table and its picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import plots, render
from .machine import Load, Machine
from .measure import Quartiles, geometric_mean


@dataclass(frozen=True, slots=True)
class Settings:
    """What was asked for."""

    device: str = "cpu"
    dtype: str = "float32"
    batch: int = 1
    threads: int = 1
    rounds: int = 20
    limit_s: float = 60.0  # for the rounds of one model
    small: bool = False
    models: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BackendResult:
    """One backend on one model; a None was not measured, and `error` says why if it failed."""

    backend: str
    first_call_s: float | None = None  # make ready, compile and run once
    own_compile_s: float | None = None  # first_call_s less the model's capture_s
    time_ms: Quartiles | None = None
    ratio: Quartiles | None = None  # its time over eager's, round by round
    max_error: float | None = None  # max|output - eager's| / max|eager's|
    report: dict[str, Any] | None = None
    error: str | None = None

    @property
    def speedup(self) -> float | None:
        return None if self.ratio is None else 1 / self.ratio.median


@dataclass(frozen=True, slots=True)
class ModelResult:
    """One model. `capture_s` is the first call of `aot_eager`: Dynamo, AOTAutograd and one run.

    `flops` are those of one call's matrix products, convolutions and attention; `parameter_bytes`
    is what a call reads of weights at least.
    """

    model: str
    parameters: int | None = None
    capture_s: float | None = None
    load: Load | None = None
    backends: tuple[BackendResult, ...] = ()
    error: str | None = None
    flops: int | None = None
    parameter_bytes: int | None = None

    def result(self, backend: str) -> BackendResult | None:
        return next((result for result in self.backends if result.backend == backend), None)


@dataclass(frozen=True, slots=True)
class Sweep:
    """One run of the benchmark."""

    date: str
    command: str
    settings: Settings
    machine: Machine
    versions: dict[str, str]
    sgemm_gflops: float
    models: tuple[ModelResult, ...] = ()
    copy_gb_s: float | None = None


def speedups(sweep: Sweep, backend: str) -> list[float | None]:
    """Over eager, one per model; None where it was not measured."""
    results = (model.result(backend) for model in sweep.models)
    return [None if result is None else result.speedup for result in results]


def common_geometric_means(sweep: Sweep) -> tuple[dict[str, float], int]:
    """Of the speed-ups of each backend, over the models that all backends ran, and their number."""
    names = sweep.settings.backends
    columns = [speedups(sweep, backend) for backend in names]
    rows = [[value for value in row if value is not None] for row in zip(*columns, strict=True)]
    full = [row for row in rows if len(row) == len(names)]
    means = (geometric_mean(column) for column in zip(*full, strict=True))
    found = {name: mean for name, mean in zip(names, means, strict=False) if mean is not None}
    return found, len(full)


def compute_share(sweep: Sweep, model: ModelResult, backend: str) -> float | None:
    """Of the rate of sgemm that the backend's call reaches, by the model's FLOPs."""
    result = model.result(backend)
    if result is None or result.time_ms is None or model.flops is None:
        return None
    return model.flops / (result.time_ms.median * 1e6) / sweep.sgemm_gflops


def memory_share(sweep: Sweep, model: ModelResult, backend: str) -> float | None:
    """Of the bandwidth of a copy that the backend's call reaches, by the weights it must read."""
    result = model.result(backend)
    if result is None or result.time_ms is None or model.parameter_bytes is None:
        return None
    if sweep.copy_gb_s is None:
        return None
    return model.parameter_bytes / (result.time_ms.median * 1e6) / sweep.copy_gb_s


def _time_cell(result: BackendResult | None) -> str:
    if result is None:
        return ""
    if result.time_ms is None or result.speedup is None:
        return "failed"
    ratio = None if result.backend == "eager" else result.speedup
    return render.with_times(result.time_ms.median, "ms", ratio)


def _compile_cell(result: BackendResult | None) -> str:
    if result is None or result.own_compile_s is None:
        return ""
    return f"{result.own_compile_s:.1f} s"


def _error_cell(result: BackendResult | None) -> str:
    return "" if result is None or result.max_error is None else f"{result.max_error:.0e}"


def _regions_cell(result: BackendResult | None) -> str:
    if result is None or result.report is None:
        return ""
    return f"{result.report['regions']} / {result.report['eager_ops']}"


def _limit_cell(sweep: Sweep, model: ModelResult) -> str:
    shares = (compute_share(sweep, model, "onnx"), memory_share(sweep, model, "onnx"))
    return " / ".join(f"{share:.0%}" for share in shares if share is not None)


def table(sweep: Sweep) -> str:
    """Markdown: a row per model, the geometric mean, and what the reader needs to judge it."""
    backends = sweep.settings.backends
    ours = "onnx" in backends
    limits = ours and any(_limit_cell(sweep, model) for model in sweep.models)
    compilers = [backend for backend in ("inductor", "onnx") if backend in backends]
    header = ["model", *(render.label(backend) for backend in backends), "capture"]
    header += [f"{backend} compile" for backend in compilers]
    header += ["onnx max error", "regions / eager ops"] if ours else []
    header += ["onnx of sgemm / of copy"] if limits else []
    rows: list[list[str]] = []
    for model in sweep.models:
        cells = [model.model + render.busy_mark(model.load)]
        cells += [_time_cell(model.result(backend)) for backend in backends]
        cells.append("" if model.capture_s is None else f"{model.capture_s:.1f} s")
        cells += [_compile_cell(model.result(backend)) for backend in compilers]
        if ours:
            cells += [_error_cell(model.result("onnx")), _regions_cell(model.result("onnx"))]
        cells += [_limit_cell(sweep, model)] if limits else []
        rows.append(cells)
    means, count = common_geometric_means(sweep)
    if count > 1:
        cells = [f"**geometric mean of {count}**"]
        rows.append(cells + ["" if n == "eager" else f"**{means[n]:.2f}×**" for n in backends])
    shown = render.table(header, rows)
    return "\n".join([shown, "", *_failures(sweep), conditions(sweep)])


def _failures(sweep: Sweep) -> list[str]:
    found = [(model.model, model.error) for model in sweep.models]
    found += [
        (f"{m.model}, {result.backend}", result.error)
        for m in sweep.models
        for result in m.backends
    ]
    return render.failures(found)


def conditions(sweep: Sweep) -> str:
    """One paragraph: what was measured, on what, and how quiet it was."""
    settings = sweep.settings
    text = (
        f"Medians of up to {settings.rounds} interleaved rounds, batch {settings.batch}, "
        f"{settings.dtype}, random weights; "
        f"{render.hardware(sweep.machine, settings.threads)}, "
        f"{sweep.sgemm_gflops:.0f} GFLOP/s in sgemm; "
        f"{render.packages(sweep.versions)}; {sweep.date[:10]}. "
        "× is eager's time over the backend's, the median of the rounds' ratios. "
        "Capture is the first call of `aot_eager` (Dynamo, AOTAutograd and one run), compile is "
        "the first call less that. The raw session runs what `torch.onnx.export` writes. "
        "The error is max|onnx - eager| / max|eager|."
    )
    if sweep.copy_gb_s is not None:
        text += (
            " The last column is how near a call comes to what the machine can do: the model's "
            "FLOPs per second over those of sgemm, and the bytes of its parameters per second over "
            f"the {sweep.copy_gb_s:.0f} GB/s that a large copy reads and writes."
        )
    text += render.quietness([model.load for model in sweep.models], "model")
    return text + (render.SMALL if settings.small else "")


def picture(sweep: Sweep, path: Path) -> None:
    """Bars of the speed-up over eager, a group per model and one for the geometric mean."""
    means, count = common_geometric_means(sweep)
    groups = [model.model for model in sweep.models]
    groups += [f"geometric mean of {count}"] if count > 1 else []
    series: dict[str, list[plots.Spread]] = {}
    for backend in sweep.settings.backends:
        if backend == "eager":
            continue
        results = [model.result(backend) for model in sweep.models]
        series[backend] = [plots.inverse_spread(r.ratio if r else None) for r in results]
        if count > 1:
            series[backend].append(plots.Spread(0.0, means[backend], 0.0))
    settings = sweep.settings
    where = sweep.machine.gpu or f"{sweep.machine.cpu}, {settings.threads} threads"
    plots.bars(
        path,
        groups,
        series,
        title=f"One forward pass, batch {settings.batch}, {settings.dtype}; {where}",
        label="speed-up over eager (×), longer is faster",
        line=(1.0, "eager"),
        bold_last=count > 1,
    )
