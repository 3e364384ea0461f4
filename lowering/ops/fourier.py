"""Fourier transforms, as products with the matrices of short transforms.

onnxruntime's DFT takes 20 to 60 times as long as eager where its size is no power of two, and loses
three digits or more in float32 there (1e-3 at 4097 points). So a transform of a composite size is
split into short ones (Cooley and Tukey), each a MatMul with a constant matrix. DFT, in float64, is
left to sizes known at run time and to large primes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch

from ..dims import Dim, simplify
from ..registry import lowers_complex
from ..rule import Rule
from ..value import Complex, Value

aten = torch.ops.aten

Matrix: TypeAlias = np.ndarray[Any, np.dtype[np.complex128]]

# A transform of at most DIRECT points is one product; a longer one splits off a factor of at most
# FACTOR points, unless it is a prime number of them; one of more than LARGEST_PRIME is for DFT.
DIRECT, FACTOR, LARGEST_PRIME = 64, 32, 256


@lowers_complex(aten._fft_c2c.default)
def fft_c2c(
    cx: Rule, self: Complex, dim: Sequence[int], normalization: int, forward: bool
) -> Complex:
    """self [*A] -> [*A], transformed along each of `dim`."""
    return _along(cx, self, dim, normalization, -1 if forward else 1)


@lowers_complex(aten._fft_r2c.default)
def fft_r2c(
    cx: Rule, self: Value, dim: Sequence[int], normalization: int, onesided: bool
) -> Complex:
    """self [*A] real -> [*A] complex; one-sided, N//2 + 1 numbers of the last of `dim` are left."""
    axis = cx.axis(dim[-1], self.rank)
    out = _along(cx, self, [axis], normalization, -1)
    if onesided:
        size = cx.out.dims[axis]
        re, im = (cx.slice(part, axis, 0, size) for part in (out.re, out.im))
        re.dims = im.dims = (*out.known_dims[:axis], size, *out.known_dims[axis + 1 :])
        out = Complex(re, im)
    return _along(cx, out, dim[:-1], normalization, -1)


@lowers_complex(aten._fft_c2r.default)
def fft_c2r(
    cx: Rule, self: Complex, dim: Sequence[int], normalization: int, last_dim_size: Dim
) -> Value:
    """self [*A], N//2 + 1 numbers in the last of `dim` -> [*A] real, N there.

    The numbers that are missing are the conjugates of those that are there, in reverse order.
    """
    z = _along(cx, self, dim[:-1], normalization, 1)
    axis = cx.axis(dim[-1], z.rank)
    given = z.known_dims[axis]
    if isinstance(last_dim_size, int) and given != last_dim_size // 2 + 1:
        cx.decline(f"{given} numbers for a real transform of {last_dim_size} points")
    re, im = (_mirrored(cx, part, axis, last_dim_size + 1 - given) for part in (z.re, z.im))
    re, im = _joined(cx, [z.re, re], axis), _joined(cx, [z.im, cx.op.Neg(im)], axis)
    return _along(cx, Complex(re, im), [axis], normalization, 1).re


def _mirrored(cx: Rule, part: Value, axis: int, end: Dim) -> Value:
    """The numbers from `end` - 1 down to 1 along an axis."""
    dims = part.known_dims
    out: Value = cx.op.Slice(part, cx.ints([end - 1]), cx.ints([0]), cx.ints([axis]), cx.ints([-1]))
    out.dims = (*dims[:axis], simplify(end - 1), *dims[axis + 1 :])
    return out


def _along(
    cx: Rule, z: Value | Complex, dim: Sequence[int], normalization: int, sign: int
) -> Complex:
    """Transformed along each of `dim`: exp(sign * 2 pi i j k / N), times what normalises it.

    normalization: 0 nothing, 1 by 1 / sqrt(N), 2 by 1 / N.
    Ref: aten/src/ATen/native/SpectralOpsUtils.h
    """
    parts = _Parts(z.re, z.im) if isinstance(z, Complex) else _Parts(z, None)
    for d in dim:
        rank = parts.re.rank
        order = [i for i in range(rank) if i != cx.axis(d, rank)]
        order.append(cx.axis(d, rank))
        inverse = [order.index(i) for i in range(rank)]
        last = parts.each(lambda part, order=order: cx.transpose(part, order))
        done = _transform(cx, last, sign, _POWER[normalization])
        parts = done.each(lambda part, inverse=inverse: cx.transpose(part, inverse))
    assert parts.im is not None
    return Complex(parts.re, parts.im)


_POWER = {0: 0.0, 1: -0.5, 2: -1.0}


@dataclass(frozen=True, slots=True)
class _Parts:
    """Real and imaginary parts [..., N]; no imaginary ones of what is real."""

    re: Value
    im: Value | None

    def each(self, do: Callable[[Value], Value]) -> _Parts:
        return _Parts(do(self.re), None if self.im is None else do(self.im))


def _transform(cx: Rule, z: _Parts, sign: int, power: float) -> _Parts:
    """z [..., N] -> [..., N], times N ** power."""
    *batch, n = z.re.known_dims
    a = _factor(n) if isinstance(n, int) else None
    if a is None or not isinstance(n, int):
        return _by_dft(cx, z, sign, power)
    if a == n:
        return _product(cx, z, -1, _matrix(n, n, n, sign, power))
    # N = A B: input j = B j1 + j2, output k = k1 + A k2
    b = n // a
    rows = z.each(lambda part: cx.reshape(part, (*batch, a, b)))
    rows = _product(cx, rows, -2, _matrix(a, a, a, sign, power))
    rows = _turned(cx, rows, _matrix(a, b, n, sign, 0.0))
    rows = _transform(cx, rows, sign, power)
    last = [*range(len(batch)), len(batch) + 1, len(batch)]
    return rows.each(lambda part: cx.reshape(cx.transpose(part, last), (*batch, n)))


def _factor(n: int) -> int | None:
    """The points of the transform to split off: all of them, some, or None for a large prime."""
    if n <= DIRECT:
        return n
    small = (f for f in range(FACTOR, 1, -1) if n % f == 0)
    prime = (f for f in range(FACTOR + 1, LARGEST_PRIME + 1) if n % f == 0)
    return next(small, None) or next(prime, None)


def _matrix(rows: int, columns: int, n: int, sign: int, power: float) -> Matrix:
    """[rows, columns] of exp(sign * 2 pi i j k / n), times rows ** power."""
    turns = np.outer(np.arange(rows), np.arange(columns)) % n
    return np.exp(sign * 2j * np.pi * turns / n) * rows**power


def _product(cx: Rule, z: _Parts, axis: int, matrix: Matrix) -> _Parts:
    """z times a symmetric matrix along an axis (-1 or -2): one product of reals.

    [re im] [[C S] [-S C]] = [re C - im S, re S + im C]
    """
    dims, dtype, rank = list(z.re.known_dims), cx.dtype(z.re), z.re.rank
    wide = np.concatenate([matrix.real, matrix.imag], 1)
    if z.im is not None:
        wide = np.concatenate([wide, np.concatenate([-matrix.imag, matrix.real], 1)])
    both = z.re if z.im is None else _joined(cx, [z.re, z.im], rank + axis)
    if axis == -1:
        out: Value = cx.op.MatMul(both, cx.const(wide, dtype))
    else:
        out = cx.op.MatMul(cx.const(wide.T, dtype), both)
    n = matrix.shape[0]
    dims[axis] = 2 * n
    out.dims = tuple(dims)
    re, im = (cx.slice(out, rank + axis, start, start + n) for start in (0, n))
    return _Parts(re, im)


def _turned(cx: Rule, z: _Parts, matrix: Matrix) -> _Parts:
    """z times a matrix, number by number."""
    assert z.im is not None
    cos, sin = (cx.const(part, cx.dtype(z.re)) for part in (matrix.real, matrix.imag))
    mul = cx.op.Mul
    return _Parts(
        cx.op.Sub(mul(z.re, cos), mul(z.im, sin)), cx.op.Add(mul(z.re, sin), mul(z.im, cos))
    )


def _by_dft(cx: Rule, z: _Parts, sign: int, power: float) -> _Parts:
    """z [..., N], N known at run time or with a large prime factor.

    The inverse transform is that of the parts exchanged, exchanged: onnxruntime's own divides by N
    in float32.
    Ref: https://onnx.ai/onnx/operators/onnx__DFT.html
    """
    dtype, dims = cx.dtype(z.re), z.re.known_dims
    re = cx.cast(z.re, torch.float64)
    im = cx.cast(z.im, torch.float64) if z.im is not None else cx.zeros(dims, torch.float64)
    pairs = cx.stack(Complex(re, im) if sign < 0 else Complex(im, re))
    made: Value = cx.op.DFT(pairs, None, cx.const(len(dims) - 1, torch.int64))
    made.dims = (*dims, 2)
    if power:
        n = cx.scalar(dims[-1], torch.float64)
        made = cx.op.Mul(made, cx.op.Pow(n, cx.scalar(power, torch.float64)))
    out = cx.unstack(cx.cast(made, dtype))
    return _Parts(out.re, out.im) if sign < 0 else _Parts(out.im, out.re)


def _joined(cx: Rule, parts: Sequence[Value], axis: int) -> Value:
    """Concatenated along an axis."""
    dims = parts[0].known_dims
    out: Value = cx.op.Concat(*parts, axis=axis)
    size = simplify(sum(part.known_dims[axis] for part in parts))
    out.dims = (*dims[:axis], size, *dims[axis + 1 :])
    return out
