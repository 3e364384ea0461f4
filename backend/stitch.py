"""Puts regions and eager nodes together into one boxed function."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.fx

from ..lowering.dims import dim_of, dims_of
from ..lowering.region import Region
from ..runtime.errors import LoweringError
from ..runtime.executable import Executable
from ..runtime.opened import Argument
from .partition import Plan
from .torch_private import boxed_module

BoxedFn: TypeAlias = Callable[[list[Any]], Sequence[Any]]


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Stitched:
    """A graph, and what runs in its place. It lives as long as the function that is called.

    `steps` is the generated code, None where the executable is the whole graph.
    """

    graph: torch.fx.Graph
    plan: Plan
    steps: torch.fx.GraphModule | None


def stitch(
    gm: torch.fx.GraphModule, plan: Plan, executables: Mapping[Region, Executable]
) -> tuple[BoxedFn, Stitched]:
    """The graph as a boxed function: the executable itself where it is the whole graph."""
    (output,) = [n for n in gm.graph.nodes if n.op == "output"]
    results: Sequence[torch.fx.Node | None] = output.args[0]  # type: ignore[assignment]  # AOTAutograd's
    if len(plan.schedule) == 1 and isinstance(plan.schedule[0], Region):
        direct = _direct(gm.graph, plan.schedule[0], executables[plan.schedule[0]], results)
        if direct is not None:
            return _kept(direct, Stitched(gm.graph, plan, None))
    steps = _steps(gm, plan, executables)

    def call(args: list[Any]) -> Sequence[Any]:
        return steps.forward(args)

    return _kept(_boxed(call), Stitched(gm.graph, plan, steps))


def _kept(call: BoxedFn, stitched: Stitched) -> tuple[BoxedFn, Stitched]:
    """Tied to the function, so that what reports draw lives neither shorter nor longer."""
    call.__dict__["stitched"] = stitched
    return call, stitched


def _direct(
    graph: torch.fx.Graph,
    region: Region,
    executable: Executable,
    results: Sequence[torch.fx.Node | None],
) -> BoxedFn | None:
    """Nothing between the caller and the session; None where an output is not the region's."""
    if any(r is not None and r not in region.outputs for r in results):
        return None
    placeholders = [n for n in graph.nodes if n.op == "placeholder"]
    positions = [placeholders.index(n) for n in region.inputs]
    picks = [None if r is None else region.outputs.index(r) for r in results]
    whole = positions == list(range(len(placeholders)))
    straight = picks == list(range(len(region.outputs)))
    run = executable.run

    def call(args: list[Any]) -> Sequence[Any]:
        inputs: list[Argument] = list(args) if whole else [args[i] for i in positions]
        args.clear()
        outputs = run(inputs)
        return outputs if straight else [None if p is None else outputs[p] for p in picks]

    return _boxed(call)


def _boxed(function: BoxedFn) -> BoxedFn:
    """Mark a function that takes one list and empties it, by AOTAutograd's convention."""
    marked: Any = function
    marked._boxed_call = True
    return function


def _steps(
    gm: torch.fx.GraphModule, plan: Plan, executables: Mapping[Region, Executable]
) -> torch.fx.GraphModule:
    """The schedule as generated Python that drops each value after its last use."""
    graph = torch.fx.Graph()
    env: dict[torch.fx.Node, torch.fx.Node] = {}
    for node in gm.graph.nodes:
        if node.op == "placeholder":
            env[node] = graph.node_copy(node, env.__getitem__)
    for number, step in enumerate(plan.schedule):
        if isinstance(step, torch.fx.Node):
            env[step] = graph.node_copy(step, env.__getitem__)
            continue
        call = _region_call(executables[step], number)
        results = graph.call_function(call, tuple(env[n] for n in step.inputs))
        for index, node in enumerate(step.outputs):
            env[node] = graph.call_function(operator.getitem, (results, index))
    for node in gm.graph.nodes:
        if node.op == "output":
            graph.node_copy(node, env.__getitem__)
    return boxed_module(graph, gm)


def region_in_eager(
    gm: torch.fx.GraphModule, region: Region
) -> Callable[[Sequence[Argument]], list[torch.Tensor]]:
    """One region as eager PyTorch, for a session that cannot be opened or a run that fails."""
    graph, env = _copied(region)
    graph.output([env[n] for n in region.outputs])
    module = torch.fx.GraphModule(gm, graph)

    def run(args: Sequence[Argument]) -> list[torch.Tensor]:
        with torch.no_grad():
            return module(*args)

    return run


def values_in_eager(
    gm: torch.fx.GraphModule, region: Region, args: Sequence[Argument]
) -> dict[torch.fx.Node, Any]:
    """What every node of a region gives, sizes and inputs included."""
    graph, env = _copied(region)
    graph.output(list(env.values()))
    with torch.no_grad():
        return dict(zip(env, torch.fx.GraphModule(gm, graph)(*args), strict=True))


def _copied(region: Region) -> tuple[torch.fx.Graph, dict[torch.fx.Node, torch.fx.Node]]:
    """A graph of the region alone, without an output yet, and its nodes by the originals."""
    graph = torch.fx.Graph()
    env = {node: graph.placeholder(node.name) for node in region.inputs}
    for node in region.nodes:
        _copy_with_sizes(graph, node, env)
    return graph, env


def _copy_with_sizes(
    graph: torch.fx.Graph, node: torch.fx.Node, env: dict[torch.fx.Node, torch.fx.Node]
) -> None:
    """Copy a node, and before it the sizes it needs that are not among the region's inputs."""
    for source in node.all_input_nodes:
        if source in env:
            continue
        if source.op == "placeholder":
            env[source] = _size_from_inputs(graph, source, env)
        else:
            _copy_with_sizes(graph, source, env)
    env[node] = graph.node_copy(node, env.__getitem__)


def _size_from_inputs(
    graph: torch.fx.Graph, size: torch.fx.Node, env: Mapping[torch.fx.Node, torch.fx.Node]
) -> torch.fx.Node:
    """A size that the region reads off the shape of one of its inputs."""
    wanted = dim_of(size.meta["val"])
    for original, copy in env.items():
        val = original.meta.get("val")
        dims = dims_of(val.shape) if isinstance(val, torch.Tensor) else ()
        if wanted in dims and copy.op == "placeholder":
            return graph.call_function(torch.ops.aten.sym_size.int, (copy, dims.index(wanted)))
    raise LoweringError(f"no input of the region has the size {wanted}")


def _region_call(executable: Executable, number: int) -> Callable[..., list[torch.Tensor]]:
    def call(*args: Argument) -> list[torch.Tensor]:
        return executable.run(args)

    call.__name__ = call.__qualname__ = f"onnx_region_{number}"
    return call
