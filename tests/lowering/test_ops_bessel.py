"""Bessel functions against eager."""

from __future__ import annotations

import pytest
import torch

from .harness import Case, check, lower

ROUGH = ["bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1"]
EXACT = [
    "spherical_bessel_j0", "modified_bessel_i0", "modified_bessel_i1", "i0e", "i1", "i1e",
    "modified_bessel_k0", "modified_bessel_k1", "scaled_modified_bessel_k0",
    "scaled_modified_bessel_k1",
]  # fmt: skip
INF = float("inf")
ENDS = torch.tensor([0.0, -0.0, INF, -INF, float("nan"), 1e-8, -1e-8, 1e-20, 1e5, -50, -700, 500])
X = torch.cat([torch.linspace(-12, 12, 241), torch.linspace(12, 200, 100), ENDS])


def cases(name):
    function = getattr(torch.special, name)
    rows = [
        Case(f"{name} of float32", function, (X,), tolerance=3e-6),
        Case(f"{name} of integers", function, (torch.arange(5),)),
        Case(f"{name} of no elements", function, (X[:0],)),
        Case(f"{name} of symbolic dims", function, (X,), tolerance=3e-6, dynamic=True),
    ]
    if name in EXACT:
        rows.append(Case(f"{name} of float64", function, (X.double(),), tolerance=1e-12))
    return rows


@pytest.mark.parametrize("case", [c for n in ROUGH + EXACT for c in cases(n)], ids=str)
def test_bessel(case):
    check(case)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_i0_of_16_bits(dtype):
    check(Case("i0", torch.i0, (X.to(dtype),)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_i0e_of_16_bits(dtype):
    check(Case("i0e", torch.special.i0e, (X.to(dtype),)))


@pytest.mark.parametrize("name", ROUGH)
def test_float64_stays_with_eager_whose_answer_has_fewer_digits(name):
    (reason,) = lower(getattr(torch.special, name), X.double()).reasons
    assert "seven digits" in str(reason)
