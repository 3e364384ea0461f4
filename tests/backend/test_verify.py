"""`options={"verify": n}`: a wrong rule is found, named and left out, and answers stay right."""

from __future__ import annotations

import inspect
import json
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch
from torch import Tensor

import dynamo_onnx
from dynamo_onnx import SessionError, lowers, registry
from dynamo_onnx.backend import verification
from dynamo_onnx.lowering.ops import OWN_RULES
from dynamo_onnx.runtime.compare import difference, exactly

ERF = torch.ops.aten.erf.default


@pytest.fixture
def broken_rule() -> Iterator[None]:
    """An erf that is a tanh."""
    good = registry.get(ERF)
    assert good is not None
    lowers(ERF, replace=True)(lambda cx, self: cx.op.Tanh(self))
    yield
    registry.register(ERF, good.rule, good.supports, replace=True, numbers=good.numbers)
    registry.version = OWN_RULES


def fn(x: Tensor) -> Tensor:
    y = (x * 2).exp() + 1
    z = torch.erf(y - 2)
    return z.sin() @ y.t()


LINE = inspect.getsourcelines(fn)[1] + 2


def call(**options: Any) -> tuple[Any, Tensor, Tensor]:
    compiled = torch.compile(fn, backend="onnx", options={"verify": 2, **options})
    x = torch.randn(4, 5)
    with torch.no_grad():
        return compiled, compiled(x), fn(x)


@pytest.mark.usefixtures("broken_rule")
def test_a_broken_rule_is_named_by_the_users_line_and_the_answer_is_right() -> None:
    compiled, found, wanted = call()
    assert torch.equal(found, wanted)
    (fallback,) = dynamo_onnx.report(compiled).fallbacks
    assert fallback.reason.kind.value == "verification"
    assert f"aten.erf.default at {__file__}:{LINE}" in fallback.reason.detail
    with torch.no_grad():
        for size in (4, 7, 9):  # other sizes are compiled anew
            x = torch.randn(size, 5)
            torch.testing.assert_close(compiled(x), fn(x))
    later = [f for f in dynamo_onnx.report(compiled).fallbacks if f.op == "aten.erf.default"]
    assert later
    assert all(f.reason.kind.value == "verification" for f in later)
    assert dynamo_onnx.report(compiled).native_ops > 0  # the others


@pytest.mark.usefixtures("broken_rule")
def test_in_strict_a_deviation_is_an_error() -> None:
    with pytest.raises(SessionError, match=r"aten\.erf\.default at .* gives another result"):
        call(strict=True)


@pytest.mark.usefixtures("broken_rule")
def test_the_next_process_knows_the_pin(tmp_path: Path) -> None:
    call(cache_dir=tmp_path)
    content = json.loads((tmp_path / "pins.json").read_text())
    assert set(content["pins"]) == {"aten.erf.default"}
    torch._dynamo.reset()
    dynamo_onnx.reset()
    compiled, found, wanted = call(cache_dir=tmp_path, verify=0)
    torch.testing.assert_close(found, wanted)
    assert next(f.op for f in dynamo_onnx.report(compiled).fallbacks) == "aten.erf.default"
    content["versions"]["rules"] = "others"  # mended since
    (tmp_path / "pins.json").write_text(json.dumps(content))
    assert verification.pins_in(tmp_path) == {}
    (tmp_path / "pins.json").write_text("{")
    assert verification.pins_in(tmp_path) == {}


@pytest.mark.usefixtures("broken_rule")
@pytest.mark.parametrize("rows", [2, 40], ids=["inline", "in a file"])
def test_a_script_of_a_few_lines_shows_the_deviation(rows: int, tmp_path: Path) -> None:
    compiled = torch.compile(fn, backend="onnx", options={"verify": 1, "dump_dir": tmp_path})
    with torch.no_grad():
        compiled(torch.randn(rows, 5).t().contiguous().t())  # strides of its own
    (script,) = tmp_path.glob("deviation_*.py")
    assert len(script.read_text().splitlines()) < 30
    torch._dynamo.reset()
    dynamo_onnx.reset()
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script))
    assert ended.value.code


def test_the_script_ends_well_once_the_rule_is_right(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("broken_rule")
    compiled = torch.compile(fn, backend="onnx", options={"verify": 1, "dump_dir": tmp_path})
    with torch.no_grad():
        compiled(torch.randn(3, 5))
    (script,) = tmp_path.glob("deviation_*.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr  # a new process has the right rule


def test_what_only_the_whole_program_gets_wrong_is_told_so() -> None:
    def spoil(model: ir.Model) -> ir.Model:
        for node in model.graph:
            if node.op_type == "Sin":
                node.op_type = "Cos"
        return model

    compiled, found, wanted = call(transforms=[spoil])
    assert torch.equal(found, wanted)
    (fallback,) = dynamo_onnx.report(compiled).fallbacks
    assert "no single operator of it deviates" in fallback.reason.detail


def test_the_command_line_minifies(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "from dynamo_onnx import lowers\n"
        "lowers(torch.ops.aten.erf.default, replace=True)(lambda cx, self: cx.op.Tanh(self))\n"
        "class Net(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return torch.erf(x * 2) + 1\n"
    )
    command = [sys.executable, "-m", "dynamo_onnx", "minify", "mine:Net", "--args", "float32[3,4]"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "aten.erf.default at " in done.stdout
    assert "deviation/deviation_aten_erf_default.py" in done.stdout


def test_right_programs_pass_and_are_compared_so_often_only() -> None:
    compiled, found, wanted = call(strict=True)
    torch.testing.assert_close(found, wanted)
    assert verification.state.pins == {}
    (graph,) = verification.state.graphs
    executable = graph.regions[0].executable()
    assert executable is not None
    (trial,) = executable._trials
    assert isinstance(trial, verification.Verification)
    assert trial.left == 1
    with torch.no_grad():
        for _ in range(3):
            compiled(torch.randn(4, 5))
    assert executable._trials == ()
    assert trial.left == 0


def test_a_buffer_that_is_written_is_compared_too() -> None:
    def write(cache: Tensor, row: Tensor) -> Tensor:
        cache[1] = row
        return cache.sum(0) + row

    compiled = torch.compile(write, backend="onnx", options={"verify": 3, "strict": True})
    ours, eager = torch.zeros(3, 4), torch.zeros(3, 4)
    with torch.no_grad():
        for _ in range(4):
            row = torch.randn(4)
            torch.testing.assert_close(compiled(ours, row), write(eager, row))
            assert torch.equal(ours, eager)


# ---------------------------------------------------------------------------------- comparing
ONES = torch.ones(3)


@pytest.mark.parametrize(
    ("ours", "eager", "told"),
    [
        (ONES, ONES, ""),
        (ONES * (1 + 1e-6), ONES, ""),
        (ONES * 1.01, ONES, "result 0 differs by 0.01 where the largest is 1"),
        (ONES.double(), ONES, "is torch.float64[3], eager's torch.float32[3]"),
        (ONES[:2], ONES, "is torch.float32[2]"),
        (torch.tensor([1, 2]), torch.tensor([1, 3]), "differs in 1 of 2 elements"),
        (torch.tensor([torch.nan, 1]), torch.tensor([1.0, 1]), "NaN in 1 places, eager's in 0"),
        (torch.tensor([torch.inf, 1]), torch.tensor([1.0, 1]), "infinite in 1 places"),
        (torch.tensor([torch.inf, 1]), torch.tensor([torch.inf, 1]), ""),
        (ONES * (1 + 0.001j), ONES + 0j, "differs by 0.001"),
        (torch.ones(0), torch.ones(0), ""),
    ],
)
def test_what_differs(ours: Tensor, eager: Tensor, told: str) -> None:
    found = difference([ours], [eager])
    assert told in found
    assert bool(found) == bool(told)


def test_eager_may_be_the_one_that_is_farther_off() -> None:
    exact = [torch.full((3,), 1.02, dtype=torch.float64)]
    assert difference([ONES * 1.01], [ONES], lambda: exact) == ""
    assert difference([ONES * 1.2], [ONES], lambda: exact)
    assert difference([ONES * 1.01], [ONES], lambda: None)


def test_a_reference_in_float64_or_none() -> None:
    (found,) = exactly(lambda args: [args[0] * args[1]], [ONES, 2]) or ()
    assert found.dtype == torch.float64
    assert exactly(lambda args: [args[0].float()], [ONES]) is None
    assert exactly(lambda args: [args[0] @ ONES], [ONES]) is None
