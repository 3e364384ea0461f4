"""A program opened in ONNX Runtime, and the call path.

A session is opened at the first call, with the weights that arrive in it. A later call checks
that they are still those, binds the other inputs, runs, and returns.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
import weakref
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from onnxruntime.capi import _pybind_state as ort_c

from .errors import Reason, ReasonKind, SessionError
from .linear_layers import Prepared, as_lowered
from .locks import ProcessLock
from .opened import Argument, Opened, Setup, freezable_inputs, open_program, session_key
from .placement import Placement
from .program import OutputLayout, Program
from .session import explain
from .tensors import as_input, repeat_in_place, restride
from .trials import Run, Trial

log = logging.getLogger(__name__)

REOPENS_BEFORE_LIVE = 2
CALLS_OF_LASTING_WEIGHTS = 3  # those that live for fewer calls are made anew for each
_is_contiguous = torch.Tensor.is_contiguous
DEATHS_BEFORE_EAGER = 2  # of a provider
# onnxruntime's exceptions have no common base below Exception.
ORT_ERRORS = tuple(
    kind for kind in vars(ort_c).values() if isinstance(kind, type) and issubclass(kind, Exception)
)
# Those of a provider that has lost its device, its engine or itself; onnxruntime 1.27 to 1.32.
PROVIDER_ERRORS = tuple(
    kind for kind in ORT_ERRORS if kind.__name__ in ("DeviceReset", "EngineError", "EPFail")
)


@dataclass(slots=True)
class Counters:
    """What calls have cost so far. Times in milliseconds."""

    calls: int = 0
    sessions: int = 0
    session_ms: float = 0.0
    input_copies: int = 0
    output_copies: int = 0
    fallbacks: Counter[Reason] = field(default_factory=Counter[Reason])


@dataclass(slots=True)
class _Weights:
    """One set of weights that a program is called with: that of one model, or of one layer.

    `opened` is its session, `openings` how often one was opened, `since` the number of calls
    before. `references` tell when a weight is gone.
    """

    since: int
    opened: Opened | None = None
    openings: int = 0
    references: list[weakref.ref[torch.Tensor]] = field(
        default_factory=list[weakref.ref[torch.Tensor]]
    )

    def has_lost(self) -> bool:
        """Is one of the weights gone?"""
        return any(reference() is None for reference in self.references)


class Executable:
    """Owns the sessions of one program: one for each set of weights that it is called with.

    Models of one class share what Dynamo compiled, and so do layers that are compiled one by one.
    `fallback()` makes the region's eager form, for a session that cannot be opened or a run that
    fails; with `strict` these are errors. The first calls stand the `trials`, one after another,
    which may find that the region is to run in eager from then on.
    """

    def __init__(
        self,
        program: Program,
        setup: Setup,
        fallback: Callable[[], Run],
        trials: Iterable[Trial] = (),
    ) -> None:
        self.program = program
        self.setup = setup
        self.counters = Counters()
        self._make_fallback = fallback
        self._trials = tuple(trials)  # those that are not over
        self._eager: Run | None = None
        self._opened: Opened | None = None  # the one of the last call
        self._sets: dict[tuple[int, ...], _Weights] = {}
        self._short_lived = 0
        self._deaths = 0
        self._broken = False
        self._lock = ProcessLock()
        self._maybe_empty = [
            i
            for i, spec in enumerate(program.outputs)
            if not all(type(d) is int and d > 0 for d in spec.shape)
        ]
        self._layouts = [
            (i, layout) for i, layout in enumerate(program.layouts) if layout != OutputLayout()
        ]

    @property
    def providers(self) -> list[str]:
        """The providers of the session, or those asked for while there is none."""
        if self._opened is not None:
            return list(self._opened.session.get_providers())
        return [name for name, _ in self.setup.providers]

    @property
    def placement(self) -> Placement:
        """Which provider took what, once there is a session with several."""
        return Placement() if self._opened is None else self._opened.placement

    @property
    def prepared(self) -> Prepared:
        """The program of the session, or the lowered one while there is none."""
        opened = self._opened
        return as_lowered(self.program) if opened is None else opened.prepared

    @property
    def captured(self) -> int:
        """How many runs are captured as CUDA graphs."""
        graphs = None if self._opened is None else self._opened.launch.graphs
        return 0 if graphs is None else graphs.captured

    @property
    def uncaptured(self) -> str:
        """Why runs are not captured, where that was asked for."""
        return "" if self._opened is None else self._opened.why_uncaptured()

    def weight_tensors(self) -> dict[int, torch.Tensor]:
        """The constants of the session by position among the inputs of the prepared program."""
        return {} if self._opened is None else self._opened.constants()

    def session_ids(self) -> set[int]:
        """What tells its open sessions, which it may share, from others."""
        opened = [self._opened, *(weights.opened for weights in list(self._sets.values()))]
        return {id(each.session) for each in opened if each is not None}

    @contextlib.contextmanager
    def reopened(self, setup: Setup) -> Generator[None]:
        """Meanwhile, calls have sessions of their own, opened by this setup and closed at the end.

        They are not counted among the sessions.
        """
        with self._lock():
            own, opened, sets = self.setup, self._opened, self._sets
            counted = self.counters.sessions, self.counters.session_ms
            self.setup, self._opened, self._sets = setup, None, {}
        try:
            yield
        finally:
            with self._lock():
                self.setup, self._opened, self._sets = own, opened, sets
                self.counters.sessions, self.counters.session_ms = counted
                gone = [key for key, weights in sets.items() if weights.has_lost()]
                for key in list(sets) if self._broken else gone:
                    self._forget(key)
                if self._broken:
                    self._opened = None

    def run(self, args: Sequence[Argument]) -> list[torch.Tensor]:
        """One call: tensors (and sizes, as ints) in the program's order of inputs."""
        if self._trials:
            return self._tried(args)
        return self._run(args)

    def _tried(self, args: Sequence[Argument]) -> list[torch.Tensor]:
        """One call on trial. What it returns is right in any case."""
        trials = self._trials
        if not trials:  # another thread's call was the last one
            return self._run(args)
        outcome = trials[0](args, self._run, self._run_eager)
        with self._lock():
            if self._broken:
                self._trials = ()
            elif outcome.reason is not None:
                self._broken, self._opened, self._trials = True, None, ()
                self._sets.clear()
                self._fall_back(outcome.reason)
            elif outcome.over and self._trials is trials:
                self._trials = trials[1:]
        return outcome.results

    def _run(self, args: Sequence[Argument]) -> list[torch.Tensor]:
        if self.setup.computed and not self._as_promised(args):
            return self._run_eager(args)
        opened = self._opened
        if opened is None or not opened.usable(args):
            opened = self._open(args)
            if opened is None:
                return self._run_eager(args)
        self.counters.calls += 1
        tensors: list[Any] = [args[i] for i in opened.fed]
        for index in opened.converted:
            tensors[index] = as_input(tensors[index])
        if not all(map(_is_contiguous, tensors)):
            self.counters.input_copies += sum(not t.is_contiguous() for t in tensors)
            tensors = [t.contiguous() for t in tensors]
        try:
            outputs = opened.launch(tensors, args)
        except ORT_ERRORS as error:
            if isinstance(error, PROVIDER_ERRORS):
                self._close(opened)
            return self._failed_run(error, args)
        for index in self._maybe_empty:
            # Without elements, DLPack has strides of 0, torch those of a full tensor.
            if outputs[index].numel() == 0:
                outputs[index] = outputs[index].new_empty(outputs[index].shape)
        for reshaped in opened.reshaped:
            outputs[reshaped.position] = reshaped.view(outputs[reshaped.position], args)
        for index, layout in self._layouts:
            outputs[index] = self._laid_out(outputs, index, layout)
        del outputs[len(self.program.layouts) :]
        return outputs

    def _as_promised(self, args: Sequence[Argument]) -> bool:
        """Are eager operators' results of the dtype that the program was made for?

        Some meta functions of torch's are wrong; the session would read the memory as another type.
        """
        for index, dtype in self.setup.computed:
            value = args[index]
            if isinstance(value, torch.Tensor) and value.dtype != dtype:
                detail = f"an eager operator returned {value.dtype}, its metadata says {dtype}"
                self._fall_back(Reason(ReasonKind.DTYPE, detail))
                return False
        return True

    def _laid_out(
        self, outputs: list[torch.Tensor], index: int, layout: OutputLayout
    ) -> torch.Tensor:
        output = outputs[index]
        if layout.is_complex:
            # By `.data` a view of nothing: AOTAutograd would make the view again, of an input.
            output = torch.view_as_complex(output).data
        if layout.permute is not None:
            output = output.permute(layout.permute)
        if layout.expanded:
            self.counters.output_copies += 1
            return repeat_in_place(output, layout.expanded)
        if layout.restride is not None:
            self.counters.output_copies += 1
            return restride(output, *layout.restride)
        if layout.strides_in is not None:
            self.counters.output_copies += 1
            return restride(output, output.shape, outputs[layout.strides_in].tolist())
        return output

    def _open(self, args: Sequence[Argument]) -> Opened | None:
        """A session over the weights as they are now. None: this program runs in eager."""
        with self._lock():
            opened = self._opened
            if opened is not None and opened.usable(args):
                return opened
            if self._broken:
                return None
            weights = self._weights(args)
            opened = weights.opened
            if opened is not None and opened.usable(args):
                self._opened = opened
                return opened
            # Held over the opening, so that only weights that changed are quantized again.
            quantized = () if opened is None else opened.prepared.in_use
            opened = weights.opened = self._opened = None  # give the old one's memory back first
            try:
                self._opened = self._session(args, weights)
            except SessionError as error:
                if self.setup.strict or self.setup.require_provider:
                    raise
                self._broken = True
                self._fall_back(Reason(ReasonKind.SESSION_FAILED, str(error)))
                return None
            del quantized
            if self._opened.watch is not None:  # else it serves any weights
                weights.opened = self._opened
            return self._opened

    def _weights(self, args: Sequence[Argument]) -> _Weights:
        """The set of weights in these arguments: known, or new."""
        tensors = [t for i in self.setup.weights if isinstance(t := args[i], torch.Tensor)]
        key = tuple(map(id, tensors))
        known = self._sets.get(key)
        if known is None:
            known = self._sets[key] = _Weights(self.counters.calls)
            this = weakref.ref(self)

            def gone(_: object, ending: Callable[[], bool] = sys.is_finalizing) -> None:
                executable = this()
                if executable is not None and not ending():
                    executable._forget(key)  # noqa: SLF001 - its own

            known.references.extend(weakref.ref(tensor, gone) for tensor in tensors)
        return known

    def _forget(self, key: tuple[int, ...]) -> None:
        """Close the session of weights that are gone."""
        weights = self._sets.pop(key, None)
        if weights is None:
            return
        if self.counters.calls - weights.since < CALLS_OF_LASTING_WEIGHTS:
            self._short_lived += 1
        if weights.opened is not None and self._opened is weights.opened:
            self._opened = None

    def _session(self, args: Sequence[Argument], weights: _Weights) -> Opened:
        """One that is open over the same weights, or a new one."""
        changes = max(weights.openings, self._short_lived)
        tired = self.setup.may_go_live and changes > REOPENS_BEFORE_LIVE
        frozen = () if tired else freezable_inputs(self.program, self.setup, args)
        key = session_key(self.program, self.setup, frozen, args)
        found = self.setup.sessions.find(key, args)
        if found is not None:
            return found
        started = time.perf_counter()
        opened = open_program(self.program, self.setup, frozen, args)
        weights.openings += 1
        self.counters.sessions += 1
        self.counters.session_ms += (time.perf_counter() - started) * 1e3
        self.setup.sessions.keep(key, opened)
        return opened

    def _failed_run(self, error: Exception, args: Sequence[Argument]) -> list[torch.Tensor]:
        """ONNX Runtime refused this call. Eager decides what it is: an answer, or its own error."""
        message = explain(error, self.program, "ONNX Runtime failed while running")
        if self.setup.strict:
            raise SessionError(message) from error
        self._fall_back(Reason(ReasonKind.RUN_FAILED, message))
        return self._run_eager(args)

    def _close(self, opened: Opened) -> None:
        """What a provider has died in does not run again: the next call opens another session."""
        with self._lock():
            self.setup.sessions.drop(opened)
            for weights in self._sets.values():
                if weights.opened is opened:
                    weights.opened = None
            self._opened = None
            self._deaths += 1
            self._broken = self._deaths > DEATHS_BEFORE_EAGER

    def _fall_back(self, reason: Reason) -> None:
        if not self.counters.fallbacks:
            level = logging.INFO if reason.kind is ReasonKind.SLOWER else logging.WARNING
            log.log(level, "a region runs in eager PyTorch: %s", reason)
        self.counters.fallbacks[reason] += 1

    def _run_eager(self, args: Sequence[Argument]) -> list[torch.Tensor]:
        if self._eager is None:
            self._eager = self._make_fallback()
        return self._eager(args)
