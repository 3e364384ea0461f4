"""Bessel functions: power series near zero, and beyond it their form at infinity.

Everything is computed in float64 and rounded once. The series are the textbook's; what multiplies
the wave or the exponential at infinity is a smooth function of 1 / x, interpolated in Chebyshev
polynomials from its integral, which a trapezoidal sum gives to the last bit. float64 inputs are
declined where ATen's own answer is good to some seven digits only.
Ref: https://dlmf.nist.gov/10.8, 10.25, 10.31 (series), 10.9.10 and 10.32.8 (integrals),
aten/src/ATen/native/Math.h
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch

from ..dtypes import opmath
from ..registry import lowers
from ..rule import Rule
from ..value import Value
from ._approximation import F64, Fit, evaluate, fit, horner

aten = torch.ops.aten

NEAR_WAVE, NEAR_GROWTH, NEAR_DECAY = 5.0, 8.0, 2.0  # where the series end, for J and Y, I, K


# -------------------------------------------------------------------- waves: J and Y
@lowers(aten.special_bessel_j0.default)
def bessel_j0(cx: Rule, self: Value) -> Value:
    """self [*A] -> J0 [*A], even; NaN at both infinities."""
    x = _source(cx, self)
    size = cx.op.Abs(x)
    far = _wave(cx, self, size, 0)[0]
    return _end(cx, _pieces(cx, size, NEAR_WAVE, _series_j(cx, x, 0), far))


@lowers(aten.special_bessel_j1.default)
def bessel_j1(cx: Rule, self: Value) -> Value:
    """self [*A] -> J1 [*A], odd; NaN at both infinities."""
    x = _source(cx, self)
    size = cx.op.Abs(x)
    far = cx.op.Mul(cx.op.Sign(x), _wave(cx, self, size, 1)[0])
    return _end(cx, _pieces(cx, size, NEAR_WAVE, _series_j(cx, x, 1), far))


@lowers(aten.special_bessel_y0.default)
def bessel_y0(cx: Rule, self: Value) -> Value:
    """self [*A] -> Y0 [*A]; -inf at 0, NaN below."""
    x = _source(cx, self)
    near = cx.op.Mul(_logarithm(cx, x), _series_j(cx, x, 0))
    near = cx.op.Sub(near, horner(cx, _quarter(cx, x), _harmonic(-1)))
    near = cx.op.Mul(near, cx.scalar(2 / math.pi, F64))
    return _end(cx, _pieces(cx, x, NEAR_WAVE, near, _wave(cx, self, x, 0)[1], at_zero=-math.inf))


@lowers(aten.special_bessel_y1.default)
def bessel_y1(cx: Rule, self: Value) -> Value:
    """self [*A] -> Y1 [*A]; -inf at 0, NaN below."""
    x = _source(cx, self)
    near = cx.op.Mul(_logarithm(cx, x, euler=False), _series_j(cx, x, 1))
    near = cx.op.Sub(near, cx.op.Div(cx.scalar(1.0, F64), x))
    half = cx.op.Mul(x, cx.scalar(0.25, F64))
    near = cx.op.Sub(near, cx.op.Mul(half, horner(cx, _quarter(cx, x), _digammas(-1))))
    near = cx.op.Mul(near, cx.scalar(2 / math.pi, F64))
    return _end(cx, _pieces(cx, x, NEAR_WAVE, near, _wave(cx, self, x, 1)[1], at_zero=-math.inf))


@lowers(aten.special_spherical_bessel_j0.default)
def spherical_bessel_j0(cx: Rule, x: Value) -> Value:
    """x [*A] -> sin(x) / x [*A]; 1 at 0, 0 at both infinities."""
    x = _source(cx, x, any_dtype=True)
    result = cx.op.Div(cx.op.Sin(x), x)
    one = cx.scalar(1.0, F64)
    result = cx.op.Where(cx.op.Equal(x, cx.scalar(0.0, F64)), one, result)
    return _end(cx, cx.op.Where(cx.op.IsInf(x), cx.scalar(0.0, F64), result))


# -------------------------------------------------------------------- growth: I
@lowers(aten.i0.default, aten.special_modified_bessel_i0.default)
def modified_bessel_i0(cx: Rule, self: Value) -> Value:
    """self [*A] -> I0 [*A], even."""
    return _growing(cx, self, 0, scaled=False)


@lowers(aten.special_i0e.default)
def i0e(cx: Rule, self: Value) -> Value:
    """self [*A] -> exp(-|x|) * I0(x) [*A], even."""
    return _growing(cx, self, 0, scaled=True)


@lowers(aten.special_i1.default, aten.special_modified_bessel_i1.default)
def i1(cx: Rule, self: Value) -> Value:
    """self [*A] -> I1 [*A], odd."""
    return _growing(cx, self, 1, scaled=False)


@lowers(aten.special_i1e.default)
def i1e(cx: Rule, self: Value) -> Value:
    """self [*A] -> exp(-|x|) * I1(x) [*A], odd."""
    return _growing(cx, self, 1, scaled=True)


def _growing(cx: Rule, self: Value, order: int, *, scaled: bool) -> Value:
    x = _source(cx, self, any_dtype=True)
    size = cx.op.Abs(x)
    near = _series_i(cx, x, order)
    t = cx.op.Div(cx.scalar(1.0, F64), cx.op.Max(size, cx.scalar(NEAR_GROWTH, F64)))
    far = cx.op.Mul(evaluate(cx, t, _growth_fit(order)), cx.op.Sqrt(t))
    if scaled:
        near = cx.op.Mul(near, cx.op.Exp(cx.op.Neg(size)))
    else:  # ATen's answer is infinite where its exp(x) is, which is sooner than I(x)
        far = cx.op.Mul(far, cx.cast(cx.cast(cx.op.Exp(size), opmath(cx.out.dtype)), F64))
    if order:
        far = cx.op.Mul(far, cx.op.Sign(x))
    return _end(cx, _pieces(cx, size, NEAR_GROWTH, near, far))


# -------------------------------------------------------------------- decay: K
@lowers(aten.special_modified_bessel_k0.default)
def modified_bessel_k0(cx: Rule, self: Value) -> Value:
    """self [*A] -> K0 [*A]; inf at 0, NaN below."""
    return _decaying(cx, self, 0, scaled=False)


@lowers(aten.special_scaled_modified_bessel_k0.default)
def scaled_modified_bessel_k0(cx: Rule, x: Value) -> Value:
    """x [*A] -> exp(x) * K0(x) [*A]; inf at 0, NaN below."""
    return _decaying(cx, x, 0, scaled=True)


@lowers(aten.special_modified_bessel_k1.default)
def modified_bessel_k1(cx: Rule, self: Value) -> Value:
    """self [*A] -> K1 [*A]; inf at 0, NaN below."""
    return _decaying(cx, self, 1, scaled=False)


@lowers(aten.special_scaled_modified_bessel_k1.default)
def scaled_modified_bessel_k1(cx: Rule, x: Value) -> Value:
    """x [*A] -> exp(x) * K1(x) [*A]; inf at 0, NaN below."""
    return _decaying(cx, x, 1, scaled=True)


def _decaying(cx: Rule, self: Value, order: int, *, scaled: bool) -> Value:
    x = _source(cx, self, any_dtype=True)
    z = _quarter(cx, x)
    if order == 0:
        near = cx.op.Sub(
            horner(cx, z, _harmonic(1)), cx.op.Mul(_logarithm(cx, x), _series_i(cx, x, 0))
        )
    else:
        near = cx.op.Add(
            cx.op.Div(cx.scalar(1.0, F64), x),
            cx.op.Mul(_logarithm(cx, x, euler=False), _series_i(cx, x, 1)),
        )
        quarter = cx.op.Mul(x, cx.scalar(0.25, F64))
        near = cx.op.Sub(near, cx.op.Mul(quarter, horner(cx, z, _digammas(1))))
    t = cx.op.Div(cx.scalar(1.0, F64), cx.op.Max(x, cx.scalar(NEAR_DECAY, F64)))
    far = evaluate(cx, t, _hankel_fit(order, 1.0, 1 / NEAR_DECAY)[0])
    far = cx.op.Mul(far, cx.op.Sqrt(cx.op.Mul(t, cx.scalar(math.pi / 2, F64))))
    if scaled:
        near = cx.op.Mul(near, cx.op.Exp(x))
    else:
        far = cx.op.Mul(far, cx.op.Exp(cx.op.Neg(x)))
    return _end(cx, _pieces(cx, x, NEAR_DECAY, near, far, at_zero=math.inf))


# -------------------------------------------------------------------- the shared parts
def _source(cx: Rule, self: Value, *, any_dtype: bool = False) -> Value:
    if cx.out.dtype is F64 and not any_dtype:
        cx.decline("a Bessel function in float64, of which eager gives some seven digits")
    (x,) = cx.promote(self)
    return cx.cast(x, F64)


def _end(cx: Rule, result: Value) -> Value:
    return cx.cast(result, cx.out.dtype)


def _pieces(
    cx: Rule,
    x: Value,
    limit: float,
    near: Value,
    far: Value,
    *,
    at_zero: float | None = None,
) -> Value:
    """near where x <= limit, far elsewhere (also for NaN), and at_zero at 0."""
    result = cx.op.Where(cx.op.LessOrEqual(x, cx.scalar(limit, F64)), near, far)
    result = cx.op.Where(cx.op.IsNaN(x), x, result)
    if at_zero is not None:
        zero = cx.scalar(0.0, F64)
        result = cx.op.Where(cx.op.Equal(x, zero), cx.scalar(at_zero, F64), result)
    return result


def _quarter(cx: Rule, x: Value) -> Value:
    """x * x / 4, the variable of the series."""
    half = cx.op.Mul(x, cx.scalar(0.5, F64))
    return cx.op.Mul(half, half)


def _logarithm(cx: Rule, x: Value, *, euler: bool = True) -> Value:
    """log(x / 2), and Euler's constant."""
    log = cx.op.Log(cx.op.Mul(x, cx.scalar(0.5, F64)))
    return cx.op.Add(log, cx.scalar(float(np.euler_gamma), F64)) if euler else log


TERMS = 32  # the largest variable is 16: its 32nd power by (32!)^2 is below 1e-31


def _coefficients(order: int, sign: int) -> list[float]:
    """sign^k / (k! (k + order)!)."""
    return [sign**k / (math.factorial(k) * math.factorial(k + order)) for k in range(TERMS)]


def _series_j(cx: Rule, x: Value, order: int) -> Value:
    return _times_half(cx, x, order, horner(cx, _quarter(cx, x), _coefficients(order, -1)))


def _series_i(cx: Rule, x: Value, order: int) -> Value:
    return _times_half(cx, x, order, horner(cx, _quarter(cx, x), _coefficients(order, 1)))


def _times_half(cx: Rule, x: Value, order: int, series: Value) -> Value:
    return cx.op.Mul(cx.op.Mul(x, cx.scalar(0.5, F64)), series) if order else series


def _harmonic(sign: int) -> list[float]:
    """sign^k * H_k / k!^2, with H_k = 1 + 1/2 + ... + 1/k."""
    sums = [math.fsum(1 / i for i in range(1, k + 1)) for k in range(TERMS)]
    return [c * h for c, h in zip(_coefficients(0, sign), sums, strict=True)]


def _digammas(sign: int) -> list[float]:
    """sign^k * (psi(k + 1) + psi(k + 2)) / (k! (k + 1)!)."""
    sums = [math.fsum(1 / i for i in range(1, k + 1)) for k in range(TERMS + 1)]
    psi = [h - float(np.euler_gamma) for h in sums]
    return [c * (psi[k] + psi[k + 1]) for k, c in enumerate(_coefficients(1, sign))]


def _wave(cx: Rule, self: Value, size: Value, order: int) -> tuple[Value, Value]:
    """J and Y at infinity: sqrt(2 / (pi x)) times a slow complex factor times exp(i (x - phase)).

    The phase is subtracted in the type that ATen subtracts it in, whose rounding grows with x.
    """
    (own,) = cx.promote(self)
    phase = cx.scalar((0.25 + 0.5 * order) * math.pi, cx.out.dtype)
    angle = cx.cast(cx.op.Sub(cx.op.Abs(own), phase), F64)
    t = cx.op.Div(cx.scalar(1.0, F64), cx.op.Max(size, cx.scalar(NEAR_WAVE, F64)))
    fits = _hankel_fit(order, 1j, 1 / NEAR_WAVE)
    real, imaginary = (evaluate(cx, t, f) for f in fits)
    height = cx.op.Sqrt(cx.op.Mul(t, cx.scalar(2 / math.pi, F64)))
    cos, sin = cx.op.Mul(cx.op.Cos(angle), height), cx.op.Mul(cx.op.Sin(angle), height)
    j = cx.op.Sub(cx.op.Mul(cos, real), cx.op.Mul(sin, imaginary))
    y = cx.op.Add(cx.op.Mul(sin, real), cx.op.Mul(cos, imaginary))
    return j, cx.op.Where(cx.op.Less(size, cx.scalar(0.0, F64)), cx.scalar(math.nan, F64), y)


DEGREE = 24


@cache
def _hankel_fit(order: int, direction: complex, top: float) -> tuple[Fit, Fit]:
    """The factor of the Hankel function (direction i) or of K (direction 1) over t = 1 / x.

    Integral of exp(-s^2) |s|^(2 order) (1 + direction t s^2 / 2)^(order - 1/2) over the real
    line, by that of the first two factors.
    """
    s = np.arange(-160, 161) / 20
    weights = np.exp(-s * s) * np.abs(s) ** (2 * order)
    weights /= weights.sum()

    def factor(t: float) -> complex:
        return complex((1 + direction * t * s * s / 2) ** (order - 0.5) @ weights)

    return (
        fit(lambda t: factor(t).real, 0, top, DEGREE),
        fit(lambda t: factor(t).imag, 0, top, DEGREE),
    )


@cache
def _growth_fit(order: int) -> Fit:
    """sqrt(x) exp(-x) I(x) over t = 1 / x: the mean of exp(x (cos a - 1)) cos(order a)."""
    angles = (np.arange(8192) + 0.5) * math.pi / 8192
    cosines = np.cos(angles)
    below = -2 * np.sin(angles / 2) ** 2
    weights = cosines if order else np.ones_like(cosines)

    def factor(t: float) -> float:
        return float((np.exp(below / t) * weights).mean() / math.sqrt(t))

    return fit(factor, 0, 1 / NEAR_GROWTH, DEGREE + 8)
