"""Sizes and floats that a graph computes or reads off its tensors, against eager."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.export import Dim

from dynamo_onnx.lowering.dims import dims_of
from dynamo_onnx.lowering.region import Region, whole
from dynamo_onnx.runtime.errors import ReasonKind

from .harness import Case, check, compare, lower, run, trace


def rand(*dims, seed=0):
    return torch.rand(*dims, generator=torch.Generator().manual_seed(seed))


def front(x, n):
    count = n.item()
    torch._check(count >= 0)
    torch._check(count <= x.shape[0])
    return x[:count] * 2


def experts(x, counts):
    """Each part of the rows times another number, as a mixture of experts takes its rows."""
    first, second = counts[0].item(), counts[1].item()
    torch._check(first >= 0)
    torch._check(second >= 0)
    parts = x.split([first, second])
    return torch.cat([part * (i + 1) for i, part in enumerate(parts)])


X = rand(7, 3)

CASES = [
    Case("a size read off an input", front, (X, torch.tensor(4)), dynamic=True),
    Case("a size read off an int32 that is computed", lambda x, n: front(x, n + 1),
         (X, torch.tensor([3], dtype=torch.int32)), dynamic=True),
    Case("parts of sizes that are computed", experts, (X, torch.tensor([5, 2])), dynamic=True),
    Case("a float read off a tensor", lambda x: x * x.sum().item(), (X,), dynamic=True),
    Case("a float read off a tensor, computed with", lambda x: x * (1 - x.sum().item() / 3),
         (X,), dynamic=True),
    Case("a ratio of sizes", lambda x: x * (x.shape[0] / x.shape[1]), (X,), dynamic=True),
    Case("powers and sums of sizes", lambda x: x * (x.shape[0] ** 0.5 + 1) - x.shape[1] / 3.0,
         (X,), dynamic=True),
    Case("the root of a size", lambda x: x * torch.sym_sqrt(x.shape[0]), (X,), dynamic=True),
    Case("the size of what is computed, as a float", lambda x: (torch.cat([x, x]) * 2)
         .masked_fill(torch.cat([x, x]) > 1, torch.cat([x, x]).shape[0] / 3), (X,), dynamic=True),
    Case("a size rounded", lambda x: x[: round(x.shape[0] * 0.7)] * 2, (X,), dynamic=True),
    Case("a size of a ratio of sizes", lambda x: x[: int(x.shape[0] / x.shape[1])] * 2,
         (X,), dynamic=True),
    Case("a size of a root", lambda x: x[: int(torch.sym_sqrt(x.shape[0]))] * 2, (X,),
         dynamic=True),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_numbers_at_run_time(case: Case) -> None:
    check(case)


def test_they_follow_the_run() -> None:
    lowered = lower(experts, X, torch.tensor([5, 2]), dynamic=True)
    assert lowered.program is not None
    for counts in ([5, 2], [3, 4], [7, 0], [0, 7]):
        args = (X, torch.tensor(counts))
        compare(run(lowered.program, args)[0], experts(*args))


def test_a_float_that_has_no_operator_is_declined() -> None:
    (reason,) = lower(lambda x: x * (x.shape[0] / 3 % 2.5), X, dynamic=True).reasons
    assert reason.kind is ReasonKind.SYMBOLIC


def test_the_whole_of_a_graph_takes_tensors_for_their_sizes() -> None:
    graph = trace(lambda x, y: x.new_ones(y.shape[0]) / x.shape[0], X, rand(4), dynamic=True).graph
    region = whole(graph)
    assert isinstance(region, Region)
    assert [n.op for n in region.inputs] == ["placeholder"] * 2
    assert len(region.outputs) == 1


class Convolution(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2, 3, 1, 1))

    def forward(self, x):
        return F.conv2d(x, self.weight)


def test_a_size_that_the_model_fixes_is_a_number() -> None:
    program = torch.export.export(
        Convolution(),
        (rand(2, 3, 4, 5),),
        dynamic_shapes=(dict.fromkeys(range(4), Dim.AUTO),),
        prefer_deferred_runtime_asserts_over_guards=True,
    )
    (x,) = [n for n in program.graph.find_nodes(op="placeholder") if n.name == "x"]
    assert isinstance(x.meta["val"].shape[1], torch.SymInt)
    assert dims_of(x.meta["val"].shape)[1] == 3
