"""Does onnxruntime compute what PyTorch does?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.onnx
from torch.export import ExportedProgram

from ..torch_private import pytree
from .errors import OnnxExporterError

# Relative and absolute, as `torch.testing` has them, ten times wider: sums of other orders.
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-7, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def verify_program(
    program: torch.onnx.ONNXProgram,
    exported: ExportedProgram,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> None:
    """Run both on these inputs; OnnxExporterError where a result differs."""
    with torch.no_grad():
        wanted = [
            r for r in pytree.tree_leaves(exported.module()(*args, **kwargs)) if r is not None
        ]
    found = program(*args, **kwargs)
    if len(found) != len(wanted):
        raise OnnxExporterError(f"verify: {len(found)} outputs for {len(wanted)} of PyTorch's")
    for output, ours, eager in zip(program.model.graph.outputs, found, wanted, strict=True):
        tensor = torch.as_tensor(eager)
        expected = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
        tolerance = _TOLERANCE.get(expected.dtype, 0.0)
        try:
            torch.testing.assert_close(
                ours, expected, rtol=tolerance, atol=tolerance, equal_nan=True, check_dtype=False
            )
        except AssertionError as error:
            raise OnnxExporterError(f"verify: output {output.name}: {error}") from error
