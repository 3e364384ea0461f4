"""A model's graph as SVG: layers from the inputs down to the outputs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape

import onnx_ir as ir

_LETTER, _LINE, _PAD = 7, 16, 10  # px: a letter's width, a line's height, around the text
_SMALL_LETTER = 6  # px: of types
_GAP, _LAYER_GAP = 24, 48  # px between boxes of a layer, and between layers
_STYLE = (
    "text{font:12px ui-monospace,monospace;fill:#1a1a1a}"
    ".op{fill:#dbe7f5;stroke:#4a78a8}.port{fill:#eee;stroke:#888}"
    ".edge{fill:none;stroke:#999}.type{font-size:10px;fill:#666}"
)
_LONGEST = 48  # letters of a line


@dataclass(eq=False, slots=True)
class _Box:
    """A node, an input or an output; its place is that of the upper left corner, in px."""

    lines: Sequence[str]
    style: str
    sources: list[tuple[_Box, ir.Value]] = field(default_factory=list["tuple[_Box, ir.Value]"])
    layer: int = 0
    x: float = 0.0
    y: float = 0.0

    @property
    def width(self) -> int:
        return max(map(len, self.lines)) * _LETTER + 2 * _PAD

    @property
    def height(self) -> int:
        return len(self.lines) * _LINE + _PAD

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


def svg(model: ir.Model) -> str:
    """The picture. Weights are lines in the boxes of the nodes that read them."""
    boxes = _boxes(model.graph)
    widest, height = _place(boxes)
    ends = (x + len(text) * _SMALL_LETTER for box in boxes for x, _, text in _labels(box))
    width = max(widest, *ends, 0)
    shapes = [line for box in boxes for line in (*_edges(box), *_drawn(box))]
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size}>',
            f"<style>{_STYLE}</style>",
            *shapes,
            "</svg>\n",
        ]
    )


def _boxes(graph: ir.Graph) -> list[_Box]:
    """In topological order."""
    made: dict[ir.Value, _Box] = {
        value: _Box([value.name or "", _type(value)], "port") for value in graph.inputs
    }
    boxes = list(made.values())
    for node in graph:
        read = [value for value in node.inputs if value is not None]
        weights = [f"{v.name} {_type(v)}" for v in read if v.is_initializer()]
        attributes = [f"{a.name}={a.value}" for a in node.attributes.values() if _is_short(a)]
        lines = [_cut(line) for line in (node.op_type, *attributes, *weights)]
        box = _Box(lines, "op", [(made[v], v) for v in read if v in made])
        made.update(dict.fromkeys(node.outputs, box))
        boxes.append(box)
    for value in graph.outputs:
        sources = [(made[value], value)] if value in made else []
        boxes.append(_Box([value.name or "", _type(value)], "port", sources))
    return boxes


def _is_short(attribute: ir.Attr) -> bool:
    kinds = (ir.AttributeType.INT, ir.AttributeType.INTS, ir.AttributeType.FLOAT)
    return attribute.type in (*kinds, ir.AttributeType.STRING)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _type(value: ir.Value) -> str:
    dtype = value.dtype.name.lower() if value.dtype is not None else "?"
    dims = "?" if value.shape is None else ", ".join(map(str, value.shape))
    return f"{dtype}[{dims}]"


def _place(boxes: Iterable[_Box]) -> tuple[float, float]:
    """Each box below all that it reads, near their middle. Returns the size of the whole."""
    layers: dict[int, list[_Box]] = defaultdict(list)
    for box in boxes:
        box.layer = max((source.layer + 1 for source, _ in box.sources), default=0)
        layers[box.layer].append(box)
    y = widest = 0.0
    for _, row in sorted(layers.items()):
        row.sort(key=_wanted)
        x = 0.0
        for box in row:
            box.x = max(x, _wanted(box) - box.width / 2)
            box.y = y
            x = box.x + box.width + _GAP
        widest = max(widest, x - _GAP)
        y += max(box.height for box in row) + _LAYER_GAP
    return widest, y - _LAYER_GAP


def _wanted(box: _Box) -> float:
    middles = [source.middle for source, _ in box.sources]
    return sum(middles) / len(middles) if middles else 0.0


def _drawn(box: _Box) -> Iterator[str]:
    yield (
        f'<rect class="{box.style}" x="{box.x:.0f}" y="{box.y:.0f}" width="{box.width}" '
        f'height="{box.height}" rx="4"/>'
    )
    for index, line in enumerate(box.lines):
        style = ' class="type"' if index else ""
        y = box.y + _LINE * (index + 1)
        yield f'<text{style} x="{box.x + _PAD:.0f}" y="{y:.0f}">{escape(line)}</text>'


def _edges(box: _Box) -> Iterator[str]:
    for source, _ in box.sources:
        x1, y1 = source.middle, source.y + source.height
        x2, y2 = box.middle, box.y
        bend = (y2 - y1) / 2
        yield (
            f'<path class="edge" d="M{x1:.0f},{y1:.0f} C{x1:.0f},{y1 + bend:.0f} '
            f'{x2:.0f},{y2 - bend:.0f} {x2:.0f},{y2:.0f}"/>'
        )
    for x, y, text in _labels(box):
        yield f'<text class="type" x="{x:.0f}" y="{y:.0f}">{escape(text)}</text>'


def _labels(box: _Box) -> Iterator[tuple[float, float, str]]:
    """What stands beside the edges between nodes: where, and what passes."""
    for source, value in box.sources:
        if box.style == "op" and source.style == "op":
            x = (source.middle + box.middle) / 2 + 4
            yield x, (source.y + source.height + box.y) / 2, _type(value)
