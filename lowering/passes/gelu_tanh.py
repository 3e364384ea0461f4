"""0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))) is one Gelu.

Measured on 128 × 3072 floats with 2 threads: nine nodes 364 µs, Gelu 139 µs, equal to 1e-6.
Ref: https://onnx.ai/onnx/operators/onnx__Gelu.html
"""

from __future__ import annotations

import math

import onnx_ir as ir

from ...runtime.program import Kernels
from ..dtypes import type_name
from ..value import Value
from .matching import is_product_of, made_by, number, orders, replace, with_number


def fuse_gelu_tanh(graph: ir.Graph, kernels: Kernels) -> int:
    """Needs the formula as GPT-2's and T5's activations spell it; ensures one Gelu in its place."""
    changes = 0
    for node in graph:
        x = _argument(node) if node.op_type == "Mul" else None
        if isinstance(x, Value) and kernels.accepts("", "Gelu", (("T", type_name(x.elem)),)):
            replace(graph, node, "Gelu", [x], [ir.AttrString("approximate", "tanh")])
            changes += 1
    return changes


def _argument(node: ir.Node) -> ir.Value | None:
    """x, if the node ends the formula: (0.5·x)·(1 + tanh) or 0.5·(x·(1 + tanh))."""
    for left, right in orders(node):
        half = with_number(made_by(left, "Mul"))
        if half is not None and math.isclose(half[1], 0.5) and _one_plus_tanh(right, half[0]):
            return half[0]
        product = made_by(right, "Mul") if number(left) == 0.5 else None
        if product is not None:
            for x, factor in orders(product):
                if _one_plus_tanh(factor, x):
                    return x
    return None


def _one_plus_tanh(value: ir.Value, x: ir.Value) -> bool:
    plus = with_number(made_by(value, "Add"))
    tanh = made_by(plus[0], "Tanh") if plus is not None and plus[1] == 1.0 else None
    scaled = with_number(made_by(tanh.inputs[0], "Mul")) if tanh is not None else None
    if scaled is None or not math.isclose(scaled[1], math.sqrt(2 / math.pi), rel_tol=1e-6):
        return False
    total = made_by(scaled[0], "Add")
    if total is None:
        return False
    for first, second in orders(total):
        cubic = with_number(made_by(second, "Mul"))
        if first is x and cubic is not None and math.isclose(cubic[1], 0.044715, rel_tol=1e-6):
            return is_product_of(cubic[0], x, 3)
    return False
