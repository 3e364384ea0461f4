"""Extrema, their indices, any and all, sorting and running sums against eager."""

from __future__ import annotations

import pytest
import torch

from .harness import Case, check, lower

aten = torch.ops.aten
X = torch.randn(3, 4, 5)
INTS = torch.tensor([[3, 1, 1, 2], [-5, -5, 7, 7], [0, 0, 0, 0]])
BIG = torch.tensor([2**62 + 1, 2**62, 2**62 + 1])
INF, NAN = float("inf"), float("nan")
SPOILT = torch.tensor(
    [
        [1.0, NAN, 3, NAN],
        [NAN, 1, 2, 2],
        [1, 1, 3, 3],
        [INF, INF, -INF, -INF],
        [-INF] * 4,
        [0.0] * 4,
    ]
)
NOTHING = torch.ones(0, 3)
EVERY = {
    "float32": SPOILT,
    "float64": SPOILT.double(),
    "bfloat16": SPOILT.bfloat16(),
    "float16": SPOILT.half(),
    "int64": INTS,
    "int32": INTS.int(),
    "int16": INTS.short(),
    "int8": INTS.char(),
    "uint8": INTS.byte(),
    "bool": INTS > 1,
}
NUMBERS = {k: v for k, v in EVERY.items() if k != "bool"}


def rows(name, fn, tensors=EVERY):
    return [Case(f"{name} of {kind}", fn, (x,)) for kind, x in tensors.items()]


EXTREMA = [
    *rows("amax", lambda x: aten.amax.default(x, [1])),
    *rows("amin", lambda x: aten.amin.default(x, [0], True)),
    *rows("max", aten.max.default),
    *rows("min", aten.min.default),
    *rows("max.dim", lambda x: aten.max.dim(x, 1)),
    *rows("min.dim", lambda x: aten.min.dim(x, -1, True)),
    *rows("argmax", lambda x: aten.argmax.default(x, 1), NUMBERS),
    *rows("argmin", lambda x: aten.argmin.default(x, 0, True), NUMBERS),
    *rows("aminmax", lambda x: aten.aminmax.default(x, dim=1)),
    *rows("any", lambda x: aten.any.dim(x, 1)),
    *rows("all", lambda x: aten.all.dim(x, 1, True)),
    Case("amax of everything", lambda x: aten.amax.default(x), (X,)),
    Case("amax along two dims", lambda x: aten.amax.default(x, [0, 2]), (X,), max_nodes=4),
    Case("amax of a 0-d tensor", lambda x: aten.amax.default(x), (torch.tensor(NAN),)),
    Case("amax of int64 beyond float64", lambda x: aten.amax.default(x, [0]), (BIG,), max_nodes=1),
    Case("amax of no rows", lambda x: aten.amax.default(x, [1]), (NOTHING,)),
    Case("amin with symbolic dims", lambda x: aten.amin.default(x, [1]), (X,), dynamic=True),
    Case("max.dim of a middle dim", lambda x: aten.max.dim(x, 1), (X,), max_nodes=3),
    Case(
        "max.dim keeps its dim in one node", lambda x: aten.max.dim(x, 1, True), (X,), max_nodes=1
    ),
    Case("max.dim of a 0-d tensor", lambda x: aten.max.dim(x, 0), (torch.tensor(3.0),)),
    Case("min.dim of int64 beyond float64", lambda x: aten.min.dim(x, 0), (BIG,)),
    Case("max.dim with symbolic dims", lambda x: aten.max.dim(x, 1), (X,), dynamic=True),
    Case("argmax of everything", lambda x: aten.argmax.default(x), (SPOILT,)),
    Case("argmax of everything, dims kept", lambda x: aten.argmax.default(x, None, True), (INTS,)),
    Case("argmax of a 0-d tensor", lambda x: aten.argmax.default(x, 0), (torch.tensor(3.0),)),
    Case("argmax of int64 is one node", lambda x: aten.argmax.default(x, 1), (INTS,), max_nodes=1),
    Case("argmin of int64 beyond float64", lambda x: aten.argmin.default(x, 0), (BIG,)),
    Case("argmax of no rows", lambda x: aten.argmax.default(x, 1), (NOTHING,)),
    Case(
        "argmax with symbolic dims",
        lambda x: aten.argmax.default(x, -1),
        (X,),
        dynamic=True,
        max_nodes=2,
    ),
    Case("argmax of everything, symbolic", lambda x: aten.argmax.default(x), (X,), dynamic=True),
    Case("_aminmax", aten._aminmax.default, (X,)),
    Case("_aminmax.dim", lambda x: aten._aminmax.dim(x, 1, True), (X,)),
    Case("any of everything", aten.any.default, (X > 9,), max_nodes=1),
    Case("all of everything", aten.all.default, (X > -9,), max_nodes=1),
    Case("any along dims", lambda x: aten.any.dims(x, [0, 2], True), (X > 1,), max_nodes=1),
    Case("all along dims", lambda x: aten.all.dims(x, [0, 2]), (X > 1,), max_nodes=1),
    Case("any along no dims converts", lambda x: aten.any.dims(x, []), (X,)),
    Case("all along None", lambda x: aten.all.dims(x, None), (X,)),
    Case("any of nothing is false", lambda x: aten.any.dim(x, 0), (NOTHING.bool(),)),
    Case("all of nothing is true", lambda x: aten.all.dim(x, 0), (NOTHING.bool(),)),
    Case("any of a 0-d tensor", aten.any.default, (torch.tensor(NAN),)),
    Case("all of no rows", lambda x: aten.all.dim(x, 1), (NOTHING.bool(),)),
    Case("any with symbolic dims", lambda x: aten.any.dim(x, 0), (X > 1,), dynamic=True),
]

DISTINCT = torch.randperm(60).float().reshape(3, 4, 5)
SORTS = [
    *rows("sort", lambda x: aten.sort.stable(x, stable=True, dim=1)),
    *rows("descending sort", lambda x: aten.sort.stable(x, stable=True, dim=0, descending=True)),
    Case("sort is one node", lambda x: aten.sort.default(x), (DISTINCT,), max_nodes=1),
    Case("sort of a middle dim", lambda x: aten.sort.default(x, 1, True), (DISTINCT,), max_nodes=1),
    Case("sort of a 0-d tensor", lambda x: aten.sort.default(x), (torch.tensor(3.0),)),
    Case("sort of nothing", lambda x: aten.sort.default(x, 0), (NOTHING,)),
    Case(
        "sort of many equal numbers",
        lambda x: aten.sort.stable(x, stable=True),
        (torch.randint(0, 9, (3000,)),),
    ),
    Case("sort with symbolic dims", lambda x: aten.sort.default(x, 1), (DISTINCT,), dynamic=True),
    Case("topk is one node", lambda x: aten.topk.default(x, 2), (DISTINCT,), max_nodes=1),
    Case(
        "topk of the least, of a middle dim",
        lambda x: aten.topk.default(x, 3, 1, False),
        (DISTINCT,),
    ),
    Case("topk with NaN", lambda x: aten.topk.default(x, 2, 0)[0], (SPOILT,)),
    Case("topk of the least with NaN", lambda x: aten.topk.default(x, 3, 1, False)[0], (SPOILT,)),
    Case("topk of none", lambda x: aten.topk.default(x, 0), (DISTINCT,)),
    Case("topk of a 0-d tensor", lambda x: aten.topk.default(x, 1), (torch.tensor(3.0),)),
    Case("topk of int64", lambda x: aten.topk.default(x, 2)[0], (INTS,)),
    Case("topk of bfloat16", lambda x: aten.topk.default(x, 2), (DISTINCT.bfloat16(),)),
    Case(
        "topk with symbolic dims", lambda x: aten.topk.default(x, 2, 1), (DISTINCT,), dynamic=True
    ),
    Case(
        "topk of a symbolic number",
        lambda x: aten.topk.default(x, x.shape[2] - 1),
        (DISTINCT,),
        dynamic=True,
    ),
    Case("kthvalue", lambda x: aten.kthvalue.default(x, 2), (DISTINCT,)),
    Case(
        "kthvalue of a middle dim, kept",
        lambda x: aten.kthvalue.default(x, 3, 1, True),
        (DISTINCT,),
    ),
    Case("kthvalue with NaN", lambda x: aten.kthvalue.default(x, 3, 1)[0], (SPOILT,)),
    Case(
        "kthvalue with symbolic dims",
        lambda x: aten.kthvalue.default(x, 2),
        (DISTINCT,),
        dynamic=True,
    ),
    Case("median.dim", lambda x: aten.median.dim(x, 1), (DISTINCT,)),
    Case("median.dim with NaN", lambda x: aten.median.dim(x, 1, True)[0], (SPOILT,)),
    Case(
        "median.dim with NaN finds the first",
        lambda x: aten.median.dim(x, 0),
        (torch.tensor([5.0, NAN, 1.0, NAN]),),
    ),
    Case("median", aten.median.default, (X,)),
    Case("median with NaN", aten.median.default, (SPOILT,)),
    Case("median of int32", aten.median.default, (INTS.int(),)),
    Case("nanmedian.dim", lambda x: aten.nanmedian.dim(x, 1)[0], (SPOILT,)),
    Case(
        "nanmedian.dim of distinct numbers", lambda x: aten.nanmedian.dim(x, 1, True), (DISTINCT,)
    ),
    Case("nanmedian.dim of NaN only", lambda x: aten.nanmedian.dim(x, 0), (torch.full((3,), NAN),)),
    Case("nanmedian.dim of int64", lambda x: aten.nanmedian.dim(x, 1)[0], (INTS,)),
    Case("nanmedian", aten.nanmedian.default, (SPOILT,)),
    Case("nanmedian of bfloat16, symbolic", aten.nanmedian.default, (X.bfloat16(),), dynamic=True),
    Case("median with symbolic dims", aten.median.default, (X,), dynamic=True),
]

LOGS = torch.tensor([-INF, -INF, 1.0, 1.0, -50.0, INF, -INF, INF, NAN, 2.0])
SCANS = [
    Case("cumsum of int64 is one node", lambda x: aten.cumsum.default(x, 1), (INTS,), max_nodes=1),
    Case("cumsum of bool counts", lambda x: aten.cumsum.default(x, 0), (INTS > 0,), max_nodes=2),
    Case("cumsum of uint8 goes to int64", lambda x: aten.cumsum.default(x, 0), (INTS.byte(),)),
    Case("cumsum of int64 beyond float64", lambda x: aten.cumsum.default(x, 0), (BIG,)),
    Case(
        "cumsum of int64 into int32", lambda x: aten.cumsum.default(x, 0, dtype=torch.int32), (BIG,)
    ),
    Case(
        "cumsum of int64 into int8 wraps",
        lambda x: aten.cumsum.default(x, 1, dtype=torch.int8),
        (INTS * 90,),
    ),
    Case(
        "cumsum of float32 to the last bit",
        lambda x: aten.cumsum.default(x, 0),
        (torch.rand(9999),),
        tolerance=0.0,
    ),
    Case("cumsum of float64", lambda x: aten.cumsum.default(x, -1), (X.double(),), max_nodes=2),
    *[
        Case(
            f"cumsum of {t} makes 0.0 of -0.0",
            lambda x: 1 / aten.cumsum.default(x, 0),
            (torch.tensor([-0.0, -0.0, 1.0, -1.0], dtype=t),),
        )
        for t in (torch.float32, torch.float64, torch.bfloat16)
    ],
    Case("cumsum of bfloat16", lambda x: aten.cumsum.default(x, 1), (X.bfloat16(),)),
    Case(
        "cumsum of int64 into float32",
        lambda x: aten.cumsum.default(x, 1, dtype=torch.float32),
        (INTS,),
    ),
    Case("cumsum of a 0-d tensor", lambda x: aten.cumsum.default(x, 0), (torch.tensor(True),)),
    Case("cumsum of nothing", lambda x: aten.cumsum.default(x, 0), (NOTHING,)),
    Case(
        "cumsum with symbolic dims",
        lambda x: aten.cumsum.default(x, 1),
        (INTS,),
        dynamic=True,
        max_nodes=1,
    ),
    *rows("cumprod", lambda x: aten.cumprod.default(x, 1)),
    Case(
        "cumprod never meets inf * 0",
        lambda x: aten.cumprod.default(x, 0),
        (torch.tensor([0.0, 1e30, 1e30, 1e30]),),
    ),
    Case("cumprod of a middle dim", lambda x: aten.cumprod.default(x, 1), (X,)),
    Case("cumprod of int64 wraps", lambda x: aten.cumprod.default(x, 0), (BIG,)),
    Case(
        "cumprod into float64", lambda x: aten.cumprod.default(x, 0, dtype=torch.float64), (INTS,)
    ),
    Case("cumprod of a 0-d tensor", lambda x: aten.cumprod.default(x, 0), (torch.tensor(2.0),)),
    Case("cumprod of nothing", lambda x: aten.cumprod.default(x, 0), (NOTHING,)),
    Case("logcumsumexp", lambda x: aten.logcumsumexp.default(x, 1), (X,)),
    Case(
        "logcumsumexp with infinities and NaN", lambda x: aten.logcumsumexp.default(x, 0), (LOGS,)
    ),
    Case("logcumsumexp of float64", lambda x: aten.logcumsumexp.default(x, 0), (LOGS.double(),)),
    Case("logcumsumexp of bfloat16", lambda x: aten.logcumsumexp.default(x, 1), (X.bfloat16(),)),
    *rows("cummax", lambda x: aten.cummax.default(x, 1)),
    *rows("cummin", lambda x: aten.cummin.default(x, 0)),
    Case("cummax of int64 beyond float64", lambda x: aten.cummax.default(x, 0), (BIG,)),
    Case("cummax of a 0-d tensor", lambda x: aten.cummax.default(x, 0), (torch.tensor(2.0),)),
]


@pytest.mark.parametrize("case", EXTREMA + SORTS + SCANS, ids=str)
def test_extrema(case: Case) -> None:
    check(case)


@pytest.mark.parametrize(
    ("why", "fn", "args", "dynamic"),
    [
        ("a scan of 300 steps", lambda x: aten.cummin.default(x, 0), (torch.ones(300),), False),
        ("a scan of s", lambda x: aten.cummax.default(x, 0), (X,), True),
        ("the median of no elements", aten.median.default, (NOTHING,), False),
    ],
)
def test_what_stays_eager(why, fn, args, dynamic) -> None:
    (reason,) = lower(fn, *args, dynamic=dynamic).reasons
    assert why in str(reason)
