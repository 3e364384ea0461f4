"""The examples run to the end, as a user would start them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def test_the_mlp_example_agrees_with_eager_in_memory_and_on_disk(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "mlp.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Gemm, Sigmoid, Gemm, Sigmoid, Gemm, Sigmoid, Gemm" in done.stdout
    assert (tmp_path / "build" / "mlp" / "mlp.onnx").is_file()
