"""Does onnxruntime compute what PyTorch does?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.onnx
from torch.export import ExportedProgram
from torch.func import functional_call

from ..torch_private import pytree
from .errors import OnnxExporterError

# Relative and absolute. Sums come in other orders: some ten times what `torch.testing` allows.
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-7, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def expected(
    model: torch.nn.Module | Callable[..., Any] | ExportedProgram,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> list[torch.Tensor]:
    """What PyTorch returns, as a model does: without None, numbers as tensors, complex as pairs.

    The inputs, the module's buffers and torch's random numbers stay as they were.
    """
    args, kwargs = copied((tuple(args), dict(kwargs)))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        if isinstance(model, torch.nn.Module):
            buffers = {name: b.clone() for name, b in model.named_buffers()}
            results = functional_call(model, buffers, args, dict(kwargs))
        else:
            function = model.module() if isinstance(model, ExportedProgram) else model
            results = function(*args, **kwargs)
    numbers = (torch.Tensor, bool, int, float)
    tensors = [torch.as_tensor(r) for r in pytree.tree_leaves(results) if isinstance(r, numbers)]
    return [torch.view_as_real(t.resolve_conj()) if t.is_complex() else t for t in tensors]


def copied(inputs: Any) -> Any:  # noqa: ANN401 - a tree
    """The inputs for one who may write to them."""
    return pytree.tree_map_only(torch.Tensor, torch.clone, inputs)


def computed(
    program: torch.onnx.ONNXProgram, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Sequence[torch.Tensor]:
    """What onnxruntime returns; OnnxExporterError if it does not take the model."""
    args, kwargs = copied((tuple(args), dict(kwargs)))
    try:
        return program(*args, **kwargs)
    except Exception as error:  # its exceptions have no common base
        raise OnnxExporterError(f"onnxruntime does not run the model: {error}") from error


def compare(
    program: torch.onnx.ONNXProgram,
    found: Sequence[torch.Tensor],
    wanted: Sequence[torch.Tensor],
    captured: Callable[[], Sequence[torch.Tensor]],
) -> None:
    """OnnxExporterError where a result differs from the model's; `captured` tells whose fault."""
    difference = _difference(program, found, wanted)
    if difference is None:
        return
    if _difference(program, found, captured()) is None:
        difference += (
            "\nthe program that torch.export captured differs from the model in the same way: does "
            "the model, or a library that it uses, ask torch.compiler.is_exporting() or "
            "torch.onnx.is_in_onnx_export()?"
        )
    raise OnnxExporterError(f"verify: {difference}")


def _difference(
    program: torch.onnx.ONNXProgram, found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]
) -> str | None:
    if len(found) != len(wanted):
        return f"{len(found)} outputs for {len(wanted)} of PyTorch's"
    for output, ours, eager in zip(program.model.graph.outputs, found, wanted, strict=True):
        tolerance = _TOLERANCE.get(eager.dtype, 0.0)
        try:
            torch.testing.assert_close(ours, eager, rtol=tolerance, atol=tolerance, equal_nan=True)
        except AssertionError as error:
            return f"output {output.name}: {error}"
    return None
