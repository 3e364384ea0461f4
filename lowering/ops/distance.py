"""Vector norms and distances."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ..dims import Dim
from ..dtypes import opmath
from ..registry import lowers
from ..rule import Rule, Scalar
from ..value import Value
from .extrema import extremum
from .reduction import nothing, reduce

aten = torch.ops.aten


# -------------------------------------------------------------------- norms
@lowers(aten.linalg_vector_norm.default, numbers=("ord",))
def vector_norm(
    cx: Rule,
    self: Value,
    ord: Scalar,
    dim: Sequence[int] | None,
    keepdim: bool,
    dtype: torch.dtype | None,
) -> Value:
    """self [*D] -> [*D without dim], (sum |x|^ord)^(1/ord) with its limits at 0, inf and -inf.

    dtype is what self is converted to first. ReduceL1 and ReduceL2 are computed as plainly as
    ATen's: the squares overflow in both.
    Ref: https://onnx.ai/onnx/operators/onnx__ReduceL2.html
    """
    wide = opmath(cx.out.dtype)
    source = cx.cast(cx.cast(self, cx.out.dtype), wide)
    norm = _norm(cx, source, _number(cx, ord), cx.axes(dim, self.rank), keepdim)
    return cx.cast(norm, cx.out.dtype)


@lowers(aten.norm.Scalar, numbers=("p",))
def norm(cx: Rule, self: Value, p: Scalar) -> Value:
    """self [*D] -> [], the p-norm of all elements."""
    return vector_norm(cx, self, p, None, False, None)


@lowers(aten.norm.ScalarOpt_dim, numbers=("p",))
def norm_dim(cx: Rule, self: Value, p: Scalar | None, dim: Sequence[int], keepdim: bool) -> Value:
    """self [*D] -> [*D without dim]; p = None means 2."""
    return vector_norm(cx, self, 2 if p is None else p, dim, keepdim, None)


@lowers(aten.norm.ScalarOpt_dtype, numbers=("p",))
def norm_dtype(cx: Rule, self: Value, p: Scalar | None, dtype: torch.dtype) -> Value:
    """self [*D] -> [], converted to dtype first."""
    return vector_norm(cx, self, 2 if p is None else p, None, False, dtype)


@lowers(aten.norm.ScalarOpt_dim_dtype, numbers=("p",))
def norm_dim_dtype(
    cx: Rule,
    self: Value,
    p: Scalar | None,
    dim: Sequence[int],
    keepdim: bool,
    dtype: torch.dtype,
) -> Value:
    """self [*D] -> [*D without dim], converted to dtype first."""
    return vector_norm(cx, self, 2 if p is None else p, dim, keepdim, dtype)


@lowers(aten.dist.default, numbers=("p",))
def dist(cx: Rule, self: Value, other: Value, p: Scalar) -> Value:
    """self, other [*broadcast] -> [], the p-norm of their difference."""
    a, b = cx.promote(self, other)
    return vector_norm(cx, cx.op.Sub(a, b), p, None, False, None)


@lowers(aten.renorm.default, numbers=("p",))
def renorm(cx: Rule, self: Value, p: Scalar, dim: int, maxnorm: Scalar) -> Value:
    """self [*D] -> [*D]; slices along dim whose p-norm exceeds maxnorm are scaled down to it.

    ATen takes the norm in its accumulation type (float64 for float32), adds 1e-7 to it, and rounds
    the factor to self's dtype before it multiplies.
    """
    dtype = cx.out.dtype
    wide = torch.float64 if dtype is torch.float32 else opmath(dtype)
    axes = [a for a in range(self.rank) if a != cx.axis(dim, self.rank)]
    length = _norm(cx, cx.cast(self, wide), _number(cx, p), axes, keepdim=True)
    limit = cx.scalar(maxnorm, wide)
    scaled = cx.op.Div(limit, cx.op.Add(length, cx.scalar(1e-7, wide)))
    factor = cx.op.Where(cx.op.Greater(length, limit), scaled, cx.scalar(1, wide))
    return cx.op.Mul(self, cx.cast(factor, dtype))


# -------------------------------------------------------------------- distances
@lowers(aten._cdist_forward.default, numbers=("p",))
def cdist(cx: Rule, x1: Value, x2: Value, p: float, compute_mode: int | None) -> Value:
    """x1 [*B, P, M], x2 [*B, R, M] -> [*B, P, R], the p-norms of all differences.

    For p = 2 with more than 25 rows ATen multiplies matrices instead (mode 1: always, 2: never);
    so does this, if need be once the sizes are known: the two round differently, and of infinities
    the product makes NaN.
    Ref: aten/src/ATen/native/Distance.cpp
    """
    rows = (x1.known_dims[-2], x2.known_dims[-2])

    def of_differences() -> Value:
        left, right = cx.unsqueeze(x1, x1.rank - 1), cx.unsqueeze(x2, x2.rank - 2)
        return _norm_of_rows(cx, cx.op.Sub(left, right), (*x1.known_dims[:-1], rows[1]), p)

    if p != 2 or compute_mode == 2:
        return of_differences()
    if compute_mode == 1 or any(isinstance(r, int) and r > 25 for r in rows):
        return _euclidean(cx, x1, x2)
    sizes = [r for r in rows if not isinstance(r, int)]
    if not sizes:
        return of_differences()
    most = cx.op.ReduceMax(cx.ints(sizes), keepdims=0)
    return cx.op.If(
        cx.op.Greater(most, cx.scalar(25, torch.int64)),
        dtypes=[cx.out.onnx],
        then_branch=cx.body([], lambda: [_euclidean(cx, x1, x2)]),
        else_branch=cx.body([], lambda: [of_differences()]),
    )


@lowers(aten._euclidean_dist.default)
def euclidean_dist(cx: Rule, x1: Value, x2: Value) -> Value:
    """x1 [*B, P, M], x2 [*B, R, M] -> [*B, P, R], by a product of matrices."""
    return _euclidean(cx, x1, x2)


@lowers(aten._pdist_forward.default, numbers=("p",))
def pdist(cx: Rule, self: Value, p: float) -> Value:
    """self [N, M] -> [N * (N - 1) / 2], the p-norms of the differences of rows i < j."""
    rows = self.known_dims[0]
    if not isinstance(rows, int):
        cx.decline("pdist of a symbolic number of rows")
    if rows < 2:
        return cx.zeros(cx.out.dims, cx.out.dtype)
    pairs = torch.triu_indices(rows, rows, 1)
    first, second = (cx.op.Gather(self, cx.const(i.numpy(), torch.int64)) for i in pairs)
    first.dims = second.dims = (pairs.shape[1], self.known_dims[1])
    return _norm_of_rows(cx, cx.op.Sub(first, second), (pairs.shape[1],), p)


@lowers(aten.linalg_cross.default)
def cross(cx: Rule, self: Value, other: Value, dim: int) -> Value:
    """self, other [*broadcast] of size 3 along dim -> their cross product.

    ATen's kernel rounds 16-bit floats after each step, so the steps stay in their dtype.
    """
    axis = cx.axis(dim, len(cx.out.dims)) - len(cx.out.dims)
    ahead, behind = cx.const([1, 2, 0], torch.int64), cx.const([2, 0, 1], torch.int64)

    def turned(value: Value, order: Value) -> Value:
        out: Value = cx.op.Gather(value, order, axis=axis)
        out.dims = value.dims
        return out

    return cx.op.Sub(
        cx.op.Mul(turned(self, ahead), turned(other, behind)),
        cx.op.Mul(turned(self, behind), turned(other, ahead)),
    )


# -------------------------------------------------------------------- the shared parts
def _number(cx: Rule, scalar: Scalar) -> float:
    if not isinstance(scalar, (int, float)):
        cx.decline("a norm whose order is computed from sizes")
    return float(scalar)


def _norm(cx: Rule, value: Value, order: float, axes: Sequence[int], keepdim: bool) -> Value:
    """The norm of a float32 or float64 value over axes."""
    dtype = cx.dtype(value)
    if nothing(cx, value, axes):
        if order < 0 or order == math.inf:
            cx.decline(f"the {order} norm of no elements")
        return cx.zeros(cx.out.dims, dtype)
    if order == 0:
        counted = cx.cast(cx.cast(value, torch.bool), dtype)
        return reduce(cx, "ReduceSum", counted, axes, keepdim)
    if not axes:
        return cx.op.Abs(value)
    if order in (1, 2):
        return reduce(cx, "ReduceL1" if order == 1 else "ReduceL2", value, axes, keepdim)
    size = cx.op.Abs(value)
    if math.isinf(order):
        return extremum(cx, "ReduceMax" if order > 0 else "ReduceMin", size, axes, keepdim)
    powers = reduce(cx, "ReduceSum", cx.op.Pow(size, cx.scalar(order, dtype)), axes, keepdim)
    return cx.op.Pow(powers, cx.scalar(1 / order, dtype))


def _norm_of_rows(cx: Rule, difference: Value, dims: Sequence[Dim], p: float) -> Value:
    """[*dims, M] -> [*dims]."""
    if 0 in difference.known_dims:
        return cx.zeros(cx.out.dims, cx.out.dtype)
    wide = cx.cast(difference, opmath(cx.out.dtype))
    norm = _norm(cx, wide, p, [wide.rank - 1], keepdim=False)
    return cx.cast(norm, cx.out.dtype)


def _euclidean(cx: Rule, x1: Value, x2: Value) -> Value:
    """sqrt(max(0, |a|^2 - 2ab + |b|^2)), the squares as two more columns of the factors.

    Ref: aten/src/ATen/native/Distance.cpp, _euclidean_dist
    """
    if 0 in cx.out.dims or x1.known_dims[-1] == 0:
        return cx.zeros(cx.out.dims, cx.out.dtype)
    dtype = opmath(cx.out.dtype)
    a, b = cx.cast(x1, dtype), cx.cast(x2, dtype)
    squares = [reduce(cx, "ReduceSumSquare", v, [v.rank - 1], True) for v in (a, b)]
    ones = [cx.ones((*v.known_dims[:-1], 1), dtype) for v in (a, b)]
    doubled = cx.op.Mul(a, cx.scalar(-2, dtype))
    left = cx.op.Concat(doubled, squares[0], ones[0], axis=-1)
    right = cx.op.Concat(b, ones[1], squares[1], axis=-1)
    product = cx.ms.FusedMatMul(left, right, transB=1)
    # Relu lets NaN through, as clamp_min does.
    return cx.cast(cx.op.Sqrt(cx.op.Relu(product)), cx.out.dtype)
