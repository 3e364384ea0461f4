"""The regularised incomplete gamma functions P(a, x) and Q(a, x) = 1 - P(a, x).

In float64, rounded once: the power series below x = a + 1, the continued fraction above, as many
terms as the slowest element takes.
Ref: https://dlmf.nist.gov/8.7.E1, 8.9.E2, aten/src/ATen/native/Math.h
"""

from __future__ import annotations

import math

import torch

from ..dims import may_be_zero
from ..registry import lowers
from ..rule import Rule
from ..value import Value
from ._approximation import F64, number
from .gamma import end, log_gamma

aten = torch.ops.aten

MOST_TERMS = 10_000  # some 6 sqrt(a) are needed where x is about a
EPSILON = 2.0**-53
TINY = 1e-300


@lowers(aten.igamma.default)
def igamma(cx: Rule, self: Value, other: Value) -> Value:
    """self [*A] (a), other [*B] (x) -> P(a, x) [*broadcast]."""
    return _of(cx, self, other, 0)


@lowers(aten.igammac.default)
def igammac(cx: Rule, self: Value, other: Value) -> Value:
    """self [*A] (a), other [*B] (x) -> Q(a, x) [*broadcast]."""
    return _of(cx, self, other, 1)


def _of(cx: Rule, a: Value, x: Value, which: int) -> Value:
    if 0 in cx.out.dims:
        return cx.zeros(cx.out.dims, cx.out.dtype)
    if any(map(may_be_zero, cx.out.dims)):
        cx.decline("a loop over a data-dependent number of elements, which may be none")
    return end(cx, _both(cx, a, x)[which])


def _both(cx: Rule, self: Value, other: Value) -> tuple[Value, Value]:
    """P and Q, float64."""
    a, x = (cx.expand(cx.cast(v, F64), cx.out.dims) for v in cx.promote(self, other))
    zero, one, infinity = (number(cx, n) for n in (0, 1, math.inf))
    inner = cx.op.And(
        cx.op.And(cx.op.Greater(a, zero), cx.op.Greater(x, zero)),
        cx.op.And(cx.op.Less(a, infinity), cx.op.Less(x, infinity)),
    )
    near = cx.op.Less(x, cx.op.Add(a, one))
    by_series, by_fraction = cx.op.And(inner, near), cx.op.And(inner, cx.op.Not(near))
    # What a method is not for gets an element that it is done with at once.
    series = _series(cx, _where(cx, by_series, a, 1), _where(cx, by_series, x, TINY))
    fraction = _fraction(cx, _where(cx, by_fraction, a, 1), _where(cx, by_fraction, x, 2))
    front = cx.op.Exp(cx.op.Sub(cx.op.Sub(cx.op.Mul(a, cx.op.Log(x)), x), log_gamma(cx, a)))
    low, high = cx.op.Mul(series, front), cx.op.Mul(fraction, front)
    p = cx.op.Where(near, low, cx.op.Sub(one, high))
    q = cx.op.Where(near, cx.op.Sub(one, low), high)
    edge = _edge(cx, a, x)
    return cx.op.Where(inner, p, edge), cx.op.Where(inner, q, cx.op.Sub(one, edge))


def _edge(cx: Rule, a: Value, x: Value) -> Value:
    """P where a or x is 0, infinite, negative or NaN: NaN unless one of the edges decides it."""
    zero, infinity, nan = (number(cx, n) for n in (0, math.inf, math.nan))
    none = cx.op.Or(cx.op.Equal(x, zero), cx.op.Equal(a, infinity))
    all_ = cx.op.Or(cx.op.Equal(a, zero), cx.op.Equal(x, infinity))
    p = cx.op.Where(none, zero, cx.op.Where(all_, number(cx, 1), nan))
    negative = cx.op.Or(cx.op.Less(a, zero), cx.op.Less(x, zero))
    at_zero = cx.op.And(cx.op.Equal(a, zero), cx.op.Not(cx.op.Greater(x, zero)))
    beyond = cx.op.And(cx.op.Equal(a, infinity), cx.op.Equal(x, infinity))
    return cx.op.Where(cx.op.Or(negative, cx.op.Or(at_zero, beyond)), nan, p)


def _where(cx: Rule, condition: Value, value: Value, otherwise: float) -> Value:
    return cx.op.Where(condition, value, number(cx, otherwise))


def _series(cx: Rule, a: Value, x: Value) -> Value:
    """Sum of x ** k / (a (a + 1) ... (a + k))."""

    def step(_: Value, __: Value, at: Value, term: Value, total: Value) -> list[Value]:
        at = cx.op.Add(at, number(cx, 1))
        term = cx.op.Div(cx.op.Mul(term, x), at)
        grown = cx.op.Add(total, term)
        open_ = cx.op.Greater(term, cx.op.Mul(grown, number(cx, EPSILON)))
        return [_any(cx, open_), at, term, grown]

    first = cx.op.Reciprocal(a)
    return cx.loop(MOST_TERMS, [a, first, first], step)[2]


def _fraction(cx: Rule, a: Value, x: Value) -> Value:
    """1 / (x + 1 - a - 1 (1 - a) / (x + 3 - a - ...)), by Lentz's method."""

    def step(i: Value, _: Value, b: Value, c: Value, d: Value, total: Value) -> list[Value]:
        k = cx.op.Add(cx.cast(i, F64), number(cx, 1))
        numerator = cx.op.Mul(k, cx.op.Sub(a, k))
        b = cx.op.Add(b, number(cx, 2))
        d = cx.op.Reciprocal(_not_zero(cx, cx.op.Add(cx.op.Mul(numerator, d), b)))
        c = _not_zero(cx, cx.op.Add(b, cx.op.Div(numerator, c)))
        factor = cx.op.Mul(c, d)
        off = cx.op.Abs(cx.op.Sub(factor, number(cx, 1)))
        more = _any(cx, cx.op.Greater(off, number(cx, 4 * EPSILON)))
        return [more, b, c, d, cx.op.Mul(total, factor)]

    b = cx.op.Sub(cx.op.Add(x, number(cx, 1)), a)
    d = cx.op.Reciprocal(_not_zero(cx, b))
    c = cx.expand(number(cx, 1 / TINY), b.known_dims)
    return cx.loop(MOST_TERMS, [b, c, d, d], step)[3]


def _not_zero(cx: Rule, value: Value) -> Value:
    tiny = number(cx, TINY)
    return cx.op.Where(cx.op.Less(cx.op.Abs(value), tiny), tiny, value)


def _any(cx: Rule, conditions: Value) -> Value:
    found: Value = cx.op.ReduceMax(cx.cast(conditions, torch.int32), None, keepdims=0)
    found.dims = ()
    return cx.cast(found, torch.bool)
