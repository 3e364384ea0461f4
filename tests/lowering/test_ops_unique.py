"""Unique elements and slices."""

from __future__ import annotations

import pytest
import torch

import dynamo_onnx

NAN = float("nan")
X = torch.tensor([[3.0, 1, 2], [1, 1, NAN], [NAN, -0.0, 0.0], [3, 1, 2]])
ROWS = torch.tensor([[3, 1, 2], [1, 1, 5], [3, 1, 2], [1, 0, 9], [1, 0, 9]])
INPUTS = {
    "floats": X,
    "integers": ROWS,
    "bool": ROWS > 1,
    "halves": ROWS.half(),
    "0-d": torch.tensor(3.0),
    "nothing": torch.ones(0, 3),
}


def everything(x: torch.Tensor) -> object:
    return (
        torch.unique(x),
        torch.unique(x, sorted=False, return_counts=True),
        torch.unique(x, return_inverse=True, return_counts=True),
        torch.unique_consecutive(x, return_inverse=True, return_counts=True),
    )


def slices(x: torch.Tensor) -> object:
    return tuple(
        (unique(x, dim=dim), unique(x, dim=dim, return_inverse=True, return_counts=True))
        for dim in range(x.dim())
        for unique in (torch.unique, torch.unique_consecutive)
    )


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", INPUTS)
def test_unique_elements(name: str, *, dynamic: bool) -> None:
    _check(everything, INPUTS[name], dynamic=dynamic)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", ["integers", "bool", "halves"])
def test_unique_slices(name: str, *, dynamic: bool) -> None:
    _check(slices, INPUTS[name], dynamic=dynamic)


def _check(fn, x, *, dynamic):
    compiled = torch.compile(fn, backend="onnx", dynamic=dynamic, options={"strict": True})
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        torch.testing.assert_close(compiled(x), fn(x), equal_nan=True)
    assert dynamo_onnx.report(compiled).graphs == 1
