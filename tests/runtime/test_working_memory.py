"""Working memory that the graphs of a training step have in common."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest
import torch

import dynamo_onnx
from dynamo_onnx.runtime.working_memory import SharedArena, shared_arena

STEPS = """
import ctypes, gc, sys, torch, dynamo_onnx
from benchmarks.memory import resident_mb

def large(x, w):  # one result of 30 MB after another, of which a gradient needs few
    for _ in range(4):
        x = torch.tanh(x @ w) * 2 - 1
    return x.square().mean()

shared = sys.argv[1] == "shared"
settings = {} if shared else {"session.use_env_allocators": "0"}
w = torch.nn.Parameter(torch.eye(64))
def train(*sizes):
    compiled = torch.compile(large, backend="onnx", options={"session_options": settings})
    for rows in sizes:
        torch._dynamo.reset()
        compiled(torch.ones(rows, 64), w).backward()
    return compiled

train(2, 3)
torch.compiler.reset()
gc.collect()
before = resident_mb()["now"]
compiled = train(120_000, 100_000)
during = resident_mb()
del compiled
torch.compiler.reset()
gc.collect()
ctypes.CDLL(None).malloc_trim(0)  # what glibc keeps is free as well
print(during["now"] - before, resident_mb()["now"] - before, during["peak"])
"""


def measured(how: str) -> list[float]:
    """Megabytes: what a trained model holds, what is left once it is gone, and the peak."""
    told = subprocess.run(
        [sys.executable, "-c", STEPS, how], capture_output=True, text=True, check=True
    )
    assert "Exception ignored" not in told.stderr
    return [float(number) for number in told.stdout.split()]


def test_sessions_of_a_step_use_the_same_memory_and_give_it_back() -> None:
    """The peak is lower than with an arena each, and what was used is the system's again."""
    held, left, peak = measured("shared")
    *_, peak_alone = measured("alone")
    assert peak < peak_alone
    assert left < 0.2 * held, (left, held)


def test_only_training_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    """An inference session keeps its own arena, and frees it with itself."""
    leases: list[object] = []
    lease = shared_arena.lease

    def noted() -> object:
        leases.append(lease())
        return leases[-1]

    monkeypatch.setattr(shared_arena, "lease", noted)
    compiled = torch.compile(lambda x: torch.tanh(x) * 2, backend="onnx", options={"strict": True})
    with torch.no_grad():
        compiled(torch.ones(3))
    assert not leases
    x = torch.ones(3, requires_grad=True)
    own = {"session_options": {"enable_cpu_mem_arena": False}}  # the user's word
    torch.compile(lambda x: torch.sin(x) * 2, backend="onnx", options=own)(x).sum().backward()
    assert not leases
    x.grad = None
    compiled(x).sum().backward()
    assert len(leases) == 2  # forward and backward
    expected = 2 * (1 - torch.tanh(torch.ones(3)) ** 2)
    torch.testing.assert_close(x.grad, expected)


def test_leases_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one to end has the arena shrunk; a forked child has none."""
    arena, shrunk = SharedArena(), []
    monkeypatch.setattr(arena, "shrink", lambda: shrunk.append(True))
    first, second = arena.lease(), arena.lease()
    del first
    gc.collect()
    assert not shrunk
    del second
    gc.collect()
    assert shrunk == [True]
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert arena.lease() is None
    monkeypatch.undo()
    dynamo_onnx.reset()
