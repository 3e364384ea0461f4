"""LU, Cholesky, QR and what solves with them, against LAPACK through eager."""

from __future__ import annotations

import pytest
import torch

from .harness import Case, check, lower

L = torch.linalg


def rand(*dims, dtype=torch.float32):
    return torch.randn(*dims, generator=torch.Generator().manual_seed(sum(dims))).to(dtype)


def given(f, **kwargs):
    return lambda *args: f(*args, **kwargs)


def positive(*dims):
    a = rand(*dims)
    return a @ a.mT + torch.eye(dims[-1])


def factored(*dims):
    return tuple(L.lu_factor(rand(*dims)))


MATRICES = [(4, 4), (2, 3, 5, 5), (6, 4), (2, 4, 6), (3, 1, 1), (2, 0, 0), (0, 3, 3), (2, 0, 3)]
SQUARES = [(4, 4), (2, 3, 5, 5), (3, 1, 1)]
SINGULAR = torch.tensor([[[1.0, 2, 4], [2, 4, 8], [1, 1, 1]], [[1, 0, 0], [0, 0, 0], [0, 0, 2]]])

CASES = [
    *(Case(f"{f.__name__} of {s}", f, (rand(*s),), tolerance=1e-4)
      for s in MATRICES for f in (L.lu_factor_ex, L.lu, L.qr)),
    *(Case(f"{mode} qr of {s}", given(L.qr, mode=mode), (rand(*s),), tolerance=1e-4)
      for s in MATRICES for mode in ("complete", "r")),
    *(Case(f"geqrf of {s}", torch.geqrf, (rand(*s),), tolerance=1e-4) for s in MATRICES[:5]),
    *(Case(f"{f.__name__} of {s}", f, (rand(*s),), tolerance=1e-3)
      for s in (*SQUARES, (0, 3, 3)) for f in (L.inv_ex, L.slogdet)),
    *(Case(f"solve of {s}, columns", L.solve_ex, (rand(*s), rand(*s[:-1], 3)), tolerance=1e-3)
      for s in SQUARES),
    *(Case(f"solve of {s}, a vector", L.solve_ex, (rand(*s), rand(*s[:-1])), tolerance=1e-3)
      for s in SQUARES),
    Case("solve from the right", lambda a, b: L.solve_ex(a, b, left=False),
         (rand(2, 5, 5), rand(2, 3, 5)), tolerance=1e-3),
    Case("solve of a transpose", lambda a, b: L.solve_ex(a.mT, b),
         (rand(2, 5, 5), rand(2, 5, 3)), tolerance=1e-3),
    Case("solve of float64", L.solve_ex,
         (rand(5, 5, dtype=torch.float64), rand(5, 2, dtype=torch.float64))),
    *(Case(f"lu_solve, left {left}, adjoint {adjoint}",
           given(L.lu_solve, left=left, adjoint=adjoint),
           (*factored(2, 4, 4), rand(2, 4, 4)), tolerance=1e-3)
      for left in (True, False) for adjoint in (True, False)),
    Case("lu_solve over batches", L.lu_solve, (*factored(4, 4), rand(2, 4, 3)), tolerance=1e-3),
    *(Case(f"triangular, upper {upper}, left {left}, unit {unit}",
           given(L.solve_triangular, upper=upper, left=left, unitriangular=unit),
           (rand(2, 4, 4), rand(2, 4, 4)), tolerance=1e-3)
      for upper in (True, False) for left in (True, False) for unit in (True, False)),
    Case("triangular over batches", lambda a, b: L.solve_triangular(a, b, upper=True),
         (rand(4, 4), rand(3, 4, 2)), tolerance=1e-3),
    Case("triangular with a zero", lambda a, b: L.solve_triangular(a, b, upper=False),
         (torch.tensor([[1.0, 0], [1, 0]]), torch.tensor([[1.0, 1], [1, 2]]))),
    Case("triangular_solve, transposed", lambda b, a: torch.triangular_solve(b, a, transpose=True),
         (rand(2, 4, 3), rand(2, 4, 4)), tolerance=1e-3),
    *(Case(f"cholesky of {s}, upper {upper}",
           given(L.cholesky_ex, upper=upper), (positive(*s),), tolerance=1e-4)
      for s in (*SQUARES, (0, 0)) for upper in (True, False)),
    Case("cholesky of what is not positive", lambda a: L.cholesky_ex(a)[1], (rand(4, 4, 4),)),
    *(Case(f"cholesky_solve, upper {upper}",
           given(torch.cholesky_solve, upper=upper),
           (rand(2, 4, 3), L.cholesky(positive(2, 4, 4), upper=upper)), tolerance=1e-3)
      for upper in (True, False)),
    Case("cholesky_inverse", torch.cholesky_inverse, (L.cholesky(positive(2, 4, 4)),),
         tolerance=1e-3),
    *(Case(f"householder product of {s}", L.householder_product, tuple(torch.geqrf(rand(*s))),
           tolerance=1e-4) for s in ((4, 4), (2, 6, 3))),
    *(Case(f"ormqr, left {left}, transpose {transpose}",
           given(torch.ormqr, left=left, transpose=transpose),
           (*torch.geqrf(rand(4, 3)), rand(4, 4)), tolerance=1e-4)
      for left in (True, False) for transpose in (True, False)),
    Case("the first zero pivot", lambda a: L.lu_factor_ex(a)[2], (SINGULAR,)),
    Case("the first zero pivot of an inverse", lambda a: L.inv_ex(a)[1], (SINGULAR,)),
    Case("slogdet of singular matrices", L.slogdet, (SINGULAR[1],)),
    Case("qr of singular matrices", L.qr, (SINGULAR[1],)),
    Case("qr of NaN", L.qr, (torch.full((2, 2), torch.nan),)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_factorizations(case):
    check(case)


def test_a_large_matrix_is_left_to_lapack():
    (reason,) = lower(L.inv_ex, rand(64, 64)).reasons
    assert "more than 1024 elements" in str(reason)


def test_an_error_from_inside_declines():
    (reason,) = lower(lambda a: L.inv_ex(a, check_errors=True), rand(3, 3)).reasons
    assert "check_errors" in str(reason)
