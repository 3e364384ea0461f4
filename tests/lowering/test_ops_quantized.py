"""Quantized tensors against eager: what PT2E's graphs are made of."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import pytest
import torch
import torch.ao.quantization.fx._decomposed  # defines the operators

from dynamo_onnx.runtime import bytes as products_of_bytes

from .harness import Case, check, lower

q = torch.ops.quantized_decomposed
I8, U8, I16 = torch.int8, torch.uint8, torch.int16


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    if dtype is torch.float32:
        return torch.randn(shape, generator=generator)
    info = torch.iinfo(dtype)
    return torch.randint(int(info.min), int(info.max) + 1, shape, generator=generator, dtype=dtype)


X = drawn(3, 4, 5)
SCALES, ZEROS = torch.tensor([0.02, 0.5, 1.0, 0.013]), torch.tensor([0, -128, 127, 5])
SCALE, ZERO = torch.tensor([0.031], dtype=torch.float64), torch.tensor([-7])


def quantized(dtype: torch.dtype, least: int, greatest: int) -> Any:
    return lambda x: q.quantize_per_tensor(x, 0.031, 7, least, greatest, dtype)


def dequantized(dtype: torch.dtype, least: int, greatest: int) -> Any:
    return lambda x: q.dequantize_per_tensor(x, 0.031, 7, least, greatest, dtype)


def rounded(x: torch.Tensor, scale: float) -> torch.Tensor:
    y = q.quantize_per_tensor(x, scale, 120, 0, 255, U8)
    return q.dequantize_per_tensor(y, scale, 120, 0, 255, U8)


def both_ways(x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    y = q.quantize_per_tensor.tensor(x, scale, zero, -128, 127, I8)
    return q.dequantize_per_tensor.tensor(y, scale, zero, -128, 127, I8)


def per_channel(axis: int, least: int = -128) -> Any:
    def run(x: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor) -> torch.Tensor:
        y = q.quantize_per_channel(x, scales, zeros.clamp(least), axis, least, 127, I8)
        return q.dequantize_per_channel(y, scales, zeros.clamp(least), axis, least, 127, I8)

    return run


def dynamic(symmetric: bool, dtype: torch.dtype) -> Any:
    info = torch.iinfo(dtype)
    low, high = int(info.min), int(info.max)
    choose = q.choose_qparams_symmetric if symmetric else q.choose_qparams

    def run(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        scale, zero = choose.tensor(x, low, high, 2**-12, dtype)
        y = q.quantize_per_tensor.tensor(x, scale, zero, low, high, dtype)
        return scale, zero, q.dequantize_per_tensor.tensor(y, scale, zero, low, high, dtype)

    return run


def linear(zero: int, dtype: torch.dtype, *, bias: bool = True) -> Any:
    """As PT2E's graphs have a linear layer."""
    info = torch.iinfo(dtype)

    def run(
        x: torch.Tensor, w: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, b: torch.Tensor
    ) -> torch.Tensor:
        y = q.dequantize_per_tensor(x, 0.1, zero, int(info.min), int(info.max), dtype)
        weight = q.dequantize_per_channel(w, scales, zeros, 0, -128, 127, I8)
        return torch.nn.functional.linear(y, weight, b if bias else None)

    return run


def weight_only(x: torch.Tensor, w: torch.Tensor, s: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    return x @ q.dequantize_per_channel(w, s, z, 0, -128, 127, I8).t()


def conv(x: torch.Tensor, w: torch.Tensor, s: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    y = q.dequantize_per_tensor(q.quantize_per_tensor(x, 0.1, 9, 0, 255, U8), 0.1, 9, 0, 255, U8)
    weight = q.dequantize_per_channel(w, s, torch.zeros(4, dtype=torch.long), 0, -128, 127, I8)
    return torch.conv2d(y, weight, b)


# Extremes, whose pairs of products overflow 16 bits.
EXTREME = (torch.full((2, 64), 255, dtype=U8), torch.full((4, 64), 127, dtype=I8))
LINEAR = (drawn(4, 64, dtype=I8), SCALES, ZEROS, torch.randn(4))

CASES = [
    Case("quantize to uint8", quantized(U8, 0, 255), (X,), max_nodes=1),
    Case("quantize to int8", quantized(I8, -128, 127), (X,), max_nodes=1),
    Case("quantize far values", quantized(I8, -128, 127), (X * 100,)),
    Case("quantize to 7 bits", quantized(U8, 0, 127), (X * 9,)),
    Case("quantize to a narrow range", quantized(I8, -127, 127), (X * 9,)),
    Case("quantize to int16", quantized(I16, -32768, 32767), (X * 9000,)),
    Case("quantize bfloat16", quantized(I8, -128, 127), (X.bfloat16(),)),
    Case("quantize a dynamic shape", quantized(U8, 0, 255), (X,), dynamic=True),
    Case("dequantize uint8", dequantized(U8, 0, 255), (drawn(3, 4, dtype=U8),), max_nodes=1),
    Case("dequantize int8", dequantized(I8, -128, 127), (drawn(3, 4, dtype=I8),), max_nodes=1),
    Case("dequantize int16", dequantized(I16, -100, 100), (drawn(3, 4, dtype=I16),)),
    Case("scale and zero point as tensors", both_ways, (X, SCALE, ZERO)),
    Case("quantized twice", lambda x: rounded(rounded(x, 0.03), 0.011), (X,)),
    Case("per channel", per_channel(1), (X, SCALES, ZEROS)),
    Case("per channel of the last dim", per_channel(-1), (drawn(3, 4), SCALES, ZEROS)),
    Case("per channel, a narrow range", per_channel(1, -127), (X, SCALES, ZEROS)),
    Case("chosen parameters", dynamic(symmetric=False, dtype=U8), (X,)),
    Case("chosen parameters of int8", dynamic(symmetric=False, dtype=I8), (X,)),
    Case("chosen parameters of positive values", dynamic(symmetric=False, dtype=U8), (X.abs(),)),
    Case("chosen parameters of zeros", dynamic(symmetric=False, dtype=U8), (X * 0,)),
    Case("chosen symmetric parameters", dynamic(symmetric=True, dtype=I8), (X,)),
    Case("chosen symmetric parameters of uint8", dynamic(symmetric=True, dtype=U8), (X,)),
    Case("linear of uint8", linear(117, U8), (drawn(5, 64, dtype=U8), *LINEAR), max_nodes=3),
    Case("linear of int8", linear(-3, I8), (drawn(5, 64, dtype=I8), *LINEAR)),
    Case("linear without bias", linear(9, U8, bias=False), (drawn(5, 64, dtype=U8), *LINEAR)),
    Case("linear of 3 dims", linear(9, U8), (drawn(2, 5, 64, dtype=U8), *LINEAR)),
    Case("linear of extremes", linear(0, U8), (EXTREME[0], EXTREME[1], *LINEAR[1:])),
    Case("linear, a dynamic shape", linear(9, U8), (drawn(5, 64, dtype=U8), *LINEAR), dynamic=True),
    Case("linear of a weight alone", weight_only, (drawn(5, 64), *LINEAR[:3])),
    Case("conv", conv, (drawn(2, 3, 6, 6), drawn(4, 3, 3, 3, dtype=I8), SCALES, torch.randn(4))),
    Case(
        "conv of a weight alone",
        lambda x, w, s, z: torch.conv2d(x, q.dequantize_per_channel(w, s, z, 0, -128, 127, I8)),
        (drawn(2, 3, 6, 6), drawn(4, 3, 3, 3, dtype=I8), SCALES, ZEROS),
    ),
    Case("_int_mm", torch.ops.aten._int_mm, (drawn(32, 64, dtype=I8), drawn(64, 8, dtype=I8))),
    Case("_int_mm of uint8", torch.ops.aten._int_mm, (EXTREME[0].repeat(16, 1), EXTREME[1].t())),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_quantized(case: Case) -> None:
    check(case)


DECLINED = {
    "a zero point of 200 for torch.int8": (
        lambda x: q.dequantize_per_tensor(x, 0.1, 200, -128, 127, I8),
        (drawn(3, 4, dtype=I8),),
    ),
    "zero points in torch.float32": (
        lambda x, s, z: q.dequantize_per_channel(x, s, z, 0, -128, 127, I8),
        (drawn(4, 3, dtype=I8), SCALES, ZEROS + 0.5),
    ),
    "scales in torch.float64": (
        lambda x, s, z: q.quantize_per_channel(x, s, z, 0, -128, 127, I8),
        (drawn(4, 3), SCALES.double(), ZEROS),
    ),
    "a quantized tensor that becomes torch.bfloat16": (
        lambda x: q.dequantize_per_tensor(x, 0.1, 2, -128, 127, I8, out_dtype=torch.bfloat16),
        (drawn(3, 4, dtype=I8),),
    ),
    "the range of torch.bfloat16": (
        lambda x: q.choose_qparams.tensor(x, -128, 127, 1e-5, I8),
        (X.bfloat16(),),
    ),
}


@pytest.mark.parametrize("reason", DECLINED)
def test_what_is_left_to_eager(reason: str) -> None:
    fn, args = DECLINED[reason]
    (told,) = lower(fn, *args).reasons
    assert reason in told.detail


INTEGER = [c for c in CASES if c.name.startswith(("linear", "_int_mm", "conv"))]


@pytest.mark.parametrize("case", INTEGER, ids=str)
def test_a_processor_that_saturates_computes_the_same(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynamo_onnx.runtime.session.sums_exactly", lambda: False)
    check(case)


def test_such_a_processor_multiplies_by_no_int8() -> None:
    program = lower(linear(9, U8), drawn(5, 64, dtype=U8), *LINEAR).program
    assert program is not None
    graph = ir.serde.serialize_model(program.model).graph
    products_of_bytes.make_exact(graph)
    made_by = {name: node for node in graph.node for name in node.output}
    (node,) = [n for n in graph.node if n.op_type == "MatMulIntegerToFloat"]
    for index in (1, 5):
        cast = made_by[node.input[index]]
        assert (cast.op_type, cast.attribute[0].i) == ("Cast", ir.DataType.UINT8)


@pytest.mark.parametrize(
    ("capabilities", "exact"),
    [
        ({"architecture": "x86_64", "avx2": True}, False),
        ({"architecture": "x86_64", "avx512_vnni": True}, True),
        ({"architecture": "x86_64", "avx_vnni": True}, True),
        ({"architecture": "aarch64"}, True),
        ({}, False),
    ],
)
def test_what_torch_says_of_a_processor(
    capabilities: dict[str, Any], exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    products_of_bytes.sums_exactly.cache_clear()
    assert products_of_bytes.sums_exactly() is exact
    products_of_bytes.sums_exactly.cache_clear()
