"""The ten benchmark models, and PyTorch's operators, on a GPU."""

from __future__ import annotations

import pytest
import torch
from torch.utils._pytree import tree_leaves

import dynamo_onnx
from benchmarks.backends import place
from benchmarks.models import MODELS
from tests.conformance import cases
from tests.conformance.worker import run
from tests.test_operators import CUDA_ONLY

pytestmark = pytest.mark.cuda

TOLERANCES = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_right_and_stays_on_the_gpu(name: str, mode: str, dtype: str) -> None:
    example = place(MODELS[name].build(1, small=True), torch.device("cuda"), DTYPES[dtype])
    module, kwargs = example
    ours = torch.compile(module, backend="onnx", options={"strict": True, "mode": mode})
    with torch.no_grad():
        wanted = tree_leaves(module(**kwargs))
        for _ in range(3):
            found = tree_leaves(ours(**kwargs))
    for mine, eager in zip(found, wanted, strict=True):
        if isinstance(eager, torch.Tensor):
            error = (mine.float() - eager.float()).norm() / eager.float().norm().clamp_min(1e-6)
            assert error < TOLERANCES[DTYPES[dtype]]
    report = dynamo_onnx.report(ours)
    assert not [p for p in report.placed if p.provider == "CPUExecutionProvider" and not p.sizes]
    assert not report.copies


@pytest.mark.parametrize("name", [n for n in cases.operator_names() if n not in CUDA_ONLY])
def test_an_operator_gives_eagers_answer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "DEVICE", "cuda")
    found = run(next(c for dtype in cases.DTYPES for c in cases.calls(name, dtype, 1)))
    assert found["outcome"] in ("native", "eager", "invalid"), found["detail"]
