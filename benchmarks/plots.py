"""The pictures of the benchmarks: groups of bars, and lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from .measure import Quartiles
from .record import Case

COLOURS = {  # Okabe and Ito's, which the colour-blind can tell apart
    "eager": "#000000",
    "aot_eager": "#CC79A7",
    "inductor": "#E69F00",
    "inductor-freezing": "#D55E00",
    "onnx": "#0072B2",
    "onnx frozen": "#0072B2",
    "onnx live": "#56B4E9",
    "onnx int8": "#56B4E9",
    "onnx int4": "#009E73",
    "inductor-reduce-overhead": "#F0E442",
    "onnx-reduce-overhead": "#56B4E9",
    "raw": "#999999",
    "bare": "#999999",
    "torch.onnx": "#E69F00",
    "dynamo_onnx": "#0072B2",
    "dynamo_onnx fake": "#56B4E9",
    "compile": "#0072B2",
    "cache": "#56B4E9",
    "bundle": "#009E73",
}
LEGEND = {
    "onnx": "onnx (this project)",
    "raw": "plain session on torch.onnx.export's model",
    "bare": "the same session alone",
    "compile": "torch.compile",
    "cache": "torch.compile, cache_dir filled",
    "bundle": "the bundle, without torch",
}
OURS = "onnx"
Line: TypeAlias = "Sequence[tuple[float, Quartiles]]"


class Spread(NamedTuple):
    """A bar's length, and its distances to the lower and to the upper quartile."""

    lower: float
    length: float
    upper: float


NOTHING = Spread(0.0, 0.0, 0.0)


def spread(quartiles: Quartiles | None) -> Spread:
    """Of the measured values; NOTHING if there are none."""
    if quartiles is None:
        return NOTHING
    middle = quartiles.median
    return Spread(middle - quartiles.q1, middle, quartiles.q3 - middle)


def inverse_spread(quartiles: Quartiles | None) -> Spread:
    """Of the values' inverses, such as the speed-ups of ratios of times."""
    if quartiles is None:
        return NOTHING
    slow, middle, fast = 1 / quartiles.q3, 1 / quartiles.median, 1 / quartiles.q1
    return Spread(middle - slow, middle, fast - middle)


def by_contender(
    cases: Sequence[Case], contenders: Sequence[str], value: str
) -> dict[str, list[Spread]]:
    """A value of every case, as `bars` takes it."""
    rows = {contender: [case.row(contender) for case in cases] for contender in contenders}
    return {
        contender: [spread(row.values.get(value) if row else None) for row in found]
        for contender, found in rows.items()
    }


def bars(
    path: Path,
    groups: Sequence[str],
    series: Mapping[str, Sequence[Spread]],
    *,
    title: str,
    label: str,
    digits: str = ".2f",
    line: tuple[float, str] | None = None,
    bold_last: bool = False,
    logarithmic: bool = False,
) -> None:
    """A group of bars for each of `groups`, in it a bar for each contender of `series`.

    The thin lines on the bars reach from the lower to the upper quartile of the rounds; `line` is
    drawn across, at a value and with a name.
    """
    plt = _pyplot()
    thick = 0.8 / max(1, len(series))
    height = len(groups) * max(0.35, 0.2 * len(series)) + 2.0  # inches
    figure, axes = plt.subplots(figsize=(8, height), layout="constrained")
    if logarithmic:
        axes.set_xscale("log")
    for position, (contender, spreads) in enumerate(series.items()):
        lower, lengths, upper = zip(*spreads, strict=True)
        shift = (position - (len(series) - 1) / 2) * thick
        drawn = axes.barh(
            [row + shift for row in range(len(groups))],
            lengths,
            thick * 0.92,
            xerr=(lower, upper),
            error_kw={"elinewidth": 0.8, "ecolor": "#333333"},
            color=COLOURS[contender],
            label=LEGEND.get(contender, contender),
        )
        texts = [f"{length:{digits}}" if length else "failed" for length in lengths]
        weight = "bold" if contender == OURS else "normal"
        axes.bar_label(drawn, texts, padding=4, fontsize=8, fontweight=weight)
    if line is not None:
        axes.axvline(line[0], color="black", linewidth=1, linestyle="--")
        axes.text(line[0], -0.65, f" {line[1]}", fontsize=8, va="top")
    axes.set_yticks(range(len(groups)), groups)
    if bold_last:
        axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.set_ylim(len(groups) - 0.4, -0.7)
    axes.margins(x=0.08)
    axes.set_xlabel(label)
    _finish(plt, figure, [axes], title, path)


def lines(
    path: Path,
    panels: Mapping[str, Mapping[str, Line]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    logarithmic: bool = True,
) -> None:
    """A panel per entry, in it a line per contender with the quartiles as a band."""
    plt = _pyplot()
    figure, grid = plt.subplots(
        1, len(panels), figsize=(4 * len(panels) + 1, 4), layout="constrained", squeeze=False
    )
    for axes, (name, series) in zip(grid[0], panels.items(), strict=True):
        ticks = sorted({x for points in series.values() for x, _ in points})
        for contender, points in series.items():
            xs = [x for x, _ in points]
            colour = COLOURS[contender]
            shown = LEGEND.get(contender, contender)
            axes.plot(xs, [q.median for _, q in points], "o-", ms=3, color=colour, label=shown)
            axes.fill_between(
                xs, [q.q1 for _, q in points], [q.q3 for _, q in points], color=colour, alpha=0.2
            )
        if logarithmic:
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_title(name, fontsize=9)
        axes.set_xlabel(x_label)
    grid[0][0].set_ylabel(y_label)
    _finish(plt, figure, grid[0], title, path)


def _pyplot() -> Any:  # noqa: ANN401 - a module
    import matplotlib as mpl

    mpl.use("Agg")  # draws into files, needs no screen
    import matplotlib.pyplot as plt

    return plt


def _finish(plt: Any, figure: Any, all_axes: Sequence[Any], title: str, path: Path) -> None:  # noqa: ANN401 - matplotlib's
    """Title, legend (of the first axes, which hold every contender), and the file."""
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    handles, labels = all_axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
