"""QR of matrices, by Householder's reflections: column by column, in Loops."""

from __future__ import annotations

import torch

from ..dims import Dim, Dims
from ..registry import lowers
from ..rule import Rule
from ..value import Value
from ._matrix import LARGEST, sized, transposed

aten = torch.ops.aten


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
        return [keep, a, cx.reshape(sized(tau, (*batch, 1, 1)), tuple(batch))]

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
    rows = sized(cx.slice(made, rank - 2, 0, dims[-2]), dims)
    r = sized(cx.op.Trilu(rows, upper=1), dims)
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
    made = _applied(cx, self, input2, transposed(cx, input3), turned, forwards=not transpose)
    return transposed(cx, made)


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
    return sized(cx.op.Sub(c, cx.op.Mul(cx.op.Mul(tau, v), along)), dims)


def _norm(cx: Rule, column: Value, axes: Value) -> Value:
    """The length of each column; by the largest number, so that no square overflows."""
    dtype = cx.dtype(column)
    most = cx.op.ReduceMax(cx.op.Abs(column), axes, keepdims=1)
    divisor = cx.op.Where(cx.op.Equal(most, cx.scalar(0, dtype)), cx.scalar(1, dtype), most)
    part = cx.op.Div(column, divisor)
    return cx.op.Mul(most, cx.op.Sqrt(cx.op.ReduceSum(cx.op.Mul(part, part), axes, keepdims=1)))
