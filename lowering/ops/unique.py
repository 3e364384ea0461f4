"""Unique elements and rows: runs of equal neighbours, after a sort or as they come.

ONNX's Unique leaves open what becomes of NaN, which torch counts as different from itself.
"""

from __future__ import annotations

import torch

from ..dims import Dim, numel, simplify
from ..registry import lowers
from ..rule import Rule
from ..value import Value
from .sort import top_k

aten = torch.ops.aten


@lowers(aten._unique2.default)
def unique2(
    cx: Rule, self: Value, sorted: bool, return_inverse: bool, return_counts: bool
) -> tuple[Value, Value, Value]:
    """self [*A] -> its elements in order [U], where each is in there [*A], how many [U]."""
    count = numel(self.known_dims)
    flat = cx.reshape(self, (count,))
    if count == 0:
        return _nothing(cx)
    ordered, order = top_k(cx, flat, count, 0, False)
    first = _first(cx, ordered, count)
    values, inverse, counts = _runs(cx, ordered, first, count, 0)
    back = cx.op.ScatterElements(order, order, inverse, axis=0)
    back.dims = (count,)
    back = cx.reshape(back, self.known_dims)
    return _wanted(cx, values, back, counts)


@lowers(aten.unique_consecutive.default)
def unique_consecutive(
    cx: Rule, self: Value, return_inverse: bool, return_counts: bool, dim: int | None
) -> tuple[Value, Value, Value]:
    """self [*A] -> the first of each run of equal ones; without `dim`, of elements."""
    if dim is not None:
        return _rows(cx, self, dim, ordered=False)
    count = numel(self.known_dims)
    if count == 0:
        return _nothing(cx)
    flat = cx.reshape(self, (count,))
    values, inverse, counts = _runs(cx, flat, _first(cx, flat, count), count, 0)
    back = cx.reshape(inverse, self.known_dims)
    return _wanted(cx, values, back, counts)


@lowers(aten.unique_dim_consecutive.default)
def unique_dim_consecutive(
    cx: Rule, self: Value, dim: int, return_inverse: bool, return_counts: bool
) -> tuple[Value, Value, Value]:
    """self [*A] -> the first of each run of equal slices along `dim`."""
    return _rows(cx, self, dim, ordered=False)


@lowers(aten.unique_dim.default)
def unique_dim(
    cx: Rule, self: Value, dim: int, sorted: bool, return_inverse: bool, return_counts: bool
) -> tuple[Value, Value, Value]:
    """self [*A] -> its slices along `dim`, in the order of their elements, each once.

    ATen compares with <, which is no order where there are NaNs; here they come last.
    """
    return _rows(cx, self, dim, ordered=True)


def _rows(cx: Rule, self: Value, dim: int, *, ordered: bool) -> tuple[Value, Value, Value]:
    axis = cx.axis(dim, self.rank)
    dims = self.known_dims
    if not dims or 0 in dims:
        cx.decline("unique slices of nothing")
    size = dims[axis]
    perm = [axis, *(i for i in range(len(dims)) if i != axis)]
    width = numel(dims[:axis] + dims[axis + 1 :])
    rows = cx.reshape(cx.transpose(self, perm), (size, width))
    order = None
    if ordered:
        order = _order(cx, rows, size, width)
        rows, self = (cx.op.Gather(v, order, axis=a) for v, a in ((rows, 0), (self, axis)))
        rows.dims, self.dims = (size, width), dims
    values, where, many = _runs(cx, self, _first(cx, rows, size), size, axis)
    if order is not None:
        where = cx.op.ScatterElements(order, order, where, axis=0)
        where.dims = (size,)
    return _wanted(cx, values, where, many)


def _order(cx: Rule, rows: Value, size: Dim, width: Dim) -> Value:
    """int64 [N]: the rows [N, W] by their elements; sorted by the last column first, stably."""
    last = cx.op.Sub(cx.scalar(width, torch.int64), cx.scalar(1, torch.int64))

    def step(i: Value, going: Value, order: Value) -> list[Value]:
        column = cx.op.Gather(rows, cx.op.Sub(last, i), axis=1)
        column.dims = (size,)
        column = cx.op.Gather(column, order, axis=0)
        column.dims = (size,)
        _, place = top_k(cx, column, size, 0, False)
        return [going, cx.op.Gather(order, place, axis=0)]

    return cx.loop(width, [cx.places(size, 1, 0)], step)[0]


def _first(cx: Rule, values: Value, count: Dim) -> Value:
    """bool [N]: is an element, or a row [N, W], another than the one before it?"""
    rank = values.rank
    before, after = (
        cx.op.Slice(values, cx.ints([s]), cx.ints([e]), cx.ints([0]))
        for s, e in ((0, count - 1), (1, count))
    )
    before.dims = after.dims = (simplify(count - 1), *values.known_dims[1:])
    other = cx.op.Not(cx.op.Equal(before, after))
    if rank > 1:
        axes = cx.const(list(range(1, rank)), torch.int64)
        other = cx.op.ReduceMax(cx.cast(other, torch.int32), axes, keepdims=0)
        other.dims = (simplify(count - 1),)
        other = cx.cast(other, torch.bool)
    first: Value = cx.op.Concat(cx.const([True], torch.bool), other, axis=0)
    first.dims = (count,)
    return first


def _runs(
    cx: Rule, values: Value, first: Value, count: Dim, axis: int
) -> tuple[Value, Value, Value]:
    """The first of each run along an axis, the run of each element int64 [N], lengths int64 [U]."""
    size = cx.outs[0].dims[axis]
    kept: Value = cx.op.Compress(values, first, axis=axis)
    kept.dims = (*values.known_dims[:axis], size, *values.known_dims[axis + 1 :])
    one = cx.const([1], torch.int64)
    run = cx.op.Sub(cx.op.CumSum(cx.cast(first, torch.int64), cx.const(0, torch.int64)), one)
    run.dims = (count,)
    starts = cx.op.NonZero(first)
    starts.dims = (1, size)
    starts = cx.reshape(starts, (size,))
    ends: Value = cx.op.Concat(
        cx.op.Slice(starts, one, cx.const([torch.iinfo(torch.int64).max], torch.int64)),
        cx.ints([count]),
        axis=0,
    )
    ends.dims = (size,)
    return kept, run, cx.op.Sub(ends, starts)


def _wanted(cx: Rule, values: Value, inverse: Value, counts: Value) -> tuple[Value, Value, Value]:
    """What is not wanted is empty; of slices eager always gives all three."""
    none = cx.zeros((0,), torch.int64)
    _, inverse_of, counts_of = cx.outs
    return (
        values,
        none if inverse_of.dims == (0,) else inverse,
        none if counts_of.dims == (0,) else counts,
    )


def _nothing(cx: Rule) -> tuple[Value, Value, Value]:
    values, inverse, counts = (cx.zeros(m.dims, m.dtype) for m in cx.outs)
    return values, inverse, counts
