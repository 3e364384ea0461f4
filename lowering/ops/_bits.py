"""The bits of floats as integers, which ai.onnx reads from opset 26 on."""

from __future__ import annotations

import torch

from ..dtypes import TO_ONNX
from ..rule import Rule
from ..value import Value

BITS = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
}


def bits(cx: Rule, value: Value) -> Value:
    """float [*A] -> integer [*A] of the same bits."""
    return _bit_cast(cx, value, BITS[cx.dtype(value)])


def from_bits(cx: Rule, value: Value, dtype: torch.dtype) -> Value:
    """integer [*A] -> float [*A] of the same bits."""
    return _bit_cast(cx, value, dtype)


def _bit_cast(cx: Rule, value: Value, dtype: torch.dtype) -> Value:
    """The same bits as another type of the same size.

    Ref: https://onnx.ai/onnx/operators/onnx__BitCast.html
    """
    out: Value = cx.op.BitCast(value, to=int(TO_ONNX[dtype]), dtypes=[TO_ONNX[dtype]])
    out.dims = value.dims
    return out
