"""Writing over a part: slice_scatter, select_scatter, diagonal_scatter, masked_scatter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import sympy
import torch

from ..dims import Dim, numel
from ..registry import lowers
from ..rule import Rule
from ..value import Value
from ._pointwise import choose
from .index import INT64_MAX
from .view import diagonal_span, flat_matrix

aten = torch.ops.aten


@lowers(aten.slice_scatter.default)
def slice_scatter(
    cx: Rule,
    self: Value,
    src: Value,
    dim: int,
    start: Dim | None,
    end: Dim | None,
    step: Dim,
) -> Value:
    """self [*A, D, *B] with src [*A, L, *B] over start:end:step.

    Without a step it is what lies before, src, and what lies behind; otherwise the positions are
    written one by one.
    """
    axis = cx.axis(dim, self.rank)
    size, length = self.known_dims[axis], src.known_dims[axis]
    src = cx.cast(src, cx.out.dtype)
    if length == 0:
        return self
    if length == size:
        return src
    first = _from_front(cx, 0 if start is None else start, size)
    if step == 1:
        return _over_slice(cx, self, src, axis, first, first + length)
    begin, count, stride = cx.static(
        (first, length, step), "slice_scatter with a step over symbolic sizes"
    )
    column = [1] * self.rank
    column[axis] = count
    places = cx.const(begin + np.arange(count).reshape(column) * stride, torch.int64)
    return cx.op.ScatterElements(self, cx.expand(places, src.known_dims), src, axis=axis)


def _from_front(cx: Rule, position: Dim, size: Dim) -> Dim:
    """A position that may count from the end, counted from the front."""
    if isinstance(position, int):
        if position >= 0:
            return min(position, size) if isinstance(size, int) else position
        return max(position + size, 0) if isinstance(size, int) else sympy.Max(position + size, 0)
    if position.is_nonnegative:
        return position
    if position.is_negative:
        return sympy.Max(position + size, 0)
    return _wrapped(cx, position, size)


def _wrapped(cx: Rule, position: sympy.Expr, size: Dim) -> Dim:
    """A position whose sign only the run knows, wrapped there: a new size of the graph."""
    at, zero = cx.ints([position]), cx.ints([0])
    behind = cx.op.Max(cx.op.Add(at, cx.ints([size])), zero)
    first = sympy.Symbol(f"at_{cx.node.name}", integer=True, nonnegative=True)
    cx.builder.sizes.give(first, cx.op.Where(cx.op.Less(at, zero), behind, at))
    return first


def _over_slice(cx: Rule, target: Value, src: Value, axis: int, first: Dim, last: Dim) -> Value:
    """target[:first], src, target[last:] along axis."""
    size = target.known_dims[axis]
    parts = [src]
    along, by_one = cx.ints([axis]), cx.ints([1])
    if first != 0:
        parts.insert(0, cx.op.Slice(target, cx.ints([0]), cx.ints([first]), along, by_one))
    if last != size:
        end = size if isinstance(size, int) else INT64_MAX
        parts.append(cx.op.Slice(target, cx.ints([last]), cx.ints([end]), along, by_one))
    return parts[0] if len(parts) == 1 else cx.op.Concat(*parts, axis=axis)


@lowers(aten.select_scatter.default)
def select_scatter(cx: Rule, self: Value, src: Value, dim: int, index: Dim) -> Value:
    """self [*A, D, *B] with src [*A, *B] over [index]."""
    axis = cx.axis(dim, self.rank)
    first = _from_front(cx, index, self.known_dims[axis])
    dims = self.known_dims
    row = cx.reshape(cx.cast(src, cx.out.dtype), (*dims[:axis], 1, *dims[axis + 1 :]))
    return _over_slice(cx, self, row, axis, first, first + 1)


@lowers(aten.diagonal_scatter.default)
def diagonal_scatter(cx: Rule, self: Value, src: Value, offset: int, dim1: int, dim2: int) -> Value:
    """self [..., M, ..., N, ...] (dim1, dim2) with src [*B, K] over its [i, i + offset]."""
    return _over_diagonal(cx, self, cx.cast(src, cx.out.dtype), offset, dim1, dim2)


@lowers(aten.diagonal_backward.default)
def diagonal_backward(
    cx: Rule, grad_output: Value, input_sizes: Sequence[Dim], offset: int, dim1: int, dim2: int
) -> Value:
    """grad [*B, K] -> [..., M, ..., N, ...] (dim1, dim2) of zeros with grad at [i, i + offset]."""
    zeros = cx.zeros(cx.out.dims, cx.out.dtype)
    return _over_diagonal(cx, zeros, grad_output, offset, dim1, dim2)


def _over_diagonal(
    cx: Rule, target: Value, source: Value, offset: int, dim1: int, dim2: int
) -> Value:
    flat, cols = flat_matrix(cx, target, dim1, dim2)
    count = source.known_dims[-1]
    if not isinstance(cols, int) or not isinstance(count, int):
        cx.decline("a write over a diagonal of symbolic sizes")
    if count == 0:
        return target
    first, _ = diagonal_span(offset, cols, count)
    places = cx.const(first + np.arange(count) * (cols + 1), torch.int64)
    axis = flat.rank - 1
    written = cx.op.ScatterElements(flat, cx.expand(places, source.known_dims), source, axis=axis)
    written.dims = flat.dims
    rank = target.rank
    a, b = cx.axis(dim1, rank), cx.axis(dim2, rank)
    perm = [*(i for i in range(rank) if i not in (a, b)), a, b]
    matrix = cx.reshape(written, tuple(target.known_dims[i] for i in perm))
    return cx.transpose(matrix, [perm.index(i) for i in range(rank)])


@lowers(aten.masked_scatter.default)
def masked_scatter(cx: Rule, self: Value, mask: Value, source: Value) -> Value:
    """self [*A] with the next element of source wherever mask [*B] holds, in row-major order.

    The running count of the mask says which element comes where. Before the first place it is
    -1, which reads source from the end: a value that Where drops again.
    """
    shape = cx.out.dims
    if 0 in source.known_dims or 0 in shape:
        return cx.expand(self, shape)
    count = (numel(shape),)
    where = cx.expand(cx.cast(mask, torch.bool), shape)
    flat = cx.cast(cx.reshape(where, count), torch.int64)
    running = cx.op.CumSum(flat, cx.const(0, torch.int64))
    rank = cx.op.Sub(running, cx.const(1, torch.int64))
    elements = cx.reshape(cx.cast(source, cx.out.dtype), (numel(source.known_dims),))
    picked = cx.op.Gather(elements, rank, axis=0)
    picked.dims = count
    return choose(cx, where, cx.reshape(picked, shape), self)
