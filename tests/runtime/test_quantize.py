"""Quantized weights: the layout that onnxruntime reads, the error, and who shares them."""

from __future__ import annotations

import gc

import pytest
import torch

from dynamo_onnx.runtime.quantize import BLOCK, QuantizedWeight, QuantizedWeights, quantize


def dequantized(weight: QuantizedWeight, bits: int) -> torch.Tensor:
    """[N, K] as the operator's documentation defines it."""
    n, k = weight.features
    packed = weight.packed
    integers = packed if bits == 8 else torch.stack([packed & 15, packed >> 4], -1).flatten(-2)
    centred = integers.float() - 2 ** (bits - 1)
    return (centred * weight.scales[..., None]).reshape(n, -1)[:, :k]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shape", [(1, 1), (3, 31), (5, 32), (7, 33), (64, 100), (300, 2048)])
def test_every_weight_is_within_half_a_step_but_those_that_clip(
    bits: int, shape: tuple[int, int]
) -> None:
    weight = torch.randn(shape)
    made = quantize(weight, bits)
    assert made is not None
    back = dequantized(made, bits)
    steps = made.scales.repeat_interleave(BLOCK, 1)[:, : shape[1]]
    away = (weight - back) / steps
    assert away.min() >= -0.5001
    assert away.max() <= 1.0001  # what is as far from 0 as the furthest, on the other side
    error = (weight - back).norm() / weight.norm()
    torch.testing.assert_close(made.error, error.item(), rtol=1e-4, atol=1e-6)
    blocks = -(-shape[1] // BLOCK)
    assert made.packed.shape == (shape[0], blocks, BLOCK * bits // 8)
    assert made.size_bytes == shape[0] * blocks * (BLOCK * bits // 8 + 4)


@pytest.mark.parametrize("bits", [4, 8])
def test_zeros_tiny_and_huge_weights_come_back(bits: int) -> None:
    weight = torch.zeros(4, 64)
    weight[1], weight[2], weight[3] = 1e-45, -3e38, torch.linspace(-1, 1, 64)
    made = quantize(weight, bits)
    assert made is not None
    back = dequantized(made, bits)
    assert torch.equal(back[0], torch.zeros(64))
    torch.testing.assert_close(back[1], weight[1], atol=1e-44, rtol=0)
    torch.testing.assert_close(back[2], weight[2])
    assert quantize(torch.zeros(2, 40), bits).error == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("at", [0, 39])
def test_a_weight_that_is_not_finite_is_not_quantized(odd: float, at: int) -> None:
    weight = torch.randn(3, 40)
    weight[1, at] = odd
    assert quantize(weight, 8) is None


def test_the_default_dtype_and_inference_mode_change_nothing() -> None:
    weight = torch.randn(40, 70)
    plain = quantize(weight, 4)
    assert plain is not None
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            made = quantize(weight, 4)
    finally:
        torch.set_default_dtype(torch.float32)
    assert made is not None
    assert made.scales.dtype is torch.float32
    assert torch.equal(made.packed, plain.packed)


def test_a_transposed_view_is_quantized_as_its_copy() -> None:
    weight = torch.randn(70, 40)
    view, copy = quantize(weight.t(), 4), quantize(weight.t().contiguous(), 4)
    assert view is not None
    assert copy is not None
    assert torch.equal(view.packed, copy.packed)
    assert torch.equal(view.scales, copy.scales)


def test_one_weight_is_quantized_once_while_it_is_in_use_and_unchanged() -> None:
    weights, weight = QuantizedWeights(), torch.randn(40, 64)
    first = weights.of(weight, 8)
    assert weights.of(weight.detach(), 8) is first
    assert weights.of(weight, 4) is not first
    assert weights.of(weight.t(), 8) is not first
    weight.data.copy_(torch.randn(40, 64))  # neither version nor address tells
    second = weights.of(weight, 8)
    assert second is not first
    assert weights.of(weight, 8) is second
    weight.add_(1.0)
    assert weights.of(weight, 8) is not second


def test_nothing_is_kept_that_is_not_in_use() -> None:
    weights = QuantizedWeights()
    made = weights.of(torch.randn(40, 64), 8)
    assert len(weights._made) == 1
    del made
    gc.collect()
    assert len(weights._made) == 0
