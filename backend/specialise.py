"""Arguments that ONNX has as attributes, which are numbers: sizes among them get a guard.

`conv2d(x, w, stride=n)` compiles once for each n that comes, as it would without dynamic shapes.
"""

from __future__ import annotations

import torch
import torch.fx
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.fx.node import Argument

from ..lowering.registry import Registry


def specialise(graph: torch.fx.Graph, registry: Registry) -> None:
    """Put numbers in the place of sizes where a rule says that it takes only numbers."""
    for node in graph.nodes:
        lowering = registry.get(node.target) if node.op == "call_function" else None
        if lowering is None or lowering.arguments is None or not lowering.numbers:
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


def _number(arg: Argument) -> Argument:
    if isinstance(arg, (list, tuple)):
        return [_number(a) for a in arg]
    if isinstance(arg, torch.fx.Node):
        value = arg.meta["val"]
        if isinstance(value, torch.SymInt) and not free_unbacked_symbols(value):
            return int(value)  # the guard
    return arg
