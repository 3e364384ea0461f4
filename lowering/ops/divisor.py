"""Greatest common divisors and least common multiples: Euclid's algorithm in a Loop."""

from __future__ import annotations

import torch

from ..dims import may_be_zero
from ..registry import lowers
from ..rule import Rule
from ..value import Value

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
    one, zero = (cx.scalar(n, torch.int64) for n in (1, 0))

    def step(_i: Value, _going: Value, a: Value, b: Value) -> list[Value]:
        done = cx.op.Equal(a, zero)
        rest = cx.op.Mod(b, cx.op.Where(done, one, a), fmod=1)
        following = cx.op.Where(done, zero, rest)
        left = cx.op.ReduceMin(cx.cast(cx.op.Equal(following, zero), torch.int32), keepdims=0)
        left.dims = ()
        return [cx.op.Not(cx.cast(left, torch.bool)), following, cx.op.Where(done, b, a)]

    start = [cx.expand(cx.cast(cx.op.Abs(v), torch.int64), dims) for v in (a, b)]
    return cx.cast(cx.loop(MOST_STEPS, start, step)[1], cx.out.dtype)
