"""Arithmetic rules against eager."""

from __future__ import annotations

import pytest
import torch

from .harness import Case, check, compare, lower, run

aten = torch.ops.aten

X = torch.linspace(-3, 3, 12).reshape(3, 4)
Y = torch.linspace(2, -1, 12).reshape(3, 4) + 0.05
P = X.abs() + 0.25
B = X > 0
ODD = torch.tensor([float("nan"), float("inf"), float("-inf"), 0.0, -0.0, 1.5, -1.5, 2.5, -7.0])
I64 = torch.tensor([-7, -3, -1, 0, 1, 3, 7, 2**62, -(2**62)])
I8 = torch.tensor([-128, -127, -7, -1, 0, 1, 7, 100, 127], dtype=torch.int8)
U8 = torch.tensor([0, 1, 7, 128, 255], dtype=torch.uint8)
D = torch.linspace(-3, 3, 12, dtype=torch.float64)
H = torch.linspace(-3, 3, 301).bfloat16()
HALF = torch.linspace(-3, 3, 301).half()
PAIRS = (ODD.repeat_interleave(9), ODD.repeat(9))
SIGNED = (PAIRS[0], torch.where(torch.arange(81) % 2 == 0, PAIRS[1], -PAIRS[1]))  # -NaN too
NEAR = torch.tensor([0.0, -0.0, 1e-45, -1e-45, 1.0, -1.0, 3.4028235e38, float("inf"), float("nan")])
NEXT = (NEAR.repeat_interleave(9), NEAR.repeat(9))


def _pairs(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Every value with every other that may divide it."""
    divisors = values[(values != 0) & (values != -1)]
    return values.repeat_interleave(len(divisors)), divisors.repeat(len(values))


def _pow(exponent: float):
    return lambda a: aten.pow.Tensor_Scalar(a, exponent)


CASES = [
    # ---- sums
    Case(
        "add of two float tensors broadcasts",
        lambda a, b: torch.add(a, b),
        (X, X[0]),
        max_nodes=1,
    ),
    Case("add scales by alpha", lambda a, b: torch.add(a, b, alpha=2.5), (X, X[0])),
    Case("add of bools is a logical or", lambda a, b: torch.add(a, b), (B, X > 1)),
    Case("add of int8 wraps around", lambda a, b: torch.add(a, b), (I8, I8)),
    Case("add of int and float promotes", lambda a, b: torch.add(a, b), (torch.arange(4), X)),
    Case("add of a 0-d float64 keeps float32", lambda a, b: a + b, (X, torch.tensor(0.1).double())),
    Case("add of a Python float promotes ints", lambda a: a + 0.5, (I64,)),
    Case("add of a number rounds it to bfloat16 first", lambda a: a + 0.1, (H,), tolerance=0.0),
    Case(
        "add rounds a bfloat16 sum once", lambda a, b: torch.add(a, b, alpha=0.1), (H, H * 3), 0.0
    ),
    Case("add.Scalar", lambda a: aten.add.Scalar(a, 2), (X,), max_nodes=1),
    Case("add with symbolic dims", lambda a, b: torch.add(a, b), (X, X), dynamic=True),
    Case("add of a size", lambda a: a + a.shape[0], (X,), dynamic=True),
    Case("add of empty tensors", lambda a, b: a + b, (X[:0], X[:0])),
    Case("add of 0-d tensors", lambda a, b: a + b, (X[0, 0], X[1, 1])),
    Case("sub", lambda a, b: a - b, (X, Y), max_nodes=1),
    Case("sub with alpha", lambda a, b: torch.sub(a, b, alpha=3), (I64, I64)),
    Case("sub.Scalar", lambda a: aten.sub.Scalar(a, 0.5), (X,), max_nodes=1),
    Case("sub of uint8 wraps around", lambda a: a - 1, (U8,)),
    Case("rsub.Scalar", lambda a: aten.rsub.Scalar(a, 1), (X,), max_nodes=1),
    Case("rsub.Tensor with alpha", lambda a, b: torch.rsub(a, b, alpha=2), (X, Y)),
    # ---- products
    Case("mul", lambda a, b: a * b, (X, Y), max_nodes=1),
    Case("mul of bools is a logical and", lambda a, b: a * b, (B, Y > 0)),
    Case("mul of a mask", lambda a, b: a * b, (X, B)),
    Case("mul.Scalar", lambda a: aten.mul.Scalar(a, 2), (I64,), max_nodes=1),
    Case("mul of a number does not round it to bfloat16", lambda a: a * 0.1, (H,), tolerance=0.0),
    Case("mul of a number does not round it to float16", lambda a: a * 0.1, (HALF,), tolerance=0.0),
    Case("mul of a 0-d float32 by bfloat16", lambda a, b: a * b, (H, torch.tensor(0.1)), 0.0),
    Case("addcmul", lambda a, b, c: torch.addcmul(a, b, c), (X, Y, X[0]), max_nodes=2),
    Case("addcmul with a value", lambda a, b, c: torch.addcmul(a, b, c, value=0.3), (X, Y, X)),
    Case("addcmul of ints", lambda a, b: torch.addcmul(a, a, b, value=3), (I64, I64)),
    Case("addcdiv with a value", lambda a, b, c: torch.addcdiv(a, b, c, value=0.3), (X, Y, P)),
    Case("lerp near its start", lambda a, b: torch.lerp(a, b, 0.3), (X, Y), max_nodes=3),
    Case("lerp near its end", lambda a, b: torch.lerp(a, b, 0.7), (X, Y)),
    Case("lerp by a tensor", lambda a, b, w: torch.lerp(a, b, w), (X, Y, P / 3)),
    # ---- quotients
    Case("div", lambda a, b: a / b, (X, P), max_nodes=1),
    Case("div of ints is floating", lambda a, b: a / b, (torch.arange(4), torch.arange(1, 5))),
    Case("div by a number in bfloat16", lambda a: a / 0.3, (H,), tolerance=0.0),
    Case("div.Scalar", lambda a: aten.div.Scalar(a, 4), (I64,)),
    Case("div by zero", lambda a, b: a / b, PAIRS),
    Case("div towards zero", lambda a, b: torch.div(a, b, rounding_mode="trunc"), (X, Y)),
    Case(
        "div towards zero of ints", lambda a, b: torch.div(a, b, rounding_mode="trunc"), _pairs(I64)
    ),
    Case(
        "div towards zero of special values",
        lambda a, b: torch.div(a, b, rounding_mode="trunc"),
        PAIRS,
    ),
    Case("div down", lambda a, b: torch.div(a, b, rounding_mode="floor"), (X, Y)),
    Case(
        "div without a mode", lambda a, b: torch.div(a, b, rounding_mode=None), (X, Y), max_nodes=1
    ),
    Case("div.Scalar_mode", lambda a: aten.div.Scalar_mode(a, 2, rounding_mode="floor"), (X,)),
    Case("floor_divide follows the remainder", lambda a: torch.floor_divide(a, 0.1), (X,)),
    Case("floor_divide of 1 by 0.1 is 9", lambda a: a // 0.1, (torch.ones(3),), tolerance=0.0),
    Case("floor_divide by a power of two", lambda a: torch.floor_divide(a, 4), (ODD,), max_nodes=4),
    Case("floor_divide of special values", lambda a, b: torch.floor_divide(a, b), PAIRS),
    Case("the sign of a floor of zero", lambda a, b: 1 / torch.floor_divide(a, b), PAIRS),
    Case("the sign of zero over a power of two", lambda a: 1 / torch.floor_divide(a, 4), (ODD,)),
    Case(
        "the sign of a quotient cut to zero",
        lambda a, b: 1 / torch.div(a, b, rounding_mode="trunc"),
        PAIRS,
    ),
    Case("the sign of what is cut to zero", lambda a: 1 / torch.trunc(a / 8), (ODD,)),
    Case("floor_divide of int64", lambda a, b: torch.floor_divide(a, b), _pairs(I64)),
    *(
        Case(f"floor_divide of the least {dtype} by {divisor}", by, (least, minus))
        for dtype in (torch.int64, torch.int32)
        for least in [torch.tensor([torch.iinfo(dtype).min, -7, 7], dtype=dtype)]
        for minus in [torch.tensor([-1, -1, 2], dtype=dtype)]
        for divisor, by in (
            ("-1 in a tensor", lambda a, b: torch.floor_divide(a, b)),
            ("the number -1", lambda a, _: torch.floor_divide(a, -1)),
        )
    ),
    Case("floor_divide of int8", lambda a, b: torch.floor_divide(a, b), _pairs(I8)),
    Case("floor_divide of uint8", lambda a, b: torch.floor_divide(a, b), _pairs(U8)),
    Case("floor_divide of int8 by a number", lambda a: a // 3, (I8,)),
    Case("floor_divide by a negative number", lambda a: a // -3, (I64,)),
    Case("floor_divide.Scalar", lambda a: aten.floor_divide.Scalar(a, 3), (I64,), max_nodes=5),
    Case("floor_divide of bfloat16", lambda a: a // 0.7, (H,)),
    Case("floor_divide by a size", lambda a: torch.arange(6) // a.shape[0], (X,), dynamic=True),
    Case("remainder", lambda a, b: torch.remainder(a, b), (X, Y)),
    Case("remainder of special values", lambda a, b: torch.remainder(a, b), PAIRS),
    Case("remainder by a positive number", lambda a: a % 1.3, (X,), max_nodes=4),
    Case("remainder by a negative number", lambda a: a % -1.3, (X,), max_nodes=4),
    Case("remainder of ints", lambda a, b: torch.remainder(a, b), _pairs(I64), max_nodes=1),
    Case("remainder of int8", lambda a, b: torch.remainder(a, b), _pairs(I8)),
    Case("remainder.Scalar", lambda a: aten.remainder.Scalar(a, 3), (I64,), max_nodes=1),
    Case("remainder.Scalar_Tensor", lambda a: aten.remainder.Scalar_Tensor(7, a), (P,)),
    Case("remainder by a known bool", lambda a, n: a % torch.isfinite(n[0]), (X, I64)),
    Case("remainder of bfloat16", lambda a: torch.remainder(a, 0.7), (H,)),
    Case("fmod", lambda a, b: torch.fmod(a, b), (X, Y), max_nodes=1),
    Case("fmod of special values", lambda a, b: torch.fmod(a, b), PAIRS),
    Case("fmod.Scalar of ints", lambda a: aten.fmod.Scalar(a, 3), (I64,), max_nodes=1),
    # ---- powers and roots
    *[
        Case(f"pow of floats by {e}", _pow(e), (P,), max_nodes=n)
        for e, n in (
            (0, 1),
            (1, 1),
            (2, 1),
            (3, 2),
            (0.5, 1),
            (-0.5, 2),
            (-1, 1),
            (-2, 2),
            (1.7, 1),
        )
    ],
    *[
        Case(f"pow of special values by {e}", _pow(e), (ODD,))
        for e in (0, 2, 3, 0.5, -0.5, -1, -2, 1.7)
    ],
    *[Case(f"pow of float16 by {e}", _pow(e), (HALF,)) for e in (2, 3, 0.5, -0.5, -2)],
    Case("pow of bfloat16 rounds between factors", lambda a: a**3, (H,), tolerance=0.0),
    Case("pow of ints wraps around", lambda a: a**5, (torch.tensor([3, -7, 2**13, 2**40]),)),
    Case("pow of ints is exact beyond 2**53", lambda a: a**39, (torch.tensor([3, -3]),)),
    Case("pow of ints by 0", lambda a: a**0, (I64,)),
    Case("pow of ints by a float", lambda a: a**1.5, (torch.arange(5),)),
    Case("pow of tensors", lambda a, b: a**b, (P, Y), max_nodes=1),
    Case("pow of special values by special values", lambda a, b: a**b, PAIRS),
    Case("pow.Scalar", lambda a: aten.pow.Scalar(2.5, a), (X,), max_nodes=1),
    Case("pow of a float by an int tensor", lambda a, b: a**b, (P, torch.arange(4))),
    Case("sqrt", lambda a: torch.sqrt(a), (ODD,), max_nodes=1),
    Case("sqrt of ints", lambda a: torch.sqrt(a), (torch.arange(5),)),
    Case("rsqrt", lambda a: torch.rsqrt(a), (P,), max_nodes=2),
    Case("rsqrt of bfloat16", lambda a: torch.rsqrt(a), (H.abs(),)),
    Case("reciprocal", lambda a: torch.reciprocal(a), (ODD,), max_nodes=1),
    Case("reciprocal of ints", lambda a: torch.reciprocal(a), (torch.arange(5),)),
    # ---- signs
    Case("neg", lambda a: -a, (ODD,), max_nodes=1),
    Case("neg of uint8 wraps around", lambda a: -a, (U8,)),
    Case("neg of int8 wraps around", lambda a: -a, (I8,)),
    Case("abs", lambda a: a.abs(), (ODD,), max_nodes=1),
    Case("abs of the least int8", lambda a: a.abs(), (I8,)),
    Case("sign of NaN is 0", lambda a: torch.sign(a), (ODD,)),
    Case("sign of ints", lambda a: torch.sign(a), (I64,), max_nodes=1),
    Case("sign of bools", lambda a: torch.sign(a), (B,)),
    Case("sgn of float64", lambda a: torch.sgn(a), (D,)),
    # ---- extremes
    Case("maximum", lambda a, b: torch.maximum(a, b), (X, Y), max_nodes=1),
    Case("maximum of special values", lambda a, b: torch.maximum(a, b), PAIRS),
    Case(
        "maximum of a NaN number", lambda a, b: torch.maximum(a, b), (X, torch.tensor(float("nan")))
    ),
    Case("maximum of bools", lambda a, b: torch.maximum(a, b), (B, Y > 0)),
    Case("maximum of int16", lambda a, b: torch.maximum(a, b), (I8.short(), I8.short() * -200)),
    Case(
        "maximum of float16 NaN", lambda a, b: torch.maximum(a, b), (ODD.half(), ODD.half().flip(0))
    ),
    Case("minimum of special values", lambda a, b: torch.minimum(a, b), PAIRS, max_nodes=1),
    Case("minimum of bools", lambda a, b: torch.minimum(a, b), (B, Y > 0)),
    Case("minimum of int and float", lambda a, b: torch.minimum(a, b), (torch.arange(4), X)),
    Case("fmax passes over NaN", lambda a, b: torch.fmax(a, b), PAIRS),
    Case("fmax of ints", lambda a, b: torch.fmax(a, b), (I64, I64.flip(0)), max_nodes=1),
    Case("fmin passes over NaN", lambda a, b: torch.fmin(a, b), PAIRS),
    Case("clamp", lambda a: torch.clamp(a, -1, 1), (X,), max_nodes=1),
    Case("clamp of special values", lambda a: torch.clamp(a, -1, 1), (ODD,)),
    Case("clamp to an empty range", lambda a: torch.clamp(a, 2, 1), (ODD,)),
    Case("clamp by NaN", lambda a: torch.clamp(a, float("nan"), 1), (ODD,)),
    Case("clamp below keeps infinity", lambda a: torch.clamp(a, min=0.5), (ODD,), max_nodes=1),
    Case("clamp above keeps infinity", lambda a: torch.clamp(a, max=0.5), (ODD,), max_nodes=1),
    Case("clamp of int16", lambda a: torch.clamp(a, -5, 50), (I8.short(),)),
    Case("clamp of int64 below", lambda a: torch.clamp(a, min=0), (I64,), max_nodes=1),
    Case("clamp of ints by a float", lambda a: torch.clamp(a, min=0.5), (I64,)),
    Case("clamp of bfloat16", lambda a: torch.clamp(a, -0.3, 0.3), (H,), tolerance=0.0),
    Case("clamp by a size", lambda a: torch.clamp(a, max=a.shape[0]), (X,), dynamic=True),
    Case("clamp by tensors", lambda a, b: torch.clamp(a, b, b + 1), (X, Y)),
    Case("clamp by tensors with NaN", lambda a, b: torch.clamp(a, max=b), PAIRS),
    Case("clamp_min", lambda a: aten.clamp_min.default(a, 0.5), (ODD,), max_nodes=1),
    Case("clamp_max", lambda a: aten.clamp_max.default(a, 0.5), (ODD,), max_nodes=1),
    Case("clamp_min by a tensor", lambda a, b: aten.clamp_min.Tensor(a, b), (X, Y), max_nodes=1),
    Case("clamp_max by a tensor", lambda a, b: aten.clamp_max.Tensor(a, b), (X, Y), max_nodes=1),
    # ---- functions of two tensors
    Case("atan2", lambda a, b: torch.atan2(a, b), (X, Y)),
    Case("atan2 of special values", lambda a, b: torch.atan2(a, b), PAIRS),
    Case("the sign of an angle of zero", lambda a, b: 1 / torch.atan2(a, b), PAIRS),
    Case("hypot", lambda a, b: torch.hypot(a, b), (X * 1e30, Y * 1e30), tolerance=1e-6),
    Case("hypot of special values", lambda a, b: torch.hypot(a, b), PAIRS),
    *[
        Case(f"copysign of {t}", lambda a, b: 1 / torch.copysign(a, b), [p.to(t) for p in SIGNED])
        for t in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    ],
    *[
        Case(f"nextafter of {t}", lambda a, b: torch.nextafter(a, b), [p.to(t) for p in NEXT], 0.0)
        for t in (torch.float32, torch.float64, torch.bfloat16)
    ],
    Case("nextafter keeps the sign of zero", lambda a, b: 1 / torch.nextafter(a, b), NEXT),
    Case("nextafter with symbolic dims", lambda a, b: torch.nextafter(a, b), NEXT, dynamic=True),
    Case("copysign of a number", lambda a: torch.copysign(a, -0.0), (ODD,), max_nodes=2),
    Case(
        "copysign of ints", lambda a, b: torch.copysign(a, b), (X[0], torch.tensor([-1, 0, 1, -5]))
    ),
    Case("xlogy of special values", lambda a, b: torch.xlogy(a, b), PAIRS),
    Case("xlogy of a number", lambda a: torch.xlogy(2, a), (P,)),
    Case("xlogy by a number", lambda a: torch.xlogy(a, 2), (X,)),
    Case("xlog1py", lambda a, b: torch.special.xlog1py(a, b), PAIRS),
    Case("logaddexp of special values", lambda a, b: torch.logaddexp(a, b), PAIRS),
    Case("logaddexp2", lambda a, b: torch.logaddexp2(a, b), PAIRS),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_arithmetic(case: Case) -> None:
    check(case)


@pytest.mark.parametrize(
    ("fn", "args", "reason"),
    [
        (lambda a, b: a**b, (torch.arange(4), torch.arange(4)), "a power of integers by a tensor"),
        (lambda a: a % 0, (torch.arange(0),), "a division of integers by 0"),
        (lambda a: torch.fmod(a, 0), (torch.arange(0),), "a division of integers by 0"),
        (lambda a: a // torch.tensor([2, 0]), (torch.zeros(0, 2).int(),), "a division of integers"),
        (lambda a: a.div(0, rounding_mode="trunc"), (torch.arange(0),), "a division of integers"),
        (lambda a, b: torch.atan2(a, b), (D, D), "no kernel for ai.onnx::Atan(double)"),
    ],
)
def test_what_onnx_cannot_give_exactly_is_declined(fn, args, reason) -> None:
    lowering = lower(fn, *args)
    assert lowering.program is None
    assert any(reason in str(r) for r in lowering.reasons)


def test_an_integer_division_by_zero_is_an_error_as_in_eager() -> None:
    args = (torch.tensor([1, 2]), torch.tensor([0, 1]))
    program = lower(lambda a, b: torch.floor_divide(a, b), *args).program
    assert program is not None
    with pytest.raises(Exception, match="by zero"):
        run(program, args)


def test_a_bfloat16_product_with_a_number_is_bit_exact() -> None:
    program = lower(lambda a: a * 0.1, H).program
    assert program is not None
    compare(run(program, (H,))[0], H * 0.1, 0.0)
