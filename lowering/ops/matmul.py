"""Matrix products: mm, addmm, bmm and their kin. Dims: [M, K] x [K, N], batches are B.

ONNX Runtime has two families of kernels: Gemm (2-d, transposes, scales and adds a bias in one node)
and MatMul / com.microsoft FusedMatMul (n-d). Both prepack constant weights. Integers have only
MatMul, which wraps around as ATen does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import sympy
import torch

from ..dims import is_static, numel
from ..dtypes import opmath
from ..registry import lowers
from ..rule import Rule, Scalar
from ..value import Value
from . import quantized

aten = torch.ops.aten


@lowers(aten.mm.default)
def mm(cx: Rule, self: Value, mat2: Value) -> Value:
    """self [M, K], mat2 [K, N] -> [M, N].

    A transposed operand (`aten.t(weight)` of every linear layer) is read where it lies, by Gemm's
    transA/transB, so that ONNX Runtime packs the weight itself and no transposed copy is made.
    Ref: https://onnx.ai/onnx/operators/onnx__Gemm.html
    """
    if _empty(cx, self):
        return cx.zeros(cx.out.dims, cx.out.dtype)
    return quantized.product(cx, self, mat2) or _product(cx, self, quantized.foldable(cx, mat2))


@lowers(aten.addmm.default)
def addmm(cx: Rule, self: Value, mat1: Value, mat2: Value, beta: Scalar, alpha: Scalar) -> Value:
    """self [M, N] (or broadcast), mat1 [M, K], mat2 [K, N] -> beta*self + alpha*mat1@mat2.

    beta = 0 means that self is not read, NaN and inf in it included; Gemm without C says that.
    Gemm's alpha and beta are float32 attributes, so float64 scales outside.
    Ref: https://onnx.ai/onnx/operators/onnx__Gemm.html
    """
    dtype = cx.out.dtype
    fits = _fits_attribute(alpha, dtype) and _fits_attribute(beta, dtype)
    if not dtype.is_floating_point or not fits or _empty(cx, mat1):
        return _scaled_sum(cx, self, mm(cx, mat1, mat2), beta, alpha)
    plain = alpha == beta == 1 and self.dims == mat2.known_dims[1:]
    fused = self if plain else None
    product = quantized.product(cx, mat1, mat2, fused)
    if product is not None:
        return _scaled_sum(cx, self, product, beta if fused is None else 0, alpha)
    a, trans_a = _operand(cx, mat1)
    b, trans_b = _operand(cx, quantized.foldable(cx, mat2))
    return _gemm(cx, a, b, trans_a, trans_b, self if beta != 0 else None, float(alpha), float(beta))


@lowers(aten._addmm_activation.default)
def addmm_activation(
    cx: Rule, self: Value, mat1: Value, mat2: Value, beta: Scalar, alpha: Scalar, use_gelu: bool
) -> Value:
    """relu or gelu of addmm. The product is rounded to the dtype before, as ATen's kernel does."""
    product = addmm(cx, self, mat1, mat2, beta, alpha)
    return cx.op.Gelu(product) if use_gelu else cx.op.Relu(product)


@lowers(aten.bmm.default)
def bmm(cx: Rule, self: Value, mat2: Value) -> Value:
    """self [B, M, K], mat2 [B, K, N] -> [B, M, N]."""
    if _empty(cx, self):
        return cx.zeros(cx.out.dims, cx.out.dtype)
    return _batched(cx, self, mat2)


@lowers(aten.baddbmm.default)
def baddbmm(
    cx: Rule, self: Value, batch1: Value, batch2: Value, beta: Scalar, alpha: Scalar
) -> Value:
    """self [B, M, N] or what broadcasts to it -> beta*self + alpha*batch1@batch2.

    beta = 0 means that self is not read.
    """
    wide = opmath(cx.out.dtype)
    a, b = cx.cast(batch1, wide), cx.cast(batch2, wide)
    if wide is torch.float32 and _fits_attribute(alpha, wide) and not _empty(cx, batch1):
        product = _batched(cx, a, b, alpha=float(alpha))
        alpha = 1
    else:
        product = bmm(cx, a, b)
    return cx.cast(_scaled_sum(cx, self, product, beta, alpha), cx.out.dtype)


@lowers(aten.addbmm.default)
def addbmm(
    cx: Rule, self: Value, batch1: Value, batch2: Value, beta: Scalar, alpha: Scalar
) -> Value:
    """self [M, N], batch1 [B, M, K], batch2 [B, K, N] -> beta*self + alpha*sum of batch1@batch2.

    The sum over B is part of one product: [M, B*K] x [B*K, N].
    """
    if opmath(cx.out.dtype) is not cx.out.dtype:
        cx.decline("addbmm of 16-bit floats, which ATen rounds after every matrix of the batch")
    b, m, k = batch1.known_dims
    n = batch2.known_dims[2]
    left = cx.reshape(cx.transpose(batch1, (1, 0, 2)), (m, numel((b, k))))
    right = cx.reshape(batch2, (numel((b, k)), n))
    return addmm(cx, self, left, right, beta, alpha)


@lowers(aten.mv.default)
def mv(cx: Rule, self: Value, vec: Value) -> Value:
    """self [M, K], vec [K] -> [M]."""
    if _empty(cx, self):
        return cx.zeros(cx.out.dims, cx.out.dtype)
    return by_vector(cx, self, vec)


def by_vector(cx: Rule, matrix: Value, vector: Value) -> Value:
    """matrix [*, M, K], vector [K] -> [*, M], by a matrix of one column.

    onnxruntime (1.32) merges a Transpose into the MatMul behind it, and computes the product of
    that with a vector wrongly.
    """
    column = cx.unsqueeze(vector, 1)
    product = _product(cx, matrix, column) if matrix.rank == 2 else _matmul(cx, matrix, column)
    product.dims = (*matrix.known_dims[:-1], 1)
    return cx.reshape(product, matrix.known_dims[:-1])


@lowers(aten.addmv.default)
def addmv(cx: Rule, self: Value, mat: Value, vec: Value, beta: Scalar, alpha: Scalar) -> Value:
    """self [M] or [], mat [M, K], vec [K] -> beta*self + alpha*mat@vec; beta = 0 ignores self."""
    wide = opmath(cx.out.dtype)
    product = mv(cx, cx.cast(mat, wide), cx.cast(vec, wide))
    product.dims = cx.out.dims
    return cx.cast(_scaled_sum(cx, self, product, beta, alpha), cx.out.dtype)


@lowers(aten.addr.default)
def addr(cx: Rule, self: Value, vec1: Value, vec2: Value, beta: Scalar, alpha: Scalar) -> Value:
    """self [M, N] or what broadcasts to it, vec1 [M], vec2 [N] -> beta*self + alpha*vec1 vec2^T.

    ATen's kernel rounds 16-bit floats after each step, so the steps stay in their dtype.
    """
    out = cx.out.dtype
    if out is torch.bool:
        outer = cx.op.And(cx.unsqueeze(vec1, 1), cx.unsqueeze(vec2, 0))
        outer = outer if alpha else cx.zeros(cx.out.dims, out)
        return cx.op.Or(self, outer) if beta else cx.expand(outer, cx.out.dims)
    column, row = cx.unsqueeze(cx.cast(vec1, out), 1), cx.unsqueeze(cx.cast(vec2, out), 0)
    if alpha != 1:
        column = cx.op.Mul(column, cx.scalar(alpha, out))
    return _scaled_sum(cx, self, cx.op.Mul(column, row), beta, 1)


@lowers(aten.dot.default)
def dot(cx: Rule, self: Value, tensor: Value) -> Value:
    """self [K], tensor [K] -> []."""
    return cx.zeros((), cx.out.dtype) if _empty(cx, self) else cx.op.MatMul(self, tensor)


@lowers(aten.vdot.default)
def vdot(cx: Rule, self: Value, other: Value) -> Value:
    """self [K], other [K] -> []; the dot product, as only real dtypes reach ONNX."""
    return dot(cx, self, other)


@lowers(aten.matmul.default)
def matmul(cx: Rule, self: Value, other: Value) -> Value:
    """NumPy's matmul of any two ranks, where it arrives without decomposition."""
    if _empty(cx, self):
        return cx.zeros(cx.out.dims, cx.out.dtype)
    if self.rank > 1 and other.rank == 1:
        return by_vector(cx, self, other)
    if self.rank == 1:
        return cx.op.MatMul(self, other)
    return _matmul(cx, self, other)


@lowers(aten.linear.default)
def linear(cx: Rule, input: Value, weight: Value, bias: Value | None) -> Value:
    """input [*B, K], weight [N, K], bias [N] -> [*B, N], where it arrives without decomposition."""
    *lead, k = input.known_dims
    if weight.rank == 1 or not cx.out.dtype.is_floating_point or (is_static([k]) and k == 0):
        cx.decline("linear with a 1-d weight, integers or no features")
    flat = cx.reshape(input, (numel(lead), k))
    out = _gemm(cx, flat, weight, False, True, bias, 1.0, 1.0)
    out.dims = (numel(lead), weight.known_dims[0])
    return cx.reshape(out, cx.out.dims)


@lowers(aten._int_mm.default)
def int_mm(cx: Rule, self: Value, mat2: Value) -> Value:
    """self int8 or uint8 [M, K], mat2 int8 [K, N] -> int32 [M, N]."""
    if not quantized.has_integer_product(cx) or _empty(cx, self):
        return mm(cx, cx.cast(self, torch.int32), cx.cast(mat2, torch.int32))
    return quantized.integer_product(
        cx, quantized.whole_numbers(cx, self), quantized.whole_numbers(cx, mat2)
    )


def _empty(cx: Rule, first: Value) -> bool:
    """Is the dim that is summed over zero? The product is zeros then."""
    return first.known_dims[-1] == 0


def _fits_attribute(number: Scalar, dtype: torch.dtype) -> bool:
    """Can a float32 attribute hold this factor for a product of this dtype?"""
    if isinstance(number, sympy.Expr):
        return False
    return dtype is not torch.float64 or float(np.float32(number)) == number


def _gemm(
    cx: Rule, a: Value, b: Value, trans_a: bool, trans_b: bool, c: Value | None,
    alpha: float, beta: float,
) -> Value:  # fmt: skip
    """alpha * op(a) @ op(b) + beta * c, attributes at their defaults left out."""
    return cx.op.Gemm(
        a,
        b,
        c,
        transA=1 if trans_a else None,
        transB=1 if trans_b else None,
        alpha=alpha if alpha != 1 else None,
        beta=beta if beta != 1 and c is not None else None,
    )


def _product(cx: Rule, a: Value, b: Value) -> Value:
    """[M, K] x [K, N]."""
    left, trans_a = _operand(cx, a)
    right, trans_b = _operand(cx, b)
    if (trans_a or trans_b) and cx.dtype(a).is_floating_point:
        out = _gemm(cx, left, right, trans_a, trans_b, None, 1.0, 1.0)
    else:
        out = cx.op.MatMul(a, b)
    out.dims = (a.known_dims[0], b.known_dims[1])
    return out


def _batched(cx: Rule, a: Value, b: Value, alpha: float = 1.0) -> Value:
    """alpha * [B, M, K] x [B, K, N] of floats or integers; alpha only for float32."""
    out = _matmul(cx, a, b, alpha)
    out.dims = (*a.known_dims[:-1], b.known_dims[-1])
    return out


def _matmul(cx: Rule, a: Value, b: Value, alpha: float = 1.0) -> Value:
    """alpha * [*, M, K] x [*, K, N], transposed operands read where they lie."""
    floating = cx.dtype(a).is_floating_point
    left, trans_a = _operand(cx, a) if floating else (a, False)
    right, trans_b = _operand(cx, b) if floating else (b, False)
    if not (trans_a or trans_b or alpha != 1):
        return cx.op.MatMul(a, b)
    return cx.ms.FusedMatMul(
        left,
        right,
        transA=1 if trans_a else None,
        transB=1 if trans_b else None,
        alpha=alpha if alpha != 1 else None,
    )


def _operand(cx: Rule, value: Value) -> tuple[Value, bool]:
    """What to read of a matrix operand, and whether the kernel shall transpose it.

    A value that swaps the last two dims of another, directly or below a reshape of the batch
    dims, is read untransposed. So is one whose transposition moved the innermost dim by one: the
    rest of the permutation then copies whole rows.
    """
    if value.view is None or value.rank < 2:
        return value, False
    kind, source, perm = value.view
    if kind == "reshape":
        inner, swapped = _operand(cx, source) if source.rank > 2 else (source, False)
        if not swapped or source.known_dims[-2:] != value.known_dims[-2:]:
            return value, False
        *batch, m, k = value.known_dims
        return cx.reshape(inner, (*batch, k, m)), True
    if perm[-2] != len(perm) - 1:
        return value, False
    return cx.transpose(source, (*perm[:-2], perm[-1], perm[-2])), True


def _scaled_sum(cx: Rule, self: Value, product: Value, beta: Scalar, alpha: Scalar) -> Value:
    """beta * self + alpha * product [*out] in product's dtype; with beta = 0 self is not read."""
    dtype = cx.dtype(product)
    if alpha != 1:
        product = cx.op.Mul(product, cx.scalar(alpha, dtype))
    if beta == 0:
        return cx.expand(product, cx.out.dims)
    added = cx.cast(self, dtype)
    if beta != 1:
        added = cx.op.Mul(added, cx.scalar(beta, dtype))
    return cx.op.Add(product, added)


@lowers(aten._trilinear.default)
def trilinear(
    cx: Rule,
    i1: Value,
    i2: Value,
    i3: Value,
    expand1: Sequence[int],
    expand2: Sequence[int],
    expand3: Sequence[int],
    sumdim: Sequence[int],
    unroll_dim: int,
) -> Value:
    """Three factors, to each of which its `expand` dims are added, multiplied, summed over sumdim.

    Ref: https://onnx.ai/onnx/operators/onnx__Einsum.html
    """
    if cx.out.dtype in (torch.float16, torch.bfloat16):
        cx.decline(
            f"a product of three tensors in {cx.out.dtype}, each product of which is rounded"
        )
    rank = i1.rank + len(expand1)
    letters = "abcdefghijklmnop"[:rank]

    def kept(left_out: Sequence[int]) -> str:
        absent = [cx.axis(d, rank) for d in left_out]
        return "".join(letter for axis, letter in enumerate(letters) if axis not in absent)

    if 0 in (*i1.known_dims, *i2.known_dims, *i3.known_dims):
        return cx.zeros(cx.out.dims, cx.out.dtype)
    equation = f"{kept(expand1)},{kept(expand2)},{kept(expand3)}->{kept(sumdim)}"
    return cx.op.Einsum(i1, i2, i3, equation=equation)
