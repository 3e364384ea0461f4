"""Guards that rules ask for, where something depends on sizes.

Arguments that ONNX has as attributes are numbers: `conv2d(x, w, stride=n)` compiles once for each n
that comes, as it would without dynamic shapes. What is done natively up to a number of elements
compiles once for smaller tensors and once for larger ones.
"""

from __future__ import annotations

import torch
import torch.fx
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.fx.node import Argument

from ..lowering.registry import Registry


def specialise(graph: torch.fx.Graph, registry: Registry) -> None:
    """Guard on sizes; where a rule takes only numbers, put them in the place of sizes."""
    for node in graph.nodes:
        lowering = registry.get(node.target) if node.op == "call_function" else None
        if lowering is None:
            continue
        if lowering.largest is not None:
            _compare(node, lowering.largest)
        if lowering.arguments is None or not lowering.numbers:
            continue
        names = [a.name for a in lowering.arguments]
        node.args = tuple(
            _number(arg) if name in lowering.numbers else arg
            for name, arg in zip(names, node.args, strict=False)
        )
        node.kwargs = {
            name: _number(arg) if name in lowering.numbers else arg
            for name, arg in node.kwargs.items()
        }


def _compare(node: torch.fx.Node, largest: int) -> None:
    for source in node.all_input_nodes:
        value = source.meta.get("val")
        if isinstance(value, torch.Tensor) and not free_unbacked_symbols(value):
            bool(value.numel() <= largest)  # the guard


def _number(arg: Argument) -> Argument:
    if isinstance(arg, (list, tuple)):
        return [_number(a) for a in arg]
    if isinstance(arg, torch.fx.Node):
        value = arg.meta["val"]
        if isinstance(value, torch.SymInt) and not free_unbacked_symbols(value):
            return int(value)  # the guard
    return arg
