"""Convolutions: one ONNX node each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..dims import Dim, is_static, numel
from ..registry import lowers
from ..rule import Rule
from ..value import Value
from . import quantized

aten = torch.ops.aten


@lowers(
    aten.convolution.default,
    numbers=("stride", "padding", "dilation", "output_padding", "groups"),
)
def convolution(
    cx: Rule,
    input: Value,
    weight: Value,
    bias: Value | None,
    stride: Sequence[Dim],
    padding: Sequence[Dim],
    dilation: Sequence[Dim],
    transposed: bool,
    output_padding: Sequence[Dim],
    groups: Dim,
) -> Value:
    """input [N, C, *S], weight [O, C/groups, *K] -> [N, O, *T]; S and K have 1 to 3 dims.

    Transposed, the weight is [C, O/groups, *K], in both. ATen gives one number per dim where ONNX
    takes a beginning and an end; one number may stand for all dims.
    Ref: https://onnx.ai/onnx/operators/onnx__Conv.html,
    https://onnx.ai/onnx/operators/onnx__ConvTranspose.html,
    aten/src/ATen/native/NaiveConvolutionTranspose2d.cpp (float16, whose columns it adds up)
    """
    if is_static(cx.out.dims) and numel(cx.out.dims) == 0:
        return cx.zeros(cx.out.dims, cx.out.dtype)
    if transposed or not quantized.is_integer_convolution(cx, input, weight):
        weight = quantized.foldable(cx, weight)
    spatial = len(cx.out.dims) - 2
    strides, pads, dilations = (_per_dim(cx, x, spatial) for x in (stride, padding, dilation))
    attrs: dict[str, Any] = {
        "group": _whole(cx, groups),
        "strides": _unless(strides, 1),
        "pads": _unless(pads * 2, 0),
        "dilations": _unless(dilations, 1),
    }
    if not transposed:
        return cx.op.Conv(input, weight, bias, **attrs)
    if cx.out.dtype is torch.float16:
        cx.decline("eager adds up a transposed convolution one by one in float16")
    extra = _per_dim(cx, output_padding, spatial)
    if any(e >= s for e, s in zip(extra, strides, strict=True)):
        # ATen allows it below the dilation as well; ONNX Runtime refuses such a node when it runs.
        cx.decline(f"ConvTranspose takes no output_padding {extra} with stride {strides}")
    attrs["output_padding"] = _unless(extra, 0)
    return cx.op.ConvTranspose(input, weight, bias, **attrs)


def _per_dim(cx: Rule, values: Sequence[Dim], spatial: int) -> list[int]:
    numbers = [_whole(cx, v) for v in values]
    return numbers * spatial if len(numbers) == 1 else numbers


def _whole(cx: Rule, value: Dim) -> int:
    """ONNX has these as attributes, which are numbers."""
    if not isinstance(value, int):
        cx.decline(f"a convolution whose stride, padding or dilation is the size {value}")
    return value


def _unless(values: list[int], default: int) -> list[int] | None:
    """None where ONNX's default says the same."""
    return None if all(v == default for v in values) else values
