"""Backward operators that torch keeps whole, in terms of others: for the graphs of training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .torch_private import OpOverload

aten = torch.ops.aten

CHANNELS_OF_PRODUCTS = 16  # per place of a kernel, for a product of matrices to be worth it


def attention_backward(
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    dropout_p: float,
    is_causal: bool,
    *,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """grad_out, query, out [B, H, L, E]; key, value [B, Hk, S, E] -> those of query, key, value.

    The scores are computed again, and so is their log-sum-exp: then the forward pass need not
    return it, and takes the operator that has the whole of attention. A row that is left out whole
    has gradients of zero. Dropout never comes here: torch takes other operators for it.
    """
    assert dropout_p == 0.0, "this operator is for attention without dropout"
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query @ key.transpose(2, 3)) * factor
    if is_causal:
        rows, columns = scores.shape[2:]
        seen = torch.ones(rows, columns, dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~seen, -math.inf)
    if attn_mask is not None:
        scores = scores + attn_mask
    weights = scores.softmax(-1)
    if attn_mask is not None:
        left_out = (scores == -math.inf).all(-1, keepdim=True)
        weights = weights.masked_fill(left_out, 0.0)
    grad_value = weights.transpose(2, 3) @ grad_out
    grad_weights = grad_out @ value.transpose(2, 3)
    grad_scores = weights * (grad_weights - (grad_out * out).sum(-1, keepdim=True)) * factor
    grad_query = grad_scores @ key
    grad_key = grad_scores.transpose(2, 3) @ query
    if groups > 1:
        grad_key, grad_value = (x.unflatten(1, (-1, groups)).sum(2) for x in (grad_key, grad_value))
    return grad_query, grad_key, grad_value


def convolution_backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """grad_output [N, O, *out], input [N, I, *in], weight -> the gradients that the mask asks for.

    Convolving and transposed convolving are each other's gradients by the input.
    """
    rank = input.dim() - 2
    stride, padding, dilation = (
        [*given] * rank if len(given) == 1 else [*given] for given in (stride, padding, dilation)
    )
    wants_input, wants_weight, wants_bias = output_mask
    grad_input = grad_weight = grad_bias = None
    if wants_input and transposed:
        grad_input = aten.convolution(
            grad_output, weight, None, stride, padding, dilation, False, [0] * rank, groups
        )
    elif wants_input:
        grad_input = _input_gradient(
            grad_output, input.shape[2:], weight, stride, padding, dilation, groups
        )
    if wants_weight:
        image, kernel = (grad_output, input) if transposed else (input, grad_output)
        grad_weight = _weight_gradient(
            image, kernel, weight.shape, stride, padding, dilation, groups
        )
    if wants_bias:
        grad_bias = grad_output.sum([0, *range(2, rank + 2)])
    return grad_input, grad_weight, grad_bias


def _input_gradient(
    grad_output: Tensor,
    sizes: Sequence[int],
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """grad_output [N, O, *out], weight [O, I/groups, *K] -> [N, I, *sizes].

    Without strides by the turned kernel, which onnxruntime computes some three times as fast as a
    transposed convolution.
    """
    rank = len(sizes)
    reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    around = [r - p for r, p in zip(reach, padding, strict=True)]
    if all(s == 1 for s in stride) and all(p >= 0 for p in around):
        turned = _turned(weight).unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
        return aten.convolution(
            grad_output, turned, None, stride, around, dilation, False, [0] * rank, groups
        )
    outs = zip(grad_output.shape[2:], stride, padding, reach, strict=True)
    made = [(n - 1) * s - 2 * p + r + 1 for n, s, p, r in outs]
    missing = [size - m for size, m in zip(sizes, made, strict=True)]
    return aten.convolution(
        grad_output, weight, None, stride, padding, dilation, True, missing, groups
    )


def _turned(weight: Tensor) -> Tensor:
    """weight [O, I, *K], each axis of K backwards: all of K at once, multiplied by a permutation.

    onnxruntime reads slices backwards one element after the other.
    """
    places = weight[0, 0].numel()
    if places == 1:
        return weight
    order = torch.eye(places, dtype=weight.dtype, device=weight.device).flip(0)
    return (weight.flatten(2) @ order).reshape(weight.shape)


def _weight_gradient(
    image: Tensor,
    kernel: Tensor,
    dims: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """image [N, G*A, *in], kernel [N, G*B, *out] -> [G*B, A, *K]: sums over all positions.

    For each place of the weight it is a product of matrices; with few channels, or several groups,
    one convolution of the image by the kernel, batch and channels exchanged; where each channel
    stays to itself, one of each channel of each element of the batch, which the CPU is good at
    (`runtime/depthwise.py`).
    """
    rank = image.dim() - 2
    batch, channels = kernel.shape[:2]
    if isinstance(batch, int) and batch == 0:
        return kernel.new_zeros(dims)
    depthwise = rank == 2 and 1 < groups == channels and dims[1] == 1
    floats_on_cpu = image.device.type == "cpu" and image.dtype is torch.float32
    if depthwise and floats_on_cpu and isinstance(batch, int):
        alone = batch * groups
        image = image.reshape(1, alone, *image.shape[2:])
        kernel = kernel.reshape(alone, 1, *kernel.shape[2:])
        found = aten.convolution(
            image, kernel, None, dilation, padding, stride, False, [0] * rank, alone
        )
        return _first(found, dims[2:]).reshape(batch, *dims).sum(0)
    if groups == 1 and (dims[1] >= CHANNELS_OF_PRODUCTS or all(k == 1 for k in dims[2:])):
        if any(padding):
            image = functional.pad(image, [p for p in reversed(padding) for _ in range(2)])
        image = image.movedim(1, -1)
        rows = kernel.movedim(1, -1).flatten(0, -2).t()
        products: list[Tensor] = []
        for place in itertools.product(*map(range, dims[2:])):
            seen = image
            for axis, (at, d, s, n) in enumerate(
                zip(place, dilation, stride, kernel.shape[2:], strict=True)
            ):
                seen = aten.slice(seen, axis + 1, at * d, at * d + (n - 1) * s + 1, s)
            products.append(rows @ seen.flatten(0, -2))
        return torch.stack(products, -1).reshape(dims)
    # [N, G*A, *in] -> [A, G*N, *in] and [N, G*B, *out] -> [G*B, N, *out]
    image = image.unflatten(1, (groups, -1)).permute(2, 1, 0, *range(3, rank + 3)).flatten(1, 2)
    kernel = kernel.transpose(0, 1)
    found = aten.convolution(
        image, kernel, None, dilation, padding, stride, False, [0] * rank, groups
    )
    return _first(found, dims[2:]).transpose(0, 1)


def _first(found: Tensor, sizes: Sequence[int]) -> Tensor:
    """[*, *, *more] -> [*, *, *sizes]: a stride can leave a rest of the input unread."""
    for axis, size in enumerate(sizes):
        found = found.narrow(axis + 2, 0, size)
    return found


def adaptive_average_backward(grad_output: Tensor, self: Tensor, *, rank: int) -> Tensor:
    """grad_output [*, C, *out], self [*, C, *in] -> [*, C, *in]: each mean shared by its inputs."""
    for axis in range(grad_output.dim() - rank, grad_output.dim()):
        size, count = self.shape[axis], grad_output.shape[axis]
        if size % count == 0:
            grad_output = _repeated(grad_output / (size // count), axis, size // count)
        else:
            units = torch.eye(size, dtype=self.dtype, device=self.device)[None]
            shares = aten._adaptive_avg_pool2d(units.unsqueeze(3), [count, 1]).squeeze(3)[0]
            grad_output = _along(grad_output, axis, shares)
    return grad_output


def average_pool_backward(
    grad_output: Tensor,
    self: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
    *,
    rank: int,
) -> Tensor:
    """grad_output [*, C, *out], self [*, C, *in] -> [*, C, *in]: each mean's share to its inputs.

    A window is a product of ranges, and so is what it divides by. Windows side by side are
    repetitions, others a transposed convolution of each channel by ones.
    """
    kernel, padding = (
        [*given] * rank if len(given) == 1 else [*given] for given in (kernel_size, padding)
    )
    step = [*stride] * rank if len(stride) == 1 else [*stride] or kernel
    first = grad_output.dim() - rank
    sizes, counts = self.shape[first:], grad_output.shape[first:]
    if divisor_override is not None:
        grad_output = grad_output / divisor_override
    else:
        for axis, (k, s, p) in enumerate(zip(kernel, step, padding, strict=True)):
            start = torch.arange(counts[axis], device=self.device) * s - p
            end = (start + k).clamp(max=sizes[axis] + p)
            if not count_include_pad:
                start, end = start.clamp(min=0), end.clamp(max=sizes[axis])
            width = (end - start).to(self.dtype)
            grad_output = grad_output / width.reshape([-1, *[1] * (rank - 1 - axis)])
    if step == kernel and all(n == c * k for n, c, k in zip(sizes, counts, kernel, strict=True)):
        for axis, k in enumerate(kernel):
            grad_output = _repeated(grad_output, first + axis, k)
        return grad_output
    batched = grad_output if first == 2 else grad_output.unsqueeze(0)
    channels = batched.shape[1]
    ones = torch.ones([channels, 1, *kernel], dtype=self.dtype, device=self.device)
    made = [
        (c - 1) * s - 2 * p + k for c, s, p, k in zip(counts, step, padding, kernel, strict=True)
    ]
    missing = [max(n - m, 0) for n, m in zip(sizes, made, strict=True)]
    found = aten.convolution(
        batched, ones, None, step, padding, [1] * rank, True, missing, channels
    )
    for axis, size in enumerate(sizes):  # the last window may reach beyond the end
        found = found.narrow(2 + axis, 0, size)
    return found if first == 2 else found.squeeze(0)


def _repeated(values: Tensor, axis: int, times: int) -> Tensor:
    """values [*A, n, *B] -> [*A, n * times, *B], each element so often in a row."""
    if times == 1:
        return values
    dims = [*values.shape]
    wide = values.unsqueeze(axis + 1).expand(*dims[: axis + 1], times, *dims[axis + 1 :])
    return wide.reshape(*dims[:axis], dims[axis] * times, *dims[axis + 1 :])


def interpolation_backward(interpolate: OpOverload, rank: int) -> Callable[..., Tensor]:
    """The gradient of an interpolation, which along each axis is a matrix [in, out].

    `interpolate` is the operator for one axis [1, in, in], or for two of which the last one has
    size 1. What it makes of the unit vectors is the matrix.
    """
    axes = 1 if interpolate.name().split(".")[0].endswith("1d") else 2

    def backward(
        grad_output: Tensor,
        output_size: Sequence[int],
        input_size: Sequence[int],
        *others: Any,  # noqa: ANN401 - align_corners for some, then scales, as many as are given
    ) -> Tensor:
        corners = others[:1] if isinstance(next(iter(others), None), bool) else ()
        scales = [*others[len(corners) :], *[None] * rank]
        for axis in range(rank):
            size, count = input_size[2 + axis], output_size[axis]
            units = torch.eye(size, dtype=grad_output.dtype, device=grad_output.device)[None]
            if axes == 1:
                matrix = interpolate(units, [count], *corners, scales[axis])[0]
            else:
                made = interpolate(units.unsqueeze(3), [count, 1], *corners, scales[axis], None)
                matrix = made.squeeze(3)[0]
            grad_output = _along(grad_output, 2 + axis, matrix)
        return grad_output

    return backward


def max_pool_backward(
    grad_output: Tensor,
    self: Tensor,
    *others: Any,  # noqa: ANN401 - windows, which the indices know
    rank: int,
) -> Tensor:
    """grad_output and indices [*, C, *out] -> [*, C, *in]: added up at the indices."""
    indices: Tensor = others[-1]
    flat = grad_output.flatten(-rank)
    found = torch.zeros_like(self).flatten(-rank).scatter_add(-1, indices.flatten(-rank), flat)
    return found.reshape(self.shape)


def distances_backward(grad: Tensor, x1: Tensor, x2: Tensor, p: float, cdist: Tensor) -> Tensor:
    """grad, cdist [*B, P, R], x1 [*B, P, M], x2 [*B, R, M] -> [*B, P, M]: that of x1.

    Equal points have no gradient.
    Ref: aten/src/ATen/native/cpu/DistanceOpsKernel.cpp
    """
    apart = x1.unsqueeze(-2) - x2.unsqueeze(-3)
    far, grad = cdist.unsqueeze(-1), grad.unsqueeze(-1)
    if p == 0:
        return torch.zeros_like(x1)
    if p == 1:
        return (grad * apart.sign()).sum(-2)
    if p == math.inf:
        return (grad * apart.sign() * (apart.abs() == far)).sum(-2)
    slope = apart if p == 2 else apart.sign() * apart.abs().pow(p - 1)
    length = far if p == 2 else far.pow(p - 1)
    return (grad * slope / length).masked_fill(far == 0, 0).sum(-2)


def replication_backward(grad_output: Tensor, self: Tensor, padding: Sequence[int]) -> Tensor:
    """grad_output [*, C, *padded] -> [*, C, *in]: borders get what their repetitions got."""
    rank = len(padding) // 2
    last = grad_output.dim() - 1
    for place in range(rank):
        axis = last - place
        before, size = padding[2 * place], self.shape[axis]
        inside = torch.arange(grad_output.shape[axis], device=self.device) - before
        index = inside.clamp(0, size - 1)
        zeros = grad_output.new_zeros(
            [size if i == axis else n for i, n in enumerate(grad_output.shape)]
        )
        grad_output = zeros.index_add(axis, index, grad_output)
    return grad_output


def _along(values: Tensor, axis: int, matrix: Tensor) -> Tensor:
    """values [*A, out, *B] by matrix [in, out] -> [*A, in, *B].

    What is infinite or NaN makes NaN of what it reaches, and of nothing else.
    """
    finite = values.isfinite()
    product = _times(values.masked_fill(~finite, 0.0), axis, matrix)
    reached = _times((~finite).to(values.dtype), axis, (matrix != 0).to(values.dtype))
    return product.masked_fill(reached > 0, math.nan)


def _times(values: Tensor, axis: int, matrix: Tensor) -> Tensor:
    last = values.dim() - 1
    if axis == last:
        return values @ matrix.t()
    if axis == last - 1:
        return matrix @ values
    return (values.transpose(axis, last) @ matrix.t()).transpose(axis, last)


_INTERPOLATIONS = {
    **{f"upsample_nearest{n}d": ("upsample_nearest1d", n) for n in (1, 2, 3)},
    **{f"_upsample_nearest_exact{n}d": ("_upsample_nearest_exact1d", n) for n in (1, 2, 3)},
    "upsample_linear1d": ("upsample_linear1d", 1),
    "upsample_bilinear2d": ("upsample_linear1d", 2),
    "upsample_trilinear3d": ("upsample_linear1d", 3),
    "upsample_bicubic2d": ("upsample_bicubic2d", 2),
    "_upsample_bilinear2d_aa": ("_upsample_bilinear2d_aa", 2),
    "_upsample_bicubic2d_aa": ("_upsample_bicubic2d_aa", 2),
}
GRADIENTS: Mapping[OpOverload, Callable[..., Any]] = {
    aten._scaled_dot_product_flash_attention_for_cpu_backward.default: attention_backward,
    aten.convolution_backward.default: convolution_backward,
    aten._adaptive_avg_pool2d_backward.default: partial(adaptive_average_backward, rank=2),
    aten._adaptive_avg_pool3d_backward.default: partial(adaptive_average_backward, rank=3),
    aten.avg_pool2d_backward.default: partial(average_pool_backward, rank=2),
    aten.avg_pool3d_backward.default: partial(average_pool_backward, rank=3),
    aten.adaptive_max_pool2d_backward.default: partial(max_pool_backward, rank=2),
    aten.adaptive_max_pool3d_backward.default: partial(max_pool_backward, rank=3),
    aten.max_pool3d_with_indices_backward.default: partial(max_pool_backward, rank=3),
    aten._cdist_backward.default: distances_backward,
    aten.replication_pad1d_backward.default: replication_backward,
    aten.replication_pad2d_backward.default: replication_backward,
    aten.replication_pad3d_backward.default: replication_backward,
    **{
        getattr(aten, f"{name}_backward").default: interpolation_backward(
            getattr(aten, one).default, rank
        )
        for name, (one, rank) in _INTERPOLATIONS.items()
    },
}
