"""Every operator of PyTorch's `op_db` with one input; nine dtypes, more in `make conformance`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.conformance.cases import DTYPES, calls, operator_names
from tests.conformance.compare import is_exact
from tests.conformance.worker import run

# Operators whose first input needs eager PyTorch, or of which Dynamo makes no graph:
# docs/coverage.md has the reasons. One that becomes native leaves the list.
EAGER = frozenset((Path(__file__).parent / "conformance" / "eager.txt").read_text().split())


CUDA_ONLY = frozenset(
    {
        "torch._scaled_mm",
        "torch._scaled_mm_v2",
        "torch.ops.aten._efficient_attention_forward",
        "torch.ops.aten._flash_attention_forward",
        "nn.functional.batch_norm.without_cudnn",
    }
)  # op_db has inputs for them on CUDA only


@pytest.mark.parametrize("name", [n for n in operator_names() if n not in CUDA_ONLY])
def test_an_operator_gives_eagers_answer(name: str) -> None:
    found = run(next(c for dtype in DTYPES for c in calls(name, dtype, 1)))
    assert found["outcome"] in ("native", "eager", "invalid"), found["detail"]
    if found["outcome"] != "invalid":
        assert (found["outcome"] == "eager") == (name in EAGER), found


def test_an_answer_nearer_to_float64_than_eagers_is_exact_and_another_is_not() -> None:
    x = torch.linspace(1, 100, 999).to(torch.bfloat16)

    def rounds_every_sum(x: torch.Tensor) -> torch.Tensor:
        return x.cumsum(0, dtype=x.dtype)[-1:]

    eager = rounds_every_sum(x)
    exact = x.double().sum().reshape(1)
    assert is_exact(rounds_every_sum, [x], exact.bfloat16(), eager)
    assert not is_exact(rounds_every_sum, [x], (exact * 1.1).bfloat16(), eager)
    assert not is_exact(rounds_every_sum, [x], exact.bfloat16(), eager * torch.inf)
