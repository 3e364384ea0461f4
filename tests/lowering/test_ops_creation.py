"""Rules for tensors made from numbers, copies and casts against eager."""

from __future__ import annotations

import math

import pytest
import torch

from .harness import Case, check, lower

aten = torch.ops.aten
prims = torch.ops.prims

X = torch.linspace(-3, 3, 12).reshape(3, 4)
WIDE = torch.linspace(-9, 9, 130).reshape(10, 13)
I64 = torch.tensor([-(2**63), -(2**40) - 3, -129, -1, 0, 1, 127, 128, 255, 256, 2**31, 2**63 - 1])
FLOATS = torch.tensor(
    [0.0, -0.0, 0.3, -0.9, 1.9, -1.9, 127.5, 200.0, 255.9, -128.0, 65504.0, 65520.0, 1e-8, 1 / 3]
)
ALL = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16,
    torch.bfloat16, torch.float32, torch.float64,
]  # fmt: skip


def _to(dtype: torch.dtype):
    return lambda a: aten._to_copy.default(a, dtype=dtype)


def _beside(make):
    """make(a) beside something that depends on a, so that there is an input."""
    return lambda a: (make(a), a + 1)


MADE = [
    ("full", lambda a: aten.full.default([2, 3], 1.5)),
    ("full of many", lambda a: aten.full.default([20, 30], -math.inf)),
    ("full of ints", lambda a: aten.full.default([2, 3], 7)),
    ("full of True", lambda a: aten.full.default([2], True)),
    ("full of a dtype", lambda a: aten.full.default([2], 2.7, dtype=torch.int32)),
    ("full of float16", lambda a: aten.full.default([200], 0.1, dtype=torch.float16)),
    ("full of bfloat16", lambda a: aten.full.default([2], 0.1, dtype=torch.bfloat16)),
    ("full, 0-d", lambda a: aten.full.default([], 3.5)),
    ("full, empty", lambda a: aten.full.default([0, 3], 3.5)),
    ("full_like", lambda a: aten.full_like.default(a, 2)),
    ("full_like of a dtype", lambda a: aten.full_like.default(a, 2, dtype=torch.int64)),
    ("fill.Scalar", lambda a: aten.fill.Scalar(a, 2)),
    ("fill.Tensor", lambda a: aten.fill.Tensor(a, torch.tensor(2))),
    ("new_full", lambda a: aten.new_full.default(a, [2, 2], 0.5)),
    ("zeros", lambda a: aten.zeros.default([2, 3])),
    ("zeros of ints", lambda a: aten.zeros.default([300], dtype=torch.int64)),
    ("zeros_like", lambda a: aten.zeros_like.default(a)),
    ("new_zeros", lambda a: aten.new_zeros.default(a, [2], dtype=torch.bool)),
    ("ones", lambda a: aten.ones.default([2, 3])),
    ("ones_like", lambda a: aten.ones_like.default(a, dtype=torch.int64)),
    ("new_ones", lambda a: aten.new_ones.default(a, [2, 100])),
    ("empty, filled", lambda a: aten.fill.Scalar(aten.empty.memory_format([2, 3]), 2.0)),
    ("empty_like, filled", lambda a: aten.fill.Scalar(aten.empty_like.default(a), 2.0)),
    ("new_empty, filled", lambda a: aten.fill.Scalar(aten.new_empty.default(a, [2]), 2.0)),
    ("empty_strided, filled", lambda a: aten.fill.Scalar(aten.empty_strided.default([2], [1]), 2)),
    ("scalar_tensor", lambda a: aten.scalar_tensor.default(2.5, dtype=torch.float64)),
    ("arange", lambda a: aten.arange.default(7)),
    ("arange of none", lambda a: aten.arange.default(0)),
    ("arange of many", lambda a: aten.arange.default(5000)),
    ("arange of int32", lambda a: aten.arange.start(3, 9, dtype=torch.int32)),
    ("arange of floats", lambda a: aten.arange.start_step(0.0, 2.0, 0.1)),
    ("arange of many floats", lambda a: aten.arange.start_step(0.5, 1000.0, 0.1)),
    ("arange downwards", lambda a: aten.arange.start_step(10, -5, -3)),
    ("arange of many downwards", lambda a: aten.arange.start_step(10000, -5, -1)),
    ("arange of ints as floats", lambda a: aten.arange.default(7, dtype=torch.float32)),
    ("arange of floats as ints", lambda a: aten.arange.start_step(0.5, 7, 1.5, dtype=torch.int64)),
    ("arange of float64", lambda a: aten.arange.start_step(0, 1, 0.1, dtype=torch.float64)),
    ("arange of float16", lambda a: aten.arange.start_step(0, 9, 0.3, dtype=torch.float16)),
    ("arange of bfloat16", lambda a: aten.arange.start_step(0, 9, 0.3, dtype=torch.bfloat16)),
    ("linspace", lambda a: aten.linspace.default(-1, 1, 11)),
    ("linspace of one", lambda a: aten.linspace.default(-1, 1, 1)),
    ("linspace of float64", lambda a: aten.linspace.default(0.1, 7, 100, dtype=torch.float64)),
    ("eye", lambda a: aten.eye.default(4)),
    ("eye.m", lambda a: aten.eye.m(3, 5, dtype=torch.int64)),
    ("eye of many", lambda a: aten.eye.m(70, 80, dtype=torch.bool)),
    ("tril_indices", lambda a: aten.tril_indices.default(4, 3, -1)),
    ("triu_indices", lambda a: aten.triu_indices.default(3, 5, 1, dtype=torch.int32)),
]

CASES = [
    *[Case(n, _beside(f), (X,)) for n, f in MADE],
    Case(
        "full of a size", lambda a: aten.full.default([2], a.shape[0]) + a[0, 0], (X,), dynamic=True
    ),
    Case(
        "full of symbolic dims",
        lambda a: a + aten.full.default(list(a.shape), 2.0),
        (X,),
        dynamic=True,
    ),
    Case(
        "zeros_like of symbolic dims", lambda a: aten.zeros_like.default(a) + a, (X,), dynamic=True
    ),
    Case(
        "new_ones of symbolic dims", lambda a: a.new_ones([a.shape[0], 1]) + a, (X,), dynamic=True
    ),
    Case("arange of a size", lambda a: torch.arange(a.shape[1]) + a, (X,), dynamic=True),
    Case(
        "arange from a size",
        lambda a: torch.arange(a.shape[0], 2 * a.shape[0] + 1) + a.sum() * 0,
        (X,),
        dynamic=True,
    ),
    Case(
        "arange of floats up to a size",
        lambda a: torch.arange(0, a.shape[1], dtype=torch.float32) + a,
        (X,),
        dynamic=True,
    ),
    Case(
        "arange of half steps up to a size",
        lambda a: aten.arange.start_step(0, a.shape[1], 0.5) + a[0, 0],
        (X,),
        dynamic=True,
    ),
    Case("eye of a size", lambda a: torch.eye(a.shape[1]) + a[:1], (X,), dynamic=True),
    Case("tril", lambda a: aten.tril.default(a), (WIDE,), max_nodes=1),
    Case("tril below", lambda a: aten.tril.default(a, -2), (WIDE,), max_nodes=1),
    Case("tril of a batch", lambda a: aten.tril.default(a, 1), (WIDE.view(2, 5, 13),), max_nodes=1),
    Case("tril beyond the matrix", lambda a: aten.tril.default(a, -50), (WIDE,)),
    Case("triu", lambda a: aten.triu.default(a, 1), (WIDE,), max_nodes=1),
    Case("triu beyond the matrix", lambda a: aten.triu.default(a, 50), (WIDE,)),
    Case("triu of an empty matrix", lambda a: aten.triu.default(a), (WIDE[:, :0],)),
    Case("triu of bools", lambda a: aten.triu.default(a), (WIDE > 0,), max_nodes=1),
    Case("triu of int32", lambda a: aten.triu.default(a), (WIDE.int(),), max_nodes=1),
    Case("triu of int8", lambda a: aten.triu.default(a), (WIDE.to(torch.int8),)),
    Case("triu of float16", lambda a: aten.triu.default(a), (WIDE.half(),)),
    Case("triu of infinities", lambda a: aten.triu.default(a, 1), (torch.full((4, 4), -math.inf),)),
    Case("tril with symbolic dims", lambda a: aten.tril.default(a, 1), (WIDE,), dynamic=True),
    Case("tril by a size", lambda a: aten.tril.default(a, a.shape[0] - 9), (WIDE,), dynamic=True),
    # ---- copies and casts
    *[Case(f"int64 to {d}", _to(d), (I64,)) for d in ALL],
    *[Case(f"float32 to {d}", _to(d), (FLOATS[:10],)) for d in ALL if d is not torch.uint8],
    *[Case(f"float32 to {d}", _to(d), (FLOATS[:9].abs(),)) for d in (torch.uint8,)],
    *[Case(f"float64 to {d}", _to(d), (FLOATS.double(),), 0.0) for d in ALL[6:]],
    *[Case(f"bool to {d}", _to(d), (FLOATS > 0,)) for d in ALL],
    *[Case(f"uint8 to {d}", _to(d), (I64.to(torch.uint8),)) for d in ALL],
    *[Case(f"bfloat16 to {d}", _to(d), (FLOATS[:9].bfloat16().abs(),)) for d in ALL],
    Case("NaN and infinity to bool", _to(torch.bool), (torch.tensor([math.nan, math.inf, 0.0]),)),
    Case("_to_copy to the same type", _to(torch.float32), (X,), max_nodes=1),
    Case(
        "convert_element_type", lambda a: prims.convert_element_type.default(a, torch.int32), (X,)
    ),
    Case("device_put", lambda a: prims.device_put.default(a, torch.device("cpu")) + 1, (X,)),
    Case(
        "clone, detach and alias are nothing",
        lambda a: aten.alias.default(aten.detach.default(aten.clone.default(a))) + 1,
        (X,),
        max_nodes=1,
    ),
    Case(
        "clone of channels_last",
        lambda a: aten.clone.default(a, memory_format=torch.channels_last),
        (torch.arange(24.0).reshape(1, 2, 3, 4),),
    ),
    Case("clone as an output", lambda a: aten.clone.default(a), (X,), max_nodes=1),
    Case("lift_fresh_copy", lambda a: aten.lift_fresh_copy.default(a) + 1, (X,), max_nodes=1),
    Case(
        "copy broadcasts and converts", lambda a, b: aten.copy.default(a, b), (X, torch.arange(4))
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_creation(case: Case) -> None:
    check(case)


@pytest.mark.parametrize(
    ("fn", "reason"),
    [
        (lambda a: torch.linspace(0, 1, 9000)[:4] + a[0], "evenly spaced numbers of more than"),
    ],
)
def test_what_onnx_cannot_give_exactly_is_declined(fn, reason) -> None:
    lowering = lower(fn, X)
    assert lowering.program is None
    assert any(reason in str(r) for r in lowering.reasons)
