"""Complex numbers, as two real values each: one real rule for each part, or a formula of both.

Where a formula meets infinities, C++ compilers and vector units disagree among themselves; what is
here has the plain products and sums that ATen's kernels have.
Ref: c10/util/complex.h, aten/src/ATen/cpu/vec/vec256/vec256_complex_float.h
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from ..dtypes import REAL
from ..registry import lowers_complex, registry
from ..rule import Meta, Rule
from ..value import Complex, Value

aten = torch.ops.aten

Number: TypeAlias = Value | Complex | float | complex


# -------------------------------------------------------------------- part by part
STRUCTURAL = (
    aten.alias.default, aten.clone.default, aten.detach.default, aten.lift_fresh_copy.default,
    aten.view.default, aten._unsafe_view.default, aten.reshape.default, aten.permute.default,
    aten.t.default, aten.transpose.int, aten.expand.default, aten.unsqueeze.default,
    aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.select.int, aten.slice.Tensor,
    aten.split.Tensor, aten.split_with_sizes.default, aten.unbind.int, aten.diagonal.default,
    aten.unfold.default, aten.repeat.default, aten.roll.default, aten.flip.default,
    aten.index_select.default, aten.gather.default, aten.index.Tensor, aten.tril.default,
    aten.triu.default, aten.cat.default, aten.stack.default, aten.neg.default, aten.sum.default,
    aten.sum.dim_IntList, aten.mean.default, aten.mean.dim, aten.zeros_like.default,
    aten.where.self, aten.copy.default, aten.slice_scatter.default, aten.select_scatter.default,
)  # fmt: skip


@lowers_complex(*STRUCTURAL)
def structural(cx: Rule, *args: Any) -> Any:  # noqa: ANN401 - as the real rule
    """Operators that do to the imaginary parts what they do to the real ones."""
    return by_parts(cx, args)


def by_parts(cx: Rule, args: Sequence[Any]) -> Any:  # noqa: ANN401 - as the real rule
    """The node's real rule on the real parts, and on the imaginary parts."""
    lowering = registry.get(cx.node.target)
    assert lowering is not None
    outs = cx.outs
    cx.outs = tuple(Meta(REAL.get(m.dtype, m.dtype), m.dims) for m in outs)
    try:
        re, im = (lowering.rule(cx, *(_part(cx, a, which) for a in args)) for which in (0, 1))
    finally:
        cx.outs = outs
    if isinstance(re, Value):
        assert isinstance(im, Value)
        return Complex(re, im)
    assert not isinstance(im, Value)
    return [None if p is None or q is None else Complex(p, q) for p, q in zip(re, im, strict=True)]


def _part(cx: Rule, arg: Any, which: int) -> Any:  # noqa: ANN401 - any argument
    """The real (0) or imaginary (1) part; of a real float that is itself, or zeros."""
    if isinstance(arg, (list, tuple)):
        return [_part(cx, a, which) for a in arg]
    if isinstance(arg, Complex):
        return arg.im if which else arg.re
    if isinstance(arg, Value) and cx.dtype(arg).is_floating_point and which:
        return cx.zeros(arg.known_dims, cx.dtype(arg))
    return arg


# -------------------------------------------------------------------- real and imaginary parts
@lowers_complex(aten.view_as_real.default)
def view_as_real(cx: Rule, self: Complex) -> Value:
    """self [*A] -> [*A, 2]."""
    return cx.stack(self)


@lowers_complex(aten.view_as_complex.default)
def view_as_complex(cx: Rule, self: Value) -> Complex:
    """self [*A, 2] -> [*A]."""
    return cx.unstack(self)


@lowers_complex(aten.complex.default)
def complex_of(cx: Rule, real: Value, imag: Value) -> Complex:
    """real [*A], imag [*B] -> [*broadcast]."""
    return Complex(*(cx.expand(part, cx.out.dims) for part in (real, imag)))


@lowers_complex(aten.polar.default)
def polar(cx: Rule, abs: Value, angle: Value) -> Complex:
    """abs [*A], angle [*B] -> abs * (cos(angle) + i sin(angle)) [*broadcast]."""
    return Complex(cx.op.Mul(abs, cx.op.Cos(angle)), cx.op.Mul(abs, cx.op.Sin(angle)))


@lowers_complex(aten._conj.default, aten._conj_physical.default, aten.conj_physical.default)
def conj(cx: Rule, self: Complex) -> Complex:
    """self [*A] -> its conjugate, made at once where torch only notes it."""
    return Complex(self.re, cx.op.Neg(self.im))


@lowers_complex(aten.resolve_conj.default, aten.resolve_neg.default)
def resolve(cx: Rule, self: Complex) -> Complex:
    """Nothing is ever left to be resolved."""
    return self


@lowers_complex(aten._to_copy.default)
def to_copy(cx: Rule, self: Value | Complex, *_: object) -> Value | Complex:
    """self [*A] -> [*A] in another dtype; to a real one the imaginary parts are dropped."""
    if cx.out.dtype not in REAL:
        return cx.cast(_as_complex(cx, self).re, cx.out.dtype)
    return _as_complex(cx, self)


# -------------------------------------------------------------------- arithmetic
@lowers_complex(aten.add.Tensor)
def add(cx: Rule, self: Number, other: Number, alpha: complex) -> Complex:
    """self [*A], other [*B] -> self + alpha * other [*broadcast]."""
    return _summed(cx, cx.op.Add, self, other, alpha)


@lowers_complex(aten.sub.Tensor)
def sub(cx: Rule, self: Number, other: Number, alpha: complex) -> Complex:
    """self [*A], other [*B] -> self - alpha * other [*broadcast]."""
    return _summed(cx, cx.op.Sub, self, other, alpha)


def _summed(
    cx: Rule, op: Callable[..., Value], self: Number, other: Number, alpha: complex
) -> Complex:
    a, b = _as_complex(cx, self), _as_complex(cx, other)
    if alpha != 1:
        b = _product(cx, b, _as_complex(cx, alpha))
    return Complex(op(a.re, b.re), op(a.im, b.im))


@lowers_complex(aten.mul.Tensor)
def mul(cx: Rule, self: Number, other: Number) -> Complex:
    """self [*A], other [*B] -> the product [*broadcast]."""
    return _product(cx, _as_complex(cx, self), _as_complex(cx, other))


@lowers_complex(aten.eq.Tensor, aten.ne.Tensor)
def equal(cx: Rule, self: Value | Complex, other: Value | Complex) -> Value:
    """self [*A], other [*B] -> bool [*broadcast]."""
    dtype = REAL[torch.promote_types(*(m.dtype for m in _fakes(cx)))]
    a, b = (_as_complex(cx, v, dtype) for v in (self, other))
    same = cx.op.And(cx.op.Equal(a.re, b.re), cx.op.Equal(a.im, b.im))
    return same if cx.node.target is aten.eq.Tensor else cx.op.Not(same)


@lowers_complex(aten.mm.default, aten.bmm.default)
def matmul(cx: Rule, self: Complex, mat2: Complex) -> Complex:
    """self [..., M, K], mat2 [..., K, N] -> [..., M, N], by four real products."""
    dims = cx.out.dims

    def times(a: Value, b: Value) -> Value:
        out: Value = cx.op.MatMul(a, b)
        out.dims = dims
        return out

    re = cx.op.Sub(times(self.re, mat2.re), times(self.im, mat2.im))
    return Complex(re, cx.op.Add(times(self.re, mat2.im), times(self.im, mat2.re)))


def _product(cx: Rule, a: Complex, b: Complex) -> Complex:
    re = cx.op.Sub(cx.op.Mul(a.re, b.re), cx.op.Mul(a.im, b.im))
    return Complex(re, cx.op.Add(cx.op.Mul(a.re, b.im), cx.op.Mul(a.im, b.re)))


def _fakes(cx: Rule) -> list[torch.Tensor]:
    return [n.meta["val"] for n in cx.node.all_input_nodes]


def _as_complex(cx: Rule, number: Number, dtype: torch.dtype | None = None) -> Complex:
    """A tensor or a number in the node's dtype; what is real gets 0 as its imaginary part."""
    real = REAL[cx.out.dtype] if dtype is None else dtype
    if isinstance(number, Complex):
        return Complex(cx.cast(number.re, real), cx.cast(number.im, real))
    if isinstance(number, Value):
        return Complex(cx.cast(number, real), cx.zeros(number.known_dims, real))
    plain = complex(number)
    return Complex(cx.scalar(plain.real, real), cx.scalar(plain.imag, real))
