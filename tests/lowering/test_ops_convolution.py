"""Convolution rules against eager."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dynamo_onnx.runtime.errors import ReasonKind

from .harness import Case, check, lower


def rand(*dims, dtype=torch.float32, seed=0):
    return torch.randn(*dims, generator=torch.Generator().manual_seed(seed)).to(dtype)


X1, X2, X3 = rand(2, 4, 9), rand(2, 4, 9, 8), rand(2, 4, 5, 6, 7)
W1, W2, W3 = rand(6, 4, 3, seed=1), rand(6, 4, 3, 2, seed=1), rand(6, 4, 3, 2, 3, seed=1)
BIAS = rand(6, seed=2)


def conv(function, **options):
    return lambda x, w: function(x, w, **options)


CASES = [
    Case("conv1d", conv(F.conv1d), (X1, W1), max_nodes=1),
    Case("conv2d", conv(F.conv2d), (X2, W2), max_nodes=1),
    Case("conv3d", conv(F.conv3d), (X3, W3), max_nodes=1),
    Case("conv2d with a bias", F.conv2d, (X2, W2, BIAS), max_nodes=1),
    Case("conv2d with symbolic dims", conv(F.conv2d, stride=2, padding=1), (X2, W2), dynamic=True,
         max_nodes=1),
    Case("conv2d, every option per dim",
         conv(F.conv2d, stride=(2, 1), padding=(1, 2), dilation=(1, 3)), (X2, W2)),
    Case("conv2d, depthwise", conv(F.conv2d, groups=4), (X2, rand(8, 1, 3, 3)), max_nodes=1),
    Case("conv2d in two groups", conv(F.conv2d, groups=2), (X2, rand(6, 2, 3, 3))),
    Case("conv2d with padding wider than its kernel", conv(F.conv2d, padding=2),
         (X2, rand(6, 4, 1, 1))),
    Case("conv2d with padding='same' that is uneven", conv(F.conv2d, padding="same"), (X2, W2)),
    Case("conv1d with one number for all dims", lambda x, w: torch.ops.aten.convolution.default(
        x, w, None, [2], [1], [1], False, [0], 1), (X2, W2)),
    Case("conv2d of an empty batch", conv(F.conv2d), (X2[:0], W2)),
    Case("conv2d in float16", conv(F.conv2d), (X2.half(), W2.half()), tolerance=4e-3),
    Case("conv2d in bfloat16", conv(F.conv2d), (X2.bfloat16(), W2.bfloat16()), tolerance=3e-2),
    Case("conv_transpose1d", conv(F.conv_transpose1d, stride=2), (X1, rand(4, 6, 3)), max_nodes=1),
    Case("conv_transpose2d", F.conv_transpose2d, (X2, rand(4, 6, 3, 2), BIAS), max_nodes=1),
    Case("conv_transpose2d, every option",
         conv(F.conv_transpose2d, stride=(2, 3), padding=(1, 0), output_padding=(1, 2),
              groups=2, dilation=(2, 1)), (X2, rand(4, 3, 3, 2)), max_nodes=1),
    Case("conv_transpose2d with symbolic dims",
         conv(F.conv_transpose2d, stride=2, output_padding=1),
         (X2, rand(4, 3, 3, 2)), dynamic=True),
    Case("conv_transpose3d", conv(F.conv_transpose3d, stride=2, output_padding=(1, 0, 1), groups=2),
         (X3, rand(4, 3, 3, 2, 2))),
    Case("conv_transpose2d of an empty batch", F.conv_transpose2d,
         (X2[:0], rand(4, 6, 3, 2), BIAS)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_convolution(case: Case) -> None:
    check(case)


def test_float64_stays_eager_for_want_of_a_kernel() -> None:
    (reason,) = lower(conv(F.conv2d), X2.double(), W2.double()).reasons
    assert reason.kind is ReasonKind.KERNEL


def test_an_output_padding_that_onnxruntime_refuses_stays_eager() -> None:
    transposed = conv(F.conv_transpose2d, output_padding=1, dilation=2)
    (reason,) = lower(transposed, X2, rand(4, 3, 3, 2)).reasons
    assert "output_padding" in reason.detail


def test_a_transposed_convolution_of_float16_stays_eager() -> None:
    (reason,) = lower(F.conv_transpose2d, X2.half(), rand(4, 3, 3, 2).half()).reasons
    assert "one by one" in reason.detail
