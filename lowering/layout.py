"""How the strides that AOTAutograd recorded come out of contiguous ONNX outputs."""

from __future__ import annotations

import torch

from ..runtime.program import OutputLayout
from .dims import Dims, contiguous_strides, dims_of, is_static, same_stride


def output_layout(fake: torch.Tensor) -> OutputLayout | None:
    """Nothing for a contiguous tensor, a permutation for a permuted one, else a copy's strides.

    None where the strides must be computed at run time.
    """
    dims, strides = dims_of(fake.shape), dims_of(fake.stride())
    axes = range(len(dims))
    expanded = tuple(axis for axis in axes if strides[axis] == 0 and dims[axis] != 1)
    relevant = [axis for axis in axes if dims[axis] != 1 and axis not in expanded]
    hints = [_hint(s) for s in fake.stride()]
    by_stride = sorted(relevant, key=lambda axis: -hints[axis])
    for order in (relevant, by_stride):
        if 0 in dims or not _dense(order, dims, strides):
            continue
        placed = iter(order)
        memory = [next(placed) if axis in relevant else axis for axis in axes]
        permute = None if memory == list(axes) else tuple(memory.index(axis) for axis in axes)
        return OutputLayout(permute, expanded)
    if is_static(dims) and is_static(strides):
        return OutputLayout(restride=(dims, strides))
    return None


def _dense(order: list[int], dims: Dims, strides: Dims) -> bool:
    expected = contiguous_strides([dims[axis] for axis in order])
    return all(same_stride(strides[axis], want) for axis, want in zip(order, expected, strict=True))


def _hint(stride: int | torch.SymInt) -> int:
    """A representative value of a stride, only used to guess an order that is then checked."""
    if isinstance(stride, int):
        return stride
    return int(stride.node.hint) if stride.node.hint is not None else 1 << 32
