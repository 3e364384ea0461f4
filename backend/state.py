"""What the backend remembers between compilations: programs by fingerprint, a record per graph.

The only mutable state of the package besides the registry; `reset()` empties it.
"""

from __future__ import annotations

import threading
import types
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.errors import Reason
from ..runtime.executable import Executable
from ..runtime.opened import Sessions
from ..runtime.program import Program
from ..runtime.quantize import QuantizedWeights
from .options import Options
from .program_files import ProgramFiles

if TYPE_CHECKING:
    from .stitch import Stitched


@dataclass(frozen=True, slots=True)
class GraphBreak:
    """Why Dynamo ended a graph, in its words, and the user's `file:line` where it did."""

    reason: str
    location: str


@dataclass(frozen=True, slots=True)
class Frame:
    """The frame Dynamo is compiling: its id, and weak ways back to its guards and its caller.

    `input_names` are the user's names of the graph's inputs, in order, `weights` the places of
    parameters and buffers among them; `graph_break` is what ended the graph before the frame's end.
    """

    compile_id: str
    code: weakref.ref[types.CodeType] | None
    backend: weakref.ref[object] | None
    input_names: tuple[str, ...]
    graph_break: GraphBreak | None = None
    weights: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class EagerOp:
    """One operator that was left to eager, and the user's `file:line` that it comes from."""

    op: str
    reason: Reason
    location: str


@dataclass(frozen=True, slots=True)
class RegionRecord:
    """One region. The executable is held weakly: it lives as long as the compiled function."""

    program: Program
    executable: weakref.ref[Executable]
    input_names: tuple[str, ...]
    from_cache: bool


@dataclass(frozen=True, slots=True)
class Timings:
    """What compiling a graph cost us, in milliseconds; sessions are opened at the first call."""

    partition_ms: float
    lowering_ms: float


@dataclass(frozen=True, slots=True)
class GraphRecord:
    """One captured graph and what became of it. `kind`: inference, forward or backward.

    `native` counts the operators that ONNX Runtime executes, by overload. `written` are the inputs,
    by position, that the first outputs replace, `returned` outputs that are inputs. `stitched` is
    the graph itself, held weakly: it lives as long as the compiled function.
    """

    frame: Frame
    kind: str
    native: Mapping[str, int]
    eager: tuple[EagerOp, ...]
    regions: tuple[RegionRecord, ...]
    timings: Timings
    options: Options
    written: tuple[int, ...]
    returned: Mapping[int, int]
    stitched: weakref.ref[Stitched]


@dataclass(slots=True)
class State:
    """Programs by fingerprint, graph records in the order of their compilation, cache counters.

    `cache_loads` counts the programs that came from `cache_dir`, or from torch's cache artifacts,
    of which `delivered` are those not used yet, as bytes. `files` are the directories in use,
    `pins` the overloads that verification has left to eager, and why.

    `quantized` are the weights that several sessions can share, `sessions` what several executables
    can; both are held weakly.
    """

    programs: dict[str, Program] = field(default_factory=dict[str, Program])
    graphs: list[GraphRecord] = field(default_factory=list[GraphRecord])
    cache_hits: int = 0
    cache_misses: int = 0
    cache_loads: int = 0
    quantized: QuantizedWeights = field(default_factory=QuantizedWeights)
    sessions: Sessions = field(default_factory=Sessions)
    pins: dict[str, str] = field(default_factory=dict[str, str])
    delivered: dict[str, bytes] = field(default_factory=dict[str, bytes])
    files: dict[tuple[Path, int], ProgramFiles] = field(
        default_factory=dict[tuple[Path, int], ProgramFiles]
    )
    lock: threading.RLock = field(default_factory=threading.RLock)

    def find(self, fingerprint: str) -> Program | None:
        """A cached program; counts the hit or the miss."""
        with self.lock:
            program = self.programs.get(fingerprint)
            if program is None:
                self.cache_misses += 1
            else:
                self.cache_hits += 1
            return program

    def keep(self, program: Program) -> None:
        """Cache a program."""
        with self.lock:
            self.programs[program.fingerprint] = program

    def files_in(self, directory: Path, limit_bytes: int) -> ProgramFiles:
        """The programs in a directory."""
        with self.lock:
            key = (directory, limit_bytes)
            if key not in self.files:
                self.files[key] = ProgramFiles(directory, limit_bytes)
            return self.files[key]

    def record(self, graph: GraphRecord) -> None:
        """Add what became of a graph."""
        with self.lock:
            self.graphs.append(graph)

    def clear(self) -> None:
        """Forget everything. Compiled functions that still exist keep working."""
        with self.lock:
            self.programs.clear()
            self.graphs.clear()
            self.quantized.clear()
            self.sessions.clear()
            self.pins.clear()
            self.delivered.clear()
            self.files.clear()
            self.cache_hits = self.cache_misses = self.cache_loads = 0


state = State()


def reset() -> None:
    """Forget programs, records and counters."""
    state.clear()
