"""What is saved runs in plain onnxruntime, from `manifest.json` and the files alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

import dynamo_onnx


class Broken(nn.Module):
    """Two frames: a graph break lies between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.second = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.first(x))
        torch._dynamo.graph_break()
        return self.second(hidden).t()


def run_file(folder: Path, entry: dict[str, Any], inputs: list[np.ndarray]) -> list[np.ndarray]:
    session = ort.InferenceSession(folder / entry["file"], providers=entry["providers"])
    feeds = {p["name"]: x for p, x in zip(entry["inputs"], inputs, strict=True)}
    return session.run([p["name"] for p in entry["outputs"]], feeds)


def test_a_model_with_a_graph_break_is_two_programs_that_plain_onnxruntime_runs(
    tmp_path: Path,
) -> None:
    model, x = Broken(), torch.randn(3, 8)
    compiled = torch.compile(model, backend="onnx", options={"strict": True})
    with torch.no_grad():
        expected = compiled(x)
        torch.testing.assert_close(expected, model(x))
    dynamo_onnx.save(compiled, tmp_path / "saved")

    manifest = json.loads((tmp_path / "saved" / "manifest.json").read_text())
    first, second = manifest["programs"]
    assert first["frame"] != second["frame"]
    (hidden,) = run_file(tmp_path / "saved", first, [x.numpy()])
    (result,) = run_file(tmp_path / "saved", second, [hidden])
    np.testing.assert_allclose(result, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_saved_files_pass_the_onnx_checker_and_carry_the_users_names(tmp_path: Path) -> None:
    compiled = torch.compile(nn.Linear(8, 4), backend="onnx")
    with torch.no_grad():
        compiled(torch.randn(3, 8))
    written = dynamo_onnx.save(compiled, tmp_path)
    onnx.checker.check_model(written[0], full_check=True)
    model = onnx.load(written[0])
    assert {i.name for i in model.graph.initializer} == {"weight", "bias"}
    entry = json.loads((tmp_path / "manifest.json").read_text())["programs"][0]
    assert [p["name"] for p in entry["weights"]] == ["weight", "bias"]
    assert any("check_tensor" in g for g in entry["guards"])


def test_dynamic_dims_are_symbolic_in_the_file(tmp_path: Path) -> None:
    compiled = torch.compile(nn.Linear(8, 4), backend="onnx", dynamic=True)
    with torch.no_grad():
        compiled(torch.randn(3, 8))
    dynamo_onnx.save(compiled, tmp_path)
    entry = json.loads((tmp_path / "manifest.json").read_text())["programs"][0]
    (port,) = [p for p in entry["inputs"] if len(p["shape"]) == 2]
    assert isinstance(port["shape"][0], str)
    x = np.ones((6, 8), dtype=np.float32)
    sizes = [np.array([6]) for p in entry["inputs"] if p is not port]
    assert run_file(tmp_path, entry, [*sizes, x])[0].shape == (6, 4)


def test_an_onnx_program_runs_optimises_and_saves(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 4), nn.Sigmoid())
    compiled = torch.compile(model, backend="onnx")
    x = torch.randn(3, 8)
    with torch.no_grad():
        expected = compiled(x)
    program = dynamo_onnx.programs(compiled)[0].onnx_program
    torch.testing.assert_close(program(x)[0], expected)
    program.optimize()
    program.save(tmp_path / "m.onnx")
    session = ort.InferenceSession(tmp_path / "m.onnx")
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_live_weights_are_inputs_of_the_saved_program(tmp_path: Path) -> None:
    compiled = torch.compile(nn.Linear(8, 4), backend="onnx", options={"weights": "live"})
    with torch.no_grad():
        compiled(torch.randn(3, 8))
    dynamo_onnx.save(compiled, tmp_path)
    entry = json.loads((tmp_path / "manifest.json").read_text())["programs"][0]
    assert len(entry["inputs"]) == 3
    assert entry["weights"] == []


def test_saving_before_the_first_call_says_what_to_do(tmp_path: Path) -> None:
    compiled = torch.compile(nn.Linear(8, 4), backend="onnx")
    with pytest.raises(dynamo_onnx.CacheError, match="call the compiled function"):
        dynamo_onnx.save(compiled, tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_saving_where_nothing_can_be_written_leaves_nothing(tmp_path: Path) -> None:
    compiled = torch.compile(nn.Linear(8, 4), backend="onnx")
    with torch.no_grad():
        compiled(torch.randn(3, 8))
    occupied = tmp_path / "file"
    occupied.touch()
    with pytest.raises(dynamo_onnx.OptionError, match="cannot write to"):
        dynamo_onnx.save(compiled, occupied / "below")


def test_a_disk_that_fills_up_leaves_no_half_written_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx_ir

    compiled = torch.compile(nn.Linear(8, 4), backend="onnx")
    with torch.no_grad():
        compiled(torch.randn(3, 8))

    def full_disk(_model: object, path: Path, **_options: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx_ir, "save", full_disk)
    with pytest.raises(dynamo_onnx.CacheError, match="No space left"):
        dynamo_onnx.save(compiled, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_report_of_something_that_was_not_compiled_is_an_error() -> None:
    with pytest.raises(dynamo_onnx.OptionError, match=r"not made by torch\.compile"):
        dynamo_onnx.report(nn.Linear(2, 2))


class Scaled(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scales = {"a  # b": 2, "c": 3}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for scale in self.scales.values():
            x = x * scale
        return x


def test_guards_are_all_of_dynamos_without_its_comments() -> None:
    """What is below a dict that is gone through, and the ranges of sizes, are not in its list."""
    compiled = torch.compile(Scaled(), backend="onnx", dynamic=True, options={"strict": True})
    compiled(torch.ones(3, 4))
    (program,) = dynamo_onnx.programs(compiled)
    assert "L['self'].scales['a  # b'] == 2" in program.guards
    assert "len(L['self'].scales) == 2" in program.guards
    assert "2 <= L['x'].size()[0]" in program.guards
    assert not any("in forward" in guard for guard in program.guards)
