"""Sums and means of embeddings over bags of indices."""

from __future__ import annotations

import numpy as np
import torch

from ..dims import Dim, may_be_zero
from ..registry import lowers
from ..rule import Rule
from ..value import Value
from .index import from_zero

aten = torch.ops.aten

SUM, MEAN = 0, 1


@lowers(aten._embedding_bag.default, aten._embedding_bag_forward_only.default)
def embedding_bag(
    cx: Rule,
    weight: Value,
    indices: Value,
    offsets: Value,
    scale_grad_by_freq: bool,
    mode: int,
    sparse: bool,
    per_sample_weights: Value | None,
    include_last_offset: bool,
    padding_idx: int,
) -> tuple[Value, None, None, None]:
    """weight [V, D], indices [N], offsets [B] where bags begin -> their sums or means [B, D].

    An index of `padding_idx` does not count; an empty bag is 0. The tables for the backward pass
    are not made. Bags of one size that is known now are one reduction.
    """
    dtype = cx.out.dtype
    bags, width = cx.out.dims
    (count,) = indices.known_dims
    if mode not in (SUM, MEAN):
        cx.decline("the maxima of bags of embeddings: onnxruntime's ScatterElements loses NaN")
    if dtype not in (torch.float32, torch.float64):
        cx.decline(f"eager's sums of {dtype} embeddings are in a type of their own")
    if 0 in (bags, width, count):
        return cx.zeros(cx.out.dims, dtype), None, None, None
    if may_be_zero(count):
        cx.decline("bags of a data-dependent number of embeddings, which may be none")
    rows: Value = cx.op.Gather(weight, from_zero(cx, indices))
    rows.dims = (count, width)
    if per_sample_weights is not None:
        rows = cx.op.Mul(rows, cx.reshape(per_sample_weights, (count, 1)))
        rows.dims = (count, width)
    present: Value | None = None
    if padding_idx >= 0:
        left_out = cx.op.Equal(indices, cx.scalar(padding_idx, cx.dtype(indices)))
        present = cx.cast(cx.op.Not(left_out), dtype)
        present.dims = (count,)
        zero = cx.scalar(0, dtype)
        rows = cx.op.Where(cx.reshape(left_out, (count, 1)), zero, rows)
        rows.dims = (count, width)
    size = _common_size(cx, offsets, count, bags, include_last_offset)
    bag_of = _bag_of(cx, offsets, count, bags) if size is None else None
    total = _added(cx, rows, bag_of, size, bags)
    if mode == MEAN and present is None and size is not None:
        total = cx.op.Div(total, cx.scalar(max(size, 1), dtype))
    elif mode == MEAN:
        present = cx.ones((count,), dtype) if present is None else present
        sizes = _added(cx, cx.reshape(present, (count, 1)), bag_of, size, bags)
        total = cx.op.Div(total, cx.op.Max(sizes, cx.scalar(1, dtype)))
    return total, None, None, None


def _common_size(
    cx: Rule, offsets: Value, count: Dim, bags: Dim, include_last_offset: bool
) -> int | None:
    """The size of all bags, where it is one and known."""
    array = cx.builder.constant_array(offsets)
    if array is None or not isinstance(count, int) or not isinstance(bags, int):
        return None
    ends = [*array.tolist(), *([] if include_last_offset else [count])]
    sizes = set(np.diff(ends).tolist())
    return sizes.pop() if len(sizes) == 1 and ends[0] == 0 else None


def _bag_of(cx: Rule, offsets: Value, count: Dim, bags: Dim) -> Value:
    """int64 [N]: how many bags begin at or before each position, less one."""
    zero, one = (cx.scalar(v, torch.int64) for v in (0, 1))
    position = cx.op.Range(zero, cx.scalar(count, torch.int64), one)
    position.dims = (count,)
    starts = cx.slice(cx.cast(offsets, torch.int64), 0, 0, bags)
    begun = cx.op.LessOrEqual(cx.reshape(starts, (1, bags)), cx.reshape(position, (count, 1)))
    number = cx.op.ReduceSum(cx.cast(begun, torch.int64), cx.ints([1]), keepdims=0)
    number.dims = (count,)
    return cx.op.Sub(number, one)


def _added(cx: Rule, rows: Value, bag_of: Value | None, size: int | None, bags: Dim) -> Value:
    """rows [N, D] -> their sums over the bags [B, D]."""
    count, width = rows.known_dims
    if bag_of is None:
        assert size is not None
        total = cx.op.ReduceSum(cx.reshape(rows, (bags, size, width)), cx.ints([1]), keepdims=0)
    else:
        places = cx.expand(cx.reshape(bag_of, (count, 1)), rows.known_dims)
        nothing = cx.expand(cx.scalar(0, cx.dtype(rows)), (bags, width))
        total = cx.op.ScatterElements(nothing, places, rows, axis=0, reduction="add")
    total.dims = (bags, width)
    return total
