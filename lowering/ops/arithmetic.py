"""Arithmetic with torch's type promotion: sums, products, quotients, powers."""

from __future__ import annotations

import math

import torch

from ..registry import lowers, registry
from ..rule import Operand, Rule, Scalar
from ..value import Value
from ._pointwise import (
    REDUCED,
    all_negative,
    all_positive,
    choose,
    compute,
    constant_of,
    narrow,
    static,
    truncate,
)
from ._rotary import as_rotation

aten = torch.ops.aten


@lowers(aten.add.Tensor, aten.add.Scalar)
def add(cx: Rule, self: Operand, other: Operand, alpha: Scalar) -> Value:
    """self [*A], other [*B] -> self + alpha * other [*broadcast] in the promoted dtype.

    bool + bool is a logical or in ATen; ONNX has no Add for bool.
    Ref: https://onnx.ai/onnx/operators/onnx__Add.html
    """
    if cx.out.dtype is torch.bool:
        a, b = cx.promote(self, other)
        return cx.op.Or(a, b) if alpha else a
    a, b = _sum_operands(cx, self, other, alpha)
    rotation = as_rotation(cx, a, b)
    return narrow(cx, cx.op.Add(a, b)) if rotation is None else rotation


@lowers(aten.sub.Tensor, aten.sub.Scalar)
def sub(cx: Rule, self: Operand, other: Operand, alpha: Scalar) -> Value:
    """self [*A], other [*B] -> self - alpha * other [*broadcast] in the promoted dtype."""
    a, b = _sum_operands(cx, self, other, alpha)
    return narrow(cx, cx.op.Sub(a, b))


@lowers(aten.rsub.Tensor, aten.rsub.Scalar)
def rsub(cx: Rule, self: Operand, other: Operand, alpha: Scalar) -> Value:
    """self [*A], other [*B] -> other - alpha * self [*broadcast] in the promoted dtype."""
    b, a = _sum_operands(cx, other, self, alpha)
    return narrow(cx, cx.op.Sub(b, a))


def _sum_operands(cx: Rule, first: Operand, second: Operand, alpha: Scalar) -> tuple[Value, Value]:
    """Operands, the second times alpha.

    In 16 bits ATen rounds numbers to 16 bits first and the sum last, not alpha * second between.
    """
    a, b = cx.promote(first, second)
    if alpha == 1:
        return a, b
    factor = cx.scalar(alpha, cx.out.dtype)
    if cx.out.dtype in REDUCED:
        a, b, factor = (cx.cast(v, torch.float32) for v in (a, b, factor))
    return a, cx.op.Mul(b, factor)


@lowers(aten.mul.Tensor, aten.mul.Scalar)
def mul(cx: Rule, self: Operand, other: Operand) -> Value:
    """self [*A], other [*B] -> self * other [*broadcast]; of bools it is a logical and."""
    if cx.out.dtype is torch.bool:
        return cx.op.And(*cx.promote(self, other))
    return narrow(cx, cx.op.Mul(*compute(cx, self, other)))


@lowers(aten.div.Tensor, aten.div.Scalar, aten.true_divide.Tensor)
def div(cx: Rule, self: Operand, other: Operand) -> Value:
    """self [*A], other [*B] -> self / other [*broadcast], floating (integers become float32)."""
    return narrow(cx, cx.op.Div(*compute(cx, self, other)))


@lowers(aten.div.Tensor_mode, aten.div.Scalar_mode)
def div_mode(cx: Rule, self: Operand, other: Operand, rounding_mode: str | None) -> Value:
    """self [*A], other [*B] -> the quotient as it is (None), rounded down or towards zero."""
    if rounding_mode is None:
        return div(cx, self, other)
    if rounding_mode == "floor":
        return floor_divide(cx, self, other)
    if not cx.out.dtype.is_floating_point:
        return _quotient(cx, *_integers(cx, self, other))
    quotient = cx.op.Div(*compute(cx, self, other))
    if isinstance(other, Value) and other.rank > 0:
        return truncate(cx, narrow(cx, quotient))  # in 16 bits ATen rounds first here,
    return narrow(cx, truncate(cx, quotient))  # and truncates first here


@lowers(aten.floor_divide.default, aten.floor_divide.Scalar)
def floor_divide(cx: Rule, self: Operand, other: Operand) -> Value:
    """self [*A], other [*B] -> the quotient rounded down [*broadcast] in the promoted dtype.

    ONNX's Div truncates integers. ATen's floating floor division follows Python: it derives the
    quotient from the remainder, so 1.0 // 0.1 is 9 although 1.0 / 0.1 rounds to 10.
    Ref: https://onnx.ai/onnx/operators/onnx__Div.html
    """
    dtype = cx.out.dtype
    if not dtype.is_floating_point:
        return _floor_divide_integers(cx, self, other)
    a, b = compute(cx, self, other)
    wide = cx.dtype(a)
    number = constant_of(cx, other)
    if number is not None and number != 0 and math.frexp(abs(number))[0] == 0.5:
        # A power of two divides exactly. The remainder of infinity is NaN, as is a - a.
        floor = cx.op.Floor(cx.op.Div(a, b))
        return narrow(cx, cx.op.Sub(floor, cx.op.Sub(a, a)))
    zero, one = cx.scalar(0, wide), cx.scalar(1, wide)
    rest = cx.op.Mod(a, b, fmod=1)
    quotient = cx.op.Div(cx.op.Sub(a, rest), b)
    opposed = _opposed(cx, rest, b, other)
    quotient = cx.op.Where(opposed, cx.op.Sub(quotient, one), quotient)
    floor = cx.op.Floor(quotient)
    above = cx.op.Greater(cx.op.Sub(quotient, floor), cx.scalar(0.5, wide))
    floor = cx.op.Where(above, cx.op.Add(floor, one), floor)
    plain = cx.op.Div(a, b)
    # A quotient of zero has the sign of a / b, and a divisor of zero gives a / b itself.
    sign = cx.op.Clip(cx.op.Reciprocal(plain), cx.scalar(-1, wide), one)
    sign = cx.op.Where(cx.op.Equal(quotient, zero), sign, cx.op.Sign(floor))
    floor = cx.op.Mul(cx.op.Abs(floor), sign)
    if number is None:
        floor = cx.op.Where(cx.op.Equal(b, zero), plain, floor)
    elif number == 0:
        floor = plain
    return narrow(cx, floor)


def _floor_divide_integers(cx: Rule, self: Operand, other: Operand) -> Value:
    a, b = _integers(cx, self, other)
    if cx.out.dtype in (torch.uint8, torch.uint16, torch.uint32, torch.uint64):
        return cx.op.Div(a, b)
    zero = cx.scalar(0, cx.out.dtype)
    if all_positive(cx, other):
        # trunc((a + 1) / b) - 1 for negative a: nothing here can overflow.
        shift = cx.cast(cx.op.Less(a, zero), cx.out.dtype)
        return cx.op.Sub(cx.op.Div(cx.op.Add(a, shift), b), shift)
    # One less than the truncated quotient where ONNX's two remainders differ.
    inexact = cx.op.Not(cx.op.Equal(cx.op.Mod(a, b), cx.op.Mod(a, b, fmod=1)))
    return cx.op.Sub(_quotient(cx, a, b), cx.cast(inexact, cx.out.dtype))


@lowers(aten.remainder.Tensor, aten.remainder.Scalar, aten.remainder.Scalar_Tensor)
def remainder(cx: Rule, self: Operand, other: Operand) -> Value:
    """self [*A], other [*B] -> self mod other, with the sign of other.

    ONNX's Mod does that for integers; for floats it is C's fmod, with the sign of self.
    Ref: https://onnx.ai/onnx/operators/onnx__Mod.html
    """
    if not cx.out.dtype.is_floating_point:
        return cx.op.Mod(*_integers(cx, self, other))
    a, b = compute(cx, *cx.promote(self, other))
    rest = cx.op.Mod(a, b, fmod=1)
    opposed = _opposed(cx, rest, b, other)
    return narrow(cx, cx.op.Where(opposed, cx.op.Add(rest, b), rest))


def _opposed(cx: Rule, rest: Value, divisor: Value, given: Operand) -> Value:
    """Where a remainder is not zero and has the other sign than its divisor."""
    zero = cx.scalar(0, cx.dtype(rest))
    if all_positive(cx, given):
        return cx.op.Less(rest, zero)
    if all_negative(cx, given):
        return cx.op.Greater(rest, zero)
    return cx.op.Less(cx.op.Mul(cx.op.Sign(rest), cx.op.Sign(divisor)), zero)


@lowers(aten.fmod.Tensor, aten.fmod.Scalar)
def fmod(cx: Rule, self: Operand, other: Operand) -> Value:
    """self [*A], other [*B] -> C's fmod, with the sign of self."""
    if not cx.out.dtype.is_floating_point:
        return cx.op.Mod(*_integers(cx, self, other), fmod=1)
    return cx.op.Mod(*cx.promote(self, other), fmod=1)


def _integers(cx: Rule, self: Operand, other: Operand) -> list[Value]:
    """Dividend and divisor. A session does not load with a constant 0 among its divisors."""
    a, b = cx.promote(self, other)
    divisors = cx.builder.constant_array(b)
    if divisors is not None and not divisors.all():
        cx.decline("a division of integers by 0, which eager refuses unless there are no elements")
    return [a, b]


def _quotient(cx: Rule, a: Value, b: Value) -> Value:
    """a / b of integers, towards zero. The least one by -1 wraps to itself, as -a does.

    ONNX Runtime leaves that division to the processor, which ends the process; ATen negates when
    it rounds down (and ends the process as well when it rounds towards zero).
    """
    dtype = cx.out.dtype
    divisors = cx.builder.constant_array(b)
    unsafe = dtype in (torch.int32, torch.int64) and (divisors is None or -1 in divisors)
    if not unsafe:
        return cx.op.Div(a, b)
    minus = cx.op.Equal(b, cx.scalar(-1, dtype))
    dividend = cx.op.Where(minus, cx.op.Neg(a), a)
    return cx.op.Div(dividend, cx.op.Where(minus, cx.scalar(1, dtype), b))


@lowers(aten.pow.Tensor_Scalar)
def pow_scalar(cx: Rule, self: Value, exponent: Scalar) -> Value:
    """self [*A] -> self ** exponent [*A].

    The exponents that ATen treats by themselves are products and roots here as there; integer
    powers are products, since ONNX Runtime computes Pow of integers in floating point.
    """
    if not static(exponent):
        return pow_tensor(cx, self, exponent)
    (base,) = cx.promote(self)
    if exponent == 0:
        return cx.ones(cx.out.dims, cx.out.dtype)
    if exponent == 1:
        return base
    if cx.out.dtype is torch.bool or not cx.out.dtype.is_floating_point:
        return _integer_power(cx, base, exponent)
    if exponent in (2, 3):
        square = cx.op.Mul(base, base)
        return square if exponent == 2 else cx.op.Mul(square, base)
    if exponent == 0.5 and cx.out.dtype is not torch.float16:  # of -inf ATen's differ there
        return cx.op.Sqrt(base)
    if exponent == -0.5 and cx.out.dtype is not torch.float16:
        (base,) = compute(cx, base)
        return narrow(cx, cx.op.Reciprocal(cx.op.Sqrt(base)))
    if exponent == -1:
        return cx.op.Reciprocal(base)
    if exponent == -2:
        return cx.op.Reciprocal(cx.op.Mul(base, base))
    return cx.op.Pow(base, cx.scalar(exponent, cx.out.dtype))


def _integer_power(cx: Rule, base: Value, exponent: float) -> Value:
    """Square and multiply: exact, and it wraps around as ATen does."""
    if exponent < 0 or exponent != int(exponent):
        cx.decline(f"an integer tensor to the power of {exponent}")
    left = int(exponent)
    result: Value | None = None
    while left:
        if left & 1:
            result = base if result is None else cx.op.Mul(result, base)
        left >>= 1
        if left:
            base = cx.op.Mul(base, base)
    assert result is not None
    return result


@lowers(aten.pow.Tensor_Tensor, aten.pow.Scalar)
def pow_tensor(cx: Rule, self: Operand, exponent: Operand) -> Value:
    """self [*A], exponent [*B] -> self ** exponent [*broadcast] in the promoted dtype."""
    if not cx.out.dtype.is_floating_point:
        cx.decline(
            "a power of integers by a tensor: ONNX Runtime computes it in floating point, "
            "which is inexact beyond 2**53"
        )
    return cx.op.Pow(*cx.promote(self, exponent))


@lowers(aten.neg.default)
def neg(cx: Rule, self: Value) -> Value:
    """self [*A] -> -self [*A]; integers wrap around."""
    return cx.op.Neg(self)


@lowers(aten.abs.default)
def absolute(cx: Rule, self: Value) -> Value:
    """self [*A] -> |self| [*A]; a bool is that already."""
    return self if cx.out.dtype is torch.bool else cx.op.Abs(self)


@lowers(aten.sign.default, aten.sgn.default)
def sign(cx: Rule, self: Value) -> Value:
    """self [*A] -> -1, 0 or 1 [*A]; of NaN it is 0 in ATen, NaN in ONNX Runtime."""
    if cx.out.dtype is torch.bool:
        return self
    result = cx.op.Sign(self)
    if not cx.out.dtype.is_floating_point:
        return result
    return cx.op.Where(cx.op.IsNaN(self), cx.scalar(0, cx.out.dtype), result)


@lowers(aten.reciprocal.default)
def reciprocal(cx: Rule, self: Value) -> Value:
    """self [*A] -> 1 / self [*A], floating."""
    return cx.op.Reciprocal(*cx.promote(self))


@lowers(aten.sqrt.default)
def sqrt(cx: Rule, self: Value) -> Value:
    """self [*A] -> its square root [*A], floating."""
    return cx.op.Sqrt(*cx.promote(self))


@lowers(aten.rsqrt.default)
def rsqrt(cx: Rule, self: Value) -> Value:
    """self [*A] -> 1 / sqrt(self) [*A], floating."""
    (x,) = compute(cx, self)
    return narrow(cx, cx.op.Reciprocal(cx.op.Sqrt(x)))


@lowers(aten.addcmul.default)
def addcmul(cx: Rule, self: Value, tensor1: Value, tensor2: Value, value: Scalar) -> Value:
    """self [*A] + value * tensor1 [*B] * tensor2 [*C] -> [*broadcast]."""
    a, b, c = compute(cx, self, tensor1, tensor2)
    if value != 1:
        b = cx.op.Mul(b, cx.scalar(value, cx.dtype(b)))
    return narrow(cx, cx.op.Add(a, cx.op.Mul(b, c)))


@lowers(aten.addcdiv.default)
def addcdiv(cx: Rule, self: Value, tensor1: Value, tensor2: Value, value: Scalar) -> Value:
    """self [*A] + value * tensor1 [*B] / tensor2 [*C] -> [*broadcast]."""
    a, b, c = compute(cx, self, tensor1, tensor2)
    if value != 1:
        b = cx.op.Mul(b, cx.scalar(value, cx.dtype(b)))
    return narrow(cx, cx.op.Add(a, cx.op.Div(b, c)))


def fma(cx: Rule, a: Value, b: Operand, c: Operand) -> Value:
    """a [*A] * b [*B] + c [*C] -> [*broadcast], the product rounded, as in torch's own function.

    Dynamo makes `addcmul_` and `addcdiv_` with a `value` of it; the overload is the Inductor's.
    """
    x, y, z = cx.promote(a, b, c)
    return cx.op.Add(cx.op.Mul(x, y), z)


registry.expect("prims.fma.default", fma)


@lowers(aten.lerp.Scalar, aten.lerp.Tensor)
def lerp(cx: Rule, self: Value, end: Value, weight: Operand) -> Value:
    """self [*A] + weight * (end [*B] - self) -> [*broadcast].

    From a weight of one half on ATen starts at end, so that a weight of 1 gives end exactly.
    """
    a, b, w = compute(cx, self, end, weight)
    span = cx.op.Sub(b, a)
    number = constant_of(cx, weight)
    if number is not None:
        if abs(number) < 0.5:
            return narrow(cx, cx.op.Add(a, cx.op.Mul(w, span)))
        one = cx.scalar(1, cx.dtype(w))
        return narrow(cx, cx.op.Sub(b, cx.op.Mul(span, cx.op.Sub(one, w))))
    low = cx.op.Less(cx.op.Abs(w), cx.scalar(0.5, cx.dtype(w)))
    factor = cx.op.Where(low, w, cx.op.Sub(w, cx.scalar(1, cx.dtype(w))))
    return narrow(cx, cx.op.Add(choose(cx, low, a, b), cx.op.Mul(factor, span)))
