"""Reading by position: slice, select, index, gather, embedding, masks.

An index beyond a dim raises in ONNX Runtime as it does in eager. A negative one counts from the
end in ONNX; so it does in ATen's index and take, while embedding, index_select and gather raise.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..dims import Dim, Dims, broadcast, numel
from ..registry import lowers
from ..rule import Rule
from ..value import Value

aten = torch.ops.aten

INT64_MAX = (1 << 63) - 1


# ---------------------------------------------------------------- slices
@lowers(aten.slice.Tensor, aten.slice_copy.Tensor)
def slice_(cx: Rule, self: Value, dim: int, start: Dim | None, end: Dim | None, step: Dim) -> Value:
    """self [*A, D, *B] -> [*A, ceil((end - start) / step), *B].

    Negative bounds count from the end and others are clamped to D, in ATen and in ONNX.
    Ref: https://onnx.ai/onnx/operators/onnx__Slice.html
    """
    axis = cx.axis(dim, self.rank)
    size = self.known_dims[axis]
    if cx.out.dims[axis] == size and step == 1:
        return self
    first = _bound(0 if start is None else start, size)
    last = _bound(INT64_MAX if end is None else end, size)
    return cx.op.Slice(self, cx.ints([first]), cx.ints([last]), cx.ints([axis]), cx.ints([step]))


def _bound(bound: Dim, size: Dim) -> Dim:
    """A slice's bound in 0..size where both are known: equal slices are then equal nodes."""
    if isinstance(bound, int) and isinstance(size, int):
        return min(max(bound + size if bound < 0 else bound, 0), size)
    return bound


@lowers(aten.narrow_copy.default)
def narrow_copy(cx: Rule, self: Value, dim: int, start: Dim, length: Dim) -> Value:
    """self [*A, D, *B] -> [*A, length, *B] from start on."""
    axis = cx.axis(dim, self.rank)
    if isinstance(start, int) and start < 0:
        start += self.known_dims[axis]
    return cx.slice(self, axis, start, start + length)


@lowers(aten.select.int, aten.select_copy.int)
def select(cx: Rule, self: Value, dim: int, index: Dim) -> Value:
    """self [*A, D, *B] -> [*A, *B]: a Gather with a 0-d index drops the dim."""
    axis = cx.axis(dim, self.rank)
    size = self.known_dims[axis]
    if size == 1:
        return cx.reshape(self, cx.out.dims)
    if isinstance(index, int) and isinstance(size, int):
        index %= size
    return cx.op.Gather(self, cx.scalar(index, torch.int64), axis=axis)


# ---------------------------------------------------------------- index
@lowers(aten.index.Tensor, aten._unsafe_index.Tensor)
def index(cx: Rule, self: Value, indices: Sequence[Value | None]) -> Value:
    """self [*D] indexed by tensors, one per dim from the front, None for a dim taken whole.

    The index tensors broadcast to [*I]. It stands where they stand, or in front if dims taken
    whole lie between them. One index is a Gather; indices that vary along different axes are a
    Gather each; others are a GatherND, which wants the indexed dims in front. A mask of rank K
    takes K dims, merged to one, and is a Compress.
    Ref: https://onnx.ai/onnx/operators/onnx__GatherND.html
    """
    given = {axis: i for axis, i in enumerate(indices) if i is not None}
    if not given:
        return self
    if any(cx.dtype(i) in (torch.bool, torch.uint8) for i in given.values()):
        return _index_by_mask(cx, self, given)
    if len(given) == 1:
        ((axis, one),) = given.items()
        return cx.op.Gather(self, index_type(cx, one), axis=axis)
    axes = list(given)
    tensors = [index_type(cx, i) for i in given.values()]
    shape = broadcast(*(i.known_dims for i in tensors))
    if shape is None:
        cx.decline("indices whose common shape depends on symbolic sizes")
    adjacent = axes == list(range(axes[0], axes[-1] + 1))
    position = axes[0] if adjacent else 0
    varying = [_varying(i.known_dims, len(shape)) for i in tensors]
    flat = [axis for group in varying for axis in group]
    if len(set(flat)) == len(flat):
        return _index_by_axes(cx, self, axes, tensors, varying, position)
    rest = [a for a in range(self.rank) if a not in axes]
    picked = cx.op.GatherND(cx.transpose(self, [*axes, *rest]), joint_index(cx, tensors, shape))
    dims = self.known_dims
    picked.dims = (*shape, *(dims[a] for a in rest))
    return move_block(cx, picked, 0, len(shape), position)


def index_type(cx: Rule, value: Value) -> Value:
    """Indices as int32 or int64, which is what ONNX takes."""
    return value if cx.dtype(value) in (torch.int32, torch.int64) else cx.cast(value, torch.int64)


# What these give is never negative, in any of their outputs.
_FROM_ZERO = frozenset({"ArgMax", "ArgMin", "NonZero", "Shape"})
_PASSED_ON = frozenset({"Expand", "Reshape", "Slice", "Transpose"})


def from_zero(cx: Rule, index: Value) -> Value:
    """Indices that eager refuses below 0, int32 or int64: beyond every dim where they are.

    ONNX counts negative ones from the end; beyond the dim it fails, and eager then raises its own
    error. Mod gives what is negative the divisor's sign: -1 becomes the greatest integer but one.
    Ref: https://onnx.ai/onnx/operators/onnx__Mod.html
    """
    index = index_type(cx, index)
    array, maker = cx.builder.constant_array(index), index.producer()
    while maker is not None and maker.op_type in _PASSED_ON:
        source = maker.inputs[0]
        maker = None if source is None else source.producer()
    known = array is not None and not (array < 0).any()
    if known or (maker is not None and maker.op_type in _FROM_ZERO):
        return index
    dtype = cx.dtype(index)
    wrapped: Value = cx.op.Mod(index, cx.scalar(torch.iinfo(dtype).max, dtype))
    wrapped.dims = index.dims
    return wrapped


def _varying(dims: Dims, rank: int) -> list[int]:
    """The axes of the broadcast shape along which an index of these dims is not constant."""
    return [rank - len(dims) + axis for axis, d in enumerate(dims) if d != 1]


def _index_by_axes(
    cx: Rule,
    value: Value,
    axes: list[int],
    tensors: list[Value],
    varying: list[list[int]],
    position: int,
) -> Value:
    """Each index varies along axes of its own: a Gather per index, in any order.

    Those that pick one element come first, so that the others move less.
    """
    dims = list(value.known_dims)
    blocks: list[Dims] = [(d,) for d in dims]
    groups: list[list[int]] = [[] for _ in dims]
    sizes: dict[int, Dim] = {}
    for axis, tensor, group in sorted(
        zip(axes, tensors, varying, strict=True), key=lambda each: bool(each[2])
    ):
        shape = tuple(d for d in tensor.known_dims if d != 1)
        at = sum(len(block) for block in blocks[:axis])
        value = cx.op.Gather(value, cx.reshape(tensor, shape), axis=at)
        blocks[axis], groups[axis] = shape, group
        value.dims = tuple(d for block in blocks for d in block)
        sizes.update(zip(group, shape, strict=True))
    # What came of the indices, in the order of the broadcast shape, moved to its position.
    where: dict[int, int] = {}
    whole: list[int] = []
    at = 0
    for axis, block in enumerate(blocks):
        if axis in axes:
            where.update(zip(groups[axis], range(at, at + len(block)), strict=True))
        else:
            whole.append(at)
        at += len(block)
    perm = [*whole[:position], *(where[a] for a in sorted(where)), *whole[position:]]
    return cx.reshape(cx.transpose(value, perm), cx.out.dims)


def joint_index(cx: Rule, tensors: Sequence[Value], shape: Dims) -> Value:
    """K index tensors -> int64 [*shape, K], as GatherND and ScatterND take it."""
    columns = [cx.reshape(cx.expand(cx.cast(t, torch.int64), shape), (*shape, 1)) for t in tensors]
    joint = columns[0] if len(columns) == 1 else cx.op.Concat(*columns, axis=-1)
    joint.dims = (*shape, len(columns))
    return joint


def move_block(cx: Rule, value: Value, start: int, length: int, position: int) -> Value:
    """Move the dims start .. start + length so that they begin at position."""
    block = list(range(start, start + length))
    rest = [a for a in range(value.rank) if a not in block]
    return cx.transpose(value, [*rest[:position], *block, *rest[position:]])


def _index_by_mask(cx: Rule, value: Value, given: dict[int, Value]) -> Value:
    if len(given) > 1:
        cx.decline("a mask beside another index: how many it picks is known at run time only")
    ((axis, mask),) = given.items()
    merged = merge_dims(cx, value, axis, mask.rank)
    return compress(cx, merged, mask, axis)


def merge_dims(cx: Rule, value: Value, axis: int, count: int) -> Value:
    """[*A, *C, *B] -> [*A, prod(C), *B] with `count` dims in C; none makes a dim of size 1."""
    dims = value.known_dims
    block = dims[axis : axis + count]
    return cx.reshape(value, (*dims[:axis], numel(block), *dims[axis + count :]))


def compress(cx: Rule, value: Value, mask: Value, axis: int) -> Value:
    """[*A, D, *B] -> [*A, N, *B]: where mask, of D elements in all, holds."""
    flat = cx.reshape(cx.cast(mask, torch.bool), (numel(mask.known_dims),))
    return cx.op.Compress(value, flat, axis=axis)


@lowers(aten.masked_select.default)
def masked_select(cx: Rule, self: Value, mask: Value) -> Value:
    """self [*A], mask [*B] -> [N], the elements of self [*broadcast] where mask holds."""
    shape = broadcast(self.known_dims, mask.known_dims)
    if shape is None:
        cx.decline("a mask whose shape depends on symbolic sizes")
    flat = cx.reshape(cx.expand(self, shape), (numel(shape),))
    return compress(cx, flat, cx.expand(mask, shape), 0)


@lowers(aten.nonzero.default)
def nonzero(cx: Rule, self: Value) -> Value:
    """self [*D] of rank K -> int64 [N, K] in row-major order.

    ONNX has it as [K, N], and of a 0-d tensor as [1, N], where ATen has [N, 0].
    Ref: https://onnx.ai/onnx/operators/onnx__NonZero.html
    """
    found: Value = cx.op.NonZero(cx.cast(at_least_1d(cx, self), torch.bool))
    count, rank = cx.out.dims
    found.dims = (self.rank or 1, count)
    return cx.slice(cx.transpose(found, (1, 0)), 1, 0, rank)


@lowers(aten.nonzero_static.default)
def nonzero_static(cx: Rule, self: Value, size: Dim, fill_value: int) -> Value:
    """self [*D] of rank K -> int64 [size, K], what nonzero gives, cut off or filled up."""
    if self.rank == 0:
        return cx.zeros(cx.out.dims, torch.int64)
    found = cx.op.Transpose(cx.op.NonZero(cx.cast(self, torch.bool)), perm=[1, 0])
    filled = cx.op.Pad(found, cx.ints([0, 0, size, 0]), cx.scalar(fill_value, torch.int64))
    return cx.op.Slice(filled, cx.ints([0]), cx.ints([size]), cx.ints([0]))


# ---------------------------------------------------------------- along one dim
@lowers(aten.index_select.default)
def index_select(cx: Rule, self: Value, dim: int, index: Value) -> Value:
    """self [*A, D, *B], index [N] or [] -> [*A, N, *B]."""
    index = from_zero(cx, index)
    if self.rank == 0:
        picked = cx.op.Gather(cx.reshape(self, (1,)), cx.reshape(index, (1,)), axis=0)
        picked.dims = (1,)
        return cx.reshape(picked, cx.out.dims)
    axis = cx.axis(dim, self.rank)
    row = index if index.rank == 1 else cx.reshape(index, (1,))
    return cx.op.Gather(self, row, axis=axis)


@lowers(aten.gather.default)
def gather(cx: Rule, self: Value, dim: int, index: Value, sparse_grad: bool) -> Value:
    """self [*D], index [*I] (I <= D but for dim) -> [*I].

    Ref: https://onnx.ai/onnx/operators/onnx__GatherElements.html
    """
    if 0 in cx.out.dims:
        return cx.zeros(cx.out.dims, cx.out.dtype)
    rank = max(self.rank, index.rank, 1)
    source, positions = at_least_1d(cx, self), at_least_1d(cx, from_zero(cx, index))
    picked = cx.op.GatherElements(source, positions, axis=cx.axis(dim, rank))
    picked.dims = positions.dims
    return cx.reshape(picked, cx.out.dims)


def at_least_1d(cx: Rule, value: Value) -> Value:
    """A 0-d value as [1]; ATen takes it as that where ONNX wants a dim."""
    return value if value.rank else cx.reshape(value, (1,))


@lowers(aten.take.default)
def take(cx: Rule, self: Value, index: Value) -> Value:
    """self [*D], index [*I] -> [*I], counting through self in row-major order."""
    return cx.op.Gather(cx.reshape(self, (numel(self.known_dims),)), index, axis=0)


@lowers(aten.embedding.default)
def embedding(
    cx: Rule,
    weight: Value,
    indices: Value,
    padding_idx: Dim,
    scale_grad_by_freq: bool,
    sparse: bool,
) -> Value:
    """weight [V, E], indices [*I] -> [*I, E]; the other arguments matter to gradients only.

    Ref: https://onnx.ai/onnx/operators/onnx__Gather.html
    """
    return cx.op.Gather(weight, from_zero(cx, indices), axis=0)
