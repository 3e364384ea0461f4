"""What pointwise rules share: in which type eager computes, and numbers told from tensors."""

from __future__ import annotations

from typing import TypeGuard

import numpy as np
import sympy
import torch

from ..dtypes import opmath
from ..rule import Operand, Rule
from ..value import Value

REDUCED = frozenset({torch.float16, torch.bfloat16})


def compute(cx: Rule, *operands: Operand, dtype: torch.dtype | None = None) -> list[Value]:
    """Operands in eager's type of computation for `dtype` (the output's unless given).

    A 16-bit tensor is widened to float32; tensors of another type are first rounded to 16 bits,
    Python numbers and 0-d tensors are not: that is what ATen's `opmath` kernels do. The caller
    casts the result back.
    """
    target = cx.out.dtype if dtype is None else dtype
    wide = opmath(target)
    if wide is target:
        return cx.promote(*operands, dtype=target)
    return [
        cx.as_value(cx.cast(o, target) if isinstance(o, Value) and o.rank > 0 else o, wide)
        for o in operands
    ]


def narrow(cx: Rule, value: Value) -> Value:
    """The result in the type that the node returns."""
    return cx.cast(value, cx.out.dtype)


def static(number: object) -> TypeGuard[int | float | bool]:
    """A Python number known now (not an expression of sizes)."""
    return isinstance(number, (int, float, bool)) and not isinstance(number, sympy.Expr)


def constant_of(cx: Rule, operand: Operand) -> int | float | bool | None:
    """The number behind a Python number or a one-element constant."""
    if isinstance(operand, Value):
        return cx.number(operand)
    return operand if static(operand) else None


def all_positive(cx: Rule, operand: Operand) -> bool:
    """Is it known now that every element is greater than zero?"""
    return _all_sign(cx, operand, 1)


def all_negative(cx: Rule, operand: Operand) -> bool:
    """Is it known now that every element is less than zero?"""
    return _all_sign(cx, operand, -1)


def _all_sign(cx: Rule, operand: Operand, sign: int) -> bool:
    if isinstance(operand, Value):
        array = cx.builder.constant_array(operand)
        return array is not None and bool(np.all(array > 0 if sign > 0 else array < 0))
    if isinstance(operand, sympy.Expr):
        return sign > 0 and bool(operand.is_positive)
    return (operand > 0) - (operand < 0) == sign


def choose(cx: Rule, condition: Value, yes: Value, no: Value) -> Value:
    """Condition ? yes : no, for every type (ONNX Runtime's Where has no kernel for bool).

    Where may give 0.0 for -0.0 (its kernel merges two halves by "what is not zero").
    """
    if cx.dtype(yes) is not torch.bool:
        return cx.op.Where(condition, yes, no)
    return cx.op.Or(cx.op.And(condition, yes), cx.op.And(cx.op.Not(condition), no))


def truncate(cx: Rule, value: Value) -> Value:
    """Round towards zero; keeps infinities, NaN and the sign of zeros."""
    low, high = (cx.scalar(n, cx.dtype(value)) for n in (-1, 1))
    return cx.op.Mul(cx.op.Floor(cx.op.Abs(value)), cx.op.Clip(value, low, high))


def log1p(cx: Rule, value: Value) -> Value:
    """log(1 + x) to the last few bits for every x.

    With u = fl(1 + x), log(u) * x / (u - 1) undoes the rounding of the sum; where u is 1 the
    answer is x, and where u - 1 is x (also for infinity) it is log(u).
    """
    dtype = cx.dtype(value)
    one = cx.scalar(1, dtype)
    total = cx.op.Add(value, one)
    log = cx.op.Log(total)
    difference = cx.op.Sub(total, one)
    corrected = cx.op.Mul(log, cx.op.Div(value, difference))
    whole = cx.op.Where(cx.op.Equal(difference, value), log, corrected)
    return cx.op.Where(cx.op.Equal(total, one), value, whole)
