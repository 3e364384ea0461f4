"""Writing by position: index_put, scatter, index_add and their kin, masked and sliced writes.

ONNX Runtime's ScatterND adds up duplicates from several threads at once and loses some, so every
write that accumulates is a ScatterElements, which is sequential. Where an index is written twice
without accumulation, which write remains is undefined in ATen as well.
Ref: https://onnx.ai/onnx/operators/onnx__ScatterND.html
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .. import dtypes
from ..dims import Dim, Dims, broadcast, numel
from ..registry import lowers
from ..rule import Rule, Scalar
from ..value import Value
from ._pointwise import choose
from .index import at_least_1d, from_zero, index_type, joint_index, move_block

aten = torch.ops.aten

ARANGE_LIMIT = 4096  # longer ranges are computed rather than stored


# ---------------------------------------------------------------- index_put
@lowers(aten.index_put.default, aten._unsafe_index_put.default)
def index_put(
    cx: Rule, self: Value, indices: Sequence[Value | None], values: Value, accumulate: bool
) -> Value:
    """self [*D] with values written (or added) where index would read them."""
    given = {axis: i for axis, i in enumerate(indices) if i is not None}
    values = cx.cast(values, cx.out.dtype)
    if accumulate and cx.out.dtype is torch.bool:
        cx.decline("bools that accumulate")
    if any(cx.dtype(i) in (torch.bool, torch.uint8) for i in given.values()):
        return _put_by_mask(cx, self, given, values, accumulate)
    axes = list(given)
    tensors = [index_type(cx, i) for i in given.values()]
    shape = broadcast(*(i.known_dims for i in tensors))
    if shape is None:
        cx.decline("indices whose common shape depends on symbolic sizes")
    if accumulate:
        _decline_stepwise_rounding(cx, numel(shape))
    elif len(axes) == 1 and axes[0] > 0 and len(shape) == 1:
        # ScatterND writes at the leading dims: all of the target would be transposed, twice.
        (axis,), (index,) = axes, tensors
        rows = (*self.known_dims[:axis], *shape, *self.known_dims[axis + 1 :])
        return _scatter_slices(cx, self, axis, index, cx.expand(values, rows), "none")
    rest = [a for a in range(self.rank) if a not in axes]
    others = [self.known_dims[a] for a in rest]
    position = axes[0] if axes == list(range(axes[0], axes[-1] + 1)) else 0
    picked = (*others[:position], *shape, *others[position:])
    updates = move_block(cx, cx.expand(values, picked), position, len(shape), 0)
    perm = [*axes, *rest]
    target = cx.transpose(self, perm)
    if accumulate:
        written = _accumulate_rows(cx, target, tensors, shape, updates)
    else:
        written = cx.op.ScatterND(target, joint_index(cx, tensors, shape), updates)
    written.dims = target.dims
    return cx.transpose(written, [perm.index(a) for a in range(len(perm))])


def _accumulate_rows(
    cx: Rule, target: Value, tensors: Sequence[Value], shape: Dims, updates: Value
) -> Value:
    """target [*P, *R] += updates [*I, *R] at tensors of [*I], one per dim of P."""
    dims = target.known_dims
    indexed, others = dims[: len(tensors)], dims[len(tensors) :]
    rows, width, count = numel(indexed), numel(others), numel(shape)
    linear = cx.expand(_linear_index(cx, tensors, indexed), shape)
    index = cx.expand(cx.reshape(linear, (count, 1)), (count, width))
    added = _scatter(
        cx,
        cx.reshape(target, (rows, width)),
        index,
        cx.reshape(updates, (count, width)),
        axis=0,
        reduction="add",
    )
    added.dims = (rows, width)
    return cx.reshape(added, dims)


def _linear_index(cx: Rule, tensors: Sequence[Value], sizes: Dims) -> Value:
    """Index tensors over dims of these sizes -> one index over all of them, row-major.

    Each is looked up in the multiples of its stride: that maps negative ones, and raises for one
    that is out of range, which would otherwise reach into the next row.
    """
    if len(tensors) == 1:
        return tensors[0]
    terms: list[Value] = []
    for axis, tensor in enumerate(tensors):
        table = _multiples(cx, sizes[axis], numel(sizes[axis + 1 :]))
        term = cx.op.Gather(table, tensor, axis=0)
        term.dims = tensor.dims
        terms.append(term)
    total = terms[0]
    for term in terms[1:]:
        total = cx.op.Add(total, term)
    return total


def _multiples(cx: Rule, count: Dim, step: Dim) -> Value:
    """int64 [count]: 0, step, 2 * step, ..."""
    if isinstance(count, int) and isinstance(step, int) and count <= ARANGE_LIMIT:
        return cx.const(np.arange(count) * step, torch.int64)
    limit, stride = cx.scalar(count * step, torch.int64), cx.scalar(step, torch.int64)
    return cx.op.Range(cx.const(0, torch.int64), limit, stride)


def _put_by_mask(
    cx: Rule, target: Value, given: dict[int, Value], values: Value, accumulate: bool
) -> Value:
    """Values that are the same for every place are a Where; others go where the mask holds."""
    if len(given) > 1:
        cx.decline("a mask beside another index: how many it picks is known at run time only")
    ((axis, mask),) = given.items()
    mask = cx.cast(mask, torch.bool)
    behind = target.rank - axis - mask.rank
    dims = values.known_dims
    at = values.rank - behind - 1  # the dim of values that counts places
    if at < 0 or dims[at] == 1:
        if at >= 0:
            values = cx.reshape(values, (*dims[:at], *(1,) * mask.rank, *dims[at + 1 :]))
        fill = cx.op.Add(target, values) if accumulate else values
        here = cx.reshape(mask, (*mask.known_dims, *(1,) * behind))
        return choose(cx, here, fill, target)
    if axis > 0:
        cx.decline("values for each place that a mask of inner dims picks")
    places = cx.op.Transpose(cx.op.NonZero(mask), perm=[1, 0])
    updates = cx.expand(values, (dims[0], *target.known_dims[mask.rank :]))
    if accumulate:
        # Each place comes once: nothing is lost.
        updates = cx.op.Add(cx.op.GatherND(target, places), updates)
    return cx.op.ScatterND(target, places, updates)


@lowers(aten.put.default)
def put(cx: Rule, self: Value, index: Value, source: Value, accumulate: bool) -> Value:
    """self [*D] with source [*I] written (or added) at index [*I], counted in row-major order."""
    if accumulate and cx.out.dtype is torch.bool:
        cx.decline("bools that accumulate")
    count = (numel(index.known_dims),)
    if count == (0,):
        return self
    if accumulate:
        _decline_stepwise_rounding(cx, *count)
    written = _scatter(
        cx,
        cx.reshape(self, (numel(self.known_dims),)),
        cx.reshape(index, count),
        cx.reshape(source, count),
        axis=0,
        reduction="add" if accumulate else "none",
    )
    return cx.reshape(written, cx.out.dims)


# ---------------------------------------------------------------- scatter
@lowers(aten.scatter.src)
def scatter(cx: Rule, self: Value, dim: int, index: Value, src: Value) -> Value:
    """self [*D] with src written at index [*I] along dim; src may be longer than index.

    ONNX wants src as long as index.
    Ref: https://onnx.ai/onnx/operators/onnx__ScatterElements.html
    """
    return _scatter_along(cx, self, dim, index, src, "none")


@lowers(aten.scatter.value)
def scatter_value(cx: Rule, self: Value, dim: int, index: Value, value: Scalar) -> Value:
    """self [*D] with a number written at index [*I] along dim."""
    src = cx.expand(cx.scalar(value, cx.out.dtype), index.known_dims)
    return _scatter_along(cx, self, dim, index, src, "none")


@lowers(aten.scatter.reduce)
def scatter_with(cx: Rule, self: Value, dim: int, index: Value, src: Value, reduce: str) -> Value:
    """self [*D] with src added or multiplied in ("add", "multiply") at index [*I] along dim."""
    return _scatter_along(cx, self, dim, index, src, _REDUCTIONS[reduce])


@lowers(aten.scatter.value_reduce)
def scatter_value_with(
    cx: Rule, self: Value, dim: int, index: Value, value: Scalar, reduce: str
) -> Value:
    """self [*D] with a number added or multiplied in at index [*I] along dim."""
    src = cx.expand(cx.scalar(value, cx.out.dtype), index.known_dims)
    return _scatter_along(cx, self, dim, index, src, _REDUCTIONS[reduce])


@lowers(aten.scatter_add.default)
def scatter_add(cx: Rule, self: Value, dim: int, index: Value, src: Value) -> Value:
    """self [*D] with src added at index [*I] along dim; bools are or-ed."""
    return _scatter_along(cx, self, dim, index, src, "add")


_REDUCTIONS = {
    "add": "add",
    "multiply": "mul",
    "sum": "add",
    "prod": "mul",
    "amax": "max",
    "amin": "min",
    "mean": "mean",
}


@lowers(aten.scatter_reduce.two)
def scatter_reduce(
    cx: Rule, self: Value, dim: int, index: Value, src: Value, reduce: str, include_self: bool
) -> Value:
    """self [*D] with src reduced into it at index [*I] along dim ("sum", "prod", "mean", ...).

    Without include_self, what self holds in places that src reaches does not count.
    """
    return _scatter_along(cx, self, dim, index, src, _REDUCTIONS[reduce], include_self=include_self)


def _scatter_along(
    cx: Rule,
    target: Value,
    dim: int,
    index: Value,
    src: Value,
    reduction: str,
    *,
    include_self: bool = True,
) -> Value:
    if 0 in index.known_dims:
        return target
    data, positions, updates = (at_least_1d(cx, v) for v in (target, from_zero(cx, index), src))
    axis = cx.axis(dim, data.rank)
    wanted = positions.known_dims
    if updates.dims != wanted:
        none = cx.ints([0] * len(wanted))
        updates = cx.op.Slice(updates, none, cx.ints(wanted))
        updates.dims = wanted
    written = _reduce_into(cx, data, positions, updates, axis, reduction, include_self)
    written.dims = data.dims
    return cx.reshape(written, cx.out.dims)


def _reduce_into(
    cx: Rule,
    data: Value,
    index: Value,
    updates: Value,
    axis: int,
    reduction: str,
    include_self: bool,
) -> Value:
    """data with updates (of index's dims) reduced into it along axis."""
    dtype = cx.dtype(data)
    if reduction == "mean":
        return _mean_into(cx, data, index, updates, axis, include_self)
    if not include_self:
        start = cx.expand(cx.scalar(_identity(reduction, dtype), dtype), index.known_dims)
        data = _scatter(cx, data, index, start, axis)
    written = _scatter(cx, data, index, updates, axis, reduction)
    if reduction not in ("max", "min") or not dtype.is_floating_point:
        return written
    # NaN wins in ATen, and loses to whatever comes next in ONNX Runtime.
    tainted = _scatter(
        cx,
        cx.cast(cx.op.IsNaN(data), torch.int32),
        index,
        cx.cast(cx.op.IsNaN(updates), torch.int32),
        axis,
        "max",
    )
    nan = cx.scalar(float("nan"), dtype)
    return cx.op.Where(cx.cast(tainted, torch.bool), nan, written)


def _mean_into(
    cx: Rule, data: Value, index: Value, updates: Value, axis: int, include_self: bool
) -> Value:
    """Sum and count; integers are divided towards minus infinity, as ATen does."""
    dtype = cx.dtype(data)
    wide = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
    data, updates = cx.cast(data, wide), cx.cast(updates, wide)
    total = _reduce_into(cx, data, index, updates, axis, "add", include_self)
    one = cx.const(1, wide)
    ones = cx.expand(one, data.known_dims)
    start = ones if include_self else cx.expand(cx.const(0, wide), data.known_dims)
    count = _scatter(cx, start, index, cx.expand(one, index.known_dims), axis, "add")
    if not include_self:
        count = cx.op.Max(count, one)
    if wide.is_floating_point:
        return cx.cast(cx.op.Div(total, count), dtype)
    rest = cx.op.Mod(total, count)  # of the divisor's sign
    return cx.op.Div(cx.op.Sub(total, rest), count)


def _identity(reduction: str, dtype: torch.dtype) -> float | int:
    if reduction in ("add", "mul"):
        return int(reduction == "mul")
    largest = reduction == "min"
    if dtype.is_floating_point:
        return float("inf") if largest else float("-inf")
    if dtype is torch.bool:
        return int(largest)
    return dtypes.highest(dtype) if largest else dtypes.lowest(dtype)


def _scatter(
    cx: Rule, data: Value, index: Value, updates: Value, axis: int, reduction: str = "none"
) -> Value:
    """ScatterElements; with a reduction, 16-bit floats in float32 and bools as integers."""
    dtype = cx.dtype(data)
    wide = dtype
    if reduction != "none":
        wide = _REDUCED_IN.get(dtype, dtype)
    written = cx.op.ScatterElements(
        cx.cast(data, wide),
        index_type(cx, index),
        cx.cast(updates, wide),
        axis=axis,
        reduction=None if reduction == "none" else reduction,
    )
    written.dims = data.dims
    return cx.cast(written, dtype)


def _decline_stepwise_rounding(cx: Rule, count: Dim) -> None:
    """For writes whose sums eager keeps in 16 bits; scatter_add and others round once, as we do."""
    if cx.out.dtype in _REDUCED_IN and cx.out.dtype.is_floating_point and count != 1:
        cx.decline("16-bit floats that accumulate: eager rounds after each of several steps")


_REDUCED_IN = {
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
    torch.bool: torch.int32,
}


# ---------------------------------------------------------------- whole slices at an index
@lowers(aten.index_add.default)
def index_add(cx: Rule, self: Value, dim: int, index: Value, source: Value, alpha: Scalar) -> Value:
    """self [*A, D, *B] with alpha * source [*A, N, *B] added at index [N] along dim."""
    if alpha != 1:
        wide = _REDUCED_IN.get(cx.out.dtype, cx.out.dtype)
        source = cx.op.Mul(cx.cast(source, wide), cx.scalar(alpha, wide))
        source = cx.cast(source, cx.out.dtype)
    if self.rank < 2:
        _decline_stepwise_rounding(cx, numel(index.known_dims))
    return _scatter_slices(cx, self, dim, from_zero(cx, index), source, "add")


@lowers(aten.index_copy.default)
def index_copy(cx: Rule, self: Value, dim: int, index: Value, source: Value) -> Value:
    """self [*A, D, *B] with source [*A, N, *B] written at index [N] along dim."""
    return _scatter_slices(cx, self, dim, from_zero(cx, index), source, "none")


@lowers(aten.index_fill.int_Scalar, aten.index_fill.int_Tensor)
def index_fill(cx: Rule, self: Value, dim: int, index: Value, value: Value | Scalar) -> Value:
    """self [*A, D, *B] with one number written at index [N], which may be negative, along dim."""
    dims = at_least_1d(cx, self).known_dims
    axis = cx.axis(dim, len(dims))
    source = (*dims[:axis], numel(index.known_dims), *dims[axis + 1 :])
    fill = cx.expand(cx.as_value(value, cx.out.dtype), source)
    return _scatter_slices(cx, self, dim, index, fill, "none")


@lowers(aten.index_reduce.default)
def index_reduce(
    cx: Rule, self: Value, dim: int, index: Value, source: Value, reduce: str, include_self: bool
) -> Value:
    """self [*A, D, *B] with source [*A, N, *B] reduced into it at index [N] along dim."""
    reduction = _REDUCTIONS[reduce]
    if reduction in ("mean", "mul"):
        _decline_stepwise_rounding(cx, numel(index.known_dims))
    index = from_zero(cx, index)
    return _scatter_slices(cx, self, dim, index, source, reduction, include_self=include_self)


def _scatter_slices(
    cx: Rule,
    target: Value,
    dim: int,
    index: Value,
    source: Value,
    reduction: str,
    *,
    include_self: bool = True,
) -> Value:
    """Rows of the first dim are written whole (ScatterND); otherwise element by element."""
    if 0 in source.known_dims or 0 in index.known_dims:
        return target
    data, updates = at_least_1d(cx, target), at_least_1d(cx, source)
    axis = cx.axis(dim, data.rank)
    count = numel(index.known_dims)
    if reduction == "none" and axis == 0 and data.rank > 1:
        rows = cx.reshape(cx.cast(index, torch.int64), (count, 1))
        return cx.op.ScatterND(data, rows, updates)
    column = tuple(count if a == axis else 1 for a in range(data.rank))
    positions = cx.expand(cx.reshape(index, column), updates.known_dims)
    written = _reduce_into(cx, data, positions, updates, axis, reduction, include_self)
    written.dims = data.dims
    return cx.reshape(written, cx.out.dims)


@lowers(aten.embedding_dense_backward.default)
def embedding_dense_backward(
    cx: Rule,
    grad_output: Value,
    indices: Value,
    num_weights: Dim,
    padding_idx: Dim,
    scale_grad_by_freq: bool,
) -> Value:
    """grad [*I, E], indices [*I] -> [num_weights, E]: the sum of grad per index, but padding's."""
    if scale_grad_by_freq:
        cx.decline("gradients divided by how often an index occurs")
    count, width = numel(indices.known_dims), grad_output.known_dims[-1]
    _decline_stepwise_rounding(cx, count)
    grad = cx.reshape(grad_output, (count, width))
    rows = cx.reshape(cx.cast(indices, torch.int64), (count, 1))
    if not isinstance(padding_idx, int) or padding_idx >= 0:
        padding = cx.op.Equal(rows, cx.scalar(padding_idx, torch.int64))
        grad = cx.op.Where(padding, cx.scalar(0, cx.out.dtype), grad)
    zeros = cx.zeros((num_weights, width), cx.out.dtype)
    return _scatter(cx, zeros, cx.expand(rows, (count, width)), grad, 0, "add")
