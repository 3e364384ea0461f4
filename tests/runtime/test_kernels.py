"""onnxruntime's own registry answers what it can compute."""

from __future__ import annotations

import pytest

from dynamo_onnx.runtime.kernels import kernel_table

CPU = kernel_table(("CPUExecutionProvider",), 23)


@pytest.mark.parametrize(
    ("op_type", "types", "answer"),
    [
        ("MatMul", (("T", "tensor(float)"),), True),
        ("MatMul", (("T", "tensor(bfloat16)"),), False),
        ("Conv", (("T", "tensor(double)"),), False),
        ("Attention", (("T1", "tensor(float)"), ("T2", "tensor(float)")), True),
        ("NoSuchOperator", (), False),
    ],
)
def test_which_kernels_there_are(op_type: str, types: tuple, answer: bool) -> None:
    assert CPU.accepts("", op_type, types) is answer


def test_a_variable_with_one_type_is_that_type() -> None:
    signature = CPU.signature("", "Or")
    assert signature is not None
    assert signature.outputs == ("tensor(bool)",)


def test_variadic_and_optional_inputs() -> None:
    concat, norm = CPU.signature("", "Concat"), CPU.signature("", "LayerNormalization")
    assert concat is not None
    assert norm is not None
    assert concat.variadic
    assert not norm.variadic
    assert norm.inputs == ("T", "T", "T")
    assert CPU.signature("", "NoSuchOperator") is None


def test_an_older_opset_has_older_operators() -> None:
    assert kernel_table(("CPUExecutionProvider",), 22).signature("", "Attention") is None
