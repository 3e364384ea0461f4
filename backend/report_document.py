"""The whole report as one document: plain data with a version, from which every page is made."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .advice import Advice
from .graph_picture import PictureNode

FORMAT = 1  # another number where a field changes its meaning


@dataclass(frozen=True, slots=True)
class Summary:
    """The report's own counts."""

    graphs: int
    guard_sets: int
    regions: int
    native_ops: int
    eager_ops: int
    onnx_nodes: int
    sessions: int
    calls: int
    graph_breaks: int
    cache_hits: int
    cache_misses: int
    cache_loads: int


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the compile time that is ours."""

    name: str
    what: str
    ms: float


@dataclass(frozen=True, slots=True)
class Line:
    """A place in the user's code and its text; both are empty where nobody knows."""

    location: str
    source: str


@dataclass(frozen=True, slots=True)
class RegionData:
    """A region: its program, and what became of it so far."""

    operators: int
    onnx_nodes: int
    providers: tuple[str, ...]
    from_cache: bool
    in_use: bool
    open: bool
    calls: int
    sessions: int
    session_ms: float
    input_copies: int
    output_copies: int
    frozen_bytes: int
    live_bytes: int


@dataclass(frozen=True, slots=True)
class GraphData:
    """A captured graph, by the guard set that it belongs to."""

    guard_set: str
    kind: str
    native_ops: int
    eager_ops: int
    partition_ms: float
    lowering_ms: float
    regions: tuple[RegionData, ...]
    nodes: tuple[PictureNode, ...]


@dataclass(frozen=True, slots=True)
class GuardSet:
    """One compiled version of a frame: when it is valid, and its graphs by their places."""

    id: str
    guards: tuple[str, ...]
    graphs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FrameData:
    """A Python frame; `graph_break` is what ended it before its end, if anything did."""

    id: str
    function: str
    line: Line
    guard_sets: tuple[GuardSet, ...]
    graph_break: str


@dataclass(frozen=True, slots=True)
class FallbackData:
    """What runs in eager at one place for one reason; `ms` where it was measured."""

    op: str
    kind: str
    detail: str
    hint: str
    line: Line
    count: int
    ms: float | None


@dataclass(frozen=True, slots=True)
class BreakData:
    """Where Dynamo left the user's code to Python, and why."""

    reason: str
    line: Line


@dataclass(frozen=True, slots=True)
class CopyData:
    """Copies of tensors: `where` they happen, and how many so far."""

    where: str
    line: Line
    count: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of weights that the programs read, and the sessions that are open.

    `frozen_bytes` are constants of sessions (which may hold a packed copy besides), `live_bytes`
    are read at each call.
    """

    frozen_bytes: int
    live_bytes: int
    open_sessions: int


@dataclass(frozen=True, slots=True)
class OpData:
    """The run time of an operator at one place."""

    op: str
    engine: str
    provider: str
    line: Line
    count: int
    ms: float


@dataclass(frozen=True, slots=True)
class Times:
    """Where the time of the measured calls went."""

    wall_ms: float
    onnx_ms: float
    eager_ms: float
    other_ms: float
    runs: int
    ops: tuple[OpData, ...]


@dataclass(frozen=True, slots=True)
class PlacedData:
    """The nodes that a provider took, where there is a choice."""

    provider: str
    count: int


@dataclass(frozen=True, slots=True)
class Document:
    """Everything that pages show. `format` is the version of this structure.

    `sources` has the text of the lines that the nodes of the graphs come from.
    """

    format: int
    made: str
    versions: dict[str, str]
    summary: Summary
    frames: tuple[FrameData, ...]
    graphs: tuple[GraphData, ...]
    phases: tuple[Phase, ...]
    times: Times | None
    copies: tuple[CopyData, ...]
    placed: tuple[PlacedData, ...]
    memory: Memory
    fallbacks: tuple[FallbackData, ...]
    graph_breaks: tuple[BreakData, ...]
    quantized: tuple[str, ...]
    advice: tuple[Advice, ...]
    sources: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """The same in dicts, lists, text and numbers."""
        return asdict(self)
