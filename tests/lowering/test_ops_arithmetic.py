"""Arithmetic rules against eager."""

from __future__ import annotations

import pytest
import torch

from .harness import Case, check

X = torch.linspace(-3, 3, 12).reshape(3, 4)

CASES = [
    Case("add of two float tensors broadcasts", lambda a, b: torch.add(a, b), (X, X[0]), max_nodes=1),
    Case("add scales by alpha", lambda a, b: torch.add(a, b, alpha=2.5), (X, X[0])),
    Case("add of bools is a logical or", lambda a, b: torch.add(a, b), (X > 0, X > 1)),
    Case("add of int8 wraps around", lambda a, b: torch.add(a, b),
         (torch.tensor([120, -120], dtype=torch.int8),) * 2),
    Case("add of int and float promotes", lambda a, b: torch.add(a, b), (torch.arange(4), X)),
    Case("add with symbolic dims", lambda a, b: torch.add(a, b), (X, X), dynamic=True),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_arithmetic(case: Case) -> None:
    check(case)
