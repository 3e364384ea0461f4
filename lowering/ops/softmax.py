"""softmax and log_softmax."""

from __future__ import annotations

import torch

from ..dims import Dims
from ..registry import lowers
from ..rule import Rule
from ..value import Value

aten = torch.ops.aten


@lowers(aten._softmax.default)
def softmax(cx: Rule, self: Value, dim: int, half_to_float: bool) -> Value:
    """self [*D] -> [*D], sums to 1 along dim; a fully masked (all -inf) row is NaN in both.

    ONNX refuses 0-d tensors.
    Ref: https://onnx.ai/onnx/operators/onnx__Softmax.html
    """
    if half_to_float:
        self = cx.cast(self, torch.float32)
    lined = _at_least_1d(cx, self)
    return cx.reshape(cx.op.Softmax(lined, axis=cx.axis(dim, lined.rank)), cx.out.dims)


@lowers(aten._log_softmax.default)
def log_softmax(cx: Rule, self: Value, dim: int, half_to_float: bool) -> Value:
    """self [*D] -> [*D].

    ONNX Runtime's float64 kernel disagrees with its float32 one and with ATen on rows that hold
    +inf (-inf where they give NaN), so float64 is spelled out.
    Ref: https://onnx.ai/onnx/operators/onnx__LogSoftmax.html
    """
    if half_to_float:
        self = cx.cast(self, torch.float32)
    lined = _at_least_1d(cx, self)
    axis = cx.axis(dim, lined.rank)
    if cx.dtype(self) is not torch.float64 or cx.out.dims == ():
        return cx.reshape(cx.op.LogSoftmax(lined, axis=axis), cx.out.dims)
    axes = cx.ints([axis])
    shifted = cx.op.Sub(lined, _kept(cx.op.ReduceMax(lined, axes), lined.known_dims, axis))
    total = _kept(cx.op.ReduceSum(cx.op.Exp(shifted), axes), lined.known_dims, axis)
    return cx.op.Sub(shifted, cx.op.Log(total))


@lowers(aten._safe_softmax.default)
def safe_softmax(cx: Rule, self: Value, dim: int, dtype: torch.dtype | None) -> Value:
    """softmax whose fully masked (all -inf) rows are 0 instead of NaN."""
    lined = _at_least_1d(cx, cx.cast(self, cx.out.dtype))
    axis = cx.axis(dim, lined.rank)
    probabilities = cx.op.Softmax(lined, axis=axis)
    if 0 in lined.known_dims:
        return cx.reshape(probabilities, cx.out.dims)
    masked = cx.op.Equal(lined, cx.scalar(float("-inf"), cx.out.dtype))
    none_left = cx.op.ReduceMin(masked, cx.ints([axis]))
    result = cx.op.Where(none_left, cx.scalar(0, cx.out.dtype), probabilities)
    result.dims = lined.dims
    return cx.reshape(result, cx.out.dims)


def _at_least_1d(cx: Rule, value: Value) -> Value:
    return value if value.known_dims else cx.reshape(value, (1,))


def _kept(reduced: Value, dims: Dims, axis: int) -> Value:
    """The dims of a reduction with keepdims, for the elementwise ops that follow."""
    reduced.dims = (*dims[:axis], 1, *dims[axis + 1 :])
    return reduced
