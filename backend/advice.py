"""What to do next: advice that follows from the facts of a report, the most useful first."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..runtime.errors import ReasonKind
from ..runtime.providers import CPU
from .report import CompileReport, Fallback
from .state import GraphRecord

MANY_GUARD_SETS = 3
MANY_REGIONS = 8  # of one graph
SLOW_FIRST_CALL_MS = 1000.0


@dataclass(frozen=True, slots=True)
class Advice:
    """`title` says what to do, `why` the facts that call for it, `code` how it is written."""

    title: str
    why: str
    code: str
    location: str


def advice(report: CompileReport) -> Iterator[Advice]:
    """Everything that this report calls for."""
    if not report.graphs:
        why = "Dynamo captured no graph, so nothing was compiled."
        yield Advice("Ask Dynamo why", why, "TORCH_LOGS=graph_breaks", "")
        return
    for each in report.graph_breaks:
        reason, _, hint = each.reason.partition(" (Hint: ")
        why = f"Dynamo left the code to Python there and began another graph: {reason}"
        yield Advice("Take away a graph break", why, hint.removesuffix(")"), each.location)
    yield from _fallbacks(report)
    yield from _compilation(report)
    yield from _runs(report)


_TO_DO = {
    ReasonKind.NO_RULE: ("Register a lowering for {op}", '@dynamo_onnx.lowers("{op}")'),
    ReasonKind.OPTION: ("Allow {op} in ONNX Runtime again", 'options={"eager_ops": ()}'),
    ReasonKind.REGION_SIZE: ("Try smaller regions", 'options={"min_region": 1}'),
    ReasonKind.KERNEL: ("Give {op} types that the provider has a kernel for", ""),
    ReasonKind.DTYPE: ("Give {op} types that ONNX Runtime computes with", ""),
    ReasonKind.SYMBOLIC: ("Make sizes of {op} fixed", "torch._dynamo.mark_static(x)"),
    ReasonKind.DEVICE: ("Move what {op} reads to one device", ""),
    ReasonKind.RULE_FAILED: ("Report a bug of ours: {op}", 'options={"strict": True}'),
    ReasonKind.SESSION_FAILED: ("Report a bug of ours: {op}", 'options={"strict": True}'),
    ReasonKind.RUN_FAILED: ("See why a run failed", 'options={"strict": True}'),
    ReasonKind.VERIFICATION: ("Report a wrong result", "python -m dynamo_onnx minify …"),
}


def _fallbacks(report: CompileReport) -> Iterator[Advice]:
    """One piece of advice for an operator and a kind of reason; random numbers stay eager."""
    times = {} if report.profile is None else report.profile.eager_times()
    groups: dict[tuple[str, ReasonKind], list[Fallback]] = defaultdict(list)
    for fallback in report.fallbacks:
        kind = fallback.reason.kind
        alike = "" if kind is ReasonKind.REGION_SIZE else fallback.op
        groups[alike, kind].append(fallback)
    costs = {
        key: sum(times.get((f.op, f.location), 0.0) for f in group) for key, group in groups.items()
    }
    counts = {key: sum(f.count for f in group) for key, group in groups.items()}
    for key in sorted(groups, key=lambda k: (-costs[k], -counts[k])):
        op, kind = key
        reason = groups[key][0].reason
        title, code = _TO_DO.get(kind, (reason.hint.capitalize(), ""))
        if not title:
            continue
        took = f", {costs[key]:.3g} ms of the measured calls" if costs[key] else ""
        why = f"{counts[key]} × in eager{took}. {reason}"
        at = groups[key][0].location
        yield Advice(title.replace("{op}", op), why, code.replace("{op}", op), at)


def _compilation(report: CompileReport) -> Iterator[Advice]:
    guard_sets: dict[str, set[str]] = defaultdict(set)
    for graph in report.records:
        frame, _, _ = graph.frame.compile_id.partition("/")
        guard_sets[frame].add(graph.frame.compile_id)
    for frame, names in guard_sets.items():
        if len(names) >= MANY_GUARD_SETS:
            why = f"Frame {frame} was compiled {len(names)} times, for different guards."
            yield Advice("Compile once for all sizes", why, "torch.compile(…, dynamic=True)", "")
    total_ms = report.timings.total_ms
    if total_ms >= SLOW_FIRST_CALL_MS and not _keeps_programs(report.records):
        why = f"Compiling took {total_ms / 1e3:.1f} s of ours, and the next process does it again."
        yield Advice("Keep the programs on disk", why, 'options={"cache_dir": …}', "")


def _keeps_programs(records: Sequence[GraphRecord]) -> bool:
    executables = [e for g in records for r in g.regions if (e := r.executable()) is not None]
    return any(executable.setup.cache_dir is not None for executable in executables)


def _runs(report: CompileReport) -> Iterator[Advice]:
    executables = [
        e for g in report.records for r in g.regions if (e := r.executable()) is not None
    ]
    reopened = sum(max(e.counters.sessions - 1, 0) for e in executables)
    if reopened and any(e.setup.freeze for e in executables):
        why = f"Sessions were opened {reopened} times more: their weights had changed."
        yield Advice("Leave weights that change unfrozen", why, 'options={"weights": "live"}', "")
    for graph in report.records:
        if len(graph.regions) >= MANY_REGIONS:
            why = f"Graph {graph.frame.compile_id} falls into {len(graph.regions)} regions."
            yield Advice(
                "Make regions that are worth a session", why, 'options={"min_region": 8}', ""
            )
    strays: Counter[str] = Counter()
    for placed in report.placed:
        if placed.provider == CPU and not placed.sizes:
            strays[placed.op_type] += placed.count
    if strays and any(p.provider != CPU for p in report.placed):
        told = ", ".join(f"{count} × {op}" for op, count in strays.most_common(3))
        why = f"The provider left nodes to the CPU: {told}."
        yield Advice(
            "See what the provider does not take", why, 'options={"require_provider": True}', ""
        )
    if report.calls and report.input_copies >= report.calls:
        why = f"{report.input_copies} inputs were copied in {report.calls} runs, to be contiguous."
        yield Advice("Pass contiguous tensors", why, "x.contiguous()", "")
    if report.profile is None and report.calls:
        why = "This report has no run times."
        code = 'dynamo_onnx.profile(compiled, x).save("report.html")'
        yield Advice("Measure where the time goes", why, code, "")
