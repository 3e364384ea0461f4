"""Sums, means, products, extrema and what is built of them.

Three things ONNX Runtime's CPU reductions do otherwise than ATen, all measured on 1.32:
- int64 and int32 ReduceSum and ReduceProd go through float64 and saturate: sums are MatMul with
  ones where that could show, as integer MatMul is exact and wraps around;
- ReduceMax and ReduceMin lose a NaN that does not come first;
- the mean of nothing is 0.
Ref: https://onnx.ai/onnx/operators/onnx__ReduceSum.html,
onnxruntime/core/providers/cpu/reduction/reduction_ops.h
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ..dims import Dim, Dims, may_be_zero, numel
from ..dtypes import opmath
from ..registry import lowers
from ..rule import Rule, Scalar
from ..value import Value

aten = torch.ops.aten


# -------------------------------------------------------------------- sums and products
@lowers(aten.sum.default)
def sum_all(cx: Rule, self: Value, dtype: torch.dtype | None) -> Value:
    """self [*D] -> []; integers and bool add up in int64."""
    return total(cx, self, range(self.rank), False)


@lowers(aten.sum.dim_IntList)
def sum_dim(
    cx: Rule, self: Value, dim: Sequence[int] | None, keepdim: bool, dtype: torch.dtype | None
) -> Value:
    """self [*D] -> [*D without dim] (1 in its place with keepdim); dim = [] means all."""
    return total(cx, self, cx.axes(dim, self.rank), keepdim)


@lowers(aten.nansum.default)
def nansum(
    cx: Rule, self: Value, dim: Sequence[int] | None, keepdim: bool, dtype: torch.dtype | None
) -> Value:
    """sum with NaN counted as 0."""
    source = cx.cast(self, cx.out.dtype)
    if cx.out.dtype.is_floating_point:
        source = cx.op.Where(cx.op.IsNaN(source), cx.scalar(0, cx.out.dtype), source)
    return total(cx, source, cx.axes(dim, self.rank), keepdim)


@lowers(aten.count_nonzero.default)
def count_nonzero(cx: Rule, self: Value, dim: int | None) -> Value:
    """self [*D] -> int64 [*D without dim]; NaN is not zero."""
    return total(cx, cx.cast(self, torch.bool), cx.axes(dim, self.rank), False)


@lowers(aten.count_nonzero.dim_IntList)
def count_nonzero_dims(cx: Rule, self: Value, dim: Sequence[int]) -> Value:
    """self [*D] -> int64 [*D without dims]."""
    return total(cx, cx.cast(self, torch.bool), cx.axes(dim, self.rank), False)


@lowers(aten.trace.default)
def trace(cx: Rule, self: Value) -> Value:
    """self [M, N] -> [], the sum of the diagonal, which is gathered by a step of N + 1."""
    m, n = self.known_dims
    if not isinstance(m, int) or not isinstance(n, int):
        on = cx.op.Equal(cx.places(m, 2, 0), cx.places(n, 2, 1))
        return total(cx, cx.op.Where(on, self, cx.scalar(0, cx.dtype(self))), [0, 1], False)
    count = min(m, n)
    flat = cx.reshape(self, (m * n,))
    indices = cx.const([i * (n + 1) for i in range(count)], torch.int64)
    diagonal = cx.op.Gather(flat, indices)
    diagonal.dims = (count,)
    return total(cx, diagonal, [0], False)


@lowers(aten.prod.default)
def prod_all(cx: Rule, self: Value, dtype: torch.dtype | None) -> Value:
    """self [*D] -> []; integers and bool multiply in int64."""
    return _prod(cx, self, range(self.rank), False)


@lowers(aten.prod.dim_int)
def prod_dim(cx: Rule, self: Value, dim: int, keepdim: bool, dtype: torch.dtype | None) -> Value:
    """self [*D] -> [*D without dim]."""
    return _prod(cx, self, cx.axes(dim, self.rank), keepdim)


# -------------------------------------------------------------------- means and moments
@lowers(aten.mean.default)
def mean_all(cx: Rule, self: Value, dtype: torch.dtype | None) -> Value:
    """self [*D] -> []."""
    return _mean(cx, self, range(self.rank), False)


@lowers(aten.mean.dim)
def mean_dim(
    cx: Rule, self: Value, dim: Sequence[int] | None, keepdim: bool, dtype: torch.dtype | None
) -> Value:
    """self [*D] -> [*D without dim]; the mean of no elements is NaN."""
    return _mean(cx, self, cx.axes(dim, self.rank), keepdim)


@lowers(aten.var.correction)
def var(
    cx: Rule, self: Value, dim: Sequence[int] | None, correction: Scalar | None, keepdim: bool
) -> Value:
    """self [*D] -> [*D without dim], sum((x - mean)^2) / max(0, n - correction)."""
    return cx.cast(_moments(cx, self, dim, correction, keepdim)[0], cx.out.dtype)


@lowers(aten.var_mean.correction)
def var_mean(
    cx: Rule, self: Value, dim: Sequence[int] | None, correction: Scalar | None, keepdim: bool
) -> tuple[Value, Value]:
    """self [*D] -> variance, mean, both [*D without dim]."""
    variance, mean = _moments(cx, self, dim, correction, keepdim)
    return cx.cast(variance, cx.out.dtype), cx.cast(mean, cx.out.dtype)


@lowers(aten.std.correction)
def std(
    cx: Rule, self: Value, dim: Sequence[int] | None, correction: Scalar | None, keepdim: bool
) -> Value:
    """The square root of the variance."""
    variance, _ = _moments(cx, self, dim, correction, keepdim)
    return cx.cast(cx.op.Sqrt(variance), cx.out.dtype)


@lowers(aten.std_mean.correction)
def std_mean(
    cx: Rule, self: Value, dim: Sequence[int] | None, correction: Scalar | None, keepdim: bool
) -> tuple[Value, Value]:
    """The square root of the variance, and the mean."""
    variance, mean = _moments(cx, self, dim, correction, keepdim)
    return cx.cast(cx.op.Sqrt(variance), cx.out.dtype), cx.cast(mean, cx.out.dtype)


@lowers(aten.logsumexp.default)
def logsumexp(cx: Rule, self: Value, dim: Sequence[int], keepdim: bool) -> Value:
    """self [*D] -> [*D without dim], the maximum taken out first as in ATen.

    The logsumexp of nothing is -inf.
    Ref: https://onnx.ai/onnx/operators/onnx__ReduceLogSumExp.html
    """
    source = cx.cast(self, cx.out.dtype)
    axes = cx.axes(dim, self.rank)
    if nothing(cx, source, axes):
        return cx.full(cx.out.dims, -math.inf, cx.out.dtype)
    return reduce(cx, "ReduceLogSumExp", source, axes, keepdim)


# -------------------------------------------------------------------- the shared parts
def reduce(cx: Rule, op_type: str, value: Value, axes: Sequence[int], keepdim: bool) -> Value:
    """One ONNX reduction. All axes go without the axes input; no axes (rank 0) as well."""
    out: Value = getattr(cx.op, op_type)(
        value,
        None if len(axes) == value.rank else cx.ints(axes),
        keepdims=None if keepdim else 0,
    )
    out.dims = reduced_dims(value.known_dims, axes, keepdim)
    return out


def reduced_dims(dims: Dims, axes: Sequence[int], keepdim: bool) -> Dims:
    """The dims that a reduction leaves."""
    if keepdim:
        return tuple(1 if i in axes else d for i, d in enumerate(dims))
    return tuple(d for i, d in enumerate(dims) if i not in axes)


def total(cx: Rule, value: Value, axes: Sequence[int], keepdim: bool) -> Value:
    """The sum in the node's output dtype, exact for integers."""
    dtype = cx.out.dtype
    if dtype.is_floating_point:
        return reduce(cx, "ReduceSum", cx.cast(value, dtype), axes, keepdim)
    if dtype is torch.bool:
        return reduce(cx, "ReduceMax", cx.cast(value, torch.bool), axes, keepdim)
    wide = cx.cast(value, torch.int64)
    if not axes:
        return cx.op.Identity(cx.cast(wide, dtype))
    if _sum_is_small(cx, value, axes):
        return cx.cast(reduce(cx, "ReduceSum", wide, axes, keepdim), dtype)
    return cx.cast(_integer_sum(cx, wide, axes, keepdim), dtype)


def _sum_is_small(cx: Rule, value: Value, axes: Sequence[int]) -> bool:
    """Does every partial sum stay within float64's exact integers, 2**53?"""
    dtype = cx.dtype(value)
    if dtype is torch.int64 or dtype is torch.uint64:
        return False
    if dtype in (torch.int32, torch.uint32):
        count = numel(value.known_dims[a] for a in axes)
        return isinstance(count, int) and count <= 2**21
    return not dtype.is_floating_point  # 16 bits and less: 2**37 elements fit


def _integer_sum(cx: Rule, value: Value, axes: Sequence[int], keepdim: bool) -> Value:
    """int64 [*D] -> the sum over axes as a product with ones."""
    rank = value.rank
    kept = [a for a in range(rank) if a not in axes]
    lines = numel(value.known_dims[a] for a in kept)
    count = numel(value.known_dims[a] for a in axes)
    if list(axes) == list(range(len(axes))) and kept:
        flat = cx.reshape(value, (count, lines))
        out = cx.op.MatMul(cx.ones((1, count), torch.int64), flat)
        out.dims = (1, lines)
    else:
        flat = cx.reshape(cx.transpose(value, [*kept, *axes]), (lines, count))
        out = cx.op.MatMul(flat, cx.ones((count, 1), torch.int64))
        out.dims = (lines, 1)
    return cx.reshape(out, reduced_dims(value.known_dims, axes, keepdim))


def _prod(cx: Rule, self: Value, axes: Sequence[int], keepdim: bool) -> Value:
    dtype = cx.out.dtype
    if dtype.is_floating_point:
        return reduce(cx, "ReduceProd", cx.cast(self, dtype), axes, keepdim)
    if cx.dtype(self) is torch.bool or dtype is torch.bool:
        every = truth(cx, "ReduceMin", cx.cast(self, torch.bool), axes, keepdim)
        return cx.cast(every, dtype)
    return cx.cast(_integer_prod(cx, cx.cast(self, torch.int64), axes, keepdim), dtype)


def _integer_prod(cx: Rule, value: Value, axes: Sequence[int], keepdim: bool) -> Value:
    """int64: halves multiplied with halves; multiplication modulo 2**64 may go in any order."""
    dims = value.known_dims
    out = reduced_dims(dims, axes, keepdim)
    size = numel(dims[a] for a in axes)
    if not isinstance(size, int):
        cx.decline("an integer product over a symbolic size: ReduceProd goes through float64")
    if size == 0:
        return cx.ones(out, torch.int64)
    kept = [a for a in range(len(dims)) if a not in axes]
    moved = cx.transpose(value, [*axes, *kept])
    lines = numel(dims[a] for a in kept)
    rest = cx.reshape(moved, (size, lines))
    while size > 1:
        half = size // 2
        product = cx.op.Mul(cx.slice(rest, 0, 0, half), cx.slice(rest, 0, half, 2 * half))
        product.dims = (half, lines)
        if size % 2:
            odd = cx.slice(rest, 0, 2 * half, size)
            product = cx.op.Concat(product, odd, axis=0)
            product.dims = (half + 1, lines)
        rest, size = product, half + size % 2
    return cx.reshape(rest, out)


def _mean(cx: Rule, self: Value, axes: Sequence[int], keepdim: bool) -> Value:
    source = cx.cast(self, cx.out.dtype)
    sizes = [self.known_dims[a] for a in axes]
    if 0 in sizes:
        return cx.full(cx.out.dims, math.nan, cx.out.dtype)
    if not any(may_be_zero(s) for s in sizes):
        return reduce(cx, "ReduceMean", source, axes, keepdim)
    wide = opmath(cx.out.dtype)
    summed = reduce(cx, "ReduceSum", cx.cast(source, wide), axes, keepdim)
    return cx.cast(cx.op.Div(summed, cx.scalar(numel(sizes), wide)), cx.out.dtype)


def nothing(cx: Rule, value: Value, axes: Sequence[int]) -> bool:
    """Is the reduced range known to be empty? One that may turn out empty is declined."""
    sizes = [value.known_dims[a] for a in axes]
    if 0 in sizes:
        return True
    if any(may_be_zero(s) for s in sizes):
        cx.decline("a reduction over a data-dependent size, which may be empty")
    return False


def _moments(
    cx: Rule, self: Value, dim: Sequence[int] | None, correction: Scalar | None, keepdim: bool
) -> tuple[Value, Value]:
    """Variance and mean in the compute dtype, by two passes as exact as ATen's one (Welford)."""
    wide = opmath(cx.out.dtype)
    source = cx.cast(self, wide)
    axes = cx.axes(dim, self.rank)
    out = reduced_dims(self.known_dims, axes, keepdim)
    if nothing(cx, source, axes):
        nan = cx.full(out, math.nan, wide)
        return nan, nan
    mean = reduce(cx, "ReduceMean", source, axes, True)
    offset = cx.op.Sub(source, mean)
    freedom = _degrees_of_freedom(cx, self, axes, 1 if correction is None else correction)
    if freedom is None:
        variance = reduce(cx, "ReduceMean", cx.op.Mul(offset, offset), axes, keepdim)
    else:
        squares = reduce(cx, "ReduceSumSquare", offset, axes, keepdim)
        variance = cx.op.Div(squares, cx.cast(freedom, wide))
    return variance, cx.reshape(mean, out)


def _degrees_of_freedom(
    cx: Rule, self: Value, axes: Sequence[int], correction: Scalar
) -> Value | None:
    """max(0, n - correction) as a 0-d float64; None for n itself."""
    if correction == 0:
        return None
    count: Dim = numel(self.known_dims[a] for a in axes)
    if isinstance(count, int):
        return cx.scalar(max(0.0, count - float(correction)), torch.float64)
    left = cx.op.Sub(cx.scalar(count, torch.float64), cx.scalar(correction, torch.float64))
    return cx.op.Max(left, cx.scalar(0.0, torch.float64))


def truth(cx: Rule, op_type: str, value: Value, axes: Sequence[int], keepdim: bool) -> Value:
    """any (ReduceMax) or all (ReduceMin) of bool values; ONNX Runtime refuses empty ranges."""
    every = op_type == "ReduceMin"
    sizes = [value.known_dims[a] for a in axes]
    if 0 in sizes:
        return cx.full(reduced_dims(value.known_dims, axes, keepdim), every, torch.bool)
    if not any(may_be_zero(s) for s in sizes):
        return reduce(cx, op_type, value, axes, keepdim)
    hits = cx.cast(cx.op.Not(value) if every else value, torch.int64)
    counted = reduce(cx, "ReduceSum", hits, axes, keepdim)
    zero = cx.scalar(0, torch.int64)
    return cx.op.Equal(counted, zero) if every else cx.op.Greater(counted, zero)
