"""Losses that reach us whole. `reduction` is 0 (none), 1 (mean) or 2 (sum)."""

from __future__ import annotations

import torch

from ..dims import Dim
from ..dtypes import opmath
from ..registry import lowers
from ..rule import Rule
from ..value import Value
from ._pointwise import log1p
from .index import from_zero
from .reduction import nothing, reduce

aten = torch.ops.aten


# -------------------------------------------------------------------- regression
@lowers(aten.mse_loss.default)
def mse_loss(cx: Rule, self: Value, target: Value, reduction: int) -> Value:
    """self, target [*broadcast] -> (self - target)^2, reduced; 16 bits are kept at each step."""
    difference = _difference(cx, self, target, cx.out.dtype)
    return _reduced(cx, cx.op.Mul(difference, difference), reduction)


@lowers(aten.smooth_l1_loss.default)
def smooth_l1_loss(cx: Rule, self: Value, target: Value, reduction: int, beta: float) -> Value:
    """self, target [*broadcast] -> 0.5 d^2 / beta below beta, |d| - 0.5 beta above; reduced.

    ATen's kernel keeps float16 at each step, and takes bfloat16 through float32.
    """
    wide = torch.float16 if cx.out.dtype is torch.float16 else opmath(cx.out.dtype)
    size = cx.op.Abs(_difference(cx, self, target, wide))
    if beta == 0:
        return _reduced(cx, size, reduction)
    dtype = cx.dtype(size)
    half = cx.scalar(0.5, dtype)
    near = cx.op.Div(cx.op.Mul(cx.op.Mul(half, size), size), cx.scalar(beta, dtype))
    far = cx.op.Sub(size, cx.scalar(0.5 * beta, dtype))
    below = cx.op.Less(size, cx.scalar(beta, dtype))
    return _reduced(cx, cx.op.Where(below, near, far), reduction)


@lowers(aten.huber_loss.default)
def huber_loss(cx: Rule, self: Value, target: Value, reduction: int, delta: float) -> Value:
    """self, target [*broadcast] -> 0.5 d^2 up to delta, delta (|d| - 0.5 delta) above; reduced.

    ATen's kernel keeps bfloat16 at each step, and takes float16 through float32.
    """
    wide = torch.bfloat16 if cx.out.dtype is torch.bfloat16 else opmath(cx.out.dtype)
    size = cx.op.Abs(_difference(cx, self, target, wide))
    dtype = cx.dtype(size)
    near = cx.op.Mul(cx.op.Mul(cx.scalar(0.5, dtype), size), size)
    beyond = cx.op.Sub(size, cx.scalar(0.5 * delta, dtype))
    far = cx.op.Mul(cx.scalar(delta, dtype), beyond)
    within = cx.op.LessOrEqual(size, cx.scalar(delta, dtype))
    return _reduced(cx, cx.op.Where(within, near, far), reduction)


@lowers(aten.soft_margin_loss.default)
def soft_margin_loss(cx: Rule, self: Value, target: Value, reduction: int) -> Value:
    """self, target [*broadcast] -> log(1 + exp(-target * self)), reduced.

    ATen takes each step in the output's type: float16 overflows in exp, and is then inf.
    """
    dtype = cx.out.dtype
    a, b = cx.promote(self, target)
    grown = cx.op.Exp(cx.op.Mul(cx.op.Neg(a), b))
    loss = cx.cast(log1p(cx, cx.cast(grown, opmath(dtype))), dtype)
    return _reduced(cx, cx.cast(loss, opmath(dtype)), reduction)


# -------------------------------------------------------------------- classification
@lowers(aten.binary_cross_entropy.default)
def binary_cross_entropy(
    cx: Rule, self: Value, target: Value, weight: Value | None, reduction: int
) -> Value:
    """self (probabilities), target, weight [*D] -> the loss, reduced; logarithms end at -100.

    ATen raises for numbers outside 0..1; here they give NaN.
    """
    dtype = opmath(cx.out.dtype)
    p, y = cx.cast(self, dtype), cx.cast(target, dtype)
    least = cx.scalar(-100, dtype)
    yes = cx.op.Mul(y, cx.op.Max(cx.op.Log(p), least))
    no = cx.op.Mul(cx.op.Sub(y, cx.scalar(1, dtype)), cx.op.Max(log1p(cx, cx.op.Neg(p)), least))
    return _reduced(cx, _weighted(cx, cx.op.Sub(no, yes), weight), reduction)


@lowers(aten.nll_loss_forward.default, aten.nll_loss2d_forward.default)
def nll_loss(
    cx: Rule,
    self: Value,
    target: Value,
    weight: Value | None,
    reduction: int,
    ignore_index: Dim,
) -> tuple[Value, Value]:
    """self [C], [N, C] or [N, C, *D] (log-probabilities), target [N, *D] -> loss, total weight.

    Spelled out, as ONNX's NegativeLogLikelihoodLoss has no kernel of its own and does not return
    the weight.
    """
    dtype = opmath(cx.out.dtype)
    single = self.rank == 1
    classes = 0 if single else 1
    shape = (1,) if single else target.known_dims
    x = cx.cast(self, dtype)
    labels = cx.reshape(target, shape)
    zero = cx.scalar(0, dtype)
    kept = cx.op.Not(cx.op.Equal(labels, cx.scalar(ignore_index, cx.dtype(labels))))
    chosen = from_zero(cx, cx.op.Where(kept, labels, cx.scalar(0, cx.dtype(labels))))
    dims = (1,) if single else (shape[0], 1, *shape[1:])
    picked = cx.op.GatherElements(x, cx.reshape(chosen, dims), axis=classes)
    picked.dims = dims
    loss = cx.op.Neg(cx.reshape(picked, shape))
    if weight is None:
        weights = cx.cast(kept, dtype)
    else:
        factor = cx.op.Gather(cx.cast(weight, dtype), chosen)
        factor.dims = shape
        loss = cx.op.Mul(loss, factor)
        weights = cx.op.Where(kept, factor, zero)
    loss = cx.op.Where(kept, loss, zero)
    loss.dims = weights.dims = shape
    everything = range(len(shape))
    total = reduce(cx, "ReduceSum", weights, everything, False)
    if reduction == 0:
        none = total if single else cx.zeros((), dtype)
        return cx.cast(cx.reshape(loss, cx.out.dims), cx.out.dtype), cx.cast(none, cx.outs[1].dtype)
    summed = reduce(cx, "ReduceSum", loss, everything, False)
    result = cx.op.Div(summed, total) if reduction == 1 else summed
    return cx.cast(result, cx.out.dtype), cx.cast(total, cx.outs[1].dtype)


# -------------------------------------------------------------------- the shared parts
def _difference(cx: Rule, self: Value, target: Value, dtype: torch.dtype) -> Value:
    a, b = cx.promote(self, target, dtype=dtype)
    return cx.op.Sub(a, b)


def _weighted(cx: Rule, loss: Value, weight: Value | None) -> Value:
    return loss if weight is None else cx.op.Mul(loss, cx.cast(weight, cx.dtype(loss)))


def _reduced(cx: Rule, loss: Value, reduction: int) -> Value:
    """The loss in the node's dtype: as it is, its mean (NaN of nothing) or its sum."""
    if reduction != 0:
        axes = range(loss.rank)
        if reduction == 1 and nothing(cx, loss, axes):
            return cx.scalar(float("nan"), cx.out.dtype)
        loss = reduce(cx, "ReduceMean" if reduction == 1 else "ReduceSum", loss, axes, False)
    return cx.cast(loss, cx.out.dtype)
