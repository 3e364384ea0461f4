"""What happened on the way to a model, stage by stage: what reports and errors tell."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from enum import StrEnum

log = logging.getLogger(__name__)


class Outcome(StrEnum):
    """What came of a stage."""

    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage; `error` is what stopped it."""

    name: str
    outcome: Outcome
    seconds: float
    error: Exception | None = None


@dataclass(slots=True)
class Stages:
    """Those so far. Each is logged as it begins, which is how progress is seen."""

    done: list[Stage] = field(default_factory=list[Stage])

    @contextlib.contextmanager
    def stage(self, name: str) -> Generator[None]:
        """Time what is inside; what it raises is noted, and goes on."""
        log.info("%s", name)
        started = time.perf_counter()
        try:
            yield
        except Exception as error:
            self._note(name, Outcome.FAILED, started, error)
            raise
        self._note(name, Outcome.DONE, started, None)

    def _note(self, name: str, outcome: Outcome, started: float, error: Exception | None) -> None:
        self.done.append(Stage(name, outcome, time.perf_counter() - started, error))
