"""A report's document as text in markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from .report_document import Document, Line

_MEANS_SOMETHING = re.compile(r"([\\`*_{}\[\]<>#|~&!])")
_MOST_OPERATORS = 25


def markdown(document: Document) -> str:
    """Everything but the pictures of the graphs."""
    return "\n".join(_lines(document)) + "\n"


def _lines(document: Document) -> Iterator[str]:
    total = document.summary
    versions = ", ".join(f"{name} {number}" for name, number in document.versions.items())
    yield from ("# What was compiled", "", f"{document.made}, {versions}", "")
    spent_ms = sum(phase.ms for phase in document.phases)
    memory = document.memory
    yield from _table(
        ("", ""),
        [
            ("operators in ONNX Runtime", str(total.native_ops)),
            ("operators in eager PyTorch", str(total.eager_ops)),
            ("graphs, of guard sets", f"{total.graphs}, {total.guard_sets}"),
            ("regions, in ONNX nodes", f"{total.regions}, {total.onnx_nodes}"),
            ("graph breaks", str(total.graph_breaks)),
            ("compile time of ours", f"{spent_ms:.1f} ms"),
            *((f"… {phase.name}: {phase.what}", f"{phase.ms:.1f} ms") for phase in document.phases),
            ("runs, in sessions opened", f"{total.calls}, {total.sessions}"),
            ("weights frozen in sessions", f"{memory.frozen_bytes / 1e6:.3g} MB"),
            ("weights read at each call", f"{memory.live_bytes / 1e6:.3g} MB"),
            *((f"copies: {copy.where}", str(copy.count)) for copy in document.copies),
            *((f"nodes on {placed.provider}", str(placed.count)) for placed in document.placed),
            *(("quantized", text) for text in document.quantized),
        ],
    )
    if document.advice:
        yield from _section("What to do next")
        for number, advice in enumerate(document.advice, 1):
            code = f" {_code(advice.code)}" if advice.code else ""
            place = f" at {_text(advice.location)}" if advice.location else ""
            yield f"{number}. **{_text(advice.title)}**{place}: {_text(advice.why)}{code}"
    if document.fallbacks:
        yield from _section("What runs in eager PyTorch")
        yield from _table(
            ("operator", "why", "where", "count", "time"),
            [
                (
                    _code(f.op),
                    _text(f"{f.kind}: {f.detail}" + (f" ({f.hint})" if f.hint else "")),
                    _place(f.line),
                    str(f.count),
                    "" if f.ms is None else f"{f.ms:.3g} ms",
                )
                for f in document.fallbacks
            ],
            written=True,
        )
    if document.graph_breaks:
        yield from _section("Left to Python by Dynamo")
        rows = [(_text(each.reason), _place(each.line)) for each in document.graph_breaks]
        yield from _table(("why", "where"), rows, written=True)
    if document.times is not None:
        yield from _section("Run time by operator")
        times = document.times
        yield (
            f"{times.wall_ms:.3g} ms with the profilers on: {times.onnx_ms:.3g} in {times.runs} "
            f"runs of ONNX Runtime, {times.eager_ms:.3g} in eager operators, {times.other_ms:.3g} "
            f"around them."
        )
        yield ""
        yield from _table(
            ("operator", "runs in", "where", "count", "time"),
            [
                (
                    _code(op.op),
                    _text(op.provider or op.engine),
                    _place(op.line),
                    str(op.count),
                    f"{op.ms:.3g} ms",
                )
                for op in times.ops[:_MOST_OPERATORS]
            ],
            written=True,
        )
    yield from _section("Frames and guard sets")
    for frame in document.frames:
        yield f"- **{_text(frame.function or frame.id)}** {_text(frame.line.location)}"
        if frame.graph_break:
            yield f"  - ended early: {_text(frame.graph_break)}"
        for guard_set in frame.guard_sets:
            yield f"  - {_text(guard_set.id)}, {len(guard_set.guards)} guards"
            yield from (f"    - {_code(guard)}" for guard in guard_set.guards)


def _section(title: str) -> tuple[str, ...]:
    return ("", f"## {title}", "")


def _table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, written: bool = False
) -> Iterator[str]:
    """Rows of text; of what is `written` as markdown already, only the bars are escaped."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell if written else _text(cell) for cell in row)} |"


def _place(line: Line) -> str:
    if not line.location:
        return ""
    return _text(line.location) + (f" {_code(line.source)}" if line.source else "")


def _text(text: str) -> str:
    """Text that means itself, on one line."""
    return _MEANS_SOMETHING.sub(r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    """Text as code, on one line. A bar would end a cell of a table even there."""
    flat = " ".join(text.split()).replace("|", "¦")
    fence = "`" * (max((len(run) for run in re.findall("`+", flat)), default=0) + 1)
    pad = " " if flat.startswith("`") or flat.endswith("`") else ""
    return f"{fence}{pad}{flat}{pad}{fence}"
