"""Rules for comparisons, logical and bitwise operators and masks against eager."""

from __future__ import annotations

import math

import pytest
import torch

from .harness import Case, check, lower

aten = torch.ops.aten

X = torch.linspace(-3, 3, 12).reshape(3, 4)
Y = torch.linspace(2, -1, 12).reshape(3, 4)
ODD = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0, 1.5, -1.5])
PAIRS = (ODD.repeat_interleave(7), ODD.repeat(7))
B = X > 0
I64 = torch.tensor([-(2**63), -7, -1, 0, 1, 7, 2**63 - 1])
I32 = torch.tensor([-(2**31), -7, -1, 0, 1, 7, 2**31 - 1], dtype=torch.int32)
I8 = torch.tensor([-128, -7, -1, 0, 1, 7, 127], dtype=torch.int8)
U8 = torch.tensor([0, 1, 2, 127, 128, 254, 255], dtype=torch.uint8)
H = torch.linspace(-3, 3, 301).bfloat16()
COUNTS = torch.tensor([-1, 0, 1, 5, 7, 8, 63])

COMPARISONS = ["eq", "ne", "lt", "le", "gt", "ge"]
LOGICAL = ["logical_and", "logical_or", "logical_xor"]
BITWISE = ["bitwise_and", "bitwise_or", "bitwise_xor"]
SHIFTS = ["bitwise_left_shift", "bitwise_right_shift"]


def _op(name: str, overload: str = "Tensor"):
    op = getattr(getattr(aten, name), overload)
    return lambda a, b: op(a, b)


def _by(name: str, number: float, overload: str = "Scalar"):
    op = getattr(getattr(aten, name), overload)
    return lambda a: op(a, number)


def _of(name: str, number: int):
    op = getattr(aten, name).Scalar_Tensor
    return lambda a: op(number, a)


CASES = [
    *[
        Case(f"{n} of floats", _op(n), (X, X[0]), max_nodes=2 if n == "ne" else 1)
        for n in COMPARISONS
    ],
    *[Case(f"{n} of special values", _op(n), PAIRS) for n in COMPARISONS],
    *[Case(f"{n} of ints", _op(n), (I64, I64.flip(0))) for n in COMPARISONS],
    *[Case(f"{n} of bools", _op(n), (B, Y > 0)) for n in COMPARISONS],
    *[Case(f"{n} of int and float", _op(n), (torch.arange(4), X)) for n in COMPARISONS],
    *[Case(f"{n} of ints and a 0-d float", _op(n), (I64, torch.tensor(0.5))) for n in COMPARISONS],
    *[Case(f"{n} of ints and a float", _by(n, 0.5), (I64,)) for n in COMPARISONS],
    *[Case(f"{n} of floats and an int", _by(n, 1), (X,)) for n in COMPARISONS],
    *[Case(f"{n} of bools and True", _by(n, True), (B,)) for n in COMPARISONS],
    *[Case(f"{n} of bfloat16 and a number", _by(n, 0.1), (H,)) for n in COMPARISONS],
    *[Case(f"{n} of uint8 and int8", _op(n), (U8, I8)) for n in COMPARISONS],
    Case("lt with a size", lambda a: torch.arange(8) < a.shape[0], (X,), dynamic=True),
    Case("ge with symbolic dims", lambda a, b: a >= b, (X, Y), dynamic=True),
    *[Case(f"{n} of special values", _op(n, "default"), PAIRS) for n in LOGICAL],
    *[Case(f"{n} of bools", _op(n, "default"), (B, Y > 0), max_nodes=1) for n in LOGICAL],
    *[Case(f"{n} of ints and floats", _op(n, "default"), (torch.arange(4), X)) for n in LOGICAL],
    Case("logical_not of floats", lambda a: torch.logical_not(a), (ODD,), max_nodes=2),
    Case("logical_not of bools", lambda a: ~a, (B,), max_nodes=1),
    # ---- bitwise
    *[Case(f"{n} of bools", _op(n), (B, Y > 0), max_nodes=1) for n in BITWISE],
    *[Case(f"{n} of ints", _op(n), (I64, I64.flip(0)), max_nodes=1) for n in BITWISE],
    *[Case(f"{n} of int8 and int64", _op(n), (I8, I64)) for n in BITWISE],
    *[Case(f"{n} by a number", _by(n, 5), (I32,), max_nodes=1) for n in BITWISE],
    *[Case(f"{n} of a number", _of(n, 5), (U8,), max_nodes=1) for n in BITWISE],
    Case("bitwise_not of ints", lambda a: torch.bitwise_not(a), (I8,), max_nodes=1),
    *[
        Case(f"{n} of {t.dtype} by {count}", _by(n, count, "Tensor_Scalar"), (t,))
        for n in SHIFTS
        for t in (I64, I32, I8, U8)
        for count in (0, 1, 3, t.element_size() * 8 - 1, t.element_size() * 8)
    ],
    *[Case(f"{n} of int64 by a tensor", _op(n), (I64, COUNTS)) for n in SHIFTS],
    *[Case(f"{n} of int32 by a tensor", _op(n), (I32, COUNTS.int())) for n in SHIFTS],
    *[Case(f"{n} of uint8 by a tensor", _op(n), (U8, U8)) for n in SHIFTS],
    *[Case(f"{n} of a number", _of(n, 77), (COUNTS,)) for n in SHIFTS],
    Case(
        "unpacking of four-bit numbers",
        lambda w: (w.unsqueeze(-1) >> torch.tensor([0, 4])) & 15,
        (torch.arange(250),),
    ),
    Case("__lshift__.Scalar", _by("__lshift__", 3), (I32,)),
    Case("__rshift__.Scalar", _by("__rshift__", 3), (I32,)),
    Case("__lshift__.Tensor", _op("__lshift__"), (I64, COUNTS)),
    Case("__rshift__.Tensor", _op("__rshift__"), (I64, COUNTS)),
    # ---- masks
    Case("where", lambda c, a, b: torch.where(c, a, b), (B, X, Y), max_nodes=1),
    Case(
        "where broadcasts three ways",
        lambda c, a, b: torch.where(c, a, b),
        (B[0], X[:, :1], Y[0, 0]),
    ),
    Case("where promotes", lambda c, a, b: torch.where(c, a, b), (B, X, torch.arange(4))),
    Case("where with numbers", lambda c, a: torch.where(c, a, -1.5), (B, X)),
    Case("where of two numbers", lambda c: torch.where(c, 1, 0), (B,)),
    Case("where of bools", lambda c, a, b: torch.where(c, a, b), (B, Y > 0, X > 1)),
    Case("where of int16", lambda c, a: torch.where(c, a, -a), (I8 > 0, I8.short())),
    Case("where of bfloat16", lambda c, a: torch.where(c, a, 0.1), (H > 0, H), 0.0),
    Case("where of NaN", lambda a: torch.where(a > 0, a, torch.full_like(a, math.nan)), (ODD,)),
    Case("where with symbolic dims", lambda a, b: torch.where(a > b, a, b), (X, Y), dynamic=True),
    Case("masked_fill", lambda a, m: a.masked_fill(m, -math.inf), (X, B), max_nodes=1),
    Case("masked_fill broadcasts", lambda a, m: a.masked_fill(m, 1), (X, B[:1])),
    Case("masked_fill by a tensor", lambda a, m, v: a.masked_fill(m, v), (X, B, torch.tensor(2))),
    Case("masked_fill of ints", lambda a, m: a.masked_fill(m, -100), (I64, I64 > 0), max_nodes=1),
    Case("masked_fill of bools", lambda a, m: a.masked_fill(m, True), (B, Y > 0)),
    Case(
        "masked_fill of float16 by its least number",
        lambda a, m: a.masked_fill(m, torch.finfo(torch.float16).min),
        (X.half(), B),
    ),
    Case("heaviside of special values", lambda a, b: torch.heaviside(a, b), PAIRS),
    Case("heaviside of ints", lambda a, b: torch.heaviside(a, b), (I64, I64)),
    Case(
        "isin",
        lambda a, b: torch.isin(a, b),
        (torch.arange(12).view(3, 4), torch.tensor([1, 5, 30])),
    ),
    Case("isin inverted", lambda a, b: torch.isin(a, b, invert=True), (I64, I64[2:4])),
    Case("isin of one element", lambda a, b: torch.isin(a, b), (I64, I64[2]), max_nodes=2),
    Case("isin of none", lambda a, b: torch.isin(a, b), (I64, I64[:0])),
    Case("isin of NaN", lambda a, b: torch.isin(a, b), (ODD, ODD)),
    Case("isin of a number", lambda a: torch.isin(a, 7), (I64,), max_nodes=1),
    Case(
        "isin with symbolic dims",
        lambda a, b: torch.isin(a + 1, b[:2]),
        (torch.arange(12).view(3, 4), torch.tensor([1, 5, 7])),
        dynamic=True,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_comparison(case: Case) -> None:
    check(case)


def test_isin_of_very_many_elements_is_declined() -> None:
    lowering = lower(lambda a, b: torch.isin(a, b), torch.arange(10), torch.arange(5000))
    assert "isin with more than" in str(lowering.reasons[0])
