"""Greatest common divisors and least common multiples: Euclid's algorithm in a Loop."""

from __future__ import annotations

import onnx_ir as ir
import torch

from ..dims import may_be_zero
from ..registry import lowers
from ..rule import Rule
from ..value import Value
from ._loop import Step

aten = torch.ops.aten

MOST_STEPS = 92  # two consecutive Fibonacci numbers below 2**63 take the most


@lowers(aten.gcd.default)
def gcd(cx: Rule, self: Value, other: Value) -> Value:
    """self [*A], other [*B], integers -> [*broadcast], not negative; of zeros it is 0."""
    a, b = cx.promote(self, other)
    return _gcd(cx, a, b)


@lowers(aten.lcm.default)
def lcm(cx: Rule, self: Value, other: Value) -> Value:
    """self [*A], other [*B], integers -> |self / gcd * other| [*broadcast]; 0 if both are.

    C computes that in 32 bits at least.
    """
    a, b = cx.promote(self, other)
    wide = torch.int32 if cx.out.dtype.itemsize < 4 else cx.out.dtype
    zero, one = (cx.scalar(n, wide) for n in (0, 1))
    divisor = cx.cast(_gcd(cx, a, b), wide)
    some = cx.op.Where(cx.op.Equal(divisor, zero), one, divisor)
    a, b = cx.cast(a, wide), cx.cast(b, wide)
    return cx.cast(cx.op.Abs(cx.op.Mul(cx.op.Div(a, some), b)), cx.out.dtype)


def _gcd(cx: Rule, a: Value, b: Value) -> Value:
    """The magnitudes, then (a, b) -> (b mod a, a) where a is not zero, while any is not."""
    dims = cx.out.dims
    if 0 in dims:
        return cx.zeros(dims, cx.out.dtype)
    if any(map(may_be_zero, dims)):
        cx.decline("divisors of a data-dependent number of elements, which may be none")
    first, second = (cx.expand(cx.cast(cx.op.Abs(v), torch.int64), dims) for v in (a, b))
    made = cx.op.Loop(
        cx.scalar(MOST_STEPS, torch.int64),
        cx.scalar(True, torch.bool),
        first,
        second,
        outputs=2,
        dtypes=[ir.DataType.INT64] * 2,
        body=_body(cx),
    )
    found: Value = made[1]
    found.dims = dims
    return cx.cast(found, cx.out.dtype)


def _body(cx: Rule) -> ir.Graph:
    """(step, condition, a, b) -> (condition, b mod a, a).

    Ref: https://onnx.ai/onnx/operators/onnx__Loop.html
    """
    s = Step(f"{cx.node.name}.divisor", torch.int64)
    boolean, dims = ir.DataType.BOOL, cx.out.dims
    step, condition = s.value(ir.DataType.INT64, ()), s.value(boolean, ())
    a, b = s.value(ir.DataType.INT64, dims), s.value(ir.DataType.INT64, dims)
    zero, one = (s.number(n, ir.DataType.INT64) for n in (0, 1))
    done = s.emit("Equal", a, zero, dtype=boolean)
    rest = s.emit("Mod", b, s.emit("Where", done, one, a, dtype=ir.DataType.INT64), fmod=1)
    following = s.emit("Where", done, zero, rest, dtype=ir.DataType.INT64)
    kept = s.emit("Where", done, b, a, dtype=ir.DataType.INT64)
    left = s.emit("Cast", s.emit("Equal", following, zero, dtype=boolean), dtype=ir.DataType.INT32)
    every = s.emit("Cast", s.emit("ReduceMin", left, keepdims=0), dtype=boolean)
    return ir.Graph(
        [step, condition, a, b],
        [s.emit("Not", every), following, kept],
        nodes=s.nodes,
        name=f"{cx.node.name}_step",
    )
