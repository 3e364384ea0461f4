"""Dropout on the CPU: masks drawn as eager draws them, before the first region."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dynamo_onnx
from tests.backend.test_training import Dropping, gradients, same

torch.manual_seed(0)


def test_dropout_draws_what_eager_draws() -> None:
    model = Dropping().train()
    other = copy.deepcopy(model)
    compiled = torch.compile(model, backend="onnx")
    x = torch.randn(8, 16)
    same(gradients(compiled, model, x), gradients(other, other, x))
    report = dynamo_onnx.report(compiled)
    (fallback,) = report.fallbacks
    assert fallback.op == "dynamo_onnx.dropout_mask.default"
    assert fallback.reason.kind.value == "random numbers"
    assert report.regions == 2  # forward and backward, each in one piece


class Drawing(nn.Module):
    """Dropouts with another draw between them, one of a size that no input has."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(8, 32), nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = F.dropout(torch.relu(self.wide(x)), 0.25)
        y = F.dropout(y, 0.1) + torch.rand_like(y) * y
        y = F.dropout(y.t(), 0.4).t().contiguous()  # drawn in the order of its memory
        z = F.dropout(self.narrow(y).reshape(-1), 0.5).view(x.shape)
        return z.tanh() + F.dropout(x * 2, 0.7).sin()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_draws_keep_their_order(dtype: torch.dtype) -> None:
    """Whatever is drawn first; for sizes that change, also such as no input has."""
    model = Drawing()
    other = copy.deepcopy(model)
    compiled = torch.compile(model, backend="onnx", dynamic=True)
    for rows in (5, 6, 9):
        x = torch.randn(rows, 8)
        with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
            tolerance = 1e-4 if dtype is torch.float32 else 2e-2
            same(gradients(compiled, model, x), gradients(other, other, x), tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (0, 2, 3, 1)], ids=str)
def test_a_dropout_is_eagers_to_the_bit(dtype: torch.dtype, order: tuple[int, ...]) -> None:
    """For each dtype, in whose rounding the kernel scales, and layout, whose order it draws in."""
    x = (torch.randn(4, 6, 8, 5).permute(order) * 3).to(dtype)

    def dropped(x: Tensor) -> Tensor:
        return F.dropout(torch.relu(x), 0.3) * 2

    compiled = torch.compile(dropped, backend="onnx")
    torch.manual_seed(5)
    expected = dropped(x)
    torch.manual_seed(5)
    found = compiled(x)
    assert found.stride() == expected.stride()
    assert torch.equal(found, expected)


def test_a_dropout_can_be_left_whole() -> None:
    model = Dropping().train()
    other = copy.deepcopy(model)
    compiled = torch.compile(model, backend="onnx", options={"eager_ops": ["native_dropout"]})
    x = torch.randn(8, 16)
    same(gradients(compiled, model, x), gradients(other, other, x))
    reasons = {f.op: f.reason.kind.value for f in dynamo_onnx.report(compiled).fallbacks}
    assert reasons["aten.native_dropout.default"] == "eager_ops"


def test_infinities_and_nan_are_dropped_as_in_eager() -> None:
    """Eager multiplies by the mask: what is dropped of an infinity is NaN."""
    compiled = torch.compile(lambda x: F.dropout(x, 0.5), backend="onnx")
    x = torch.tensor([torch.inf, -torch.inf, torch.nan, 1.0] * 8)
    torch.manual_seed(3)
    expected = F.dropout(x, 0.5)
    torch.manual_seed(3)
    torch.testing.assert_close(compiled(x), expected, equal_nan=True, rtol=0, atol=0)
