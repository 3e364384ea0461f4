"""Pooling rules against eager."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dynamo_onnx.runtime.errors import ReasonKind

from .harness import Case, check, lower

aten = torch.ops.aten


def rand(*dims, dtype=torch.float32, seed=0):
    return torch.randn(*dims, generator=torch.Generator().manual_seed(seed)).to(dtype)


X1, X2, X3 = rand(2, 3, 11), rand(2, 3, 10, 11), rand(2, 3, 6, 7, 8)
TIES = (X2 * 2).round()
ODD = X2.clone()
ODD[0, 0, 2, 2] = torch.nan
ODD[0, 1, 3:6, 3:6] = torch.inf
ODD[0, 1, 3, 3] = ODD[0, 1, 6, 6] = -torch.inf
ODD[0, 2] = torch.finfo(torch.float32).max
ODD[1, 0, 5, 5], ODD[1, 0, 6, 6] = torch.nan, torch.inf
ODD[1, 1, 5, 5], ODD[1, 1, 6, 6] = torch.nan, -torch.inf
LOW = torch.full((1, 2, 4, 4), -torch.inf)


def call(function, *args, **options):
    return lambda x: function(x, *args, **options)


def values(function, *args):
    return lambda x: function(x, *args)[0]


WINDOWS = [
    (3, 2, 1, True), (2, 2, 0, True), (3, 3, 1, True), (2, 3, 1, True), (2, 5, 1, True),
    (1, 3, 0, True), (3, 2, 1, False), (2, 3, 0, False), ((3, 2), (1, 2), (1, 0), False),
]  # fmt: skip

CASES = [
    Case("max_pool1d", call(F.max_pool1d, 3, 2), (X1,)),
    Case("max_pool2d is one node and the questions for NaN and -inf",
         call(F.max_pool2d, 3, 2, 1), (X2,), max_nodes=8),
    Case("max_pool2d with symbolic dims", call(F.max_pool2d, 3, 2, 1), (X2,), dynamic=True,
         max_nodes=8),
    Case("max_pool2d in ceil mode with symbolic dims", call(F.max_pool2d, 2, 3, 1, ceil_mode=True),
         (X2,), dynamic=True),
    Case("max_pool2d of -inf in ceil mode", call(F.max_pool2d, 2, 3, 1, ceil_mode=True), (LOW,)),
    Case("max_pool2d of -inf in ceil mode, another stride",
         call(F.max_pool2d, 3, 2, 1, ceil_mode=True), (LOW,)),
    Case("max_pool2d, unbatched", call(F.max_pool2d, 3, 2, 1), (X2[0],)),
    Case("max_pool2d with dilation", call(F.max_pool2d, 3, 2, 1, (2, 1)), (X2,)),
    Case("max_pool2d with its indices", call(F.max_pool2d, 3, 2, 1, return_indices=True), (X2,)),
    Case("max_pool2d with its indices takes the first of equals",
         call(F.max_pool2d, 3, 2, 1, return_indices=True), (TIES,)),
    Case("max_pool2d with its indices, symbolic", call(F.max_pool2d, 3, 2, return_indices=True),
         (X2,), dynamic=True),
    Case("max_pool2d with its indices, unbatched", call(F.max_pool2d, 2, return_indices=True),
         (X2[0],)),
    Case("max_pool2d with its indices and dilation",
         call(F.max_pool2d, 3, 2, 1, 2, return_indices=True), (TIES,)),
    Case("max_pool2d of -inf", call(F.max_pool2d, 2, return_indices=True), (LOW,)),
    *(Case(f"max_pool2d in which NaN wins, {name}", call(F.max_pool2d, 3, 2, 1), (x,))
      for name, x in (("float32", ODD), ("float64", ODD.double()), ("bfloat16", ODD.bfloat16()))),
    Case("max_pool2d in which NaN wins, behind relu", lambda x: F.max_pool2d(F.relu(x), 3, 2, 1),
         (ODD,), max_nodes=5),
    Case("max_pool2d in which NaN wins, dilated, in ceil mode",
         call(F.max_pool2d, 2, 2, 1, 2, ceil_mode=True), (ODD,)),
    Case("max_pool2d of -inf beside padding", call(F.max_pool2d, 3, 2, 1), (LOW,)),
    Case("max_pool2d of -inf beside padding, float64", call(F.max_pool2d, 3, 2, 1),
         (LOW.double(),)),
    Case("max_pool2d of -inf beside padding, with indices",
         call(F.max_pool2d, 3, 2, 1, return_indices=True), (LOW,)),
    Case("max_pool3d of -inf beside padding", call(F.max_pool3d, 3, 2, 1), (LOW[..., None],)),
    Case("max_pool1d of -inf beside padding", call(F.max_pool1d, 3, 2, 1), (LOW[0],)),
    Case("max_pool2d of -inf without padding", call(F.max_pool2d, 2), (LOW,)),
    Case("max_pool2d of -inf and the lowest number", call(F.max_pool2d, 2, 1),
         (torch.where(X2[:1, :2, :4, :4] > 1, torch.finfo(torch.float32).min, LOW),)),
    Case("max_pool2d of -inf, bfloat16", call(F.max_pool2d, 2), (LOW.bfloat16(),)),
    Case("max_pool2d of -inf in a wide window", call(F.max_pool2d, 60), (
        torch.full((1, 1, 61, 120), -torch.inf).index_fill(3, torch.tensor([90]), -3e38),)),
    Case("max_pool2d of -inf, dilated", call(F.max_pool2d, 3, 2, 1, 2), (LOW,)),
    Case("adaptive_max_pool2d in which NaN wins", values(aten.adaptive_max_pool2d.default, [7, 4]),
         (ODD,)),
    Case("max_pool2d of an empty batch", call(F.max_pool2d, 2), (X2[:0],)),
    Case("max_pool2d of float64", call(F.max_pool2d, 3, 2), (X2.double(),)),
    Case("max_pool2d of bfloat16", call(F.max_pool2d, 3, 2), (X2.bfloat16(),)),
    Case("max_pool2d of float16 with its indices", call(F.max_pool2d, 3, 2, return_indices=True),
         (X2.half(),)),
    Case("max_pool2d of uint8", call(F.max_pool2d, 3, 2), ((X2.abs() * 50).to(torch.uint8),)),
    Case("max_pool2d of int8 with padding", call(F.max_pool2d, 3, 2, 1),
         ((X2 * 20).to(torch.int8),)),
    Case("max_pool3d", call(F.max_pool3d, 2, 2), (X3,), max_nodes=8),
    Case("max_pool3d with its indices", call(F.max_pool3d, 3, 2, 1, return_indices=True), (X3,)),
    Case("max_pool3d, unbatched", call(F.max_pool3d, 2), (X3[0],)),
    Case("avg_pool1d", call(F.avg_pool1d, 3, 2, 1), (X1,)),
    Case("avg_pool1d, unbatched", call(F.avg_pool1d, 3), (X1[0],)),
    Case("avg_pool2d is one node", call(F.avg_pool2d, 3), (X2,), max_nodes=1),
    Case("avg_pool2d with symbolic dims", call(F.avg_pool2d, 3, 2, 1), (X2,), dynamic=True),
    Case("avg_pool2d, unbatched", call(F.avg_pool2d, 3, 1), (X2[0],)),
    Case("avg_pool2d with a divisor", call(F.avg_pool2d, 3, 2, 1, divisor_override=5), (X2,)),
    *(Case(f"avg_pool2d with a divisor in ceil mode, kernel {k}, stride {s}, padding {p}",
           call(F.avg_pool2d, k, s, p, ceil_mode=True, divisor_override=3), (X2,))
      for k, s, p in ((2, 2, 0), (3, 2, 1), (3, 3, 1), (2, 3, 1), ((2, 3), (2, 1), (1, 0)))),
    Case("avg_pool3d with a divisor in ceil mode",
         call(F.avg_pool3d, 3, 2, 1, ceil_mode=True, divisor_override=3), (X3,)),
    Case("avg_pool2d with a divisor, bfloat16", call(F.avg_pool2d, 3, divisor_override=5),
         (X2.bfloat16(),)),
    Case("avg_pool2d of bfloat16", call(F.avg_pool2d, 3, 2), (X2.bfloat16(),)),
    Case("avg_pool2d of an empty batch", call(F.avg_pool2d, 3), (X2[:0],)),
    Case("avg_pool3d", call(F.avg_pool3d, 2, 2, 1), (X3,), max_nodes=1),
    *(Case(f"max_pool2d, kernel {k}, stride {s}, padding {p}, ceil {c}",
           call(F.max_pool2d, k, s, p, 1, c), (X2,)) for k, s, p, c in WINDOWS),
    *(Case(f"avg_pool2d, kernel {k}, stride {s}, padding {p}, ceil {c}, counting pads {i}",
           call(F.avg_pool2d, k, s, p, c, i), (X2,))
      for k, s, p, c in WINDOWS for i in (True, False)),
    Case("adaptive_avg_pool1d", call(F.adaptive_avg_pool1d, 4), (X1,)),
    Case("adaptive_avg_pool2d to one", call(F.adaptive_avg_pool2d, 1), (X2,), max_nodes=1),
    Case("adaptive_avg_pool2d to one, by overload", call(aten._adaptive_avg_pool2d.default, [1, 1]),
         (X2,), max_nodes=1),
    Case("adaptive_avg_pool2d to one, by overload, symbolic",
         call(aten._adaptive_avg_pool2d.default, [1, 1]), (X2,), dynamic=True, max_nodes=1),
    Case("adaptive_avg_pool2d to one, float64", call(aten._adaptive_avg_pool2d.default, [1, 1]),
         (X2.double(),)),
    Case("adaptive_avg_pool2d to one, bfloat16", call(aten._adaptive_avg_pool2d.default, [1, 1]),
         (X2.bfloat16(),)),
    Case("adaptive_avg_pool2d to one, unbatched", call(aten._adaptive_avg_pool2d.default, [1, 1]),
         (X2[0],)),
    Case("adaptive_avg_pool2d to equal windows", call(F.adaptive_avg_pool2d, (5, 11)), (X2,),
         max_nodes=1),
    Case("adaptive_avg_pool2d to unequal windows", call(F.adaptive_avg_pool2d, (7, 4)), (X2,)),
    Case("adaptive_avg_pool2d to more than there is", call(F.adaptive_avg_pool2d, (13, 14)), (X2,)),
    Case("adaptive_avg_pool2d to unequal windows, float64", call(F.adaptive_avg_pool2d, (7, 4)),
         (X2.double(),)),
    Case("adaptive_avg_pool2d to unequal windows, bfloat16", call(F.adaptive_avg_pool2d, (7, 4)),
         (X2.bfloat16(),)),
    Case("adaptive_avg_pool2d keeps inf in its windows", call(F.adaptive_avg_pool2d, (7, 4)),
         (torch.where(X2 > 2, torch.inf, X2),)),
    Case("adaptive_avg_pool2d of an empty batch", call(F.adaptive_avg_pool2d, (7, 4)), (X2[:0],)),
    Case("adaptive_avg_pool3d", call(F.adaptive_avg_pool3d, (2, 3, 4)), (X3,)),
    Case("adaptive_avg_pool3d to one", call(aten._adaptive_avg_pool3d.default, [1, 1, 1]), (X3,)),
    Case("adaptive_max_pool2d to one with its indices",
         call(aten.adaptive_max_pool2d.default, [1, 1]), (X2,)),
    Case("adaptive_max_pool2d to unequal windows",
         values(aten.adaptive_max_pool2d.default, [7, 4]), (X2,)),
    Case("adaptive_max_pool2d, unbatched", values(aten.adaptive_max_pool2d.default, [5, 4]),
         (X2[0],)),
    Case("adaptive_max_pool3d", values(aten.adaptive_max_pool3d.default, [3, 7, 4]), (X3,)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_pooling(case: Case) -> None:
    check(case)


def test_indices_of_unequal_windows_stay_eager() -> None:
    (reason,) = lower(call(aten.adaptive_max_pool2d.default, [7, 4]), X2).reasons
    assert "output 1" in reason.detail


def test_unequal_windows_of_a_symbolic_size_stay_eager() -> None:
    pool = call(aten._adaptive_avg_pool2d.default, [7, 4])
    (reason,) = lower(pool, X2, dynamic=True).reasons
    assert "run time" in reason.detail


def test_max_pool_of_int64_stays_eager_for_want_of_a_kernel() -> None:
    (reason,) = lower(call(F.max_pool2d, 2), X2.long()).reasons
    assert reason.kind is ReasonKind.KERNEL


def test_windows_around_all_elements_stay_eager() -> None:
    (reason,) = lower(call(F.max_pool2d, 2, 1, 1, 2), X2[..., :1, :1]).reasons
    assert "around all elements" in reason.detail
