"""The examples run to the end, as a user would start them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES, DOCS = ROOT / "examples", ROOT / "docs"


def test_the_mlp_example_agrees_with_eager_in_memory_and_on_disk(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "mlp.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Gemm, Sigmoid, Gemm, Sigmoid, Gemm, Sigmoid, Gemm" in done.stdout
    assert (tmp_path / "build" / "mlp" / "mlp.onnx").is_file()


def test_the_page_on_exporting_runs_and_shows_the_graph_that_comes_of_it(tmp_path: Path) -> None:
    page = (DOCS / "exporting.md").read_text()
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "page.py").write_text("\n".join(code))
    command = [sys.executable, "page.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len([*tmp_path.glob("onnx_export_*_success.md")]) == 1
    command = [sys.executable, "-m", "dynamo_onnx", "view", "mlp.onnx", "--picture", "graph.svg"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert (tmp_path / "graph.svg").read_text() == (DOCS / "exporting.svg").read_text()


@pytest.mark.parametrize("way", [(), ("--shard",)], ids=["DDP", "FSDP2"])
def test_two_processes_train_as_one(way: tuple[str, ...], tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    command += [str(EXAMPLES / "train_ddp.py"), "--steps", "6", *way]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    forward, backward = map(int, re.findall(r"(\d+) (?:forward|backward)", done.stdout))
    assert forward == backward > 1  # a graph for each bucket of gradients


def test_a_killed_process_leaves_the_other_an_error_and_not_a_hang(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    where = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    command = [sys.executable, "-u", str(EXAMPLES / "train_ddp.py"), "--steps", "100000", "--tell"]
    pipe = subprocess.PIPE
    first, second = (
        subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, **where, "RANK": rank}, text=True,
            stdout=pipe, stderr=pipe,
        )
        for rank in "01"
    )  # fmt: skip
    try:
        assert first.stdout is not None
        assert second.stdout is not None
        assert "step 3" in "".join(second.stdout.readline() for _ in range(3))
        second.send_signal(signal.SIGKILL)
        _, errors = first.communicate(timeout=60)
        assert first.returncode == 1
        assert "another process ended or does not answer" in errors
    finally:
        for process in (first, second):
            process.kill()
            process.wait()
