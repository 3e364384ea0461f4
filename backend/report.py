"""What has been compiled, what stayed in eager and why, what it cost."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..runtime.errors import OptionError, Reason
from ..runtime.placement import Copied, Placed
from ..runtime.providers import CPU
from .state import GraphBreak, GraphRecord, state
from .torch_private import backend_object_of, graph_breaks

if TYPE_CHECKING:
    from .profiling import Profile


@dataclass(frozen=True, slots=True)
class Fallback:
    """Operators that run in eager for one reason at one place of the user's code."""

    op: str
    reason: Reason
    location: str
    count: int


@dataclass(frozen=True, slots=True)
class QuantizedProgram:
    """What `options={"quantize": ...}` did to one program.

    The sizes are those of the weights in question, before and after. The errors are
    |W - dequantized| / |W|, over these weights; `worst` is the one with the greatest. `left` counts
    the linear layers that stayed in float, by reason.
    """

    guard_set: str
    region: int
    bits: int
    layers: int
    before_bytes: int
    after_bytes: int
    mean_error: float
    max_error: float
    worst: str
    left: dict[str, int]

    def __str__(self) -> str:
        sizes = f"{self.before_bytes / 1e6:.3g} MB -> {self.after_bytes / 1e6:.3g} MB"
        errors = f"error {self.mean_error:.2%} in the mean, {self.max_error:.2%} in {self.worst}"
        made = f", {sizes}, {errors}" if self.layers else ""
        left = "".join(f"; {n} in float: {why}" for why, n in self.left.items())
        where = f"{self.guard_set} region {self.region}"
        return f"{where}: {self.layers} linear layers in int{self.bits}{made}{left}"


@dataclass(frozen=True, slots=True)
class Timings:
    """Our share of the compile time so far, in milliseconds. `session` counts re-openings too."""

    partition_ms: float
    lowering_ms: float
    session_ms: float

    @property
    def total_ms(self) -> float:
        """All of it."""
        return self.partition_ms + self.lowering_ms + self.session_ms


@dataclass(frozen=True, slots=True)
class CompileReport:
    """What the backend has done. `str()` of it is meant to be read."""

    frames: tuple[str, ...]
    graphs: int
    regions: int
    native_ops: int
    native: dict[str, int]
    eager_ops: int
    onnx_nodes: int
    fallbacks: tuple[Fallback, ...]
    graph_breaks: tuple[GraphBreak, ...]
    cache_hits: int
    cache_misses: int
    sessions: int
    calls: int
    input_copies: int
    output_copies: int
    timings: Timings
    quantized: tuple[QuantizedProgram, ...] = ()
    integer_layers: int = 0  # linear layers that read 4-bit weights of the model's own
    placed: tuple[Placed, ...] = ()  # by provider, where others than the CPU's were asked for
    copies: tuple[Copied, ...] = ()  # between the devices of providers, within a run
    cache_loads: int = 0  # of the misses, those that the files of earlier processes had
    cuda_graphs: int = 0  # runs that are captured and replayed
    uncaptured: tuple[str, ...] = ()  # why others are not, where that was asked for
    profile: Profile | None = None  # the time of calls, where `profile` or `profiling` measured it
    records: tuple[GraphRecord, ...] = field(default=(), repr=False, compare=False)  # for `save`

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it as a page (`.html`), as text (`.md`) or as data (`.json`), by the name's suffix.

        The page has pictures of the graphs that are still in use, and needs no other file. Returns
        the path; CacheError where it cannot be written.
        """
        from .report_files import write

        return write(self, Path(path))

    def __str__(self) -> str:
        timings = self.timings
        what = (
            f"{self.graphs} graphs ({', '.join(self.frames) or 'none'}), {self.regions} regions: "
            f"{self.native_ops} operators native in {self.onnx_nodes} ONNX nodes, "
            f"{self.eager_ops} in eager"
        )
        loads = f" ({self.cache_loads} of them read from files)" if self.cache_loads else ""
        runs = (
            f"{self.sessions} sessions opened, {self.calls} runs, "
            f"{self.input_copies} inputs and {self.output_copies} outputs copied; "
            f"program cache: {self.cache_hits} hits, {self.cache_misses} misses{loads}"
        )
        times = (
            f"compile time of ours: {timings.total_ms:.0f} ms (partition "
            f"{timings.partition_ms:.0f}, lowering {timings.lowering_ms:.0f}, "
            f"sessions {timings.session_ms:.0f})"
        )
        lines = [what, runs, times]
        if self.profile is not None:
            lines.append(str(self.profile))
        if self.fallbacks:
            lines.append("in eager:")
        for fallback in self.fallbacks:
            place = f" at {fallback.location}" if fallback.location else ""
            lines.append(f"  {fallback.count} × {fallback.op}{place}: {fallback.reason}")
        lines += _placement(self.placed)
        for copy in self.copies:
            place = f" at {copy.location}" if copy.location else ""
            lines.append(f"  {copy.count} × copied{place}: {copy.source} -> {copy.target}")
        if self.cuda_graphs:
            lines.append(f"runs captured as CUDA graphs: {self.cuda_graphs}")
        lines += [f"runs not captured as CUDA graphs: {why}" for why in self.uncaptured]
        if self.integer_layers:
            lines.append(f"linear layers on the model's own 4-bit weights: {self.integer_layers}")
        if self.quantized:
            lines.append("quantized:")
        lines += [f"  {program}" for program in self.quantized]
        if self.graph_breaks:
            lines.append("left to Python by Dynamo:")
        lines += [f"  at {b.location or 'an unknown line'}: {b.reason}" for b in self.graph_breaks]
        if not self.graphs:
            lines.append("Dynamo captured no graph; TORCH_LOGS=graph_breaks tells why")
        return "\n".join(lines)


def report(compiled: object | None = None) -> CompileReport:
    """What has been compiled: by one compiled function or module, or by all of them."""
    graphs = records_of(compiled)
    fallbacks: Counter[tuple[str, Reason, str]] = Counter()
    native: Counter[str] = Counter()
    sessions = calls = input_copies = output_copies = integer_layers = 0
    session_ms, cuda_graphs = 0.0, 0
    uncaptured: dict[str, None] = {}
    placed: Counter[tuple[str, str, str, bool]] = Counter()
    copied: Counter[tuple[str, str, str]] = Counter()
    for graph in graphs:
        native.update(graph.native)
        fallbacks.update((e.op, e.reason, e.location) for e in graph.eager)
        for region in graph.regions:
            executable = region.executable()
            if executable is None:
                continue
            counters = executable.counters
            sessions += counters.sessions
            session_ms += counters.session_ms
            calls += counters.calls
            input_copies += counters.input_copies
            output_copies += counters.output_copies
            integer_layers += executable.prepared.integer_layers
            for p in executable.placement.placed:
                placed[p.provider, p.op_type, p.location, p.sizes] += p.count
            for c in executable.placement.copied:
                copied[c.source, c.target, c.location] += c.count
            cuda_graphs += executable.captured
            if executable.uncaptured:
                uncaptured[executable.uncaptured] = None
            what = f"a region of {region.program.node_count} nodes"
            for reason, count in counters.fallbacks.items():
                fallbacks[what, reason, ""] += count
    return CompileReport(
        frames=tuple(dict.fromkeys(g.frame.compile_id for g in graphs)),
        graphs=len(graphs),
        regions=sum(len(g.regions) for g in graphs),
        native_ops=sum(native.values()),
        native=dict(native.most_common()),
        eager_ops=sum(len(g.eager) for g in graphs),
        onnx_nodes=sum(r.program.node_count for g in graphs for r in g.regions),
        fallbacks=tuple(Fallback(*key, count) for key, count in fallbacks.items()),
        graph_breaks=_breaks(graphs) if compiled is not None else graph_breaks(),
        cache_hits=state.cache_hits,
        cache_misses=state.cache_misses,
        sessions=sessions,
        calls=calls,
        input_copies=input_copies,
        output_copies=output_copies,
        timings=Timings(
            partition_ms=sum(g.timings.partition_ms for g in graphs),
            lowering_ms=sum(g.timings.lowering_ms for g in graphs),
            session_ms=session_ms,
        ),
        quantized=tuple(_quantized(graphs)),
        integer_layers=integer_layers,
        placed=tuple(Placed(*key, count) for key, count in placed.items()),
        cache_loads=state.cache_loads,
        copies=tuple(Copied(*key, count) for key, count in copied.items()),
        cuda_graphs=cuda_graphs,
        uncaptured=tuple(uncaptured),
        records=tuple(graphs),
    )


def _placement(placed: Sequence[Placed]) -> Iterator[str]:
    """The nodes of each provider, and each that the CPU's has beside sizes."""
    totals: Counter[str] = Counter()
    for each in placed:
        totals[each.provider] += each.count
    if totals:
        yield "nodes by provider: " + ", ".join(f"{n} {c}" for n, c in totals.most_common())
    strays = [p for p in placed if p.provider == CPU and not p.sizes]
    for each in sorted(strays, key=lambda p: -p.count):
        place = f" at {each.location}" if each.location else ""
        yield f"  {each.count} × {each.op_type}{place} on {CPU}"


def _quantized(graphs: list[GraphRecord]) -> Iterator[QuantizedProgram]:
    """The programs that are to be quantized and have been opened."""
    for graph in graphs:
        for index, region in enumerate(graph.regions):
            executable = region.executable()
            found = executable.prepared.quantized if executable is not None else None
            if found is None:
                continue
            errors = [error for _, error in found.errors]
            worst = max(found.errors, key=itemgetter(1), default=None)
            yield QuantizedProgram(
                guard_set=graph.frame.compile_id,
                region=index,
                bits=found.bits,
                layers=found.layers,
                before_bytes=found.before_bytes,
                after_bytes=found.after_bytes,
                mean_error=sum(errors) / len(errors) if errors else 0.0,
                max_error=max(errors, default=0.0),
                worst=region.input_names[worst[0]] if worst is not None else "",
                left=dict(found.left),
            )


def _breaks(graphs: list[GraphRecord]) -> tuple[GraphBreak, ...]:
    """What ended these graphs, each cause once."""
    return tuple(dict.fromkeys(g.frame.graph_break for g in graphs if g.frame.graph_break))


def records_of(compiled: object | None) -> list[GraphRecord]:
    """The graphs of one compiled callable, or all of them."""
    with state.lock:
        graphs = list(state.graphs)
    if compiled is None:
        return graphs
    backend = backend_object_of(compiled)
    if backend is None:
        raise OptionError(
            f"{type(compiled).__name__} was not made by torch.compile; pass what torch.compile "
            f"returned, or nothing for everything"
        )
    return [g for g in graphs if g.frame.backend is not None and g.frame.backend() is backend]


def explain(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> CompileReport:  # noqa: ANN401 - the user's
    """Compile fn (a function or module), run it once without gradients, and report on it."""
    compiled = torch.compile(fn, backend="onnx")
    with torch.no_grad():
        compiled(*args, **kwargs)
    return report(compiled)
