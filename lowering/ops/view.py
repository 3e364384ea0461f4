"""Views: other dims, order or strides over the same elements. ONNX values have no strides.

A view of a view starts at the source of the first (`Builder.reshape`, `Builder.transpose`).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from ..dims import Dim, Dims, contiguous_strides, dims_of, numel, same_stride
from ..registry import lowers
from ..rule import Rule
from ..value import Value

aten = torch.ops.aten

Sizes: TypeAlias = tuple[int, ...]

MAX_FLAT_INDICES = 1 << 22  # of int64 in one constant: 32 MiB


@lowers(
    aten.view.default,
    aten.view_copy.default,
    aten._unsafe_view.default,
    aten._reshape_copy.default,
)
def view(cx: Rule, self: Value, size: Sequence[Dim]) -> Value:
    """self [*D] -> [*size] in row-major order; a -1 in size is known from the metadata."""
    return cx.reshape(self, cx.out.dims)


@lowers(aten.reshape.default)
def reshape(cx: Rule, self: Value, shape: Sequence[Dim]) -> Value:
    """self [*D] -> [*shape] in row-major order."""
    return cx.reshape(self, cx.out.dims)


@lowers(aten._reshape_alias.default, aten._reshape_alias_copy.default)
def reshape_alias(cx: Rule, self: Value, size: Sequence[Dim], stride: Sequence[Dim]) -> Value:
    """self [*D] -> [*size]; the strides say what reshape does by itself."""
    return cx.reshape(self, cx.out.dims)


@lowers(aten.view.dtype, aten.view_copy.dtype)
def view_dtype(cx: Rule, self: Value, dtype: torch.dtype) -> Value:
    """self [*D] -> the same bytes as dtype [*D].

    ONNX has BitCast from opset 26 only. Where both types are integers of one size, Cast keeps the
    bytes; from bool it does as well, as torch stores 0 and 1.
    Ref: https://onnx.ai/onnx/operators/onnx__BitCast.html
    """
    have = cx.dtype(self)
    if have is dtype:
        return self
    integers = not have.is_floating_point and not dtype.is_floating_point
    if not integers or have.itemsize != dtype.itemsize or dtype is torch.bool:
        cx.decline(f"the bytes of {have} read as {dtype}")
    return cx.cast(self, dtype)


@lowers(aten.permute.default, aten.permute_copy.default)
def permute(cx: Rule, self: Value, dims: Sequence[int]) -> Value:
    """self [D0, D1, ...] -> [D[dims[0]], D[dims[1]], ...]."""
    return cx.transpose(self, [cx.axis(d, self.rank) for d in dims])


@lowers(aten.t.default, aten.t_copy.default)
def t(cx: Rule, self: Value) -> Value:
    """self [M, N] -> [N, M]; fewer dims stay as they are."""
    return cx.transpose(self, (1, 0)) if self.rank == 2 else self


@lowers(aten.transpose.int, aten.transpose_copy.int)
def transpose(cx: Rule, self: Value, dim0: int, dim1: int) -> Value:
    """self [..., A, ..., B, ...] -> [..., B, ..., A, ...]."""
    if self.rank == 0:
        return self
    perm = list(range(self.rank))
    a, b = cx.axis(dim0, self.rank), cx.axis(dim1, self.rank)
    perm[a], perm[b] = perm[b], perm[a]
    return cx.transpose(self, perm)


@lowers(aten.expand.default, aten.expand_copy.default)
def expand(cx: Rule, self: Value, size: Sequence[Dim], implicit: bool) -> Value:
    """self [*D] -> [*size], where -1 keeps a dim and dims of size 1 are repeated."""
    return cx.expand(self, cx.out.dims)


@lowers(aten.unsqueeze.default, aten.unsqueeze_copy.default)
def unsqueeze(cx: Rule, self: Value, dim: int) -> Value:
    """self [*A, *B] -> [*A, 1, *B]."""
    return cx.reshape(self, cx.out.dims)


@lowers(aten.squeeze.default, aten.squeeze_copy.default)
def squeeze(cx: Rule, self: Value) -> Value:
    """self [*D] -> D without its dims of size 1."""
    return cx.reshape(self, cx.out.dims)


@lowers(
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.squeeze_copy.dim,
    aten.squeeze_copy.dims,
)
def squeeze_dims(cx: Rule, self: Value, dim: int | Sequence[int]) -> Value:
    """self [*D] -> D without these dims, as far as they are of size 1."""
    return cx.reshape(self, cx.out.dims)


@lowers(aten.diagonal.default, aten.diagonal_copy.default)
def diagonal(cx: Rule, self: Value, offset: int, dim1: int, dim2: int) -> Value:
    """self [*B, M, N] (dim1, dim2) -> [*B, K], the elements at [i, i + offset].

    ONNX has no diagonal: over [*B, M * N] it is every (N + 1)-th element.
    """
    flat, cols = flat_matrix(cx, self, dim1, dim2)
    out = cx.out.dims
    if out[-1] == 0:
        return cx.zeros(out, cx.out.dtype)
    start, end = diagonal_span(offset, cols, out[-1])
    axis = len(out) - 1
    return cx.op.Slice(flat, cx.ints([start]), cx.ints([end]), cx.ints([axis]), cx.ints([cols + 1]))


def flat_matrix(cx: Rule, value: Value, dim1: int, dim2: int) -> tuple[Value, Dim]:
    """[..., M, ..., N, ...] (dim1, dim2) -> [*B, M * N], and N."""
    a, b = cx.axis(dim1, value.rank), cx.axis(dim2, value.rank)
    batch = [i for i in range(value.rank) if i not in (a, b)]
    dims = value.known_dims
    moved = cx.transpose(value, [*batch, a, b])
    return cx.reshape(moved, (*(dims[i] for i in batch), dims[a] * dims[b])), dims[b]


def diagonal_span(offset: int, cols: Dim, count: Dim) -> tuple[Dim, Dim]:
    """Of a diagonal in the flattened matrix: its first element, and one past its last."""
    start = offset if offset >= 0 else -offset * cols
    return start, start + (count - 1) * (cols + 1) + 1


@lowers(aten.unfold.default, aten.unfold_copy.default)
def unfold(cx: Rule, self: Value, dimension: int, size: int, step: int) -> Value:
    """self [*A, D, *B] -> [*A, N, *B, size]: N windows over D, `step` apart.

    Windows side by side are a Reshape; others are taken by a Gather over D.
    """
    dims = self.known_dims or (1,)
    axis = cx.axis(dimension, len(dims))
    count = cx.out.dims[axis] if self.rank else 1
    source = cx.reshape(self, dims)
    windows = (*dims[:axis], count, size, *dims[axis + 1 :])
    if step == size:
        framed = cx.reshape(cx.slice(source, axis, 0, count * size), windows)
    else:
        framed = cx.op.Gather(source, _window_indices(cx, count, size, step), axis=axis)
        framed.dims = windows
    rank = len(windows)
    order = [i for i in range(rank) if i != axis + 1]
    out = cx.transpose(framed, [*order, axis + 1])
    return out if self.rank else cx.reshape(out, cx.out.dims)


def _window_indices(cx: Rule, count: Dim, size: int, step: int) -> Value:
    """int64 [count, size]: window i holds i * step ... i * step + size - 1."""
    within = np.arange(size)
    if isinstance(count, int):
        return cx.const(np.arange(count)[:, None] * step + within, torch.int64)
    limit = cx.scalar(count * step, torch.int64)
    starts = cx.op.Range(cx.const(0, torch.int64), limit, cx.const(step, torch.int64))
    starts.dims = (count,)
    return cx.op.Add(cx.reshape(starts, (count, 1)), cx.const(within, torch.int64))


@lowers(aten.as_strided.default, aten.as_strided_copy.default)
def as_strided(
    cx: Rule,
    self: Value,
    size: Sequence[Dim],
    stride: Sequence[Dim],
    storage_offset: Dim | None,
) -> Value:
    """self [*D] -> [*size], element [i, j, ...] at i * stride[0] + j * stride[1] + ... in storage.

    ATen reads the storage of self, so its own strides (from the metadata) count: they must be
    dense, in any order, and the elements must lie within self. Then the result is a reshape, a
    permutation or a slice of the flat elements, or a Gather.
    """
    base = cx.fake(0)
    dims, strides = dims_of(base.shape), dims_of(base.stride())
    origin = dims_of([base.storage_offset()])[0]
    start = 0 if storage_offset is None else storage_offset - origin
    out = cx.out.dims
    if start == 0 and _relevant(out, stride) == _relevant(dims, strides):
        return cx.reshape(self, out)
    if (
        start == 0
        and numel(out) == numel(dims)
        and _contiguous(dims, strides)
        and _contiguous(out, stride)
    ):
        return cx.reshape(self, out)
    symbolic = "as_strided with symbolic sizes or strides"
    (offset,) = cx.static((start,), symbolic)
    steps = cx.static(tuple(stride), symbolic)
    return _strided(
        cx,
        self,
        cx.static(dims, symbolic),
        cx.static(strides, symbolic),
        cx.static(out, symbolic),
        steps,
        offset,
    )


@lowers(aten.as_strided_scatter.default)
def as_strided_scatter(
    cx: Rule,
    self: Value,
    src: Value,
    size: Sequence[Dim],
    stride: Sequence[Dim],
    storage_offset: Dim | None,
) -> Value:
    """self [*D] with src [*size] written where as_strided would read it."""
    base = cx.fake(0)
    symbolic = "as_strided_scatter with symbolic sizes or strides"
    origin, start = cx.static(
        (dims_of([base.storage_offset()])[0], 0 if storage_offset is None else storage_offset),
        symbolic,
    )
    if storage_offset is None:
        start = origin
    dims, strides, out, steps = (
        cx.static(tuple(sizes), symbolic)
        for sizes in (dims_of(base.shape), dims_of(base.stride()), size, stride)
    )
    if 0 in out:
        return self
    order = _storage_order(dims, strides)
    indices = _flat_indices(cx, out, steps, start - origin)
    if order is None or indices.min() < 0 or indices.max() >= prod(dims):
        cx.decline("as_strided_scatter reaches beyond the elements of its operand")
    if len(np.unique(indices)) != indices.size:
        cx.decline("as_strided_scatter to elements that share memory")
    moved = cx.transpose(self, order)
    flat = cx.reshape(moved, (prod(dims),))
    values = cx.reshape(cx.cast(src, cx.out.dtype), (indices.size,))
    places = cx.const(indices.reshape(-1), torch.int64)
    written = cx.op.ScatterElements(flat, places, values, axis=0)
    written.dims = flat.dims
    shaped = cx.reshape(written, tuple(dims[axis] for axis in order))
    return cx.transpose(shaped, [order.index(axis) for axis in range(len(order))])


def _flat_indices(cx: Rule, dims: Sizes, stride: Sizes, start: int) -> npt.NDArray[np.int64]:
    """Where the elements of a strided view lie in storage."""
    if prod(dims) > MAX_FLAT_INDICES:
        cx.decline(f"as_strided takes {prod(dims)} elements one by one")
    indices = np.full(dims, start, dtype=np.int64)
    for axis, step in enumerate(stride):
        shape = [1] * len(dims)
        shape[axis] = dims[axis]
        indices += np.arange(dims[axis]).reshape(shape) * step
    return indices


def _strided(
    cx: Rule,
    value: Value,
    dims: Sizes,
    strides: Sizes,
    out: Sizes,
    stride: Sizes,
    start: int,
) -> Value:
    """The general case, all of it static: over the elements in the order they are stored."""
    if 0 in out:
        return cx.zeros(out, cx.out.dtype)
    order = _storage_order(dims, strides)
    last = start + sum((d - 1) * s for d, s in zip(out, stride, strict=True))
    if order is None or start < 0 or last >= prod(dims):
        cx.decline("as_strided reaches beyond the elements of its operand")
    flat = cx.reshape(cx.transpose(value, order), (prod(dims),))
    # Repeated dims (stride 0) are expanded at the end.
    inner = tuple(1 if s == 0 else d for d, s in zip(out, stride, strict=True))
    wanted = _storage_order(inner, stride)
    if wanted is not None:
        part = cx.slice(flat, 0, start, start + prod(inner))
        ordered = cx.reshape(part, tuple(inner[axis] for axis in wanted))
        inverse = [wanted.index(axis) for axis in range(len(wanted))]
        return cx.expand(cx.transpose(ordered, inverse), out)
    indices = _flat_indices(cx, inner, stride, start)
    taken = cx.op.Gather(flat, cx.const(indices, torch.int64), axis=0)
    taken.dims = inner
    return cx.expand(taken, out)


def _relevant(dims: Sequence[Dim], strides: Sequence[Dim]) -> list[tuple[Dim, Dim]]:
    """(size, stride) of the dims where the stride matters."""
    return [(d, s) for d, s in zip(dims, strides, strict=True) if d != 1]


def _contiguous(dims: Dims, strides: Sequence[Dim]) -> bool:
    """Are the elements stored densely in row-major order?"""
    relevant = _relevant(dims, strides)
    expected = contiguous_strides([size for size, _ in relevant])
    return all(same_stride(s, want) for (_, s), want in zip(relevant, expected, strict=True))


def _storage_order(dims: Sizes, strides: Sizes) -> list[int] | None:
    """The axes from outermost to innermost in storage; None if they leave gaps or overlap."""
    order = sorted(range(len(dims)), key=lambda axis: (dims[axis] != 1, -strides[axis]))
    ordered = tuple(dims[axis] for axis in order)
    return order if _contiguous(ordered, [strides[axis] for axis in order]) else None
