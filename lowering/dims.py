"""Dimensions: an int, or a sympy expression of the size symbols that Dynamo guards.

A SymInt becomes its expression here and stays one; nothing in lowering calls `int()` on a SymInt,
which would add a guard.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, TypeGuard

import sympy
import torch

Dim: TypeAlias = int | sympy.Expr
Dims: TypeAlias = tuple[Dim, ...]


def dim_of(size: int | torch.SymInt) -> Dim:
    """The dim behind a size, without guarding on it."""
    if isinstance(size, int):
        return size
    return simplify(expression(size))


def expression(value: torch.SymInt | torch.SymBool) -> Any:  # noqa: ANN401 - a sympy Expr, or Boolean
    """The expression behind a size or a condition on sizes, without guarding on it.

    A symbol that torch knows to be one number is that number: with deferred asserts,
    `torch.export` leaves a size that the model fixes as a symbol of the range [3, 3].
    """
    expr, ranges = value.node.expr, value.node.shape_env.var_to_range
    known = ((symbol, ranges.get(symbol)) for symbol in expr.free_symbols)
    fixed = {symbol: r.lower for symbol, r in known if r is not None and r.lower == r.upper}
    return expr.xreplace(fixed) if fixed else expr


def dims_of(shape: Iterable[int | torch.SymInt]) -> Dims:
    """The dims behind a shape."""
    return tuple(size if type(size) is int else dim_of(size) for size in shape)


def simplify(expr: Any) -> Dim:  # noqa: ANN401 - sympy types the parts of an Expr as Basic
    """A number becomes an int; any other expression stays as it is."""
    return int(expr) if isinstance(expr, (int, sympy.Integer)) else expr


def is_static(dims: Sequence[Dim]) -> TypeGuard[tuple[int, ...]]:
    """Are all dims ints?"""
    return all(isinstance(d, int) for d in dims)


def numel(dims: Iterable[Dim]) -> Dim:
    """The number of elements."""
    sizes = tuple(dims)
    if is_static(sizes):
        return math.prod(sizes)
    return simplify(sympy.Mul(*sizes))


def broadcast(*shapes: Sequence[Dim]) -> Dims | None:
    """The broadcast shape; None when symbols leave it open."""
    rank = max(len(s) for s in shapes)
    out: list[Dim] = []
    for axis in range(-rank, 0):
        sizes = {s[axis] for s in shapes if len(s) >= -axis} - {1}
        if len(sizes) > 1:
            sizes = {s for s in sizes if isinstance(s, int)}
            if len(sizes) != 1:
                return None
        out.append(sizes.pop() if sizes else 1)
    return tuple(out)


def contiguous_strides(dims: Sequence[Dim]) -> Dims:
    """Row-major strides, in elements (torch counts a zero-size dimension as one here)."""
    strides: list[Dim] = []
    step: Dim = 1
    for size in reversed(dims):
        strides.append(step)
        step = step * (max(size, 1) if isinstance(size, int) else size)
    return tuple(strides[::-1])


def same_stride(stride: Dim, expected: Dim) -> bool:
    """Is a stride of torch this product of sizes?

    torch counts a size that could be zero as Max(1, size); of a tensor with such a dim no stride
    matters.
    """
    if isinstance(stride, int) or isinstance(expected, int):
        return stride == expected
    maxima = [e for e in sympy.preorder_traversal(stride) if type(e).__name__ == "Max"]
    sizes = {m: next(a for a in m.args if a != 1) for m in maxima if 1 in m.args}
    return sympy.expand(stride.xreplace(sizes) - expected) == 0


def may_be_zero(dim: Dim) -> bool:
    """Can this dim be zero at run time? Only data-dependent (unbacked, `u0`) symbols can."""
    if isinstance(dim, int):
        return dim == 0
    return any(str(symbol).startswith("u") for symbol in dim.free_symbols)


def text(dim: Dim) -> int | str:
    """The dim as ONNX models and manifests show it."""
    return dim if isinstance(dim, int) else str(dim).replace(" ", "")


_SYMBOL = re.compile(r"\b[a-zA-Z_]\w*\b(?!\()")


class SymbolNames:
    """Renames symbols in the order they are met, so that equal graphs read equal."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def canonical(self, dim: Dim) -> int | str:
        """`s77*s3` -> `d0*d1`, whatever numbers Dynamo gave the symbols."""
        if isinstance(dim, int):
            return dim
        return _SYMBOL.sub(
            lambda m: self._names.setdefault(m.group(), f"d{len(self._names)}"), str(dim)
        )
