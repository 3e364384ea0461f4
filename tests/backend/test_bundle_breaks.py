"""Bundles of models whose graphs Dynamo breaks: what Python does between them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

import dynamo_onnx


def bundled(model: nn.Module, calls: list[tuple[Any, ...]], to: Path) -> Any:
    """Compiled for these calls, saved and loaded; it answers them as eager does."""
    torch._dynamo.reset()
    model.eval()
    compiled = torch.compile(model, backend="onnx")
    with torch.no_grad():
        expected = [model(*args) for args in calls]
        for args in calls:
            compiled(*args)
    dynamo_onnx.save(compiled, to / "m.onnxbundle")
    bundle = dynamo_onnx.load(to / "m.onnxbundle")
    for args, wanted in zip(calls, expected, strict=True):
        torch.testing.assert_close(bundle(*args), wanted)
    return bundle


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.factors = {"half": 0.5}

    def forward(self, x: Tensor, factor: float = 1.0) -> Tensor:
        y = self.linear(x)
        torch._dynamo.graph_break()
        return y * factor


class Halved(Scaled):
    def forward(self, x: Tensor, factor: float = 1.0) -> Tensor:
        return super().forward(x, self.factors.get("half", factor))


class Careful(Scaled):
    """Dynamo cannot go on within a `try`: this frame stays Python."""

    def forward(self, x: Tensor, factor: float = 1.0) -> Tensor:
        try:
            return super().forward(x, self.factors.get("half", factor))
        finally:
            self.factors.get("third")


class Resumed(Scaled):
    """Behind the break is code with a variable of an enclosing scope, which `super()` reads."""

    def forward(self, x: Tensor, factor: float = 1.0) -> Tensor:
        y = x + 1
        torch._dynamo.graph_break()
        return super().forward(y * 2, factor)


class Around(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + 1) * 3


@pytest.mark.parametrize("kind", [Halved, Careful, Resumed])
def test_the_method_of_the_class_above_is_followed(tmp_path: Path, kind: type[Scaled]) -> None:
    bundled(Around(kind()), [(torch.randn(2, 4),)], tmp_path)


class Filling(nn.Module):
    """An output that is made before a break, and gets another value behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> BaseModelOutput:
        made = BaseModelOutput(last_hidden_state=self.linear(x))
        torch._dynamo.graph_break()
        made.last_hidden_state = made.last_hidden_state + 1
        return made


def test_an_object_that_the_model_has_made_may_be_changed(tmp_path: Path) -> None:
    model, x = Filling().eval(), torch.randn(2, 4)
    compiled = torch.compile(model, backend="onnx")
    with torch.no_grad():
        expected = model(x).last_hidden_state
        compiled(x)
    dynamo_onnx.save(compiled, tmp_path / "m.onnxbundle")
    found = dynamo_onnx.load(tmp_path / "m.onnxbundle")(x)
    torch.testing.assert_close(found["last_hidden_state"], expected)
    torch.testing.assert_close(found.last_hidden_state, expected)


class Checking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        if x.sum() > 100:
            raise ValueError(f"{y} of {x.shape} is too much")
        return y.relu()


class Asserting(Checking):
    """torch's own check, which transformers' vision and language models make of their tokens."""

    def forward(self, x: Tensor) -> Tensor:
        import torch

        y = self.linear(x)
        torch._check_tensor_all_with(RuntimeError, x < 100, lambda: f"{x.shape[0]} rows are bad")
        return y.relu()


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [(Checking, ValueError, "is too much"), (Asserting, RuntimeError, "rows are bad")],
)
def test_what_a_model_raises_a_bundle_raises(
    tmp_path: Path, kind: type[nn.Module], error: type[Exception], words: str
) -> None:
    bundle = bundled(kind(), [(torch.ones(3, 4),)], tmp_path)
    with pytest.raises(error, match=words):
        bundle(torch.full((3, 4), 200.0))
    np.testing.assert_allclose(
        bundle(np.ones((3, 4), np.float32)), bundle(torch.ones(3, 4)).numpy()
    )
