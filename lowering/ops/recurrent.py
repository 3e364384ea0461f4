"""Recurrent layers. Dynamo takes `nn.LSTM` into a graph under `torch._dynamo.config.allow_rnn`."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..registry import lowers
from ..rule import Rule
from ..value import Value

aten = torch.ops.aten

LSTM = 2  # oneDNN's number for the kind of cell


@lowers(aten.mkldnn_rnn_layer.default)
def mkldnn_rnn_layer(
    cx: Rule,
    input: Value,
    weight0: Value,
    weight1: Value,
    weight2: Value,
    weight3: Value,
    hx_: Value,
    cx_: Value,
    reverse: bool,
    batch_sizes: Sequence[int],
    mode: int,
    hidden_size: int,
    num_layers: int,
    has_biases: bool,
    bidirectional: bool,
    batch_first: bool,
    train: bool,
) -> tuple[Value, Value, Value, None]:
    """input [T, N, I], weights [4 * H, *], states [N, H] -> output [T, N, H], the last states.

    Weights are of the input [4 * H, I], of the state [4 * H, H], and then biases, if there are.
    One layer in one direction, which is how torch calls it. Its gates come as input, forget, cell,
    output; ONNX's as input, output, forget, cell.
    Ref: https://onnx.ai/onnx/operators/onnx__LSTM.html, aten/src/ATen/native/mkldnn/RNN.cpp
    """
    if mode != LSTM or batch_sizes or num_layers != 1 or bidirectional or train:
        cx.decline("a recurrent layer other than one LSTM in one direction, over whole sequences")
    t, n, _ = cx.outs[0].dims
    state = (1, n, hidden_size)
    biases: Value | None = None
    if has_biases:
        both: Value = cx.op.Concat(_gates(cx, weight2), _gates(cx, weight3), axis=0)
        both.dims = (8 * hidden_size,)
        biases = cx.unsqueeze(both, 0)
    output, h, c = cx.op.LSTM(
        input,
        cx.unsqueeze(_gates(cx, weight0), 0),
        cx.unsqueeze(_gates(cx, weight1), 0),
        biases,
        None,
        cx.reshape(hx_, state),
        cx.reshape(cx_, state),
        outputs=3,
        direction="reverse" if reverse else None,
        hidden_size=hidden_size,
    )
    output.dims = (t, 1, n, hidden_size)
    h.dims = c.dims = state
    last = cx.outs[1].dims
    return cx.reshape(output, cx.outs[0].dims), cx.reshape(h, last), cx.reshape(c, last), None


def _gates(cx: Rule, weight: Value) -> Value:
    """Rows of input, forget, cell, output gates as those of input, output, forget, cell."""
    dims = weight.known_dims
    parts = cx.op.Split(weight, axis=0, num_outputs=4, outputs=4)
    ordered: Value = cx.op.Concat(*(parts[i] for i in (0, 3, 1, 2)), axis=0)
    ordered.dims = dims
    return ordered
