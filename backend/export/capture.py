"""From a model to an `ExportedProgram`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram

from ..torch_private import exporting_to_onnx
from .arguments import told_apart
from .errors import OnnxExporterError
from .objects import register_objects
from .stages import Stages


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
    stages: Stages,
) -> ExportedProgram:
    """Trace in Python (`strict=False`); where that fails, by TorchDynamo (`strict=True`).

    OnnxExporterError with what both say when neither works.
    """
    if isinstance(model, ExportedProgram):
        return model
    module = model if isinstance(model, torch.nn.Module) else _Function(model)
    shapes: Any = dynamic_shapes
    register_objects((tuple(args), dict(kwargs)))
    args, kwargs = told_apart(module, tuple(args), dict(kwargs))
    failures: list[tuple[str, Exception]] = []
    for strict in (False, True):
        strategy = f"capture by torch.export.export(strict={strict})"
        # Results must be known before they are taken apart.
        hook = module.register_forward_hook(_register_results)
        try:
            with stages.stage(strategy), torch.no_grad(), exporting_to_onnx():
                return torch.export.export(
                    module,
                    args,
                    kwargs,
                    dynamic_shapes=shapes,
                    strict=strict,
                    prefer_deferred_runtime_asserts_over_guards=True,
                )
        except Exception as error:  # noqa: BLE001 - the other way may work; else both are told
            failures.append((strategy, error))
        finally:
            hook.remove()
    lines = [f"  {strategy}: {_first_lines(error)}" for strategy, error in failures]
    raise OnnxExporterError(
        "the model could not be captured as one graph\n" + "\n".join(lines) + "\n"
        "change the model at that line, or leave it as it is and use "
        "torch.compile(model, backend='onnx'), which needs no whole graph"
    ) from failures[0][1]


def _register_results(_module: object, _args: object, results: object) -> None:
    register_objects(results)


def _first_lines(error: Exception) -> str:
    text = str(error).strip().split("\n\n")[0].replace("\n", "\n    ")
    return f"{type(error).__name__}: {text}"
