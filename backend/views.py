"""Outputs that AOTAutograd makes again as views, which it may do by their storage offset."""

from __future__ import annotations

import operator
from collections.abc import Iterable

import torch
import torch.fx

from ..lowering.dims import dim_of
from ..runtime.errors import Reason, ReasonKind
from .partition import is_operator
from .torch_private import OpOverload

READS_OFFSET = Reason(
    ReasonKind.LAYOUT,
    "a view of an input or output with an offset of symbolic size: torch reads the offset off it",
)


def read_by_offset(graph: torch.fx.Graph, positions: Iterable[int]) -> dict[torch.fx.Node, Reason]:
    """The views between these outputs and what they view, where memory does not begin with them.

    A result of ONNX Runtime has memory of its own, which begins with it. In eager they are views,
    offset included.
    """
    (output,) = [n for n in graph.nodes if n.op == "output"]
    results = output.args[0]
    assert isinstance(results, (list, tuple))
    found: dict[torch.fx.Node, Reason] = {}
    for position in positions:
        node = results[position]
        if not isinstance(node, torch.fx.Node) or not _has_offset(node):
            continue
        while _is_view(node):
            if is_operator(node):
                found[node] = READS_OFFSET
            node = node.all_input_nodes[0]
    return found


def _has_offset(node: torch.fx.Node) -> bool:
    val = node.meta["val"]
    return isinstance(val, torch.Tensor) and dim_of(val.storage_offset()) != 0


def _is_view(node: torch.fx.Node) -> bool:
    if node.op != "call_function":
        return False
    target = node.target
    return target is operator.getitem or (isinstance(target, OpOverload) and target.is_view)
