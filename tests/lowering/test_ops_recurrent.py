"""Recurrent layers against eager, as Dynamo gives them with `allow_rnn`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import dynamo_onnx

LAYERS: dict[str, nn.Module] = {
    "LSTM": nn.LSTM(4, 6),
    "LSTM without biases": nn.LSTM(4, 6, bias=False),
    "LSTM of two layers, both ways": nn.LSTM(4, 6, num_layers=2, bidirectional=True),
    "LSTM with the batch first": nn.LSTM(4, 6, batch_first=True),
    "LSTM with projections": nn.LSTM(4, 6, proj_size=3),
    "GRU both ways": nn.GRU(4, 6, bidirectional=True),
    "RNN": nn.RNN(4, 6),
    "RNN with relu": nn.RNN(4, 6, nonlinearity="relu"),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_recurrent_layer_is_native(name: str, dynamic: bool) -> None:
    layer = LAYERS[name].eval()
    with torch._dynamo.config.patch(allow_rnn=True), torch.no_grad():
        ours = torch.compile(layer, backend="onnx", dynamic=dynamic, options={"strict": True})
        for steps in (5, 7):
            x = torch.randn(steps, 3, 4)
            torch.testing.assert_close(ours(x), layer(x))
        assert dynamo_onnx.report(ours).graphs


def test_given_states() -> None:
    layer = nn.LSTM(4, 6, bidirectional=True).eval()
    states = torch.randn(2, 3, 6), torch.randn(2, 3, 6)
    x = torch.randn(5, 3, 4)
    with torch._dynamo.config.patch(allow_rnn=True), torch.no_grad():
        ours = torch.compile(layer, backend="onnx", options={"strict": True})
        torch.testing.assert_close(ours(x, states), layer(x, states))


def test_an_lstm_is_one_node_for_each_layer_and_direction() -> None:
    layer = nn.LSTM(4, 6, num_layers=2, bidirectional=True).eval()
    with torch._dynamo.config.patch(allow_rnn=True), torch.no_grad():
        ours = torch.compile(layer, backend="onnx", options={"strict": True})
        ours(torch.randn(5, 3, 4))
    (program,) = dynamo_onnx.programs(ours)
    operators = [n.op_type for n in program.program.model.graph]
    assert operators.count("LSTM") == 4
