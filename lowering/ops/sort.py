"""sort, topk, kthvalue, median, mode: all of them TopK.

ONNX Runtime's TopK counts NaN as the greatest value and puts equal values in index order, whatever
`largest` is: so it sorts as ATen's stable sort does, NaN included (measured on random rows with
ties, NaN and inf; the ONNX page leaves NaN open).
Ref: https://onnx.ai/onnx/operators/onnx__TopK.html
"""

from __future__ import annotations

import torch

from ..dims import Dim, numel
from ..registry import lowers
from ..rule import Rule
from ..value import Value
from .reduction import reduced_dims

aten = torch.ops.aten


@lowers(aten.sort.default)
def sort(cx: Rule, self: Value, dim: int, descending: bool) -> tuple[Value, Value]:
    """self [*D] -> values [*D], indices int64 [*D]. ATen's CPU sort is stable, as TopK is."""
    if not self.known_dims:
        return self, cx.zeros((), torch.int64)
    axis = cx.axis(dim, self.rank)
    return top_k(cx, self, self.known_dims[axis], axis, descending)


@lowers(aten.sort.stable)
def sort_stable(
    cx: Rule, self: Value, stable: bool | None, dim: int, descending: bool
) -> tuple[Value, Value]:
    """sort, in index order among equal values."""
    return sort(cx, self, dim, descending)


@lowers(aten.topk.default)
def topk(
    cx: Rule, self: Value, k: Dim, dim: int, largest: bool, sorted: bool
) -> tuple[Value, Value]:
    """self [*D] -> values, indices with k in place of D[dim], always sorted.

    Which of several equal values is chosen, and the order without `sorted`, ATen leaves open;
    here it is the order of the indices.
    """
    if not self.known_dims:
        if k == 0:
            cx.decline("topk of a 0-d tensor with k = 0")
        return self, cx.zeros((), torch.int64)
    return top_k(cx, self, k, cx.axis(dim, self.rank), largest)


@lowers(aten.kthvalue.default)
def kthvalue(cx: Rule, self: Value, k: Dim, dim: int, keepdim: bool) -> tuple[Value, Value]:
    """self [*D] -> the k-th smallest value along dim and its index; NaN counts as greatest.

    Which index of several equal values is returned, ATen leaves open.
    """
    if not self.known_dims:
        return self, cx.zeros((), torch.int64)
    values, indices = _kth(cx, self, cx.ints([k]), cx.axis(dim, self.rank))
    return cx.reshape(values, cx.outs[0].dims), cx.reshape(indices, cx.outs[1].dims)


@lowers(aten.median.dim)
def median_dim(cx: Rule, self: Value, dim: int, keepdim: bool) -> tuple[Value, Value]:
    """self [*D] -> the lower median along dim and its index; NaN wins.

    NaN sorts last, so a row with NaN shows it at its end: there the index of the first NaN is
    that of the greatest value.
    """
    if not self.known_dims:
        return self, cx.zeros((), torch.int64)
    values, indices = _median(cx, self, cx.axis(dim, self.rank))
    return cx.reshape(values, cx.outs[0].dims), cx.reshape(indices, cx.outs[1].dims)


@lowers(aten.median.default)
def median(cx: Rule, self: Value) -> Value:
    """self [*D] -> [], the lower median of all elements; NaN wins."""
    if 0 in self.known_dims:
        cx.decline("the median of no elements")
    flat = cx.reshape(self, (numel(self.known_dims),))
    return cx.reshape(_median(cx, flat, 0)[0], ())


@lowers(aten.nanmedian.dim)
def nanmedian_dim(cx: Rule, self: Value, dim: int, keepdim: bool) -> tuple[Value, Value]:
    """self [*D] -> the lower median of what is not NaN along dim, and its index; NaN of none."""
    if not cx.out.dtype.is_floating_point or not self.known_dims:
        return median_dim(cx, self, dim, keepdim)
    values, indices = _nanmedian(cx, self, cx.axis(dim, self.rank))
    return cx.reshape(values, cx.outs[0].dims), cx.reshape(indices, cx.outs[1].dims)


@lowers(aten.nanmedian.default)
def nanmedian(cx: Rule, self: Value) -> Value:
    """self [*D] -> [], the lower median of what is not NaN."""
    if not cx.out.dtype.is_floating_point or 0 in self.known_dims:
        return median(cx, self)
    flat = cx.reshape(self, (numel(self.known_dims),))
    return cx.reshape(_nanmedian(cx, flat, 0)[0], ())


def _nanmedian(cx: Rule, value: Value, axis: int) -> tuple[Value, Value]:
    """Sorted with NaN last, the element halfway through the numbers; dims kept."""
    values, indices = top_k(cx, value, value.known_dims[axis], axis, False)
    number = cx.cast(cx.op.Not(cx.op.IsNaN(values)), torch.int64)
    count = cx.op.ReduceSum(number, cx.ints([axis]))
    one, two, none = (cx.scalar(n, torch.int64) for n in (1, 2, 0))
    half = cx.op.Div(cx.op.Max(cx.op.Sub(count, one), none), two)
    found = [cx.op.GatherElements(v, half, axis=axis) for v in (values, indices)]
    found[0].dims = found[1].dims = (*value.known_dims[:axis], 1, *value.known_dims[axis + 1 :])
    return found[0], found[1]


def _median(cx: Rule, value: Value, axis: int) -> tuple[Value, Value]:
    """The lower median and its index, dims kept."""
    size = value.known_dims[axis]
    if isinstance(size, int):
        half = cx.ints([(size + 1) // 2])
    else:
        half = cx.op.Div(cx.ints([size + 1]), cx.ints([2]))
    values, indices = _kth(cx, value, half, axis)
    if not cx.dtype(value).is_floating_point:
        return values, indices
    top, where = top_k(cx, value, 1, axis, True)
    isnan = cx.op.IsNaN(top)
    return cx.op.Where(isnan, top, values), cx.op.Where(isnan, where, indices)


LONGEST_MODE = 256  # elements, each compared with each
IN_ORDER = 16  # up to here ATen's std::sort keeps equal elements in order


@lowers(aten.mode.default)
def mode(cx: Rule, self: Value, dim: int, keepdim: bool) -> tuple[Value, Value | None]:
    """self [*D] -> the most frequent values along dim, of several the least, and an index of each.

    The index is the last of the equal elements; in rows so long that ATen's sort does not keep
    their order, it leaves open which one it is. So it does with rows that hold NaN, which that sort
    compares as if they were numbers; here no NaN equals another, and NaN is the greatest.
    Ref: aten/src/ATen/native/cpu/TensorCompareKernel.cpp
    """
    if not self.known_dims:
        return cx.op.Identity(self), cx.zeros((), torch.int64)
    if 0 in self.known_dims:
        return cx.zeros(cx.outs[0].dims, cx.out.dtype), cx.zeros(cx.outs[1].dims, torch.int64)
    axis = cx.axis(dim, self.rank)
    size = self.known_dims[axis]
    if not isinstance(size, int) or size > LONGEST_MODE:
        cx.decline(f"the mode of {size} elements, each to be compared with each")
    others = tuple(a for a in range(self.rank) if a != axis)
    rows = cx.transpose(cx.cast(self, torch.uint8) if _is_bool(cx, self) else self, (*others, axis))
    last = self.rank - 1
    values, indices = top_k(cx, rows, size, last, largest=False)
    equal = cx.op.Equal(cx.unsqueeze(values, last + 1), cx.unsqueeze(values, last))
    counts = cx.op.ReduceSum(cx.cast(equal, torch.int64), cx.ints([last + 1]), keepdims=0)
    counts = cx.op.Max(counts, cx.scalar(1, torch.int64))
    counts.dims = values.known_dims
    first = cx.op.ArgMax(counts, axis=last)
    end = cx.op.Sub(
        cx.op.Add(first, cx.op.GatherElements(counts, first, axis=last)), cx.scalar(1, torch.int64)
    )
    kept = cx.axes(axis, self.rank)
    dims = reduced_dims(self.known_dims, kept, keepdim)
    value = cx.reshape(cx.op.GatherElements(values, first, axis=last), dims)
    index = cx.reshape(cx.op.GatherElements(indices, end, axis=last), dims)
    return cx.cast(value, cx.out.dtype), index if size <= IN_ORDER else None


def _is_bool(cx: Rule, value: Value) -> bool:
    return cx.dtype(value) is torch.bool


def top_k(cx: Rule, value: Value, k: Dim, axis: int, largest: bool) -> tuple[Value, Value]:
    """The k greatest (smallest) along an axis in order, and their indices; bool goes as uint8."""
    dtype = cx.dtype(value)
    source = cx.cast(value, torch.uint8) if dtype is torch.bool else value
    dims = value.known_dims
    values, indices = cx.op.TopK(
        source, cx.ints([k]), axis=axis, largest=None if largest else 0, outputs=2
    )
    values.dims = indices.dims = (*dims[:axis], k, *dims[axis + 1 :])
    return cx.cast(values, dtype), indices


def _kth(cx: Rule, value: Value, k: Value, axis: int) -> tuple[Value, Value]:
    """The k-th (int64 [1]) smallest and its index, dims kept: the last of the k smallest."""
    dtype = cx.dtype(value)
    source = cx.cast(value, torch.uint8) if dtype is torch.bool else value
    smallest = cx.op.TopK(source, k, axis=axis, largest=0, outputs=2)
    start, end, axes = cx.ints([-1]), cx.ints([torch.iinfo(torch.int64).max]), cx.ints([axis])
    values, indices = (cx.op.Slice(found, start, end, axes) for found in smallest)
    values.dims = indices.dims = (*value.known_dims[:axis], 1, *value.known_dims[axis + 1 :])
    return cx.cast(values, dtype), indices
