"""Bitwise operators and shifts."""

from __future__ import annotations

from typing import Any

import torch

from ..registry import lowers
from ..rule import Operand, Rule
from ..value import Value
from ._pointwise import constant_of

aten = torch.ops.aten

BITWISE: dict[Any, tuple[str, str]] = {
    aten.bitwise_and.Tensor: ("And", "BitwiseAnd"),
    aten.bitwise_and.Scalar: ("And", "BitwiseAnd"),
    aten.bitwise_and.Scalar_Tensor: ("And", "BitwiseAnd"),
    aten.bitwise_or.Tensor: ("Or", "BitwiseOr"),
    aten.bitwise_or.Scalar: ("Or", "BitwiseOr"),
    aten.bitwise_or.Scalar_Tensor: ("Or", "BitwiseOr"),
    aten.bitwise_xor.Tensor: ("Xor", "BitwiseXor"),
    aten.bitwise_xor.Scalar: ("Xor", "BitwiseXor"),
    aten.bitwise_xor.Scalar_Tensor: ("Xor", "BitwiseXor"),
}


@lowers(*BITWISE)
def bitwise(cx: Rule, self: Operand, other: Operand) -> Value:
    """self [*A], other [*B] -> [*broadcast] in the promoted dtype; of bools it is logical."""
    logical, numeric = BITWISE[cx.node.target]
    name = logical if cx.out.dtype is torch.bool else numeric
    return getattr(cx.op, name)(*cx.promote(self, other))


@lowers(aten.bitwise_not.default)
def bitwise_not(cx: Rule, self: Value) -> Value:
    """self [*A] -> its complement [*A]; of a bool it is logical."""
    return cx.op.Not(self) if cx.out.dtype is torch.bool else cx.op.BitwiseNot(self)


# ONNX shifts unsigned integers only.
UNSIGNED = {
    torch.int8: torch.uint8,
    torch.int16: torch.uint16,
    torch.int32: torch.uint32,
    torch.int64: torch.uint64,
}


@lowers(
    aten.bitwise_left_shift.Tensor,
    aten.bitwise_left_shift.Tensor_Scalar,
    aten.bitwise_left_shift.Scalar_Tensor,
    aten.__lshift__.Tensor,
    aten.__lshift__.Scalar,
)
def left_shift(cx: Rule, self: Operand, other: Operand) -> Value:
    """self [*A], other [*B] -> self << other [*broadcast]; 0 for counts outside 0..bits-1.

    Ref: https://onnx.ai/onnx/operators/onnx__BitShift.html (unsigned, and such counts undefined)
    """
    dtype, bits = _integer(cx)
    a, count = cx.promote(self, other)
    unsigned = UNSIGNED.get(dtype, dtype)
    number = constant_of(cx, other)
    if number is not None and not 0 <= number < bits:
        return cx.zeros(cx.out.dims, dtype)
    shifted = cx.op.BitShift(cx.cast(a, unsigned), _clamped(cx, count, bits), direction="LEFT")
    shifted = cx.cast(shifted, dtype)
    if number is not None:
        return shifted
    zero = cx.scalar(0, dtype)
    shifted = cx.op.Where(cx.op.Less(count, cx.scalar(bits, dtype)), shifted, zero)
    if dtype is unsigned:
        return shifted
    return cx.op.Where(cx.op.Less(count, zero), zero, shifted)


@lowers(
    aten.bitwise_right_shift.Tensor,
    aten.bitwise_right_shift.Tensor_Scalar,
    aten.bitwise_right_shift.Scalar_Tensor,
    aten.__rshift__.Tensor,
    aten.__rshift__.Scalar,
)
def right_shift(cx: Rule, self: Operand, other: Operand) -> Value:
    """self [*A], other [*B] -> self >> other [*broadcast], arithmetic; other counts shift all out.

    Of a negative number the complement is shifted, which is not negative, and complemented back.
    """
    dtype, bits = _integer(cx)
    a, count = cx.promote(self, other)
    given, count = count, _clamped(cx, count, bits)
    if dtype not in UNSIGNED:
        # All bits are out after bits - 1 places and one more.
        last = cx.scalar(bits - 1, dtype)
        shifted = cx.op.BitShift(a, count, direction="RIGHT")
        number = constant_of(cx, other)
        if number is not None:
            return shifted if 0 <= number < bits else cx.zeros(cx.out.dims, dtype)
        return cx.op.Where(cx.op.Greater(given, last), cx.scalar(0, dtype), shifted)
    sign = cx.op.Neg(cx.cast(cx.op.Less(a, cx.scalar(0, dtype)), dtype))
    magnitude = cx.cast(cx.op.BitwiseXor(a, sign), UNSIGNED[dtype])
    shifted = cx.cast(cx.op.BitShift(magnitude, count, direction="RIGHT"), dtype)
    return cx.op.BitwiseXor(shifted, sign)


def _integer(cx: Rule) -> tuple[torch.dtype, int]:
    """The integer type and its bits. ATen shifts floats as well: by a power of two."""
    dtype = cx.out.dtype
    if dtype.is_floating_point or dtype is torch.bool:
        cx.decline(f"a shift of {dtype}")
    return dtype, torch.iinfo(dtype).bits


def _clamped(cx: Rule, count: Value, bits: int) -> Value:
    """The count as the unsigned type, at most bits - 1 (a negative one is a large one)."""
    dtype = UNSIGNED.get(cx.dtype(count), cx.dtype(count))
    number = cx.number(count)
    if number is not None:
        return cx.scalar(min(int(number), bits - 1) if number >= 0 else bits - 1, dtype)
    return cx.op.Min(cx.cast(count, dtype), cx.scalar(bits - 1, dtype))
