"""w·(x·(mean(x²) + ε)^-½) over the last dim is one RMSNormalization.

Measured on 128 × 576 floats with 2 threads: seven nodes 29 µs, RMSNormalization 17 µs, equal to
2e-6.
Ref: https://onnx.ai/onnx/operators/onnx__RMSNormalization.html
"""

from __future__ import annotations

import onnx_ir as ir

from ...runtime.program import Kernels
from ..dtypes import type_name
from ..value import Value
from .matching import is_product_of, made_by, orders, replace, with_number


def fuse_rms_norm(graph: ir.Graph, kernels: Kernels) -> int:
    """Needs the norm as Llama and T5 spell it, with a 1-d weight; ensures one node in its place.

    The attribute epsilon is a float32, which rounds that of a float64 norm: it stays as it is.
    """
    changes = 0
    for node in graph:
        found = _parts(node) if node.op_type == "Mul" else None
        if found is None:
            continue
        x, weight, epsilon = found
        if x.elem is ir.DataType.DOUBLE:
            continue
        types = (("T", type_name(x.elem)), ("V", type_name(weight.elem)))
        if kernels.accepts("", "RMSNormalization", types):
            attributes = [ir.AttrInt64("axis", -1), ir.AttrFloat32("epsilon", epsilon)]
            replace(graph, node, "RMSNormalization", [x, weight], attributes)
            changes += 1
    return changes


def _parts(node: ir.Node) -> tuple[Value, Value, float] | None:
    """x, the weight [N] and ε, if the node is the product of the weight and the normed x [*, N]."""
    for weight, normed in orders(node):
        product = made_by(normed, "Mul")
        if product is None or not isinstance(weight, Value):
            continue
        for x, root in orders(product):
            epsilon = _epsilon(root, x)
            if epsilon is None or not isinstance(x, Value) or x.dims is None:
                continue
            if weight.dims == x.dims[-1:] and isinstance(x.dims[-1], int) and weight.elem == x.elem:
                return x, weight, epsilon
    return None


def _epsilon(root: ir.Value, x: ir.Value) -> float | None:
    """ε, if root is 1/√(mean(x²) + ε) over the last dim."""
    reciprocal = made_by(root, "Reciprocal")
    square_root = made_by(reciprocal.inputs[0], "Sqrt") if reciprocal is not None else None
    shifted = made_by(square_root.inputs[0], "Add") if square_root is not None else None
    plus = with_number(shifted)
    mean = made_by(plus[0], "ReduceMean") if plus is not None else None
    if mean is None or plus is None or not is_product_of(mean.inputs[0], x, 2):
        return None
    axes = mean.inputs[1] if len(mean.inputs) > 1 else None
    if axes is None or axes.const_value is None or not isinstance(x, Value):
        return None
    over_last = axes.const_value.numpy().tolist() in ([-1], [x.rank - 1])
    kept = mean.attributes.get_int("keepdims", 1) == 1
    return plus[1] if over_last and kept else None
