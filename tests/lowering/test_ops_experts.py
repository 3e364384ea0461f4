"""Grouped products against eager."""

from __future__ import annotations

import pytest
import torch
import transformers.integrations.moe  # noqa: F401 - defines the operator

import dynamo_onnx

from .harness import Case, check, lower

grouped = torch.ops.transformers.grouped_mm_fallback
aten = torch.ops.aten


def ends(*values: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype)


def swapped(x: torch.Tensor, w: torch.Tensor, offs: torch.Tensor) -> torch.Tensor:
    return grouped(x, w.transpose(-2, -1), offs)


X, W = torch.randn(6, 4), torch.randn(3, 4, 5)

CASES = [
    Case("every group has rows", grouped, (X, W, ends(1, 4, 6))),
    Case("a group without rows", grouped, (X, W, ends(2, 2, 6))),
    Case("the first and the last group without rows", grouped, (X, W, ends(0, 6, 6))),
    Case("rows past the last group are zero", grouped, (X, W, ends(1, 2, 4))),
    Case("rows past the last group that are NaN", grouped, (X.log(), W, ends(0, 0, 0))),
    Case("int64 ends", grouped, (X, W, ends(1, 4, 6, dtype=torch.int64))),
    Case("transposed matrices", swapped, (X, torch.randn(3, 5, 4), ends(1, 4, 6)), max_nodes=16),
    Case("transposed, float64", swapped, (X.double(), W.mT.contiguous().double(), ends(1, 4, 6))),
    Case("bfloat16", grouped, (X.bfloat16(), W.bfloat16(), ends(1, 4, 6))),
    Case("float64", grouped, (X.double(), W.double(), ends(3, 3, 6))),
    Case("no rows", grouped, (X[:0], W, ends(0, 0, 0))),
    Case("one column", swapped, (X[:, :1], torch.randn(3, 5, 1), ends(1, 4, 6))),
    Case(
        "torch's own grouped product",
        lambda x, w, offs: aten._grouped_mm(x, w, offs),
        (torch.randn(6, 16).bfloat16(), torch.randn(3, 16, 8).bfloat16(), ends(1, 4, 6)),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_grouped_product(case: Case) -> None:
    check(case)


def test_rows_of_dynamic_number() -> None:
    compiled = torch.compile(grouped, backend="onnx", options={"strict": True})
    for rows in (6, 9):
        x = torch.randn(rows, 4)
        torch._dynamo.mark_dynamic(x, 0)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x, W, ends(1, 4, 6)), grouped(x, W, ends(1, 4, 6)))
    assert dynamo_onnx.report(compiled).graphs == 1


def test_a_number_of_groups_that_is_dynamic_stays_eager() -> None:
    lowering = lower(grouped, X, W, ends(1, 4, 6), dynamic=True)
    assert "number of groups" in str(lowering.reasons[0])


def test_groups_of_columns_stay_eager() -> None:
    def columns(x: torch.Tensor, y: torch.Tensor, offs: torch.Tensor) -> torch.Tensor:
        return aten._grouped_mm(x, y, offs)

    x, y = torch.randn(8, 16).bfloat16(), torch.randn(16, 8).bfloat16()
    lowering = lower(columns, x, y, ends(8, 16))
    assert lowering.program is None
    assert "groups along another dim" in str(lowering.reasons[0])
