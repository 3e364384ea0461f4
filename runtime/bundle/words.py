"""Conditions of a bundle in words, for the error of a call that none of its guard sets fits."""

from __future__ import annotations

from ..errors import BundleError
from .arrays import dtype_of, is_array, shape_of
from .expressions import Expression, Values, evaluate

_SIGNS = {
    "add": "+", "sub": "-", "mul": "*", "floordiv": "//", "truediv": "/", "mod": "%", "eq": "==",
    "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
}  # fmt: skip


def in_words(condition: Expression, values: Values) -> str:
    """What must hold, and what it is in this call."""
    told = text(condition)
    if isinstance(condition, list) and len(condition) > 1:
        found = [f"{text(o)} is {_given(o, values)}" for o in condition[1:3] if _is_read(o)]
        return f"{told} does not hold: {', '.join(found)}" if found else f"{told} does not hold"
    return f"{told} does not hold"


def _is_read(operand: Expression) -> bool:
    return isinstance(operand, list) and bool(operand) and operand[0] not in ("and", "or", "not")


def _given(operand: Expression, values: Values) -> str:
    try:
        value = evaluate(operand, values)
    except (BundleError, TypeError, ValueError, ZeroDivisionError) as error:
        return f"not there ({error})"
    if is_array(value):
        return f"{dtype_of(value)} {list(shape_of(value))}"
    return repr(value)[:80]


def text(expression: Expression) -> str:
    """An expression as one would write it."""
    if not isinstance(expression, list):
        return repr(expression)
    name, *operands = expression
    if name == "argument":
        return operands[0]
    if name == "is tensor":
        sizes = ", ".join("any" if size is None else str(size) for size in operands[2:])
        return f"{text(operands[0])} is {operands[1]} [{sizes}]"
    if name in _SIGNS:
        return f"{text(operands[0])} {_SIGNS[name]} {text(operands[1])}"
    if name in ("and", "or"):
        return f" {name} ".join(map(text, operands))
    if name == "item":
        return f"{text(operands[0])}[{text(operands[1])}]"
    if name == "attribute":
        return f"{text(operands[0])}.{operands[1]}"
    if name == "size":
        return f"{text(operands[0])}.shape[{operands[1]}]"
    if name in ("is array", "is none", "is type", "is object"):
        kind = {"is array": "an array", "is none": "None"}.get(name, str(operands[-1]))
        return f"{text(operands[0])} is {kind}"
    if name == "has key":
        return f"{text(operands[1])} in {text(operands[0])}"
    return f"{name}({', '.join(map(text, operands))})"
