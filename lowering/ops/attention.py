"""Scaled dot-product attention: every fused overload of ATen is ONNX's Attention."""

from __future__ import annotations

import math

import onnx_ir as ir
import sympy
import torch

from ..dims import is_static
from ..registry import lowers
from ..rule import Rule
from ..value import Value
from ._rotary import packed_heads
from .normalization import used

aten = torch.ops.aten


@lowers(aten._scaled_dot_product_flash_attention_for_cpu.default)
def attention_for_cpu(
    cx: Rule,
    query: Value,
    key: Value,
    value: Value,
    dropout_p: float,
    is_causal: bool,
    attn_mask: Value | None,
    scale: float | None,
) -> tuple[Value, None]:
    """query [B, H, S, D], key [B, G, T, D], value [B, G, T, E] -> [B, H, S, E]; G divides H.

    The mask [B|1, H|1, S|1, T|1] or [S|1, T|1] is added to the scores, or says with bools which to
    keep. A row that is -inf (or False) throughout gives zeros, in both; the logarithms that the
    backward pass reads are not offered. A row of NaN scores gives zeros in ATen, NaN in ONNX.
    Ref: https://onnx.ai/onnx/operators/onnx__Attention.html
    """
    return attend(cx, query, key, value, attn_mask, dropout_p, is_causal, scale), None


@lowers(aten._scaled_dot_product_flash_attention.default)
def flash_attention(
    cx: Rule,
    query: Value,
    key: Value,
    value: Value,
    dropout_p: float,
    is_causal: bool,
    return_debug_mask: bool,
    scale: float | None,
) -> tuple[Value | None, ...]:
    """As `_scaled_dot_product_flash_attention_for_cpu`, without mask; the first of nine outputs."""
    return attend(cx, query, key, value, None, dropout_p, is_causal, scale), *(None,) * 8


@lowers(aten._scaled_dot_product_efficient_attention.default)
def efficient_attention(
    cx: Rule,
    query: Value,
    key: Value,
    value: Value,
    attn_bias: Value | None,
    compute_log_sumexp: bool,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
) -> tuple[Value | None, ...]:
    """As `_scaled_dot_product_flash_attention_for_cpu`; of four outputs the first."""
    return attend(cx, query, key, value, attn_bias, dropout_p, is_causal, scale), *(None,) * 3


@lowers(aten._scaled_dot_product_cudnn_attention.default)
def cudnn_attention(
    cx: Rule,
    query: Value,
    key: Value,
    value: Value,
    attn_bias: Value | None,
    compute_log_sumexp: bool,
    dropout_p: float,
    is_causal: bool,
    return_debug_mask: bool,
    scale: float | None,
) -> tuple[Value | None, ...]:
    """As `_scaled_dot_product_flash_attention_for_cpu`; of nine outputs the first."""
    return attend(cx, query, key, value, attn_bias, dropout_p, is_causal, scale), *(None,) * 8


@lowers(aten._scaled_dot_product_fused_attention_overrideable.default)
def overrideable_attention(
    cx: Rule,
    query: Value,
    key: Value,
    value: Value,
    attn_bias: Value | None,
    dropout_p: float,
    is_causal: bool,
    return_debug_mask: bool,
    scale: float | None,
) -> tuple[Value | None, ...]:
    """As `_scaled_dot_product_flash_attention_for_cpu`; of nine outputs the first."""
    return attend(cx, query, key, value, attn_bias, dropout_p, is_causal, scale), *(None,) * 8


# -------------------------------------------------------------------- helpers
def attend(
    cx: Rule,
    query: Value,
    key: Value,
    value: Value,
    mask: Value | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
) -> Value:
    """softmax(query · keyᵀ * scale + mask) · value; causal masks are aligned to the top left."""
    if dropout_p:
        cx.decline(f"attention with dropout {dropout_p} draws from torch's generator")
    if used(cx, *range(1, 9)):
        cx.decline("attention whose log-sum-exp (for its backward pass) is used")
    dims = (*query.known_dims, *key.known_dims[-2:], value.known_dims[-1])
    if any(d == 0 for d in dims):
        cx.decline("attention over a dimension of size 0")
    if isinstance(scale, sympy.Expr):
        cx.decline(f"attention whose scale is the size {scale}")
    if mask is not None:
        mask = _selection(cx, mask)
        rows = (query.known_dims[-2], key.known_dims[-2])
        # ONNX Runtime broadcasts a mask over batch and heads only.
        mask = cx.expand(mask, (*mask.known_dims[:-2], *rows))
    if cx.out.dtype is torch.float64:
        return _composed(cx, query, key, value, mask, is_causal, scale)
    if not cx.has_kernel("Attention", T1=torch.float32, T2=torch.float32):
        q, k, v = (cx.cast(x, torch.float32) for x in (query, key, value))
        if mask is not None and mask.elem != ir.DataType.BOOL:
            mask = cx.cast(mask, torch.float32)
        return cx.cast(_composed(cx, q, k, v, mask, is_causal, scale), cx.out.dtype)
    key, value = _ungrouped(cx, key, value)
    if mask is not None and mask.elem != ir.DataType.BOOL:
        mask = _above_lowest(cx, cx.cast(mask, torch.float32))
    causal = 1 if is_causal else None
    # It gives back what it was given; packed is up to a third faster at 128 tokens on the CPU.
    packed = [packed_heads(cx, x) for x in (query, key, value)]
    if _positive(query, scale) and all(x is not None for x in packed):
        # The kernel for float16 adds the mask and takes the softmax in float16, eager in float32.
        q, k, v = (cx.cast(x, torch.float32) for x in packed if x is not None)
        batch, heads, length, size = cx.out.dims
        y = cx.op.Attention(
            q, k, v, mask, is_causal=causal, scale=_scaled(cx, query, scale)[1],
            q_num_heads=heads, kv_num_heads=key.known_dims[1],
        )  # fmt: skip
        y.dims = (batch, length, heads * size)
        split = cx.reshape(cx.cast(y, cx.out.dtype), (batch, length, heads, size))
        return cx.transpose(split, (0, 2, 1, 3))
    q, k, v = (cx.cast(x, torch.float32) for x in (query, key, value))
    q, factor = _scaled(cx, q, scale)
    y = cx.op.Attention(q, k, v, mask, is_causal=causal, scale=factor)
    return cx.cast(y, cx.out.dtype)


def _positive(query: Value, scale: float | None) -> bool:
    """Can the scale be an attribute of the node?"""
    return isinstance(query.known_dims[-1], int) if scale is None else scale > 0


def _scaled(cx: Rule, query: Value, scale: float | None) -> tuple[Value, float]:
    """Query and the scale that is left for the node, which takes a positive number only."""
    size = query.known_dims[-1]
    if scale is None and isinstance(size, int):
        return query, 1 / math.sqrt(size)
    if scale is None:
        return cx.op.Div(query, cx.op.Sqrt(cx.scalar(size, cx.dtype(query)))), 1.0
    if scale <= 0:
        return cx.op.Mul(query, cx.scalar(scale, cx.dtype(query))), 1.0
    return query, float(scale)


def _selection(cx: Rule, mask: Value) -> Value:
    """`where(keep, 0, -inf)` as `keep`: SDPA makes the first from the user's bools."""
    source = mask
    while (node := source.producer()) is not None and node.op_type in ("Cast", "Expand", "Where"):
        inputs = [v for v in node.inputs if isinstance(v, Value)]
        if node.op_type == "Where":
            kept, dropped = cx.number(inputs[1]), cx.number(inputs[2])
            if (kept, dropped) == (0, -math.inf):
                return inputs[0]
            if (kept, dropped) == (-math.inf, 0):
                keep: Value = cx.op.Not(inputs[0])
                return keep
            return mask
        source = inputs[0]
    return mask


def _above_lowest(cx: Rule, mask: Value) -> Value:
    """The lowest finite float32 made a little greater.

    ONNX Runtime takes a row of it for a row without any key, which gives zeros; ATen gives the
    mean of the values then, and zeros for -inf only.
    """
    lowest = cx.scalar(torch.finfo(torch.float32).min, torch.float32)
    out: Value = cx.op.Where(cx.op.Equal(mask, lowest), cx.scalar(-3.0e38, torch.float32), mask)
    return out


def _ungrouped(cx: Rule, key: Value, value: Value) -> tuple[Value, Value]:
    """Key and value before each head of them was repeated for a group of queries.

    ONNX's Attention repeats by itself. The repetition is
    [B, G, T, D] -> [B, G, 1, T, D] -> expand [B, G, R, T, D] -> reshape [B, G*R, T, D].
    """
    sources = [_before_repetition(cx, v) for v in (key, value)]
    if sources[0] is None or sources[1] is None:
        return key, value
    if sources[0].known_dims[1] != sources[1].known_dims[1]:
        return key, value
    return sources[0], sources[1]


def _before_repetition(cx: Rule, x: Value) -> Value | None:
    if x.view is None or x.view[0] != "reshape":
        return None
    node = x.view[1].producer()
    if node is None or node.op_type != "Expand":
        return None
    inner, wide = node.inputs[0], x.view[1].dims
    assert isinstance(inner, Value)
    if wide is None or inner.dims is None or len(wide) != 5 or len(inner.dims) != 5:
        return None
    batch, heads, repeats, length, size = wide
    if not is_static((heads, repeats)) or inner.dims != (batch, heads, 1, length, size):
        return None
    if x.known_dims != (batch, heads * repeats, length, size):
        return None
    return cx.reshape(inner, (batch, heads, length, size))


def _composed(
    cx: Rule,
    query: Value,
    key: Value,
    value: Value,
    mask: Value | None,
    is_causal: bool,
    scale: float | None,
) -> Value:
    """The same where Attention has no kernel: in float64, and before opset 23."""
    dtype = cx.dtype(query)
    if query.known_dims[1] != key.known_dims[1]:
        cx.decline("composed attention with fewer heads of keys than of queries")
    rows, columns = query.known_dims[-2], key.known_dims[-2]
    query, factor = _scaled(cx, query, scale)
    scores = cx.op.MatMul(query, cx.transpose(key, (0, 1, 3, 2)))
    scores = cx.op.Mul(scores, cx.scalar(factor, dtype))
    if is_causal:
        ones = cx.expand(cx.const(True, torch.bool), (rows, columns))
        lower = cx.op.Trilu(ones, upper=0)
        scores = cx.op.Where(lower, scores, cx.scalar(-math.inf, dtype))
    if mask is None:
        return cx.op.MatMul(cx.op.Softmax(scores, axis=-1), value)
    if mask.elem == ir.DataType.BOOL:
        scores = cx.op.Where(mask, scores, cx.scalar(-math.inf, dtype))
    else:
        scores = cx.op.Add(scores, mask)
    nothing = cx.op.Equal(cx.op.ReduceMax(scores, cx.ints([-1])), cx.scalar(-math.inf, dtype))
    weights = cx.op.Where(nothing, cx.scalar(0, dtype), cx.op.Softmax(scores, axis=-1))
    out: Value = cx.op.MatMul(weights, value)
    return out
