"""Compiled functions in child processes: a fork copies no threads, and must not wait for any."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

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


def test_a_forked_worker_may_drop_the_model() -> None:
    """Closing the parent's session would wait for threads that the child does not have."""
    code = """
        import gc

        def drops(queue):
            global model, compiled
            del model, compiled
            torch._dynamo.reset()
            gc.collect()
            queue.put("dropped")

        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        worker = context.Process(target=drops, args=(queue,))
        worker.start()
        print(queue.get(timeout=60))
        worker.join(60)
        print(worker.exitcode, float((call() - expected).abs().max()))
    """
    assert run(code).split() == ["dropped", "0", "0.0"]


def test_a_fork_while_another_thread_opens_a_session() -> None:
    """Its lock is copied closed, and nobody is there to open it."""
    code = """
        import threading
        from dynamo_onnx.backend.state import state

        executable = state.graphs[0].regions[0].executable()
        held, done = threading.Event(), threading.Event()

        def hold():
            with executable._lock():
                held.set()
                done.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        worker = context.Process(target=child, args=(queue,))
        worker.start()
        print(queue.get(timeout=60) < 1e-5)
        done.set()
        worker.join(60)
        print(worker.exitcode)
    """
    assert run(code).split() == ["True", "0"]


SPAWNING = """
    import multiprocessing, sys, torch, dynamo_onnx
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    x = torch.randn(3, 16)

    def work(state_dict, queue):
        model.load_state_dict(state_dict)
        compiled = torch.compile(model, backend="onnx", options={"strict": True})
        with torch.no_grad():
            queue.put(compiled(x).tolist())

    if __name__ == "__main__":
        with torch.no_grad():
            model[0].weight.add_(1)
            expected = torch.compile(model, backend="onnx", options={"strict": True})(x)
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        worker = context.Process(target=work, args=(model.state_dict(), queue))
        worker.start()
        print(float((torch.tensor(queue.get(timeout=90)) - expected).abs().max()) < 1e-5)
        worker.join(60)
        print(worker.exitcode)
"""


def test_a_spawned_worker_compiles_for_itself(tmp_path: Path) -> None:
    script = tmp_path / "spawning.py"
    script.write_text(textwrap.dedent(SPAWNING))
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "0"]
