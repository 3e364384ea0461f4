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
