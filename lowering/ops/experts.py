"""Products of groups of rows with a matrix each: what mixtures of experts compute.

Dims: S rows [S, K] sorted by group, E matrices [E, K, N], int [E] ends of the groups' rows.
"""

from __future__ import annotations

import torch

from ..registry import lowers, registry
from ..rule import Rule
from ..value import Value

aten = torch.ops.aten


def grouped_mm_fallback(cx: Rule, input: Value, weight: Value, offs: Value) -> Value:
    """input [S, K], weight [E, K, N], offs [E] -> [S, N]; rows past the last group are 0.

    transformers defines it for experts under torch.compile that are not bfloat16.
    Ref: https://github.com/huggingface/transformers/blob/main/src/transformers/integrations/moe.py
    """
    return _groups(cx, input, weight, offs)


registry.expect("transformers.grouped_mm_fallback.default", grouped_mm_fallback)


@lowers(aten._grouped_mm.default)
def grouped_mm(
    cx: Rule,
    self: Value,
    mat2: Value,
    offs: Value | None,
    bias: Value | None,
    out_dtype: torch.dtype | None,
) -> Value:
    """self [S, K], mat2 [E, K, N], offs [E] -> [S, N]; what rows past the last group hold is open.

    Ref: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.grouped_mm.html
    """
    if self.rank != 2 or mat2.rank != 3 or offs is None:
        cx.decline("groups along another dim than the rows of the left operand")
    if bias is not None or out_dtype not in (None, cx.dtype(self)):
        cx.decline("grouped products with a bias or of another dtype")
    return _groups(cx, self, mat2, offs)


def _groups(cx: Rule, rows: Value, matrices: Value, ends: Value) -> Value:
    """The rows are split at run time; a group without rows costs a kernel that returns at once."""
    (count,) = cx.static(matrices.known_dims[:1], "a number of groups known at run time only")
    if 0 in rows.known_dims or 0 in matrices.known_dims:
        return cx.zeros(cx.out.dims, cx.out.dtype)
    bounds: Value = cx.op.Concat(
        cx.ints([0]), cx.cast(ends, torch.int64), cx.ints(rows.known_dims[:1]), axis=0
    )
    bounds.dims = (count + 2,)
    sizes: Value = cx.op.Sub(cx.slice(bounds, 0, 1, count + 2), cx.slice(bounds, 0, 0, count + 1))
    *groups, _ = cx.op.Split(rows, sizes, axis=0, outputs=count + 1)
    products = [_product(cx, group, matrices, i) for i, group in enumerate(groups)]
    rest = cx.op.Concat(cx.slice(sizes, 0, count, count + 1), cx.ints(cx.out.dims[1:]), axis=0)
    nothing: Value = cx.op.Expand(cx.zeros((1, 1), cx.out.dtype), rest)
    return cx.op.Concat(*products, nothing, axis=0)


def _product(cx: Rule, group: Value, matrices: Value, index: int) -> Value:
    """group [S', K] @ matrices[index], which Gemm reads where it lies if it is transposed."""
    number = cx.const(index, torch.int64)
    view = matrices.view
    if view is not None and view[0] == "transpose" and view[2] == (0, 2, 1):
        return cx.op.Gemm(group, cx.op.Gather(view[1], number, axis=0), transB=1)
    return cx.op.MatMul(group, cx.op.Gather(matrices, number, axis=0))
