"""Putting tensors together and taking them apart: cat, stack, split, repeat, roll, flip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..dims import Dim, numel
from ..registry import lowers
from ..rule import Rule
from ..value import Value

aten = torch.ops.aten

INT64_MIN = -(1 << 63)


@lowers(aten.cat.default)
def cat(cx: Rule, tensors: Sequence[Value], dim: int) -> Value:
    """[*A, Di, *B]... -> [*A, sum(Di), *B] in the promoted dtype.

    torch skips 1-d tensors without elements whatever the rank of the others.
    Ref: https://onnx.ai/onnx/operators/onnx__Concat.html
    """
    rank = cx.out.rank
    kept = [v for v in tensors if v.dims != (0,) or rank == 1]
    joined = cx.promote(*kept)
    return joined[0] if len(joined) == 1 else cx.op.Concat(*joined, axis=cx.axis(dim, rank))


@lowers(aten.stack.default)
def stack(cx: Rule, tensors: Sequence[Value], dim: int) -> Value:
    """N of [*A, *B] -> [*A, N, *B] in the promoted dtype.

    Joined along the first dim of B and split again where B has one: a Concat and a Reshape.
    """
    values = cx.promote(*tensors)
    axis = cx.axis(dim, cx.out.rank)
    dims = values[0].known_dims
    if axis == len(dims):
        parts = [cx.unsqueeze(v, axis) for v in values]
        return parts[0] if len(parts) == 1 else cx.op.Concat(*parts, axis=axis)
    joined = values[0] if len(values) == 1 else cx.op.Concat(*values, axis=axis)
    joined.dims = (*dims[:axis], len(values) * dims[axis], *dims[axis + 1 :])
    return cx.reshape(joined, cx.out.dims)


@lowers(aten.split.Tensor, aten.split_copy.Tensor, aten.unsafe_split.Tensor)
def split(cx: Rule, self: Value, split_size: Dim, dim: int) -> tuple[Value, ...]:
    """self [*A, D, *B] -> ceil(D / split_size) of [*A, split_size, *B], then the rest."""
    return _split(cx, self, dim)


@lowers(
    aten.split_with_sizes.default,
    aten.split_with_sizes_copy.default,
    aten.unsafe_split_with_sizes.default,
)
def split_with_sizes(
    cx: Rule, self: Value, split_sizes: Sequence[Dim], dim: int
) -> tuple[Value, ...]:
    """self [*A, D, *B] -> [*A, split_sizes[0], *B], [*A, split_sizes[1], *B], ..."""
    return _split(cx, self, dim)


def _split(cx: Rule, value: Value, dim: int) -> tuple[Value, ...]:
    if len(cx.outs) == 1:
        return (value,)
    axis = cx.axis(dim, value.rank)
    sizes = cx.ints([out.dims[axis] for out in cx.outs])
    parts: tuple[Value, ...] = cx.op.Split(value, sizes, axis=axis, outputs=len(cx.outs))
    return parts


@lowers(aten.unbind.int, aten.unbind_copy.int)
def unbind(cx: Rule, self: Value, dim: int) -> tuple[Value, ...]:
    """self [*A, N, *B] -> N of [*A, *B]: each is one Gather, which drops the dim."""
    axis = cx.axis(dim, self.rank)
    if len(cx.outs) == 1:
        return (cx.reshape(self, cx.out.dims),)
    return tuple(
        cx.op.Gather(self, cx.const(i, torch.int64), axis=axis) for i in range(len(cx.outs))
    )


@lowers(aten.repeat.default)
def repeat(cx: Rule, self: Value, repeats: Sequence[Dim]) -> Value:
    """self [*D] -> [*repeats * D]; more repeats than dims put new dims in front.

    Where only dims of size 1 are repeated it is an Expand.
    Ref: https://onnx.ai/onnx/operators/onnx__Tile.html
    """
    dims = (*(1,) * (len(repeats) - self.rank), *self.known_dims)
    source = cx.reshape(self, dims)
    if all(r == 1 or d == 1 for d, r in zip(dims, repeats, strict=True)):
        return cx.expand(source, cx.out.dims)
    return cx.op.Tile(source, cx.ints(repeats))


@lowers(aten.repeat_interleave.Tensor)
def repeat_interleave(cx: Rule, repeats: Value, output_size: Dim | None) -> Value:
    """repeats [N] -> [sum(repeats)]: i stands there repeats[i] times.

    ONNX has no such operator. Position j holds the number of i whose repeats end at or before j:
    ones are added where each i ends, and summed up.
    """
    counts = cx.cast(repeats, torch.int64)
    zero = cx.const(0, torch.int64)
    ends = cx.op.CumSum(counts, zero)
    total = cx.op.ReduceSum(counts, cx.ints([0]), keepdims=1)
    slots = cx.op.Expand(zero, cx.op.Add(total, cx.const([1], torch.int64)))
    ones = cx.expand(cx.const([1], torch.int64), repeats.known_dims)
    steps = cx.op.ScatterElements(slots, ends, ones, axis=0, reduction="add")
    first = cx.op.Slice(cx.op.CumSum(steps, zero), cx.ints([0]), total)
    return cx.cast(first, cx.out.dtype)


@lowers(aten.roll.default)
def roll(cx: Rule, self: Value, shifts: Sequence[Dim], dims: Sequence[int]) -> Value:
    """self [*D] -> [*D], moved by shifts along dims and around; without dims, as if flat.

    One Gather per dim moves whole rows; elements of the last dim go by Split and Concat.
    """
    if 0 in self.known_dims or self.rank == 0:
        return self
    if dims:
        value, axes = self, [cx.axis(d, self.rank) for d in dims]
    else:
        value, axes = cx.reshape(self, (numel(self.known_dims),)), [0]
    for shift, axis in zip(shifts, axes, strict=True):
        value = _roll_axis(cx, value, shift, axis)
    return cx.reshape(value, cx.out.dims)


def _roll_axis(cx: Rule, value: Value, shift: Dim, axis: int) -> Value:
    dims = value.known_dims
    size = dims[axis]
    if not isinstance(size, int) or not isinstance(shift, int):
        count = cx.scalar(size, torch.int64)
        positions = cx.op.Range(cx.const(0, torch.int64), count, cx.const(1, torch.int64))
        moved = cx.op.Sub(positions, cx.scalar(shift, torch.int64))
        out = cx.op.Gather(value, cx.op.Mod(moved, count), axis=axis)
    elif shift % size == 0:
        return value
    elif numel(dims[axis + 1 :]) == 1:
        moved = shift % size
        head, tail = cx.op.Split(value, cx.ints([size - moved, moved]), axis=axis, outputs=2)
        out = cx.op.Concat(tail, head, axis=axis)
    else:
        order = (np.arange(size) - shift) % size
        out = cx.op.Gather(value, cx.const(order, torch.int64), axis=axis)
    out.dims = dims
    return out


@lowers(aten.flip.default)
def flip(cx: Rule, self: Value, dims: Sequence[int]) -> Value:
    """self [*D] -> [*D] with these dims in reverse."""
    return _flip(cx, self, dims)


def _flip(cx: Rule, value: Value, dims: Sequence[int]) -> Value:
    axes = [cx.axis(d, value.rank) for d in dims] if value.rank else []
    axes = [a for a in axes if value.known_dims[a] != 1]
    if not axes:
        return value
    count = len(axes)
    out: Value = cx.op.Slice(
        value,
        cx.ints([-1] * count),
        cx.ints([INT64_MIN] * count),
        cx.ints(axes),
        cx.ints([-1] * count),
    )
    out.dims = value.dims
    return out


@lowers(aten.rot90.default)
def rot90(cx: Rule, self: Value, k: int, dims: Sequence[int]) -> Value:
    """self [..., M, ..., N, ...] (dims) -> turned by k * 90 degrees towards dims[1]."""
    turns = k % 4
    if turns == 0:
        return self
    a, b = (cx.axis(d, self.rank) for d in dims)
    if turns == 2:
        return _flip(cx, self, (a, b))
    perm = list(range(self.rank))
    perm[a], perm[b] = b, a
    return cx.transpose(_flip(cx, self, (b,) if turns == 1 else (a,)), perm)
