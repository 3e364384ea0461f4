"""The ten benchmark architectures, small: eager's answer, one region, nothing in eager."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import dynamo_onnx
from benchmarks.models import MODELS

TOLERANCE = 1e-4  # of the output's scale


def tensors(output: Any) -> list[torch.Tensor]:
    return [v for v in output.to_tuple() if isinstance(v, torch.Tensor)]


def assert_equal_to_eager(ours: Any, eager: Any) -> None:
    assert type(ours) is type(eager)
    for a, b in zip(tensors(ours), tensors(eager), strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert (a - b).abs().max() <= TOLERANCE * b.abs().max()


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_one_region_with_eagers_answer(name: str) -> None:
    module, kwargs = MODELS[name].build(small=True)
    compiled = torch.compile(module, backend="onnx", options={"strict": True})
    with torch.no_grad():
        assert_equal_to_eager(compiled(**kwargs), module(**kwargs))
    report = dynamo_onnx.report(compiled)
    assert (report.graphs, report.regions, report.eager_ops) == (1, 1, 0)


@pytest.mark.parametrize("name", ["bert-base", "gpt2", "llama-30x576", "resnet50"])
def test_dynamic_batch_and_length_compile_as_often_as_aot_eager(name: str) -> None:
    module, kwargs = MODELS[name].build(batch=2, small=True)
    calls = [resized(kwargs, batch, part) for batch in (2, 3) for part in (1.0, 0.75)]
    compilations = {}
    for backend in ("aot_eager", "onnx"):
        torch._dynamo.reset()
        counter = CompileCounterWithBackend(backend)
        compiled = torch.compile(module, backend=counter, dynamic=True)
        with torch.no_grad():
            for call in calls:
                assert_equal_to_eager(compiled(**call), module(**call))
        compilations[backend] = counter.frame_count
    assert compilations["onnx"] == compilations["aot_eager"]
    report = dynamo_onnx.report()
    assert (report.regions, report.eager_ops) == (1, 0)


def resized(kwargs: dict[str, torch.Tensor], batch: int, part: float) -> dict[str, torch.Tensor]:
    """The same inputs with another batch size and a shorter last dimension (both for images)."""

    def resize(x: torch.Tensor) -> torch.Tensor:
        x = x[:1].expand(batch, *x.shape[1:])
        size = int(x.shape[-1] * part)
        cut = x[..., :size, :size] if x.dim() == 4 else x[..., :size]
        return cut.contiguous()

    return {name: resize(value) for name, value in kwargs.items()}
