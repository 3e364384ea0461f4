"""Numbers spaced evenly, or evenly in their logarithm: linspace, logspace."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..dtypes import TO_ONNX, opmath
from ..registry import lowers
from ..rule import Rule, Scalar
from ..value import Value
from ._pointwise import constant_of

aten = torch.ops.aten

LONGEST = 4096  # steps whose positions are constants of the program


@lowers(
    aten.linspace.default,
    aten.linspace.Tensor_Tensor,
    aten.linspace.Tensor_Scalar,
    aten.linspace.Scalar_Tensor,
)
def linspace(
    cx: Rule, start: Value | Scalar, end: Value | Scalar, steps: Scalar, *_: object
) -> Value:
    """Numbers (0-d where tensors) from start to end, both included -> [steps].

    As in ATen the second half is counted down from end, so that it ends there exactly, each
    operation rounds to the output's type, and integers are spaced in float64 and cut.
    """
    dtype = cx.out.dtype
    wide = dtype if dtype.is_floating_point else torch.float64
    numbers = _numbers(cx, start, end, wide)
    if numbers is not None:
        return cx.const(numbers.astype(TO_ONNX[dtype].numpy()), dtype)
    return cx.cast(_emitted(cx, start, end, wide), dtype)


@lowers(
    aten.logspace.default,
    aten.logspace.Tensor_Tensor,
    aten.logspace.Tensor_Scalar,
    aten.logspace.Scalar_Tensor,
)
def logspace(
    cx: Rule,
    start: Value | Scalar,
    end: Value | Scalar,
    steps: Scalar,
    base: float,
    *_: object,
) -> Value:
    """base ** linspace(start, end, steps), which rounds 16-bit floats at the end only."""
    dtype = cx.out.dtype
    wide = opmath(dtype) if dtype.is_floating_point else torch.float64
    numbers = _numbers(cx, start, end, wide)
    if numbers is None:
        places = _emitted(cx, start, end, wide)
        return cx.cast(cx.op.Pow(cx.scalar(base, wide), places), dtype)
    kind = TO_ONNX[wide].numpy()
    with np.errstate(all="ignore"):
        powers = np.power(np.asarray(base).astype(kind), numbers)
    return cx.const(powers.astype(TO_ONNX[dtype].numpy()), dtype)


def _count(cx: Rule) -> int:
    (count,) = cx.out.dims
    if not isinstance(count, int) or count > LONGEST:
        cx.decline(f"evenly spaced numbers of more than {LONGEST} or an unknown number of steps")
    return count


def _positions(count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """How many steps from the end it is counted from, and whether that is the first."""
    index = np.arange(count)
    early = index < count // 2
    return np.where(early | (count == 1), index, count - 1 - index), early | (count == 1)


def _numbers(
    cx: Rule, start: Value | Scalar, end: Value | Scalar, computed: torch.dtype
) -> npt.NDArray[Any] | None:
    """The positions as ATen's kernel computes them, if both ends are known now."""
    first, last = constant_of(cx, start), constant_of(cx, end)
    if first is None or last is None:
        return None
    count = _count(cx)
    kind = np.dtype(TO_ONNX[cx.out.dtype].numpy())
    wide = np.dtype(TO_ONNX[computed].numpy())
    low, high = (np.asarray(v).astype(kind).astype(wide) for v in (first, last))
    distance, early = _positions(count)
    step = (high - low) / np.asarray(max(count - 1, 1)).astype(wide)
    along = step * distance.astype(wide)
    return np.where(early, low + along, high - along)


def _emitted(cx: Rule, start: Value | Scalar, end: Value | Scalar, wide: torch.dtype) -> Value:
    """The same in the graph."""
    count = _count(cx)
    low, high = (cx.cast(cx.as_value(v, cx.out.dtype), wide) for v in (start, end))
    distance, early = _positions(count)
    step = cx.op.Div(cx.op.Sub(high, low), cx.scalar(max(count - 1, 1), wide))
    along = cx.op.Mul(step, cx.const(distance, wide))
    up, down = cx.op.Add(low, along), cx.op.Sub(high, along)
    return cx.op.Where(cx.const(early, torch.bool), up, down)
