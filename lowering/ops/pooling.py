"""Max, average and adaptive pooling over one to three dims."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from ..dims import Dim, numel
from ..registry import lowers
from ..rule import Rule
from ..value import Value
from ._window import WINDOW
from .extrema import extremum
from .normalization import used

aten = torch.ops.aten

Ints: TypeAlias = npt.NDArray[np.int64]


@lowers(
    aten.max_pool2d_with_indices.default,
    aten.max_pool3d_with_indices.default,
    numbers=WINDOW,
)
def max_pool(
    cx: Rule,
    self: Value,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> tuple[Value, Value | None]:
    """self [N?, C, *S] -> values [N?, C, *T], indices [N?, C, *T] into the plane of each channel.

    ONNX counts its indices through the whole tensor; the plane's size takes them apart. The index
    of a NaN is that of the greatest number beside it.
    Ref: https://onnx.ai/onnx/operators/onnx__MaxPool.html
    """
    spatial = _spatial(cx)
    if _no_elements(cx):
        values, indices = (cx.zeros(m.dims, m.dtype) for m in cx.outs)
        return values, indices
    attrs = _window(spatial, kernel_size, stride, padding, ceil_mode)
    dilations = _per_dim(dilation, spatial)
    attrs["dilations"] = _unless(dilations, 1)
    for size, step in zip(self.known_dims[-spatial:], dilations, strict=True):
        if attrs["pads"] and step > (size if isinstance(size, int) else 2):
            # Its maximum is -inf in ATen, the lowest finite number in ONNX Runtime.
            cx.decline("a max pool whose dilated windows may lie around all elements")
    return _max_pool(cx, self, spatial, attrs)


@lowers(aten.avg_pool2d.default, aten.avg_pool3d.default, numbers=WINDOW)
def avg_pool(
    cx: Rule,
    self: Value,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Value:
    """self [N?, C, *S] -> [N?, C, *T]; with a divisor the sum of each window divided by it.

    Ref: https://onnx.ai/onnx/operators/onnx__AveragePool.html
    """
    spatial = _spatial(cx)
    return _average(
        cx, self, spatial, kernel_size, stride, padding, ceil_mode, count_include_pad,
        divisor_override,
    )  # fmt: skip


@lowers(aten._adaptive_avg_pool2d.default, aten._adaptive_avg_pool3d.default)
def adaptive_avg_pool(cx: Rule, self: Value, output_size: Sequence[Dim]) -> Value:
    """self [N?, C, *S] -> [N?, C, *output_size]: the means of windows that differ in size by one.

    ONNX has the cases of one window and of equal windows; the others gather each window's
    elements.
    """
    spatial = len(output_size)
    if _no_elements(cx):
        return cx.zeros(cx.out.dims, cx.out.dtype)
    batched = _batched(cx, self, spatial)
    if all(s == 1 for s in output_size):
        if cx.out.dtype is torch.float64:
            axes = cx.ints(list(range(2, 2 + spatial)))
            return _unbatched(cx, cx.op.ReduceMean(batched, axes), spatial)
        return _unbatched(cx, cx.op.GlobalAveragePool(batched), spatial)
    kernel = _equal_windows(batched.known_dims[2:], output_size)
    if kernel is not None and cx.out.dtype is not torch.float64:
        pooled = cx.op.AveragePool(batched, kernel_shape=kernel, strides=kernel)
        return _unbatched(cx, pooled, spatial)
    wide = cx.cast(batched, torch.float32) if cx.out.dtype.itemsize < 4 else batched
    pooled = _each_window(cx, wide, output_size, _window_means)
    return _unbatched(cx, cx.cast(pooled, cx.out.dtype), spatial)


@lowers(aten.adaptive_max_pool2d.default, aten.adaptive_max_pool3d.default)
def adaptive_max_pool(
    cx: Rule, self: Value, output_size: Sequence[int]
) -> tuple[Value, Value | None]:
    """self [N?, C, *S] -> values [N?, C, *output_size]; indices for equal windows."""
    spatial = len(output_size)
    if _no_elements(cx):
        values, indices = (cx.zeros(m.dims, m.dtype) for m in cx.outs)
        return values, indices
    batched = _batched(cx, self, spatial)
    kernel = _equal_windows(batched.known_dims[2:], output_size)
    if kernel is None:
        values = _each_window(cx, batched, output_size, _window_maxima)
        return _unbatched(cx, values, spatial), None
    return _max_pool(cx, self, spatial, {"kernel_shape": kernel, "strides": kernel})


# -------------------------------------------------------------------- helpers
def _max_pool(
    cx: Rule, x: Value, spatial: int, attrs: dict[str, Any]
) -> tuple[Value, Value | None]:
    dtype = cx.out.dtype
    batched = _batched(cx, x, spatial)
    if dtype in (torch.float16, torch.bfloat16):
        batched = cx.cast(batched, torch.float32)
    indices = None
    if used(cx, 1):
        values, places = cx.op.MaxPool(
            batched, **attrs, outputs=2, dtypes=[batched.elem, ir.DataType.INT64]
        )
        plane = cx.scalar(numel(batched.known_dims[2:]), torch.int64)
        indices = _unbatched(cx, cx.op.Mod(places, plane), spatial, 1)
    else:
        values = cx.op.MaxPool(batched, **attrs)
    if dtype.is_floating_point:
        values = _nan_and_infinity(cx, batched, values, attrs)
    return _unbatched(cx, cx.cast(values, dtype), spatial), indices


def _nan_and_infinity(cx: Rule, x: Value, values: Value, attrs: dict[str, Any]) -> Value:
    """The values, or NaN for windows with one, or -inf for windows of nothing else.

    ONNX Runtime's MaxPool passes over NaN, and in float32 starts from the lowest finite number,
    which wins over -inf. The mean of the window tells: it is NaN if an element is, as infinities
    are clipped before they can meet; and it is at the lower bound if all elements are -inf, which
    scaling sets apart from the lowest finite number. Means too are taken in blocks of channels, so
    that this costs less than questions to each element.
    """
    dtype = cx.dtype(x)
    nan = cx.scalar(math.nan, torch.float32)
    if dtype is torch.float64:
        small = cx.op.Where(cx.op.Equal(x, x), cx.scalar(0, torch.float32), nan)
    elif _never_negative(x):
        small = x
    else:
        scaled = cx.op.Mul(x, cx.scalar(2.0**-100, dtype))
        small = cx.op.Clip(scaled, cx.scalar(-(2.0**30), dtype), cx.scalar(1, dtype))
    mean = cx.op.AveragePool(small, **attrs)
    values = cx.op.Where(cx.op.Equal(mean, mean), values, cx.cast(nan, dtype))
    if dtype is torch.float64 or small is x:
        return values
    infinite = cx.op.Less(mean, cx.scalar(-(2.0**30) * (1 - 1e-6), dtype))
    out: Value = cx.op.Where(infinite, cx.scalar(-math.inf, dtype), values)
    return out


def _never_negative(x: Value) -> bool:
    node = x.producer()
    return node is not None and node.op_type in ("Relu", "Sigmoid")


def _average(
    cx: Rule,
    x: Value,
    spatial: int,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Value:
    if _no_elements(cx):
        return cx.zeros(cx.out.dims, cx.out.dtype)
    attrs = _window(spatial, kernel_size, stride, padding, ceil_mode)
    batched = _batched(cx, x, spatial)
    if divisor is None:
        pads = attrs["pads"] is not None
        attrs["count_include_pad"] = 1 if count_include_pad and pads else None
        return _unbatched(cx, cx.op.AveragePool(batched, **attrs), spatial)
    wide = cx.cast(batched, torch.float32) if cx.out.dtype.itemsize < 4 else batched
    if ceil_mode:
        wide, attrs = _zeros_under_the_last_window(cx, wide, spatial, attrs)
    mean = cx.op.AveragePool(wide, **attrs, count_include_pad=1)
    factor = math.prod(attrs["kernel_shape"]) / divisor
    scaled = cx.op.Mul(mean, cx.scalar(factor, cx.dtype(wide)))
    return _unbatched(cx, cx.cast(scaled, cx.out.dtype), spatial)


def _zeros_under_the_last_window(
    cx: Rule, x: Value, spatial: int, attrs: dict[str, Any]
) -> tuple[Value, dict[str, Any]]:
    """x with its padding, and as many more zeros as its last window reaches beyond; the attributes.

    The mean of a window that is cut off would not say how many elements it had.
    """
    sizes = cx.static(x.known_dims[-spatial:], "an average pool of symbolic size with ceil_mode")
    out = cx.static(cx.out.dims[-spatial:], "an average pool of symbolic size with ceil_mode")
    strides = attrs["strides"] or [1] * spatial
    begin = (attrs["pads"] or [0] * spatial)[:spatial]
    reach = [(o - 1) * s + k for o, s, k in zip(out, strides, attrs["kernel_shape"], strict=True)]
    end = [max(r - size - b, 0) for r, size, b in zip(reach, sizes, begin, strict=True)]
    padded: Value = cx.op.Pad(x, cx.ints([0, 0, *begin, 0, 0, *end]))
    padded.dims = (
        *x.known_dims[:2],
        *(b + size + e for b, size, e in zip(begin, sizes, end, strict=True)),
    )
    return padded, {**attrs, "pads": None, "ceil_mode": None}


def _window(
    spatial: int,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
) -> dict[str, Any]:
    """The attributes that all windows have; ATen's stride is the kernel's size unless given."""
    kernel = _per_dim(kernel_size, spatial)
    return {
        "kernel_shape": kernel,
        "strides": _unless(_per_dim(stride, spatial) if stride else kernel, 1),
        "pads": _unless(_per_dim(padding, spatial) * 2, 0),
        "ceil_mode": 1 if ceil_mode else None,
    }


def _per_dim(values: Sequence[int], spatial: int) -> list[int]:
    return list(values) * spatial if len(values) == 1 else list(values)


def _unless(values: list[int], default: int) -> list[int] | None:
    """None where ONNX's default says the same."""
    return None if all(v == default for v in values) else values


def _spatial(cx: Rule) -> int:
    return 3 if "3d" in str(cx.node.target) else 2


def _batched(cx: Rule, x: Value, spatial: int) -> Value:
    """[N?, C, *S] as [N, C, *S]."""
    return x if x.rank == spatial + 2 else cx.unsqueeze(x, 0)


def _unbatched(cx: Rule, y: Value, spatial: int, index: int = 0) -> Value:
    """A result for [N, C, *S] in the shape that the node returns."""
    dims = cx.outs[index].dims
    if len(dims) == spatial + 2:
        return y
    y.dims = (1, *dims)
    return cx.reshape(y, dims)


def _no_elements(cx: Rule) -> bool:
    return any(d == 0 for d in cx.out.dims)


def _equal_windows(sizes: Sequence[Dim], output_size: Sequence[Dim]) -> list[int] | None:
    """The windows' size if output_size divides the input's."""
    kernel: list[int] = []
    for size, out in zip(sizes, output_size, strict=True):
        if not isinstance(size, int) or not isinstance(out, int) or size % out:
            return None
        kernel.append(size // out)
    return kernel


def _each_window(
    cx: Rule,
    x: Value,
    output_size: Sequence[Dim],
    reduce: Callable[[Rule, Value, int, Ints, Ints], Value],
) -> Value:
    """Windows [floor(i * size / out), ceil((i + 1) * size / out)) one axis after the other.

    Ref: aten/src/ATen/native/AdaptivePooling.h
    """
    for axis, out in enumerate(output_size, start=2):
        size = x.known_dims[axis]
        if not isinstance(size, int) or not isinstance(out, int):
            cx.decline(
                f"adaptive pooling of {size} elements to {out}: sizes known at run time only"
            )
        if size == out:
            continue
        starts = np.arange(out) * size // out
        counts = -(-(np.arange(1, out + 1) * size) // out) - starts
        x = reduce(cx, x, axis, starts, counts)
    return x


def _window_means(cx: Rule, x: Value, axis: int, starts: Ints, counts: Ints) -> Value:
    elements = _gather(cx, x, axis, starts, counts)
    dtype, widest = cx.dtype(x), int(counts.max())
    inside = np.arange(widest) < counts[:, None]
    shape = (len(starts), widest) + (1,) * (x.rank - axis - 1)
    if not inside.all():
        mask = cx.const(inside.reshape(shape), torch.bool)
        elements = cx.op.Where(mask, elements, cx.scalar(0, dtype))
    total = cx.op.ReduceSum(elements, cx.ints([axis + 1]), keepdims=0)
    divisor = counts.reshape((-1,) + (1,) * (x.rank - axis - 1))
    mean: Value = cx.op.Div(total, cx.const(divisor, dtype))
    mean.dims = _with(x, axis, len(starts))
    return mean


def _window_maxima(cx: Rule, x: Value, axis: int, starts: Ints, counts: Ints) -> Value:
    elements = _gather(cx, x, axis, starts, counts)
    maxima = extremum(cx, "ReduceMax", elements, [axis + 1], keepdim=False)
    maxima.dims = _with(x, axis, len(starts))
    return maxima


def _gather(cx: Rule, x: Value, axis: int, starts: Ints, counts: Ints) -> Value:
    """[*A, size, *B] -> [*A, windows, widest, *B]; a short window repeats its last element."""
    inside = np.minimum(np.arange(int(counts.max())), counts[:, None] - 1)
    indices = cx.const(starts[:, None] + inside, torch.int64)
    out: Value = cx.op.Gather(x, indices, axis=axis)
    out.dims = (*x.known_dims[:axis], *inside.shape, *x.known_dims[axis + 1 :])
    return out


def _with(x: Value, axis: int, size: int) -> tuple[Dim, ...]:
    return (*x.known_dims[:axis], size, *x.known_dims[axis + 1 :])
