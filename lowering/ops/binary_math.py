"""Functions of two tensors: atan2, hypot, copysign, xlogy, logaddexp."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..registry import lowers
from ..rule import Operand, Rule, Scalar
from ..value import Value
from ._bits import BITS, bits, from_bits
from ._pointwise import compute, log1p, narrow, static

aten = torch.ops.aten


@lowers(aten.atan2.default)
def atan2(cx: Rule, self: Operand, other: Operand) -> Value:
    """self [*A] (y), other [*B] (x) -> the angle of (x, y) in -pi..pi [*broadcast], floating.

    ONNX has the arctangent of one number: it is taken of |y| / |x| and moved to the quadrant. Signs
    of zeros count, as in C.
    """
    y, x = compute(cx, self, other)
    dtype = cx.dtype(y)
    zero, one, pi = (cx.scalar(n, dtype) for n in (0, 1, math.pi))
    tall, wide = cx.op.Abs(y), cx.op.Abs(x)
    diagonal = cx.op.Where(cx.op.Equal(wide, zero), zero, one)  # 0 / 0 and inf / inf
    slope = cx.op.Where(cx.op.Equal(tall, wide), diagonal, cx.op.Div(tall, wide))
    angle = cx.op.Atan(slope)
    angle = cx.op.Where(_negative(cx, x), cx.op.Sub(pi, angle), angle)
    sign = cx.op.Where(_negative(cx, y), cx.scalar(-1, dtype), one)  # Where would lose that of 0
    return narrow(cx, cx.op.Mul(angle, sign))


def _negative(cx: Rule, value: Value) -> Value:
    """The sign bit of every float but NaN: -0.0 shows it in its reciprocal."""
    zero = cx.scalar(0, cx.dtype(value))
    shown = cx.op.Where(cx.op.Equal(value, zero), cx.op.Reciprocal(value), value)
    return cx.op.Less(shown, zero)


@lowers(aten.copysign.Scalar)
def copysign_scalar(cx: Rule, self: Value, other: Scalar) -> Value:
    """self [*A], a number -> |self| with the sign of the number [*A], floating."""
    (magnitude,) = cx.promote(self)
    magnitude = cx.op.Abs(magnitude)
    if not static(other):
        return magnitude  # a size
    return cx.op.Neg(magnitude) if math.copysign(1, other) < 0 else magnitude


@lowers(aten.copysign.Tensor)
def copysign(cx: Rule, self: Operand, other: Operand) -> Value:
    """self [*A], other [*B] -> |self| with the sign of other [*broadcast], floating.

    Zeros and NaN have signs too, which only their bits show.
    """
    dtype = cx.out.dtype
    magnitude, sign = cx.promote(self, other)
    mask = cx.scalar(torch.iinfo(BITS[dtype]).min, BITS[dtype])
    rest = cx.op.BitwiseAnd(bits(cx, magnitude), cx.op.BitwiseNot(mask))
    return from_bits(cx, cx.op.BitwiseOr(rest, cx.op.BitwiseAnd(bits(cx, sign), mask)), dtype)


@lowers(aten.nextafter.default)
def nextafter(cx: Rule, self: Value, other: Value) -> Value:
    """self [*A], other [*B] -> the next number from self towards other [*broadcast].

    Read as an integer, the bits of a float grow with its magnitude; other than in the order of
    numbers, that of a negative one falls. From a zero it is the least number, signed as other is.
    """
    dtype = cx.out.dtype
    zero = cx.scalar(0, dtype)
    up = cx.op.Greater(other, self)
    outward = cx.op.Equal(up, cx.op.Greater(self, zero))
    at, whole = bits(cx, self), BITS[dtype]
    step = cx.op.Where(outward, cx.scalar(1, whole), cx.scalar(-1, whole))
    mask = cx.scalar(torch.iinfo(whole).min, whole)
    least = cx.op.BitwiseOr(cx.op.BitwiseAnd(bits(cx, other), mask), cx.scalar(1, whole))
    moved = cx.op.Where(cx.op.Equal(self, zero), least, cx.op.Add(at, step))
    moved = cx.op.Where(cx.op.Equal(self, other), bits(cx, other), moved)
    nan = cx.op.Or(cx.op.IsNaN(self), cx.op.IsNaN(other))
    return from_bits(cx, cx.op.Where(nan, bits(cx, cx.scalar(math.nan, dtype)), moved), dtype)


@lowers(aten.hypot.default)
def hypot(cx: Rule, self: Operand, other: Operand) -> Value:
    """self [*A], other [*B] -> sqrt(self ** 2 + other ** 2) [*broadcast], without overflow.

    Up to float32 the squares are taken in float64, whose own are of parts of the larger number. An
    infinity wins over NaN, as in C.
    """
    a, b = (cx.cast(v, torch.float64) for v in cx.promote(self, other))
    if cx.out.dtype is torch.float64:
        one, zero = (cx.scalar(n, torch.float64) for n in (1, 0))
        high, low = (op(cx.op.Abs(a), cx.op.Abs(b)) for op in (cx.op.Max, cx.op.Min))
        part = cx.op.Where(cx.op.Equal(high, zero), zero, cx.op.Div(low, high))
        root = cx.op.Mul(high, cx.op.Sqrt(cx.op.Add(one, cx.op.Mul(part, part))))
    else:
        root = cx.op.Sqrt(cx.op.Add(cx.op.Mul(a, a), cx.op.Mul(b, b)))
    infinite = cx.op.Or(cx.op.IsInf(a), cx.op.IsInf(b))
    return narrow(cx, cx.op.Where(infinite, cx.scalar(math.inf, torch.float64), root))


@lowers(
    aten.xlogy.Tensor,
    aten.xlogy.Scalar_Self,
    aten.xlogy.Scalar_Other,
)
def xlogy(cx: Rule, self: Operand, other: Operand) -> Value:
    """self [*A], other [*B] -> self * log(other), 0 where self is 0 [*broadcast]; NaN of other."""
    x, y = cx.promote(self, other)
    return _product_with_log(cx, x, y, cx.op.Log(y))


@lowers(
    aten.special_xlog1py.default,
    aten.special_xlog1py.self_scalar,
    aten.special_xlog1py.other_scalar,
)
def xlog1py(cx: Rule, self: Operand, other: Operand) -> Value:
    """self [*A], other [*B] -> self * log(1 + other), 0 where self is 0 [*broadcast]."""
    x, y = cx.promote(self, other)
    return _product_with_log(cx, x, y, narrow(cx, log1p(cx, *compute(cx, y))))


def _product_with_log(cx: Rule, x: Value, y: Value, log: Value) -> Value:
    zero = cx.scalar(0, cx.dtype(x))
    plain = cx.op.Where(cx.op.Equal(x, zero), zero, cx.op.Mul(x, log))
    return cx.op.Where(cx.op.IsNaN(y), y, plain)


LOG_ADD: dict[Any, float | None] = {
    aten.logaddexp.default: None,
    aten.logaddexp2.default: math.log(2),
}


@lowers(*LOG_ADD)
def logaddexp(cx: Rule, self: Operand, other: Operand) -> Value:
    """self [*A], other [*B] -> log(exp(self) + exp(other)), or to base 2 [*broadcast].

    It is max + log(1 + exp(-|difference|)), and that logarithm is ONNX's Softplus.
    """
    a, b = compute(cx, self, other)
    dtype = cx.dtype(a)
    factor = LOG_ADD[cx.node.target]
    apart = cx.op.Neg(cx.op.Abs(cx.op.Sub(a, b)))
    if factor is None:
        more = cx.op.Softplus(apart)
    else:
        base = cx.scalar(factor, dtype)
        more = cx.op.Div(cx.op.Softplus(cx.op.Mul(apart, base)), base)
    total = cx.op.Add(cx.op.Max(a, b), more)
    both = cx.op.And(cx.op.Equal(a, b), cx.op.IsInf(a))  # inf - inf
    return narrow(cx, cx.op.Where(both, a, total))
