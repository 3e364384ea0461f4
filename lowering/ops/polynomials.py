"""Orthogonal polynomials of an order that is known at run time: ATen's own recurrences in a Loop.

ATen answers a Chebyshev polynomial by its trigonometric form inside (-1, 1) from order 7 or 9 on.
There the recurrence agrees with it as long as its own rounding does not add up, for which it is
computed in float64. Everywhere else it is ATen's recurrence in ATen's type, overflow included.
Ref: aten/src/ATen/native/Math.h
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from ..dims import may_be_zero
from ..registry import lowers
from ..rule import Operand, Rule
from ..value import Value

aten = torch.ops.aten


# (cx, x, P of k, P of k - 1, k) -> P of k + 1
Next: TypeAlias = Callable[[Rule, Value, Value, Value, Value], Value]


def _chebyshev(cx: Rule, x: Value, q: Value, p: Value, _: Value) -> Value:
    return cx.op.Sub(cx.op.Mul(cx.op.Add(x, x), q), p)


def _hermite_h(cx: Rule, x: Value, q: Value, p: Value, k: Value) -> Value:
    return cx.op.Sub(cx.op.Mul(cx.op.Add(x, x), q), cx.op.Mul(cx.op.Add(k, k), p))


def _hermite_he(cx: Rule, x: Value, q: Value, p: Value, k: Value) -> Value:
    return cx.op.Sub(cx.op.Mul(x, q), cx.op.Mul(k, p))


def _laguerre(cx: Rule, x: Value, q: Value, p: Value, k: Value) -> Value:
    one = cx.scalar(1, cx.dtype(x))
    factor = cx.op.Add(cx.op.Add(k, k), cx.op.Sub(one, x))
    return cx.op.Div(cx.op.Sub(cx.op.Mul(factor, q), cx.op.Mul(k, p)), cx.op.Add(k, one))


def _legendre(cx: Rule, x: Value, q: Value, p: Value, k: Value) -> Value:
    one = cx.scalar(1, cx.dtype(x))
    factor = cx.op.Mul(cx.op.Add(cx.op.Add(k, k), one), x)
    return cx.op.Div(cx.op.Sub(cx.op.Mul(factor, q), cx.op.Mul(k, p)), cx.op.Add(k, one))


@dataclass(frozen=True, slots=True)
class Family:
    """P(0) = 1, P(1) = scale * x + shift, and each further one from the last two (`following`).

    `shifted` ones are those of 2x - 1. `limits` are the orders beyond which ATen gives NaN, in
    float32 and float64. `bounded` ones have the trigonometric form.
    """

    following: Next
    scale: float
    shift: float
    shifted: bool = False
    bounded: bool = False
    limits: tuple[int, int] | None = None


_HERMITE_LIMITS = (128, 512)
FAMILIES: dict[tuple[Any, ...], Family] = {
    (
        aten.special_chebyshev_polynomial_t.default,
        aten.special_chebyshev_polynomial_t.x_scalar,
        aten.special_chebyshev_polynomial_t.n_scalar,
    ): Family(_chebyshev, 1, 0, bounded=True),
    (
        aten.special_chebyshev_polynomial_u.default,
        aten.special_chebyshev_polynomial_u.x_scalar,
        aten.special_chebyshev_polynomial_u.n_scalar,
    ): Family(_chebyshev, 2, 0, bounded=True),
    (
        aten.special_chebyshev_polynomial_v.default,
        aten.special_chebyshev_polynomial_v.x_scalar,
        aten.special_chebyshev_polynomial_v.n_scalar,
    ): Family(_chebyshev, 2, -1, bounded=True),
    (
        aten.special_chebyshev_polynomial_w.default,
        aten.special_chebyshev_polynomial_w.x_scalar,
        aten.special_chebyshev_polynomial_w.n_scalar,
    ): Family(_chebyshev, 2, 1, bounded=True),
    (
        aten.special_shifted_chebyshev_polynomial_t.default,
        aten.special_shifted_chebyshev_polynomial_t.x_scalar,
        aten.special_shifted_chebyshev_polynomial_t.n_scalar,
    ): Family(_chebyshev, 1, 0, True, True),
    (
        aten.special_shifted_chebyshev_polynomial_u.default,
        aten.special_shifted_chebyshev_polynomial_u.x_scalar,
        aten.special_shifted_chebyshev_polynomial_u.n_scalar,
    ): Family(_chebyshev, 2, 0, True, True),
    (
        aten.special_shifted_chebyshev_polynomial_v.default,
        aten.special_shifted_chebyshev_polynomial_v.x_scalar,
        aten.special_shifted_chebyshev_polynomial_v.n_scalar,
    ): Family(_chebyshev, 2, -1, True, True),
    (
        aten.special_shifted_chebyshev_polynomial_w.default,
        aten.special_shifted_chebyshev_polynomial_w.x_scalar,
        aten.special_shifted_chebyshev_polynomial_w.n_scalar,
    ): Family(_chebyshev, 2, 1, True, True),
    (
        aten.special_hermite_polynomial_h.default,
        aten.special_hermite_polynomial_h.x_scalar,
        aten.special_hermite_polynomial_h.n_scalar,
    ): Family(_hermite_h, 2, 0, limits=_HERMITE_LIMITS),
    (
        aten.special_hermite_polynomial_he.default,
        aten.special_hermite_polynomial_he.x_scalar,
        aten.special_hermite_polynomial_he.n_scalar,
    ): Family(_hermite_he, 1, 0, limits=_HERMITE_LIMITS),
    (
        aten.special_laguerre_polynomial_l.default,
        aten.special_laguerre_polynomial_l.x_scalar,
        aten.special_laguerre_polynomial_l.n_scalar,
    ): Family(_laguerre, -1, 1),
    (
        aten.special_legendre_polynomial_p.default,
        aten.special_legendre_polynomial_p.x_scalar,
        aten.special_legendre_polynomial_p.n_scalar,
    ): Family(_legendre, 1, 0),
}
_FAMILY_OF = {op: family for ops, family in FAMILIES.items() for op in ops}


@lowers(*_FAMILY_OF)
def polynomial(cx: Rule, x: Operand, n: Operand) -> Value:
    """x [*A], n [*B] (either may be a number) -> P_n(x), broadcast; 0 for a negative order.

    Orders are cut to whole numbers.
    """
    dims, dtype = cx.out.dims, cx.out.dtype
    family = _FAMILY_OF[cx.node.target]
    if 0 in dims:
        return cx.zeros(dims, dtype)
    if any(map(may_be_zero, dims)):
        cx.decline("a polynomial of a data-dependent number of elements, which may be none")
    place, order = (cx.expand(v, dims) for v in cx.promote(x, n))
    order = cx.cast(order, torch.int64)
    if family.shifted:
        one = cx.scalar(1, dtype)
        place = cx.op.Sub(cx.op.Add(place, place), one)
    result = _recurrence(cx, family, place, order, dtype)
    if family.bounded and dtype is torch.float32:
        wide = _recurrence(cx, family, cx.cast(place, torch.float64), order, torch.float64)
        inside = cx.op.Less(cx.op.Abs(place), cx.scalar(1, dtype))
        result = cx.op.Where(inside, cx.cast(wide, dtype), result)
    if family.limits is not None:
        limit = family.limits[dtype is torch.float64]
        beyond = cx.op.Greater(order, cx.scalar(limit, torch.int64))
        result = cx.op.Where(beyond, cx.scalar(float("nan"), dtype), result)
    return result


def _recurrence(cx: Rule, family: Family, x: Value, n: Value, dtype: torch.dtype) -> Value:
    """P_n(x) elementwise: as many steps as the greatest order takes, each where it is wanted."""
    zero, one = (cx.scalar(v, torch.int64) for v in (0, 1))
    first = cx.op.Add(cx.op.Mul(x, cx.scalar(family.scale, dtype)), cx.scalar(family.shift, dtype))
    greatest = cx.op.ReduceMax(n, keepdims=0)
    greatest.dims = ()
    steps = cx.op.Max(cx.op.Sub(greatest, one), zero)
    ones = cx.expand(cx.scalar(1, dtype), cx.out.dims)

    def step(i: Value, going: Value, p: Value, q: Value) -> list[Value]:
        k = cx.op.Add(i, one)
        following = family.following(cx, x, q, p, cx.cast(k, dtype))
        wanted = cx.op.Less(k, n)
        return [going, cx.op.Where(wanted, q, p), cx.op.Where(wanted, following, q)]

    last = cx.loop(steps, [ones, first], step)[1]
    result = cx.op.Where(cx.op.Equal(n, zero), cx.scalar(1, dtype), last)
    return cx.op.Where(cx.op.Less(n, zero), cx.scalar(0, dtype), result)
