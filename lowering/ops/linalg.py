"""Of linear algebra what needs no decomposition of its own: determinants, the parts of an LU."""

from __future__ import annotations

import torch

from ..registry import lowers
from ..rule import Rule
from ..value import Value

aten = torch.ops.aten

MOST_PIVOTS = 32  # row exchanges, some six nodes each


@lowers(aten._linalg_det.default)
def linalg_det(cx: Rule, A: Value) -> tuple[Value, None, None]:  # noqa: N803 - the schema's name
    """A [*B, N, N] -> its determinant [*B]; the LU and its pivots stay inside the kernel.

    Ref: https://onnx.ai/onnx/operators/onnx__Det.html
    """
    if 0 in A.known_dims:
        return cx.ones(cx.out.dims, cx.out.dtype), None, None
    return cx.op.Det(A), None, None


@lowers(aten.lu_unpack.default)
def lu_unpack(
    cx: Rule,
    LU_data: Value,  # noqa: N803 - the schema's names
    LU_pivots: Value,  # noqa: N803
    unpack_data: bool,
    unpack_pivots: bool,
) -> tuple[Value, Value, Value]:
    """LU_data [*B, M, N], pivots int32 [*B, K] -> P [*B, M, M], L [*B, M, K], U [*B, K, N].

    P undoes the exchanges of row i with row pivots[i] - 1, in order; what is not wanted is empty.
    """
    dtype = cx.outs[1].dtype
    p, lower, upper = (cx.zeros(m.dims, m.dtype) for m in cx.outs)
    rows, columns = cx.static(LU_data.known_dims[-2:], "the parts of an LU of symbolic size")
    count, last = min(rows, columns), LU_data.rank - 1
    if unpack_data and 0 not in LU_data.known_dims:
        left = cx.slice(LU_data, last, 0, count)
        below = cx.op.Trilu(left, cx.scalar(-1, torch.int64), upper=0)
        lower = cx.op.Add(below, cx.const(torch.eye(rows, count).tolist(), dtype))
        upper = cx.op.Trilu(cx.slice(LU_data, last - 1, 0, count), upper=1)
    if unpack_pivots and 0 not in cx.outs[0].dims:
        if count > MOST_PIVOTS:
            cx.decline(f"a permutation of more than {MOST_PIVOTS} exchanges")
        order = _permutation(cx, LU_pivots, rows, count)
        # Row order[j] of P is one in column j.
        p = cx.op.Equal(
            cx.const([[i] for i in range(rows)], torch.int64), cx.unsqueeze(order, last - 1)
        )
        p = cx.cast(p, dtype)
    return p, lower, upper


def _permutation(cx: Rule, pivots: Value, rows: int, count: int) -> Value:
    """int64 [*B, rows]: 0, 1, ... after each exchange of i with pivots[i] - 1."""
    dims = (*pivots.known_dims[:-1], rows)
    last = len(dims) - 1
    places = cx.const(list(range(rows)), torch.int64)
    order = cx.expand(places, dims)
    targets = cx.op.Sub(cx.cast(pivots, torch.int64), cx.scalar(1, torch.int64))
    for i in range(count):
        target = cx.slice(targets, last, i, i + 1)
        moved = cx.slice(order, last, i, i + 1)
        found = cx.op.GatherElements(order, target, axis=last)
        order = cx.op.Where(cx.op.Equal(places, target), moved, order)
        order = cx.op.Where(cx.op.Equal(places, cx.scalar(i, torch.int64)), found, order)
        order.dims = dims
    return order
