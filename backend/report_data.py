"""Makes the document of a report: what the report counts, and what its records tell beside it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version

import onnxruntime
import torch

from ..lowering.region import source_line
from ..runtime.program import TensorSpec
from .advice import advice
from .graph_picture import picture
from .report import CompileReport
from .report_document import (
    FORMAT,
    BreakData,
    CopyData,
    Document,
    FallbackData,
    FrameData,
    GraphData,
    GuardSet,
    Line,
    Memory,
    OpData,
    Phase,
    PlacedData,
    RegionData,
    Summary,
    Times,
)
from .state import GraphRecord, RegionRecord
from .torch_private import guards_text

_RESUMED = re.compile(
    r"torch_dynamo_resume_in_(.+)_at_(\d+)"
)  # Dynamo's name of what follows a break


def document(report: CompileReport) -> Document:
    """The report, and what its records tell beside it."""
    graphs = tuple(map(_graph, report.records))
    frames = tuple(_frames(report.records))
    return Document(
        format=FORMAT,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={
            "dynamo-onnx": version("dynamo-onnx"),
            "torch": torch.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        summary=Summary(
            graphs=report.graphs,
            guard_sets=sum(len(frame.guard_sets) for frame in frames),
            regions=report.regions,
            native_ops=report.native_ops,
            eager_ops=report.eager_ops,
            onnx_nodes=report.onnx_nodes,
            sessions=report.sessions,
            calls=report.calls,
            graph_breaks=len(report.graph_breaks),
            cache_hits=report.cache_hits,
            cache_misses=report.cache_misses,
            cache_loads=report.cache_loads,
        ),
        frames=frames,
        graphs=graphs,
        phases=(
            Phase(
                "partition", "a verdict for each operator, and regions", report.timings.partition_ms
            ),
            Phase("lowering", "regions to ONNX programs", report.timings.lowering_ms),
            Phase("sessions", "ONNX Runtime opens them, at first calls", report.timings.session_ms),
        ),
        times=_times(report),
        copies=tuple(_copies(report)),
        placed=_placed(report),
        memory=_memory(report.records),
        fallbacks=_fallbacks(report),
        graph_breaks=tuple(BreakData(b.reason, _line(b.location)) for b in report.graph_breaks),
        quantized=tuple(map(str, report.quantized)),
        advice=tuple(advice(report)),
        sources={n.location: source_line(n.location) for g in graphs for n in g.nodes},
    )


def _line(location: str) -> Line:
    return Line(location, source_line(location))


def _frames(records: Sequence[GraphRecord]) -> Iterator[FrameData]:
    """Graphs by frame and guard set, in the order in which they were compiled."""
    places: dict[str, dict[str, list[int]]] = {}
    for place, graph in enumerate(records):
        frame, _, _ = graph.frame.compile_id.partition("/")
        places.setdefault(frame, {}).setdefault(graph.frame.compile_id, []).append(place)
    for frame, guard_sets in places.items():
        first = records[next(iter(guard_sets.values()))[0]].frame
        code = first.code() if first.code is not None else None
        breaks = [
            b.reason for g in guard_sets.values() for i in g if (b := records[i].frame.graph_break)
        ]
        yield FrameData(
            id=frame,
            function="" if code is None else _RESUMED.sub(r"\1 from line \2", code.co_qualname),
            line=_line("" if code is None else f"{code.co_filename}:{code.co_firstlineno}"),
            guard_sets=tuple(
                GuardSet(name, () if code is None else guards_text(code, name), tuple(graphs))
                for name, graphs in guard_sets.items()
            ),
            graph_break=breaks[0] if breaks else "",
        )


def _graph(graph: GraphRecord) -> GraphData:
    nodes = picture(graph)
    operators = Counter(node.region for node in nodes)
    return GraphData(
        guard_set=graph.frame.compile_id,
        kind=graph.kind,
        native_ops=sum(graph.native.values()),
        eager_ops=len(graph.eager),
        partition_ms=graph.timings.partition_ms,
        lowering_ms=graph.timings.lowering_ms,
        regions=tuple(_region(r, operators[i]) for i, r in enumerate(graph.regions)),
        nodes=nodes,
    )


def _region(region: RegionRecord, operators: int) -> RegionData:
    executable = region.executable()
    counters = None if executable is None else executable.counters
    frozen, live = _weights(region)
    return RegionData(
        operators=operators,
        onnx_nodes=region.program.node_count,
        providers=() if executable is None else tuple(executable.providers),
        from_cache=region.from_cache,
        in_use=executable is not None,
        open=executable is not None and bool(executable.session_ids()),
        calls=0 if counters is None else counters.calls,
        sessions=0 if counters is None else counters.sessions,
        session_ms=0.0 if counters is None else counters.session_ms,
        input_copies=0 if counters is None else counters.input_copies,
        output_copies=0 if counters is None else counters.output_copies,
        frozen_bytes=sum(frozen.values()),
        live_bytes=sum(live.values()),
    )


def _weights(region: RegionRecord) -> tuple[dict[object, int], dict[object, int]]:
    """Bytes of the weights that are constants of a session, by address, and of others, by name."""
    executable = region.executable()
    if executable is None:
        return {}, {}
    constants = executable.weight_tensors()
    frozen: dict[object, int] = {t.data_ptr(): t.nbytes for t in constants.values()}
    origins = executable.prepared.origins
    fixed = {origins[i].position for i in constants}
    live: dict[object, int] = {
        region.input_names[i]: size
        for i in executable.setup.weights
        if i not in fixed and (size := _size(region.program.inputs[i])) is not None
    }
    return frozen, live


def _size(spec: TensorSpec) -> int | None:
    """In bytes; None for one whose dims are not all known."""
    elements = 1
    for dim in spec.shape:
        if not isinstance(dim, int):
            return None
        elements *= dim
    return int(elements * spec.dtype.itemsize)


def _memory(records: Sequence[GraphRecord]) -> Memory:
    """Each weight once, however many programs read it."""
    frozen: dict[object, int] = {}
    live: dict[object, int] = {}
    sessions: set[int] = set()
    for graph in records:
        for region in graph.regions:
            constants, others = _weights(region)
            frozen.update(constants)
            frame, _, _ = graph.frame.compile_id.partition("/")
            live.update({(frame, name): size for name, size in others.items()})
            executable = region.executable()
            if executable is not None:
                sessions.update(executable.session_ids())
    return Memory(sum(frozen.values()), sum(live.values()), len(sessions))


def _copies(report: CompileReport) -> Iterator[CopyData]:
    if report.input_copies:
        yield CopyData("inputs that were not contiguous", Line("", ""), report.input_copies)
    if report.output_copies:
        yield CopyData("outputs with strides of their own", Line("", ""), report.output_copies)
    for copy in report.copies:
        where = f"in each run, {copy.source} to {copy.target}"
        yield CopyData(where, _line(copy.location), copy.count)


def _placed(report: CompileReport) -> tuple[PlacedData, ...]:
    totals: Counter[str] = Counter()
    for each in report.placed:
        totals[each.provider] += each.count
    return tuple(PlacedData(*item) for item in totals.most_common())


def _times(report: CompileReport) -> Times | None:
    profile = report.profile
    if profile is None:
        return None
    return Times(
        wall_ms=profile.wall_ms,
        onnx_ms=profile.onnx_ms,
        eager_ms=profile.eager_ms,
        other_ms=profile.other_ms,
        runs=profile.runs,
        ops=tuple(
            OpData(o.op, o.engine, o.provider, _line(o.location), o.count, o.total_ms)
            for o in profile.ops
        ),
    )


def _fallbacks(report: CompileReport) -> tuple[FallbackData, ...]:
    """The most expensive first: by time where it was measured, then by count."""
    measured = {} if report.profile is None else report.profile.eager_times()
    found = [
        FallbackData(
            op=f.op,
            kind=f.reason.kind.value,
            detail=f.reason.detail,
            hint=f.reason.hint,
            line=_line(f.location),
            count=f.count,
            ms=measured.get((f.op, f.location)),
        )
        for f in report.fallbacks
    ]
    return tuple(sorted(found, key=lambda f: (-(f.ms or 0.0), -f.count)))
