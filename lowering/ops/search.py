"""Where values stand among boundaries, and how many of each: searchsorted, histc, bincount, ..."""

from __future__ import annotations

import math

import torch

from ..dims import Dim, numel
from ..dtypes import opmath
from ..registry import lowers
from ..rule import Rule, Scalar
from ..value import Value
from ._approximation import number
from ._pointwise import static
from .index import from_zero

aten = torch.ops.aten


@lowers(aten.bucketize.Tensor)
def bucketize(cx: Rule, self: Value, boundaries: Value, out_int32: bool, right: bool) -> Value:
    """self [*D], boundaries [K] -> [*D], how many boundaries lie before each value."""
    return _search(cx, self, boundaries, right)


@lowers(aten.bucketize.Scalar)
def bucketize_scalar(
    cx: Rule, self: Scalar, boundaries: Value, out_int32: bool, right: bool
) -> Value:
    """A number, boundaries [K] -> [], how many boundaries lie before it."""
    return _search(cx, _number(cx, self, boundaries), boundaries, right)


@lowers(aten.searchsorted.Tensor)
def searchsorted(
    cx: Rule,
    sorted_sequence: Value,
    self: Value,
    out_int32: bool,
    right: bool,
    side: str | None,
    sorter: Value | None,
) -> Value:
    """sorted_sequence [*B, K] or [K], self [*B, N] -> [*B, N]: where to insert each."""
    sequence = _sorted(cx, sorted_sequence, sorter)
    return _search(cx, self, sequence, right or side == "right")


@lowers(aten.searchsorted.Scalar)
def searchsorted_scalar(
    cx: Rule,
    sorted_sequence: Value,
    self: Scalar,
    out_int32: bool,
    right: bool,
    side: str | None,
    sorter: Value | None,
) -> Value:
    """sorted_sequence [K], a number -> []: where to insert it."""
    sequence = _sorted(cx, sorted_sequence, sorter)
    return _search(cx, _number(cx, self, sequence), sequence, right or side == "right")


def _sorted(cx: Rule, sequence: Value, sorter: Value | None) -> Value:
    if sorter is None:
        return sequence
    ordered = cx.op.GatherElements(sequence, sorter, axis=-1)
    ordered.dims = sequence.dims
    return ordered


def _number(cx: Rule, number: Scalar, boundaries: Value) -> Value:
    """torch makes it a 0-d tensor of its own kind and compares in the promoted type."""
    floating = isinstance(number, float) and not cx.dtype(boundaries).is_floating_point
    return cx.scalar(number, torch.get_default_dtype() if floating else cx.dtype(boundaries))


def _search(cx: Rule, values: Value, boundaries: Value, right: bool) -> Value:
    """The first position whose boundary is >= (right: >) the value, or the number of boundaries.

    ATen's binary search, step by step for all values at once: so boundaries that are not in order,
    or hold NaN, give its answer too.
    Ref: aten/src/ATen/native/Bucketization.cpp
    """
    dims = values.known_dims
    *batch, count = boundaries.known_dims
    common = torch.promote_types(cx.dtype(values), cx.dtype(boundaries))
    each, fences = cx.cast(values, common), cx.cast(boundaries, common)
    beyond = cx.zeros((*batch, 1), common)  # a search that has ended may look one further
    fences = cx.op.Concat(fences, beyond, axis=-1)
    compare = cx.op.Greater if right else cx.op.GreaterOrEqual

    def step(_number: Value, more: Value, start: Value, end: Value) -> list[Value]:
        distance = cx.op.Sub(end, start)
        middle = cx.op.Add(start, cx.op.Div(distance, cx.scalar(2, torch.int64)))
        at = (
            cx.op.GatherElements(fences, middle, axis=-1)
            if batch
            else cx.op.Gather(fences, middle, axis=0)
        )
        at.dims = dims
        before = cx.op.Not(compare(at, each))
        searching = cx.op.Greater(distance, cx.scalar(0, torch.int64))
        up = cx.op.And(searching, before)
        after = cx.op.Add(middle, cx.scalar(1, torch.int64))
        return [more, cx.op.Where(up, after, start), cx.op.Where(before, end, middle)]

    start = [cx.zeros(dims, torch.int64), cx.full(dims, count, torch.int64)]
    _, found = cx.loop(_steps(cx, count), start, step)
    return cx.cast(found, cx.out.dtype)


def _steps(cx: Rule, count: Dim) -> Value:
    """int64 []: how often a range of this length can be halved (if symbolic, at least that)."""
    if isinstance(count, int):
        return cx.scalar(count.bit_length(), torch.int64)
    bits = cx.op.Div(cx.op.Log(cx.scalar(count + 1, torch.float64)), number(cx, math.log(2)))
    return cx.op.Add(cx.cast(cx.op.Ceil(bits), torch.int64), cx.scalar(1, torch.int64))


@lowers(aten.histc.default)
def histc(cx: Rule, self: Value, bins: Dim, min: Scalar, max: Scalar) -> Value:
    """self [*D] -> [bins], how many elements lie in each of as many equal parts of min..max.

    The part is floor((x - min) * bins / (max - min)) in self's dtype, as in ATen, and max belongs
    to the last; NaN and what lies outside go to one part more, which is dropped. ATen counts in
    self's dtype, where 16 bits come to an end.
    """
    if not isinstance(bins, int) or not static(min) or not static(max):
        cx.decline("histc with bins or bounds computed from sizes")
    if min == max:
        cx.decline("histc over the range of its elements, which raises unless that is finite")
    dtype, count = cx.out.dtype, numel(self.known_dims)
    wide = opmath(dtype)
    if wide is not dtype and (not isinstance(count, int) or count > 2 / torch.finfo(dtype).eps):
        cx.decline("histc in 16 bits of more elements than they count to")
    flat = cx.reshape(self, (count,))
    low, high = cx.scalar(min, dtype), cx.scalar(max, dtype)
    scaled = cx.op.Mul(cx.op.Sub(flat, low), cx.scalar(bins, dtype))
    part = cx.cast(cx.op.Div(scaled, cx.op.Sub(high, low)), torch.int64)
    part = cx.op.Min(part, cx.scalar(bins - 1, torch.int64))
    inside = cx.op.And(cx.op.GreaterOrEqual(flat, low), cx.op.LessOrEqual(flat, high))
    part = cx.op.Where(inside, part, cx.scalar(bins, torch.int64))
    ones = cx.expand(cx.scalar(1, wide), flat.known_dims)
    counted = cx.op.ScatterElements(
        cx.zeros((bins + 1,), wide), part, ones, axis=0, reduction="add"
    )
    counted.dims = (bins + 1,)
    return cx.cast(cx.slice(counted, 0, 0, bins), dtype)


@lowers(aten.bincount.default)
def bincount(cx: Rule, self: Value, weights: Value | None, minlength: Dim) -> Value:
    """self [N] of integers from 0 on -> how often each comes, or the sums of its weights [N].

    There are as many as the largest, and at least `minlength`.
    """
    x = cx.cast(self, torch.int64)
    one, last = cx.scalar(1, torch.int64), cx.const([-1], torch.int64)
    most = cx.op.ReduceMax(cx.op.Concat(x, last, axis=0), cx.ints([0]), keepdims=1)
    length = cx.op.Max(cx.op.Add(most, one), cx.ints([minlength]))
    dtype = cx.out.dtype
    nothing = cx.op.Expand(cx.scalar(0, dtype), length)
    each = cx.scalar(1, dtype) if weights is None else cx.cast(weights, dtype)
    each = cx.expand(each, self.known_dims)
    counted: Value = cx.op.ScatterElements(nothing, from_zero(cx, x), each, axis=0, reduction="add")
    counted.dims = cx.out.dims
    return counted
