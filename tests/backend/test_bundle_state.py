"""What a model remembers in Python: a bundle is of the model as it is when it is saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dynamo_onnx
from dynamo_onnx import BundleError

COUNT = 0
SIGN = True


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + self.calls


class Noting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.notes = {"calls": 0}

    def forward(self, x: Tensor) -> Tensor:
        self.notes["calls"] += 1
        return x + self.notes["calls"]


def of_a_global() -> Callable[[Tensor], Tensor]:
    def counts(x: Tensor) -> Tensor:
        global COUNT  # noqa: PLW0603 - it is what the test is about
        COUNT += 1
        return x + COUNT

    return counts


def of_a_closure() -> Callable[[Tensor], Tensor]:
    calls = 0

    def counts(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return x + calls

    return counts


@pytest.mark.parametrize("calls", [1, 2, 3])
@pytest.mark.parametrize("make", [Counting, Noting, of_a_global, of_a_closure])
def test_a_count_of_the_calls_is_refused(
    make: Callable[[], Callable[..., Any]], calls: int, tmp_path: Path
) -> None:
    compiled = torch.compile(make(), backend="onnx")
    with torch.no_grad():
        for _ in range(calls):
            compiled(torch.ones(3))
    with pytest.raises(BundleError, match=r"not .* == \d|changes in each call"):
        dynamo_onnx.save(compiled, tmp_path / "a.onnxbundle")


class Switched(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mode = "add"

    def forward(self, x: Tensor) -> Tensor:
        y = x + 1 if self.mode == "add" else x * 3
        return y if SIGN else -y


def test_of_several_modes_the_one_that_is_set_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Switched()
    compiled = torch.compile(model, backend="onnx")
    x = torch.full((3,), 2.0)
    ways = [("add", True), ("times", True), ("add", False), ("times", False)]
    for saving in (False, True):
        for mode, sign in ways:
            model.mode = mode
            monkeypatch.setitem(globals(), "SIGN", sign)
            with torch.no_grad():
                expected = compiled(x) if not saving else model(x)
            if saving:
                dynamo_onnx.save(compiled, tmp_path / "a.onnxbundle")
                found = dynamo_onnx.load(tmp_path / "a.onnxbundle")(x.numpy())
                np.testing.assert_array_equal(found, expected.numpy())


def test_a_mode_that_was_never_called_is_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout()).eval()
    compiled = torch.compile(model, backend="onnx")
    with torch.no_grad():
        compiled(torch.ones(3))
    model.train()
    with pytest.raises(BundleError, match=r"not L\['fn'\].*training == False"):
        dynamo_onnx.save(compiled, tmp_path / "a.onnxbundle")
