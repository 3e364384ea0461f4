"""`python -m dynamo_onnx`: run as a user does, in a process of its own or by `main`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import onnx
import pytest

from dynamo_onnx.__main__ import main

MODEL = """
import torch

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(30, 8)

    def forward(self, ids, scale=None):
        x = self.embed(ids).softmax(-1)
        return x if scale is None else x * scale

def bad():
    class Bad(torch.nn.Module):
        def forward(self, x):
            return torch.linalg.eig(x).eigenvalues.real
    return Bad()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "users_model.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "users_model", raising=False)
    return tmp_path


def test_a_model_is_exported_run_and_timed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", "users_model:Model", "--args", "int64[2,5]<30", "-o", "model.onnx"]
    assert main([*command, "--dynamic", "ids:0=batch", "--verify"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("model.onnx: ")
    assert said.err == ""
    (dim, _) = onnx.load("model.onnx").graph.input[0].type.tensor_type.shape.dim
    assert dim.dim_param == "batch"
    np.save("ids.npy", np.arange(10).reshape(2, 5))
    assert main(["run", "model.onnx", "--input", "ids.npy", "--output", "results"]) == 0
    assert "float32[2, 5, 8]" in capsys.readouterr().out
    (result,) = (folder / "results").iterdir()
    np.testing.assert_allclose(np.load(result).sum(-1), np.ones((2, 5)), rtol=1e-5)
    assert main(["bench", "model.onnx", "--input", "ids=int64[3,5]<30", "--runs", "3"]) == 0
    assert "ms a run" in capsys.readouterr().out


def test_the_module_is_a_command(folder: Path) -> None:
    command = [sys.executable, "-m", "dynamo_onnx", "export", "users_model:Model"]
    command += ["--args", "int64[2,5]", "--kwargs", "scale=float32[8]", "-o", "model.onnx"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("model.onnx: ")
    names = [i.name for i in onnx.load(folder / "model.onnx").graph.input]
    assert names == ["ids", "scale"]


def test_a_report_is_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["report", "users_model:Model", "--args", "int64[2,5]", "--artifacts", "reports"]
    assert main(command) == 0
    assert "the report is in" in capsys.readouterr().out
    command = ["report", "users_model:bad", "--args", "float32[3,3]", "--artifacts", "reports"]
    assert main([*command, "--sarif"]) == 1
    said = capsys.readouterr().err
    assert "aten.linalg_eig" in said
    assert "report: " in said
    found = sorted(path.suffix for path in (folder / "reports").iterdir())
    assert found == [".md", ".md", ".sarif"]


@pytest.mark.usefixtures("folder")
def test_a_graph_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    main(["export", "users_model:Model", "--args", "int64[2,5]", "-o", "model.onnx"])
    assert main(["view", "model.onnx", "--picture", "graph.svg"]) == 0
    root = ET.parse("graph.svg").getroot()
    said = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"ids", "int64[2, 5]", "Gather", "embed.weight float[30, 8]", "Softmax"} <= {*said}
    graph = onnx.load("model.onnx").graph
    weights = {tensor.name for tensor in graph.initializer}
    read = [name for node in graph.node for name in node.input if name and name not in weights]
    edges = root.findall("{http://www.w3.org/2000/svg}path")
    assert len(edges) == len(read) + len(graph.output)
    types = [t for t in root.iter("{http://www.w3.org/2000/svg}text") if t.get("class") == "type"]
    ends = [float(t.attrib["x"]) + 6 * len(t.text or "") for t in types]
    assert max(ends) <= float(root.attrib["width"])  # none is cut off
    assert main(["view", "model.onnx", "--picture", "graph.gif"]) == 1
    assert "it is a .svg or a .png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["export", "users_model", "-o", "x.onnx"], "spell the model as module:name"),
        (["export", "nothing:Model", "-o", "x.onnx"], "cannot be loaded: No module named"),
        (["export", "users_model:Other", "-o", "x.onnx"], "has no attribute 'Other'"),
        (["export", "users_model:Model", "--args", "5", "-o", "x.onnx"], "'5' is no input"),
        (["export", "users_model:Model", "--args", "x.npy", "-o", "x.onnx"], "cannot be read"),
        (["export", "users_model:Model", "--args", "int8[1]", "--dynamic", "y:0=n", "-o", "x"],
         "the inputs: ids"),
        (["run", "absent.onnx"], "absent.onnx is no file"),
        (["run", "users_model.py"], "onnxruntime does not open users_model.py"),
        (["view", "absent.onnx"], "absent.onnx is no file"),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.usefixtures("folder")
def test_what_cannot_be_done_is_said(
    command: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 1
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
def test_inputs_that_lack_or_are_unknown_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    main(["export", "users_model:Model", "--args", "int64[2,5]", "-o", "model.onnx"])
    assert main(["run", "model.onnx"]) == 1
    assert "--input lacks ids tensor(int64)[2, 5]" in capsys.readouterr().err
    assert main(["run", "model.onnx", "--input", "x=int64[1]"]) == 1
    assert "the file's inputs: ids" in capsys.readouterr().err


def test_a_model_is_explained_on_a_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["explain", "users_model:Model", "--args", "int64[2,5]<30", "--calls", "2"]
    assert main([*command, "-o", "report.html"]) == 0
    said = capsys.readouterr().out
    assert "1 graphs (0/0), 1 regions: 2 operators native" in said
    assert "measured, with profilers on: " in said
    assert "in 2 runs and 0 in eager operators" in said
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    assert main([*command, "-o", "report.pdf"]) == 1
    assert "must end in one of .html, .md, .json" in capsys.readouterr().err
