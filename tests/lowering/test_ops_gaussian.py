"""The normal distribution and its relatives against eager."""

from __future__ import annotations

import pytest
import torch

from .harness import Case, check

special = torch.special
INF = float("inf")
ENDS = torch.tensor([0.0, -0.0, INF, -INF, float("nan"), 1e-8, 1e-20, -1e-8, 1000, 1e5, -50, -700])
X = torch.cat([torch.linspace(-12, 12, 241), torch.linspace(12, 200, 100), ENDS])
SMALL = torch.tensor([1e-5, 1e-10, 1e-20, 1e-30, 1e-37, 1e-40, 1 - 1e-6, 0.075, 0.074, -0.1, 1.1])
P = torch.cat([torch.linspace(0, 1, 501), SMALL, torch.tensor([INF, float("nan")])])
UNIT = torch.cat([P * 2 - 1, ENDS, SMALL, -SMALL])
TINY = torch.tensor([1e-300, 1e-200, 1e-100, 1e-12, 1e-11], dtype=torch.float64)

CASES = [
    # Eager's own exp(x * x) is of a rounded square where x is negative.
    Case("erfcx of float32", special.erfcx, (X,), tolerance=1e-5),
    Case("erfcx of float64", special.erfcx, (X.double(),), tolerance=1e-12),
    Case("log_ndtr of float32", special.log_ndtr, (X,), tolerance=3e-6),
    Case("log_ndtr of float64", special.log_ndtr, (X.double(),), tolerance=1e-12),
    Case("ndtri of float32", special.ndtri, (P,), tolerance=3e-6),
    Case("ndtri of float64", special.ndtri, (P.double(),), tolerance=1e-12),
    Case("ndtri of tiny float64", special.ndtri, (TINY,), tolerance=1e-12),
    *(Case(f"erfc of {d}", torch.erfc, (X.to(d),)) for d in (torch.float32, torch.float64)),
    Case("erfc where it is small", lambda x: torch.erfc(x) * 1e20, (X[100:190],)),
    Case("erfc of float16", torch.erfc, (X.half(),)),
    *(Case(f"erfinv of {d}", torch.erfinv, (UNIT.to(d),)) for d in (torch.float32, torch.float64)),
    Case("erfinv of bfloat16", torch.erfinv, (UNIT.bfloat16(),)),
    Case("entr of float32", special.entr, (X,)),
    Case("entr of float64", special.entr, (X.double(),)),
    Case("entr of bfloat16", special.entr, (X.bfloat16(),)),
    *(
        row
        for f in (
            special.erfcx,
            special.log_ndtr,
            special.ndtri,
            special.entr,
            torch.erfc,
            torch.erfinv,
        )
        for row in (
            Case(f"{f.__name__} of integers", f, (torch.arange(5),)),
            Case(f"{f.__name__} of no elements", f, (X[:0],)),
            Case(f"{f.__name__} of symbolic dims", f, (P[:, None],), dynamic=True),
        )
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gaussian(case):
    check(case)
