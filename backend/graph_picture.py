"""What a picture of a captured graph needs, read off the graph: light, and no tensor in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.fx

from ..lowering.region import location
from .partition import is_operator
from .state import GraphRecord

INPUT, OUTPUT, OPERATOR = "input", "output", "operator"
_STEP = re.compile(r"\['?([^\]']+)'?\]|([^.\[\]]+)")
_PLUMBING = frozenset({"self", "_modules", "_orig_mod", "fn"})
_GRADIENT = "tangents_"  # AOTAutograd's name of what a backward graph is given from behind


@dataclass(frozen=True, slots=True)
class PictureNode:
    """An operator, an input or an output of a graph.

    `region` is None where it runs in eager, for the `reason`. `module` is the way to the module
    that it is part of, `reads` are the places of the nodes that it takes results of, `weights` the
    names of the parameters and other inputs that are not drawn.
    """

    name: str
    op: str
    kind: str
    shape: str
    region: int | None
    reason: str
    location: str
    module: tuple[str, ...]
    reads: tuple[int, ...]
    weights: tuple[str, ...]


def picture(graph: GraphRecord) -> tuple[PictureNode, ...]:
    """The nodes in the order of execution; none where the compiled function is gone.

    Sizes, tuple items and weights are not drawn: what reads a size reads what it is of.
    """
    stitched = graph.stitched()
    if stitched is None:
        return ()
    region_of = {n: i for i, r in enumerate(stitched.plan.regions) for n in r.nodes}
    reasons = {node: str(reason) for node, reason in stitched.plan.eager}
    names = _names(graph, stitched.graph)
    drawn: list[PictureNode] = []
    sources: dict[torch.fx.Node, dict[int, None]] = {}
    unseen: dict[torch.fx.Node, dict[str, None]] = {}
    for node in stitched.graph.nodes:
        read = {place: None for n in node.all_input_nodes for place in sources[n]}
        hidden = {name: None for n in node.all_input_nodes for name in unseen[n]}
        sources[node], unseen[node] = read, hidden
        if node.op == "placeholder" and not names[node].drawn:
            unseen[node] = {names[node].name: None}
            continue
        if node.op not in ("placeholder", "output") and not is_operator(node):
            continue
        kind = {"placeholder": INPUT, "output": OUTPUT}.get(node.op, OPERATOR)
        drawn.append(
            PictureNode(
                name=names[node].name if kind == INPUT else node.name,
                op=str(node.target) if kind == OPERATOR else kind,
                kind=kind,
                shape=_shape(node.meta.get("val")),
                region=region_of.get(node),
                reason=reasons.get(node, ""),
                location=location(node) if kind == OPERATOR else "",
                module=_module(node),
                reads=tuple(read),
                weights=tuple(hidden),
            )
        )
        sources[node], unseen[node] = {len(drawn) - 1: None}, {}
    return tuple(drawn)


@dataclass(frozen=True, slots=True)
class _Given:
    """An input: the user's name of it, and whether it is drawn."""

    name: str
    drawn: bool


def _names(graph: GraphRecord, nodes: torch.fx.Graph) -> dict[torch.fx.Node, _Given]:
    """The tensors that are given. Weights, and what a forward graph has saved, are not drawn."""
    given = [n for n in nodes.nodes if n.op == "placeholder"]
    tensors = [isinstance(n.meta.get("val"), torch.Tensor) for n in given]
    frame = graph.frame
    if graph.kind != "backward" and len(given) == len(frame.input_names):
        return {
            node: _Given(name, drawn=tensor and place not in frame.weights)
            for place, (node, name, tensor) in enumerate(
                zip(given, frame.input_names, tensors, strict=True)
            )
        }
    saved = any(n.name.startswith(_GRADIENT) for n in given)
    return {
        node: _Given(node.name, drawn=tensor and (not saved or node.name.startswith(_GRADIENT)))
        for node, tensor in zip(given, tensors, strict=True)
    }


def _shape(value: object) -> str:
    """`float32[2, s0]`; of several results those of each."""
    if isinstance(value, torch.Tensor):
        dims = ", ".join(str(dim) for dim in value.shape)
        return f"{str(value.dtype).removeprefix('torch.')}[{dims}]"
    if isinstance(value, (tuple, list)):
        return ", ".join(filter(None, map(_shape, value)))
    return ""


def _module(node: torch.fx.Node) -> tuple[str, ...]:
    """`L['self'].encoder.layer.0` -> encoder, layer, 0: of the innermost module."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return ()
    path, _ = next(reversed(stack.values()))
    return _steps(path)


@lru_cache(maxsize=4096)  # the operators of a layer have one path
def _steps(path: str) -> tuple[str, ...]:
    steps = tuple(a or b for a, b in _STEP.findall(path))
    return tuple(step for step in steps[1:] if step not in _PLUMBING)
