"""Resizing with antialiasing: a product with the weights of each axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from ..dims import Dim
from ..dtypes import opmath
from ..registry import lowers
from ..rule import Rule
from ..value import Value

aten = torch.ops.aten
Floats = npt.NDArray[np.float64]


@lowers(aten._upsample_bilinear2d_aa.default)
def upsample_bilinear2d_aa(
    cx: Rule,
    self: Value,
    output_size: Sequence[Dim],
    align_corners: bool,
    scales_h: float | None,
    scales_w: float | None,
) -> Value:
    """self [N, C, H, W] -> [N, C, I, J], by a triangle as wide as the step between elements."""
    return _resized(cx, self, align_corners, (scales_h, scales_w), _triangle, 1.0)


@lowers(aten._upsample_bicubic2d_aa.default)
def upsample_bicubic2d_aa(
    cx: Rule,
    self: Value,
    output_size: Sequence[Dim],
    align_corners: bool,
    scales_h: float | None,
    scales_w: float | None,
) -> Value:
    """self [N, C, H, W] -> [N, C, I, J], by a cubic twice as wide on each side."""
    return _resized(cx, self, align_corners, (scales_h, scales_w), _cubic, 2.0)


def _resized(
    cx: Rule,
    x: Value,
    align_corners: bool,
    scales: Sequence[float | None],
    weight: Callable[[Floats], Floats],
    reach: float,
) -> Value:
    """Columns first, then rows, as ATen does; each weighs all elements of its axis."""
    dtype = cx.out.dtype
    if 0 in cx.out.dims:
        return cx.zeros(cx.out.dims, dtype)
    if dtype not in (torch.float32, torch.float64):
        cx.decline(f"eager rounds {dtype} between the two axes of a resize with antialiasing")
    sizes = cx.static(x.known_dims[2:], "a resize with antialiasing of symbolic size")
    outs = cx.static(cx.out.dims[2:], "a resize with antialiasing to a symbolic size")
    down, across = (
        _weights(size, out, align_corners, scale, weight, reach)
        for size, out, scale in zip(sizes, outs, scales, strict=True)
    )
    wide = opmath(dtype)
    return cx.op.MatMul(cx.const(down, wide), cx.op.MatMul(x, cx.const(across.T, wide)))


def _weights(
    size: int,
    out: int,
    align_corners: bool,
    scale: float | None,
    weight: Callable[[Floats], Floats],
    reach: float,
) -> Floats:
    """[out, size]: the share of each element in each result, which sum to 1.

    Ref: `_compute_indices_min_size_weights_aa` in aten/src/ATen/native/cpu/UpSampleKernel.cpp
    """
    if align_corners:
        step = (size - 1) / (out - 1) if out > 1 else 0.0
    else:
        step = 1 / scale if scale is not None and scale > 0 else size / out
    support = reach * max(step, 1.0)
    places = np.zeros((out, size))
    for i in range(out):
        centre = step * (i + 0.5)
        first = max(int(centre - support + 0.5), 0)
        last = min(int(centre + support + 0.5), size)
        distances = (np.arange(first, last, dtype=np.float64) - centre + 0.5) / max(step, 1.0)
        shares = weight(distances)
        places[i, first:last] = shares / shares.sum()
    return places


def _triangle(x: Floats) -> Floats:
    return np.maximum(1 - np.abs(x), 0)


def _cubic(x: Floats) -> Floats:
    """Keys' cubic of coefficient -0.5."""
    size = np.abs(x)
    near = (1.5 * size - 2.5) * size * size + 1
    far = ((-0.5 * size + 2.5) * size - 4) * size + 2
    return np.where(size < 1, near, np.where(size < 2, far, 0))
