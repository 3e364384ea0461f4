"""From a model to an `ExportedProgram` of operators that have rules."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram

from ...lowering.registry import Registry
from ..decompositions import DECOMPOSITIONS
from ..torch_private import export_decompositions, interpolation_whole
from .objects import register_objects


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way of capturing a model: how long it took, and what stopped it, if something did."""

    strategy: str
    seconds: float
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Captured:
    """What the attempts came to; no program if all of them failed."""

    program: ExportedProgram | None
    attempts: tuple[Attempt, ...]


class _Function(torch.nn.Module):
    """A function as the module that `torch.export` takes; its parameters keep their names."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.forward = function if _has_signature(function) else _signed(function)


def _has_signature(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function)
    except ValueError:
        return False
    return True


def _signed(builtin: Callable[..., Any]) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the builtin's
        return builtin(*args, **kwargs)

    return forward


def capture(
    model: torch.nn.Module | Callable[..., Any] | ExportedProgram,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    dynamic_shapes: object,
) -> Captured:
    """Trace in Python (`strict=False`); where that fails, by TorchDynamo (`strict=True`)."""
    if isinstance(model, ExportedProgram):
        return Captured(model, (Attempt("an ExportedProgram was given", 0.0),))
    module = model if isinstance(model, torch.nn.Module) else _Function(model)
    shapes: Any = dynamic_shapes
    attempts: list[Attempt] = []
    register_objects((tuple(args), dict(kwargs)))
    for strict in (False, True):
        strategy = f"torch.export.export(..., strict={strict})"
        started = time.perf_counter()
        hook = module.register_forward_hook(
            _register_results
        )  # known before results are taken apart
        try:
            program = torch.export.export(
                module,
                tuple(args),
                dict(kwargs),
                dynamic_shapes=shapes,
                strict=strict,
                prefer_deferred_runtime_asserts_over_guards=True,
            )
        except Exception as error:  # noqa: BLE001 - the other way may work; else it is reported
            attempts.append(Attempt(strategy, time.perf_counter() - started, error))
            continue
        finally:
            hook.remove()
        attempts.append(Attempt(strategy, time.perf_counter() - started))
        return Captured(program, tuple(attempts))
    return Captured(None, tuple(attempts))


def _register_results(_module: object, _args: object, results: object) -> None:
    register_objects(results)


def decomposed(program: ExportedProgram, registry: Registry) -> ExportedProgram:
    """The program in the operators that a captured frame has: as AOTAutograd leaves them to us."""
    table = export_decompositions(registry.__contains__, DECOMPOSITIONS)
    with interpolation_whole(registry.__contains__):
        return program.run_decompositions(table)
