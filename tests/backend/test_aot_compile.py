"""Compiled ahead of time by Dynamo (`compiled.forward.aot_compile`), saved, and loaded again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import dynamo_onnx
from dynamo_onnx import registry
from dynamo_onnx.backend.state import state
from dynamo_onnx.lowering.ops import OWN_RULES

pytestmark = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13),
    reason="torch before 2.13 cannot write what other backends compile",
)

MODEL = """
import torch

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.wide = torch.nn.Linear(8, 16)
        self.narrow = torch.nn.Linear(16, 4)

    def forward(self, x, scale=2):
        y = self.narrow(torch.relu(self.wide(x)))
        return torch.cumsum(y, 0).sin() * scale + y.shape[0], y.tanh().mean()
"""
LOADING = """
import sys, torch
sys.path.insert(0, sys.argv[2])
from model import Model
import dynamo_onnx
from dynamo_onnx.backend.state import state
import dynamo_onnx.backend.compile as compiling

def no_lowering(*_, **__):
    raise AssertionError("a program was lowered")

compiling.lower_region = no_lowering
with open(sys.argv[1], "rb") as file:
    loaded = torch.compiler.load_compiled_function(file)
torch.manual_seed(1)
model, grads = Model(), sys.argv[3] == "grads"
torch.set_num_threads(int(sys.argv[4]))  # which Dynamo guards
with torch.set_grad_enabled(grads):
    for rows in (5, 7):  # neither of them the one that was compiled for
        x = torch.randn(rows, 8, requires_grad=grads)
        results, expected = loaded(model, x), model(x)
        torch.testing.assert_close(results, expected)
        if grads:
            leaves = [x, *model.parameters()]
            found = torch.autograd.grad(results[0].sum() + results[1], leaves)
            wanted = torch.autograd.grad(expected[0].sum() + expected[1], leaves)
            torch.testing.assert_close(found, wanted)
try:
    with torch.set_grad_enabled(grads):
        loaded(model, torch.randn(5, 8, dtype=torch.float64))
except RuntimeError as error:
    assert "dtype mismatch" in str(error), error
else:
    raise AssertionError("another dtype was taken")
regions = sum(len(graph.regions) for graph in state.graphs)
print([graph.kind for graph in state.graphs], state.cache_loads == regions)
for fallback in dynamo_onnx.report().fallbacks:
    print(fallback.op, fallback.reason.kind.name, fallback.location)
"""


@pytest.fixture(autouse=True)
def own_rules_and_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no test before had registered a rule of its own, and removed it, or used the cache."""
    monkeypatch.setattr(registry, "version", OWN_RULES)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "torch"))


def model_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    """The model, from a file which the process that loads can import as well."""
    (folder / "model.py").write_text(MODEL)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "model", raising=False)
    import model  # type: ignore[import-not-found]  # written just now

    return model.Model()


def compile_ahead(module: torch.nn.Module, rows: int = 3, **options: Any) -> Any:
    """Ahead of time, for any number of rows."""
    x = torch.randn(rows, 8, requires_grad=torch.is_grad_enabled())
    torch._dynamo.mark_dynamic(x, 0)
    compiled = torch.compile(module, fullgraph=True, backend="onnx", options=options)
    return compiled.forward.aot_compile(((x,), {}))


@pytest.mark.parametrize(("grads", "kinds"), [(False, "inference"), (True, "forward, backward")])
def test_another_process_lowers_and_traces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, grads: bool, kinds: str
) -> None:
    """It computes the same, for other sizes and weights, with the same fallbacks at their lines."""
    module = model_in(tmp_path, monkeypatch)
    with torch.set_grad_enabled(grads):
        ahead = compile_ahead(module, eager_ops=["cumsum"])
        x = torch.randn(6, 8, requires_grad=grads)
        torch.testing.assert_close(ahead(module, x), module(x))
    ahead.save_compiled_function(str(tmp_path / "model.aot"))
    told = subprocess.run(
        [
            *(sys.executable, "-c", LOADING, tmp_path / "model.aot", tmp_path),
            *("grads" if grads else "", str(torch.get_num_threads())),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert "Exception ignored" not in told.stderr
    wanted = [kind.strip() for kind in kinds.split(",")]
    first, *fallbacks = told.stdout.splitlines()
    assert first == f"{wanted} True"
    assert any(line.startswith("aten.cumsum.default OPTION") for line in fallbacks), fallbacks
    assert all("model.py:" in line for line in fallbacks), fallbacks


def test_quantized_and_transformed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options go into the file. What cannot be pickled there is an error that says so."""
    module = model_in(tmp_path, monkeypatch)
    x = torch.randn(5, 8)
    with torch.no_grad():
        ahead = compile_ahead(module, quantize="int8", strict=True)
        ahead.save_compiled_function(str(tmp_path / "model.aot"))
        expected = ahead(module, x)
        dynamo_onnx.reset()
        with (tmp_path / "model.aot").open("rb") as file:
            loaded: Any = torch.compiler.load_compiled_function(file)
        torch.testing.assert_close(loaded(module, x), expected)
        (graph,) = state.graphs
        assert graph.options.quantize is not None
        assert graph.options.strict
        torch._dynamo.reset()
        with pytest.raises(Exception, match="lambda"):
            compile_ahead(module, transforms=[lambda model: model])
