"""Running sums, products and extrema."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..dims import Dims
from ..dtypes import TO_ONNX, highest, lowest
from ..registry import lowers
from ..rule import Rule
from ..value import Value

aten = torch.ops.aten

# ONNX's Scan takes some microseconds a step; beyond this, leaving the region is cheaper.
LONGEST_SCAN = 256


@lowers(aten.cumsum.default)
def cumsum(cx: Rule, self: Value, dim: int, dtype: torch.dtype | None) -> Value:
    """self [*D] -> [*D]; integers and bool become int64 unless dtype says otherwise.

    ATen's CPU kernel keeps the running sum of float32 in float64 (of 16-bit floats in float32) and
    rounds each element; ONNX Runtime's CumSum adds up in the type it is given. It refuses 0-d. It
    begins with the first element, ATen with 0, to which it adds: -0.0 is 0.0 from there on.
    Ref: https://onnx.ai/onnx/operators/onnx__CumSum.html,
    aten/src/ATen/native/cpu/ReduceOpsKernel.cpp
    """
    out = cx.out.dtype
    source = cx.cast(self, out)
    if not self.known_dims:
        return cx.op.Identity(source)
    if out is torch.float32:
        source = cx.cast(source, torch.float64)
    if out.is_floating_point:  # by Sum: the optimizer drops an Add of 0
        source = cx.op.Sum(source, cx.scalar(0, cx.dtype(source)))
        source.dims = self.dims
    axis = cx.const(cx.axis(dim, self.rank), torch.int64)
    return cx.cast(cx.op.CumSum(source, axis), out)


@lowers(aten.cumprod.default)
def cumprod(cx: Rule, self: Value, dim: int, dtype: torch.dtype | None) -> Value:
    """self [*D] -> [*D], accumulated as cumsum is.

    Ref: https://onnx.ai/onnx/operators/onnx__CumProd.html
    """
    out = cx.out.dtype
    source = cx.cast(self, out)
    if not self.known_dims or 0 in self.known_dims:
        return cx.op.Identity(source)
    axis = cx.const(cx.axis(dim, self.rank), torch.int64)
    return cx.cast(cx.op.CumProd(cx.cast(source, _accumulator(out)), axis), out)


@lowers(aten.logcumsumexp.default)
def logcumsumexp(cx: Rule, self: Value, dim: int) -> Value:
    """self [*D] -> [*D], log(exp(a) + exp(b)) step by step, accumulated as cumsum is.

    Two equal infinities are their own result, where max + log(1 + exp(min - max)) would be NaN.
    """
    out = cx.out.dtype
    if not self.known_dims or 0 in self.known_dims:
        return cx.op.Identity(self)
    wide = _accumulator(out)

    def step(item: Value, _position: Value, total: Value) -> list[Value]:
        greater, less = cx.op.Max(item, total), cx.op.Min(item, total)
        grown = cx.op.Exp(cx.op.Sub(less, greater))
        grown = cx.op.Log(cx.op.Add(grown, cx.scalar(1, wide)))
        both = cx.op.And(cx.op.Equal(item, total), cx.op.IsInf(item))
        return [cx.op.Where(both, item, cx.op.Add(grown, greater))]

    source = cx.cast(self, wide)
    return cx.cast(_scan(cx, source, dim, [(float("-inf"), wide)], step)[0], out)


@lowers(aten.cummax.default)
def cummax(cx: Rule, self: Value, dim: int) -> tuple[Value, Value]:
    """self [*D] -> values [*D], indices int64 [*D]; the last of equals, and NaN from then on."""
    return _running(cx, self, dim, "GreaterOrEqual")


@lowers(aten.cummin.default)
def cummin(cx: Rule, self: Value, dim: int) -> tuple[Value, Value]:
    """self [*D] -> values [*D], indices int64 [*D]; the last of equals, and NaN from then on."""
    return _running(cx, self, dim, "LessOrEqual")


def _running(cx: Rule, self: Value, dim: int, better: str) -> tuple[Value, Value]:
    """Take the item where it is NaN, or as good as the best so far (never true of a NaN)."""
    out = cx.out.dtype
    if not self.known_dims or 0 in self.known_dims:
        return cx.op.Identity(self), cx.zeros(self.known_dims, torch.int64)
    wide = _accumulator(out) if out.is_floating_point else torch.int64
    if out in (torch.float32, torch.float64):
        wide = out
    if wide.is_floating_point:
        worst = float("-inf") if better == "GreaterOrEqual" else float("inf")
    else:
        worst = lowest(wide) if better == "GreaterOrEqual" else highest(wide)

    def step(item: Value, position: Value, best: Value, where: Value) -> list[Value]:
        take = getattr(cx.op, better)(item, best)
        if wide.is_floating_point:
            take = cx.op.Or(take, cx.op.IsNaN(item))
        return [cx.op.Where(take, item, best), cx.op.Where(take, position, where)]

    starts = [(worst, wide), (0, torch.int64)]
    values, indices = _scan(cx, cx.cast(self, wide), dim, starts, step)
    return cx.cast(values, out), indices


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    """What ATen's CPU kernels accumulate this dtype in."""
    if dtype is torch.float32:
        return torch.float64
    if dtype in (torch.float16, torch.bfloat16):
        return torch.float32
    return dtype if dtype.is_floating_point else torch.int64


def _scan(
    cx: Rule,
    source: Value,
    dim: int,
    starts: Sequence[tuple[float, torch.dtype]],
    step: Callable[..., Sequence[Value]],
) -> tuple[Value, ...]:
    """[*D] for each state: its value after every step along `dim`.

    step(item, position, *states) -> [*states], of tensors without that dim; position is 0-d.
    Ref: https://onnx.ai/onnx/operators/onnx__Scan.html
    """
    axis = cx.axis(dim, source.rank)
    size = source.known_dims[axis]
    if not isinstance(size, int) or size > LONGEST_SCAN:
        cx.decline(f"a scan of {size} steps, which eager does faster than ONNX's Scan")
    dims: Dims = (*source.known_dims[:axis], *source.known_dims[axis + 1 :])
    count, kinds = len(starts), [dtype for _, dtype in starts]

    def body(*values: Value) -> list[Value]:
        *states, item, position = values
        after = list(step(item, position, *states))
        return [*after, *after]

    made = cx.op.Scan(
        *(cx.full(dims, start, dtype) for start, dtype in starts),
        source,
        cx.const(list(range(size)), torch.int64),
        outputs=2 * count,
        dtypes=[TO_ONNX[dtype] for dtype in kinds] * 2,
        body=cx.body(
            [*((d, dims) for d in kinds), (cx.dtype(source), dims), (torch.int64, ())], body
        ),
        num_scan_inputs=2,
        scan_input_axes=[axis, 0],
        scan_output_axes=[axis] * count,
    )
    return made[count:]
