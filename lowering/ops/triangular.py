"""Solving with triangular matrices, and Cholesky: column by column, in Loops."""

from __future__ import annotations

import torch

from ..dims import Dims
from ..registry import lowers
from ..rule import Rule
from ..value import Value
from ._matrix import LARGEST, refuse_to_raise, sized, transposed, unit_matrix

aten = torch.ops.aten


@lowers(aten.linalg_solve_triangular.default, largest=LARGEST)
def linalg_solve_triangular(
    cx: Rule,
    self: Value,
    B: Value,
    upper: bool,
    left: bool,
    unitriangular: bool,
) -> Value:
    """self [*C, N, N], B [*D, N, K] -> X with self X = B (X self = B if not left)."""
    dims = cx.out.dims
    if left:
        return _triangular(cx, self, B, dims, upper=upper, unit=unitriangular)
    turned = (*dims[:-2], dims[-1], dims[-2])
    x = _triangular(
        cx, transposed(cx, self), transposed(cx, B), turned, upper=not upper, unit=unitriangular
    )
    return transposed(cx, x)


@lowers(aten.triangular_solve.default, largest=LARGEST)
def triangular_solve(
    cx: Rule,
    self: Value,
    A: Value,
    upper: bool,
    transpose: bool,
    unitriangular: bool,
) -> tuple[Value, Value]:
    """self [*D, N, K], A [*C, N, N] -> X with A X = self (or its transpose), a copy of A."""
    a, is_upper = (transposed(cx, A), not upper) if transpose else (A, upper)
    x = _triangular(cx, a, self, cx.outs[0].dims, upper=is_upper, unit=unitriangular)
    return x, cx.expand(A, cx.outs[1].dims)


def _triangular(
    cx: Rule, a: Value, b: Value, dims: Dims, *, upper: bool, unit: bool = False
) -> Value:
    """a, b broadcast over their batches -> X [*dims] with a X = b."""
    if 0 in dims:
        return cx.expand(b, dims)
    a = cx.expand(a, (*dims[:-1], dims[-2]))
    return solve(cx, a, cx.expand(b, dims), upper=upper, unit=unit)


def solve(cx: Rule, a: Value, b: Value, *, upper: bool, unit: bool = False) -> Value:
    """a [*B, N, N], b [*B, N, K] -> X with a X = b; of a only one triangle is read."""
    *_, n, _ = b.known_dims
    rank, n = b.rank, b.known_dims[-2]
    rows = cx.places(n, rank, rank - 2)
    last = cx.scalar(n - 1, torch.int64)

    def step(i: Value, keep: Value, b: Value) -> list[Value]:
        k = cx.op.Sub(last, i) if upper else i
        here = cx.reshape(k, (1,))
        column, row = cx.op.Gather(a, here, axis=rank - 1), cx.op.Gather(b, here, axis=rank - 2)
        x = row if unit else cx.op.Div(row, cx.op.Gather(column, here, axis=rank - 2))
        ahead = cx.op.Less(rows, k) if upper else cx.op.Greater(rows, k)
        b = cx.op.Where(ahead, cx.op.Sub(b, cx.op.Mul(column, x)), b)
        return [keep, cx.op.Where(cx.op.Equal(rows, k), x, b)]

    return cx.loop(n, [b], step)[0]


@lowers(aten.linalg_cholesky_ex.default, largest=LARGEST)
def linalg_cholesky_ex(
    cx: Rule, self: Value, upper: bool, check_errors: bool
) -> tuple[Value, Value]:
    """self [*B, N, N] -> L [*B, N, N], info int32 [*B]: the first minor that is not positive.

    Only the lower triangle is read, or only the upper one.
    """
    refuse_to_raise(cx, check_errors)
    *batch, n, _ = dims = self.known_dims
    rank, dtype = self.rank, cx.dtype(self)
    if 0 in dims:
        return self, cx.zeros(tuple(batch), torch.int32)
    rows, columns = cx.places(n, rank, rank - 2), cx.places(n, rank, rank - 1)
    zero, one = cx.scalar(0, dtype), (*batch, 1, 1)

    def step(k: Value, keep: Value, a: Value, info: Value) -> list[Value]:
        here = cx.reshape(k, (1,))
        column = cx.op.Gather(a, here, axis=rank - 1)
        corner = cx.op.Gather(column, here, axis=rank - 2)
        factor = cx.op.Div(column, cx.op.Sqrt(corner))
        across = transposed(cx, sized(factor, (*batch, n, 1)))
        inner = cx.op.And(cx.op.Greater(rows, k), cx.op.Greater(columns, k))
        a = cx.op.Where(inner, cx.op.Sub(a, cx.op.Mul(factor, across)), a)
        a = cx.op.Where(
            cx.op.And(cx.op.GreaterOrEqual(rows, k), cx.op.Equal(columns, k)), factor, a
        )
        number = cx.cast(cx.op.Add(k, cx.scalar(1, torch.int64)), torch.int32)
        bad = cx.op.Not(cx.op.Greater(corner, zero))
        first = cx.op.And(bad, cx.op.Equal(info, cx.scalar(0, torch.int32)))
        return [keep, a, cx.op.Where(first, number, info)]

    start = transposed(cx, self) if upper else self
    made, info = cx.loop(n, [start, cx.zeros(one, torch.int32)], step)
    lower: Value = sized(cx.op.Trilu(made, upper=0), dims)
    return (transposed(cx, lower) if upper else lower), cx.reshape(info, tuple(batch))


@lowers(aten.cholesky_solve.default, largest=LARGEST)
def cholesky_solve(cx: Rule, self: Value, input2: Value, upper: bool) -> Value:
    """self [*C, N, K], input2 [*D, N, N], a factor -> X with (L L^T) X = self."""
    return _cholesky_solved(cx, self, input2, cx.out.dims, upper=upper)


@lowers(aten.cholesky_inverse.default, largest=LARGEST)
def cholesky_inverse(cx: Rule, self: Value, upper: bool) -> Value:
    """self [*B, N, N], a factor -> the inverse of L L^T."""
    return _cholesky_solved(cx, unit_matrix(cx, self), self, self.known_dims, upper=upper)


def _cholesky_solved(cx: Rule, b: Value, factor: Value, dims: Dims, *, upper: bool) -> Value:
    lower = transposed(cx, factor) if upper else factor
    y = _triangular(cx, lower, b, dims, upper=False)
    return _triangular(cx, transposed(cx, lower), y, dims, upper=True)
