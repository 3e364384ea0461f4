"""Is a region worth its session? It is timed against its eager form, once."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch

from .errors import Reason, ReasonKind
from .locks import ProcessLock
from .opened import Argument
from .trials import Outcome, Run

ROUNDS = 5
MARGIN = 1.1  # by which the best run must be slower than eager's best


class Profitability:
    """A `Trial` of one call: after a run to warm up, both take turns.

    The region loses its place if it was slower in every round, and by a margin. One round that it
    wins is enough to keep it: noise makes a run longer, never shorter.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._lock = ProcessLock()
        self._told = False

    def __call__(self, args: Sequence[Argument], ours: Run, eager: Run) -> Outcome:
        """One call; while a thread times it, those of others only run."""
        lock = self._lock()
        if lock.locked():
            return Outcome(ours(args), over=False)
        with lock:
            if self._told:
                return Outcome(ours(args), over=True)
            outcome = self._judged(args, ours, eager)
            self._told = True
        return outcome

    def _judged(self, args: Sequence[Argument], ours: Run, eager: Run) -> Outcome:
        ours(args)
        eager(args)
        best = best_in_eager = math.inf
        found: list[torch.Tensor] = []
        wanted: list[torch.Tensor] = []
        for _ in range(ROUNDS):
            found, run_s = self._timed(ours, args)
            wanted, eager_s = self._timed(eager, args)
            best, best_in_eager = min(best, run_s), min(best_in_eager, eager_s)
            if run_s <= eager_s:
                return Outcome(found, over=True)
        if best <= MARGIN * best_in_eager:
            return Outcome(found, over=True)
        times = f"{best * 1e3:.3g} ms a run, {best_in_eager * 1e3:.3g} ms in eager"
        return Outcome(wanted, over=True, reason=Reason(ReasonKind.SLOWER, times))

    def _timed(self, run: Run, args: Sequence[Argument]) -> tuple[list[torch.Tensor], float]:
        """The results of a run, and its seconds."""
        self._wait()
        begun = time.perf_counter()
        results = run(args)
        self._wait()
        return results, time.perf_counter() - begun

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
