"""Products of bytes, exact on every processor.

onnxruntime has kernels for uint8 times int8 and, slower by half or more, uint8 times uint8. Of the
first, those for x86 without VNNI saturate the sums of pairs of products.
Ref: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

# By operator: where its right operand and the zero point of that are.
_PRODUCTS = {"MatMulInteger": (1, 3), "MatMulIntegerToFloat": (1, 5)}
_INT8 = onnx.TensorProto.INT8
_OFFSET, _ZERO = "raised_by", "raised_zero"


@cache
def sums_exactly() -> bool:
    """Can a product of uint8 and int8 be trusted on this processor? Not where torch cannot tell."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    if capabilities.get("architecture", "x86_64") != "x86_64":
        return True
    return any(capabilities.get(name, False) for name in ("avx512_vnni", "avx_vnni", "amx_int8"))


def make_exact(graph: onnx.GraphProto) -> None:
    """Multiply by uint8 where this graph multiplies by int8."""
    if _raise(graph):
        offset = numpy_helper.from_array(np.array(128, np.int32), _OFFSET)
        graph.initializer.extend([offset, numpy_helper.from_array(np.array(128, np.uint8), _ZERO)])


def _raise(graph: onnx.GraphProto) -> bool:
    """Whether there was something to raise, in the graph or in the bodies in it."""
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info):
        types[value.name] = value.type.tensor_type.elem_type
    nodes: list[onnx.NodeProto] = []
    found = False
    for node in graph.node:
        for attribute in node.attribute:
            found |= attribute.type == onnx.AttributeProto.GRAPH and _raise(attribute.g)
        at, zero = _PRODUCTS.get(node.op_type, (0, 0))
        if at and types.get(node.input[at]) == _INT8:
            found = True
            node.input.extend([""] * (zero + 1 - len(node.input)))
            for index in (at, zero):
                if node.input[index]:
                    nodes += _raised(node, index)
                else:
                    node.input[index] = _ZERO
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return found


def _raised(node: onnx.NodeProto, index: int) -> list[onnx.NodeProto]:
    """int8 + 128 as uint8, in the place of an input."""
    given, name = node.input[index], f"{node.name}/raised_{index}"
    node.input[index] = name
    return [
        helper.make_node("Cast", [given], [f"{name}_wide"], to=onnx.TensorProto.INT32),
        helper.make_node("Add", [f"{name}_wide", _OFFSET], [f"{name}_sum"]),
        helper.make_node("Cast", [f"{name}_sum"], [name], to=onnx.TensorProto.UINT8),
    ]
