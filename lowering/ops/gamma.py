"""The logarithm of the gamma function, its derivatives, and the zeta function they are sums of.

All but trigamma is computed in float64 and rounded once: the argument is moved up by the
recurrence to where Stirling's series, or Euler's and Maclaurin's, has converged.
Ref: https://dlmf.nist.gov/5.11, 5.15, 25.2.9, aten/src/ATen/native/Math.h
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache

import torch

from ..dims import may_be_zero
from ..dtypes import opmath
from ..registry import lowers
from ..rule import Operand, Rule
from ..value import Value
from ._approximation import F64, horner, number

aten = torch.ops.aten
SHIFT = 10  # from here on ten terms of the series are exact in float64


@lowers(aten.lgamma.default)
def lgamma(cx: Rule, self: Value) -> Value:
    """self [*A] -> log |Gamma(x)| [*A]; inf at 0 and the negative integers."""
    return end(cx, log_gamma(cx, _source(cx, self)))


@lowers(aten.mvlgamma.default)
def mvlgamma(cx: Rule, self: Value, p: int) -> Value:
    """self [*A] -> sum of lgamma(x - k / 2) for k < p, plus p (p - 1) / 4 log(pi) [*A]."""
    (x,) = cx.promote(self)
    dtype = cx.out.dtype
    total: Value | None = None
    for k in range(p):  # in the type of the output at each step, as ATen's composite does
        place = cx.op.Sub(x, cx.scalar(k / 2, dtype))
        term = cx.cast(end(cx, log_gamma(cx, cx.cast(place, F64))), opmath(dtype))
        total = term if total is None else cx.op.Add(total, term)
    assert total is not None, "p is positive"
    constant = cx.scalar(p * (p - 1) / 4 * math.log(math.pi), dtype)
    return cx.op.Add(cx.cast(total, dtype), constant)


@lowers(aten.digamma.default)
def digamma(cx: Rule, self: Value) -> Value:
    """self [*A] -> the derivative of lgamma [*A]; -+inf at +-0, NaN at the negative integers."""
    return end(cx, _digamma(cx, _source(cx, self)))


@lowers(aten.polygamma.default)
def polygamma(cx: Rule, n: int, self: Value) -> Value:
    """n, self [*A] -> the n-th derivative of digamma [*A]: (-1)^(n+1) n! zeta(n + 1, x)."""
    if n == 0:
        return digamma(cx, self)
    if n == 1:
        return _trigamma(cx, self)
    value = _zeta(cx, number(cx, n + 1), _source(cx, self))
    try:
        factor = float(math.factorial(n)) * (1 if n % 2 else -1)
    except OverflowError:
        cx.decline(f"the factorial of {n} is beyond float64")
    return end(cx, cx.op.Mul(value, number(cx, factor)))


@lowers(aten.special_zeta.default, aten.special_zeta.other_scalar, aten.special_zeta.self_scalar)
def zeta(cx: Rule, self: Operand, other: Operand) -> Value:
    """self [*A], other [*B] (either may be a number) -> sum of (other + k) ** -self, broadcast."""
    x, q = (cx.cast(v, F64) for v in cx.promote(self, other))
    return end(cx, _zeta(cx, x, q))


def _source(cx: Rule, self: Value) -> Value:
    (x,) = cx.promote(self)
    return cx.cast(x, F64)


def end(cx: Rule, result: Value) -> Value:
    """By way of float32 for 16-bit floats, as eager rounds."""
    return cx.cast(cx.cast(result, opmath(cx.out.dtype)), cx.out.dtype)


@cache
def _bernoulli(count: int) -> list[Fraction]:
    """B(2), B(4), ... B(2 * count)."""
    found = [Fraction(1)]
    for m in range(1, 2 * count + 1):
        total = sum((math.comb(m + 1, k) * found[k] for k in range(m)), Fraction(0))
        found.append(-total / (m + 1))
    return found[2::2]


def _is_whole(cx: Rule, x: Value) -> Value:
    return cx.op.Equal(x, cx.op.Floor(x))


def _moved(cx: Rule, x: Value) -> tuple[Value, Value]:
    """x, or x + SHIFT where x is less than SHIFT, and whether it is."""
    low = cx.op.Less(x, number(cx, SHIFT))
    return cx.op.Where(low, cx.op.Add(x, number(cx, SHIFT)), x), low


def log_gamma(cx: Rule, x: Value) -> Value:
    """float64; below 0 reflected: log(pi / |sin(pi x)|) - lgamma(1 - x)."""
    zero, one = number(cx, 0), number(cx, 1)
    below = cx.op.Less(x, zero)
    z = cx.op.Where(below, cx.op.Sub(one, x), x)
    y, low = _moved(cx, z)
    inverse = cx.op.Reciprocal(y)
    series = [float(b / (2 * k * (2 * k - 1))) for k, b in enumerate(_bernoulli(10), 1)]
    tail = cx.op.Mul(horner(cx, cx.op.Mul(inverse, inverse), series), inverse)
    value = cx.op.Mul(cx.op.Sub(y, number(cx, 0.5)), cx.op.Log(y))
    value = cx.op.Add(cx.op.Sub(value, y), number(cx, math.log(2 * math.pi) / 2))
    value = cx.op.Add(value, tail)
    product = z
    for k in range(1, SHIFT):
        product = cx.op.Mul(product, cx.op.Add(z, number(cx, k)))
    product = cx.op.Where(low, product, one)
    value = cx.op.Sub(value, cx.op.Log(product))
    nearest = cx.op.Floor(cx.op.Add(x, number(cx, 0.5)))
    sine = cx.op.Sin(cx.op.Mul(cx.op.Sub(x, nearest), number(cx, math.pi)))
    mirror = cx.op.Log(cx.op.Div(number(cx, math.pi), cx.op.Abs(sine)))
    value = cx.op.Where(below, cx.op.Sub(mirror, value), value)
    pole = cx.op.And(cx.op.LessOrEqual(x, zero), _is_whole(cx, x))
    return cx.op.Where(cx.op.Or(pole, cx.op.IsInf(x)), number(cx, math.inf), value)


def _digamma(cx: Rule, x: Value) -> Value:
    """float64; below 0 reflected: digamma(1 - x) - pi / tan(pi x)."""
    zero, one, pi = number(cx, 0), number(cx, 1), number(cx, math.pi)
    below = cx.op.Less(x, zero)
    z = cx.op.Where(below, cx.op.Sub(one, x), x)
    y, low = _moved(cx, z)
    inverse = cx.op.Reciprocal(y)
    square = cx.op.Mul(inverse, inverse)
    series = [float(b / (2 * k)) for k, b in enumerate(_bernoulli(10), 1)]
    value = cx.op.Sub(cx.op.Log(y), cx.op.Mul(inverse, number(cx, 0.5)))
    value = cx.op.Sub(value, cx.op.Mul(square, horner(cx, square, series)))
    steps = cx.op.Reciprocal(z)
    for k in range(1, SHIFT):
        steps = cx.op.Add(steps, cx.op.Reciprocal(cx.op.Add(z, number(cx, k))))
    value = cx.op.Sub(value, cx.op.Where(low, steps, zero))
    angle = cx.op.Mul(cx.op.Sub(x, cx.op.Ceil(x)), pi)
    cotangent = cx.op.Div(cx.op.Cos(angle), cx.op.Sin(angle))
    value = cx.op.Where(below, cx.op.Sub(value, cx.op.Mul(pi, cotangent)), value)
    pole = cx.op.And(below, _is_whole(cx, x))
    value = cx.op.Where(pole, number(cx, math.nan), value)
    at_zero = cx.op.Div(number(cx, -1), x)
    return cx.op.Where(cx.op.Equal(x, zero), at_zero, value)


def _trigamma(cx: Rule, self: Value) -> Value:
    """ATen's own steps in its own type: six of the recurrence, four terms of the series.

    At the negative integers it is what the rounding of sin(pi x) makes of it, which in float64
    differs between two libraries.
    """
    if cx.out.dtype is F64:
        cx.decline("trigamma in float64, whose poles eager makes of the rounding of sin(pi x)")
    dtype = opmath(cx.out.dtype)
    (given,) = cx.promote(self)
    x = cx.cast(given, dtype)

    def scalar(value: float) -> Value:
        return cx.scalar(value, dtype)

    one = scalar(1)
    low = cx.op.Less(x, scalar(0.5))
    sine = cx.op.Sin(cx.op.Mul(x, scalar(math.pi)))
    mirror = cx.op.Div(scalar(math.pi**2), cx.op.Mul(sine, sine))
    z = cx.op.Where(low, cx.op.Sub(one, x), x)
    value = cx.op.Where(low, cx.op.Neg(mirror), scalar(0))
    for _ in range(6):
        value = cx.op.Add(value, cx.op.Div(one, cx.op.Mul(z, z)))
        z = cx.op.Add(z, one)
    square = cx.op.Div(one, cx.op.Mul(z, z))
    series = cx.op.Sub(scalar(1 / 30), cx.op.Mul(square, scalar(1 / 42)))
    series = cx.op.Sub(scalar(1 / 6), cx.op.Mul(square, series))
    series = cx.op.Mul(square, series)
    series = cx.op.Add(cx.op.Add(one, cx.op.Div(one, cx.op.Mul(scalar(2), z))), series)
    value = cx.op.Add(value, cx.op.Div(series, z))
    return cx.cast(cx.op.Where(low, cx.op.Neg(value), value), cx.out.dtype)


# -------------------------------------------------------------------- zeta
TERMS = 9  # added one by one at least, and until the last base is above 9


def _zeta(cx: Rule, x: Value, q: Value) -> Value:
    """float64; inf at x = 1 and at q = 0, -1, ..., NaN for x < 1 and powers that are not real."""
    dims = cx.out.dims
    if 0 in dims:
        return cx.zeros(dims, F64)
    if any(map(may_be_zero, dims)):
        cx.decline("zeta of a data-dependent number of elements, which may be none")
    x, q = cx.expand(x, dims), cx.expand(q, dims)
    zero, one = number(cx, 0), number(cx, 1)
    negative = cx.op.LessOrEqual(q, zero)
    pole = cx.op.And(negative, _is_whole(cx, q))
    unreal = cx.op.And(negative, cx.op.Not(_is_whole(cx, x)))
    unreal = cx.op.Or(unreal, cx.op.Or(cx.op.IsNaN(x), cx.op.IsNaN(q)))
    base = cx.op.Where(cx.op.Or(pole, unreal), one, q)
    last, power, total, enough = _added(cx, cx.op.Neg(x), base)
    value = cx.op.Add(total, cx.op.Div(cx.op.Mul(power, last), cx.op.Sub(x, one)))
    value = cx.op.Sub(value, cx.op.Mul(power, number(cx, 0.5)))
    rising = one
    scale = power
    for k, bernoulli in enumerate(_bernoulli(12)):
        rising = cx.op.Mul(rising, cx.op.Add(x, number(cx, 2 * k)))
        scale = cx.op.Div(scale, last)
        share = number(cx, float(bernoulli / math.factorial(2 * k + 2)))
        value = cx.op.Add(value, cx.op.Mul(cx.op.Mul(rising, scale), share))
        rising = cx.op.Mul(rising, cx.op.Add(x, number(cx, 2 * k + 1)))
        scale = cx.op.Div(scale, last)
    value = cx.op.Where(enough, total, value)
    value = cx.op.Where(unreal, number(cx, math.nan), value)
    value = cx.op.Where(pole, number(cx, math.inf), value)
    value = cx.op.Where(cx.op.Less(x, one), number(cx, math.nan), value)
    return cx.op.Where(cx.op.Equal(x, one), number(cx, math.inf), value)


EPSILON = 2.0**-53  # a term this much smaller than the sum is the last


def _added(cx: Rule, minus: Value, base: Value) -> tuple[Value, Value, Value, Value]:
    """The last base, its power, the sum of all powers so far, and whether that is the answer."""
    least = cx.op.ReduceMin(base, keepdims=0)
    least.dims = ()
    needed = cx.op.Ceil(cx.op.Sub(number(cx, TERMS), least))
    count = cx.cast(cx.op.Max(needed, number(cx, TERMS)), torch.int64)

    def step(
        i: Value, going: Value, at: Value, last: Value, total: Value, enough: Value
    ) -> list[Value]:
        further = cx.op.LessOrEqual(at, number(cx, TERMS))
        begun = cx.op.Less(i, cx.scalar(TERMS, torch.int64))
        wanted = cx.op.And(cx.op.Or(further, begun), cx.op.Not(enough))
        grown = cx.op.Add(at, number(cx, 1))
        term = cx.op.Pow(grown, minus)
        summed = cx.op.Add(total, term)
        small = cx.op.Less(cx.op.Abs(term), cx.op.Mul(summed, number(cx, EPSILON)))
        return [
            going,
            cx.op.Where(wanted, grown, at),
            cx.op.Where(wanted, term, last),
            cx.op.Where(wanted, summed, total),
            cx.op.Or(enough, cx.op.And(wanted, small)),
        ]

    first = cx.op.Pow(base, minus)
    none = cx.expand(cx.scalar(False, torch.bool), cx.out.dims)
    at, last, total, enough = cx.loop(count, [base, first, first, none], step)
    return at, last, total, enough
