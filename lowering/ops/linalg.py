"""Of linear algebra what needs no decomposition of its own: determinants, the parts of an LU."""

from __future__ import annotations

import torch

from ..registry import lowers
from ..rule import Rule
from ..value import Value

aten = torch.ops.aten


@lowers(aten._linalg_det.default)
def linalg_det(cx: Rule, A: Value) -> tuple[Value, None, None]:
    """A [*B, N, N] -> its determinant [*B]; the LU and its pivots stay inside the kernel.

    Ref: https://onnx.ai/onnx/operators/onnx__Det.html
    """
    if 0 in A.known_dims:
        return cx.ones(cx.out.dims, cx.out.dtype), None, None
    return cx.op.Det(A), None, None
