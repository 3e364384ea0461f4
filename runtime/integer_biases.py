"""The pass that rounds biases of quantized convolutions, run when a session is opened.

onnxruntime's integer convolution adds an int32 bias in steps of input scale x weight scale. Its own
optimizer makes one of a float bias, but of float weights as well, and of a bias that is too large
for int32; it is off (`session.INEXACT`). Where a bias does not fit, the convolution stays in float.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
import torch

_LARGEST = 2.0**30  # steps; below int32's, and half of one is lost of them in float32 at most


def round_biases(
    model: ir.Model, positions: Mapping[str, int], frozen: Mapping[int, torch.Tensor]
) -> bool:
    """Whether there was one to round. `positions` are by name those of inputs in `frozen`."""
    found = False
    for node in list(model.graph.all_nodes()):
        if node.op_type != "Conv" or len(node.inputs) < 3:
            continue
        x_scale, w_scale = (_scale(value) for value in node.inputs[:2])
        bias = node.inputs[2]
        if x_scale is None or w_scale is None or bias is None or x_scale.const_value is None:
            continue
        of_scale, of_bias = (positions.get(value.name or "") for value in (w_scale, bias))
        if of_scale is None or of_bias is None or frozen[of_bias].dtype is not torch.float32:
            continue
        steps = frozen[of_bias] / (frozen[of_scale] * float(x_scale.const_value.numpy()))
        if bool(steps.abs().amax() < _LARGEST):  # not if one is NaN
            _round(node, x_scale, w_scale)
            found = True
    return found


def _scale(value: ir.Value | None) -> ir.Value | None:
    """What a value was dequantized with."""
    node = None if value is None else value.producer()
    return node.inputs[1] if node is not None and node.op_type == "DequantizeLinear" else None


def _round(conv: ir.Node, x_scale: ir.Value, w_scale: ir.Value) -> None:
    """The bias as whole steps, dequantized, which is the form that onnxruntime looks for."""
    graph, bias = conv.graph, conv.inputs[2]
    assert graph is not None
    made: list[ir.Node] = []

    def emit(
        op_type: str, dtype: ir.DataType, inputs: list[ir.Value | None], **attributes: int
    ) -> ir.Value:
        node = ir.node(op_type, inputs, attributes, name=f"{conv.name}/bias_{op_type}")
        (out,) = node.outputs
        out.name, out.dtype = f"{conv.name}/bias_{op_type}", dtype
        made.append(node)
        return out

    floats, whole = ir.DataType.FLOAT, ir.DataType.INT32
    scale = emit("Mul", floats, [x_scale, w_scale])
    rounded = emit("Round", floats, [emit("Div", floats, [bias, scale])])
    integers = emit("Cast", whole, [rounded], to=int(whole))
    graph.insert_before(conv, made)
    made.clear()
    axis = {} if w_scale.shape is None or len(w_scale.shape) == 0 else {"axis": 0}
    conv.replace_input_with(2, emit("DequantizeLinear", floats, [integers, scale], **axis))
    graph.insert_before(conv, made)
