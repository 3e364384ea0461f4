"""Smooth functions in float64 from their values: Chebyshev and power series, made and emitted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ..rule import Rule
from ..value import Value

F64 = torch.float64


@dataclass(frozen=True, slots=True)
class Fit:
    """Chebyshev coefficients of a function on low..high."""

    low: float
    high: float
    coefficients: npt.NDArray[np.float64]


def fit(function: Callable[[float], float], low: float, high: float, degree: int) -> Fit:
    """The function's interpolation at the Chebyshev points, all inside low..high."""
    count = degree + 1
    angles = (np.arange(count) + 0.5) * math.pi / count
    places = (low + high) / 2 + (high - low) / 2 * np.cos(angles)
    values = np.array([function(float(p)) for p in places])
    coefficients = np.cos(np.outer(np.arange(count), angles)) @ values * (2 / count)
    coefficients[0] /= 2
    return Fit(low, high, coefficients)


def evaluate(cx: Rule, x: Value, fitted: Fit) -> Value:
    """The fitted function of x, float64 within its range, by Clenshaw's recurrence."""
    scale = 2 / (fitted.high - fitted.low)
    shift = -(fitted.high + fitted.low) / (fitted.high - fitted.low)
    y = cx.op.Add(cx.op.Mul(x, number(cx, scale)), number(cx, shift))
    twice = cx.op.Add(y, y)
    first, *rest = (float(c) for c in fitted.coefficients)
    before, last = number(cx, 0), number(cx, 0)
    for coefficient in reversed(rest):
        grown = cx.op.Sub(cx.op.Mul(twice, last), before)
        before, last = last, cx.op.Add(grown, number(cx, coefficient))
    return cx.op.Add(cx.op.Sub(cx.op.Mul(y, last), before), number(cx, first))


def horner(cx: Rule, z: Value, coefficients: Sequence[float]) -> Value:
    """Sum of coefficients[k] * z ** k, float64."""
    *rest, last = coefficients
    result = number(cx, last)
    for coefficient in reversed(rest):
        result = cx.op.Add(cx.op.Mul(result, z), number(cx, coefficient))
    return result


def number(cx: Rule, value: float) -> Value:
    """A 0-d float64 constant."""
    return cx.scalar(float(value), F64)
