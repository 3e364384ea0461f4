"""Padding: with a number, by reflection, by repeating the edge, and around a diagonal."""

from __future__ import annotations

from collections.abc import Sequence

import sympy
import torch

from ..dims import Dim, Dims, simplify
from ..registry import lowers
from ..rule import Rule, Scalar
from ..value import Value

aten = torch.ops.aten


@lowers(aten.constant_pad_nd.default)
def constant_pad_nd(cx: Rule, self: Value, pad: Sequence[Dim], value: Scalar) -> Value:
    """self [*D] -> [*D + before + after], filled with value; negative pads cut off.

    torch lists (before, after) from the last dim on, ONNX all befores and then all afters.
    Ref: https://onnx.ai/onnx/operators/onnx__Pad.html
    """
    befores, afters = _pads(pad, self.rank)
    return pad_constant(cx, self, befores, afters, value)


def pad_constant(
    cx: Rule, value: Value, befores: Sequence[Dim], afters: Sequence[Dim], fill: Scalar = 0
) -> Value:
    """value [*D] with this many elements more (or fewer, where negative) around it."""
    pads = [simplify(p) for p in (*befores, *afters)]
    if all(p == 0 for p in pads):
        return value
    out: Value = cx.op.Pad(value, cx.ints(pads), cx.scalar(fill, cx.dtype(value)))
    out.dims = tuple(
        simplify(d + before + after)
        for d, before, after in zip(value.known_dims, befores, afters, strict=True)
    )
    return out


def _pads(pad: Sequence[Dim], rank: int) -> tuple[list[Dim], list[Dim]]:
    """torch's pad list as befores and afters of every dim."""
    unpadded: list[Dim] = [0] * (rank - len(pad) // 2)
    return unpadded + list(pad[-2::-2]), unpadded + list(pad[-1::-2])


@lowers(
    aten.reflection_pad1d.default,
    aten.reflection_pad2d.default,
    aten.reflection_pad3d.default,
)
def reflection_pad(cx: Rule, self: Value, padding: Sequence[Dim]) -> Value:
    """self [*B, *D] -> [*B, *D + before + after], mirrored at the edge, which is not repeated."""
    return _pad_from_edge(cx, self, padding, "reflect")


@lowers(
    aten.replication_pad1d.default,
    aten.replication_pad2d.default,
    aten.replication_pad3d.default,
)
def replication_pad(cx: Rule, self: Value, padding: Sequence[Dim]) -> Value:
    """self [*B, *D] -> [*B, *D + before + after], repeating the edge."""
    return _pad_from_edge(cx, self, padding, "edge")


def _pad_from_edge(cx: Rule, value: Value, padding: Sequence[Dim], mode: str) -> Value:
    """Negative pads cut off after padding, as torch does: the cut rows are still mirrored."""
    befores, afters = _pads(padding, value.rank)
    sizes: Dims = value.known_dims
    grow = [_at_least_0(p) for p in (*befores, *afters)]
    out = cx.op.Pad(value, cx.ints(grow), mode=mode) if any(g != 0 for g in grow) else value
    dims = [
        simplify(d + _at_least_0(b) + _at_least_0(a))
        for d, b, a in zip(sizes, befores, afters, strict=True)
    ]
    for axis, (before, after) in enumerate(zip(befores, afters, strict=True)):
        out.dims = tuple(dims)
        out = cx.slice(out, axis, _at_least_0(-before), simplify(dims[axis] - _at_least_0(-after)))
        dims[axis] = simplify(sizes[axis] + before + after)
    return out


def _at_least_0(count: Dim) -> Dim:
    return max(count, 0) if isinstance(count, int) else simplify(sympy.Max(count, 0))


@lowers(aten.diag_embed.default)
def diag_embed(cx: Rule, self: Value, offset: int, dim1: int, dim2: int) -> Value:
    """self [*B, K] -> [*B, M, M] (dim1, dim2) of zeros with self at [i, i + offset].

    M is K + |offset|. In the flattened matrix the elements are M + 1 apart: each is padded to that
    length, and the whole to M * M.
    """
    *batch, count = self.known_dims
    side = count + abs(offset)
    front = offset if offset >= 0 else -offset * side
    none: list[Dim] = [0] * len(batch)
    spaced = pad_constant(cx, cx.unsqueeze(self, self.rank), [*none, 0, 0], [*none, 0, side])
    flat = cx.reshape(spaced, (*batch, count * (side + 1)))
    rest = side * side - front - count * (side + 1)
    matrix = cx.reshape(pad_constant(cx, flat, [*none, front], [*none, rest]), (*batch, side, side))
    rank = len(batch) + 2
    a, b = cx.axis(dim1, rank), cx.axis(dim2, rank)
    sources = iter(range(len(batch)))
    perm = [
        rank - 2 if axis == a else rank - 1 if axis == b else next(sources) for axis in range(rank)
    ]
    return cx.transpose(matrix, perm)


@lowers(aten.select_backward.default, numbers=("index",))
def select_backward(
    cx: Rule, grad_output: Value, input_sizes: Sequence[Dim], dim: int, index: Dim
) -> Value:
    """grad [*A, *B] -> [*A, N, *B] of zeros with grad at [index]."""
    rank = len(input_sizes)
    axis = cx.axis(dim, rank)
    size = input_sizes[axis]
    if not isinstance(index, int):
        cx.decline("select_backward at a symbolic index")
    at = index + size if index < 0 else index
    row = cx.unsqueeze(grad_output, axis)
    return pad_constant(cx, row, _on_axis(at, axis, rank), _on_axis(size - at - 1, axis, rank))


@lowers(aten.slice_backward.default)
def slice_backward(
    cx: Rule,
    grad_output: Value,
    input_sizes: Sequence[Dim],
    dim: int,
    start: Dim,
    end: Dim,
    step: Dim,
) -> Value:
    """grad [*A, L, *B] -> [*A, N, *B] of zeros with grad at [start:end:step]."""
    rank = len(input_sizes)
    axis = cx.axis(dim, rank)
    size, length = input_sizes[axis], grad_output.known_dims[axis]
    if not isinstance(step, int) or not isinstance(start, int):
        cx.decline("slice_backward with a start or step known at run time only")
    if start < 0 and not isinstance(size, int):
        cx.decline("slice_backward from the end of a size known at run time only")
    if length == size:
        return grad_output
    at = max(start + size, 0) if start < 0 else start
    if length == 0:
        return cx.zeros(cx.out.dims, cx.out.dtype)
    if step > 1:  # each element, and the zeros up to the next one
        dims = grad_output.known_dims
        none, zeros = _on_axis(0, axis, rank + 1), _on_axis(step - 1, axis + 1, rank + 1)
        spaced = pad_constant(cx, cx.unsqueeze(grad_output, axis + 1), none, zeros)
        length = simplify(length * step)
        grad_output = cx.reshape(spaced, (*dims[:axis], length, *dims[axis + 1 :]))
    rest = size - at - length  # negative where the zeros reach beyond the end
    return pad_constant(cx, grad_output, _on_axis(at, axis, rank), _on_axis(rest, axis, rank))


def _on_axis(pad: Dim, axis: int, rank: int) -> list[Dim]:
    """This pad on one axis, none on the others."""
    return [pad if a == axis else 0 for a in range(rank)]


@lowers(aten.block_diag.default)
def block_diag(cx: Rule, tensors: Sequence[Value]) -> Value:
    """[Mi, Ni]... -> [sum(Mi), sum(Ni)] of zeros with each where the one before ends.

    A vector is a row, a 0-d tensor one element. torch's shape function overlooks that a 0-d tensor
    does not raise the dtype of others of its kind.
    """
    ranks = [v.rank for v in tensors if cx.dtype(v) is cx.out.dtype]
    if not any(ranks) and any(v.rank for v in tensors):
        cx.decline("block_diag of several dtypes and a 0-d tensor: torch may state another dtype")
    blocks = [cx.reshape(v, (1,) * (2 - v.rank) + v.known_dims) for v in cx.promote(*tensors)]
    width = cx.out.dims[1]
    left: Dim = 0
    rows: list[Value] = []
    for block in blocks:
        own = block.known_dims[1]
        rows.append(pad_constant(cx, block, [0, left], [0, width - left - own]))
        left += own
    return rows[0] if len(rows) == 1 else cx.op.Concat(*rows, axis=0)
