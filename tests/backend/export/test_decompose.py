"""Decomposition for exports: operator by operator where that is enough, else as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

import dynamo_onnx
from dynamo_onnx.backend.export import decompose


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The operators that were traced alone."""
    made: list[object] = []
    trace = decompose._Expansion._trace

    def counted(self: Any, node: torch.fx.Node, *rest: Any) -> torch.fx.Graph:
        made.append(node.target)
        return trace(self, node, *rest)

    monkeypatch.setattr(decompose._Expansion, "_trace", counted)
    return made


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The programs that were traced anew."""
    made: list[object] = []
    trace = torch.export.ExportedProgram.run_decompositions

    def counted(self: torch.export.ExportedProgram, *args: Any) -> torch.export.ExportedProgram:
        made.append(self)
        return trace(self, *args)

    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", counted)
    return made


def _exports(f: Callable[..., Any], *args: Tensor, shapes: Any = None) -> Any:
    return dynamo_onnx.export(f, args, dynamic_shapes=shapes, verify=True)


def test_equal_layers_are_traced_once(traces, whole):
    layers = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)) for _ in range(6)))
    _exports(layers, torch.randn(3, 8))
    assert Counter(map(str, traces)) == {"aten.linear.default": 1, "aten.layer_norm.default": 1}
    assert not whole


def test_an_operand_that_is_given_twice_is_another_kind_than_two(traces, whole):
    class Both(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            same = torch.logical_and(x, x) & torch.matmul(x, x).bool()
            return same, torch.matmul(x, y), torch.matmul(y, x)

    _exports(Both(), torch.randn(4, 4), torch.randn(4, 4))
    assert traces.count(torch.ops.aten.matmul.default) == 2
    assert not whole


def test_results_of_one_trace_stay_apart_when_both_are_operands(whole):
    def f(x: Tensor, y: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        a, b = nn.functional.linear(x, w), nn.functional.linear(y, w)
        return torch.matmul(a, b), torch.matmul(a, a)

    _exports(f, torch.randn(4, 4), torch.randn(4, 4), torch.randn(4, 4))
    assert not whole


def test_a_dynamic_size_is_part_of_the_kind(traces, whole):
    def f(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return nn.functional.layer_norm(x, (4,)), nn.functional.layer_norm(y, (4,))

    batch = {0: Dim("batch", min=2)}
    _exports(f, torch.randn(3, 4), torch.randn(3, 4), shapes=(batch, batch))
    assert len(traces) == 1
    _exports(f, torch.randn(3, 4), torch.randn(5, 4), shapes=({0: Dim("a")}, {0: Dim("b")}))
    assert len(traces) == 3
    assert not whole


def _to_a_result(x: Tensor, y: Tensor) -> Tensor:
    return torch.mm(x, y).add_(y)


def _used_afterwards(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    h = x + y
    return h.relu_(), h * 2


def _used_before_and_after(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    h = x * y
    return h.sin(), h.mul_(2).add_(y), h


def _a_copy(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    h = x.clone()
    return h.copy_(y[0].expand(4, 4)), h + 1


@pytest.mark.parametrize("write", [_to_a_result, _used_afterwards, _used_before_and_after, _a_copy])
def test_a_write_to_what_nothing_else_sees_is_an_operator_without_it(write, whole):
    _exports(write, torch.randn(4, 4), torch.randn(4, 4))
    assert not whole


def _to_a_view(x: Tensor, y: Tensor) -> Tensor:
    h = x + y
    h[0].add_(1)
    return h


def _under_a_view(x: Tensor, y: Tensor) -> Tensor:
    h = x + y
    view = h.t()
    h.add_(y)
    return view


def _through_one_view_read_by_another(x: Tensor, y: Tensor) -> Tensor:
    h = x + y
    h.view(-1).mul_(y.reshape(-1))
    return h.view(-1) + 1


@pytest.mark.parametrize("write", [_to_a_view, _under_a_view, _through_one_view_read_by_another])
def test_a_write_that_a_view_may_see_is_traced_as_a_whole(write, whole):
    _exports(write, torch.randn(4, 4), torch.randn(4, 4))
    assert len(whole) == 1


def test_a_write_that_keeps_its_own_dtype_is_not_promoted(whole):
    def f(x: Tensor, y: Tensor) -> Tensor:
        return (x * 2).add_(y)

    program = _exports(f, torch.randn(4).half(), torch.randn(4))
    assert program.model.graph.outputs[0].dtype.name == "FLOAT16"
    assert len(whole) == 1


def test_a_write_to_an_input_is_right(whole):
    x = torch.randn(4)
    program = _exports(lambda x: x.add_(1) * 2, x.clone())
    torch.testing.assert_close(program(x)[0], (x + 1) * 2)


def test_a_size_that_depends_on_data_takes_the_long_way_or_none(whole):
    class Sized(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.argwhere(x > 0).sum(0)

    _exports(Sized(), torch.tensor([1.0, -1.0, 2.0]))
    assert len(whole) <= 1


def test_the_exported_program_stays_as_it_was():
    exported = torch.export.export(nn.Linear(4, 4), (torch.randn(2, 4),))
    before = exported.graph_module.code
    dynamo_onnx.export(exported, (torch.randn(2, 4),), verify=True)
    assert exported.graph_module.code == before
