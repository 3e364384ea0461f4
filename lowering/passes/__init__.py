"""Passes over a lowered graph: what the user wrote in several operators and ONNX has in one.

A pass is a function of the graph's model and the kernels. It says what it needs and ensures in its
docstring, returns how many places it changed, and lives alone in its file. Nodes that a pass leaves
without a reader are removed when all have run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import onnx_ir as ir

from ...runtime.program import Kernels
from .gelu_tanh import fuse_gelu_tanh
from .rms_norm import fuse_rms_norm

Pass: TypeAlias = Callable[[ir.Graph, Kernels], int]

PASSES: tuple[Pass, ...] = (fuse_rms_norm, fuse_gelu_tanh)


def run_passes(graph: ir.Graph, kernels: Kernels) -> int:
    """Run every pass once, then remove what nothing reads. Returns the number of changes."""
    changes = sum(each(graph, kernels) for each in PASSES)
    if changes:
        _remove_unread(graph)
    return changes


def _remove_unread(graph: ir.Graph) -> None:
    for node in reversed(list(graph)):
        if not any(o.uses() or o.is_graph_output() for o in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
