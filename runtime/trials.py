"""Trials: what the first calls of a program are asked, before it runs in ONNX Runtime alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch

from .errors import Reason
from .opened import Argument

Run: TypeAlias = Callable[[Sequence[Argument]], list[torch.Tensor]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one call on trial. `results` are right in any case.

    `over` is whether later calls are spared it, `reason` why they all run in eager.
    """

    results: list[torch.Tensor]
    over: bool
    reason: Reason | None = None


class Trial(Protocol):
    """Runs a call in ONNX Runtime (`ours`) and in eager, as often as it takes to tell something.

    Several threads may be at it. Arguments stay as they are, but for inputs that `ours` writes its
    results onto, which no result depends on otherwise: every run gives the same.
    """

    def __call__(self, args: Sequence[Argument], ours: Run, eager: Run) -> Outcome:
        """One call."""
        ...
