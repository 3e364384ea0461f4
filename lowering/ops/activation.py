"""Activation functions."""

from __future__ import annotations

import torch

from ..dims import is_static, numel
from ..registry import lowers
from ..rule import Rule, Scalar
from ..value import Value
from ._pointwise import compute, narrow

aten = torch.ops.aten

LEAST_OF_A_PRODUCT = 1 << 14  # elements for which a look at the sum pays


@lowers(aten.relu.default)
def relu(cx: Rule, self: Value) -> Value:
    """self [*A] -> max(self, 0) [*A]; NaN stays."""
    if cx.out.dtype in (torch.int64, torch.uint64):  # no Relu kernel, and no wider type
        return cx.op.Max(self, cx.scalar(0, cx.out.dtype))
    return cx.op.Relu(self)


@lowers(aten.threshold_backward.default)
def threshold_backward(cx: Rule, grad_output: Value, self: Value, threshold: Scalar) -> Value:
    """grad_output, self [*A] -> grad_output where self is above, or NaN, and 0 elsewhere [*A]."""
    x, bound = compute(cx, self, threshold, dtype=cx.dtype(self))
    return _kept(cx, grad_output, cx.op.Not(cx.op.LessOrEqual(x, bound)))


@lowers(aten.hardtanh_backward.default)
def hardtanh_backward(
    cx: Rule, grad_output: Value, self: Value, min_val: Scalar, max_val: Scalar
) -> Value:
    """grad_output, self [*A] -> grad_output where self is between them, else 0 [*A].

    NaN is not, in ATen's vectorized kernel, which all but a few last elements go through.
    """
    x, least, most = compute(cx, self, min_val, max_val, dtype=cx.dtype(self))
    return _kept(cx, grad_output, cx.op.And(cx.op.Greater(x, least), cx.op.Less(x, most)))


def _kept(cx: Rule, gradient: Value, keep: Value) -> Value:
    """gradient [*A], keep [*A] bool -> the gradient where it is kept, 0 elsewhere.

    On the CPU, onnxruntime's Where takes some ten times as long as a product with 0 and 1. That is
    as good where all of the gradient is finite, and then their sum is (unless it overflows).
    """
    dims, dtype = cx.out.dims, cx.dtype(gradient)
    zero = cx.scalar(0, dtype)
    small = is_static(dims) and numel(dims) < LEAST_OF_A_PRODUCT
    if small or cx.node.meta["val"].device.type != "cpu":
        return cx.op.Where(keep, gradient, zero)
    total = cx.op.ReduceSum(gradient, keepdims=0)
    return cx.op.If(
        cx.op.Equal(cx.op.Sub(total, total), zero),
        dtypes=[cx.out.onnx],
        then_branch=cx.body([], lambda: [cx.op.Mul(gradient, cx.cast(keep, dtype))]),
        else_branch=cx.body([], lambda: [cx.op.Where(keep, gradient, zero)]),
    )


@lowers(aten.hardtanh.default)
def hardtanh(cx: Rule, self: Value, min_val: Scalar, max_val: Scalar) -> Value:
    """self [*A] -> clamped to [min_val, max_val] [*A] (relu6 is 0 to 6)."""
    dtype = cx.out.dtype
    return cx.op.Clip(self, cx.scalar(min_val, dtype), cx.scalar(max_val, dtype))


@lowers(aten.leaky_relu.default)
def leaky_relu(cx: Rule, self: Value, negative_slope: float) -> Value:
    """self [*A] -> self where positive, negative_slope * self elsewhere [*A]."""
    if cx.out.dtype is not torch.float64:
        return cx.op.LeakyRelu(self, alpha=float(negative_slope))
    return _two_slopes(cx, self, cx.scalar(negative_slope, torch.float64))


@lowers(aten._prelu_kernel.default)
def prelu(cx: Rule, self: Value, weight: Value) -> Value:
    """self [*A], weight broadcast to it -> self where positive, weight * self elsewhere [*A].

    ONNX Runtime does not multiply a zero: it stays zero also by a weight of NaN.
    """
    if cx.out.dtype is torch.float64:
        return _two_slopes(cx, self, weight)
    return cx.op.PRelu(self, weight)


def _two_slopes(cx: Rule, self: Value, slope: Value) -> Value:
    positive = cx.op.Greater(self, cx.scalar(0, cx.dtype(self)))
    return cx.op.Where(positive, self, cx.op.Mul(self, slope))


@lowers(aten.elu.default)
def elu(cx: Rule, self: Value, alpha: float, scale: float, input_scale: float) -> Value:
    """self [*A] -> scale * (x where positive, else alpha * (exp(input_scale * x) - 1)) [*A].

    selu is the case of a scale (ONNX's Selu has both factors).
    Ref: https://onnx.ai/onnx/operators/onnx__Selu.html
    """
    if input_scale != 1:
        return _celu(cx, self, alpha, scale, input_scale)
    if scale == 1:
        return cx.op.Elu(self, alpha=float(alpha))
    return cx.op.Selu(self, alpha=float(alpha), gamma=float(scale))


@lowers(aten.celu.default)
def celu(cx: Rule, self: Value, alpha: float) -> Value:
    """self [*A] -> x where positive, else alpha * (exp(x / alpha) - 1) [*A]."""
    return _celu(cx, self, alpha, 1.0, 1 / alpha)


def _celu(cx: Rule, self: Value, alpha: float, scale: float, input_scale: float) -> Value:
    (x,) = compute(cx, self)
    dtype = cx.dtype(x)
    low = cx.op.Elu(cx.op.Mul(x, cx.scalar(input_scale, dtype)), alpha=float(alpha * scale))
    high = x if scale == 1 else cx.op.Mul(x, cx.scalar(scale, dtype))
    return narrow(cx, cx.op.Where(cx.op.Greater(x, cx.scalar(0, dtype)), high, low))


@lowers(aten.gelu.default)
def gelu(cx: Rule, self: Value, approximate: str) -> Value:
    """self [*A] -> x * Phi(x) [*A], by erf ("none") or by tanh ("tanh"); ONNX has both.

    Of +inf it is inf here; ATen's vector code on CPU gives NaN.
    """
    return cx.op.Gelu(self, approximate=None if approximate == "none" else approximate)


@lowers(aten.silu.default)
def silu(cx: Rule, self: Value) -> Value:
    """self [*A] -> x * sigmoid(x) [*A]; ONNX Runtime makes one kernel of the two nodes."""
    (x,) = compute(cx, self)
    return narrow(cx, cx.op.Mul(x, cx.op.Sigmoid(x)))


@lowers(aten.glu.default)
def glu(cx: Rule, self: Value, dim: int) -> Value:
    """self [*A, 2D, *B] -> first half * sigmoid(second half) [*A, D, *B]."""
    (x,) = compute(cx, self)
    axis = cx.axis(dim, self.rank)
    first, second = cx.op.Split(x, outputs=2, axis=axis, num_outputs=2)
    return narrow(cx, cx.op.Mul(first, cx.op.Sigmoid(second)))


@lowers(aten.mish.default)
def mish(cx: Rule, self: Value) -> Value:
    """self [*A] -> x * tanh(softplus(x)) [*A]. ONNX Runtime has no kernel of ONNX's Mish."""
    (x,) = compute(cx, self)
    return narrow(cx, cx.op.Mul(x, cx.op.Tanh(cx.op.Softplus(x))))


@lowers(aten.hardsigmoid.default)
def hardsigmoid(cx: Rule, self: Value) -> Value:
    """self [*A] -> min(max(x + 3, 0), 6) / 6 [*A]."""
    return narrow(cx, _hard_sigmoid(cx, *compute(cx, self)))


@lowers(aten.hardswish.default)
def hardswish(cx: Rule, self: Value) -> Value:
    """self [*A] -> x * hardsigmoid(x) [*A]. ONNX Runtime has no kernel of ONNX's HardSwish."""
    (x,) = compute(cx, self)
    return narrow(cx, cx.op.Mul(x, _hard_sigmoid(cx, x)))


def _hard_sigmoid(cx: Rule, x: Value) -> Value:
    dtype = cx.dtype(x)
    if dtype is not torch.float64:
        return cx.op.HardSigmoid(x, alpha=1 / 6, beta=0.5)
    six = cx.scalar(6, dtype)
    raised = cx.op.Add(x, cx.scalar(3, dtype))
    return cx.op.Div(cx.op.Clip(raised, cx.scalar(0, dtype), six), six)


@lowers(aten.softplus.default)
def softplus(cx: Rule, self: Value, beta: float, threshold: float) -> Value:
    """self [*A] -> log(1 + exp(beta x)) / beta, and x where beta x > threshold [*A].

    From a threshold of 20 on both are equal in float32.
    """
    (x,) = compute(cx, self)
    dtype = cx.dtype(x)
    scaled = x if beta == 1 else cx.op.Mul(x, cx.scalar(beta, dtype))
    y = cx.op.Softplus(scaled)
    if beta != 1:
        y = cx.op.Div(y, cx.scalar(beta, dtype))
    if threshold < 20:
        y = cx.op.Where(cx.op.Greater(scaled, cx.scalar(threshold, dtype)), x, y)
    return narrow(cx, y)


@lowers(aten.log_sigmoid_forward.default)
def log_sigmoid(cx: Rule, self: Value) -> tuple[Value, None]:
    """self [*A] -> log(sigmoid(x)) [*A], and no buffer for the backward pass.

    It is -softplus(-x), which does not lose small values as Log(Sigmoid(x)) would.
    """
    (x,) = compute(cx, self)
    return narrow(cx, cx.op.Neg(cx.op.Softplus(cx.op.Neg(x)))), None


@lowers(aten.threshold.default)
def threshold(cx: Rule, self: Value, threshold: Scalar, value: Scalar) -> Value:
    """self [*A] -> value where self <= threshold, else self [*A]; NaN stays."""
    dtype = cx.out.dtype
    low = cx.op.LessOrEqual(self, cx.scalar(threshold, dtype))
    return cx.op.Where(low, cx.scalar(value, dtype), self)


@lowers(aten.softshrink.default)
def softshrink(cx: Rule, self: Value, lambd: float) -> Value:
    """self [*A] -> x moved towards zero by lambd, at most to zero [*A].

    ONNX's Shrink makes 0 of NaN; x - clip(x, -lambd, lambd) keeps it.
    Ref: https://onnx.ai/onnx/operators/onnx__Shrink.html
    """
    (x,) = compute(cx, self)
    low, high = (cx.scalar(bound, cx.dtype(x)) for bound in (-lambd, lambd))
    return narrow(cx, cx.op.Sub(x, cx.op.Clip(x, low, high)))


@lowers(aten.hardshrink.default)
def hardshrink(cx: Rule, self: Value, lambd: float) -> Value:
    """self [*A] -> 0 where |x| <= lambd, else x [*A]; NaN stays."""
    dtype = cx.out.dtype
    near = cx.op.LessOrEqual(cx.op.Abs(self), cx.scalar(lambd, dtype))
    return cx.op.Where(near, cx.scalar(0, dtype), self)
