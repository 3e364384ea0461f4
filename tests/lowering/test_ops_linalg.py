"""Determinants, the parts of an LU, products of three, and evenly spaced numbers against eager."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from .harness import Case, check, lower

NAN = float("nan")


def rand(*dims, dtype=torch.float32):
    return torch.randn(*dims, generator=torch.Generator().manual_seed(0)).to(dtype)


def parts(data=True, pivots=True):
    return lambda lu, order: torch.lu_unpack(lu, order, data, pivots)


SHAPES = [(3, 3), (2, 4, 4), (4, 2), (2, 5), (2, 3, 2, 5), (0, 3), (3, 0), (2, 0, 0)]
WEIGHT = rand(5, 3, 4)

CASES = [
    *(Case(f"det of {s}", torch.linalg.det, (rand(*s),))
      for s in ((3, 3), (2, 4, 4), (1, 1), (0, 0), (2, 0, 0), (2, 3, 5, 5))),
    Case("det of zeros", torch.linalg.det, (torch.zeros(3, 3),)),
    Case("det of a singular matrix", torch.linalg.det, (torch.tensor([[1.0, 2], [2, 4]]),)),
    Case("det of NaN", torch.linalg.det, (torch.full((2, 2), NAN),)),
    Case("det of symbolic dims", torch.linalg.det, (rand(2, 4, 4),), dynamic=True),
    *(Case(f"lu_unpack of {s}, {d}, {p}", parts(d, p), tuple(torch.linalg.lu_factor(rand(*s))))
      for s in SHAPES for d, p in ((True, True), (True, False), (False, True))),
    Case("lu_unpack of float64", parts(), tuple(torch.linalg.lu_factor(rand(3, 3).double()))),
    Case("bilinear", F.bilinear, (rand(2, 6, 3), rand(2, 6, 4), WEIGHT, rand(5))),
    Case("bilinear of float64", F.bilinear,
         (rand(6, 3).double(), rand(6, 4).double(), WEIGHT.double())),
    Case("bilinear of integers", lambda a, b, c: F.bilinear(a, b, c),
         (torch.arange(18).reshape(6, 3), torch.arange(24).reshape(6, 4), WEIGHT.mul(4).long())),
    Case("bilinear of no rows", F.bilinear, (rand(0, 3), rand(0, 4), WEIGHT)),
    Case("bilinear of symbolic dims", F.bilinear, (rand(6, 3), rand(6, 4), WEIGHT), dynamic=True),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_linalg(case):
    check(case)


def test_bilinear_of_16_bits_stays_eager():
    args = (rand(6, 3).bfloat16(), rand(6, 4).bfloat16(), WEIGHT.bfloat16())
    (reason,) = lower(F.bilinear, *args).reasons
    assert "rounded" in str(reason)
