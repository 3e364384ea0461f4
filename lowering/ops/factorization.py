"""LU, Cholesky and QR of matrices, and what solves with them: column by column, in Loops.

ONNX has determinants and no factorization. A Loop of N steps takes 10 to 50 times what LAPACK
takes, so that only small matrices are worth staying in a region.
"""

from __future__ import annotations

import torch

from ..dims import Dim, Dims
from ..registry import lowers
from ..rule import Rule
from ..value import Value

aten = torch.ops.aten

LARGEST = 1024  # elements: 16 matrices of 8 x 8 take 0.5 ms, eager 0.03


# -------------------------------------------------------------------- LU
@lowers(aten.linalg_lu_factor_ex.default, largest=LARGEST)
def linalg_lu_factor_ex(
    cx: Rule,
    A: Value,
    pivot: bool,
    check_errors: bool,
) -> tuple[Value, Value, Value]:
    """A [*B, M, N] -> LU [*B, M, N], pivots int32 [*B, K] (from 1), info int32 [*B].

    info is 0, or the number (from 1) of the first pivot that is zero.
    """
    _refuse_to_raise(cx, check_errors)
    if not pivot:
        cx.decline("an LU without pivots, which torch has not on CPU")
    return _lu(cx, A, cx.outs[1].dims[-1])


@lowers(aten.linalg_lu.default, largest=LARGEST)
def linalg_lu(cx: Rule, A: Value, pivot: bool) -> tuple[Value, Value, Value]:
    """A [*B, M, N] -> P [*B, M, M], L [*B, M, K], U [*B, K, N]."""
    if not pivot:
        cx.decline("an LU without pivots, which torch has not on CPU")
    lu, pivots, _ = _lu(cx, A, cx.outs[1].dims[-1])
    return unpacked(cx, lu, pivots)


@lowers(aten.lu_unpack.default, largest=LARGEST)
def lu_unpack(
    cx: Rule,
    LU_data: Value,
    LU_pivots: Value,
    unpack_data: bool,
    unpack_pivots: bool,
) -> tuple[Value, Value, Value]:
    """LU_data [*B, M, N], pivots int32 [*B, K] -> P [*B, M, M], L [*B, M, K], U [*B, K, N].

    What is not wanted is empty.
    """
    p, lower, upper = (cx.zeros(m.dims, m.dtype) for m in cx.outs)
    made = unpacked(cx, LU_data, LU_pivots)
    return (
        made[0] if unpack_pivots else p,
        made[1] if unpack_data else lower,
        made[2] if unpack_data else upper,
    )


def unpacked(cx: Rule, lu: Value, pivots: Value) -> tuple[Value, Value, Value]:
    """The factors P [*B, M, M], L [*B, M, K], U [*B, K, N]."""
    *batch, m, n = lu.known_dims
    count, dtype = pivots.known_dims[-1], cx.dtype(lu)
    rank = lu.rank
    left = _sized(cx.slice(lu, rank - 1, 0, count), (*batch, m, count))
    below = cx.op.Trilu(left, cx.scalar(-1, torch.int64), upper=0)
    unit = cx.op.Equal(cx.places(m, rank, rank - 2), cx.places(count, rank, rank - 1))
    lower = cx.op.Where(unit, cx.scalar(1, dtype), below)
    upper = cx.op.Trilu(_sized(cx.slice(lu, rank - 2, 0, count), (*batch, count, n)), upper=1)
    order = _order(cx, pivots, m)
    # Row order[j] of P is one in column j.
    p = cx.op.Equal(cx.places(m, rank, rank - 2), cx.unsqueeze(order, rank - 2))
    return _sized(cx.cast(p, dtype), (*batch, m, m)), lower, upper


def _lu(cx: Rule, a: Value, count: Dim) -> tuple[Value, Value, Value]:
    """a [*B, M, N] -> LU, pivots int32 [*B, count] from 1, info int32 [*B]; partial pivoting.

    Ref: https://netlib.org/lapack/explore-html/dgetrf
    """
    dims, rank, dtype = a.known_dims, a.rank, cx.dtype(a)
    *batch, m, n = dims
    if 0 in dims:
        return a, cx.zeros((*batch, count), torch.int32), cx.zeros(tuple(batch), torch.int32)
    rows, columns = cx.places(m, rank, rank - 2), cx.places(n, rank, rank - 1)
    zero, none = cx.scalar(0, dtype), cx.scalar(-1, dtype)
    one = (*batch, 1, 1)

    def step(k: Value, keep: Value, a: Value, info: Value) -> list[Value]:
        here = cx.reshape(k, (1,))
        column = cx.op.Gather(a, here, axis=rank - 1)
        below = cx.op.Where(cx.op.GreaterOrEqual(rows, k), cx.op.Abs(column), none)
        best = _sized(cx.op.ArgMax(below, axis=rank - 2), one)
        source = cx.op.Where(cx.op.Equal(rows, best), k, rows)
        source = _sized(cx.op.Where(cx.op.Equal(rows, k), best, source), (*batch, m, 1))
        a = cx.op.GatherElements(a, cx.expand(source, dims), axis=rank - 2)
        row, column = (cx.op.Gather(a, here, axis=axis) for axis in (rank - 2, rank - 1))
        pivot = cx.op.Gather(row, here, axis=rank - 1)
        singular = cx.op.Equal(pivot, zero)
        factor = cx.op.Where(singular, column, cx.op.Div(column, pivot))
        after = cx.op.Sub(a, cx.op.Mul(factor, row))
        under, right = cx.op.Greater(rows, k), cx.op.Greater(columns, k)
        a = cx.op.Where(cx.op.And(under, right), after, a)
        a = cx.op.Where(cx.op.And(under, cx.op.Equal(columns, k)), factor, a)
        number = cx.cast(cx.op.Add(k, cx.scalar(1, torch.int64)), torch.int32)
        first = cx.op.And(singular, cx.op.Equal(info, cx.scalar(0, torch.int32)))
        best = cx.cast(cx.op.Add(best, cx.scalar(1, torch.int64)), torch.int32)
        return [keep, a, cx.op.Where(first, number, info), cx.reshape(best, tuple(batch))]

    lu, info, pivots = cx.loop(
        count, [a, cx.zeros(one, torch.int32)], step, [(torch.int32, tuple(batch))]
    )
    pivots = cx.transpose(pivots, [*range(1, len(batch) + 1), 0])
    return lu, pivots, cx.reshape(info, tuple(batch))


def _order(cx: Rule, pivots: Value, rows: Dim) -> Value:
    """int64 [*B, M]: 0, 1, ... after the exchange of each i with pivots[i] - 1, in order."""
    *batch, count = pivots.known_dims
    rank, dims = pivots.rank, (*batch, rows)
    places = cx.places(rows, rank, rank - 1)
    start = cx.expand(places, dims)
    if 0 in (*batch, count):
        return start

    def step(i: Value, keep: Value, order: Value) -> list[Value]:
        here = cx.reshape(i, (1,))
        target = cx.cast(cx.op.Gather(pivots, here, axis=rank - 1), torch.int64)
        target = cx.op.Sub(target, cx.scalar(1, torch.int64))
        moved = cx.op.Gather(order, here, axis=rank - 1)
        found = cx.op.GatherElements(order, target, axis=rank - 1)
        order = cx.op.Where(cx.op.Equal(places, target), moved, order)
        return [keep, cx.op.Where(cx.op.Equal(places, i), found, order)]

    return cx.loop(count, [start], step)[0]


@lowers(aten._linalg_slogdet.default, largest=LARGEST)
def linalg_slogdet(
    cx: Rule,
    A: Value,
) -> tuple[Value, Value, None, None]:
    """A [*B, N, N] -> the sign and the logarithm of the absolute value of its determinant [*B]."""
    lu, pivots, _ = _lu(cx, A, A.known_dims[-1])
    *batch, n = A.known_dims[:-1]
    rank, dtype = A.rank, cx.dtype(A)
    if 0 in A.known_dims:
        return cx.ones(tuple(batch), dtype), cx.zeros(tuple(batch), dtype), None, None
    places = cx.places(n, rank, rank - 1)
    here = cx.op.Equal(cx.places(n, rank, rank - 2), places)
    kept = cx.op.Where(here, lu, cx.scalar(0, dtype))
    diagonal = cx.op.ReduceSum(kept, cx.const([rank - 2], torch.int64), keepdims=0)
    last = cx.const([rank - 2], torch.int64)
    moved = cx.op.Not(
        cx.op.Equal(
            cx.cast(pivots, torch.int64),
            cx.op.Add(cx.places(n, rank - 1, rank - 2), cx.scalar(1, torch.int64)),
        )
    )
    turn = cx.op.Where(moved, cx.scalar(-1, dtype), cx.scalar(1, dtype))
    sign = cx.op.ReduceProd(cx.op.Mul(cx.op.Sign(diagonal), turn), last, keepdims=0)
    size = cx.op.ReduceSum(cx.op.Log(cx.op.Abs(diagonal)), last, keepdims=0)
    return _sized(sign, tuple(batch)), _sized(size, tuple(batch)), None, None


# -------------------------------------------------------------------- solving
@lowers(aten._linalg_solve_ex.default, largest=LARGEST)
def linalg_solve_ex(
    cx: Rule,
    A: Value,
    B: Value,
    left: bool,
    check_errors: bool,
) -> tuple[Value, None, None, Value]:
    """A [*C, N, N], B [*C, N, K] or [*C, N] -> X with A X = B (X A = B if not left), info [*C]."""
    _refuse_to_raise(cx, check_errors)
    x, info = _solved(cx, A, B, cx.outs[0].dims, left=left)
    return x, None, None, info


@lowers(aten.linalg_inv_ex.default, largest=LARGEST)
def linalg_inv_ex(
    cx: Rule,
    A: Value,
    check_errors: bool,
) -> tuple[Value, Value]:
    """A [*B, N, N] -> its inverse [*B, N, N], info int32 [*B]."""
    _refuse_to_raise(cx, check_errors)
    return _solved(cx, A, _unit(cx, A), A.known_dims, left=True)


def _solved(cx: Rule, a: Value, b: Value, dims: Dims, *, left: bool) -> tuple[Value, Value]:
    """X with a X = b, or X a = b, and info [*C]."""
    vector = b.rank == 1 or (b.rank == a.rank - 1 and b.known_dims == a.known_dims[:-1])
    lu, pivots, info = _lu(cx, a, a.known_dims[-1])
    if vector:
        b, dims = cx.unsqueeze(b, b.rank), (*dims, 1)
    x = _lu_solved(cx, lu, pivots, b, dims, left=left, adjoint=False)
    return (cx.reshape(x, dims[:-1]) if vector else x), info


@lowers(aten.linalg_lu_solve.default, largest=LARGEST)
def linalg_lu_solve(
    cx: Rule,
    LU: Value,
    pivots: Value,
    B: Value,
    left: bool,
    adjoint: bool,
) -> Value:
    """LU [*C, N, N], pivots [*C, N], B [*D, N, K] -> X with A X = B, or X A = B if not left."""
    return _lu_solved(cx, LU, pivots, B, cx.out.dims, left=left, adjoint=adjoint)


def _lu_solved(
    cx: Rule, lu: Value, pivots: Value, b: Value, dims: Dims, *, left: bool, adjoint: bool
) -> Value:
    """P L U X = B: L, then U, of the rows exchanged; the transpose the other way about."""
    if not left:
        turned = (*dims[:-2], dims[-1], dims[-2])
        x = _lu_solved(cx, lu, pivots, _mt(cx, b), turned, left=True, adjoint=not adjoint)
        return _mt(cx, x)
    b = cx.expand(b, dims)
    if 0 in dims:
        return b
    *batch, n, _ = dims
    rank = len(dims)
    lu = cx.expand(lu, (*batch, n, n))
    order = cx.expand(_order(cx, pivots, n), (*batch, n))
    if not adjoint:
        y = _solve(cx, lu, _rows(cx, b, order, dims), upper=False, unit=True)
        return _solve(cx, lu, y, upper=True)
    turned_lu = _mt(cx, lu)
    y = _solve(cx, turned_lu, b, upper=False)
    y = _solve(cx, turned_lu, y, upper=True, unit=True)
    back = cx.op.ScatterElements(
        order, order, cx.expand(cx.places(n, rank - 1, rank - 2), (*batch, n)), axis=rank - 2
    )
    return _rows(cx, y, _sized(back, (*batch, n)), dims)


def _rows(cx: Rule, b: Value, order: Value, dims: Dims) -> Value:
    """The rows of b [*B, N, K] in this order int64 [*B, N]."""
    rank = len(dims)
    picked = cx.expand(cx.unsqueeze(order, rank - 1), dims)
    return _sized(cx.op.GatherElements(b, picked, axis=rank - 2), dims)


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
    x = _triangular(cx, _mt(cx, self), _mt(cx, B), turned, upper=not upper, unit=unitriangular)
    return _mt(cx, x)


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
    a, is_upper = (_mt(cx, A), not upper) if transpose else (A, upper)
    x = _triangular(cx, a, self, cx.outs[0].dims, upper=is_upper, unit=unitriangular)
    return x, cx.expand(A, cx.outs[1].dims)


def _triangular(
    cx: Rule, a: Value, b: Value, dims: Dims, *, upper: bool, unit: bool = False
) -> Value:
    """a, b broadcast over their batches -> X [*dims] with a X = b."""
    if 0 in dims:
        return cx.expand(b, dims)
    a = cx.expand(a, (*dims[:-1], dims[-2]))
    return _solve(cx, a, cx.expand(b, dims), upper=upper, unit=unit)


def _solve(cx: Rule, a: Value, b: Value, *, upper: bool, unit: bool = False) -> Value:
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


# -------------------------------------------------------------------- Cholesky
@lowers(aten.linalg_cholesky_ex.default, largest=LARGEST)
def linalg_cholesky_ex(
    cx: Rule, self: Value, upper: bool, check_errors: bool
) -> tuple[Value, Value]:
    """self [*B, N, N] -> L [*B, N, N], info int32 [*B]: the first minor that is not positive.

    Only the lower triangle is read, or only the upper one.
    """
    _refuse_to_raise(cx, check_errors)
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
        across = _mt(cx, _sized(factor, (*batch, n, 1)))
        inner = cx.op.And(cx.op.Greater(rows, k), cx.op.Greater(columns, k))
        a = cx.op.Where(inner, cx.op.Sub(a, cx.op.Mul(factor, across)), a)
        a = cx.op.Where(
            cx.op.And(cx.op.GreaterOrEqual(rows, k), cx.op.Equal(columns, k)), factor, a
        )
        number = cx.cast(cx.op.Add(k, cx.scalar(1, torch.int64)), torch.int32)
        bad = cx.op.Not(cx.op.Greater(corner, zero))
        first = cx.op.And(bad, cx.op.Equal(info, cx.scalar(0, torch.int32)))
        return [keep, a, cx.op.Where(first, number, info)]

    start = _mt(cx, self) if upper else self
    made, info = cx.loop(n, [start, cx.zeros(one, torch.int32)], step)
    lower: Value = _sized(cx.op.Trilu(made, upper=0), dims)
    return (_mt(cx, lower) if upper else lower), cx.reshape(info, tuple(batch))


@lowers(aten.cholesky_solve.default, largest=LARGEST)
def cholesky_solve(cx: Rule, self: Value, input2: Value, upper: bool) -> Value:
    """self [*C, N, K], input2 [*D, N, N], a factor -> X with (L L^T) X = self."""
    return _cholesky_solved(cx, self, input2, cx.out.dims, upper=upper)


@lowers(aten.cholesky_inverse.default, largest=LARGEST)
def cholesky_inverse(cx: Rule, self: Value, upper: bool) -> Value:
    """self [*B, N, N], a factor -> the inverse of L L^T."""
    return _cholesky_solved(cx, _unit(cx, self), self, self.known_dims, upper=upper)


def _cholesky_solved(cx: Rule, b: Value, factor: Value, dims: Dims, *, upper: bool) -> Value:
    lower = _mt(cx, factor) if upper else factor
    y = _triangular(cx, lower, b, dims, upper=False)
    return _triangular(cx, _mt(cx, lower), y, dims, upper=True)


# -------------------------------------------------------------------- QR
@lowers(aten.geqrf.default, largest=LARGEST)
def geqrf(cx: Rule, self: Value) -> tuple[Value, Value]:
    """self [*B, M, N] -> R above, reflectors below the diagonal [*B, M, N]; tau [*B, K]."""
    return _qr(cx, self, cx.outs[1].dims[-1])


def _qr(cx: Rule, self: Value, count: Dim) -> tuple[Value, Value]:
    """By Householder's reflections, with LAPACK's signs.

    Ref: https://netlib.org/lapack/explore-html/dgeqrf
    """
    *batch, m, n = dims = self.known_dims
    rank, dtype = self.rank, cx.dtype(self)
    if 0 in dims:
        return self, cx.zeros((*batch, count), dtype)
    rows, columns = cx.places(m, rank, rank - 2), cx.places(n, rank, rank - 1)
    zero, one = cx.scalar(0, dtype), cx.scalar(1, dtype)
    down = cx.const([rank - 2], torch.int64)

    def step(k: Value, keep: Value, a: Value) -> list[Value]:
        here = cx.reshape(k, (1,))
        column = cx.op.Gather(a, here, axis=rank - 1)
        alpha = cx.op.Gather(column, here, axis=rank - 2)
        under = cx.op.Greater(rows, k)
        rest = cx.op.Where(under, column, zero)
        size = _norm(cx, rest, down)
        nothing = cx.op.Equal(size, zero)
        length = _norm(cx, cx.op.Concat(alpha, size, axis=rank - 2), down)
        beta = cx.op.Where(cx.op.Less(alpha, zero), length, cx.op.Neg(length))
        beta = cx.op.Where(nothing, alpha, beta)
        tau = cx.op.Where(nothing, zero, cx.op.Div(cx.op.Sub(beta, alpha), beta))
        below = cx.op.Where(nothing, zero, cx.op.Div(rest, cx.op.Sub(alpha, beta)))
        v = cx.op.Where(cx.op.Equal(rows, k), one, below)
        after = _reflected(cx, a, v, tau, dims)
        at = cx.op.Equal(columns, k)
        a = cx.op.Where(cx.op.Greater(columns, k), after, a)
        a = cx.op.Where(cx.op.And(at, under), below, a)
        a = cx.op.Where(cx.op.And(at, cx.op.Equal(rows, k)), beta, a)
        return [keep, a, cx.reshape(_sized(tau, (*batch, 1, 1)), tuple(batch))]

    made, tau = cx.loop(count, [self], step, [(dtype, tuple(batch))])
    return made, cx.transpose(tau, [*range(1, len(batch) + 1), 0])


@lowers(aten.linalg_qr.default, largest=LARGEST)
def linalg_qr(cx: Rule, A: Value, mode: str) -> tuple[Value, Value]:
    """A [*B, M, N] -> Q [*B, M, K] or [*B, M, M], R [*B, K, N] or [*B, M, N]; Q empty for "r"."""
    rank, dims = A.rank, cx.outs[1].dims
    count = dims[-2]
    if mode == "complete":
        count = min(cx.static(A.known_dims[-2:], "a complete QR of a matrix of symbolic size"))
    made, tau = _qr(cx, A, count)
    rows = _sized(cx.slice(made, rank - 2, 0, dims[-2]), dims)
    r = _sized(cx.op.Trilu(rows, upper=1), dims)
    if mode == "r":
        return cx.zeros(cx.outs[0].dims, cx.outs[0].dtype), r
    return _product(cx, made, tau, cx.outs[0].dims), r


@lowers(aten.linalg_householder_product.default, largest=LARGEST)
def linalg_householder_product(cx: Rule, input: Value, tau: Value) -> Value:
    """input [*B, M, N] of reflectors, tau [*B, K] -> the first N columns of their product."""
    return _product(cx, input, tau, cx.out.dims)


@lowers(aten.ormqr.default, largest=LARGEST)
def ormqr(
    cx: Rule, self: Value, input2: Value, input3: Value, left: bool, transpose: bool
) -> Value:
    """self [*B, S, K] of reflectors, input2 [*B, K], input3 [*B, M, N] -> Q C, or C Q."""
    dims = cx.out.dims
    if left:
        return _applied(cx, self, input2, input3, dims, forwards=transpose)
    turned = (*dims[:-2], dims[-1], dims[-2])
    made = _applied(cx, self, input2, _mt(cx, input3), turned, forwards=not transpose)
    return _mt(cx, made)


def _product(cx: Rule, reflectors: Value, tau: Value, dims: Dims) -> Value:
    """The first columns of Q: [*B, M, C]."""
    rank, dtype = len(dims), cx.dtype(reflectors)
    same = cx.op.Equal(cx.places(dims[-2], rank, rank - 2), cx.places(dims[-1], rank, rank - 1))
    start = cx.expand(cx.cast(same, dtype), dims)
    return _applied(cx, reflectors, tau, start, dims, forwards=False)


def _applied(
    cx: Rule, reflectors: Value, tau: Value, c: Value, dims: Dims, *, forwards: bool
) -> Value:
    """Each reflector I - tau v v^T times c [*B, M, N], the last one first unless `forwards`."""
    rank, dtype, count = len(dims), cx.dtype(c), tau.known_dims[-1]
    if 0 in (*dims, count):
        return c
    rows = cx.places(dims[-2], rank, rank - 2)
    taus = cx.unsqueeze(tau, rank - 1)
    last = cx.scalar(count - 1, torch.int64)
    zero, one = cx.scalar(0, dtype), cx.scalar(1, dtype)

    def step(i: Value, keep: Value, c: Value) -> list[Value]:
        k = i if forwards else cx.op.Sub(last, i)
        here = cx.reshape(k, (1,))
        column = cx.op.Gather(reflectors, here, axis=rank - 1)
        v = cx.op.Where(cx.op.Greater(rows, k), column, zero)
        v = cx.op.Where(cx.op.Equal(rows, k), one, v)
        return [keep, _reflected(cx, c, v, cx.op.Gather(taus, here, axis=rank - 2), dims)]

    return cx.loop(count, [c], step)[0]


def _reflected(cx: Rule, c: Value, v: Value, tau: Value, dims: Dims) -> Value:
    """c - tau v (v^T c): c [*B, M, N], v [*B, M, 1], tau [*B, 1, 1]."""
    down = cx.const([len(dims) - 2], torch.int64)
    along = cx.op.ReduceSum(cx.op.Mul(v, c), down, keepdims=1)
    return _sized(cx.op.Sub(c, cx.op.Mul(cx.op.Mul(tau, v), along)), dims)


def _norm(cx: Rule, column: Value, axes: Value) -> Value:
    """The length of each column; by the largest number, so that no square overflows."""
    dtype = cx.dtype(column)
    most = cx.op.ReduceMax(cx.op.Abs(column), axes, keepdims=1)
    divisor = cx.op.Where(cx.op.Equal(most, cx.scalar(0, dtype)), cx.scalar(1, dtype), most)
    part = cx.op.Div(column, divisor)
    return cx.op.Mul(most, cx.op.Sqrt(cx.op.ReduceSum(cx.op.Mul(part, part), axes, keepdims=1)))


# -------------------------------------------------------------------- what they share
def _refuse_to_raise(cx: Rule, check_errors: bool) -> None:
    if check_errors:
        cx.decline("an error to be raised from inside of a region (check_errors=True)")


def _unit(cx: Rule, like: Value) -> Value:
    """[*B, N, N] of unit matrices."""
    rank, dims = like.rank, like.known_dims
    same = cx.op.Equal(cx.places(dims[-1], rank, rank - 2), cx.places(dims[-1], rank, rank - 1))
    return cx.expand(cx.cast(same, cx.dtype(like)), dims)


def _mt(cx: Rule, matrix: Value) -> Value:
    """[*B, M, N] -> [*B, N, M]."""
    rank = matrix.rank
    return cx.transpose(matrix, [*range(rank - 2), rank - 1, rank - 2])


def _sized(value: Value, dims: Dims) -> Value:
    value.dims = dims
    return value
