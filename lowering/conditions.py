"""Conditions on sizes: as values, and as what a program checks while it runs.

ONNX has no assertion. A Gather whose index is out of bounds where a condition does not hold ends
the run, and onnxruntime's message has the name of the node, which is the condition. For exports: a
captured frame has guards.
"""

from __future__ import annotations

from collections.abc import Iterable

import sympy
import torch

from .dims import simplify
from .rule import Rule
from .value import Declined, Value

CONDITION = "condition on sizes: "  # how the names of nodes begin that check one

_COMPARISONS: dict[type[sympy.Basic], str] = {
    sympy.StrictGreaterThan: "Greater",
    sympy.GreaterThan: "GreaterOrEqual",
    sympy.StrictLessThan: "Less",
    sympy.LessThan: "LessOrEqual",
    sympy.Equality: "Equal",
}


def truth(cx: Rule, condition: sympy.Basic) -> Value:
    """bool [] of a condition on sizes; declines one that ONNX cannot compute."""
    if isinstance(condition, (sympy.logic.boolalg.BooleanTrue, sympy.logic.boolalg.BooleanFalse)):
        return cx.scalar(bool(condition), torch.bool)
    if isinstance(condition, sympy.Not):
        return cx.op.Not(truth(cx, condition.args[0]))
    if isinstance(condition, (sympy.And, sympy.Or)):
        first, *others = (truth(cx, a) for a in condition.args)
        for other in others:
            first = (cx.op.And if isinstance(condition, sympy.And) else cx.op.Or)(first, other)
        return first
    if isinstance(condition, sympy.Ne):
        return cx.op.Not(truth(cx, sympy.Eq(*condition.args)))
    compare = _COMPARISONS.get(type(condition))
    if compare is None:
        cx.decline(f"the condition {condition} on sizes")
    a, b = (cx.scalar(simplify(a), torch.int64) for a in condition.args)
    result: Value = getattr(cx.op, compare)(a, b)
    return result


def under(
    cx: Rule, value: Value, conditions: Iterable[sympy.Basic]
) -> tuple[Value, list[sympy.Basic]]:
    """The value, to be had while the conditions hold; behind it, those that cannot be checked."""
    builder = cx.builder
    unchecked: list[sympy.Basic] = []
    with builder.sizes.inside():
        found: Value | None = None  # int64 [1, rank]
        for condition in conditions:
            builder.prefix = f"{CONDITION}{condition}"
            try:
                holds = truth(cx, condition)
            except Declined:
                unchecked.append(condition)
                continue
            if found is None:
                found = cx.op.Unsqueeze(cx.op.Shape(value), cx.ints([0]))
            broken = cx.reshape(cx.cast(cx.op.Not(holds), torch.int64), (1,))
            found = cx.op.Gather(found, broken, axis=0)
        if found is None:
            return value, unchecked
        shape = cx.op.Squeeze(found, cx.ints([0]))
        checked: Value = cx.op.Reshape(value, shape, allowzero=1)
    checked.dims = value.dims
    return checked, unchecked
