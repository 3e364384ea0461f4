"""What a bundle computes outside of its ONNX programs, as data: sizes, guards, results.

An expression is what JSON has: a number, a text, a boolean or null for itself, and a list for an
operation, `["add", left, right]`. It reads the arguments of a call, what programs have returned in
that call, and nothing else; it calls nothing of theirs.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

import numpy as np

from ..errors import BundleError
from .arrays import dtype_of, is_array, number_of, shape_of
from .record import Record

Expression: TypeAlias = "bool | int | float | str | list[Any] | None"


@dataclass(slots=True)
class Values:
    """Those of one call: its arguments by name, results by the number of the run, kept arrays."""

    arguments: Mapping[str, Any]
    kept: Mapping[str, Any]
    results: dict[int, Sequence[Any]] = field(default_factory=dict[int, Sequence[Any]])


def evaluate(expression: Expression, values: Values) -> Any:  # noqa: ANN401 - what it says
    """The value of an expression; BundleError for one that is none, or cannot be had."""
    if not isinstance(expression, list):
        return expression
    name, *operands = expression
    direct = _DIRECT.get(name)
    if direct is not None:
        return direct(values, *operands)
    function = _FUNCTIONS[name]
    return function(*[evaluate(operand, values) for operand in operands])


def holds(condition: Expression, values: Values) -> bool:
    """Is it true of a call? One that reads what the call has not got is false."""
    try:
        return bool(evaluate(condition, values))
    except (BundleError, TypeError, ValueError, ZeroDivisionError, OverflowError):
        return False


def check(expression: object, depth: int = 0) -> None:
    """BundleError, unless it is an expression."""
    if expression is None or isinstance(expression, (bool, int, float, str)):
        return
    if not isinstance(expression, list) or not expression or depth > _DEEPEST:
        raise BundleError(f"no expression: {str(expression)[:80]}")
    name: object = expression[0]
    operands = expression[1:]
    if not isinstance(name, str) or name not in OPERATIONS:
        raise BundleError(f"no expression has the operation {str(name)[:80]!r}")
    if name in _COUNTS and len(operands) != _COUNTS[name]:
        raise BundleError(f"{name!r} takes {_COUNTS[name]} operands, not {len(operands)}")
    types = _PLAIN.get(name, {})
    for index, operand in enumerate(operands):
        wanted = types.get(index)
        if wanted is None:
            check(operand, depth + 1)
        elif not _is(operand, wanted):
            raise BundleError(f"operand {index} of {name!r} is {str(operand)[:80]!r}")


_DEEPEST = 60


def _is(operand: object, wanted: type | tuple[type, ...]) -> bool:
    return isinstance(operand, wanted) and not (wanted is int and isinstance(operand, bool))


def _argument(values: Values, name: str) -> Any:  # noqa: ANN401 - the user's
    try:
        return values.arguments[name]
    except KeyError:
        raise BundleError(f"there is no argument {name!r}") from None


def _kept(values: Values, name: str) -> Any:  # noqa: ANN401 - an array
    return values.kept[name]


def _result(values: Values, run: int, index: int) -> Any:  # noqa: ANN401 - an array or number
    return values.results[run][index]


def _and(values: Values, *operands: Expression) -> bool:
    return all(evaluate(operand, values) for operand in operands)


def _or(values: Values, *operands: Expression) -> bool:
    return any(evaluate(operand, values) for operand in operands)


def _item(owner: Any, key: Any) -> Any:  # noqa: ANN401 - the user's
    if is_array(owner):
        raise BundleError("an item of an array is not read outside of a program")
    try:
        return owner[key]
    except (KeyError, IndexError, TypeError) as error:
        raise BundleError(f"an argument has no item {key!r}") from error


def _attribute(owner: Any, name: str) -> Any:  # noqa: ANN401 - the user's
    try:
        return getattr(owner, name)
    except AttributeError as error:
        raise BundleError(f"an argument has no attribute {name!r}") from error


def _size(array: Any, axis: int) -> int:  # noqa: ANN401 - an array of any library
    shape = shape_of(array)
    if not -len(shape) <= axis < len(shape):
        raise BundleError(f"an array of {len(shape)} dimensions has no size {axis}")
    return shape[axis]


def _all_true(value: Any) -> bool:  # noqa: ANN401 - an array of any library, or a number
    return all(value.reshape(-1).tolist()) if is_array(value) else bool(value)


ERRORS: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (
        AssertionError,
        IndexError,
        NotImplementedError,
        RuntimeError,
        TypeError,
        ValueError,
    )
}


def _raise(kind: str, message: str) -> NoReturn:
    """What the model raises in a call that comes here."""
    if kind not in ERRORS:
        raise BundleError(f"{kind[:80]!r} is no kind of an error")
    raise ERRORS[kind](message)


def _is_tensor(array: Any, dtype: str, *sizes: int | None) -> bool:  # noqa: ANN401 - the user's
    if not is_array(array) or dtype_of(array) != dtype:
        return False
    shape = shape_of(array)
    return len(shape) == len(sizes) and all(
        wanted is None or size == wanted for size, wanted in zip(shape, sizes, strict=True)
    )


_TYPES: dict[str, type] = {
    t.__name__: t for t in (bool, int, float, str, list, tuple, dict, type(None), range, slice, set)
}


def _is_type(value: Any, name: str) -> bool:  # noqa: ANN401 - the user's
    return type(value) is _TYPES[name]


def _of_numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    """An operation of Python's own values: what a library makes of arrays is not torch's answer."""

    def operation(*operands: Any) -> Any:  # noqa: ANN401 - numbers, texts, lists
        if any(map(is_array, operands)):
            raise BundleError("an array is computed with outside of a program")
        return function(*operands)

    return operation


_ARITHMETIC = "add sub mul floordiv truediv mod neg eq ne lt le gt ge".split()


def _is_object(value: Any, name: str) -> bool:  # noqa: ANN401 - the user's
    """Of the class of that name; a `Record` is of the class that it stands for."""
    kind = type(value)
    if isinstance(value, Record):
        return name == value.class_name or name.endswith(f".{value.class_name}")
    return f"{kind.__module__}.{kind.__qualname__}" == name


def _dict(*pairs: Any) -> dict[Any, Any]:  # noqa: ANN401 - keys and values in turn
    return dict(zip(pairs[::2], pairs[1::2], strict=True))


def _record(name: str, *pairs: Any) -> Record:  # noqa: ANN401 - names and values in turn
    return Record(name, _dict(*pairs))


_DIRECT: dict[str, Callable[..., Any]] = {
    "argument": _argument,
    "kept": _kept,
    "result": _result,
    "and": _and,
    "or": _or,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "item": _item,
    "attribute": _attribute,
    "attributes": lambda value: getattr(value, "__dict__", {}),
    "size": _size,
    "rank": lambda array: len(shape_of(array)),
    "length": lambda value: shape_of(value)[0] if is_array(value) else len(value),
    "number": number_of,
    "scalar": lambda value: np.asarray(value, np.float64 if type(value) is float else np.int64),
    "int": lambda value: int(number_of(value)),
    "float": lambda value: float(number_of(value)),
    "truth": lambda value: bool(number_of(value)) if is_array(value) else bool(value),
    "all true": _all_true,
    "raise": _raise,
    "is tensor": _is_tensor,
    "is array": is_array,
    "is type": _is_type,
    "is object": _is_object,
    "is nan": lambda value: math.isnan(number_of(value)),
    "is none": lambda value: value is None,
    "has key": lambda owner, key: key in owner,
    "keys": list,
    "not": operator.not_,
    **{name: _of_numbers(getattr(operator, name)) for name in _ARITHMETIC},
    "list": lambda *items: list(items),
    "tuple": lambda *items: items,
    "dict": _dict,
    "record": _record,
}
OPERATIONS = frozenset({*_DIRECT, *_FUNCTIONS})
# How many operands each takes, where it is not any number.
_COUNTS = {
    **dict.fromkeys(
        "argument kept attributes rank length scalar number int float truth".split(), 1
    ),
    **dict.fromkeys(["is array", "all true", "is nan", "is none", "keys", "not", "neg"], 1),
    **dict.fromkeys(["result", "item", "attribute", "size", "is type", "is object", "has key"], 2),
    "raise": 2,
    **dict.fromkeys("add sub mul floordiv truediv mod eq ne lt le gt ge".split(), 2),
}
# Operands that are not expressions themselves, but data of a type.
_PLAIN: dict[str, dict[int, type | tuple[type, ...]]] = {
    "argument": {0: str},
    "kept": {0: str},
    "result": {0: int, 1: int},
    "attribute": {1: str},
    "size": {1: int},
    "is type": {1: str},
    "is object": {1: str},
    "is tensor": {1: str},
    "raise": {0: str, 1: str},
}
