"""Running sums."""

from __future__ import annotations

import torch

from ..builder import Value
from ..registry import lowers
from ..rule import Rule

aten = torch.ops.aten


@lowers(aten.cumsum.default)
def cumsum(cx: Rule, self: Value, dim: int, dtype: torch.dtype | None) -> Value:
    """self [*D] -> [*D]; integers and bool become int64 unless dtype says otherwise.

    ATen's CPU kernel keeps the running sum of float32 in float64 (of 16-bit floats in float32) and
    rounds each element; ONNX Runtime's CumSum adds up in the type it is given. It refuses 0-d.
    Ref: https://onnx.ai/onnx/operators/onnx__CumSum.html,
    aten/src/ATen/native/cpu/ReduceOpsKernel.cpp
    """
    out = cx.out.dtype
    source = cx.cast(self, out)
    if not self.known_dims:
        return cx.op.Identity(source)
    if out is torch.float32:
        source = cx.cast(source, torch.float64)
    axis = cx.const(cx.axis(dim, self.rank), torch.int64)
    return cx.cast(cx.op.CumSum(source, axis), out)
