"""A clean start for every test, and what to skip where there is no GPU."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported anywhere

from collections.abc import Iterator

import pytest
import torch

import dynamo_onnx

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the workers share the cores


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    """Neither compiled code, nor programs, nor random numbers pass from one test to the next."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    dynamo_onnx.reset()
    yield
    torch._dynamo.reset()
    dynamo_onnx.reset()


def pytest_pycollect_makemodule() -> None:
    """A module whose tables hold random tensors has the same ones in every run."""
    torch.manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip `cuda` tests with the reason why they cannot run here."""
    marked = [item for item in items if item.get_closest_marker("cuda")]
    reason = _no_cuda_reason() if marked else None
    if reason is not None:
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=reason))


def _no_cuda_reason() -> str | None:
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "the installed onnxruntime has no CUDAExecutionProvider"
    return None
