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

import onnx_ir as ir
import torch

from ..dims import may_be_zero
from ..dtypes import TO_ONNX
from ..registry import lowers
from ..rule import Operand, Rule
from ..value import Value
from ._loop import Step

aten = torch.ops.aten


Next: TypeAlias = Callable[[Step, Value, Value, Value, Value], Value]


def _chebyshev(s: Step, x: Value, q: Value, p: Value, _: Value) -> Value:
    return s.sub(s.mul(s.add(x, x), q), p)


def _hermite_h(s: Step, x: Value, q: Value, p: Value, k: Value) -> Value:
    return s.sub(s.mul(s.add(x, x), q), s.mul(s.add(k, k), p))


def _hermite_he(s: Step, x: Value, q: Value, p: Value, k: Value) -> Value:
    return s.sub(s.mul(x, q), s.mul(k, p))


def _laguerre(s: Step, x: Value, q: Value, p: Value, k: Value) -> Value:
    factor = s.add(s.add(k, k), s.sub(1, x))
    return s.div(s.sub(s.mul(factor, q), s.mul(k, p)), s.add(k, 1))


def _legendre(s: Step, x: Value, q: Value, p: Value, k: Value) -> Value:
    factor = s.mul(s.add(s.add(k, k), 1), x)
    return s.div(s.sub(s.mul(factor, q), s.mul(k, p)), s.add(k, 1))


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
    body, count = _body(cx, family, dtype), 4
    made = cx.op.Loop(
        steps, None, x, n, ones, first,
        outputs=count, dtypes=[TO_ONNX[dtype], ir.DataType.INT64, *[TO_ONNX[dtype]] * 2], body=body,
    )  # fmt: skip
    last: Value = made[3]
    last.dims = cx.out.dims
    result = cx.op.Where(cx.op.Equal(n, zero), cx.scalar(1, dtype), last)
    return cx.op.Where(cx.op.Less(n, zero), cx.scalar(0, dtype), result)


def _body(cx: Rule, family: Family, dtype: torch.dtype) -> ir.Graph:
    """(step, condition, x, n, p, q) -> (condition, x, n, q, next q) where the order is not reached.

    Ref: https://onnx.ai/onnx/operators/onnx__Loop.html
    """
    elem, dims = TO_ONNX[dtype], cx.out.dims
    s = Step(f"{cx.node.name}.{dtype}", dtype)
    step, condition = s.value(ir.DataType.INT64, ()), s.value(ir.DataType.BOOL, ())
    x, n = s.value(elem, dims), s.value(ir.DataType.INT64, dims)
    p, q = s.value(elem, dims), s.value(elem, dims)
    k = s.add(step, 1)
    following = family.following(s, x, q, p, s.emit("Cast", k, dtype=elem))
    wanted = s.emit("Less", k, n, dtype=ir.DataType.BOOL)
    p_next = s.emit("Where", wanted, q, p, dtype=elem)
    q_next = s.emit("Where", wanted, following, q, dtype=elem)
    kept = [s.emit("Identity", v) for v in (condition, x, n)]
    return ir.Graph(
        [step, condition, x, n, p, q],
        [*kept, p_next, q_next],
        nodes=s.nodes,
        name=f"{cx.node.name}_step",
    )
