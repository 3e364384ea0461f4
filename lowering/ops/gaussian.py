"""The normal distribution and the scaled error function, which ONNX's Erf in float32 cannot give.

All of it is computed in float64 and rounded once. exp(x^2) erfc(x) is smooth in (x - 3) / (x + 3)
over the whole half line, and the quantile in p near 1/2 and in sqrt(-log p) beyond.
Ref: https://dlmf.nist.gov/7.7, aten/src/ATen/native/Math.h
"""

from __future__ import annotations

import math
from functools import cache
from statistics import NormalDist

import numpy as np
import torch

from ..dtypes import opmath
from ..registry import lowers
from ..rule import Rule
from ..value import Value
from ._approximation import F64, Fit, evaluate, fit, number
from ._pointwise import log1p

aten = torch.ops.aten


@lowers(aten.special_erfcx.default)
def erfcx(cx: Rule, self: Value) -> Value:
    """self [*A] -> exp(x^2) * erfc(x) [*A]."""
    x = _source(cx, self)
    positive = _scaled(cx, cx.op.Abs(x))
    grown = cx.op.Exp(cx.op.Mul(x, x))
    mirrored = cx.op.Sub(cx.op.Add(grown, grown), positive)
    return _end(cx, cx.op.Where(cx.op.Less(x, number(cx, 0)), mirrored, positive))


@lowers(aten.erfc.default)
def erfc(cx: Rule, self: Value) -> Value:
    """self [*A] -> 1 - erf(x) [*A], which keeps its digits where it is small."""
    x = _source(cx, self)
    decay = cx.op.Exp(cx.op.Neg(cx.op.Mul(x, x)))
    positive = cx.op.Mul(_scaled(cx, cx.op.Abs(x)), decay)
    mirrored = cx.op.Sub(number(cx, 2), positive)
    return _end(cx, cx.op.Where(cx.op.Less(x, number(cx, 0)), mirrored, positive))


@lowers(aten.special_log_ndtr.default)
def log_ndtr(cx: Rule, self: Value) -> Value:
    """self [*A] -> the logarithm of the normal distribution function [*A]."""
    x = _source(cx, self)
    t = cx.op.Mul(x, number(cx, math.sqrt(0.5)))
    size, square = cx.op.Abs(t), cx.op.Mul(t, t)
    half = cx.op.Mul(_scaled(cx, size), number(cx, 0.5))
    low = cx.op.Sub(cx.op.Log(half), square)
    rest = cx.op.Mul(half, cx.op.Exp(cx.op.Neg(square)))  # erfc(|t|) / 2
    rest = cx.op.Where(cx.op.Less(x, number(cx, 0)), cx.op.Sub(number(cx, 1), rest), rest)
    high = log1p(cx, cx.op.Neg(rest))
    return _end(cx, cx.op.Where(cx.op.Less(x, number(cx, -1)), low, high))


CENTRE = 0.425  # how far from 1/2 the middle fit reaches
TAIL = 5.0  # sqrt(-log p) where the last fit begins


@lowers(aten.special_ndtri.default)
def ndtri(cx: Rule, self: Value) -> Value:
    """self [*A] -> the normal distribution's quantile [*A]; NaN outside 0..1."""
    p = _source(cx, self)
    one, half = number(cx, 1), number(cx, 0.5)
    tail = cx.op.Where(cx.op.Less(p, half), p, cx.op.Sub(one, p))
    return _end(cx, _quantile(cx, cx.op.Sub(p, half), tail))


@lowers(aten.erfinv.default)
def erfinv(cx: Rule, self: Value) -> Value:
    """self [*A] -> the inverse error function [*A]; NaN outside -1..1."""
    x = _source(cx, self)
    half = number(cx, 0.5)
    tail = cx.op.Mul(cx.op.Sub(number(cx, 1), cx.op.Abs(x)), half)
    quantile = _quantile(cx, cx.op.Mul(x, half), tail)
    return _end(cx, cx.op.Mul(quantile, number(cx, math.sqrt(0.5))))


def _quantile(cx: Rule, offset: Value, tail: Value) -> Value:
    """The normal quantile of 1/2 + offset; `tail` is the smaller of that and 1 minus it."""
    zero = number(cx, 0)
    below = cx.op.Less(offset, zero)
    square = cx.op.Mul(offset, offset)
    middle = cx.op.Mul(offset, evaluate(cx, square, _middle()))
    depth = cx.op.Sqrt(cx.op.Neg(cx.op.Log(tail)))
    near, far = _tails()
    value = cx.op.Where(
        cx.op.Less(depth, number(cx, TAIL)), evaluate(cx, depth, near), evaluate(cx, depth, far)
    )
    value = cx.op.Where(cx.op.Equal(tail, zero), number(cx, math.inf), value)
    value = cx.op.Where(below, cx.op.Neg(value), value)
    inside = cx.op.LessOrEqual(square, number(cx, CENTRE**2))
    return cx.op.Where(inside, middle, value)


@lowers(aten.special_entr.default)
def entr(cx: Rule, self: Value) -> Value:
    """self [*A] -> -x * log(x) [*A]; 0 at 0, -inf below."""
    (x,) = cx.promote(self, dtype=opmath(cx.out.dtype))
    zero = cx.scalar(0, cx.dtype(x))
    value = cx.op.Neg(cx.op.Mul(x, cx.op.Log(x)))
    value = cx.op.Where(cx.op.Equal(x, zero), zero, value)
    low = cx.scalar(-math.inf, cx.dtype(x))
    return _end(cx, cx.op.Where(cx.op.Less(x, zero), low, value))


def _source(cx: Rule, self: Value) -> Value:
    (x,) = cx.promote(self)
    return cx.cast(x, F64)


def _end(cx: Rule, result: Value) -> Value:
    """By way of float32 for 16-bit floats, as eager rounds."""
    return cx.cast(cx.cast(result, opmath(cx.out.dtype)), cx.out.dtype)


MIDWAY = 3.0


def _scaled(cx: Rule, x: Value) -> Value:
    """exp(x^2) * erfc(x) of x >= 0."""
    middle, one = number(cx, MIDWAY), number(cx, 1)
    # Of the whole half line -1..1; 1 - 6 / (x + 3) is not NaN at infinity.
    y = cx.op.Sub(one, cx.op.Div(number(cx, 2 * MIDWAY), cx.op.Add(x, middle)))
    scale = cx.op.Add(cx.op.Add(x, x), one)
    return cx.op.Div(evaluate(cx, y, _scaled_fit()), scale)


@cache
def _scaled_fit() -> Fit:
    """(1 + 2x) exp(x^2) erfc(x) over (x - 3) / (x + 3)."""
    s = np.arange(-160, 161) / 20
    weights = np.exp(-s * s) / 20 / math.pi

    def function(y: float) -> float:
        x = MIDWAY * (1 + y) / (1 - y)
        if x < 4:
            return (1 + 2 * x) * math.exp(x * x) * math.erfc(x)
        return (1 + 2 * x) * float((weights * x / (x * x + s * s)).sum())

    return fit(function, -1, 1, 28)


@cache
def _middle() -> Fit:
    """(quantile of 1/2 + r) / r over r^2."""

    def function(square: float) -> float:
        r = math.sqrt(square)
        return NormalDist().inv_cdf(0.5 + r) / r

    return fit(function, 0, CENTRE**2, 27)


@cache
def _tails() -> tuple[Fit, Fit]:
    """Minus the quantile of p over sqrt(-log p), to the least normal number."""

    def function(depth: float) -> float:
        return -NormalDist().inv_cdf(math.exp(-depth * depth))

    start = math.sqrt(-math.log(0.5 - CENTRE + 1e-3))
    return fit(function, start, TAIL, 27), fit(function, TAIL, 26.6, 27)
