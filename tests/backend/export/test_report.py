"""The reports of an export: what worked, what did not, where, and what to do."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch

from dynamo_onnx import OnnxExporterError, OptionError, export


class Fine(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x).relu()


class Unsupported(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        return torch.linalg.eig(y).eigenvalues.real  # the line in question


class Branch(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sin() if x.sum() > 0 else x


def pages(folder: Path) -> list[str]:
    return [p.read_text() for p in sorted(folder.glob("*.md"))]


def test_a_report_of_what_worked(tmp_path: Path) -> None:
    export(Fine(), (torch.rand(2, 4),), report=True, artifacts_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("onnx_export_")
    assert path.name.endswith("_success.md")
    (page,) = pages(tmp_path)
    assert page.startswith("# Export of Fine to ONNX: succeeded")
    for stage in (
        "capture by torch.export.export(strict=False)",
        "decomposition",
        "translation",
        "model check by onnx.checker",
        "run in onnxruntime",
        "comparison",
    ):
        assert f"| {stage} | done |" in page
    assert "| input | x | FLOAT | [2,4] |" in page
    assert "| `aten.addmm.default` | 1 |" in page
    assert "| `Gemm` | 1 |" in page
    assert "class GraphModule" in page


def test_a_report_of_an_operator_without_onnx_form(tmp_path: Path) -> None:
    with pytest.raises(OnnxExporterError, match="1 operators have no ONNX form") as caught:
        export(Unsupported(), (torch.rand(3, 3),), report=True, artifacts_dir=tmp_path)
    (path,) = tmp_path.glob("*_failure.md")
    assert f"report: {path}" in caught.value.__notes__
    (page,) = pages(tmp_path)
    assert "| translation | failed |" in page
    assert "aten.linalg_eig.default" in page
    assert f"{Path(__file__).name}:" in page
    assert "the line in question" in page
    assert "the line in question" in str(caught.value)


def test_a_report_of_control_flow_on_data(tmp_path: Path) -> None:
    with pytest.raises(OnnxExporterError, match="could not be captured"):
        export(Branch(), (torch.rand(3),), report=True, artifacts_dir=tmp_path)
    (page,) = pages(tmp_path)
    for strict in (False, True):
        assert f"| capture by torch.export.export(strict={strict}) | failed |" in page
        assert f"## capture by torch.export.export(strict={strict})" in page
    assert "torch.compile(model, backend='onnx')" in page


def test_a_report_of_bad_names_and_shapes(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="input_names"):
        export(
            Fine(), (torch.rand(2, 4),), input_names=["a", "b"], report=True, artifacts_dir=tmp_path
        )
    with pytest.raises(OnnxExporterError, match="dynamic_shapes"):
        export(
            Fine(),
            (torch.rand(2, 4),),
            dynamic_shapes={"y": {0: "n"}},
            report=True,
            artifacts_dir=tmp_path,
        )
    first, second = pages(tmp_path)
    assert "input_names has 2 names" in first
    assert "dynamic_shapes" in second


def test_a_report_of_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OnnxExporterError, match="cannot write"):
        export(
            Fine(),
            (torch.rand(2, 4),),
            tmp_path / "file" / "model.onnx",
            report=True,
            artifacts_dir=tmp_path / "reports",
        )
    (page,) = pages(tmp_path / "reports")
    assert "| saving | failed |" in page
    with pytest.raises(OptionError, match="artifacts_dir: cannot write"):
        export(Fine(), (torch.rand(2, 4),), report=True, artifacts_dir=tmp_path / "file")


def test_a_report_of_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("onnx_ir.save", full)
    with pytest.raises(OnnxExporterError, match=r"cannot write .*: No space left on device"):
        export(
            Fine(),
            (torch.rand(2, 4),),
            tmp_path / "model.onnx",
            external_data=False,
            report=True,
            artifacts_dir=tmp_path,
        )
    (page,) = pages(tmp_path)
    assert "No space left on device" in page


def test_findings_as_sarif(tmp_path: Path) -> None:
    with pytest.raises(OnnxExporterError):
        export(Unsupported(), (torch.rand(3, 3),), sarif_report=True, artifacts_dir=tmp_path)
    (path,) = tmp_path.glob("*.sarif")
    log = json.loads(path.read_text())
    (run,) = log["runs"]
    (result,) = run["results"]
    assert log["version"] == "2.1.0"
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == [result["ruleId"]]
    (place,) = result["locations"]
    place = place["physicalLocation"]
    assert place["artifactLocation"]["uri"] == Path(__file__).as_uri()
    lines = Path(__file__).read_text().splitlines()
    assert "the line in question" in lines[place["region"]["startLine"] - 1]


def test_the_exported_program_is_kept(tmp_path: Path) -> None:
    x = torch.rand(2, 4)
    program = export(Fine(), (x,), dump_exported_program=True, artifacts_dir=tmp_path)
    (path,) = tmp_path.glob("*.pt2")
    again = export(torch.export.load(path))
    onnx.checker.check_model(again.model_proto)
    torch.testing.assert_close(again(x), program(x))
