"""Comparisons, logical operators, and choosing by a mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..dims import is_static, numel
from ..registry import lowers
from ..rule import Operand, Rule, Scalar
from ..value import Value
from ._pointwise import choose

aten = torch.ops.aten

MAX_TEST_ELEMENTS = 4096  # isin compares every element with every test element

ORDERED: dict[Any, str] = {
    aten.lt.Tensor: "Less",
    aten.lt.Scalar: "Less",
    aten.le.Tensor: "LessOrEqual",
    aten.le.Scalar: "LessOrEqual",
    aten.gt.Tensor: "Greater",
    aten.gt.Scalar: "Greater",
    aten.ge.Tensor: "GreaterOrEqual",
    aten.ge.Scalar: "GreaterOrEqual",
}


@lowers(*ORDERED)
def ordered(cx: Rule, self: Value, other: Operand) -> Value:
    """self [*A], other [*B] -> bool [*broadcast], compared in the promoted dtype.

    ONNX has no order of bools: they are compared as numbers.
    """
    return getattr(cx.op, ORDERED[cx.node.target])(*_comparable(cx, self, other, order=True))


@lowers(aten.eq.Tensor, aten.eq.Scalar)
def eq(cx: Rule, self: Value, other: Operand) -> Value:
    """self [*A], other [*B] -> bool [*broadcast], compared in the promoted dtype."""
    return cx.op.Equal(*_comparable(cx, self, other))


@lowers(aten.ne.Tensor, aten.ne.Scalar)
def ne(cx: Rule, self: Value, other: Operand) -> Value:
    """self [*A], other [*B] -> bool [*broadcast], compared in the promoted dtype."""
    a, b = _comparable(cx, self, other)
    return cx.op.Xor(a, b) if cx.dtype(a) is torch.bool else cx.op.Not(cx.op.Equal(a, b))


def _comparable(cx: Rule, self: Value, other: Operand, *, order: bool = False) -> list[Value]:
    dtype = cx.common_dtype(0, 1)
    operands = cx.promote(self, other, dtype=dtype)
    if order and dtype is torch.bool:
        return [cx.cast(o, torch.uint8) for o in operands]
    return operands


LOGICAL: dict[Any, str] = {
    aten.logical_and.default: "And",
    aten.logical_or.default: "Or",
    aten.logical_xor.default: "Xor",
}


@lowers(*LOGICAL)
def logical(cx: Rule, self: Value, other: Operand) -> Value:
    """self [*A], other [*B] of any dtype -> bool [*broadcast]; all but zero is true."""
    operands = cx.promote(self, other, dtype=torch.bool)
    return getattr(cx.op, LOGICAL[cx.node.target])(*operands)


@lowers(aten.logical_not.default)
def logical_not(cx: Rule, self: Value) -> Value:
    """self [*A] of any dtype -> bool [*A]."""
    return cx.op.Not(cx.cast(self, torch.bool))


@lowers(aten.where.self)
def where(cx: Rule, condition: Value, self: Operand, other: Operand) -> Value:
    """condition [*C], self [*A], other [*B] -> [*broadcast] in the promoted dtype."""
    yes, no = cx.promote(self, other)
    return choose(cx, cx.cast(condition, torch.bool), yes, no)


@lowers(aten.masked_fill.Scalar, aten.masked_fill.Tensor)
def masked_fill(cx: Rule, self: Value, mask: Value, value: Operand) -> Value:
    """self [*A], mask [*B], value [] -> value where mask, else self [*broadcast], dtype of self."""
    (fill,) = cx.promote(value)
    return choose(cx, cx.cast(mask, torch.bool), fill, self)


@lowers(aten.heaviside.default)
def heaviside(cx: Rule, self: Value, values: Value) -> Value:
    """self [*A], values [*B] -> values where self is 0, else 1 where self > 0 and 0 elsewhere."""
    zero = cx.scalar(0, cx.out.dtype)
    if cx.out.dtype is torch.bool:
        return cx.op.Or(self, values)
    step = cx.cast(cx.op.Greater(self, zero), cx.out.dtype)
    return cx.op.Where(cx.op.Equal(self, zero), values, step)


@lowers(aten.isin.Tensor_Tensor)
def isin(
    cx: Rule, elements: Value, test_elements: Value, assume_unique: bool, invert: bool
) -> Value:
    """elements [*A], test_elements [*T] -> bool [*A]: is the element one of them (or none)?

    Every element meets every test element, so many test elements stay eager, where they are sorted.
    """
    tests = test_elements.known_dims
    count = numel(tests)
    if not is_static(tests) or not isinstance(count, int) or count > MAX_TEST_ELEMENTS:
        cx.decline(f"isin with more than {MAX_TEST_ELEMENTS} or an unknown number of test elements")
    if count == 0:
        return cx.full(cx.out.dims, invert, torch.bool)
    a, b = cx.promote(elements, test_elements, dtype=cx.common_dtype(0, 1))
    if count == 1:
        found = cx.op.Equal(a, cx.reshape(b, ()))
    else:
        found = _any(cx, cx.op.Equal(cx.unsqueeze(a, a.rank), cx.reshape(b, (count,))))
    return cx.op.Not(found) if invert else found


@lowers(aten.isin.Tensor_Scalar)
def isin_scalar(
    cx: Rule, elements: Value, test_element: Scalar, assume_unique: bool, invert: bool
) -> Value:
    """elements [*A] -> bool [*A]: is the element this number (or is it not)?"""
    found = cx.op.Equal(*cx.promote(elements, test_element, dtype=cx.common_dtype(0, 1)))
    return cx.op.Not(found) if invert else found


def _any(cx: Rule, matches: Value) -> Value:
    """[*A, T] bool -> [*A]: ONNX Runtime has ReduceMax for int32, not for bool."""
    count = cx.op.ReduceMax(cx.cast(matches, torch.int32), cx.ints(_last(matches)), keepdims=0)
    return cx.cast(count, torch.bool)


def _last(value: Value) -> Sequence[int]:
    return (value.rank - 1,)
