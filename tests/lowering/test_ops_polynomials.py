"""Orthogonal polynomials against eager."""

from __future__ import annotations

import pytest
import torch

from .harness import Case, check

NAMES = [
    "chebyshev_polynomial_t", "chebyshev_polynomial_u", "chebyshev_polynomial_v",
    "chebyshev_polynomial_w", "shifted_chebyshev_polynomial_t", "shifted_chebyshev_polynomial_u",
    "shifted_chebyshev_polynomial_v", "shifted_chebyshev_polynomial_w", "hermite_polynomial_h",
    "hermite_polynomial_he", "laguerre_polynomial_l", "legendre_polynomial_p",
]  # fmt: skip
INF = float("inf")
SPECIAL = torch.tensor([0.0, 1.0, -1.0, 0.5, INF, -INF, float("nan"), 1e20, -1e20, 0.999])
X = torch.cat([torch.linspace(-3, 3, 31), SPECIAL])[:, None]
N = torch.tensor([-3.0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 2.7, 14])
BEYOND = torch.tensor([128.0, 129, 512, 513])


def cases(name):
    function = getattr(torch.special, name)
    wide = (X.double(), N.double())
    return [
        Case(f"{name} of floats", function, (X, N), tolerance=2e-5),
        Case(f"{name} of float64", function, wide, tolerance=1e-9),
        Case(f"{name} of integers", function, (torch.arange(4), torch.arange(4))),
        Case(f"{name} of one order", lambda x: function(x, 4), (X,)),
        Case(f"{name} at one place", lambda n: function(0.3, n), (N,)),
        Case(f"{name} of no elements", function, (X[:0], N[:1])),
        Case(f"{name} of symbolic dims", function, (X, N), tolerance=2e-5, dynamic=True),
    ]


@pytest.mark.parametrize("case", [c for name in NAMES for c in cases(name)], ids=str)
def test_polynomials(case):
    check(case)


@pytest.mark.parametrize("name", ["hermite_polynomial_h", "hermite_polynomial_he"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_hermite_polynomials_of_too_high_an_order_are_nan(name, dtype):
    function = getattr(torch.special, name)
    check(Case(name, function, (torch.zeros(4, dtype=dtype), BEYOND.to(dtype))))
