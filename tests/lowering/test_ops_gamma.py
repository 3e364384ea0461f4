"""lgamma, its derivatives, and zeta against eager."""

from __future__ import annotations

import pytest
import torch

from .harness import Case, check, lower

INF = float("inf")
ENDS = torch.tensor(
    [0.0, -0.0, INF, -INF, float("nan"), 1e-8, 1e-20, -1e-8, 1000, 1e5, -50.5, 1e30]
)
X = torch.cat([torch.linspace(-9, 9, 361), torch.linspace(-8.97, 200, 300), ENDS])
BASES = torch.tensor([-2, 0.5, 0, 1, 1.001, 1.5, 2, 3, 4, 8.3, 20, 200, 1e4, INF, float("nan")])
S = BASES[:, None]
zeta = torch.special.zeta


def orders(n):
    return lambda x: torch.polygamma(n, x)


def dimensions(p):
    return lambda x: torch.special.multigammaln(x, p)


# a by x, where both are small, equal, large and on every edge
INCOMPLETE = torch.meshgrid(
    torch.tensor([0, 1e-5, 0.1, 1, 2, 10, 200, 1e4, INF, -1, float("nan")]),
    torch.tensor([0, 1e-8, 0.5, 1, 3, 10, 199, 300, 9900, 1.01e4, INF, -1, float("nan")]),
    indexing="ij",
)
DOUBLES = tuple(v.double() for v in INCOMPLETE)


CASES = [
    *(Case(f"{f.__name__} of float32", f, INCOMPLETE) for f in (torch.igamma, torch.igammac)),
    *(Case(f"{f.__name__} of float64", f, DOUBLES, tolerance=1e-9)
      for f in (torch.igamma, torch.igammac)),
    Case("igamma of float16", torch.igamma, (S[S > 0][:, None].half(), X[X > 0].half())),
    Case("igamma of symbolic dims", torch.igamma, INCOMPLETE, dynamic=True),
    Case("igamma of nothing", torch.igamma, (torch.ones(0), torch.ones(0))),
    Case("lgamma of float32", torch.lgamma, (X,)),
    Case("lgamma of float64", torch.lgamma, (X.double(),), tolerance=1e-11),
    Case("lgamma of bfloat16", torch.lgamma, (X.bfloat16(),)),
    Case("lgamma of integers", torch.lgamma, (torch.arange(-2, 5),)),
    Case("lgamma of symbolic dims", torch.lgamma, (X,), dynamic=True),
    Case("digamma of float32", torch.digamma, (X,)),
    # Beside a pole eager's float64 has ten digits.
    Case("digamma of float64", torch.digamma, (X.double(),), tolerance=1e-9),
    Case("digamma of float16", torch.digamma, (X.half(),)),
    *(Case(f"polygamma {n} of float32", orders(n), (X,), tolerance=3e-5) for n in range(6)),
    *(Case(f"polygamma {n} of float64", orders(n), (X.double(),), tolerance=1e-9)
      for n in (0, 2, 3, 4)),
    Case("polygamma of integers", orders(2), (torch.arange(-2, 5),)),
    Case("polygamma of no elements", orders(2), (X[:0],)),
    Case("polygamma of symbolic dims", orders(3), (X,), tolerance=3e-5, dynamic=True),
    *(Case(f"mvlgamma {p} of float32", dimensions(p), (X,)) for p in (1, 3, 5)),
    *(Case(f"mvlgamma {p} of float64", dimensions(p), (X.double(),)) for p in (1, 3, 5)),
    *(Case(f"mvlgamma {p} of bfloat16", dimensions(p), (X.bfloat16(),)) for p in (1, 3)),
    Case("zeta of float32", zeta, (S, X)),
    Case("zeta of float64", zeta, (S.double(), X.double())),
    Case("zeta of integers", zeta, (torch.arange(5)[:, None], torch.arange(-1, 5))),
    Case("zeta of one power", lambda q: zeta(2.0, q), (X,)),
    Case("zeta of one base", lambda x: zeta(x, 1.0), (S,), dynamic=True),
    Case("zeta of no elements", lambda x: zeta(x, 1.0), (S[:0],)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gamma(case):
    check(case)


def test_trigamma_of_float64_stays_eager():
    (reason,) = lower(orders(1), X.double()).reasons
    assert "poles" in str(reason)
