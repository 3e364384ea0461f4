"""softmax and its kin against eager."""

from __future__ import annotations

import pytest
import torch

from .harness import Case, check

aten = torch.ops.aten
X = torch.randn(3, 4, 5)
INF, NAN = float("inf"), float("nan")
EDGES = torch.tensor([[1.0, INF], [-INF, -INF], [NAN, 1.0], [1.0, NAN], [-INF, 0.0], [1e4, -1e4]])
MASKED = torch.tensor([[-INF, -INF, -INF], [0.0, -INF, 1.0], [NAN, -INF, -INF]])


def softmax(dim):
    return lambda x: aten._softmax.default(x, dim, False)


def log_softmax(dim):
    return lambda x: aten._log_softmax.default(x, dim, False)


def safe_softmax(dim):
    return lambda x: aten._safe_softmax.default(x, dim)


CASES = [
    Case("softmax is one node", softmax(-1), (X,), max_nodes=1),
    Case("softmax of an inner dim", softmax(1), (X,), max_nodes=1),
    Case("softmax with infinities and NaN", softmax(-1), (EDGES,)),
    Case("softmax of float64 with infinities and NaN", softmax(-1), (EDGES.double(),)),
    Case("softmax of bfloat16", softmax(-1), (X.bfloat16(),)),
    Case("softmax of float16", softmax(0), (X.half(),)),
    Case("softmax of a 0-d tensor", softmax(0), (torch.tensor(3.0),)),
    Case("softmax of a 0-d infinity", softmax(-1), (torch.tensor(INF),)),
    Case("softmax of no rows", softmax(-1), (torch.ones(0, 3),)),
    Case("softmax over nothing", softmax(-1), (torch.ones(3, 0),)),
    Case("softmax with symbolic dims", softmax(-1), (X,), dynamic=True, max_nodes=1),
    Case("log_softmax is one node", log_softmax(-1), (X,), max_nodes=1),
    Case("log_softmax of an inner dim", log_softmax(1), (X,), max_nodes=1),
    Case("log_softmax with infinities and NaN", log_softmax(-1), (EDGES,)),
    Case("log_softmax of float64 with infinities and NaN", log_softmax(-1), (EDGES.double(),)),
    Case("log_softmax of float64", log_softmax(1), (X.double(),)),
    Case("log_softmax of bfloat16", log_softmax(-1), (X.bfloat16(),)),
    Case("log_softmax of a 0-d tensor", log_softmax(0), (torch.tensor(3.0),)),
    Case("log_softmax of a 0-d float64 tensor", log_softmax(0), (torch.tensor(3.0).double(),)),
    Case("log_softmax with symbolic dims", log_softmax(1), (X,), dynamic=True),
    Case("safe_softmax gives 0 for masked rows, not for NaN", safe_softmax(-1), (MASKED,)),
    Case("safe_softmax of an inner dim", safe_softmax(0), (MASKED,)),
    Case("safe_softmax of bfloat16", safe_softmax(-1), (MASKED.bfloat16(),)),
    Case("safe_softmax over nothing", safe_softmax(-1), (torch.ones(3, 0),)),
    Case("safe_softmax with symbolic dims", safe_softmax(-1), (MASKED,), dynamic=True),
    Case(
        "safe_softmax in another dtype",
        lambda x: aten._safe_softmax.default(x, -1, torch.float64),
        (MASKED,),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_softmax(case: Case) -> None:
    check(case)
