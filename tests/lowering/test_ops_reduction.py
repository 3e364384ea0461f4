"""Sums, products, means, moments, norms and distances against eager."""

from __future__ import annotations

import pytest
import torch

from .harness import Case, check, lower

aten = torch.ops.aten


def given(last, fn):
    return lambda *args: fn(*args, last)


X = torch.randn(3, 4, 5)
INTS = torch.arange(-6, 6).reshape(3, 4)
INF, NAN = float("inf"), float("nan")
SPOILT = torch.tensor([[1.0, NAN, 3.0], [INF, 1.0, 2.0], [0.0, -0.0, 5.0]])
HUGE = torch.tensor([[2**53 + 1, 1, 0, 2], [2**62, 2**62, 2**62, 3]])
NOTHING = torch.ones(0, 3)

sum_, mean, prod = aten.sum.dim_IntList, aten.mean.dim, aten.prod.dim_int
var, norm = aten.var.correction, aten.linalg_vector_norm.default

CASES = [
    Case("sum of everything is one node", aten.sum.default, (X,), max_nodes=1),
    Case("sum along a dim is one node", lambda x: sum_(x, [-1]), (X,), max_nodes=1),
    Case("sum along two dims, kept", lambda x: sum_(x, [0, 2], True), (X,), max_nodes=1),
    Case("sum along no dims is of everything", lambda x: sum_(x, []), (X,)),
    Case("sum along None is of everything", lambda x: sum_(x, None, True), (X,)),
    Case("sum of a 0-d tensor", lambda x: sum_(x, [0]), (torch.tensor(2.0),)),
    Case("sum of a 0-d int tensor", aten.sum.default, (torch.tensor(2**60 + 1),)),
    Case("sum of bool counts", lambda x: sum_(x, [1]), (X > 0,), max_nodes=2),
    Case("sum of uint8 goes to int64", lambda x: sum_(x, [1]), (torch.full((3, 4), 255).byte(),)),
    Case("sum of int32 goes to int64", aten.sum.default, (torch.full((3, 4), 2**31 - 1).int(),)),
    Case("sum of int64 beyond float64 is exact", lambda x: sum_(x, [1]), (HUGE,)),
    Case("sum of int64 along rows is exact", lambda x: sum_(x, [0]), (HUGE.t().contiguous(),)),
    Case("sum of all int64 is exact", aten.sum.default, (HUGE,)),
    Case("sum of int64 along a middle dim", lambda x: sum_(x, [1], True), (HUGE[None, :, :],)),
    Case("sum of int64 along outer dims", lambda x: sum_(x, [0, 2]), (HUGE[None, :, :],)),
    Case("sum of int64, symbolic", lambda x: sum_(x, [1]), (HUGE,), dynamic=True),
    Case("sum of int32, symbolic", lambda x: sum_(x, [0]), (HUGE.int(),), dynamic=True),
    Case("sum of int64 into int32 wraps", lambda x: sum_(x, [1], dtype=torch.int32), (HUGE,)),
    Case("sum of int64 into float32", lambda x: sum_(x, [1], dtype=torch.float32), (INTS,)),
    Case("sum of float32 into float64", lambda x: aten.sum.default(x, dtype=torch.float64), (X,)),
    Case("sum of float into bool", lambda x: sum_(x, [1], dtype=torch.bool), (X,)),
    Case(
        "sum of bfloat16 adds up in float32",
        lambda x: sum_(x, [0]),
        (torch.ones(999, 2).bfloat16(),),
    ),
    Case("sum of float16", lambda x: sum_(x, [0]), (X.half(),)),
    Case("sum of nothing is zeros", lambda x: sum_(x, [0]), (NOTHING,)),
    Case("sum of no rows", lambda x: sum_(x, [1]), (NOTHING,)),
    Case("sum of no int64", lambda x: sum_(x, [0]), (NOTHING.long(),)),
    Case("sum of no bool", aten.sum.default, (NOTHING.bool(),)),
    Case("sum with symbolic dims", lambda x: sum_(x, [0, 1]), (X,), dynamic=True, max_nodes=1),
    Case("nansum", lambda x: aten.nansum.default(x, [1]), (SPOILT,)),
    Case("nansum of int32", aten.nansum.default, (INTS.int(),)),
    Case("nansum into float64", lambda x: aten.nansum.default(x, dtype=torch.float64), (SPOILT,)),
    Case("count_nonzero counts NaN", lambda x: aten.count_nonzero.default(x, 1), (SPOILT,)),
    Case("count_nonzero of everything", aten.count_nonzero.default, (INTS,)),
    Case("count_nonzero along dims", lambda x: aten.count_nonzero.dim_IntList(x, [0, 1]), (X > 0,)),
    Case("trace", aten.trace.default, (X[0],)),
    Case("trace of a wide int32 matrix", aten.trace.default, (INTS.int(),)),
    Case("trace of symbolic size", aten.trace.default, (X[0],), dynamic=True),
    Case("trace of a tall matrix", aten.trace.default, (INTS.T.double(),), dynamic=True),
    Case("prod of everything", aten.prod.default, (X,), max_nodes=1),
    Case("prod along a dim", lambda x: prod(x, 1, True), (X,), max_nodes=1),
    Case("prod of int64 is exact and wraps", lambda x: prod(x, 1), (HUGE + 1,)),
    Case(
        "prod of five int32 along a middle dim",
        lambda x: prod(x, 1),
        (torch.randint(1, 99, (2, 5, 3)).int(),),
    ),
    Case("prod of bool is all", lambda x: prod(x, 0), (X > 0,)),
    Case("prod into bool", lambda x: prod(x, 0, dtype=torch.bool), (INTS,)),
    Case("prod of nothing is ones", lambda x: prod(x, 0), (NOTHING,)),
    Case("prod of no int64 is ones", lambda x: prod(x, 0), (NOTHING.long(),)),
    Case("prod of a 0-d tensor", aten.prod.default, (torch.tensor(7),)),
    Case("prod of bfloat16", lambda x: prod(x, 1), (X.bfloat16(),)),
    Case("mean is one node", lambda x: mean(x, [-1], True), (X,), max_nodes=1),
    Case("mean of everything", aten.mean.default, (X,), max_nodes=1),
    Case("mean of int64 into float32", lambda x: mean(x, [0], dtype=torch.float32), (INTS,)),
    Case("mean of bfloat16", lambda x: mean(x, [0, 1]), (X.bfloat16(),)),
    Case("mean of nothing is NaN", lambda x: mean(x, [0]), (NOTHING,)),
    Case("mean of no rows", lambda x: mean(x, [1]), (NOTHING,)),
    Case("mean of a 0-d tensor", lambda x: mean(x, []), (torch.tensor(2.0),)),
    Case("mean with symbolic dims", lambda x: mean(x, [1]), (X,), dynamic=True, max_nodes=1),
    Case("var", lambda x: var(x, [1]), (X,)),
    Case(
        "var without correction is three nodes and a mean",
        lambda x: var(x, [1], correction=0),
        (X,),
        max_nodes=4,
    ),
    Case("var of everything far from zero", var, (X + 1000,), tolerance=1e-3),
    Case("var of one is NaN", lambda x: var(x, [0]), (X[:1],)),
    Case("var with too much correction", lambda x: var(x, [0], correction=9), (X,)),
    Case("var with half a correction", lambda x: var(x, [0], correction=0.5), (X,)),
    Case("var of nothing", lambda x: var(x, [0]), (NOTHING,)),
    Case("var with infinities", lambda x: var(x, [1]), (SPOILT,)),
    Case("var with symbolic dims", lambda x: var(x, [0, 1], keepdim=True), (X,), dynamic=True),
    Case("var_mean", lambda x: aten.var_mean.correction(x, [2], correction=0, keepdim=True), (X,)),
    Case("var_mean of float16", lambda x: aten.var_mean.correction(x, [2]), (X.half(),)),
    Case("std of float64", lambda x: aten.std.correction(x, [0, 2]), (X.double(),)),
    Case("std of bfloat16", lambda x: aten.std.correction(x, None), (X.bfloat16(),)),
    Case("std_mean", lambda x: aten.std_mean.correction(x, [0]), (X,)),
    Case("logsumexp is one node", lambda x: aten.logsumexp.default(x, [1]), (X,), max_nodes=1),
    Case("logsumexp of great numbers", lambda x: aten.logsumexp.default(x, [1, 2]), (X * 1000,)),
    Case(
        "logsumexp with infinities and NaN",
        lambda x: aten.logsumexp.default(x, [1]),
        (torch.tensor([[INF, INF], [-INF, -INF], [INF, -INF], [NAN, INF], [1.0, NAN]]),),
    ),
    Case("logsumexp of nothing", lambda x: aten.logsumexp.default(x, [0]), (NOTHING,)),
    Case("logsumexp of int64", lambda x: aten.logsumexp.default(x, [0], True), (INTS,)),
]

ORDERS = [0, 1, 2, 3, 0.5, -1, INF, -INF]
NORMS = [
    *(
        Case(f"vector_norm of order {p}", given(p, lambda x, p: norm(x, p, [1])), (X,))
        for p in ORDERS
    ),
    *(
        Case(
            f"vector_norm of order {p} with NaN", given(p, lambda x, p: norm(x, p, [1])), (SPOILT,)
        )
        for p in ORDERS
    ),
    *(
        Case(
            f"vector_norm of order {p} of a number",
            given(p, lambda x, p: norm(x, p)),
            (torch.tensor(-2.0),),
        )
        for p in ORDERS
    ),
    *(
        Case(
            f"vector_norm of order {p} of nothing",
            given(p, lambda x, p: norm(x, p, [0])),
            (NOTHING,),
        )
        for p in ORDERS[:5]
    ),
    Case("vector_norm is one node", lambda x: norm(x, 2, [-1], True), (X,), max_nodes=1),
    Case("vector_norm of bfloat16", lambda x: norm(x, 3, None), (X.bfloat16(),)),
    Case(
        "vector_norm of bfloat16 into float32",
        lambda x: norm(x, 2, [1], dtype=torch.float32),
        (X.bfloat16(),),
    ),
    Case(
        "vector_norm of float32 into float64 does not overflow",
        lambda x: norm(x, 2, [1], dtype=torch.float64),
        (X * 1e30,),
    ),
    Case(
        "vector_norm with symbolic dims", lambda x: norm(x, 2, [0]), (X,), dynamic=True, max_nodes=1
    ),
    Case("norm", lambda x: aten.norm.Scalar(x, 1), (X,)),
    Case(
        "norm along a dim", lambda x: aten.norm.ScalarOpt_dim(x, None, [1], True), (X,), max_nodes=1
    ),
    Case("norm in a dtype", lambda x: aten.norm.ScalarOpt_dtype(x, 2, dtype=torch.float64), (X,)),
    Case(
        "norm along a dim in a dtype",
        lambda x: aten.norm.ScalarOpt_dim_dtype(x, 3, [0], False, dtype=torch.float64),
        (X,),
    ),
    *(
        Case(
            f"dist of order {p}",
            given(p, lambda a, b, p: aten.dist.default(a, b, p)),
            (X, X[0] + 1),
        )
        for p in ORDERS
    ),
    Case("renorm", lambda x: aten.renorm.default(x, 2, 0, 1.5), (X,)),
    Case("renorm of float16", lambda x: aten.renorm.default(x, 1, 1, 4), (X.half(),)),
    *(
        Case(
            f"cdist of order {p}",
            given(p, lambda a, b, p: aten._cdist_forward.default(a, b, p, None)),
            (X, X[:, :3] + 1),
        )
        for p in (0.0, 1.0, 2.0, 3.0, INF)
    ),
    Case(
        "cdist of many rows",
        lambda a, b: aten._cdist_forward.default(a, b, 2.0, None),
        (torch.randn(2, 30, 7), torch.randn(2, 40, 7)),
        tolerance=1e-4,
    ),
    Case(
        "cdist never by products",
        lambda a, b: aten._cdist_forward.default(a, b, 2.0, 2),
        (torch.randn(30, 7), torch.randn(40, 7)),
    ),
    Case(
        "cdist of no rows",
        lambda a, b: aten._cdist_forward.default(a, b, 2.0, None),
        (torch.randn(0, 7), torch.randn(4, 7)),
    ),
    *[
        Case(
            f"cdist of {count} rows known at run time, with infinities",
            lambda a, b: aten._cdist_forward.default(a, b, 2.0, None),
            (torch.tensor([[float("inf"), 1.0], [2.0, 3.0]]), torch.ones(count, 2)),
            dynamic=True,
        )
        for count in (3, 30)
    ],
    Case(
        "cdist with symbolic dims",
        lambda a, b: aten._cdist_forward.default(a, b, 1.0, None),
        (X, X[:, :3] + 1),
        dynamic=True,
    ),
    Case("_euclidean_dist", aten._euclidean_dist.default, (X[0], X[1]), tolerance=1e-4),
    *(
        Case(
            f"pdist of order {p}", given(p, lambda x, p: aten._pdist_forward.default(x, p)), (X[0],)
        )
        for p in (0.0, 1.0, 2.0, INF)
    ),
    Case("pdist of one row", aten._pdist_forward.default, (X[0, :1],)),
    Case("cross", lambda a, b: aten.linalg_cross.default(a, b), (X[:, :, :3], X[:, :, 2:])),
    Case("cross broadcasts", lambda a, b: aten.linalg_cross.default(a, b, dim=0), (X, X[:, :1])),
    Case(
        "cross of bfloat16",
        lambda a, b: aten.linalg_cross.default(a, b, dim=0),
        (X.bfloat16(), X.flip(0).bfloat16()),
    ),
]


MASK, EMPTY = torch.tensor([1.0, -2.0, 3.0]), torch.tensor([-1.0, -2.0, -3.0])


def found(x):
    """[U, 1], where U is known at run time only."""
    return aten.nonzero.default(x > 0)


RUN_TIME_SIZES = [
    case
    for x, what in ((MASK, "some"), (EMPTY, "no"))
    for case in (
        Case(
            f"mean of {what} hits", lambda x: aten.mean.default(found(x) * x[0]), (x,), dynamic=True
        ),
        Case(f"sum of {what} int64 hits", lambda x: sum_(found(x), [0]), (x,), dynamic=True),
        Case(f"any of {what} hits", lambda x: aten.any.default(found(x)), (x,), dynamic=True),
        Case(f"all of {what} hits", lambda x: aten.all.dim(found(x) > 0, 0), (x,), dynamic=True),
    )
]


@pytest.mark.parametrize("case", CASES + NORMS + RUN_TIME_SIZES, ids=str)
def test_reduction(case: Case) -> None:
    check(case)


@pytest.mark.parametrize(
    ("why", "fn", "args", "dynamic"),
    [
        ("an integer product over a symbolic size", lambda x: prod(x, 0), (INTS,), True),
        ("which may be empty", lambda x: var(found(x) * x[0], [0]), (MASK,), True),
        ("pdist of a symbolic number of rows", aten._pdist_forward.default, (X[0],), True),
    ],
)
def test_what_stays_eager(why, fn, args, dynamic) -> None:
    (reason,) = lower(fn, *args, dynamic=dynamic).reasons
    assert why in str(reason)
