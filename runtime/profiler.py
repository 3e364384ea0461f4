"""What onnxruntime's own profiler says of a session: each run, and each node of it, with its time.

Ref: https://onnxruntime.ai/docs/performance/tune-performance/profiling-tools.html
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .opened import Opened, Sessions

_KERNEL = "_kernel_time"
_FUSED = "fused "  # how onnxruntime calls a node that it made of one of ours and what follows it


@dataclass(frozen=True, slots=True)
class Timed:
    """A node that a session computed; times in microseconds, `start_us` since the epoch.

    `own_us` leaves out the nodes of its bodies (of a Loop, for instance). `node` is the name of the
    ONNX node, `location` the user's line.
    """

    op: str
    node: str
    provider: str
    location: str
    start_us: float
    duration_us: float
    own_us: float
    thread: int


@dataclass(frozen=True, slots=True)
class SessionProfile:
    """What one session did: its runs, as (start, duration) in µs, and their nodes."""

    runs: tuple[tuple[float, float], ...]
    nodes: tuple[Timed, ...]

    def since(self, start_us: float) -> SessionProfile:
        """What began then or later."""
        return SessionProfile(
            tuple(run for run in self.runs if run[0] >= start_us),
            tuple(node for node in self.nodes if node.start_us >= start_us),
        )


class ProfiledSessions(Sessions):
    """Sessions that write profiles into a directory. They are shared with nobody else."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        self._opened: list[Opened] = []

    def settings(self) -> dict[str, object]:
        """What such a session is opened with."""
        return {
            "enable_profiling": True,
            "profile_file_prefix": str(self._directory / "session"),
        }

    def keep(self, key: object, opened: Opened) -> None:
        """Hold it until its profile is read."""
        super().keep(key, opened)
        self._opened.append(opened)

    def finish(self) -> list[SessionProfile]:
        """The profiles so far. The sessions write no more."""
        found: list[SessionProfile] = []
        for opened in self._opened:
            start_us = opened.session.get_profiling_start_time_ns() / 1e3
            events = json.loads(Path(opened.session.end_profiling()).read_text(encoding="utf-8"))
            found.append(session_profile(events, start_us, opened.prepared.program.locations))
        self._opened.clear()
        return found


def session_profile(
    events: Iterable[dict[str, Any]], start_us: float, locations: dict[str, str]
) -> SessionProfile:
    """onnxruntime's events, on the clock of the epoch, with the lines that nodes come from."""
    complete = [e for e in events if e["ph"] == "X"]
    kernels = [e for e in complete if e["cat"] == "Node" and e["name"].endswith(_KERNEL)]
    runs = [e for e in complete if e["name"] == "model_run"]
    return SessionProfile(
        tuple((start_us + e["ts"], float(e["dur"])) for e in runs),
        tuple(_timed(kernels, start_us, locations)),
    )


def _timed(
    kernels: Iterable[dict[str, Any]], start_us: float, locations: dict[str, str]
) -> Iterator[Timed]:
    """Each kernel; one within another is of its body."""
    # Of two that begin together the longer one is outside.
    ordered = sorted(kernels, key=lambda e: (e["tid"], e["ts"], -e["dur"]))
    own_us = [float(e["dur"]) for e in ordered]
    around: list[int] = []  # the kernels that last now, outermost first
    for place, event in enumerate(ordered):
        while around and not _within(event, ordered[around[-1]]):
            around.pop()
        if around:
            own_us[around[-1]] -= event["dur"]
        around.append(place)
    for event, own in zip(ordered, own_us, strict=True):
        node = event["name"].removesuffix(_KERNEL).removeprefix(_FUSED)
        yield Timed(
            op=event["args"].get("op_name", node),
            node=node,
            provider=event["args"].get("provider", ""),
            location=locations.get(node.rpartition("/")[0], ""),
            start_us=start_us + event["ts"],
            duration_us=float(event["dur"]),
            own_us=max(own, 0.0),
            thread=event["tid"],
        )


def _within(event: dict[str, Any], other: dict[str, Any]) -> bool:
    ends = event["ts"] + event["dur"], other["ts"] + other["dur"]
    return event["tid"] == other["tid"] and event["ts"] >= other["ts"] and ends[0] <= ends[1]
