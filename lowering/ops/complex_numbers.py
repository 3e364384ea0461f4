"""Complex numbers, as two real values each: one real rule for each part, or a formula of both.

Where a formula meets infinities, C++ compilers and vector units disagree among themselves; what is
here has the plain products and sums that ATen's kernels have.
Ref: c10/util/complex.h, aten/src/ATen/cpu/vec/vec256/vec256_complex_float.h
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeAlias

import sympy
import torch

from ..dtypes import REAL
from ..registry import lowers_complex, registry, schema_arguments
from ..rule import Meta, Rule
from ..torch_private import OpOverload
from ..value import Complex, Value
from .binary_math import atan2, hypot
from .matmul import by_vector

aten = torch.ops.aten

Number: TypeAlias = Value | Complex | complex | sympy.Expr


# -------------------------------------------------------------------- part by part
STRUCTURAL = (
    aten.alias, aten.clone, aten.detach, aten.lift_fresh_copy, aten.copy, aten.view,
    aten._unsafe_view, aten.reshape, aten._reshape_alias, aten.permute, aten.t, aten.transpose,
    aten.expand, aten.unsqueeze, aten.squeeze, aten.select, aten.slice, aten.narrow, aten.split,
    aten.split_with_sizes, aten.unsafe_split, aten.unsafe_split_with_sizes, aten.unbind,
    aten.diagonal, aten.diag_embed, aten.unfold, aten.as_strided, aten.repeat, aten.roll,
    aten.flip, aten.rot90, aten.tril, aten.triu, aten.cat, aten.stack, aten.block_diag,
    aten.index_select, aten.gather, aten.index, aten._unsafe_index, aten.take,
    aten.masked_select, aten.index_put, aten._unsafe_index_put, aten.index_add, aten.index_copy,
    aten.put, aten.scatter, aten.scatter_add, aten.masked_scatter, aten.slice_scatter,
    aten.select_scatter, aten.diagonal_scatter, aten.as_strided_scatter, aten.where,
    aten.masked_fill, aten.constant_pad_nd, aten.reflection_pad1d, aten.reflection_pad2d,
    aten.reflection_pad3d, aten.replication_pad1d, aten.replication_pad2d,
    aten.replication_pad3d, aten.full, aten.full_like, aten.new_full, aten.fill, aten.zeros,
    aten.zeros_like, aten.new_zeros, aten.zero, aten.empty, aten.empty_like,
    aten.empty_strided, aten.new_empty, aten.new_empty_strided, aten.scalar_tensor, aten.neg,
    aten.sum, aten.mean, aten.cumsum,
)  # fmt: skip


def _overloads() -> list[OpOverload]:
    """Those of STRUCTURAL, and theirs that return copies; not those that also multiply."""
    copies = (getattr(aten, f"{packet.__name__}_copy", None) for packet in STRUCTURAL)
    every = (
        getattr(packet, name)
        for packet in (*STRUCTURAL, *filter(None, copies))
        for name in packet.overloads()
    )
    names = {op: {a.name for a in schema_arguments(op)} for op in every}
    return [op for op in names if not op._schema.is_mutable and "reduce" not in names[op]]


@lowers_complex(*_overloads())
def structural(cx: Rule, *args: Any) -> Any:  # noqa: ANN401 - as the real rule
    """Operators that do to the imaginary parts what they do to the real ones."""
    lowering = registry.get(cx.node.target)
    if lowering is None:
        cx.decline(f"{cx.node.target} has no ONNX lowering")
    assert lowering.arguments is not None
    described = list(zip(args, lowering.arguments, strict=True))
    if any(a.name == "alpha" and arg != 1 for arg, a in described):
        cx.decline("a factor of complex numbers")
    parts = [
        [
            _filled_in(arg, which) if a.number and a.name != "alpha" else _part(cx, arg, which)
            for arg, a in described
        ]
        for which in (0, 1)
    ]
    returns_complex = cx.out.dtype in REAL
    with _in_reals(cx):
        re = lowering.rule(cx, *parts[0])
        if not returns_complex:
            return re
        im = lowering.rule(cx, *parts[1])
    if isinstance(re, Value):
        assert isinstance(im, Value)
        return Complex(re, im)
    assert not isinstance(im, Value)
    return [None if p is None or q is None else Complex(p, q) for p, q in zip(re, im, strict=True)]


@lowers_complex(
    aten.ones.default, aten.ones_like.default, aten.new_ones.default,
    aten.eye.default, aten.eye.m,
)  # fmt: skip
def of_reals(cx: Rule, *args: object) -> Value | Complex:
    """What is made of the real number 1."""
    lowering = registry.get(cx.node.target)
    assert lowering is not None
    returns_complex = cx.out.dtype in REAL
    with _in_reals(cx):
        re = lowering.rule(cx, *args)
        assert isinstance(re, Value)
        return Complex(re, cx.zeros(cx.out.dims, cx.out.dtype)) if returns_complex else re


def _filled_in(number: complex | sympy.Expr, which: int) -> float | sympy.Expr:
    """The part of a number that elements are given."""
    if isinstance(number, sympy.Expr):
        return 0 if which else number
    return complex(number).imag if which else complex(number).real


@contextmanager
def _in_reals(cx: Rule) -> Generator[None]:
    """Within, the node returns the parts of what it returns."""
    outs = cx.outs
    cx.outs = tuple(Meta(REAL.get(m.dtype, m.dtype), m.dims) for m in outs)
    try:
        yield
    finally:
        cx.outs = outs


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
        return cx.cast(self.re if isinstance(self, Complex) else self, cx.out.dtype)
    return _as_complex(cx, self)


# -------------------------------------------------------------------- arithmetic
@lowers_complex(aten.add.Tensor, aten.add.Scalar)
def add(cx: Rule, self: Number, other: Number, alpha: complex) -> Complex:
    """self [*A], other [*B] -> self + alpha * other [*broadcast]."""
    return _summed(cx, cx.op.Add, self, other, alpha)


@lowers_complex(aten.sub.Tensor, aten.sub.Scalar)
def sub(cx: Rule, self: Number, other: Number, alpha: complex) -> Complex:
    """self [*A], other [*B] -> self - alpha * other [*broadcast]."""
    return _summed(cx, cx.op.Sub, self, other, alpha)


@lowers_complex(aten.rsub.Tensor, aten.rsub.Scalar)
def rsub(cx: Rule, self: Number, other: Number, alpha: complex) -> Complex:
    """self [*A], other [*B] -> other - alpha * self [*broadcast]."""
    return _summed(cx, cx.op.Sub, other, self, alpha)


def _summed(
    cx: Rule, op: Callable[..., Value], self: Number, other: Number, alpha: complex
) -> Complex:
    a, b = _as_complex(cx, self), _as_complex(cx, other)
    if alpha != 1:
        b = _product(cx, b, _as_complex(cx, alpha))
    return Complex(op(a.re, b.re), op(a.im, b.im))


@lowers_complex(aten.mul.Tensor, aten.mul.Scalar)
def mul(cx: Rule, self: Number, other: Number) -> Complex:
    """self [*A], other [*B] -> the product [*broadcast]."""
    return _product(cx, _as_complex(cx, self), _as_complex(cx, other))


@lowers_complex(aten.div.Tensor, aten.div.Scalar)
def div(cx: Rule, self: Number, other: Number) -> Complex:
    """self [*A], other [*B] -> the quotient [*broadcast]."""
    return _quotient(cx, _as_complex(cx, self), _as_complex(cx, other))


@lowers_complex(aten.reciprocal.default)
def reciprocal(cx: Rule, self: Complex) -> Complex:
    """self [*A] -> 1 / self [*A]."""
    return _quotient(cx, _as_complex(cx, 1), self)


@lowers_complex(aten.pow.Tensor_Scalar)
def pow_scalar(cx: Rule, self: Complex, exponent: complex) -> Complex:
    """self [*A] -> its square, or its reciprocal; ATen takes logarithms for other exponents."""
    if exponent not in (2, -1):
        cx.decline(f"a complex number to the power of {exponent}")
    return _product(cx, self, self) if exponent == 2 else reciprocal(cx, self)


@lowers_complex(aten.abs.default)
def absolute(cx: Rule, self: Complex) -> Value:
    """self [*A] -> its distance from 0 [*A], real."""
    return hypot(cx, self.re, self.im)


@lowers_complex(aten.angle.default)
def angle(cx: Rule, self: Complex) -> Value:
    """self [*A] -> its angle in -pi..pi [*A], real."""
    return atan2(cx, self.im, self.re)


@lowers_complex(aten.sgn.default, aten.sign.default)
def sgn(cx: Rule, self: Complex) -> Complex:
    """self [*A] -> of the same angle, at a distance of 1 [*A]; 0 of 0."""
    with _in_reals(cx):
        size = hypot(cx, self.re, self.im)
    zero = cx.scalar(0, cx.dtype(size))
    at_zero = cx.op.Equal(size, zero)
    re, im = (cx.op.Where(at_zero, zero, cx.op.Div(part, size)) for part in (self.re, self.im))
    return Complex(re, im)


@lowers_complex(aten.exp.default)
def exp(cx: Rule, self: Complex) -> Complex:
    """self [*A] -> e ** self [*A]."""
    size = cx.op.Exp(self.re)
    return Complex(cx.op.Mul(size, cx.op.Cos(self.im)), cx.op.Mul(size, cx.op.Sin(self.im)))


@lowers_complex(aten.log.default)
def log(cx: Rule, self: Complex) -> Complex:
    """self [*A] -> its logarithm [*A], whose imaginary part is its angle."""
    with _in_reals(cx):
        return Complex(cx.op.Log(hypot(cx, self.re, self.im)), atan2(cx, self.im, self.re))


@lowers_complex(aten.isnan.default)
def isnan(cx: Rule, self: Complex) -> Value:
    """self [*A] -> bool [*A]: is one of the parts NaN?"""
    return cx.op.Or(cx.op.IsNaN(self.re), cx.op.IsNaN(self.im))


@lowers_complex(aten.eq.Tensor, aten.ne.Tensor)
def equal(cx: Rule, self: Value | Complex, other: Value | Complex) -> Value:
    """self [*A], other [*B] -> bool [*broadcast]."""
    dtype = REAL[torch.promote_types(*(m.dtype for m in _fakes(cx)))]
    a, b = (_as_complex(cx, v, dtype) for v in (self, other))
    same = cx.op.And(cx.op.Equal(a.re, b.re), cx.op.Equal(a.im, b.im))
    return same if cx.node.target is aten.eq.Tensor else cx.op.Not(same)


@lowers_complex(aten.mm.default, aten.bmm.default)
def matmul(cx: Rule, self: Complex, mat2: Complex) -> Complex:
    """self [..., M, K], mat2 [..., K, N] -> [..., M, N]."""
    return _matrix_product(cx, self, mat2)


@lowers_complex(aten.mv.default)
def mv(cx: Rule, self: Complex, vec: Complex) -> Complex:
    """self [M, K], vec [K] -> [M]."""
    return _matrix_product(cx, self, vec)


@lowers_complex(aten.dot.default)
def dot(cx: Rule, self: Complex, tensor: Complex) -> Complex:
    """self [K], tensor [K] -> []."""
    return _matrix_product(cx, self, tensor)


@lowers_complex(aten.vdot.default)
def vdot(cx: Rule, self: Complex, other: Complex) -> Complex:
    """self [K], other [K] -> [], of the conjugate of self."""
    return _matrix_product(cx, conj(cx, self), other)


@lowers_complex(aten.addmm.default)
def addmm(
    cx: Rule, self: Complex, mat1: Complex, mat2: Complex, beta: complex, alpha: complex
) -> Complex:
    """self [M, N], mat1 [M, K], mat2 [K, N] -> beta self + alpha mat1 mat2 [M, N]."""
    return _added(cx, self, _matrix_product(cx, mat1, mat2), beta, alpha)


@lowers_complex(aten.baddbmm.default)
def baddbmm(
    cx: Rule, self: Complex, batch1: Complex, batch2: Complex, beta: complex, alpha: complex
) -> Complex:
    """self [B, M, N], batch1 [B, M, K], batch2 [B, K, N] -> beta self + alpha batch1 batch2."""
    return _added(cx, self, _matrix_product(cx, batch1, batch2), beta, alpha)


def _added(cx: Rule, a: Complex, b: Complex, beta: complex, alpha: complex) -> Complex:
    """beta a + alpha b; what a holds does not matter where beta is 0."""
    scaled = _product(cx, _as_complex(cx, alpha), b)
    if beta == 0:
        return scaled
    rest = _product(cx, _as_complex(cx, beta), a)
    return Complex(cx.op.Add(rest.re, scaled.re), cx.op.Add(rest.im, scaled.im))


def _matrix_product(cx: Rule, self: Complex, mat2: Complex) -> Complex:
    """By four real products."""
    dims = cx.out.dims

    def times(a: Value, b: Value) -> Value:
        if a.rank > 1 and b.rank == 1:
            return by_vector(cx, a, b)
        out: Value = cx.op.MatMul(a, b)
        out.dims = dims
        return out

    re = cx.op.Sub(times(self.re, mat2.re), times(self.im, mat2.im))
    return Complex(re, cx.op.Add(times(self.re, mat2.im), times(self.im, mat2.re)))


def _product(cx: Rule, a: Complex, b: Complex) -> Complex:
    re = cx.op.Sub(cx.op.Mul(a.re, b.re), cx.op.Mul(a.im, b.im))
    return Complex(re, cx.op.Add(cx.op.Mul(a.re, b.im), cx.op.Mul(a.im, b.re)))


def _quotient(cx: Rule, a: Complex, b: Complex) -> Complex:
    """a / b, where squares do not overflow: in float64, or with b brought near 1."""
    dtype = cx.dtype(b.re)
    if dtype is torch.float64:
        high = cx.op.Max(cx.op.Abs(b.re), cx.op.Abs(b.im))
        a, b = (Complex(cx.op.Div(v.re, high), cx.op.Div(v.im, high)) for v in (a, b))
    wide_a, wide_b = (
        Complex(cx.cast(v.re, torch.float64), cx.cast(v.im, torch.float64)) for v in (a, b)
    )
    times = _product(cx, wide_a, Complex(wide_b.re, cx.op.Neg(wide_b.im)))
    square = cx.op.Add(cx.op.Mul(wide_b.re, wide_b.re), cx.op.Mul(wide_b.im, wide_b.im))
    re, im = (cx.cast(cx.op.Div(part, square), dtype) for part in (times.re, times.im))
    return Complex(re, im)


def _fakes(cx: Rule) -> list[torch.Tensor]:
    return [n.meta["val"] for n in cx.node.all_input_nodes]


def _as_complex(cx: Rule, number: Number, dtype: torch.dtype | None = None) -> Complex:
    """A tensor or a number in the node's dtype; what is real gets 0 as its imaginary part."""
    real = REAL[cx.out.dtype] if dtype is None else dtype
    if isinstance(number, Complex):
        return Complex(cx.cast(number.re, real), cx.cast(number.im, real))
    if isinstance(number, Value):
        return Complex(cx.cast(number, real), cx.zeros(number.known_dims, real))
    if isinstance(number, sympy.Expr):
        return Complex(cx.scalar(number, real), cx.scalar(0, real))
    plain = complex(number)
    return Complex(cx.scalar(plain.real, real), cx.scalar(plain.imag, real))
