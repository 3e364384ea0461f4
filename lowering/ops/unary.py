"""Functions of one tensor: exponentials, trigonometry, rounding, classification."""

from __future__ import annotations

import math
from typing import Any

import torch

from .. import dtypes
from ..registry import lowers
from ..rule import Rule
from ..value import Value
from ._bits import BITS, bits
from ._pointwise import choose, compute, log1p, narrow, truncate

aten = torch.ops.aten

FLOATING: dict[Any, str] = {
    aten.exp.default: "Exp",
    aten.log.default: "Log",
    aten.sin.default: "Sin",
    aten.cos.default: "Cos",
    aten.tan.default: "Tan",
    aten.asin.default: "Asin",
    aten.acos.default: "Acos",
    aten.atan.default: "Atan",
    aten.sinh.default: "Sinh",
    aten.cosh.default: "Cosh",
    aten.tanh.default: "Tanh",
    aten.asinh.default: "Asinh",
    aten.acosh.default: "Acosh",
    aten.atanh.default: "Atanh",
    aten.erf.default: "Erf",
    aten.sigmoid.default: "Sigmoid",
}


@lowers(*FLOATING)
def floating(cx: Rule, self: Value) -> Value:
    """self [*A] -> f(self) [*A], floating (integers and bools become float32 first).

    ONNX Runtime's Sigmoid is within 2e-7 of eager's, which is not relative to its small values.
    """
    return getattr(cx.op, FLOATING[cx.node.target])(*cx.promote(self))


@lowers(aten.exp2.default)
def exp2(cx: Rule, self: Value) -> Value:
    """self [*A] -> 2 ** self [*A], floating."""
    (x,) = cx.promote(self)
    return cx.op.Pow(cx.scalar(2, cx.out.dtype), x)


@lowers(aten.expm1.default)
def expm1(cx: Rule, self: Value) -> Value:
    """self [*A] -> exp(self) - 1 [*A], floating, exact near zero.

    It is 2 * sinh(x / 2) * exp(x / 2); below -100 it is -1, where that product would be inf * 0.
    """
    (x,) = compute(cx, self)
    dtype = cx.dtype(x)
    half = cx.op.Mul(cx.op.Max(x, cx.scalar(-100, dtype)), cx.scalar(0.5, dtype))
    return narrow(cx, cx.op.Mul(cx.op.Mul(cx.op.Sinh(half), cx.scalar(2, dtype)), cx.op.Exp(half)))


@lowers(aten.log1p.default)
def log1p_(cx: Rule, self: Value) -> Value:
    """self [*A] -> log(1 + self) [*A], floating, exact near zero."""
    (x,) = compute(cx, self)
    return narrow(cx, log1p(cx, x))


LOGARITHMS: dict[Any, float] = {
    aten.log2.default: 1 / math.log(2),
    aten.log10.default: 1 / math.log(10),
}


@lowers(*LOGARITHMS)
def log_to_base(cx: Rule, self: Value) -> Value:
    """self [*A] -> its logarithm to base 2 or 10 [*A], floating.

    It passes through float64, so that powers of the base give whole numbers, as they do in eager.
    """
    if cx.out.dtype is torch.float64:
        cx.decline("a float64 logarithm to base 2 or 10, which ONNX cannot give to the last bit")
    x = cx.cast(cx.cast(self, cx.out.dtype), torch.float64)
    factor = cx.scalar(LOGARITHMS[cx.node.target], torch.float64)
    return narrow(cx, cx.op.Mul(cx.op.Log(x), factor))


@lowers(aten.logit.default)
def logit(cx: Rule, self: Value, eps: float | None) -> Value:
    """self [*A] -> log(x / (1 - x)) [*A], x clamped to [eps, 1 - eps] if eps is given."""
    (x,) = cx.promote(self)
    dtype = cx.out.dtype
    if eps is not None:
        x = cx.op.Clip(x, cx.scalar(eps, dtype), cx.scalar(1 - eps, dtype))
    return cx.op.Log(cx.op.Div(x, cx.op.Sub(cx.scalar(1, dtype), x)))


@lowers(aten.sinc.default)
def sinc(cx: Rule, self: Value) -> Value:
    """self [*A] -> sin(pi x) / (pi x), and 1 at 0 [*A], floating."""
    (x,) = compute(cx, self)
    dtype = cx.dtype(x)
    angle = cx.op.Mul(x, cx.scalar(math.pi, dtype))
    zero = cx.op.Equal(x, cx.scalar(0, dtype))
    return narrow(cx, cx.op.Where(zero, cx.scalar(1, dtype), cx.op.Div(cx.op.Sin(angle), angle)))


DEGREES: dict[Any, float] = {
    aten.deg2rad.default: math.pi / 180,
    aten.rad2deg.default: 180 / math.pi,
}


@lowers(*DEGREES)
def degrees(cx: Rule, self: Value) -> Value:
    """self [*A] -> the angle in the other unit [*A], floating."""
    (x,) = compute(cx, self)
    return narrow(cx, cx.op.Mul(x, cx.scalar(DEGREES[cx.node.target], cx.dtype(x))))


@lowers(aten.angle.default)
def angle(cx: Rule, self: Value) -> Value:
    """self [*A], real -> pi where negative, NaN where NaN, else 0 [*A]."""
    (x,) = cx.promote(self)
    dtype = cx.out.dtype
    zero = cx.scalar(0, dtype)
    result = cx.op.Where(cx.op.Less(x, zero), cx.scalar(math.pi, dtype), zero)
    if not cx.dtype(self).is_floating_point:
        return result
    return cx.op.Where(cx.op.IsNaN(x), x, result)


# ------------------------------------------------------------------ rounding
ROUNDING: dict[Any, str] = {
    aten.ceil.default: "Ceil",
    aten.floor.default: "Floor",
    aten.round.default: "Round",
}


@lowers(*ROUNDING)
def rounding(cx: Rule, self: Value) -> Value:
    """self [*A] -> whole numbers [*A], halves to even; integers are whole already."""
    if not cx.out.dtype.is_floating_point:
        return self
    return getattr(cx.op, ROUNDING[cx.node.target])(self)


@lowers(aten.trunc.default)
def trunc(cx: Rule, self: Value) -> Value:
    """self [*A] -> rounded towards zero [*A]."""
    return truncate(cx, self) if cx.out.dtype.is_floating_point else self


@lowers(aten.frac.default)
def frac(cx: Rule, self: Value) -> Value:
    """self [*A] -> self - trunc(self) [*A]."""
    (x,) = compute(cx, self)
    return narrow(cx, cx.op.Sub(x, truncate(cx, x)))


@lowers(aten.frexp.Tensor)
def frexp(cx: Rule, self: Value) -> tuple[Value, Value]:
    """self [*A] -> mantissa [*A], 1/2 <= |m| < 1, and int32 exponent [*A]; self = m * 2 ** e.

    Of zero, infinities and NaN the exponent is 0. The logarithm is rounded, so the exponent that
    it gives can be one off, which the mantissa shows.
    """
    dtype = cx.out.dtype
    if dtype is torch.float64:
        cx.decline("frexp of float64, whose least numbers have reciprocals beyond its range")
    x = cx.cast(self, torch.float64)
    zero, half, one = (cx.scalar(n, torch.float64) for n in (0, 0.5, 1))
    size = cx.op.Abs(x)
    infinity = cx.scalar(math.inf, torch.float64)
    usual = cx.op.And(cx.op.Greater(size, zero), cx.op.Less(size, infinity))
    size = cx.op.Where(usual, size, half)
    binary = cx.op.Mul(cx.op.Log(size), cx.scalar(1 / math.log(2), torch.float64))
    exponent = cx.op.Add(cx.op.Floor(binary), one)
    mantissa = cx.op.Mul(size, cx.op.Pow(cx.scalar(2, torch.float64), cx.op.Neg(exponent)))
    high, low = (cx.op.GreaterOrEqual(mantissa, one), cx.op.Less(mantissa, half))
    exponent = cx.op.Sub(
        cx.op.Add(exponent, cx.cast(high, torch.float64)), cx.cast(low, torch.float64)
    )
    factor = cx.op.Pow(cx.scalar(2, torch.float64), cx.op.Neg(exponent))
    return cx.cast(cx.op.Mul(x, factor), dtype), cx.cast(exponent, cx.outs[1].dtype)


@lowers(aten.round.decimals)
def round_decimals(cx: Rule, self: Value, decimals: int) -> Value:
    """self [*A] -> rounded to decimals after the point (before it if negative) [*A]."""
    if not cx.out.dtype.is_floating_point:
        if decimals != 0:
            cx.decline("integers rounded to decimals")
        return self
    (x,) = compute(cx, self)
    if decimals == 0:
        return narrow(cx, cx.op.Round(x))
    ten = cx.scalar(10.0 ** abs(decimals), cx.dtype(x))
    if decimals > 0:
        return narrow(cx, cx.op.Div(cx.op.Round(cx.op.Mul(x, ten)), ten))
    return narrow(cx, cx.op.Mul(cx.op.Round(cx.op.Div(x, ten)), ten))


# ------------------------------------------------------------------ classification
@lowers(aten.isnan.default)
def isnan(cx: Rule, self: Value) -> Value:
    """self [*A] -> bool [*A]; no integer is NaN."""
    if not cx.dtype(self).is_floating_point:
        return cx.full(cx.out.dims, False, torch.bool)
    return cx.op.IsNaN(self)


INFINITE: dict[Any, tuple[int, int]] = {
    aten.isinf.default: (1, 1),
    aten.isposinf.default: (0, 1),
    aten.isneginf.default: (1, 0),
}


@lowers(*INFINITE)
def isinf(cx: Rule, self: Value) -> Value:
    """self [*A] -> bool [*A]: any infinity, or the positive or negative one."""
    if not cx.dtype(self).is_floating_point:
        return cx.full(cx.out.dims, False, torch.bool)
    negative, positive = INFINITE[cx.node.target]
    if negative and positive:
        return cx.op.IsInf(self)
    return cx.op.IsInf(self, detect_negative=negative, detect_positive=positive)


@lowers(aten.signbit.default)
def signbit(cx: Rule, self: Value) -> Value:
    """self [*A] -> bool [*A]. Zeros and NaN have signs too, which only their bits show."""
    dtype = cx.dtype(self)
    if dtype.is_floating_point:
        self, dtype = bits(cx, self), BITS[dtype]
    if dtype is torch.bool:
        return cx.full(cx.out.dims, False, torch.bool)
    return cx.op.Less(self, cx.scalar(0, dtype))


@lowers(aten.nan_to_num.default)
def nan_to_num(
    cx: Rule, self: Value, nan: float | None, posinf: float | None, neginf: float | None
) -> Value:
    """self [*A] -> NaN, inf and -inf replaced (by 0 and the greatest and least finite number)."""
    dtype = cx.out.dtype
    if not dtype.is_floating_point:
        return self
    x = self
    if posinf is None and neginf is None:
        x = cx.op.Clip(
            x, cx.scalar(dtypes.lowest(dtype), dtype), cx.scalar(dtypes.highest(dtype), dtype)
        )
    else:
        high = dtypes.highest(dtype) if posinf is None else posinf
        low = dtypes.lowest(dtype) if neginf is None else neginf
        for infinity, number in ((math.inf, high), (-math.inf, low)):
            found = cx.op.Equal(self, cx.scalar(infinity, dtype))
            x = choose(cx, found, cx.scalar(number, dtype), x)
    return choose(cx, cx.op.IsNaN(self), cx.scalar(0.0 if nan is None else nan, dtype), x)
