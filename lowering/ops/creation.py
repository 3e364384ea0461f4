"""Tensors made from numbers: full, zeros, arange, eye, triangles."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from ..registry import lowers
from ..rule import Operand, Rule, Scalar
from ..value import Value
from ._pointwise import static

aten = torch.ops.aten

MAX_CONSTANT = 4096  # elements; longer sequences are computed, so that programs stay small


@lowers(aten.full.default)
def full(cx: Rule, size: object, fill_value: Operand, *_: object) -> Value:
    """A number -> [*size] of it, in the given dtype or that of the number."""
    return cx.full(cx.out.dims, fill_value, cx.out.dtype)


@lowers(aten.full_like.default)
def full_like(cx: Rule, self: Value, fill_value: Operand, *_: object) -> Value:
    """self [*A] -> [*A] of one number; of self nothing but dtype and dims matter."""
    return cx.full(cx.out.dims, fill_value, cx.out.dtype)


@lowers(aten.fill.Scalar)
def fill_scalar(cx: Rule, self: Value, value: Operand) -> Value:
    """self [*A] -> [*A] of one number."""
    return cx.full(cx.out.dims, value, cx.out.dtype)


@lowers(aten.new_full.default)
def new_full(cx: Rule, self: Value, size: object, fill_value: Operand, *_: object) -> Value:
    """self gives the dtype -> [*size] of one number."""
    return cx.full(cx.out.dims, fill_value, cx.out.dtype)


@lowers(aten.fill.Tensor)
def fill(cx: Rule, self: Value, value: Value) -> Value:
    """self [*A], value [] -> [*A] of it in the dtype of self."""
    return cx.expand(cx.cast(value, cx.out.dtype), cx.out.dims)


@lowers(
    aten.zeros.default,
    aten.zeros_like.default,
    aten.new_zeros.default,
    aten.zero.default,
)
def zeros(cx: Rule, *_: object) -> Value:
    """A size, or a tensor that gives it -> zeros."""
    return cx.zeros(cx.out.dims, cx.out.dtype)


@lowers(
    aten.empty.memory_format,
    aten.empty_like.default,
    aten.empty_strided.default,
    aten.empty_permuted.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
)
def empty(cx: Rule, *_: object) -> Value:
    """A size, or a tensor that gives it -> elements that nobody may read: zeros here."""
    return cx.zeros(cx.out.dims, cx.out.dtype)


@lowers(aten.ones.default, aten.ones_like.default, aten.new_ones.default)
def ones(cx: Rule, *_: object) -> Value:
    """A size, or a tensor that gives it -> ones."""
    return cx.ones(cx.out.dims, cx.out.dtype)


@lowers(aten.scalar_tensor.default)
def scalar_tensor(cx: Rule, s: Operand, *_: object) -> Value:
    """A number -> []."""
    return cx.as_value(s, cx.out.dtype)


# ------------------------------------------------------------------ sequences
@lowers(aten.arange.default)
def arange(cx: Rule, end: Scalar, *_: object) -> Value:
    """0, 1, ... below end -> [N]."""
    return _arange(cx, 0, end, 1)


@lowers(aten.arange.start)
def arange_start(cx: Rule, start: Scalar, end: Scalar, *_: object) -> Value:
    """Start, start + 1, ... below end -> [N]."""
    return _arange(cx, start, end, 1)


@lowers(aten.arange.start_step)
def arange_start_step(cx: Rule, start: Scalar, end: Scalar, step: Scalar, *_: object) -> Value:
    """Start, start + step, ... before end -> [N]."""
    return _arange(cx, start, end, step)


def _arange(cx: Rule, start: Scalar, end: Scalar, step: Scalar) -> Value:
    """ONNX Runtime's Range adds the step again and again; ATen multiplies, in a wider type.

    Ref: https://onnx.ai/onnx/operators/onnx__Range.html
    """
    dtype = cx.out.dtype
    (count,) = cx.out.dims
    if not dtype.is_floating_point:
        start, step = (int(n) if isinstance(n, float) else n for n in (start, step))
        end = end if not isinstance(end, float) else start + count * step
    if isinstance(count, int) and count <= MAX_CONSTANT and static(start) and static(step):
        return cx.const(_sequence(count, start, step, dtype), dtype)
    if not any(isinstance(n, float) for n in (start, end, step)):
        bounds = (cx.scalar(n, torch.int64) for n in (start, end, step))
        return cx.cast(cx.op.Range(*bounds), dtype)
    last = _count(cx, start, end, step) if not cx.builder.sizes.knows(count) else count
    zero, one = (cx.scalar(n, torch.int64) for n in (0, 1))
    index = cx.op.Range(zero, cx.as_value(last, torch.int64), one)
    index.dims = (count,)
    wide = torch.float32 if dtype in (torch.float16, torch.bfloat16) else torch.float64
    steps = cx.op.Mul(cx.cast(index, wide), cx.scalar(step, wide))
    return cx.cast(cx.op.Add(steps, cx.scalar(start, wide)), dtype)


def _count(cx: Rule, start: Scalar, end: Scalar, step: Scalar) -> Value:
    """ceil((end - start) / step): the number of steps where its dim is no integer expression."""
    first, last, width = (cx.scalar(n, torch.float64) for n in (start, end, step))
    return cx.op.Ceil(cx.op.Div(cx.op.Sub(last, first), width))


def _sequence(
    count: int, start: float, step: float, dtype: torch.dtype
) -> npt.NDArray[np.float64] | npt.NDArray[np.float32] | npt.NDArray[np.int64]:
    if not dtype.is_floating_point:
        return np.int64(start) + np.int64(step) * np.arange(count, dtype=np.int64)
    wide = np.float32 if dtype in (torch.float16, torch.bfloat16) else np.float64
    return wide(start) + wide(step) * np.arange(count, dtype=wide)


# ------------------------------------------------------------------ matrices
@lowers(aten.eye.default, aten.eye.m)
def eye(cx: Rule, *_: object) -> Value:
    """Rows and columns -> [N, M], one on the diagonal."""
    rows, columns = cx.out.dims
    dtype = cx.out.dtype
    if isinstance(rows, int) and isinstance(columns, int) and rows * columns <= MAX_CONSTANT:
        return cx.const(np.eye(rows, columns), dtype)
    down, across = (
        cx.op.Range(*(cx.scalar(n, torch.int64) for n in (0, count, 1)))
        for count in (rows, columns)
    )
    down.dims, across.dims = (rows,), (columns,)
    return cx.cast(cx.op.Equal(cx.unsqueeze(down, 1), across), dtype)


@lowers(aten.tril.default)
def tril(cx: Rule, self: Value, diagonal: Scalar) -> Value:
    """self [*B, N, M] -> zero above the diagonal [*B, N, M]."""
    return cx.op.Trilu(self, cx.scalar(diagonal, torch.int64), upper=0)


@lowers(aten.triu.default)
def triu(cx: Rule, self: Value, diagonal: Scalar) -> Value:
    """self [*B, N, M] -> zero below the diagonal [*B, N, M]."""
    return cx.op.Trilu(self, cx.scalar(diagonal, torch.int64), upper=1)


@lowers(aten.tril_indices.default, aten.triu_indices.default)
def triangle_indices(cx: Rule, row: Scalar, col: Scalar, offset: Scalar, *_: object) -> Value:
    """Rows, columns, offset -> [2, N]: row and column of each element of the triangle."""
    if not (isinstance(row, int) and isinstance(col, int) and isinstance(offset, int)):
        cx.decline("the indices of a triangle of unknown size")
    lower = cx.node.target is aten.tril_indices.default
    find = np.tril_indices if lower else np.triu_indices
    return cx.const(np.stack(find(row, offset, col)), cx.out.dtype)
