"""Operators that torch has whole for inference, taken apart by us."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import dynamo_onnx

X = torch.randn(2, 5, 16)
OF_KEYS = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
CAUSAL = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)
NOTHING_LEFT = torch.tensor([[True] * 5, [False] * 5])
MASKS: dict[str, dict[str, Any]] = {
    "no mask": {},
    "a mask of keys": {"key_padding_mask": OF_KEYS},
    "a causal mask": {"attn_mask": CAUSAL},
    "both masks": {"key_padding_mask": OF_KEYS, "attn_mask": CAUSAL},
    "a mask that leaves nothing": {"key_padding_mask": NOTHING_LEFT},
}


def in_graph(ours: Any) -> None:
    assert dynamo_onnx.report(ours).graphs == 1


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("mask", MASKS)
def test_encoder_layer(mask: str, norm_first: bool, activation: str) -> None:
    layer = nn.TransformerEncoderLayer(
        16, 4, 32, batch_first=True, norm_first=norm_first, activation=activation
    ).eval()
    masks = {
        {"key_padding_mask": "src_key_padding_mask", "attn_mask": "src_mask"}[name]: value
        for name, value in MASKS[mask].items()
    }
    ours = torch.compile(layer, backend="onnx", options={"strict": True})
    with torch.no_grad():
        torch.testing.assert_close(ours(X, **masks), layer(X, **masks), equal_nan=True)
    in_graph(ours)


def test_dynamic_lengths() -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
    ours = torch.compile(layer, backend="onnx", dynamic=True, options={"strict": True})
    with torch.no_grad():
        for length in (5, 7):
            x = torch.randn(2, length, 16)
            torch.testing.assert_close(ours(x), layer(x))


@pytest.mark.parametrize("upper", [False, True])
def test_a_cholesky_factor_and_its_error(upper: bool) -> None:
    ours = torch.compile(
        lambda x: torch.cholesky(x, upper) * 2, backend="onnx", options={"strict": True}
    )
    x = torch.randn(3, 4, 4)
    x = x @ x.mT + torch.eye(4)
    torch.testing.assert_close(ours(x), torch.cholesky(x, upper) * 2, check_stride=True)
    with pytest.raises(torch.linalg.LinAlgError, match="not positive-definite"):
        ours(-x)
