"""Arithmetic with torch's type promotion: add, sub, mul, div."""

from __future__ import annotations

import torch

from ..builder import Value
from ..registry import lowers
from ..rule import Operand, Rule, Scalar

aten = torch.ops.aten


@lowers(aten.add.Tensor, aten.add.Scalar)
def add(cx: Rule, self: Operand, other: Operand, alpha: Scalar) -> Value:
    """self [*A], other [*B] -> self + alpha * other [*broadcast] in the promoted dtype.

    bool + bool is a logical or in ATen; ONNX has no Add for bool.
    Ref: https://onnx.ai/onnx/operators/onnx__Add.html
    """
    a, b = cx.promote(self, other)
    if cx.out.dtype is torch.bool:
        return cx.op.Or(a, b) if alpha else a
    if alpha != 1:
        b = cx.op.Mul(b, cx.scalar(alpha, cx.out.dtype))
    return cx.op.Add(a, b)
