"""Rules for functions of one tensor against eager."""

from __future__ import annotations

import math

import pytest
import torch

from .harness import Case, check, lower

aten = torch.ops.aten

X = torch.linspace(-3, 3, 12).reshape(3, 4)
UNIT = torch.linspace(-1.25, 1.25, 21)
P = X.abs() + 0.25
ODD = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5])
SMALL = torch.tensor([1e-8, -1e-8, 1e-4, -1e-4, 1e-20, 0.0, 0.9, -0.9, 50.0, 1e10])
POWERS = 2.0 ** torch.arange(-140, 128) * torch.tensor([[1.0], [1 + 1e-7], [1 - 6e-8], [1.37]])
POWERS = POWERS.flatten()
I64 = torch.tensor([-7, -1, 0, 1, 7])
B = X > 0
H = torch.linspace(-3, 3, 301).bfloat16()

FLOATING = [
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "asin", "acos",
    "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "sigmoid", "logit", "sinc",
    "deg2rad", "rad2deg", "angle",
]  # fmt: skip
ONE_NODE = {
    "exp", "log", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh",
    "acosh", "atanh", "erf", "sigmoid", "exp2", "deg2rad",
}  # fmt: skip
DOUBLE = ["exp", "exp2", "log", "log1p", "sin", "cos", "tanh", "sigmoid", "logit", "sinc"]
ROUNDING = ["ceil", "floor", "trunc", "round", "frac"]
CLASSIFYING = ["isnan", "isinf", "isposinf", "isneginf", "nan_to_num"]


def _op(name: str):
    return lambda a: getattr(aten, name).default(a)


SIGNED = torch.cat([ODD, -ODD])  # -NaN has its sign bit set
CASES = [
    *[
        Case(f"{n} of float32", _op(n), (UNIT,), 2e-6, max_nodes=1 if n in ONE_NODE else None)
        for n in FLOATING
    ],
    *[Case(f"{n} of special values", _op(n), (ODD,)) for n in FLOATING + ROUNDING + CLASSIFYING],
    *[Case(f"{n} of float64", _op(n), (UNIT.double(),)) for n in DOUBLE],
    *[Case(f"{n} of int64 is float32", _op(n), (I64,)) for n in FLOATING],
    *[Case(f"{n} of bool is float32", _op(n), (B,)) for n in ("exp", "sin", "sigmoid", "log1p")],
    *[Case(f"{n} of bfloat16", _op(n), (H,)) for n in (*FLOATING, *ROUNDING) if n != "logit"],
    *[
        Case(f"frexp of {d}", aten.frexp.Tensor, (torch.cat([POWERS, -POWERS, ODD]).to(d),))
        for d in (torch.float32, torch.bfloat16)
    ],
    Case("frexp of float16", aten.frexp.Tensor, (torch.cat([X.flatten(), ODD]).half(),)),
    Case("frexp of no elements", aten.frexp.Tensor, (X[:0],)),
    *[Case(f"{n} of float16", _op(n), (H.half(),)) for n in ("exp", "tanh", "log1p", "round")],
    *[
        Case(f"{n} with symbolic dims", _op(n), (X,), dynamic=True)
        for n in ("exp", "expm1", "frac")
    ],
    *[Case(f"{n} of a 0-d tensor", _op(n), (X[0, 0],)) for n in ("exp", "trunc", "isnan")],
    *[Case(f"{n} of an empty tensor", _op(n), (X[:0],)) for n in ("log1p", "round", "nan_to_num")],
    Case("log1p near zero", lambda a: torch.log1p(a), (SMALL,), 1e-7),
    Case(
        "expm1 near zero and far from it",
        lambda a: torch.expm1(a),
        (SMALL - 200 * (SMALL > 5),),
        2e-6,
    ),
    Case(
        "expm1 overflows where exp does",
        lambda a: torch.expm1(a),
        (torch.tensor([88.0, 90.0]),),
        1e-5,
    ),
    Case(
        "log2 of powers of two is whole",
        lambda a: torch.log2(a),
        (2.0 ** torch.arange(-20, 60),),
        0.0,
    ),
    Case(
        "log10 of powers of ten is whole",
        lambda a: torch.log10(a),
        (10.0 ** torch.arange(30),),
        0.0,
    ),
    Case("logit clamps", lambda a: torch.logit(a, 0.1), (UNIT,)),
    Case("logit clamps, NaN stays", lambda a: torch.logit(a, 0.1), (ODD,)),
    *[
        Case(f"{n} of ints is the same", _op(n), (I64,))
        for n in ("ceil", "floor", "trunc", "round")
    ],
    Case("floor", lambda a: torch.floor(a), (X,), max_nodes=1),
    Case("round to one decimal", lambda a: torch.round(a, decimals=1), (X,)),
    Case("round to tens", lambda a: torch.round(a, decimals=-1), (X * 10,)),
    Case("round to no decimals", lambda a: torch.round(a, decimals=0), (ODD,), max_nodes=1),
    *[Case(f"{n} of ints", _op(n), (I64,)) for n in CLASSIFYING],
    Case("nan_to_num with numbers", lambda a: torch.nan_to_num(a, 1.0, 2.0, 3.0), (ODD,)),
    Case(
        "nan_to_num of infinity by -infinity",
        lambda a: torch.nan_to_num(a, math.inf, -math.inf),
        (ODD,),
    ),
    Case("nan_to_num of float16", lambda a: torch.nan_to_num(a), (ODD.half(),)),
    Case("nan_to_num", lambda a: torch.nan_to_num(a), (ODD,), max_nodes=3),
    Case("isnan of bfloat16", lambda a: torch.isnan(a), (ODD.bfloat16(),), max_nodes=1),
    Case("isfinite", lambda a: torch.isfinite(a), (ODD,)),
    Case("signbit of ints", lambda a: torch.signbit(a), (I64,), max_nodes=1),
    Case("signbit of bools", lambda a: torch.signbit(a), (B,)),
    *[
        Case(f"signbit of {t}, of zeros and NaN too", lambda a: torch.signbit(a), (SIGNED.to(t),))
        for t in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    ],
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_unary(case: Case) -> None:
    check(case)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("log2", "float64 logarithm"),
        ("log10", "float64 logarithm"),
        ("erf", "no kernel for ai.onnx::Erf(double)"),
        ("tan", "no kernel for ai.onnx::Tan(double)"),
        ("expm1", "no kernel for ai.onnx::Sinh(double)"),
    ],
)
def test_float64_functions_without_an_exact_form_are_declined(name: str, reason: str) -> None:
    lowering = lower(_op(name), P.double())
    assert lowering.program is None
    assert any(reason in str(r) for r in lowering.reasons)
