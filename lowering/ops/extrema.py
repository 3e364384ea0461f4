"""Extrema and where they are, any and all.

ONNX Runtime's ReduceMax, ReduceMin, ArgMax and ArgMin lose a NaN that does not come first, where
ATen lets NaN win; its TopK counts NaN as the greatest value and takes the first of equal ones, as
ATen does for a maximum with an index. (Measured on 1.32; the ONNX pages leave NaN open.)
Ref: https://onnx.ai/onnx/operators/onnx__ReduceMax.html,
https://onnx.ai/onnx/operators/onnx__TopK.html
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ..dims import numel
from ..dtypes import opmath
from ..registry import lowers
from ..rule import Rule
from ..value import Value
from .reduction import nothing, reduce, reduced_dims, truth
from .sort import top_k

aten = torch.ops.aten


# -------------------------------------------------------------------- values
@lowers(aten.amax.default)
def amax(cx: Rule, self: Value, dim: Sequence[int], keepdim: bool) -> Value:
    """self [*D] -> [*D without dim]; NaN wins; dim = [] means all."""
    return extremum(cx, "ReduceMax", self, cx.axes(dim, self.rank), keepdim)


@lowers(aten.amin.default)
def amin(cx: Rule, self: Value, dim: Sequence[int], keepdim: bool) -> Value:
    """self [*D] -> [*D without dim]; NaN wins; dim = [] means all."""
    return extremum(cx, "ReduceMin", self, cx.axes(dim, self.rank), keepdim)


@lowers(aten.max.default)
def max_all(cx: Rule, self: Value) -> Value:
    """self [*D] -> []; NaN wins."""
    return extremum(cx, "ReduceMax", self, range(self.rank), False)


@lowers(aten.min.default)
def min_all(cx: Rule, self: Value) -> Value:
    """self [*D] -> []; NaN wins."""
    return extremum(cx, "ReduceMin", self, range(self.rank), False)


@lowers(aten.aminmax.default)
def aminmax(cx: Rule, self: Value, dim: int | None, keepdim: bool) -> tuple[Value, Value]:
    """self [*D] -> min, max, both [*D without dim]; NaN wins."""
    axes = cx.axes(dim, self.rank)
    return (
        extremum(cx, "ReduceMin", self, axes, keepdim),
        extremum(cx, "ReduceMax", self, axes, keepdim),
    )


@lowers(aten._aminmax.default)
def aminmax_all(cx: Rule, self: Value) -> tuple[Value, Value]:
    """self [*D] -> min [], max []."""
    return aminmax(cx, self, None, False)


@lowers(aten._aminmax.dim)
def aminmax_dim(cx: Rule, self: Value, dim: int, keepdim: bool) -> tuple[Value, Value]:
    """self [*D] -> min, max, both [*D without dim]."""
    return aminmax(cx, self, dim, keepdim)


def extremum(cx: Rule, op_type: str, value: Value, axes: Sequence[int], keepdim: bool) -> Value:
    """ReduceMax or ReduceMin in which NaN wins, in value's dtype.

    `x == x` reduced by `and` is the cheapest question for NaN (vectorised, unlike IsNaN).
    """
    if not value.known_dims:
        return cx.op.Identity(value)
    out = reduced_dims(value.known_dims, axes, keepdim)
    if nothing(cx, value, axes):
        if 0 in out:
            return cx.zeros(out, cx.dtype(value))
        cx.decline("the extremum of no elements")
    if 0 in value.known_dims:
        return cx.zeros(out, cx.dtype(value))
    dtype = cx.dtype(value)
    if not dtype.is_floating_point:
        return reduce(cx, op_type, value, axes, keepdim)
    wide = cx.cast(value, opmath(dtype))
    found = reduce(cx, op_type, wide, axes, keepdim)
    numbers = reduce(cx, "ReduceMin", cx.op.Equal(wide, wide), axes, keepdim)
    return cx.cast(cx.op.Where(numbers, found, cx.scalar(math.nan, cx.dtype(wide))), dtype)


# -------------------------------------------------------------------- values with indices
@lowers(aten.max.dim)
def max_dim(cx: Rule, self: Value, dim: int, keepdim: bool) -> tuple[Value, Value]:
    """self [*D] -> values, indices int64, [*D without dim]; the first NaN or equal."""
    return _first(cx, self, dim, greatest=True)


@lowers(aten.min.dim)
def min_dim(cx: Rule, self: Value, dim: int, keepdim: bool) -> tuple[Value, Value]:
    """self [*D] -> values, indices int64, [*D without dim]; the first NaN or equal."""
    return _first(cx, self, dim, greatest=False)


def _first(cx: Rule, self: Value, dim: int, *, greatest: bool) -> tuple[Value, Value]:
    if not self.known_dims:
        return cx.op.Identity(self), cx.zeros((), torch.int64)
    values, indices = _first_along(cx, self, cx.axis(dim, self.rank), greatest=greatest)
    return cx.reshape(values, cx.outs[0].dims), cx.reshape(indices, cx.outs[1].dims)


def _first_along(cx: Rule, value: Value, axis: int, *, greatest: bool) -> tuple[Value, Value]:
    """TopK of one, dims kept. A least float is the greatest of the negatives, so that NaN wins."""
    if nothing(cx, value, [axis]) or 0 in value.known_dims:
        cx.decline("the extremum of an empty tensor")
    dtype = cx.dtype(value)
    if greatest or not dtype.is_floating_point:
        return top_k(cx, value, 1, axis, greatest)
    values, indices = top_k(cx, cx.op.Neg(cx.cast(value, opmath(dtype))), 1, axis, True)
    return cx.cast(cx.op.Neg(values), dtype), indices


# -------------------------------------------------------------------- indices
@lowers(aten.argmax.default)
def argmax(cx: Rule, self: Value, dim: int | None, keepdim: bool) -> Value:
    """self [*D] -> int64 [*D without dim], of the flat tensor if dim is None; first of equals."""
    return _where(cx, self, dim, greatest=True)


@lowers(aten.argmin.default)
def argmin(cx: Rule, self: Value, dim: int | None, keepdim: bool) -> Value:
    """self [*D] -> int64 [*D without dim], of the flat tensor if dim is None; first of equals."""
    return _where(cx, self, dim, greatest=False)


def _where(cx: Rule, self: Value, dim: int | None, *, greatest: bool) -> Value:
    """Integers by ArgMax and ArgMin, which return the first of equals; floats by TopK for NaN."""
    if not self.known_dims:
        return cx.zeros(cx.out.dims, torch.int64)
    if dim is None:
        self = cx.reshape(self, (numel(self.known_dims),))
    axis = 0 if dim is None else cx.axis(dim, self.rank)
    if 0 in self.known_dims:
        return cx.zeros(cx.out.dims, torch.int64)
    if cx.dtype(self).is_floating_point:
        indices = _first_along(cx, self, axis, greatest=greatest)[1]
        return cx.reshape(indices, cx.out.dims)
    nothing(cx, self, [axis])
    keepdim = len(cx.out.dims) == self.rank
    arg = cx.op.ArgMax if greatest else cx.op.ArgMin
    indices = arg(self, axis=axis, keepdims=None if keepdim else 0)
    indices.dims = reduced_dims(self.known_dims, [axis], keepdim)
    return cx.reshape(indices, cx.out.dims)


# -------------------------------------------------------------------- any and all
@lowers(aten.any.default)
def any_all(cx: Rule, self: Value) -> Value:
    """self [*D] -> bool [] (uint8 for uint8); NaN is true."""
    return _logical(cx, "ReduceMax", self, range(self.rank), False)


@lowers(aten.any.dim)
def any_dim(cx: Rule, self: Value, dim: int, keepdim: bool) -> Value:
    """self [*D] -> bool [*D without dim]."""
    return _logical(cx, "ReduceMax", self, cx.axes(dim, self.rank), keepdim)


@lowers(aten.any.dims)
def any_dims(cx: Rule, self: Value, dim: Sequence[int] | None, keepdim: bool) -> Value:
    """self [*D] -> bool [*D without dims]; dim = [] reduces nothing."""
    return _logical(cx, "ReduceMax", self, _literal_axes(cx, dim, self.rank), keepdim)


@lowers(aten.all.default)
def all_all(cx: Rule, self: Value) -> Value:
    """self [*D] -> bool [] (uint8 for uint8)."""
    return _logical(cx, "ReduceMin", self, range(self.rank), False)


@lowers(aten.all.dim)
def all_dim(cx: Rule, self: Value, dim: int, keepdim: bool) -> Value:
    """self [*D] -> bool [*D without dim]."""
    return _logical(cx, "ReduceMin", self, cx.axes(dim, self.rank), keepdim)


@lowers(aten.all.dims)
def all_dims(cx: Rule, self: Value, dim: Sequence[int] | None, keepdim: bool) -> Value:
    """self [*D] -> bool [*D without dims]; dim = [] reduces nothing."""
    return _logical(cx, "ReduceMin", self, _literal_axes(cx, dim, self.rank), keepdim)


def _literal_axes(cx: Rule, dim: Sequence[int] | None, rank: int) -> Sequence[int]:
    return () if dim is not None and len(dim) == 0 else cx.axes(dim, rank)


def _logical(cx: Rule, op_type: str, self: Value, axes: Sequence[int], keepdim: bool) -> Value:
    value = cx.cast(self, torch.bool)
    if axes:
        value = truth(cx, op_type, value, axes, keepdim)
    return cx.cast(value, cx.out.dtype)
