"""Regions: acyclic, complete, in an order that respects every dependency, in linear time."""

from __future__ import annotations

import random
import time

import pytest
import torch
import torch.fx

from dynamo_onnx.backend.partition import Plan, partition
from dynamo_onnx.lowering.region import Region
from dynamo_onnx.runtime.errors import Reason, ReasonKind

REFUSED = Reason(ReasonKind.NO_RULE, "for the test")
META = torch.empty(2, device="meta")


def random_graph(size: int, seed: int, eager_share: float) -> tuple[torch.fx.Graph, dict]:
    """A graph of `add` nodes, of which a share is refused."""
    draw = random.Random(seed)
    graph = torch.fx.Graph()
    values = [graph.placeholder(f"x{i}") for i in range(3)]
    refused = {}
    for _ in range(size):
        near = values[-8:] if draw.random() < 0.8 else values
        node = graph.call_function(
            torch.ops.aten.add.Tensor, (draw.choice(near), draw.choice(near))
        )
        if draw.random() < eager_share:
            refused[node] = REFUSED
        values.append(node)
    graph.output(tuple(values[-3:]))
    torch.fx.GraphModule({}, graph)
    for node in values:
        node.meta["val"] = META
    return graph, refused


def check(graph: torch.fx.Graph, plan: Plan) -> None:
    """Every operator once, each step after what it reads."""
    done = {n for n in graph.nodes if n.op == "placeholder"}
    for step in plan.schedule:
        nodes = step.nodes if isinstance(step, Region) else (step,)
        needs = step.inputs if isinstance(step, Region) else step.all_input_nodes
        assert done.issuperset(needs)
        assert done.isdisjoint(nodes)
        done.update(nodes)
    assert done == {n for n in graph.nodes if n.op != "output"}  # all of them are operators here
    eager = {n for n, _ in plan.eager}
    for region in plan.regions:
        assert eager.isdisjoint(region.nodes)
        inside = set(region.nodes)
        assert {i for n in inside for i in n.all_input_nodes} - inside == set(region.inputs)
        assert {n for n in inside if any(u not in inside for u in n.users)} == set(region.outputs)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_random_graphs(seed: int, share: float) -> None:
    graph, refused = random_graph(120, seed, share)
    for min_region in (1, 3):
        check(graph, partition(graph, refused, min_region))


def test_nothing_refused_is_one_region() -> None:
    graph, _ = random_graph(200, 0, 0.0)
    plan = partition(graph, {}, min_region=500)
    assert len(plan.regions) == 1
    assert not plan.eager


def test_a_small_region_is_refused_with_that_reason() -> None:
    graph, refused = random_graph(60, 1, 0.5)
    plan = partition(graph, refused, min_region=3)
    kinds = {reason.kind for _, reason in plan.eager}
    assert kinds == {ReasonKind.NO_RULE, ReasonKind.REGION_SIZE}
    assert all(len(region.nodes) >= 3 for region in plan.regions)


def test_views_of_inputs_go_with_the_region_that_reads_them() -> None:
    aten = torch.ops.aten
    graph = torch.fx.Graph()
    x, w, v = (graph.placeholder(name) for name in "xwv")
    transposed = graph.call_function(aten.t.default, (w,))
    twice = graph.call_function(aten.t.default, (transposed,))
    returned = graph.call_function(aten.t.default, (v,))
    first = graph.call_function(aten.add.Tensor, (x, x))
    eager = graph.call_function(aten.sin.default, (first,))
    second = graph.call_function(aten.add.Tensor, (eager, twice))
    third = graph.call_function(aten.mul.Tensor, (second, transposed))
    graph.output((third, returned))
    torch.fx.GraphModule({}, graph)
    for node in graph.nodes:
        node.meta["val"] = META
    plan = partition(graph, {eager: REFUSED}, min_region=1)
    check(graph, plan)
    early, late = plan.regions
    assert set(early.nodes) == {returned, first}
    assert set(late.nodes) == {transposed, twice, second, third}
    assert late.inputs == (w, eager)


def test_the_time_is_linear_in_the_nodes() -> None:
    def seconds(size: int) -> float:
        graph, refused = random_graph(size, 2, 0.02)
        best = float("inf")
        for _ in range(3):
            started = time.process_time()
            partition(graph, refused, 1)
            best = min(best, time.process_time() - started)
        return best

    assert seconds(8000) < 8 * 3 * seconds(1000)
