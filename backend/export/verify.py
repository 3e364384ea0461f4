"""Does onnxruntime compute what PyTorch does?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.onnx
from torch.export import ExportedProgram

from ..torch_private import pytree
from .errors import OnnxExporterError

# Relative and absolute. Sums come in other orders: some ten times what `torch.testing` allows.
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-7, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def expected(
    exported: ExportedProgram, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[torch.Tensor]:
    """What PyTorch returns, as a model does: without None, numbers as tensors, complex as pairs."""
    with torch.no_grad():
        results = pytree.tree_leaves(exported.module()(*args, **kwargs))
    numbers = (torch.Tensor, bool, int, float)
    tensors = [torch.as_tensor(r) for r in results if isinstance(r, numbers)]
    return [torch.view_as_real(t.resolve_conj()) if t.is_complex() else t for t in tensors]


def computed(
    program: torch.onnx.ONNXProgram, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Sequence[torch.Tensor]:
    """What onnxruntime returns; OnnxExporterError if it does not take the model."""
    try:
        return program(*args, **kwargs)
    except Exception as error:  # its exceptions have no common base
        raise OnnxExporterError(f"onnxruntime does not run the model: {error}") from error


def compare(
    program: torch.onnx.ONNXProgram, found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]
) -> None:
    """OnnxExporterError where a result differs."""
    if len(found) != len(wanted):
        raise OnnxExporterError(f"verify: {len(found)} outputs for {len(wanted)} of PyTorch's")
    for output, ours, eager in zip(program.model.graph.outputs, found, wanted, strict=True):
        tolerance = _TOLERANCE.get(eager.dtype, 0.0)
        try:
            torch.testing.assert_close(ours, eager, rtol=tolerance, atol=tolerance, equal_nan=True)
        except AssertionError as error:
            raise OnnxExporterError(f"verify: output {output.name}: {error}") from error
