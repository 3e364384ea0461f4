"""Operators that torch keeps whole, for speed or for their errors, in terms of others."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .gradients import GRADIENTS
from .torch_private import OpOverload

aten = torch.ops.aten

OF_KEYS = 1  # a mask [B, S]; others broadcast to [B, H, L, S] as they are


def encoder_layer(
    src: Tensor,
    embed_dim: int,
    num_heads: int,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    use_gelu: bool,
    norm_first: bool,
    eps: float,
    norm_weight_1: Tensor,
    norm_bias_1: Tensor,
    norm_weight_2: Tensor,
    norm_bias_2: Tensor,
    ffn_weight_1: Tensor,
    ffn_bias_1: Tensor,
    ffn_weight_2: Tensor,
    ffn_bias_2: Tensor,
    mask: Tensor | None = None,
    mask_type: int | None = None,
) -> Tensor:
    """src [B, L, E] -> [B, L, E]: attention and a feed-forward network, each added to its input.

    `nn.TransformerEncoderLayer` calls it in inference.
    Ref: aten/src/ATen/native/transformers/transformer.cpp
    """

    def norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional.layer_norm(x, [embed_dim], weight, bias, eps)

    x = norm(src, norm_weight_1, norm_bias_1) if norm_first else src
    qkv = functional.linear(x, qkv_weight, qkv_bias)
    attended = _attention(qkv, num_heads, mask, mask_type)
    x = src + functional.linear(attended, proj_weight, proj_bias)
    x = x if norm_first else norm(x, norm_weight_1, norm_bias_1)
    inner = norm(x, norm_weight_2, norm_bias_2) if norm_first else x
    inner = functional.linear(inner, ffn_weight_1, ffn_bias_1)
    inner = functional.gelu(inner) if use_gelu else functional.relu(inner)
    x = x + functional.linear(inner, ffn_weight_2, ffn_bias_2)
    return x if norm_first else norm(x, norm_weight_2, norm_bias_2)


def _attention(qkv: Tensor, heads: int, mask: Tensor | None, mask_type: int | None) -> Tensor:
    """Queries, keys and values [B, L, 3 * E] -> [B, L, E].

    Whatever is not zero in a mask leaves out. A row that is left out whole is NaN, where
    `scaled_dot_product_attention` gives zeros.
    """
    q, k, v = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in qkv.chunk(3, -1))
    if mask is None:
        attended = functional.scaled_dot_product_attention(q, k, v)
    else:
        scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(2, 3)
        left_out = mask.bool()[:, None, None, :] if mask_type == OF_KEYS else mask.bool()
        attended = scores.masked_fill(left_out, -math.inf).softmax(-1) @ v
    return attended.transpose(1, 2).flatten(2)


def cholesky(self: Tensor, upper: bool = False) -> Tensor:
    """self [*B, N, N] -> its factor [*B, N, N]; its error comes from the check behind it."""
    factor, info = torch.linalg.cholesky_ex(self, upper=upper)
    aten._linalg_check_errors(info, "cholesky", is_matrix=self.dim() == 2)
    return factor


DECOMPOSITIONS: Mapping[OpOverload, Callable[..., Any]] = {
    aten._transformer_encoder_layer_fwd.default: encoder_layer,
    aten.cholesky.default: cholesky,
    **GRADIENTS,
}
