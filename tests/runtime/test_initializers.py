"""Frozen weights as initializers: every type of them, read where they lie."""

from __future__ import annotations

import resource

import onnx_ir as ir
import pytest
import torch

import dynamo_onnx
from dynamo_onnx.runtime import initializers
from dynamo_onnx.runtime.program import OutputLayout, Program, TensorSpec
from dynamo_onnx.runtime.session import open_session, session_options

WEIGHTS = {
    "float32": torch.randn(3, 4),
    "float64": torch.randn(3, 4, dtype=torch.float64),
    "float16": torch.randn(3, 4, dtype=torch.float16),
    "bfloat16": torch.randn(3, 4, dtype=torch.bfloat16),
    "int64": torch.randint(-(2**40), 2**40, (3, 4)),
    "int8": torch.randint(-128, 128, (3, 4), dtype=torch.int8),
    "uint8": torch.randint(0, 256, (3, 4), dtype=torch.uint8),
    "bool": torch.rand(3, 4) < 0.5,
    "a scalar": torch.tensor(2.5),
    "transposed": torch.randn(4, 3).t(),
    "a part": torch.randn(6, 8)[1:4, 3:7],
}


class Chosen(torch.nn.Module):
    weight: torch.Tensor

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 1, self.weight, torch.zeros_like(self.weight))


@pytest.fixture(params=[True, False], ids=["as files", "as values"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param and not initializers.READS_BUFFERS:
        pytest.skip("this onnxruntime reads no buffers of files in place")
    monkeypatch.setattr(initializers, "READS_BUFFERS", request.param)


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("name", WEIGHTS)
def test_a_weight_of_any_type_and_layout_is_frozen(name: str) -> None:
    module, x = Chosen(WEIGHTS[name]), torch.arange(4)
    compiled = torch.compile(module, backend="onnx", options={"strict": True})
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), module(x), rtol=0, atol=0)
    (program,) = dynamo_onnx.programs(compiled)
    assert len(program.weights) == 1


@pytest.mark.skipif(not initializers.READS_BUFFERS, reason="older onnxruntimes copy weights")
def test_no_weight_is_copied_while_a_session_is_opened() -> None:
    weight = torch.ones(2**24)
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["":23]>'
        "g(float[1] x, float[16777216] w) => (float[16777216] y) { y = Add(x, w) }"
    )
    specs = [
        TensorSpec(name, ir.DataType.FLOAT, shape)
        for name, shape in (("x", (1,)), ("w", (2**24,)), ("y", (2**24,)))
    ]
    program = Program(model, (specs[0], specs[1]), (specs[2],), (OutputLayout(),), "key", 1, {})
    options = session_options({}, threads=1, spinning=False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    opened = open_session(program, options, [("CPUExecutionProvider", {})], {1: weight})
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults * resource.getpagesize() < weight.nbytes / 4
    assert [value.name for value in opened.session.get_inputs()] == ["x"]
