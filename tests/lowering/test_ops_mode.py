"""mode against eager."""

from __future__ import annotations

import pytest
import torch

from .harness import Case, check, lower

INF = float("inf")
X = torch.tensor([[3.0, 1, 2, 1, 3, INF], [-INF, 2, -INF, 2, 1, 1], [-0.0, 0, 5, 5, INF, 7]])
R = torch.randint(0, 4, (3, 16, 2), generator=torch.Generator().manual_seed(0))
MANY = torch.randint(0, 9, (100, 3), generator=torch.Generator().manual_seed(0))


def along(dim):
    return lambda x: torch.mode(x, dim)


CASES = [
    *(Case(f"mode of {x.dtype} along {dim}", along(dim), (x,))
      for x in (X, X.double(), R, R.int(), R.to(torch.uint8), R > 1, R.bfloat16(), R.half())
      for dim in (-1, 0, 1)),
    Case("mode kept", lambda x: torch.mode(x, 1, True), (R,)),
    Case("mode of a 0-d tensor", torch.mode, (torch.tensor(3.0),)),
    Case("mode of no rows", lambda x: torch.mode(x, 1), (torch.zeros(0, 3),)),
    Case("mode of symbolic dims beside it",
         lambda x: torch.mode(torch.stack([x, x + 1, x]), 0), (R,), dynamic=True),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_mode(case):
    check(case)


def test_the_values_of_long_rows_without_their_open_indices():
    values = torch.compile(lambda x: torch.mode(x, 0)[0], backend="onnx", options={"strict": True})
    assert torch.equal(values(MANY), torch.mode(MANY, 0)[0])


def test_very_long_rows_stay_eager():
    (reason,) = lower(lambda x: torch.mode(x, 0), torch.zeros(1000, 2)).reasons
    assert "compared" in str(reason)
