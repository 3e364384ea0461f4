"""Depthwise convolutions by kernels that are no constants."""

from __future__ import annotations

import copy
from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

import dynamo_onnx
from dynamo_onnx.runtime import depthwise, session
from dynamo_onnx.runtime.depthwise import DOMAIN, lay_out_depthwise

FLOAT, DOUBLE = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE
RNG = np.random.default_rng(0)

needs_blocks = pytest.mark.skipif(
    depthwise.block() < depthwise.SMALLEST_BLOCK,
    reason="this processor has no convolutions in blocks of channels",
)


def model_of(
    kernel: list[int | str],
    *,
    channels: int,
    group: int,
    dtype: int = FLOAT,
    bias: bool = False,
    **attributes: object,
) -> onnx.ModelProto:
    """image [N, channels, H, W], kernel, perhaps bias -> one convolution."""
    inputs = [
        helper.make_tensor_value_info("image", dtype, ["N", channels, "H", "W"]),
        helper.make_tensor_value_info("kernel", dtype, kernel),
    ]
    if bias:
        inputs.append(helper.make_tensor_value_info("bias", dtype, [kernel[0]]))
    names = [value.name for value in inputs]
    conv = helper.make_node("Conv", names, ["y"], "conv/Conv", group=group, **attributes)
    output = helper.make_tensor_value_info("y", dtype, None)
    graph = helper.make_graph([conv], "convolution", inputs, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    opened = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (result,) = opened.run(None, feeds)
    return np.asarray(result)


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(f"{node.domain}.{node.op_type}".lstrip(".") for node in model.graph.node)


@needs_blocks
@pytest.mark.parametrize("channels", [4, 16, 20, 48])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("size", "attributes"),
    [
        ([7, 7], {"pads": [3, 3, 3, 3]}),
        ([3, 3], {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ([3, 5], {"dilations": [2, 1], "pads": [0, 1, 2, 3]}),
        ([1, 1], {}),
        ([12, 13], {}),
    ],
)
def test_a_kernel_that_changes_is_laid_out(
    channels: int, bias: bool, size: list[int], attributes: dict[str, list[int]]
) -> None:
    kernel = [channels, 1, *size]
    model = model_of(kernel, channels=channels, group=channels, bias=bias, **attributes)
    feeds = {
        "image": RNG.standard_normal([3, channels, 12, 13], np.float32),
        "kernel": RNG.standard_normal(kernel, np.float32),
    }
    if bias:
        feeds["bias"] = RNG.standard_normal([channels], np.float32)
    expected = run(model, feeds)
    lay_out_depthwise(model)
    found = kinds(model)
    assert found[f"{DOMAIN}.Conv"] == 1
    assert found[f"{DOMAIN}.ReorderInput"] == 2
    assert found["Conv"] == 0
    np.testing.assert_allclose(run(model, feeds), expected, rtol=1e-4, atol=1e-4)


@needs_blocks
def test_sizes_of_a_kernel_may_be_known_in_the_run_only() -> None:
    model = model_of([16, 1, "K", "L"], channels=16, group=16)
    plain = model_of([16, 1, "K", "L"], channels=16, group=16)
    lay_out_depthwise(model)
    assert kinds(model)[f"{DOMAIN}.Conv"] == 1
    for size in ([2, 3], [5, 4]):
        feeds = {
            "image": RNG.standard_normal([2, 16, 9, 9], np.float32),
            "kernel": RNG.standard_normal([16, 1, *size], np.float32),
        }
        np.testing.assert_allclose(run(model, feeds), run(plain, feeds), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(model_of([6, 1, 3, 3], channels=6, group=6), id="channels"),
        pytest.param(model_of([16, 1, 3, 3], channels=16, group=16, dtype=DOUBLE), id="float64"),
        pytest.param(model_of([32, 1, 3, 3], channels=16, group=16), id="more results"),
        pytest.param(model_of([16, 2, 3, 3], channels=32, group=16), id="pairs of channels"),
        pytest.param(model_of([16, 16, 3, 3], channels=16, group=1), id="one group"),
        pytest.param(model_of(["O", 1, 3, 3], channels=16, group=16), id="unknown"),
    ],
)
def test_other_convolutions_stay(model: onnx.ModelProto) -> None:
    before = model.SerializeToString(deterministic=True)
    lay_out_depthwise(model)
    assert model.SerializeToString(deterministic=True) == before


def test_a_constant_kernel_is_left_to_onnxruntime() -> None:
    model = model_of([16, 1, 3, 3], channels=16, group=16)
    graph = model.graph
    del graph.input[1]
    graph.initializer.append(numpy_helper.from_array(np.ones([16, 1, 3, 3], np.float32), "stored"))
    graph.node.insert(0, helper.make_node("Neg", ["stored"], ["kernel"], "conv/Neg"))
    graph.value_info.append(helper.make_tensor_value_info("kernel", FLOAT, [16, 1, 3, 3]))
    before = model.SerializeToString(deterministic=True)
    lay_out_depthwise(model)
    assert model.SerializeToString(deterministic=True) == before


@needs_blocks
def test_a_step_of_training_lays_its_kernels_out(monkeypatch: pytest.MonkeyPatch) -> None:
    laid_out: Counter[str] = Counter()

    def watched(model: onnx.ModelProto) -> None:
        lay_out_depthwise(model)
        laid_out.update(kinds(model))

    monkeypatch.setattr(session, "lay_out_depthwise", watched)
    module = nn.Conv2d(8, 8, 7, padding=3, groups=8)
    compiled = torch.compile(module, backend="onnx", options={"strict": True})
    x, direction = torch.randn(2, 8, 20, 20, requires_grad=True), torch.randn(2, 8, 20, 20)
    inputs = [x, *module.parameters()]
    expected = torch.autograd.grad(module(x), inputs, direction)
    found = torch.autograd.grad(compiled(x), inputs, direction)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    # Forward, the gradient by the input and that by the kernel.
    assert laid_out[f"{DOMAIN}.Conv"] == 3
    assert laid_out["Conv"] == 0


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6),
        nn.Conv2d(8, 8, (3, 2), stride=(3, 1), dilation=(1, 2), groups=8, bias=False),
        nn.Conv2d(20, 20, 5, padding=2, groups=20, padding_mode="reflect"),
        nn.Conv2d(8, 16, 3, groups=8),
        nn.ConvTranspose2d(8, 8, 3, stride=2, padding=1, output_padding=1, groups=8),
    ],
    ids=["strides", "dilation", "a part of a block", "two of each", "transposed"],
)
def test_gradients_of_depthwise_convolutions_are_eagers(
    module: nn.Conv2d | nn.ConvTranspose2d, dynamic: bool
) -> None:
    module = copy.deepcopy(module)
    options = {"strict": True}
    compiled = torch.compile(module, backend="onnx", dynamic=dynamic, options=options)
    for batch, side in ((3, 13), (2, 16)):
        x = torch.randn(batch, module.in_channels, side, side, requires_grad=True)
        inputs, y = [x, *module.parameters()], module(x)
        direction = torch.randn_like(y)
        expected = torch.autograd.grad(y, inputs, direction)
        found = torch.autograd.grad(compiled(x), inputs, direction)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_batch_may_be_empty() -> None:
    module = nn.Conv2d(8, 8, 3, groups=8)
    compiled = torch.compile(module, backend="onnx")
    x = torch.randn(0, 8, 9, 9, requires_grad=True)
    inputs = [x, *module.parameters()]
    expected = torch.autograd.grad(module(x).sum(), inputs)
    torch.testing.assert_close(torch.autograd.grad(compiled(x).sum(), inputs), expected)


@needs_blocks
def test_the_users_level_of_optimization_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(model: onnx.ModelProto) -> None:
        pytest.fail("laid out where onnxruntime was not to lay anything out")

    monkeypatch.setattr(session, "lay_out_depthwise", never)
    level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options = {"session_options": {"graph_optimization_level": level}}
    module = nn.Conv2d(8, 8, 3, groups=8)
    compiled = torch.compile(module, backend="onnx", options={**options, "strict": True})
    x = torch.randn(1, 8, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), module(x))
    dynamo_onnx.reset()
