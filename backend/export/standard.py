"""Exported models have operators of ai.onnx alone: those of onnxruntime's own are spelled out.

onnxruntime fuses them again when it opens the model; other runtimes can read it. What the user
asked for by name stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from ...lowering.builder import AS_ASKED
from ...runtime.linear_layers import MS_DOMAIN


def spell_out(model: ir.Model) -> None:
    """Replace what is in com.microsoft, in the graph and in the functions."""
    for graph in (model.graph, *model.functions.values()):
        for node in list(graph.all_nodes()):
            if node.domain == MS_DOMAIN and node.op_type in _SPELLED and AS_ASKED not in node.meta:
                _replace(node, _SPELLED[node.op_type](node))
        if not any(node.domain == MS_DOMAIN for node in graph.all_nodes()):
            graph.opset_imports.pop(MS_DOMAIN, None)


def _replace(node: ir.Node, made: Sequence[ir.Node]) -> None:
    graph, (old,), (new,) = node.graph, node.outputs, made[-1].outputs
    assert graph is not None
    for index, each in enumerate(made):
        each.name = f"{node.name}_{each.op_type}_{index}"
        each.outputs[0].name = f"{old.name}_{index}"
    new.type, new.shape = old.type, old.shape
    graph.insert_before(node, made)
    name = old.name
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    new.name = name


def _fused_matmul(node: ir.Node) -> list[ir.Node]:
    """alpha * op(a) x op(b)."""
    made: list[ir.Node] = []
    operands: list[ir.Value | None] = []
    for value, attribute in zip(node.inputs, ("transA", "transB"), strict=True):
        if node.attributes.get_int(attribute, 0):
            assert value is not None
            assert value.shape is not None
            rank = len(value.shape)
            perm = [*range(rank - 2), rank - 1, rank - 2]
            made.append(ir.node("Transpose", [value], {"perm": perm}))
            made[-1].outputs[0].type = value.type
            operands.append(made[-1].outputs[0])
        else:
            operands.append(value)
    made.append(ir.node("MatMul", operands))
    alpha = node.attributes.get_float("alpha", 1.0)
    if alpha != 1.0:
        made[-1].outputs[0].type = node.outputs[0].type
        made += _scaled(made[-1].outputs[0], alpha)
    return made


def _scaled(value: ir.Value, factor: float) -> list[ir.Node]:
    """By a number of the same type."""
    assert value.dtype is not None
    tensor = ir.tensor(factor, dtype=value.dtype)
    number = ir.node("Constant", [], {"value": tensor})
    return [number, ir.node("Mul", [value, number.outputs[0]])]


def _integer_product(node: ir.Node) -> list[ir.Node]:
    """(a - a_zero) x (b - b_zero) * a_scale * b_scale + bias."""
    inputs = [*node.inputs, *[None] * (7 - len(node.inputs))]
    a, b, a_scale, b_scale, a_zero, b_zero, bias = inputs
    product = ir.node("MatMulInteger", [a, b, a_zero, b_zero])
    wide = ir.node("Cast", [product.outputs[0]], {"to": int(ir.DataType.FLOAT)})
    scale = ir.node("Mul", [a_scale, b_scale])
    made = [product, wide, scale, ir.node("Mul", [wide.outputs[0], scale.outputs[0]])]
    if bias is not None:
        made.append(ir.node("Add", [made[-1].outputs[0], bias]))
    return made


_SPELLED: dict[str, Callable[[ir.Node], list[ir.Node]]] = {
    "FusedMatMul": _fused_matmul,
    "MatMulIntegerToFloat": _integer_product,
}
