"""Elementwise extremes: maximum, minimum, fmax, fmin and clamp."""

from __future__ import annotations

import math

import torch

from ..registry import lowers
from ..rule import Operand, Rule, Scalar
from ..value import Value
from ._pointwise import static

aten = torch.ops.aten


@lowers(aten.maximum.default)
def maximum(cx: Rule, self: Value, other: Operand) -> Value:
    """self [*A], other [*B] -> the greater [*broadcast]; NaN if either is.

    ONNX leaves NaN open; ONNX Runtime's Max and Min hand it on, as ATen does.
    Ref: https://onnx.ai/onnx/operators/onnx__Max.html
    """
    a, b = cx.promote(self, other)
    return cx.op.Or(a, b) if cx.out.dtype is torch.bool else cx.op.Max(a, b)


@lowers(aten.minimum.default)
def minimum(cx: Rule, self: Value, other: Operand) -> Value:
    """self [*A], other [*B] -> the smaller [*broadcast]; NaN if either is."""
    a, b = cx.promote(self, other)
    return cx.op.And(a, b) if cx.out.dtype is torch.bool else cx.op.Min(a, b)


@lowers(aten.fmax.default)
def fmax(cx: Rule, self: Value, other: Operand) -> Value:
    """self [*A], other [*B] -> the greater [*broadcast]; a NaN gives way to the other one."""
    return maximum(cx, *_without_nan(cx, self, other))


@lowers(aten.fmin.default)
def fmin(cx: Rule, self: Value, other: Operand) -> Value:
    """self [*A], other [*B] -> the smaller [*broadcast]; a NaN gives way to the other one."""
    return minimum(cx, *_without_nan(cx, self, other))


def _without_nan(cx: Rule, self: Value, other: Operand) -> tuple[Value, Value]:
    a, b = cx.promote(self, other)
    if not cx.out.dtype.is_floating_point:
        return a, b
    return cx.op.Where(cx.op.IsNaN(a), b, a), cx.op.Where(cx.op.IsNaN(b), a, b)


@lowers(aten.clamp.default)
def clamp(cx: Rule, self: Value, min_: Scalar | None, max_: Scalar | None) -> Value:
    """self [*A] -> min(max(self, min), max) [*A]; NaN stays, a NaN bound makes everything NaN.

    Without a bound Clip uses the greatest finite number, which would change infinities; and it
    passes over a NaN bound.
    Ref: https://onnx.ai/onnx/operators/onnx__Clip.html
    """
    (x,) = cx.promote(self)
    dtype = cx.out.dtype
    if not dtype.is_floating_point:
        low, high = (None if bound is None else cx.scalar(bound, dtype) for bound in (min_, max_))
        return cx.op.Clip(x, low, high)
    if any(static(bound) and math.isnan(bound) for bound in (min_, max_)):
        return cx.full(cx.out.dims, math.nan, dtype)
    low = cx.scalar(-math.inf if min_ is None else min_, dtype)
    high = cx.scalar(math.inf if max_ is None else max_, dtype)
    return cx.op.Clip(x, low, high)


@lowers(aten.clamp_min.default)
def clamp_min(cx: Rule, self: Value, min_: Scalar) -> Value:
    """self [*A] -> max(self, min) [*A]."""
    return clamp(cx, self, min_, None)


@lowers(aten.clamp_max.default)
def clamp_max(cx: Rule, self: Value, max_: Scalar) -> Value:
    """self [*A] -> min(self, max) [*A]."""
    return clamp(cx, self, None, max_)


@lowers(aten.clamp.Tensor)
def clamp_tensor(cx: Rule, self: Value, min_: Value | None, max_: Value | None) -> Value:
    """self [*A], min [*B], max [*C] -> min(max(self, min), max) [*broadcast]; NaN wins."""
    (x,) = cx.promote(self)
    if min_ is not None:
        x = maximum(cx, x, min_)
    if max_ is not None:
        x = minimum(cx, x, max_)
    return x


@lowers(aten.clamp_min.Tensor)
def clamp_min_tensor(cx: Rule, self: Value, min_: Value) -> Value:
    """self [*A], min [*B] -> max(self, min) [*broadcast]."""
    return clamp_tensor(cx, self, min_, None)


@lowers(aten.clamp_max.Tensor)
def clamp_max_tensor(cx: Rule, self: Value, max_: Value) -> Value:
    """self [*A], max [*B] -> min(self, max) [*broadcast]."""
    return clamp_tensor(cx, self, None, max_)
