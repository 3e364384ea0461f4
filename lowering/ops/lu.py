"""LU of matrices, determinants, and solving by it: column by column, in Loops."""

from __future__ import annotations

import torch

from ..dims import Dim, Dims
from ..registry import lowers
from ..rule import Rule
from ..value import Value
from ._matrix import LARGEST, refuse_to_raise, sized, transposed, unit_matrix
from .triangular import solve

aten = torch.ops.aten


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
    refuse_to_raise(cx, check_errors)
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
    left = sized(cx.slice(lu, rank - 1, 0, count), (*batch, m, count))
    below = cx.op.Trilu(left, cx.scalar(-1, torch.int64), upper=0)
    unit = cx.op.Equal(cx.places(m, rank, rank - 2), cx.places(count, rank, rank - 1))
    lower = cx.op.Where(unit, cx.scalar(1, dtype), below)
    upper = cx.op.Trilu(sized(cx.slice(lu, rank - 2, 0, count), (*batch, count, n)), upper=1)
    order = _order(cx, pivots, m)
    # Row order[j] of P is one in column j.
    p = cx.op.Equal(cx.places(m, rank, rank - 2), cx.unsqueeze(order, rank - 2))
    return sized(cx.cast(p, dtype), (*batch, m, m)), lower, upper


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
        best = sized(cx.op.ArgMax(below, axis=rank - 2), one)
        source = cx.op.Where(cx.op.Equal(rows, best), k, rows)
        source = sized(cx.op.Where(cx.op.Equal(rows, k), best, source), (*batch, m, 1))
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
    return sized(sign, tuple(batch)), sized(size, tuple(batch)), None, None


@lowers(aten._linalg_solve_ex.default, largest=LARGEST)
def linalg_solve_ex(
    cx: Rule,
    A: Value,
    B: Value,
    left: bool,
    check_errors: bool,
) -> tuple[Value, None, None, Value]:
    """A [*C, N, N], B [*C, N, K] or [*C, N] -> X with A X = B (X A = B if not left), info [*C]."""
    refuse_to_raise(cx, check_errors)
    x, info = _solved(cx, A, B, cx.outs[0].dims, left=left)
    return x, None, None, info


@lowers(aten.linalg_inv_ex.default, largest=LARGEST)
def linalg_inv_ex(
    cx: Rule,
    A: Value,
    check_errors: bool,
) -> tuple[Value, Value]:
    """A [*B, N, N] -> its inverse [*B, N, N], info int32 [*B]."""
    refuse_to_raise(cx, check_errors)
    return _solved(cx, A, unit_matrix(cx, A), A.known_dims, left=True)


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
        x = _lu_solved(cx, lu, pivots, transposed(cx, b), turned, left=True, adjoint=not adjoint)
        return transposed(cx, x)
    b = cx.expand(b, dims)
    if 0 in dims:
        return b
    *batch, n, _ = dims
    rank = len(dims)
    lu = cx.expand(lu, (*batch, n, n))
    order = cx.expand(_order(cx, pivots, n), (*batch, n))
    if not adjoint:
        y = solve(cx, lu, _rows(cx, b, order, dims), upper=False, unit=True)
        return solve(cx, lu, y, upper=True)
    turned_lu = transposed(cx, lu)
    y = solve(cx, turned_lu, b, upper=False)
    y = solve(cx, turned_lu, y, upper=True, unit=True)
    back = cx.op.ScatterElements(
        order, order, cx.expand(cx.places(n, rank - 1, rank - 2), (*batch, n)), axis=rank - 2
    )
    return _rows(cx, y, sized(back, (*batch, n)), dims)


def _rows(cx: Rule, b: Value, order: Value, dims: Dims) -> Value:
    """The rows of b [*B, N, K] in this order int64 [*B, N]."""
    rank = len(dims)
    picked = cx.expand(cx.unsqueeze(order, rank - 1), dims)
    return sized(cx.op.GatherElements(b, picked, axis=rank - 2), dims)
