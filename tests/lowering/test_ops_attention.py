"""Attention rules against eager."""

from __future__ import annotations

import math

import pytest
import torch

from dynamo_onnx.runtime.errors import ReasonKind

from .harness import Case, check, lower

aten = torch.ops.aten
flash = aten._scaled_dot_product_flash_attention_for_cpu.default
LOWEST = torch.finfo(torch.float32).min


def heads(*dims, dtype=torch.float32, seed=0):
    return torch.randn(*dims, generator=torch.Generator().manual_seed(seed)).to(dtype)


B, H, S, T, D = 2, 3, 5, 7, 8
Q, K, V = heads(B, H, S, D), heads(B, H, T, D, seed=1), heads(B, H, T, D, seed=2)
KEEP = heads(B, 1, S, T, seed=4) > -0.5
KEEP[0, 0, 1] = False
BIAS = heads(B, H, S, T, seed=5)
MIXED = BIAS.clone()
MIXED[:, :, 0] = LOWEST
MIXED[:, :, 1] = -math.inf
MIXED[:, :, 2, :3] = LOWEST
MIXED[:, :, 3, 2:] = -math.inf
MIXED[:, :, 4, :3] = LOWEST
MIXED[:, :, 4, 3:] = -math.inf


def attend(q, k, v):
    return flash(q, k, v)[0]


def masked(q, k, v, mask):
    return flash(q, k, v, attn_mask=mask)[0]


def causal(q, k, v):
    return flash(q, k, v, is_causal=True)[0]


def from_bools(q, k, v, keep):
    mask = torch.where(keep, torch.scalar_tensor(0.0), torch.scalar_tensor(-math.inf))
    return flash(q, k, v, attn_mask=mask)[0]


def grouped(q, k, v):
    repeat = [x[:, :, None].expand(B, H, 4, T, D).reshape(B, 4 * H, T, D) for x in (k, v)]
    return flash(q, *repeat)[0]


def split_heads(x, size=D):
    return x.reshape(*x.shape[:2], -1, size).transpose(1, 2)


def whole_layer(q, k, v):
    out = flash(split_heads(q), split_heads(k), split_heads(v), is_causal=True)[0]
    return out.transpose(1, 2).reshape(q.shape)


def whole_masked_layer(q, k, v, mask):
    out = flash(split_heads(q), split_heads(k), split_heads(v), attn_mask=mask)[0]
    return out.transpose(1, 2).reshape(q.shape)


def grouped_layer(q, k, v):
    q, k, v = split_heads(q), split_heads(k), split_heads(v)
    k, v = (x.repeat_interleave(4, dim=1) for x in (k, v))
    return flash(q, k, v)[0].transpose(1, 2).reshape(B, S, -1)


FLAT_Q, FLAT_K, FLAT_V = (heads(B, n, H * D, seed=seed) for n, seed in ((S, 6), (T, 7), (T, 8)))

MASKS = {
    "[1, 1, S, T]": BIAS[:1, :1], "[B, 1, S, T]": BIAS[:, :1], "[B, H, S, T]": BIAS,
    "[1, H, S, T]": BIAS[:1], "[S, T]": BIAS[0, 0], "[B, 1, 1, T]": BIAS[:, :1, :1],
    "[B, 1, S, 1]": BIAS[:, :1, :, :1], "[1, T]": BIAS[0, 0, :1],
}  # fmt: skip

BEFORE_ATTENTION = [
    ("no mask", attend, (Q, K, V)),
    ("causal", causal, (Q, K, V)),
    ("a row of the lowest float, a row of -inf", masked, (Q, K, V, MIXED)),
    ("a mask made from bools", from_bools, (Q, K, V, KEEP)),
    ("keys and values repeated for groups", grouped, (heads(B, 4 * H, S, D), K, V)),
    ("a negative scale", lambda q, k, v: flash(q, k, v, scale=-1.0)[0], (Q, K, V)),
    *((f"{dtype}", masked, tuple(x.to(dtype) for x in (Q, K, V, BIAS)))
      for dtype in (torch.float16, torch.bfloat16)),
]  # fmt: skip

CASES = [
    Case("attention without a mask is one node", attend, (Q, K, V), max_nodes=1),
    Case("attention with symbolic dims", attend, (Q, K, V), dynamic=True),
    Case("a scale of one's own", lambda q, k, v: flash(q, k, v, scale=0.3)[0], (Q, K, V)),
    Case("a negative scale", lambda q, k, v: flash(q, k, v, scale=-0.3)[0], (Q, K, V)),
    Case("a scale of zero", lambda q, k, v: flash(q, k, v, scale=0.0)[0], (Q, K, V)),
    Case("causal", causal, (Q, Q, Q), max_nodes=1),
    Case("causal with fewer queries is aligned to the top left",
         causal, (Q, K, V)),
    Case("causal with more queries", causal, (K, Q, Q)),
    Case("causal with one query", causal, (Q[:, :, :1], K, V)),
    Case("causal with symbolic dims", causal, (Q, K, V),
         dynamic=True),
    Case("a row of the lowest float is an average, a row of -inf is zero",
         masked, (Q, K, V, MIXED)),
    Case("a mask made from bools is passed as bools", from_bools, (Q, K, V, KEEP), max_nodes=1),
    Case("a mask made from bools with symbolic dims", from_bools, (Q, K, V, KEEP), dynamic=True),
    Case("a mask made by masked_fill",
         lambda q, k, v, m: masked(q, k, v, q.new_zeros(B, 1, S, T).masked_fill(m, -math.inf)),
         (Q, K, V, ~KEEP)),
    Case("a mask made from bools and broadcast over the queries", from_bools,
         (Q, K, V, KEEP[:, :, 2:3])),
    Case("the mask of T5: a bias, or the lowest float",
         lambda q, k, v, b, m: masked(q, k, v, torch.where(m, b, LOWEST)), (Q, K, V, BIAS, KEEP)),
    Case("keys and values repeated for groups of queries are not repeated", grouped,
         (heads(B, 4 * H, S, D), K, V), max_nodes=1),
    Case("heads split from a projection and merged again are not transposed", whole_layer,
         (FLAT_Q, FLAT_K, FLAT_V), max_nodes=1),
    Case("heads split from a projection, with symbolic dims", whole_layer,
         (FLAT_Q, FLAT_K, FLAT_V), dynamic=True),
    Case("heads split from a projection, with a mask", whole_masked_layer,
         (FLAT_Q, FLAT_K, FLAT_V, MIXED)),
    Case("heads split from a projection, one query", whole_layer,
         (FLAT_Q[:, :1], FLAT_K, FLAT_V), max_nodes=1),
    Case("heads split from a projection, bfloat16", whole_masked_layer,
         (FLAT_Q.bfloat16(), FLAT_K.bfloat16(), FLAT_V.bfloat16(), BIAS.bfloat16())),
    Case("heads split from a projection and repeated for groups of queries", grouped_layer,
         (heads(B, S, 4 * H * D), FLAT_K, FLAT_V), max_nodes=1),
    Case("heads split from a projection, not merged again",
         lambda q, k, v: attend(split_heads(q), split_heads(k), split_heads(v)),
         (FLAT_Q, FLAT_K, FLAT_V)),
    Case("heads split from a projection, a negative scale", lambda q, k, v: flash(
        split_heads(q), split_heads(k), split_heads(v), scale=-1.0)[0], (FLAT_Q, FLAT_K, FLAT_V)),
    Case("float64 with a mask", masked, tuple(x.double() for x in (Q, K, V, MIXED))),
    Case("float64, causal", causal,
         tuple(x.double() for x in (Q, K, V))),
    Case("float64 from bools", lambda q, k, v, m: masked(q, k, v, torch.where(m, 0.0, -math.inf)
         .double()), (Q.double(), K.double(), V.double(), KEEP)),
    Case("float64 with symbolic dims", lambda q, k, v, m: flash(q, k, v, 0.0, True, attn_mask=m)[0],
         tuple(x.double() for x in (Q, K, V, BIAS)), dynamic=True),
    *(Case(f"a mask {name}", masked, (Q, K, V, mask)) for name, mask in MASKS.items()),
    *(Case(f"a mask {name} with symbolic dims", masked, (Q, K, V, mask), dynamic=True)
      for name, mask in MASKS.items()),
    *(Case(f"{name}, at an opset without Attention", fn, args, opsets=(21, 21))
      for name, fn, args in BEFORE_ATTENTION),
    *(Case(f"{dtype} without a mask", attend, tuple(x.to(dtype) for x in (Q, K, V)))
      for dtype in (torch.float16, torch.bfloat16)),
    *(Case(f"{dtype} with a mask", masked, tuple(x.to(dtype) for x in (Q, K, V, BIAS)))
      for dtype in (torch.float16, torch.bfloat16)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_attention(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_row_of_the_lowest_number_is_an_average_in_16_bits(dtype: torch.dtype) -> None:
    mask = torch.zeros(1, 1, S, T, dtype=dtype)
    mask[..., 1, :] = torch.finfo(dtype).min
    mask[..., 2, :] = -math.inf
    check(Case("", masked, (*(x.to(dtype) for x in (Q, K, V)), mask)))


def test_the_bools_of_a_mask_reach_the_node_and_the_floats_are_gone() -> None:
    program = check(Case("", from_bools, (Q, K, V, KEEP)))
    assert [n.op_type for n in program.model.graph] == ["Attention"]


def reason(fn, *args) -> str:
    lowering = lower(fn, *args)
    assert lowering.program is None
    (why,) = lowering.reasons
    assert why.kind is ReasonKind.SEMANTICS
    return why.detail


def test_dropout_stays_eager() -> None:
    assert "dropout" in reason(lambda q, k, v: flash(q, k, v, 0.5)[0], Q, K, V)


def test_attention_whose_log_sum_exp_is_used_stays_eager() -> None:
    assert "log-sum-exp" in reason(lambda q, k, v: flash(q, k, v)[1], Q, K, V)


def test_attention_over_no_keys_stays_eager() -> None:
    assert "size 0" in reason(attend, Q, K[:, :, :0], V[:, :, :0])
