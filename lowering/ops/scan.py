"""Running sums, products and extrema."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
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
    """self [*D] -> [*D], accumulated as cumsum is; ONNX has no CumProd before opset 26."""
    out = cx.out.dtype
    source = cx.cast(self, out)
    if not self.known_dims or 0 in self.known_dims:
        return cx.op.Identity(source)
    wide = _accumulator(out)
    axis = cx.axis(dim, self.rank)
    lines = _Lines(cx, cx.cast(source, wide), axis)
    state = lines.state(cx.ones(lines.dims, wide))
    lines.result(state, lines.emit("Mul", state, lines.item))
    return cx.cast(lines.run()[0], out)


@lowers(aten.logcumsumexp.default)
def logcumsumexp(cx: Rule, self: Value, dim: int) -> Value:
    """self [*D] -> [*D], log(exp(a) + exp(b)) step by step, accumulated as cumsum is.

    Two equal infinities are their own result, where max + log(1 + exp(min - max)) would be NaN.
    """
    out = cx.out.dtype
    if not self.known_dims or 0 in self.known_dims:
        return cx.op.Identity(self)
    wide = _accumulator(out)
    lines = _Lines(cx, cx.cast(self, wide), cx.axis(dim, self.rank))
    state = lines.state(cx.full(lines.dims, float("-inf"), wide))
    greater, less = lines.emit("Max", lines.item, state), lines.emit("Min", lines.item, state)
    grown = lines.emit("Exp", lines.emit("Sub", less, greater))
    grown = lines.emit("Log", lines.emit("Add", grown, lines.number(1, wide)))
    added = lines.emit("Add", grown, greater)
    same = lines.emit("Equal", lines.item, state, dtype=ir.DataType.BOOL)
    infinite = lines.emit("IsInf", lines.item, dtype=ir.DataType.BOOL)
    both = lines.emit("And", same, infinite, dtype=ir.DataType.BOOL)
    lines.result(state, lines.emit("Where", both, lines.item, added, dtype=TO_ONNX[wide]))
    return cx.cast(lines.run()[0], out)


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
    axis = cx.axis(dim, self.rank)
    lines = _Lines(cx, cx.cast(self, wide), axis)
    if wide.is_floating_point:
        worst = float("-inf") if better == "GreaterOrEqual" else float("inf")
    else:
        worst = lowest(wide) if better == "GreaterOrEqual" else highest(wide)
    best = lines.state(cx.full(lines.dims, worst, wide))
    where = lines.state(cx.zeros(lines.dims, torch.int64))
    take = lines.emit(better, lines.item, best, dtype=ir.DataType.BOOL)
    if wide.is_floating_point:
        isnan = lines.emit("IsNaN", lines.item, dtype=ir.DataType.BOOL)
        take = lines.emit("Or", take, isnan, dtype=ir.DataType.BOOL)
    lines.result(best, lines.emit("Where", take, lines.item, best, dtype=TO_ONNX[wide]))
    index = lines.emit("Where", take, lines.position, where, dtype=ir.DataType.INT64)
    lines.result(where, index)
    values, indices = lines.run()
    return cx.cast(values, out), indices


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    """What ATen's CPU kernels accumulate this dtype in."""
    if dtype is torch.float32:
        return torch.float64
    if dtype in (torch.float16, torch.bfloat16):
        return torch.float32
    return dtype if dtype.is_floating_point else torch.int64


class _Lines:
    """A Scan along one axis of `source`, under construction.

    `item` is the slice of source that a step sees, `position` its index (0-d). Each `state` is
    given its value after the step by `result`; `run` returns all values of every state.
    """

    def __init__(self, cx: Rule, source: Value, axis: int) -> None:
        size = source.known_dims[axis]
        if not isinstance(size, int) or size > LONGEST_SCAN:
            cx.decline(f"a scan of {size} steps, which eager does faster than ONNX's Scan")
        self.cx = cx
        self.source = source
        self.axis = axis
        self.size = size
        self.dims: Dims = (*source.known_dims[:axis], *source.known_dims[axis + 1 :])
        self.names = (f"{cx.node.name}.{n}" for n in itertools.count())
        self.nodes: list[ir.Node] = []
        self.starts: list[Value] = []
        self.states: list[Value] = []
        self.results: list[Value] = []
        self.item = Value(next(self.names), source.elem, self.dims)
        self.position = Value(next(self.names), ir.DataType.INT64, ())

    def state(self, start: Value) -> Value:
        """A value that steps hand on, and what the first one gets."""
        self.starts.append(start)
        self.states.append(Value(next(self.names), start.elem, self.dims))
        return self.states[-1]

    def emit(self, op_type: str, *inputs: Value, dtype: ir.DataType | None = None) -> Value:
        """One elementwise node of the step, of the type of its first input unless given."""
        out = Value(next(self.names), dtype or inputs[0].elem, None)
        self.nodes.append(ir.Node("", op_type, list(inputs), outputs=[out]))
        return out

    def number(self, value: float, dtype: torch.dtype) -> Value:
        """A 0-d constant; it stands in the body, which initializers of the graph do not reach."""
        out = Value(next(self.names), TO_ONNX[dtype], ())
        tensor = ir.Tensor(np.array(value, dtype=TO_ONNX[dtype].numpy()))
        attribute = ir.AttrTensor("value", tensor)
        self.nodes.append(ir.Node("", "Constant", [], [attribute], outputs=[out]))
        return out

    def result(self, state: Value, value: Value) -> None:
        """What a state becomes; in the order of the states."""
        assert state is self.states[len(self.results)]
        self.results.append(value)

    def run(self) -> tuple[Value, ...]:
        """[*D] for each state: its value after every step."""
        seen = [self.emit("Identity", r) for r in self.results]
        body = ir.Graph(
            [*self.states, self.item, self.position],
            [*self.results, *seen],
            nodes=self.nodes,
            name=f"{self.cx.node.name}_step",
        )
        count = len(self.states)
        made = self.cx.op.Scan(
            *self.starts,
            self.source,
            self.cx.const(list(range(self.size)), torch.int64),
            outputs=2 * count,
            dtypes=[s.elem for s in self.states] * 2,
            body=body,
            num_scan_inputs=2,
            scan_input_axes=[self.axis, 0],
            scan_output_axes=[self.axis] * count,
        )
        return made[count:]
