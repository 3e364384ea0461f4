"""What onnxruntime is given to run, and what it makes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from dynamo_onnx.backend.state import state

W = torch.randn(8, 4)


def compiled(fn: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    torch._dynamo.reset()
    return torch.compile(fn, backend="onnx", options={"strict": True, **options})


def optimized(fn: Callable[..., Any], path: Path, *args: Tensor) -> Counter[str]:
    """The operators that onnxruntime runs for fn(*args)."""
    settings = {"optimized_model_filepath": str(path)}
    with torch.no_grad():
        compiled(fn, session_options=settings)(*args)
    return Counter(node.op_type for node in onnx.load(path, load_external_data=False).graph.node)


def linear(x: Tensor) -> Tensor:
    return x @ W


def product_and_its_sum(x: Tensor) -> tuple[Tensor, Tensor]:
    y = x @ W
    return y, y.sum(-1)


def reshaped(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.exp().reshape(-1), x.exp().reshape(8, -1)


def reshaped_input(x: Tensor) -> Tensor:
    return x.reshape(-1)


@pytest.mark.parametrize(
    ("fn", "reshapes"),
    [(linear, 1), (product_and_its_sum, 2), (reshaped, 1)],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_a_reshape_at_the_end_is_torchs_view(
    fn: Callable[..., Any], reshapes: int, tmp_path: Path
) -> None:
    x = torch.randn(2, 3, 8)
    assert optimized(fn, tmp_path / "model.onnx", x)["Reshape"] == reshapes
    torch.testing.assert_close(compiled(fn)(x), fn(x))


@pytest.mark.parametrize("fn", [linear, product_and_its_sum, reshaped_input])
def test_of_symbolic_sizes_too(fn: Callable[..., Any]) -> None:
    torch._dynamo.reset()
    made = torch.compile(fn, backend="onnx", dynamic=True, options={"strict": True})
    for shape in ((2, 3, 8), (5, 4, 8), (7, 2, 8)):
        x = torch.randn(shape)
        torch.testing.assert_close(made(x), fn(x))
    opened = [r.executable()._opened for g in state.graphs for r in g.regions][-1]
    assert len(opened.reshaped) == (0 if fn is reshaped_input else 1)


def test_add_and_layer_norm_stay_two_on_the_cpu(tmp_path: Path) -> None:
    norm = nn.LayerNorm(16).eval()
    ops = optimized(lambda x, y: norm(x + y), tmp_path / "model.onnx", *torch.randn(2, 4, 16))
    assert ops == {"Add": 1, "LayerNormalization": 1}
