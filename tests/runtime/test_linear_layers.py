"""The pass over programs: what it rewrites, what it leaves, and that it changes no program."""

from __future__ import annotations

import onnx_ir as ir
import pytest
import torch

from dynamo_onnx.runtime.linear_layers import Origin, Prepared, as_lowered, quantize_layers
from dynamo_onnx.runtime.program import OutputLayout, Program, Quantization, TensorSpec
from dynamo_onnx.runtime.quantize import QuantizedWeights

F32 = ir.DataType.FLOAT


def program_of(text: str) -> Program:
    """A program as its text says."""
    model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["":23, "com.microsoft":1]>{text}')

    def specs(values: list[ir.Value]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(v.name or "", F32, tuple(v.shape or ())) for v in values)  # type: ignore[arg-type]

    inputs, outputs = specs(list(model.graph.inputs)), specs(list(model.graph.outputs))
    layouts = (OutputLayout(),) * len(outputs)
    return Program(model, inputs, outputs, layouts, "key", len(model.graph), {}, Quantization(8, 4))


def quantized(program: Program, *weights: int, **left: str) -> Prepared:
    """The program with inputs at these positions frozen; `left` are those to leave, as `_1`."""
    assert program.quantization is not None
    frozen = {i: torch.randn([int(d) for d in program.inputs[i].shape]) for i in weights}
    reasons = {int(name[1:]): why for name, why in left.items()}
    return quantize_layers(program, program.quantization, frozen, reasons, QuantizedWeights())


def ops(program: Program) -> list[str]:
    return [n.op_type for n in program.model.graph]


@pytest.mark.parametrize(
    ("node", "shape", "part"),
    [
        ("MatMul(x, w)", "64, 48", "_transposed"),
        ("Gemm(x, w)", "64, 48", "_transposed"),
        ("Gemm<transB: int = 1>(x, w)", "48, 64", ""),
        ("com.microsoft.FusedMatMul<transB: int = 1>(x, w)", "48, 64", ""),
        ("com.microsoft.FusedMatMul(x, w)", "64, 48", "_transposed"),
    ],
)
def test_every_product_with_a_weight_on_the_right_is_one(node: str, shape: str, part: str) -> None:
    program = program_of(
        f"g(float[N, 64] x, float[{shape}] w) => (float[N, 48] y) {{ y = {node} }}"
    )
    before = ir.serde.serialize_model(program.model).SerializeToString()
    prepared = quantized(program, 1)
    assert ops(prepared.program) == ["MatMulNBits"]
    (made,) = prepared.program.model.graph
    assert [made.attributes.get_int(a) for a in ("K", "N", "bits")] == [64, 48, 8]
    assert prepared.origins == (Origin(0), Origin(1, f".packed{part}"), Origin(1, f".scales{part}"))
    assert [tuple(t.shape) for t in prepared.made.values()] == [(48, 2, 32), (48, 2)]
    assert [v.name for v in prepared.program.model.graph.outputs] == ["y"]
    assert prepared.program.outputs == program.outputs
    assert ir.serde.serialize_model(program.model).SerializeToString() == before


@pytest.mark.parametrize(
    ("node", "x", "w", "why"),
    [
        ("MatMul(x, w)", "64", "64, 48", "not known to be a matrix"),
        ("Gemm<transA: int = 1>(x, w)", "64, N", "64, 48", "the input is read transposed"),
        ("Gemm<alpha: float = 2.0>(x, w)", "N, 64", "64, 48", "the product is scaled"),
        ("MatMul(x, w)", "N, 64", "64, 31", "fewer than 32 features"),
    ],
)
def test_what_matmulnbits_cannot_say_stays(node: str, x: str, w: str, why: str) -> None:
    program = program_of(f"g(float[{x}] x, float[{w}] w) => (float y) {{ y = {node} }}")
    prepared = quantized(program, 1)
    assert ops(prepared.program) == ops(program)
    assert prepared.origins == as_lowered(program).origins
    assert prepared.quantized is not None
    assert [n for reason, n in prepared.quantized.left.items() if why in reason] == [1]


def test_a_weight_on_the_left_or_of_three_dims_is_no_linear_layer() -> None:
    program = program_of("""g(float[64, 64] x, float[64, 64] w, float[2, 64, 64] v)
        => (float y, float z) { r = Neg(x) y = MatMul(w, r) z = MatMul(x, v) }""")
    prepared = quantized(program, 1, 2)
    assert prepared.quantized is not None
    assert (prepared.quantized.layers, dict(prepared.quantized.left)) == (0, {})


def test_two_layers_share_a_weight_and_one_that_is_named_stays() -> None:
    program = program_of("""g(float[N, 64] x, float[64, 64] w, float[64, 64] v)
        => (float[N, 64] y) { a = Gemm(x, w) b = Gemm(a, w) y = Gemm(b, v) }""")
    prepared = quantized(program, 1, 2, _2="as asked")
    assert ops(prepared.program) == ["MatMulNBits", "MatMulNBits", "Gemm"]
    assert [o.position for o in prepared.origins] == [0, 2, 1, 1]
    told = prepared.quantized
    assert told is not None
    assert (told.layers, dict(told.left)) == (2, {"as asked": 1})
    assert told.before_bytes == 64 * 64 * 4
    assert told.after_bytes == 64 * 64 + 64 * 2 * 4


def test_a_weight_that_is_returned_or_read_elsewhere_stays_an_input_too() -> None:
    program = program_of("""g(float[N, 64] x, float[64, 64] w) => (float[N, 64] y, float[64, 64] z)
        { y = MatMul(x, w) z = Neg(w) }""")
    prepared = quantized(program, 1)
    assert ops(prepared.program) == ["MatMulNBits", "Neg"]
    assert [o.position for o in prepared.origins] == [0, 1, 1, 1]


def test_a_program_without_quantization_is_opened_as_it_is() -> None:
    program = program_of("g(float[N, 64] x) => (float[N, 64] y) { y = Neg(x) }")
    assert as_lowered(program).program is program
    assert as_lowered(program).quantized is None
