"""Where the time of calls goes: onnxruntime's profiler and torch's, on one time line."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.fx
from torch.profiler import ProfilerActivity, record_function

from ..lowering.region import location
from ..runtime.errors import OptionError
from ..runtime.executable import Executable
from ..runtime.profiler import ProfiledSessions, SessionProfile
from .dump import write_atomically
from .partition import is_operator
from .report import CompileReport, records_of, report
from .state import GraphRecord

ONNX, EAGER = "onnx", "eager"
_MARK = "dynamo_onnx eager "  # and a number: a range of torch's trace, until it is ours
_LANE = 1_000_000  # of onnxruntime's threads in the trace, beside torch's of the same numbers


@dataclass(frozen=True, slots=True)
class OpTime:
    """The time of one operator from one line of the user's, over all the calls.

    `engine` is "onnx" or "eager"; `op` an ONNX operator as onnxruntime executed it (which may be
    several of ours in one), or an overload of ATen's.
    """

    op: str
    engine: str
    provider: str
    location: str
    count: int
    total_ms: float


@dataclass(frozen=True, slots=True)
class Profile:
    """The time of calls, measured with both profilers on: proportions are better than sums.

    `wall_ms` is all of it, `onnx_ms` what sessions ran, `eager_ms` what eager operators between
    them did; the rest is Dynamo's, AOTAutograd's and ours, and the profilers' own.
    """

    wall_ms: float
    onnx_ms: float
    eager_ms: float
    runs: int
    ops: tuple[OpTime, ...]
    trace: str = field(repr=False)

    @property
    def other_ms(self) -> float:
        """What is between the runs and the eager operators."""
        return max(self.wall_ms - self.onnx_ms - self.eager_ms, 0.0)

    def __str__(self) -> str:
        return (
            f"measured, with profilers on: {self.wall_ms:.3g} ms, of which {self.onnx_ms:.3g} in "
            f"{self.runs} runs and {self.eager_ms:.3g} in eager operators"
        )

    def eager_times(self) -> dict[tuple[str, str], float]:
        """Milliseconds of each eager operator by its name and line."""
        return {(o.op, o.location): o.total_ms for o in self.ops if o.engine == EAGER}

    def export_chrome_trace(self, path: str | os.PathLike[str]) -> Path:
        """Write the time line for https://ui.perfetto.dev or chrome://tracing; returns the path."""
        target = Path(path)
        write_atomically(target, lambda p: p.write_text(self.trace, encoding="utf-8"))
        return target


@dataclass(frozen=True, slots=True)
class EagerPlace:
    """An eager operator in the code between the regions."""

    op: str
    location: str


class Profiling:
    """What `profiling` measures: `profile` and `report()` are there once its block has ended."""

    def __init__(self, compiled: object | None) -> None:
        self._compiled = compiled
        self._profile: Profile | None = None

    @property
    def profile(self) -> Profile:
        """Where the time went."""
        if self._profile is None:
            raise OptionError("profiling: the profile is there when the block has ended")
        return self._profile

    def report(self) -> CompileReport:
        """The report, with the profile in it."""
        return replace(report(self._compiled), profile=self.profile)

    def _done(self, profile: Profile) -> None:
        self._profile = profile


@contextlib.contextmanager
def profiling(compiled: object | None = None) -> Generator[Profiling]:
    """Measure the calls in this block, of one compiled callable or of all.

    What is compiled within the block is not measured: call once before. Sessions are opened anew
    for it, at the first call of each program (which is not counted), and closed at the end.
    """
    with _measured(compiled, lambda: None) as measured:
        yield measured


def profile(
    compiled: Callable[..., Any],
    *args: Any,  # noqa: ANN401 - the user's
    calls: int = 10,
    **kwargs: Any,  # noqa: ANN401
) -> CompileReport:
    """Call it so many times and report where the time went; `.profile` of the report has the times.

    Two calls before, one to compile and one to open the sessions that are measured, do not count.
    Gradients are recorded or not as they are around it.
    """
    if calls < 1:
        raise OptionError(f"profile: calls={calls!r}, at least 1 is needed")

    def call() -> object:
        return compiled(*args, **kwargs)

    call()
    with _measured(compiled, call) as measured:
        for _ in range(calls):
            call()
    return measured.report()


@contextlib.contextmanager
def _measured(compiled: object | None, warm_up: Callable[[], object]) -> Generator[Profiling]:
    graphs = records_of(compiled)
    measured = Profiling(compiled)
    with tempfile.TemporaryDirectory(prefix="dynamo_onnx-") as directory:
        sessions = ProfiledSessions(Path(directory))
        with contextlib.ExitStack() as stack:
            eager: list[EagerPlace] = []
            executables = _reopen(graphs, sessions, eager, stack)
            warm_up()
            tracer = stack.enter_context(torch.profiler.profile(activities=_activities()))
            opening_ms = sum(e.counters.session_ms for e in executables)
            begun_us, started = time.time_ns() / 1e3, time.perf_counter()
            try:
                yield measured
            finally:
                wall_ms = (time.perf_counter() - started) * 1e3
                opening_ms = sum(e.counters.session_ms for e in executables) - opening_ms
        trace = Path(directory) / "torch.json"
        tracer.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))
        profiles = [p.since(begun_us) for p in sessions.finish()]
        measured._done(merged(events, eager, profiles, wall_ms - opening_ms))  # noqa: SLF001 - its only maker


def _activities() -> list[ProfilerActivity]:
    found = [ProfilerActivity.CPU]
    return [*found, ProfilerActivity.CUDA] if torch.cuda.is_available() else found


def _reopen(
    graphs: Iterable[GraphRecord],
    sessions: ProfiledSessions,
    eager: list[EagerPlace],
    stack: contextlib.ExitStack,
) -> list[Executable]:
    """Have the regions run in these sessions, and number the eager operators in torch's trace."""
    executables: list[Executable] = []
    for graph in graphs:
        for region in graph.regions:
            executable = region.executable()
            if executable is not None:
                setup = executable.setup
                settings = {**setup.settings, **sessions.settings()}
                setup = replace(setup, settings=settings, sessions=sessions)
                stack.enter_context(executable.reopened(setup))
                executables.append(executable)
        stitched = graph.stitched()
        if stitched is not None and stitched.steps is not None:
            stack.enter_context(_numbered(stitched.steps, eager))
    return executables


@contextlib.contextmanager
def _numbered(steps: torch.fx.GraphModule, eager: list[EagerPlace]) -> Generator[None]:
    """Meanwhile each eager operator of the generated code runs in a range with its number."""
    operators = [n for n in steps.graph.nodes if is_operator(n) and "val" in n.meta]
    targets = {node: node.target for node in operators}
    for node, target in targets.items():
        node.target = _in_range(target, f"{_MARK}{len(eager)}")
        eager.append(EagerPlace(str(target), location(node)))
    steps.recompile()
    try:
        yield
    finally:
        for node, target in targets.items():
            node.target = target
        steps.recompile()


def _in_range(target: Any, name: str) -> Callable[..., Any]:  # noqa: ANN401 - an operator
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        with record_function(name):
            return target(*args, **kwargs)

    call.__name__ = call.__qualname__ = "eager_operator"
    return call


def merged(
    events: Mapping[str, Any],
    eager: Sequence[EagerPlace],
    sessions: Sequence[SessionProfile],
    wall_ms: float,
) -> Profile:
    """Both profilers' events as one profile. `events` is torch's trace, in Chrome's format.

    `eager` are the operators that torch's trace has by number.
    """
    counts: dict[tuple[str, str, str, str], int] = defaultdict(int)
    times_us: dict[tuple[str, str, str, str], float] = defaultdict(float)
    for session in sessions:
        for timed in session.nodes:
            key = timed.op, ONNX, timed.provider, timed.location
            counts[key] += 1
            times_us[key] += timed.own_us
    eager_us = 0.0
    for event in events["traceEvents"]:
        place = _place(event, eager)
        if place is not None and event.get("cat") == "user_annotation":
            key = place.op, EAGER, "", place.location
            counts[key] += 1
            times_us[key] += event["dur"]
            eager_us += event["dur"]
    runs_us = [duration for session in sessions for _, duration in session.runs]
    ordered = sorted(times_us, key=lambda key: -times_us[key])
    return Profile(
        wall_ms=wall_ms,
        onnx_ms=sum(runs_us) / 1e3,
        eager_ms=eager_us / 1e3,
        runs=len(runs_us),
        ops=tuple(OpTime(*key, counts[key], times_us[key] / 1e3) for key in ordered),
        trace=json.dumps(_one_line(events, eager, sessions)),
    )


def _place(event: Mapping[str, Any], eager: Sequence[EagerPlace]) -> EagerPlace | None:
    name = str(event.get("name", ""))
    return eager[int(name.removeprefix(_MARK))] if name.startswith(_MARK) else None


def _one_line(
    events: Mapping[str, Any], eager: Sequence[EagerPlace], sessions: Sequence[SessionProfile]
) -> dict[str, Any]:
    """torch's trace with the sessions' events in it, a lane for each session."""
    base_us = events["baseTimeNanoseconds"] / 1e3
    line: list[dict[str, Any]] = []
    for event in events["traceEvents"]:
        place = _place(event, eager)
        if place is not None:
            details = {**event.get("args", {}), "line": place.location}
            event = {**event, "name": f"eager {place.op}", "args": details}  # noqa: PLW2901
        line.append(event)
    for lane, session in enumerate(sessions):
        line += _lane(session, _LANE + lane, base_us)
    return {**events, "traceEvents": line}


def _lane(session: SessionProfile, lane: int, base_us: float) -> Iterator[dict[str, Any]]:
    """A session's events on a line of their own, in the process that torch's events are of."""
    place = {"pid": os.getpid(), "tid": lane}
    name = {"name": f"ONNX Runtime, session {lane - _LANE}"}
    yield {"ph": "M", "name": "thread_name", **place, "args": name}
    for start_us, duration_us in session.runs:
        times = {"ts": start_us - base_us, "dur": duration_us}
        yield {"ph": "X", "cat": "onnxruntime", "name": "run", **place, **times, "args": {}}
    for node in session.nodes:
        yield {
            "ph": "X",
            "cat": "onnxruntime",
            "name": node.op,
            **place,
            "ts": node.start_us - base_us,
            "dur": node.duration_us,
            "args": {"node": node.node, "line": node.location, "provider": node.provider},
        }
