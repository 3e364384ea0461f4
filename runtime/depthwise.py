"""Depthwise convolutions by kernels that are no constants, laid out for the CPU in each run.

onnxruntime lays constant kernels out when a session is opened, and convolves by them several times
as fast. Kernels that change with each call, as in training, are laid out by nodes here: by the
operators that its own optimizer uses, which write channels in blocks of the processor's width.
Ref: onnxruntime/core/optimizer/nchwc_transformer.cc, onnxruntime/contrib_ops/cpu/nchwc_ops.cc
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

DOMAIN = "com.microsoft.nchwc"
_AS_IMAGE, _AS_KERNEL = "kernels_as_an_image", "an_image_as_kernels"
_MULTIPLE = 4  # of channels, which the operators ask for
SMALLEST_BLOCK = 8


def lay_out_depthwise(model: onnx.ModelProto) -> None:
    """Rewrite the convolutions in two dimensions that keep each channel to itself, in place.

    Those by constants are left to onnxruntime.
    """
    graph = model.graph
    types = {value.name: value.type.tensor_type for value in (*graph.input, *graph.value_info)}
    fixed = {"", *(tensor.name for tensor in graph.initializer)}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if fixed.issuperset(node.input):
            fixed.update(node.output)  # which onnxruntime computes beforehand
        channels = _channels(node, types)
        if channels and node.input[1] not in fixed:
            nodes.extend(_laid_out(graph, node, channels))
        else:
            nodes.append(node)
    if len(nodes) == len(graph.node):
        return
    for name, shape in ((_AS_IMAGE, [1, -1, 0, 0]), (_AS_KERNEL, [-1, 1, 0, 0])):
        graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), name))
    del graph.node[:]
    graph.node.extend(nodes)
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))


def _channels(node: onnx.NodeProto, types: dict[str, onnx.TypeProto.Tensor]) -> int:
    """Those of a depthwise convolution that can be laid out; 0 for every other node."""
    if (node.domain, node.op_type) != ("", "Conv") or node.input[1] not in types:
        return 0
    kernel = types[node.input[1]]
    group = next((a.i for a in node.attribute if a.name == "group"), 1)
    dims = [dim.dim_value for dim in kernel.shape.dim]  # 0 where it is not known
    if kernel.elem_type != onnx.TensorProto.FLOAT or len(dims) != 4 or dims[:2] != [group, 1]:
        return 0
    fits = group > 1 and group % _MULTIPLE == 0 and block() >= SMALLEST_BLOCK
    return group if fits else 0


def _laid_out(
    graph: onnx.GraphProto, conv: onnx.NodeProto, channels: int
) -> Sequence[onnx.NodeProto]:
    """image [N, C, H, W], kernel [C, 1, *K], perhaps a bias [C] -> [N, C, *out].

    Channels are filled up to whole blocks. A kernel of one channel each is laid out as an image is.
    """
    (result,) = conv.output
    missing = -channels % block()
    made: list[onnx.NodeProto] = []

    def emit(op_type: str, inputs: Sequence[str], domain: str = "", **attributes: int) -> str:
        name = f"{conv.name}_{op_type}_{len(made)}"
        made.append(helper.make_node(op_type, inputs, [name], name, domain=domain))
        made[-1].attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
        return name

    image, kernel, *bias = (name for name in conv.input if name)
    blocks = emit("ReorderInput", [image], DOMAIN)
    kernel = emit("ReorderInput", [emit("Reshape", [kernel, _AS_IMAGE])], DOMAIN)
    kernel = emit("Reshape", [kernel, _AS_KERNEL])
    if bias and missing:
        pads = numpy_helper.from_array(np.array([0, missing], np.int64), f"{conv.name}_missing")
        graph.initializer.append(pads)
        bias = [emit("Pad", [*bias, pads.name])]
    convolved = emit("Conv", [blocks, kernel, *bias], DOMAIN, group=channels + missing)
    made[-1].attribute.extend(a for a in conv.attribute if a.name != "group")
    emit("ReorderOutput", [convolved], DOMAIN, channels=channels)
    made[-1].name, made[-1].output[0] = conv.name, result
    return made


@cache
def block() -> int:
    """How many channels this processor takes at a time; few where it has no kernels for blocks."""
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, _MULTIPLE, 1, 1])
    blocks = helper.make_tensor_value_info("blocks", onnx.TensorProto.FLOAT, None)
    node = helper.make_node("ReorderInput", ["image"], ["blocks"], domain=DOMAIN)
    graph = helper.make_graph([node], "block", [image], [blocks])
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    zeros = ort.OrtValue.ortvalue_from_numpy(np.zeros([1, _MULTIPLE, 1, 1], np.float32))
    (found,) = session.run_with_ort_values(None, {"image": zeros})
    return found.shape()[1]
