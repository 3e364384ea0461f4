"""Models that torchao has quantized, whole: weights, activations, and PT2E's graphs."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
import torchao.quantization as ao
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
    X86InductorQuantizer,
    get_default_x86_inductor_quantization_config,
)

import dynamo_onnx

CONFIGS: dict[str, Callable[[], object]] = {
    "int8 weights": ao.Int8WeightOnlyConfig,
    "int8 weights and activations": ao.Int8DynamicActivationInt8WeightConfig,
    "int8 weights by channel": lambda: ao.IntxWeightOnlyConfig(
        weight_dtype=torch.int8, granularity=ao.PerAxis(0)
    ),
    "int4 weights by group": lambda: ao.IntxWeightOnlyConfig(
        weight_dtype=torch.int4, granularity=ao.PerGroup(32)
    ),
    "int8 activations, int4 weights": lambda: ao.Int8DynamicActivationIntxWeightConfig(
        weight_dtype=torch.int4, weight_granularity=ao.PerGroup(32)
    ),
}


class Layers(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(64, 96)
        self.second = torch.nn.Linear(96, 40, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


def ops(compiled: Callable[..., object]) -> list[str]:
    return [n.op_type for p in dynamo_onnx.programs(compiled) for n in p.program.model.graph]


@pytest.mark.parametrize("weights", ["auto", "live"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_that_torchao_quantized_runs_whole(name: str, weights: str) -> None:
    model, x = Layers().eval(), torch.randn(5, 64)
    ao.quantize_(model, CONFIGS[name]())
    options = {"strict": True, "weights": weights}
    compiled = torch.compile(model, backend="onnx", options=options)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=2e-4)
        torch.testing.assert_close(compiled(-x), model(-x), rtol=1e-4, atol=2e-4)


def test_quantized_activations_are_multiplied_as_integers() -> None:
    model, x = Layers().eval(), torch.randn(5, 64)
    ao.quantize_(model, ao.Int8DynamicActivationInt8WeightConfig())
    compiled = torch.compile(model, backend="onnx", options={"strict": True})
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=0, atol=0)
    assert ops(compiled).count("MatMulInteger") == 2
    assert not {"MatMul", "Gemm"} & set(ops(compiled))


@pytest.mark.parametrize(
    ("granularity", "block"),
    [(ao.PerGroup(32), 32), (ao.PerGroup(64), 64), (ao.PerGroup(192), 64), (ao.PerAxis(0), 128)],
)
def test_weights_of_4_bits_stay_4_bits(granularity: object, block: int) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(384, 96), torch.nn.Linear(96, 40)).eval()
    config = ao.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=granularity)
    ao.quantize_(model[0], config)
    model[1].weight.requires_grad_(requires_grad=False)
    x = torch.randn(5, 384)
    compiled = torch.compile(model, backend="onnx", options={"strict": True})
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-5)
    (program,) = dynamo_onnx.programs(compiled)
    assert ops(compiled) == ["MatMulNBits", "Gemm"]
    (layer, _) = program.program.model.graph
    assert [layer.attributes.get_int(a) for a in ("bits", "block_size")] == [4, block]
    assert not [n for n, w in program.weights.items() if w.dtype == torch.int8]
    assert sum(w.nbytes for w in program.weights.values()) < 384 * 96 + 41 * 96 * 4 + 96 * 4
    report = dynamo_onnx.report(compiled)
    assert report.integer_layers == 1
    assert "linear layers on the model's own 4-bit weights: 1" in str(report)


@pytest.mark.parametrize("name", ["int8 weights", "int4 weights by group"])
def test_the_option_to_quantize_says_that_a_model_is_quantized(name: str) -> None:
    model, x = Layers().eval(), torch.randn(5, 64)
    ao.quantize_(model, CONFIGS[name]())
    options = {"strict": True, "quantize": "int8"}
    compiled = torch.compile(model, backend="onnx", options=options)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=2e-4)
    (quantized,) = dynamo_onnx.report(compiled).quantized
    assert quantized.layers == 0
    assert quantized.left == {"the model has integers for its weight already": 2}


def test_weights_of_more_bits_or_with_zero_points_are_floats() -> None:
    for mapping in (ao.MappingType.ASYMMETRIC, ao.MappingType.SYMMETRIC):
        model, x = Layers().eval(), torch.randn(5, 64)
        bits = torch.int4 if mapping is ao.MappingType.ASYMMETRIC else torch.int5
        config = ao.IntxWeightOnlyConfig(
            weight_dtype=bits, granularity=ao.PerGroup(32), mapping_type=mapping
        )
        ao.quantize_(model, config)
        compiled = torch.compile(model, backend="onnx", options={"strict": True})
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-5)
        assert ops(compiled).count("Gemm") == 2


def test_a_4_bit_weight_that_changes_is_read_again() -> None:
    model, x = Layers().eval(), torch.randn(5, 64)
    ao.quantize_(model, CONFIGS["int4 weights by group"]())
    compiled = torch.compile(model, backend="onnx", options={"strict": True})
    with torch.no_grad():
        before = compiled(x)
        model.first.weight.scale.mul_(2.0)
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-5)
        assert not torch.equal(compiled(x), before)


def test_the_same_integers_with_other_scales_are_another_weight() -> None:
    weight = torch.randint(-8, 8, (40, 64), dtype=torch.int8)
    scales = torch.rand(2, 40, 2)

    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", weight)
            self.register_buffer("first", scales[0].clone())
            self.register_buffer("second", scales[1].clone())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            grouped = self.weight.view(40, 2, 32).float()
            one, two = (
                (grouped * s.view(40, 2, 1)).view(40, 64) for s in (self.first, self.second)
            )
            return torch.nn.functional.linear(x, one) - torch.nn.functional.linear(x, two)

    model, x = Twice().eval(), torch.randn(5, 64)
    compiled = torch.compile(model, backend="onnx", options={"strict": True})
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)
    assert ops(compiled).count("MatMulNBits") == 1


@pytest.mark.parametrize("channels", [6, 3])
def test_a_convolution_whose_weight_is_scaled_by_input_channel(channels: int) -> None:
    class Conv(QuantizedConv):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scale, zero = self.by_input, torch.zeros(channels, dtype=torch.long)
            weight = q.dequantize_per_channel(self.weight, scale, zero, 1, -128, 127, torch.int8)
            return rounded(torch.conv2d(rounded(x, 0.05), weight, self.bias), 0.5)

    model = Conv(1.0).eval()
    model.weight = torch.randint(-128, 128, (3, channels, 3, 3), dtype=torch.int8)
    model.register_buffer("by_input", torch.rand(channels) / 10)
    x = torch.randn(2, channels, 9, 9)
    compiled = torch.compile(model, backend="onnx", options={"strict": True})
    with torch.no_grad():
        different = (compiled(x) - model(x)).abs() > 0.25
    assert different.float().mean() < 0.01


def converted(model: torch.nn.Module, x: torch.Tensor, *, dynamic: bool) -> torch.nn.Module:
    """The model after PT2E."""
    quantizer = X86InductorQuantizer()
    quantizer.set_global(get_default_x86_inductor_quantization_config(is_dynamic=dynamic))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = prepare_pt2e(torch.export.export(model, (x,)).module(), quantizer)
        prepared(x)
        return convert_pt2e(prepared)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_linear_layers_after_pt2e(dynamic: bool) -> None:
    x = torch.randn(5, 64)
    model = converted(Layers().eval(), x, dynamic=dynamic)
    compiled = torch.compile(model, backend="onnx", options={"strict": True})
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-2)
    assert ops(compiled).count("MatMulIntegerToFloat") == 2
    assert not {"DequantizeLinear", "MatMul", "Gemm"} & set(ops(compiled))


q = torch.ops.quantized_decomposed


def rounded(x: torch.Tensor, scale: float) -> torch.Tensor:
    return q.dequantize_per_tensor(
        q.quantize_per_tensor(x, scale, 128, 0, 255, torch.uint8), scale, 128, 0, 255, torch.uint8
    )


class Between(torch.nn.Module):
    """A layer between quantized tensors."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return rounded(self.layer(rounded(x, 0.05)), 0.001)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(torch.nn.Conv2d(4, 6, 3), (2, 4, 9, 9)), (torch.nn.Linear(64, 40), (5, 64))],
    ids=["conv", "linear"],
)
def test_float_weights_between_quantized_tensors_are_not_rounded(
    layer: torch.nn.Module, shape: tuple[int, ...]
) -> None:
    model, x = Between(layer).eval(), torch.randn(shape)
    compiled = torch.compile(model, backend="onnx", options={"strict": True})
    with torch.no_grad():
        different = (compiled(x) - model(x)).abs() > 0.0005
    assert different.float().mean() < 0.01  # where the sums of floats differ, and a step with them


class QuantizedConv(torch.nn.Module):
    """A convolution as PT2E's graphs have it, with one weight that is all zeros."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randint(-128, 128, (3, 4, 3, 3), dtype=torch.int8))
        self.weight[0] = 0
        self.register_buffer("scale", torch.tensor([1.2e-7, 0.02, 0.01]))
        self.register_buffer("zero", torch.zeros(3, dtype=torch.long))
        self.register_buffer("bias", torch.tensor([bias, 0.5, -0.25]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = q.dequantize_per_channel(
            self.weight, self.scale, self.zero, 0, -128, 127, torch.int8
        )
        return rounded(torch.conv2d(rounded(x, 0.05), weight, self.bias), 0.5)


@pytest.mark.parametrize(("bias", "dequantized"), [(1.0, 3), (60.0, 2)])
def test_a_bias_is_rounded_where_it_fits(bias: float, dequantized: int) -> None:
    model, x = QuantizedConv(bias).eval(), torch.randn(2, 4, 9, 9)
    compiled = torch.compile(model, backend="onnx", options={"strict": True})
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=0, atol=0.5)
        torch.testing.assert_close(compiled(x)[:, 0], model(x)[:, 0], rtol=0, atol=0)
    # Of the input, the weight, the result, and of the bias if it is rounded.
    assert ops(compiled).count("DequantizeLinear") == dequantized + 1


def test_convolutions_after_pt2e() -> None:
    x = torch.randn(2, 16, 9, 9)
    layers = [torch.nn.Conv2d(16, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(32, 8, 1)]
    model = converted(torch.nn.Sequential(*layers).eval(), x, dynamic=False)
    compiled = torch.compile(model, backend="onnx", options={"strict": True})
    with torch.no_grad():
        expected = model(x)
        error = (compiled(x) - expected).abs().max()
    # One step of the quantization between the layers, which one weight passes on.
    assert error < 0.01 * expected.abs().max()
