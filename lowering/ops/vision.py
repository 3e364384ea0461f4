"""Resizing, sampling and rearranging of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import sympy
import torch

from ..dims import Dim, simplify
from ..registry import lowers
from ..rule import Rule
from ..value import Value
from ._window import WINDOW

aten = torch.ops.aten

Ints: TypeAlias = npt.NDArray[np.int64]


# -------------------------------------------------------------------- resizing
@lowers(aten.upsample_nearest1d.default, aten._upsample_nearest_exact1d.default)
def upsample_nearest1d(
    cx: Rule, self: Value, output_size: Sequence[Dim], scales: float | None
) -> Value:
    """self [N, C, L] -> [N, C, M]."""
    return _nearest(cx, self, output_size, (scales,))


@lowers(aten.upsample_nearest2d.default, aten._upsample_nearest_exact2d.default)
def upsample_nearest2d(
    cx: Rule,
    self: Value,
    output_size: Sequence[Dim],
    scales_h: float | None,
    scales_w: float | None,
) -> Value:
    """self [N, C, H, W] -> [N, C, I, J]."""
    return _nearest(cx, self, output_size, (scales_h, scales_w))


@lowers(aten.upsample_nearest3d.default, aten._upsample_nearest_exact3d.default)
def upsample_nearest3d(
    cx: Rule,
    self: Value,
    output_size: Sequence[Dim],
    scales_d: float | None,
    scales_h: float | None,
    scales_w: float | None,
) -> Value:
    """self [N, C, D, H, W] -> [N, C, E, I, J]."""
    return _nearest(cx, self, output_size, (scales_d, scales_h, scales_w))


@lowers(aten.upsample_linear1d.default)
def upsample_linear1d(
    cx: Rule, self: Value, output_size: Sequence[Dim], align_corners: bool, scales: float | None
) -> Value:
    """self [N, C, L] -> [N, C, M], computed as an image of height 1."""
    n, c, length = self.known_dims
    image = cx.reshape(self, (n, c, 1, length))
    out = _resize(
        cx,
        image,
        "linear",
        (1, *output_size),
        align_corners,
        (None if scales is None else 1.0, scales),
    )
    out.dims = (n, c, 1, *output_size)
    return cx.reshape(out, cx.out.dims)


@lowers(aten.upsample_bilinear2d.default)
def upsample_bilinear2d(
    cx: Rule,
    self: Value,
    output_size: Sequence[Dim],
    align_corners: bool,
    scales_h: float | None,
    scales_w: float | None,
) -> Value:
    """self [N, C, H, W] -> [N, C, I, J]."""
    return _resize(cx, self, "linear", output_size, align_corners, (scales_h, scales_w))


@lowers(aten.upsample_trilinear3d.default)
def upsample_trilinear3d(
    cx: Rule,
    self: Value,
    output_size: Sequence[Dim],
    align_corners: bool,
    scales_d: float | None,
    scales_h: float | None,
    scales_w: float | None,
) -> Value:
    """self [N, C, D, H, W] -> [N, C, E, I, J]."""
    scales = (scales_d, scales_h, scales_w)
    return _resize(cx, self, "linear", output_size, align_corners, scales)


@lowers(aten.upsample_bicubic2d.default)
def upsample_bicubic2d(
    cx: Rule,
    self: Value,
    output_size: Sequence[Dim],
    align_corners: bool,
    scales_h: float | None,
    scales_w: float | None,
) -> Value:
    """self [N, C, H, W] -> [N, C, I, J]; both take -0.75 for the cubic's coefficient.

    onnxruntime moves a Transpose to channels last behind the Resize, whose kernel then refuses
    them where an axis becomes shorter. No such Transpose can pass another order of N and C.
    Ref: `EPAwareHandleResize` in onnxruntime's transpose optimizer, `ScalesValidation` (1.32)
    """
    scales = (scales_h, scales_w)
    n, c, *sizes = self.known_dims
    if _grows(sizes, output_size) or 0 in cx.out.dims:
        return _resize(cx, self, "cubic", output_size, align_corners, scales)
    batch = (1, n) if c == 1 else (simplify(n * c), 1)
    image = cx.reshape(self, (*(batch if n * c != 1 else ()), *sizes))
    out = _resize(cx, image, "cubic", output_size, align_corners, scales)
    out.dims = (*image.known_dims[:-2], *output_size)
    return cx.reshape(out, cx.out.dims)


def _grows(sizes: Sequence[Dim], output_size: Sequence[Dim]) -> bool:
    """Is no axis shorter than before, for certain?"""
    pairs = zip(sizes, output_size, strict=True)
    return all(isinstance(n, int) and isinstance(m, int) and n <= m for n, m in pairs)


def _resize(
    cx: Rule,
    x: Value,
    mode: str,
    output_size: Sequence[Dim],
    align_corners: bool,
    scales: Sequence[float | None],
) -> Value:
    """Interpolated. A scale that ATen was given counts, else the ratio of the sizes.

    Ref: https://onnx.ai/onnx/operators/onnx__Resize.html
    """
    if any(d == 0 for d in cx.out.dims):
        return cx.zeros(cx.out.dims, cx.out.dtype)
    if not cx.out.dtype.is_floating_point:
        cx.decline(f"eager interpolates {cx.out.dtype} in fixed point")
    attrs: dict[str, Any] = {
        "mode": mode,
        "coordinate_transformation_mode": "align_corners" if align_corners else "half_pixel",
        "cubic_coeff_a": -0.75 if mode == "cubic" else None,
    }
    batch, sizes = x.known_dims[: -len(scales)], x.known_dims[-len(scales) :]
    if align_corners or all(s is None for s in scales):
        return cx.op.Resize(x, None, None, cx.ints((*batch, *output_size)), **attrs)
    for size, out, scale in zip(sizes, output_size, scales, strict=True):
        if scale is None or not _reaches(size, scale, out):
            cx.decline(f"an interpolation of {size} elements by {scale} to {out}")
    factors = [*[1.0] * len(batch), *scales]
    return cx.op.Resize(x, None, cx.const(factors, torch.float32), **attrs)


def _reaches(size: Dim, scale: float, out: Dim) -> bool:
    """Does ONNX Runtime, which multiplies in float32, come to this output size?"""
    if isinstance(size, int):
        return int(np.float32(scale) * np.float32(size)) == out
    return float(scale * 16).is_integer()


def _nearest(
    cx: Rule, x: Value, output_size: Sequence[Dim], scales: Sequence[float | None]
) -> Value:
    """Element floor(i * size / out) of each axis, or floor((i + 0.5) * size / out) if exact.

    Whole multiples are a Resize. For other sizes a Resize rounds otherwise than ATen where
    i * size / out is nearly whole, so the elements are picked by ATen's own numbers.
    Ref: `nearest_idx` in aten/src/ATen/native/UpSample.h
    """
    if any(d == 0 for d in cx.out.dims):
        return cx.zeros(cx.out.dims, cx.out.dtype)
    exact = "exact" in str(cx.node.target)
    sizes = x.known_dims[2:]
    factors = [
        _multiple(size, out, scale)
        for size, out, scale in zip(sizes, output_size, scales, strict=True)
    ]
    if None not in factors and _resizable(cx.out.dtype):
        return cx.op.Resize(
            x, None, cx.const([1.0, 1.0, *factors], torch.float32), mode="nearest",
            coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        )  # fmt: skip
    for axis, (size, out, scale) in enumerate(
        zip(sizes, output_size, scales, strict=True), start=2
    ):
        if size == out and (scale in (None, 1.0) or not exact):
            continue
        if isinstance(size, int) and isinstance(out, int):
            picked = cx.const(_nearest_indices(size, out, scale, exact), torch.int64)
        else:
            picked = _nearest_at_run_time(cx, size, out, scale, exact)
        dims = x.known_dims
        x = cx.op.Gather(x, picked, axis=axis)
        x.dims = (*dims[:axis], out, *dims[axis + 1 :])
    return x


def _multiple(size: Dim, out: Dim, scale: float | None) -> float | None:
    """How many times each element is repeated, where that is certain."""
    if scale is not None:
        whole = float(scale).is_integer()
        return float(scale) if whole and (size * int(scale) == out) else None
    if isinstance(size, int) and isinstance(out, int):
        return float(out // size) if out % size == 0 else None
    return 1.0 if size == out else None


def _resizable(dtype: torch.dtype) -> bool:
    return dtype in (
        torch.float32, torch.float16, torch.bfloat16, torch.int32, torch.int8, torch.uint8
    )  # fmt: skip


def _nearest_indices(size: int, out: int, scale: float | None, exact: bool) -> Ints:
    """The element that ATen picks for each of `out`, in its float32 arithmetic.

    Unless exact, a size kept or doubled does not ask what the scale is.
    """
    if not exact and out in (size, 2 * size):
        return np.arange(out) // (out // size)
    step = np.float32(1.0 / scale if scale is not None and scale > 0 else np.float32(size) / out)
    position = np.arange(out, dtype=np.float32)
    if exact:
        position = position + np.float32(0.5)
    return np.minimum(np.floor(position * step).astype(np.int64), size - 1)


def _nearest_at_run_time(cx: Rule, size: Dim, out: Dim, scale: float | None, exact: bool) -> Value:
    """`_nearest_indices` of sizes known at run time only: int64 [out]."""
    whole, wanted = cx.scalar(size, torch.int64), cx.scalar(out, torch.int64)
    zero, one = cx.scalar(0, torch.int64), cx.scalar(1, torch.int64)
    if scale is not None and scale > 0:
        step = cx.scalar(1.0 / scale, torch.float32)
    else:
        step = cx.op.Div(cx.cast(whole, torch.float32), cx.cast(wanted, torch.float32))
    order = cx.op.Range(zero, wanted, one)
    position = cx.cast(order, torch.float32)
    if exact:
        position = cx.op.Add(position, cx.scalar(0.5, torch.float32))
    picked = cx.cast(cx.op.Floor(cx.op.Mul(position, step)), torch.int64)
    picked = cx.op.Min(picked, cx.op.Sub(whole, one))
    if scale is not None and not exact:
        two = cx.scalar(2, torch.int64)
        doubled = cx.op.Equal(wanted, cx.op.Mul(whole, two))
        picked = cx.op.Where(doubled, cx.op.Div(order, two), picked)
        picked = cx.op.Where(cx.op.Equal(wanted, whole), order, picked)
    return picked


# -------------------------------------------------------------------- sampling
_SAMPLE_MODES = ("linear", "nearest", "cubic")
_PADDING_MODES = ("zeros", "border", "reflection")


@lowers(aten.grid_sampler_2d.default, aten.grid_sampler_3d.default)
def grid_sampler(
    cx: Rule,
    input: Value,
    grid: Value,
    interpolation_mode: int,
    padding_mode: int,
    align_corners: bool,
) -> Value:
    """input [N, C, *S], grid [N, *T, 2 or 3] of coordinates in -1..1 -> [N, C, *T].

    Eager rounds each step of the coordinates' arithmetic to 16 bits where these are 16-bit floats,
    and so picks other elements than a computation in float32.
    Ref: https://onnx.ai/onnx/operators/onnx__GridSample.html
    """
    if any(d == 0 for d in cx.out.dims):
        return cx.zeros(cx.out.dims, cx.out.dtype)
    if cx.out.dtype.itemsize < 4:
        cx.decline(f"grid sampling in {cx.out.dtype}, whose coordinates eager rounds at each step")
    return cx.op.GridSample(
        input,
        grid,
        mode=_SAMPLE_MODES[interpolation_mode],
        padding_mode=_PADDING_MODES[padding_mode],
        align_corners=int(align_corners),
    )


@lowers(aten.affine_grid_generator.default)
def affine_grid(cx: Rule, theta: Value, size: Sequence[Dim], align_corners: bool) -> Value:
    """theta [N, D, D+1], size (N, C, *S) with D dims in S -> [N, *S, D].

    Ref: https://onnx.ai/onnx/operators/onnx__AffineGrid.html
    """
    return cx.op.AffineGrid(theta, cx.ints(size), align_corners=int(align_corners))


# -------------------------------------------------------------------- rearranging
@lowers(aten.pixel_shuffle.default)
def pixel_shuffle(cx: Rule, self: Value, upscale_factor: int) -> Value:
    """self [*B, C*r*r, H, W] -> [*B, C, H*r, W*r].

    ONNX's DepthToSpace takes images only and misses some dtypes; a transpose has neither limit.
    """
    r = upscale_factor
    *batch, c, _, _ = cx.out.dims
    h, w = self.known_dims[-2:]
    n = len(batch)
    parts = cx.reshape(self, (*batch, c, r, r, h, w))
    perm = (*range(n + 1), n + 3, n + 1, n + 4, n + 2)
    return cx.reshape(cx.transpose(parts, perm), cx.out.dims)


@lowers(aten.pixel_unshuffle.default)
def pixel_unshuffle(cx: Rule, self: Value, downscale_factor: int) -> Value:
    """self [*B, C, H*r, W*r] -> [*B, C*r*r, H, W].

    ONNX's SpaceToDepth orders the channels otherwise.
    """
    r = downscale_factor
    *batch, c, _, _ = self.known_dims
    h, w = cx.out.dims[-2:]
    n = len(batch)
    parts = cx.reshape(self, (*batch, c, h, r, w, r))
    perm = (*range(n + 1), n + 2, n + 4, n + 1, n + 3)
    return cx.reshape(cx.transpose(parts, perm), cx.out.dims)


@lowers(aten.channel_shuffle.default, numbers=("groups",))
def channel_shuffle(cx: Rule, self: Value, groups: int) -> Value:
    """self [N, groups * K, *S] -> [N, K * groups, *S]."""
    n, c, *rest = self.known_dims
    if not isinstance(c, int):
        place, count = cx.places(c, 1, 0), cx.scalar(groups, torch.int64)
        width = cx.op.Div(cx.scalar(c, torch.int64), count)
        source = cx.op.Add(cx.op.Mul(cx.op.Mod(place, count), width), cx.op.Div(place, count))
        return cx.op.Gather(self, source, axis=1)
    parts = cx.reshape(self, (n, groups, c // groups, *rest))
    return cx.reshape(cx.transpose(parts, (0, 2, 1, *range(3, len(rest) + 3))), cx.out.dims)


@lowers(aten.im2col.default, numbers=WINDOW)
def im2col(
    cx: Rule,
    self: Value,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Value:
    """self [N?, C, H, W] -> [N?, C*kh*kw, L]: the L windows as columns.

    Windows that touch without overlapping are a transpose, others are gathered axis by axis.
    """
    *batch, c, h, w = self.known_dims
    n = len(batch)
    x = self
    if any(padding):
        pads = [0] * (n + 1) + list(padding)
        x = cx.op.Pad(self, cx.ints(pads * 2))
        x.dims = (*batch, c, *(simplify(v + 2 * p) for v, p in zip((h, w), padding, strict=True)))
    axis = n + 1
    for k, d, step in zip(kernel_size, dilation, stride, strict=True):
        dims = x.known_dims
        places, count = _windows(cx, dims[axis], k, d, step)
        x = cx.op.Gather(x, places, axis=axis)
        x.dims = (*dims[:axis], k, count, *dims[axis + 1 :])
        axis += 2
    columns = cx.transpose(x, (*range(n + 1), n + 1, n + 3, n + 2, n + 4))
    return cx.reshape(columns, cx.out.dims)


def _windows(cx: Rule, size: Dim, k: int, dilation: int, step: int) -> tuple[Value, Dim]:
    """int64 [k, count]: the places of each window's elements, windows `step` apart; and `count`."""
    within = np.arange(k)[:, None] * dilation
    room = size - dilation * (k - 1)
    if isinstance(room, int):
        places = within + np.arange(0, room, step)
        return cx.const(places, torch.int64), places.shape[1]
    starts: Value = cx.op.Range(*(cx.scalar(v, torch.int64) for v in (0, room, step)))
    count = sympy.Symbol(f"windows_{starts.name}", integer=True, positive=True)
    starts.dims = (count,)
    return cx.op.Add(starts, cx.const(within, torch.int64)), count


@lowers(aten.col2im.default, numbers=WINDOW)
def col2im(
    cx: Rule,
    self: Value,
    output_size: Sequence[Dim],
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Value:
    """self [N?, C*kh*kw, L] -> [N?, C, *output_size]: the sums of the columns over each element.

    Ref: https://onnx.ai/onnx/operators/onnx__Col2Im.html
    """
    batched = self if self.rank == 3 else cx.unsqueeze(self, 0)
    image = cx.op.Col2Im(
        batched,
        cx.ints(output_size),
        cx.ints(kernel_size),
        dilations=list(dilation),
        pads=list(padding) * 2,
        strides=list(stride),
    )
    if self.rank == 3:
        return image
    image.dims = (1, *cx.out.dims)
    return cx.reshape(image, cx.out.dims)
