"""Common divisors and multiples against eager."""

from __future__ import annotations

import pytest
import torch

from .harness import Case, check

A = torch.tensor([12, -12, 0, 0, 7, 2**62, 7540113804746346429, -(2**63), 100, 1])
B = torch.tensor([18, 18, 5, 0, -7, 6, 4660046610375530309, 6, 0, 1])
SMALL = torch.arange(-128, 128)

CASES = [
    row
    for f in (torch.gcd, torch.lcm)
    for row in (
        Case(f"{f.__name__} of int64", f, (A, B)),
        Case(f"{f.__name__} broadcast", f, (A[:7, None], B[:6])),
        Case(f"{f.__name__} of int8", f, (SMALL.to(torch.int8), SMALL.flip(0).to(torch.int8))),
        Case(f"{f.__name__} of uint8", f, (SMALL.to(torch.uint8), torch.tensor(12).byte())),
        Case(f"{f.__name__} of int32 and int64", f, (A.int(), B)),
        Case(f"{f.__name__} of 0-d", f, (A[0], B[0])),
        Case(f"{f.__name__} of no elements", f, (A[:0], B[:0])),
        Case(f"{f.__name__} of symbolic dims", f, (A, B), dynamic=True),
    )
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_divisor(case):
    check(case)
