"""The exporter's former names do what `export` does."""

from __future__ import annotations

import logging
from pathlib import Path

import onnxruntime as ort
import pytest
import torch

import dynamo_onnx
from dynamo_onnx import (
    DiagnosticOptions,
    ExportOptions,
    OnnxRegistry,
    ONNXRuntimeOptions,
    OptionError,
)
from dynamo_onnx.lowering.rule import Rule
from dynamo_onnx.lowering.value import Value


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        return self.linear(x).sin() + (0 if y is None else y)


def test_dynamo_export_is_deprecated_and_exports() -> None:
    model, x, y = Model().eval(), torch.rand(2, 4), torch.rand(3)
    with pytest.warns(DeprecationWarning, match=r"dynamo_onnx\.export"):
        program = dynamo_onnx.dynamo_export(model, x, y=y)
    torch.testing.assert_close(program(x, y=y)[0], model(x, y))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_size_may_vary() -> None:
    model = Model().eval()
    options = ExportOptions(dynamic_shapes=True)
    program = dynamo_onnx.dynamo_export(model, torch.rand(2, 4), export_options=options)
    x = torch.rand(5, 4)
    torch.testing.assert_close(program(x)[0], model(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_registry_has_the_users_lowerings() -> None:
    def double(cx: Rule, self: Value) -> Value:
        return cx.op.Add(self, self)

    registry = OnnxRegistry()
    assert registry.is_registered_op("aten", "sin")
    assert not registry.is_registered_op("aten", "linalg_eig")
    assert registry.get_op_functions("aten", "sin") != [double]
    registry.register_op(double, "aten", "sin")
    assert registry.get_op_functions("aten", "sin") == [double]
    with pytest.raises(OptionError, match=r"no operator aten::nothing\.default"):
        registry.register_op(double, "aten", "nothing")
    model, x = Model().eval(), torch.rand(2, 4)
    options = ExportOptions(onnx_registry=registry)
    program = dynamo_onnx.dynamo_export(model, x, export_options=options)
    assert program.model.opset_imports[""] == registry.opset_version
    torch.testing.assert_close(program(x)[0], 2 * model.linear(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_diagnostics_tell_of_stages_and_write_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    diagnostics = DiagnosticOptions(logging.INFO, report=True, sarif=True, artifacts_dir=tmp_path)
    options = ExportOptions(diagnostic_options=diagnostics)
    dynamo_onnx.dynamo_export(Model().eval(), torch.rand(2, 4), export_options=options)
    assert {"decomposition", "translation"} <= {record.message for record in caplog.records}
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".md", ".sarif"]


def test_a_session_has_the_options_given() -> None:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1
    options = ONNXRuntimeOptions(session_options=settings)
    model, x = Model().eval(), torch.rand(2, 4)
    program = dynamo_onnx.export(model, (x,))
    program.initialize_inference_session(options.session)
    torch.testing.assert_close(program(x)[0], model(x))
