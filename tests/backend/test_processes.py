"""Compiled functions in child processes: a fork copies no threads, and must not wait for any."""

from __future__ import annotations

import subprocess
import sys
import textwrap

PARENT = """
    import multiprocessing, os, sys, torch, dynamo_onnx
    from torch import nn

    torch.set_num_threads(2)
    model = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 64))
    compiled = torch.compile(model, backend="onnx")
    x = torch.randn(64, 256)

    def call():
        with torch.no_grad():
            return compiled(x)

    def child(queue):
        torch.set_num_threads(1)  # torch's own pool does not survive a fork either
        queue.put(float((call() - expected).abs().max()))

    expected = call()
"""


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PARENT) + textwrap.dedent(code)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_forked_worker_opens_a_session_of_its_own() -> None:
    code = """
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        worker = context.Process(target=child, args=(queue,))
        worker.start()
        print(queue.get(timeout=60) < 1e-5)
        worker.join(60)
        print(worker.exitcode, float((call() - expected).abs().max()))
    """
    assert run(code).split() == ["True", "0", "0.0"]
