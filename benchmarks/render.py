"""The inference benchmark's table, picture and README section."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from .record import BackendResult, ModelResult, Sweep

LABELS = {"eager": "eager", "inductor": "inductor", "onnx": "onnx", "raw": "raw session"}
LEGEND = {
    "inductor": "inductor",
    "onnx": "onnx (this project)",
    "raw": "plain session on torch.onnx.export's model",
}
BUSY_SHARE = 0.1  # of the CPU time, taken by others: beyond it a model's figures are not trusted
COLOURS = {
    "inductor": "#E69F00",
    "onnx": "#0072B2",
    "raw": "#999999",
}  # Okabe-Ito: colour-blind safe


def _result(model: ModelResult, backend: str) -> BackendResult | None:
    return next((result for result in model.backends if result.backend == backend), None)


def speedups(sweep: Sweep, backend: str) -> list[float | None]:
    """Over eager, one per model; None where it was not measured."""
    results = (_result(model, backend) for model in sweep.models)
    return [None if result is None else result.speedup for result in results]


def common_geometric_means(sweep: Sweep) -> tuple[dict[str, float], int]:
    """Of the speed-ups of each backend, over the models that all backends ran, and their number."""
    table = {backend: speedups(sweep, backend) for backend in sweep.settings.backends}
    rows = [row for row in zip(*table.values(), strict=True) if None not in row]
    if not rows:
        return {}, 0
    columns = zip(*rows, strict=True)
    means = {
        backend: math.exp(sum(math.log(value) for value in column if value) / len(rows))
        for backend, column in zip(table, columns, strict=True)
    }
    return means, len(rows)


def _milliseconds(value: float) -> str:
    """Three digits, and all of those before the point."""
    return f"{value:.0f} ms" if value >= 100 else f"{value:.3g} ms"


def _time_cell(result: BackendResult | None) -> str:
    if result is None:
        return ""
    if result.time_ms is None or result.speedup is None:
        return "failed"
    shown = _milliseconds(result.time_ms.median)
    return shown if result.backend == "eager" else f"{shown} ({result.speedup:.2f}×)"


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


def _busy(model: ModelResult) -> bool:
    shares = (model.load.others_share, model.load.stolen_share) if model.load else ()
    return sum(share for share in shares if share is not None) > BUSY_SHARE


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def table(sweep: Sweep) -> str:
    """Markdown: a row per model, the geometric mean, and what the reader needs to judge it."""
    backends = sweep.settings.backends
    compilers = [backend for backend in ("inductor", "onnx") if backend in backends]
    header = ["model", *(LABELS[backend] for backend in backends), "capture"]
    header += [f"{backend} compile" for backend in compilers]
    if "onnx" in backends:
        header += ["onnx max error", "regions / eager ops"]
    lines = [_row(header), _row(["---", *["---:"] * (len(header) - 1)])]
    for model in sweep.models:
        cells = [f"{model.model} (busy)" if _busy(model) else model.model]
        cells += [_time_cell(_result(model, backend)) for backend in backends]
        cells.append("" if model.capture_s is None else f"{model.capture_s:.1f} s")
        cells += [_compile_cell(_result(model, backend)) for backend in compilers]
        if "onnx" in backends:
            ours = _result(model, "onnx")
            cells += [_error_cell(ours), _regions_cell(ours)]
        lines.append(_row(cells))
    means, count = common_geometric_means(sweep)
    if count > 1:
        cells = [f"**geometric mean of {count}**"]
        cells += ["" if name == "eager" else f"**{means[name]:.2f}×**" for name in backends]
        lines.append(_row(cells + [""] * (len(header) - len(cells))))
    return "\n".join([*lines, "", *_failures(sweep), conditions(sweep)])


def _failures(sweep: Sweep) -> list[str]:
    found = [(model.model, model.error) for model in sweep.models]
    found += [
        (f"{model.model}, {result.backend}", result.error)
        for model in sweep.models
        for result in model.backends
    ]
    lines = [f"- {where}: `{error}`" for where, error in found if error is not None]
    return ["Failed:", "", *lines, ""] if lines else []


def conditions(sweep: Sweep) -> str:
    """One paragraph: what was measured, on what, and how quiet it was."""
    settings, machine = sweep.settings, sweep.machine
    loads = [model.load for model in sweep.models if model.load is not None]
    shares = [load.others_share for load in loads if load.others_share is not None]
    stolen = [load.stolen_share for load in loads if load.stolen_share is not None]
    hardware = machine.gpu or f"{machine.cpu}, {machine.cores} cores"
    packages = ("torch", "onnxruntime", "onnxruntime-gpu", "transformers")
    named = ", ".join(
        f"{name} {sweep.versions[name]}" for name in packages if name in sweep.versions
    )
    text = (
        f"Medians of up to {settings.rounds} interleaved rounds, batch {settings.batch}, "
        f"{settings.dtype}, random weights; {hardware}, {settings.threads} threads, "
        f"{sweep.sgemm_gflops:.0f} GFLOP/s in sgemm; {named}; {sweep.date[:10]}. "
        "× is eager's time over the backend's, the median of the rounds' ratios. "
        "Capture is the first call of `aot_eager` (Dynamo, AOTAutograd and one run), compile is "
        "the first call less that. The raw session runs what `torch.onnx.export` writes. "
        "The error is max|onnx - eager| / max|eager|."
    )
    if shares and stolen:
        text += (
            f" Other processes took at most {max(shares):.0%} of the CPU time during a model's "
            f"rounds, the hypervisor {max(stolen):.0%}."
        )
    if any(_busy(model) for model in sweep.models):
        text += (
            f" **Busy** rows lost more than {BUSY_SHARE:.0%} of it to others, which slows the "
            "backends down unequally: do not trust them."
        )
    return text


def picture(sweep: Sweep, path: Path) -> None:
    """Bars of the speed-up over eager, a group per model and one for the geometric mean.

    The thin lines on the bars reach from the lower to the upper quartile of the rounds.
    """
    import matplotlib as mpl

    mpl.use("Agg")  # draws into files, needs no screen
    import matplotlib.pyplot as plt

    backends = [backend for backend in sweep.settings.backends if backend != "eager"]
    means, count = common_geometric_means(sweep)
    groups = [model.model for model in sweep.models]
    groups += [f"geometric mean of {count}"] if count > 1 else []
    thick = 0.8 / max(1, len(backends))
    height = len(groups) * max(0.35, 0.2 * len(backends)) + 2.0  # inches
    figure, axes = plt.subplots(figsize=(8, height), layout="constrained")
    for position, backend in enumerate(backends):
        spreads = [_spread(_result(model, backend)) for model in sweep.models]
        if count > 1:
            spreads.append((0.0, means[backend], 0.0))
        lower, lengths, upper = zip(*spreads, strict=True)
        shift = (position - (len(backends) - 1) / 2) * thick
        bars = axes.barh(
            [row + shift for row in range(len(groups))],
            lengths,
            thick * 0.92,
            xerr=(lower, upper),
            error_kw={"elinewidth": 0.8, "ecolor": "#333333"},
            color=COLOURS[backend],
            label=LEGEND[backend],
        )
        texts = [f"{length:.2f}" if length else "failed" for length in lengths]
        weight = "bold" if backend == "onnx" else "normal"
        axes.bar_label(bars, texts, padding=4, fontsize=8, fontweight=weight)
    axes.axvline(1.0, color="black", linewidth=1, linestyle="--")
    axes.text(1.0, -0.65, " eager", fontsize=8, va="top")
    axes.set_yticks(range(len(groups)), groups)
    if count > 1:
        axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.set_ylim(len(groups) - 0.4, -0.7)
    axes.margins(x=0.08)
    axes.set_xlabel("speed-up over eager (×), longer is faster")
    settings = sweep.settings
    where = sweep.machine.gpu or f"{sweep.machine.cpu}, {settings.threads} threads"
    title = f"One forward pass, batch {settings.batch}, {settings.dtype}; {where}"
    axes.set_title(title, fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _spread(result: BackendResult | None) -> tuple[float, float, float]:
    """The speed-up, between its distances to its lower and to its upper quartile; zeros if none."""
    if result is None or result.ratio is None:
        return 0.0, 0.0, 0.0
    slow, middle, fast = 1 / result.ratio.q3, 1 / result.ratio.median, 1 / result.ratio.q1
    return middle - slow, middle, fast - middle


def replace_between(text: str, section: str, body: str) -> str:
    """`text` with what stands between the two markers of `section` replaced by `body`."""
    begin, end = f"<!-- bench:{section}:begin -->", f"<!-- bench:{section}:end -->"
    for marker in (begin, end):
        if text.count(marker) != 1:
            raise ValueError(
                f"expected {marker} once in the text, found it {text.count(marker)} times"
            )
    head, rest = text.split(begin)
    if end not in rest:
        raise ValueError(f"{end} stands before {begin}")
    _, tail = rest.split(end)
    return f"{head}{begin}\n{body.strip()}\n{end}{tail}"


def update_readme(readme: Path, sweep: Sweep, image: Path) -> None:
    """Put the picture and the table between the README's `bench:inference` markers."""
    link = image.resolve().relative_to(readme.resolve().parent).as_posix()
    body = f"![Speed-up over eager per model and backend]({link})\n\n{table(sweep)}"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(replace_between(text, "inference", body), encoding="utf-8")
