"""`TORCH_LOGS` with our names, in a process of its own: torch reads it when it is imported."""

from __future__ import annotations

import os
import subprocess
import sys

SCRIPT = """
import torch

compiled = torch.compile(lambda x: torch.bernoulli(x) * x + 1, backend="onnx")
compiled(torch.full((2,), 0.5))

from dynamo_onnx.lowering.ops import registry
print(registry.version)
"""


def logged(setting: str | None) -> tuple[str, str]:
    """What the script prints, and what it logs."""
    environment = {name: value for name, value in os.environ.items() if name != "TORCH_LOGS"}
    if setting is not None:
        environment["TORCH_LOGS"] = setting
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_our_name_logs_a_line_a_frame() -> None:
    _, log = logged("dynamo_onnx")
    assert "frame 0/0: 2 operators in 1 regions, 1 in eager" in log
    assert "lowered" not in log
    assert "graph(" not in log


def test_a_plus_logs_every_node_and_program() -> None:
    _, log = logged("+dynamo_onnx")
    assert "lowered mul (aten.mul.Tensor)" in log
    assert "frame 0/0, region 0:" in log


def test_programs_are_a_name_of_their_own() -> None:
    _, log = logged("+dynamo_onnx.onnx_programs")
    assert "frame 0/0, region 0:" in log
    assert "::Mul" in log
    assert "lowered mul" not in log


def test_without_the_variable_nothing_is_logged_and_the_rules_are_the_same() -> None:
    rules, log = logged(None)
    assert log == ""
    assert logged("+dynamo_onnx")[0] == rules
