"""Rules for operators that draw random numbers, for models that run without torch.

In a captured frame these run in eager, so that `torch.manual_seed` means what it says. A model has
ONNX's generators: the same distributions, other numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .dims import Dim, Dims, is_static
from .registry import Operator, Registry
from .rule import Operand, Rule, RuleFunction
from .value import Value

aten = torch.ops.aten


# onnxruntime (1.32) has no kernels of ONNX's generators for the opsets behind this one.
NEWEST_OPSET = 21


def register_random(registry: Registry) -> None:
    """Add the rules to a registry, in the place of what it has for some arguments alone."""
    for op, rule in RULES.items():
        registry.register(op, rule, replace=True)


def _drawn(cx: Rule, kind: str, dims: Dims) -> Value:
    """[*dims] of float32: `RandomUniform` in [0, 1), `RandomNormal` of mean 0 and deviation 1."""
    if dims and is_static(dims):
        return cx.builder.draw(kind, [], {"shape": list(dims)})
    return cx.builder.draw(f"{kind}Like", [cx.full(dims, 0, torch.float32)], {})


def _uniform(cx: Rule, dims: Dims) -> Value:
    return _drawn(cx, "RandomUniform", dims)


def _normal(cx: Rule, dims: Dims) -> Value:
    return _drawn(cx, "RandomNormal", dims)


def rand(cx: Rule, *_: object) -> Value:
    """Numbers in [0, 1)."""
    return cx.cast(_uniform(cx, cx.out.dims), cx.out.dtype)


def randn(cx: Rule, *_: object) -> Value:
    """Numbers of the standard normal distribution."""
    return cx.cast(_normal(cx, cx.out.dims), cx.out.dtype)


def randint(cx: Rule, high: Dim, *_: object) -> Value:
    """Integers from 0 up to `high`, which is excluded."""
    return _integers(cx, 0, high)


def randint_low(cx: Rule, low: Dim, high: Dim, *_: object) -> Value:
    """Integers from `low` up to `high`, which is excluded."""
    return _integers(cx, low, high)


def randint_like(cx: Rule, self: Value, high: Dim, *_: object) -> Value:
    """As many as `self` has."""
    return _integers(cx, 0, high)


def randint_like_low(cx: Rule, self: Value, low: Dim, high: Dim, *_: object) -> Value:
    """As many as `self` has."""
    return _integers(cx, low, high)


def _integers(cx: Rule, low: Dim, high: Dim) -> Value:
    """Of a float32 there are 2^24 values in [0, 1)."""
    first = cx.scalar(low, torch.float64)
    count = cx.scalar(high - low, torch.float64)
    place = cx.op.Floor(cx.op.Mul(cx.cast(_uniform(cx, cx.out.dims), torch.float64), count))
    last = cx.op.Sub(count, cx.const(1, torch.float64))
    return cx.cast(cx.op.Add(cx.op.Min(place, last), first), cx.out.dtype)


def bernoulli(cx: Rule, self: Value, *_: object) -> Value:
    """1 with the probability that `self` has there, else 0."""
    drawn = cx.op.Less(_uniform(cx, cx.out.dims), cx.cast(self, torch.float32))
    return cx.cast(drawn, cx.out.dtype)


def bernoulli_p(cx: Rule, self: Value, p: float, *_: object) -> Value:
    """1 with probability p, else 0."""
    return cx.cast(cx.op.Less(_uniform(cx, cx.out.dims), cx.const(p, torch.float32)), cx.out.dtype)


def native_dropout(cx: Rule, input: Value, p: float, train: bool | None) -> tuple[Value, Value]:
    """input [*A] -> what is kept of it, scaled by 1 / (1 - p), and where that is."""
    dims = cx.out.dims
    if train is False or p == 0:
        return cx.op.Identity(input), cx.ones(dims, torch.bool)
    if p == 1:
        return cx.op.Mul(input, cx.const(0, cx.out.dtype)), cx.zeros(dims, torch.bool)
    kept: Value = cx.op.GreaterOrEqual(_uniform(cx, dims), cx.const(p, torch.float32))
    scaled = cx.op.Mul(input, cx.const(1 / (1 - p), cx.out.dtype))
    return cx.op.Mul(scaled, cx.cast(kept, cx.out.dtype)), kept  # inf * 0 is NaN, as in eager


def normal_functional(
    cx: Rule, self: Value, mean: float = 0.0, std: float = 1.0, *_: object
) -> Value:
    """As many as `self` has."""
    return _scaled(cx, mean, std)


def normal(cx: Rule, mean: Operand, std: Operand = 1.0, *_: object) -> Value:
    """Numbers of the normal distributions with these means and deviations."""
    return _scaled(cx, mean, std)


def _scaled(cx: Rule, mean: Operand, std: Operand) -> Value:
    deviations = cx.op.Mul(
        cx.cast(_normal(cx, cx.out.dims), cx.out.dtype), cx.as_value(std, cx.out.dtype)
    )
    return cx.op.Add(deviations, cx.as_value(mean, cx.out.dtype))


def uniform(
    cx: Rule,
    self: Value,
    from_: float = 0.0,
    to: float = 1.0,
    *_: object,
) -> Value:
    """Numbers in [from, to), as many as `self` has."""
    span = cx.op.Mul(
        cx.cast(_uniform(cx, cx.out.dims), cx.out.dtype), cx.const(to - from_, cx.out.dtype)
    )
    return cx.op.Add(span, cx.const(from_, cx.out.dtype))


def exponential(cx: Rule, self: Value, lambd: float = 1.0, *_: object) -> Value:
    """Numbers of the exponential distribution: -log(1 - u) / lambd."""
    rest = cx.op.Sub(cx.const(1, torch.float32), _uniform(cx, cx.out.dims))
    drawn = cx.op.Mul(cx.op.Log(rest), cx.const(-1 / lambd, torch.float32))
    return cx.cast(drawn, cx.out.dtype)


def multinomial(
    cx: Rule, self: Value, num_samples: Dim, replacement: bool = False, *_: object
) -> Value:
    """self [(*B,) N] weights -> int64 [(*B,) num_samples]: places, by the Gumbel-max trick.

    With replacement each sample is drawn anew. Ref: https://arxiv.org/abs/1903.06059
    """
    dims = self.known_dims
    if replacement and num_samples != 1:
        drawn_dims = (*dims[:-1], num_samples, dims[-1])
        weights = cx.unsqueeze(self, len(dims) - 1)
        return cx.op.ArgMax(_gumbel(cx, weights, drawn_dims), axis=-1, keepdims=0)
    scores = _gumbel(cx, self, dims)
    _, places = cx.op.TopK(scores, cx.ints([num_samples]), outputs=2, axis=-1)
    return places


def _gumbel(cx: Rule, weights: Value, dims: Dims) -> Value:
    """log(weight) - log(-log(u)): the greatest is at a place with the probability of its weight."""
    u = cx.op.Max(_uniform(cx, dims), cx.const(torch.finfo(torch.float32).tiny, torch.float32))
    noise = cx.op.Log(cx.op.Neg(cx.op.Log(u)))
    return cx.op.Sub(cx.op.Log(cx.cast(weights, torch.float32)), noise)


def randperm(cx: Rule, n: Dim, *_: object) -> Value:
    """0 ... n - 1 in random order."""
    _, places = cx.op.TopK(_uniform(cx, (n,)), cx.ints([n]), outputs=2, axis=0)
    return cx.cast(places, cx.out.dtype)


RULES: Mapping[Operator, RuleFunction] = {
    aten.rand.default: rand,
    aten.rand_like.default: rand,
    aten.randn.default: randn,
    aten.randn_like.default: randn,
    aten.randint.default: randint,
    aten.randint.low: randint_low,
    aten.randint_like.default: randint_like,
    aten.randint_like.low_dtype: randint_like_low,
    aten.bernoulli.default: bernoulli,
    aten.bernoulli.p: bernoulli_p,
    aten.native_dropout.default: native_dropout,
    aten.normal_functional.default: normal_functional,
    aten.normal.Tensor_float: normal,
    aten.normal.float_Tensor: normal,
    aten.normal.Tensor_Tensor: normal,
    aten.uniform.default: uniform,
    aten.exponential.default: exponential,
    aten.multinomial.default: multinomial,
    aten.randperm.default: randperm,
}
