"""Each pass: what it turns into one node, what it must leave alone, and eager's answer."""

from __future__ import annotations

import math

import pytest
import torch

from .harness import Case, check

X = torch.randn(2, 5, 16)
W = torch.rand(16) + 0.5


def gelu_gpt2(x: torch.Tensor) -> torch.Tensor:
    inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))
    return 0.5 * x * (1.0 + torch.tanh(inner))


def gelu_other_order(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * (x * (torch.tanh((0.044715 * (x * x * x) + x) * math.sqrt(2.0 / math.pi)) + 1.0))


def rms_llama(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return w * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def rms_other_order(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return (torch.rsqrt((x * x).mean(2, keepdim=True) + 1e-5) * x) * w


ONE_NODE = [
    Case("gelu as GPT-2 has it", gelu_gpt2, (X,)),
    Case("gelu in another order", gelu_other_order, (X,)),
    Case("gelu of symbolic shape", gelu_gpt2, (X,), dynamic=True),
    Case("rms norm as Llama has it", rms_llama, (X, W)),
    Case("rms norm in another order", rms_other_order, (X, W)),
    Case("rms norm of symbolic leading dims", rms_llama, (X, W)),
]


@pytest.mark.parametrize("case", ONE_NODE, ids=str)
def test_a_formula_becomes_one_node(case: Case) -> None:
    program = check(case)
    assert [n.op_type for n in program.model.graph] in (["Gelu"], ["RMSNormalization"])


LEFT_ALONE = [
    Case("rms norm of small float64", rms_llama, (X.double() * 1e-3, W.double())),
    Case(
        "another cubic factor",
        lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.05 * torch.pow(x, 3)))),
        (X,),
    ),
    Case(
        "another root",
        lambda x: 0.5 * x * (1 + torch.tanh(0.8 * (x + 0.044715 * torch.pow(x, 3)))),
        (X,),
    ),
    Case(
        "tanh of another tensor",
        lambda x, y: gelu_gpt2(x) / x * y,
        (X + 5, X),
    ),
    Case(
        "the mean over another dim",
        lambda x, w: w * (x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6)),
        (X, W),
    ),
    Case(
        "a weight that broadcasts otherwise",
        lambda x, w: w * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)),
        (X, torch.rand(5, 1)),
    ),
    Case(
        "the mean of the square of another tensor",
        lambda x, y, w: w * (x * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)),
        (X, X + 1, W),
    ),
]


@pytest.mark.parametrize("case", LEFT_ALONE, ids=str)
def test_what_only_looks_alike_stays(case: Case) -> None:
    program = check(case)
    ops = {n.op_type for n in program.model.graph}
    assert "RMSNormalization" not in ops
    assert "Gelu" not in ops or case.name == "tanh of another tensor"


def test_intermediate_results_that_are_read_elsewhere_stay() -> None:
    def fn(x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        root = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        return w * (x * root), root

    program = check(Case("a root that is returned too", fn, (X, W)))
    ops = [n.op_type for n in program.model.graph]
    assert "RMSNormalization" in ops
    assert "Reciprocal" in ops


def test_no_node_or_constant_is_left_without_a_reader() -> None:
    program = check(Case("gelu", gelu_gpt2, (X,)))
    assert len(program.model.graph.initializers) == 0
    assert program.node_count == 1
