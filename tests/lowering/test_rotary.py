"""Rotary embeddings: what becomes one node, what must stay, and eager's answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import dynamo_onnx

from .harness import Case, check

# [B, S, H, D]: as a linear layer leaves them, before the transpose.
X = torch.randn(2, 5, 3, 8)
ANGLES = torch.rand(1, 5, 4) * 6
OWN_ANGLES = torch.rand(2, 5, 4) * 6


def turned(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), dim=-1)


def turned_by_chunks(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def factors(angles: Tensor) -> tuple[Tensor, Tensor]:
    both = torch.cat((angles, angles), dim=-1)
    return (both.cos() * 1.5).unsqueeze(1), (both.sin() * 1.5).unsqueeze(1)


def rotary_by(turn: Callable[[Tensor], Tensor], x: Tensor, angles: Tensor) -> Tensor:
    cos, sin = factors(angles)
    x = x.transpose(1, 2)
    return x * cos + turn(x) * sin


def rotary(x: Tensor, angles: Tensor) -> Tensor:
    return rotary_by(turned, x, angles)


def in_another_order(x: Tensor, angles: Tensor) -> Tensor:
    cos, sin = factors(angles)
    x = x.transpose(1, 2)
    return sin * turned(x) + cos * x


def partial(x: Tensor, angles: Tensor) -> Tensor:
    cos, sin = factors(angles)
    x = x.transpose(1, 2)
    rotated, passed = x[..., :8], x[..., 8:]
    return torch.cat((rotated * cos + turned(rotated) * sin, passed), dim=-1)


def before_attention(q: Tensor, k: Tensor, v: Tensor, angles: Tensor) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(
        rotary(q, angles), rotary(k, angles), v.transpose(1, 2)
    )


ONE_NODE = [
    Case("as Llama has it", rotary, (X, ANGLES)),
    Case("angles of each sequence", rotary, (X, OWN_ANGLES)),
    Case("of halves by chunk", lambda x, a: rotary_by(turned_by_chunks, x, a), (X, ANGLES)),
    Case("in another order", in_another_order, (X, ANGLES)),
    Case("one token", rotary, (X[:, :1], ANGLES[:, :1])),
    Case("without a transpose", lambda x, a: rotary(x.transpose(1, 2), a), (X, ANGLES[:, :3])),
    Case("of a part", partial, (torch.randn(2, 5, 3, 10), ANGLES)),
]


@pytest.mark.parametrize("case", ONE_NODE, ids=str)
def test_a_rotation_is_one_node(case: Case) -> None:
    ops = [n.op_type for n in check(case).model.graph]
    assert ops.count("RotaryEmbedding") == 1
    assert "Neg" not in ops


@pytest.mark.parametrize("angles", [ANGLES, OWN_ANGLES], ids=["of all", "of each"])
def test_batch_and_length_may_be_symbolic(angles: Tensor) -> None:
    compiled = torch.compile(rotary, backend="onnx", options={"strict": True})
    x = X.clone()
    for tensor, dims in ((x, (0, 1)), (angles, (0, 1) if len(angles) > 1 else 1)):
        torch._dynamo.mark_dynamic(tensor, dims)
    torch.testing.assert_close(compiled(x, angles), rotary(x, angles))
    (program,) = dynamo_onnx.programs(compiled)
    assert "RotaryEmbedding" in [n.op_type for n in program.program.model.graph]
    x, angles = torch.randn(4, 7, 3, 8), torch.rand(1 if len(angles) == 1 else 4, 7, 4)
    torch.testing.assert_close(compiled(x, angles), rotary(x, angles))


def test_nothing_is_transposed_between_projection_and_attention() -> None:
    k, v = torch.randn(2, 2, 5, 3, 8)
    program = check(Case("attention", before_attention, (X, k, v, ANGLES)))
    ops = [n.op_type for n in program.model.graph]
    assert ops.count("RotaryEmbedding") == 2
    assert "Transpose" not in ops


def with_factors(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return x * cos + turned(x) * sin


def interleaved(x: Tensor) -> Tensor:
    return torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)


def of_every_other(x: Tensor) -> Tensor:
    return torch.cat((-x[..., 1::2], x[..., ::2]), dim=-1)


def backwards(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return torch.cat((x[..., half:], -x[..., :half]), dim=-1)


def halves_as_they_are(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return torch.cat((-x[..., :half], x[..., half:]), dim=-1)


LEFT_ALONE = [
    Case("any factors", with_factors, (X, torch.rand(2, 1, 3, 8), torch.rand(2, 1, 3, 8))),
    Case("interleaved", lambda x, a: rotary_by(interleaved, x, a), (X, ANGLES)),
    Case("of every other element", lambda x, a: rotary_by(of_every_other, x, a), (X, ANGLES)),
    Case("the other way", lambda x, a: rotary_by(backwards, x, a), (X, ANGLES)),
    Case("of halves in place", lambda x, a: rotary_by(halves_as_they_are, x, a), (X, ANGLES)),
    Case("of another tensor", lambda x, a: rotary_by(lambda y: turned(y + 1), x, a), (X, ANGLES)),
    Case("of float64", rotary, (X.double(), ANGLES.double())),
    Case("of float16", rotary, (X.half(), ANGLES.half())),
]


@pytest.mark.parametrize("case", LEFT_ALONE, ids=str)
def test_what_only_looks_alike_stays(case: Case) -> None:
    assert "RotaryEmbedding" not in [n.op_type for n in check(case).model.graph]
