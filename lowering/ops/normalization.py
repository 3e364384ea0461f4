"""Layer, group, batch and RMS normalisation."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import onnx_ir as ir
import torch

from ..dims import Dim, is_static, numel
from ..registry import lowers
from ..rule import Rule
from ..value import Value

aten = torch.ops.aten


@lowers(aten.native_layer_norm.default)
def layer_norm(
    cx: Rule,
    input: Value,
    normalized_shape: Sequence[Dim],
    weight: Value | None,
    bias: Value | None,
    eps: float,
) -> tuple[Value, Value | None, Value | None]:
    """input [*B, *N], weight and bias [*N] -> y [*B, *N], mean and rstd [*B, 1…].

    ONNX requires a scale where ATen allows None, and has its epsilon in float32, which is not
    enough for float64: there it is composed.
    Ref: https://onnx.ai/onnx/operators/onnx__LayerNormalization.html
    """
    size, rank = tuple(normalized_shape), len(normalized_shape)
    if _no_elements(cx):
        return cx.zeros(cx.out.dims, cx.out.dtype), _empty(cx, 1), _empty(cx, 2)
    if cx.out.dtype is torch.float64:
        mean, rstd = moments(cx, input, list(range(input.rank - rank, input.rank)), eps)
        y = _affine(cx, cx.op.Mul(cx.op.Sub(input, mean), rstd), weight, bias)
        return y, mean, rstd
    x, w, b = _alike(cx, input, weight, bias)
    scale = w if w is not None else cx.ones(size, cx.dtype(x))
    if not used(cx, 1, 2):
        y = cx.op.LayerNormalization(x, scale, b, axis=-rank, epsilon=eps)
        return cx.cast(y, cx.out.dtype), None, None
    y, mean, rstd = cx.op.LayerNormalization(
        x,
        scale,
        b,
        axis=-rank,
        epsilon=eps,
        outputs=3,
        dtypes=[x.elem, ir.DataType.FLOAT, ir.DataType.FLOAT],
    )
    return (
        cx.cast(y, cx.out.dtype),
        cx.cast(mean, cx.outs[1].dtype),
        cx.cast(rstd, cx.outs[2].dtype),
    )


@lowers(aten._fused_rms_norm.default)
def rms_norm(
    cx: Rule,
    input: Value,
    normalized_shape: Sequence[Dim],
    weight: Value | None,
    eps: float | None,
) -> tuple[Value, Value | None]:
    """input [*B, *N], weight [*N] -> y [*B, *N]; rstd [*B, 1…] is composed when it is used.

    Without an eps ATen takes the machine epsilon of the dtype that it computes in, which is
    float32 for the 16-bit floats. Before opset 23 ONNX has no node for it.
    Ref: https://onnx.ai/onnx/operators/onnx__RMSNormalization.html
    """
    size, rank = tuple(normalized_shape), len(normalized_shape)
    dtype = torch.float64 if cx.out.dtype is torch.float64 else torch.float32
    if eps is None:
        eps = torch.finfo(dtype).eps
    has_kernel = cx.has_kernel("RMSNormalization", T=torch.float32, V=torch.float32)
    if dtype is torch.float64 or used(cx, 1) or not has_kernel:
        x = cx.cast(input, dtype)
        axes = cx.ints(list(range(input.rank - rank, input.rank)))
        square = cx.op.ReduceMean(cx.op.Mul(x, x), axes)
        square.dims = tuple(
            d if i < input.rank - rank else 1 for i, d in enumerate(input.known_dims)
        )
        rstd = cx.op.Reciprocal(cx.op.Sqrt(cx.op.Add(square, cx.scalar(eps, dtype))))
        w = None if weight is None else cx.cast(weight, dtype)
        y = _affine(cx, cx.op.Mul(x, rstd), w, None)
        return cx.cast(y, cx.out.dtype), cx.cast(rstd, cx.outs[1].dtype)
    x, w, _ = _alike(cx, input, weight, None)
    scale = w if w is not None else cx.ones(size, cx.dtype(x))
    return cx.cast(cx.op.RMSNormalization(x, scale, axis=-rank, epsilon=eps), cx.out.dtype), None


@lowers(aten.native_group_norm.default, numbers=("C", "group"))
def group_norm(
    cx: Rule,
    input: Value,
    weight: Value | None,
    bias: Value | None,
    N: Dim,
    C: Dim,
    HxW: Dim,
    group: int,
    eps: float,
) -> tuple[Value, Value | None, Value | None]:
    """input [N, C, *S], weight and bias [C] -> y [N, C, *S], mean and rstd [N, group].

    ONNX Runtime's CPU provider has no GroupNormalization: it is an InstanceNormalization of
    [N, group, C/group * S], or of the input itself where each channel is a group.
    Ref: https://onnx.ai/onnx/operators/onnx__InstanceNormalization.html
    """
    if _no_elements(cx):
        return cx.zeros(cx.out.dims, cx.out.dtype), _empty(cx, 1), _empty(cx, 2)
    if not isinstance(C, int):
        cx.decline(f"a group norm of {C} channels")
    dtype = torch.float64 if cx.out.dtype is torch.float64 else torch.float32
    x, dims = cx.cast(input, dtype), input.known_dims
    channel = (C, *(1 for _ in dims[2:]))
    w, b = (None if v is None else cx.cast(v, dtype) for v in (weight, bias))
    grouped = cx.reshape(x, (N, group, C // group * HxW))
    mean = rstd = None
    if used(cx, 1, 2) or dtype is torch.float64:
        mean, rstd = moments(cx, grouped, [2], eps)
        normal = cx.op.Mul(cx.op.Sub(grouped, mean), rstd)
        mean, rstd = (
            cx.cast(cx.reshape(v, m.dims), m.dtype)
            for v, m in zip((mean, rstd), cx.outs[1:], strict=True)
        )
    elif group == C and input.rank > 2:
        scale = w if w is not None else cx.ones((C,), dtype)
        shift = b if b is not None else cx.zeros((C,), dtype)
        y = cx.op.InstanceNormalization(x, scale, shift, epsilon=eps)
        return cx.cast(y, cx.out.dtype), None, None
    else:
        normal = cx.op.InstanceNormalization(
            grouped, cx.ones((group,), dtype), cx.zeros((group,), dtype), epsilon=eps
        )
        normal.dims = grouped.dims
    y = cx.reshape(normal, dims)
    w, b = (None if v is None else cx.reshape(v, channel) for v in (w, b))
    return cx.cast(_affine(cx, y, w, b), cx.out.dtype), mean, rstd


@lowers(aten._native_batch_norm_legit_no_training.default)
def batch_norm_inference(
    cx: Rule,
    input: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value,
    running_var: Value,
    momentum: float,
    eps: float,
) -> tuple[Value | None, ...]:
    """input [N, C, *S], the rest [C] -> y [N, C, *S] and statistics, which are empty here.

    Ref: https://onnx.ai/onnx/operators/onnx__BatchNormalization.html
    """
    y = normalize_channels(cx, input, weight, bias, running_mean, running_var, eps)
    return y, *(_empty(cx, index) for index in range(1, len(cx.outs)))


@lowers(aten._batch_norm_no_update.default)
def batch_norm_no_update(
    cx: Rule,
    input: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value | None,
    running_var: Value | None,
    momentum: float,
    eps: float,
) -> tuple[Value | None, ...]:
    """As `_native_batch_norm_legit_no_training`, with a reserve of bytes as fourth output."""
    if running_mean is None or running_var is None:
        cx.decline("a batch norm without running statistics")
    y = normalize_channels(cx, input, weight, bias, running_mean, running_var, eps)
    return y, *(_empty(cx, index) for index in range(1, len(cx.outs)))


@lowers(aten._native_batch_norm_legit.no_stats)
def batch_norm_of_the_batch(
    cx: Rule,
    input: Value,
    weight: Value | None,
    bias: Value | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Value | None, ...]:
    """input [N, C, *S] -> y [N, C, *S], mean and rstd [C]; the batch's own statistics.

    For a batch of one this is ONNX's InstanceNormalization; an instance norm comes as such a batch.
    Ref: https://onnx.ai/onnx/operators/onnx__InstanceNormalization.html
    """
    n, channels, *rest = input.known_dims
    whole = n == 1 and rest and not _no_elements(cx)
    if whole and cx.out.dtype is not torch.float64 and not used(cx, 1, 2):
        x, w, b = _alike(cx, input, weight, bias)
        scale = w if w is not None else cx.ones((channels,), cx.dtype(x))
        shift = b if b is not None else cx.zeros((channels,), cx.dtype(x))
        y = cx.op.InstanceNormalization(x, scale, shift, epsilon=eps)
        return cx.cast(y, cx.out.dtype), None, None
    y, mean, rstd, _ = _train(cx, input, weight, bias, eps)
    return y, mean, rstd


@lowers(
    aten._native_batch_norm_legit_functional.default,
    aten._native_batch_norm_legit.default,
    aten.native_batch_norm.default,
)
def batch_norm(
    cx: Rule,
    input: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value | None,
    running_var: Value | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Value | None, ...]:
    """input [N, C, *S] -> y [N, C, *S], mean and rstd [C]; functional also the new statistics.

    The two overloads that are not functional write to their running statistics when training;
    AOTAutograd never leaves such a call, so they mean inference here.
    """
    if not training:
        if running_mean is None or running_var is None:
            cx.decline("a batch norm in evaluation mode without running statistics")
        y = normalize_channels(cx, input, weight, bias, running_mean, running_var, eps)
        kept = zip((running_mean, running_var), cx.outs[3:], strict=False)
        updated = [cx.cast(value, meta.dtype) for value, meta in kept]
        return y, _empty(cx, 1), _empty(cx, 2), *updated
    if len(cx.outs) != 5 and running_mean is not None:
        cx.decline("a batch norm that writes to its running statistics")
    y, mean, rstd, var = _train(cx, input, weight, bias, eps)
    if len(cx.outs) != 5:
        return y, mean, rstd
    return y, mean, rstd, *_update(cx, input, running_mean, running_var, mean, var, momentum)


@lowers(aten._batch_norm_with_update_functional.default)
def batch_norm_with_update(
    cx: Rule,
    input: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value,
    running_var: Value,
    momentum: float,
    eps: float,
) -> tuple[Value | None, ...]:
    """As `_native_batch_norm_legit_functional` in training; the fourth output is empty."""
    y, mean, rstd, var = _train(cx, input, weight, bias, eps)
    updated = _update(cx, input, running_mean, running_var, mean, var, momentum)
    return y, mean, rstd, _empty(cx, 3), *updated


@lowers(aten._weight_norm_interface.default)
def weight_norm(cx: Rule, v: Value, g: Value, dim: int) -> tuple[Value, Value | None]:
    """v [*A, D, *B], g [1…, D, 1…] -> v * g / norm [*A, D, *B], norm like g; over all but dim."""
    dtype = torch.float64 if cx.out.dtype is torch.float64 else torch.float32
    wide, kept = cx.cast(v, dtype), cx.axis(dim, v.rank)
    axes = [i for i in range(v.rank) if i != kept]
    norm = cx.op.ReduceL2(wide, cx.ints(axes))
    norm.dims = tuple(d if i == kept else 1 for i, d in enumerate(v.known_dims))
    w = cx.op.Mul(wide, cx.op.Div(cx.cast(g, dtype), norm))
    return cx.cast(w, cx.out.dtype), cx.cast(norm, cx.outs[1].dtype)


# -------------------------------------------------------------------- helpers
def used(cx: Rule, *indices: int) -> bool:
    """Does the graph read any of these outputs of the node (or the node as a whole)?"""
    return any(
        user.target is not operator.getitem or user.args[1] in indices for user in cx.node.users
    )


def moments(cx: Rule, x: Value, axes: list[int], eps: float) -> tuple[Value, Value]:
    """Mean and 1/sqrt(var + eps) over axes, which are kept with size 1; in x's dtype."""
    mean, var = _mean_and_variance(cx, x, axes)
    return mean, _rsqrt(cx, var, eps)


def _mean_and_variance(cx: Rule, x: Value, axes: list[int]) -> tuple[Value, Value]:
    dims = tuple(1 if i in axes else d for i, d in enumerate(x.known_dims))
    where = cx.ints(axes)
    mean: Value = cx.op.ReduceMean(x, where)
    mean.dims = dims
    centred = cx.op.Sub(x, mean)
    var: Value = cx.op.ReduceMean(cx.op.Mul(centred, centred), where)
    var.dims = dims
    return mean, var


def _rsqrt(cx: Rule, var: Value, eps: float) -> Value:
    rstd: Value = cx.op.Reciprocal(cx.op.Sqrt(cx.op.Add(var, cx.scalar(eps, cx.dtype(var)))))
    return rstd


def normalize_channels(
    cx: Rule,
    input: Value,
    weight: Value | None,
    bias: Value | None,
    mean: Value,
    var: Value,
    eps: float,
) -> Value:
    """(input - mean) / sqrt(var + eps) * weight + bias along axis 1, in the input's dtype."""
    channels = (input.known_dims[1],)
    if cx.out.dtype is torch.float64:
        shape = (*channels, *(1 for _ in input.known_dims[2:]))
        w, b = (None if v is None else cx.reshape(v, shape) for v in (weight, bias))
        centred = cx.op.Sub(input, cx.reshape(mean, shape))
        return _affine(cx, cx.op.Mul(centred, cx.reshape(_rsqrt(cx, var, eps), shape)), w, b)
    scale = weight if weight is not None else cx.ones(channels, torch.float32)
    shift = cx.zeros(channels, cx.dtype(scale)) if bias is None else bias
    scale = cx.cast(scale, cx.dtype(shift))
    y: Value = cx.op.BatchNormalization(input, scale, shift, mean, var, epsilon=eps)
    return y


def _train(
    cx: Rule, input: Value, weight: Value | None, bias: Value | None, eps: float
) -> tuple[Value, Value, Value, Value]:
    """y [N, C, *S], mean, rstd and biased variance [C] of the batch."""
    if _no_elements(cx):
        cx.decline("a batch norm over no elements")
    dtype = torch.float64 if cx.out.dtype is torch.float64 else torch.float32
    axes = [i for i in range(input.rank) if i != 1]
    mean, var = (
        cx.reshape(v, (input.known_dims[1],))
        for v in _mean_and_variance(cx, cx.cast(input, dtype), axes)
    )
    y = normalize_channels(cx, input, weight, bias, mean, var, eps)
    rstd = _rsqrt(cx, var, eps)
    return y, cx.cast(mean, cx.outs[1].dtype), cx.cast(rstd, cx.outs[2].dtype), var


def _update(
    cx: Rule,
    input: Value,
    running_mean: Value | None,
    running_var: Value | None,
    mean: Value,
    var: Value,
    momentum: float,
) -> tuple[Value | None, Value | None]:
    """running * (1 - momentum) + momentum * new; the new variance is the unbiased one."""
    if running_mean is None or running_var is None:
        return None, None
    dtype = cx.dtype(var)
    dims = input.known_dims
    count = numel((dims[0], *dims[2:]))
    if count == 1:
        cx.decline("the unbiased variance of one element")
    bessel = cx.op.Div(cx.scalar(count, dtype), cx.scalar(count - 1, dtype))
    new = (cx.cast(mean, dtype), cx.op.Mul(var, bessel))
    old = (running_mean, running_var)
    keep, take = cx.scalar(1 - momentum, dtype), cx.scalar(momentum, dtype)
    updated = (
        cx.op.Add(cx.op.Mul(cx.cast(o, dtype), keep), cx.op.Mul(n, take))
        for o, n in zip(old, new, strict=True)
    )
    # In 16 bits torch's metadata says float32 here, and its kernel the type of the old statistics.
    first, second = (
        cx.cast(cx.cast(u, cx.dtype(o)), meta.dtype)
        for u, o, meta in zip(updated, old, cx.outs[-2:], strict=True)
    )
    return first, second


def _affine(cx: Rule, x: Value, weight: Value | None, bias: Value | None) -> Value:
    if weight is not None:
        x = cx.op.Mul(x, weight)
    if bias is not None:
        x = cx.op.Add(x, bias)
    return x


def _alike(
    cx: Rule, x: Value, *parameters: Value | None
) -> tuple[Value, *tuple[Value | None, ...]]:
    """x and its parameters, in float32 if their dtypes differ: ONNX has one type for them."""
    if all(p is None or p.elem == x.elem for p in parameters):
        return x, *parameters
    wide = torch.float32
    return cx.cast(x, wide), *(None if p is None else cx.cast(p, wide) for p in parameters)


def _no_elements(cx: Rule) -> bool:
    return any(d == 0 for d in cx.out.dims)


def _empty(cx: Rule, index: int) -> Value | None:
    """The output at this index if it has no elements (what ATen returns beside y in inference)."""
    meta = cx.outs[index]
    empty = is_static(meta.dims) and numel(meta.dims) == 0
    return cx.zeros(meta.dims, meta.dtype) if empty else None


__all__ = ["moments", "normalize_channels", "used"]
