"""What fails around a program: memory, disk, the provider. Eager answers, or the user is told."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from onnxruntime.capi import _pybind_state as ort_c
from torch import Tensor

import dynamo_onnx
from dynamo_onnx import SessionError, lowers, registry
from dynamo_onnx.backend.state import state
from dynamo_onnx.lowering.ops import OWN_RULES
from dynamo_onnx.runtime.executable import DEATHS_BEFORE_EAGER
from dynamo_onnx.runtime.launch import Launch

X = torch.randn(3, 4)


def fn(x: Tensor) -> Tensor:
    return (x.sin() + 1) * x


def process(code: str, *arguments: str, **environment: str) -> str:
    """What a script prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


# ------------------------------------------------------------------------------ memory
OUT_OF_MEMORY = """
    import resource, sys, torch, dynamo_onnx

    torch.set_num_threads(1)

    def fn(x):
        table = x[:, None] * x[None, :] + 1  # [N, N], which eager has no memory for either
        return table.sum()

    strict = sys.argv[1] == "strict"
    compiled = torch.compile(fn, backend="onnx", dynamic=True, options={"strict": strict})
    with torch.no_grad():
        compiled(torch.ones(100))
        pages = int(open("/proc/self/statm").read().split()[0])
        limit = pages * resource.getpagesize() + 200_000_000
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        try:
            compiled(torch.ones(20_000))
        except RuntimeError as error:
            print(type(error).__name__, str(error)[:500])
        print(float(compiled(torch.ones(200))))
    print([str(f.reason.kind) for f in dynamo_onnx.report(compiled).fallbacks])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
@pytest.mark.parametrize("strict", [False, True], ids=["eager decides", "strict"])
def test_a_run_that_finds_no_memory_is_eagers_to_answer(strict: bool) -> None:
    told = process(OUT_OF_MEMORY, "strict" if strict else "")
    assert "Failed to allocate memory" in told  # by onnxruntime
    assert "\n80000.0\n" in told  # the next call
    if strict:
        assert "SessionError" in told
        assert "[]" in told
    else:
        assert "DefaultCPUAllocator: can't allocate memory" in told  # eager's own error
        assert "['run failed']" in told


def test_a_memory_error_in_a_rule_or_transform_is_nobodys_reason() -> None:
    def full(*_: Any) -> Any:
        raise MemoryError("no memory for a node")

    with pytest.raises(Exception, match="no memory for a node") as raised:
        torch.compile(fn, backend="onnx", options={"transforms": [full]})(X)
    assert "MemoryError" in f"{raised.value!r} {raised.value.__cause__!r}"
    sin = torch.ops.aten.sin.default
    good = registry.get(sin)
    assert good is not None
    lowers(sin, replace=True)(lambda cx, self: full())
    try:
        with pytest.raises(Exception, match="no memory for a node"):
            torch.compile(fn, backend="onnx")(X)
    finally:
        registry.register(sin, good.rule, good.supports, replace=True, numbers=good.numbers)
        registry.version = OWN_RULES
    assert state.graphs == []


def test_a_memory_error_in_a_run_reaches_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = torch.compile(fn, backend="onnx")
    with torch.no_grad():
        compiled(X)
        with monkeypatch.context() as patch:
            patch.setattr(Launch, "_launch", lambda *_: (_ for _ in ()).throw(MemoryError("none")))
            with pytest.raises(MemoryError, match="none"):
                compiled(X)
        torch.testing.assert_close(compiled(X), fn(X))
    assert not dynamo_onnx.report(compiled).fallbacks


# -------------------------------------------------------------------------------- disk
DISK_FULL = """
    import resource, sys, torch, dynamo_onnx

    def fn(x):
        return (x.sin() + 1) * x

    compiled = torch.compile(fn, backend="onnx", options={"strict": True})
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))  # as if there were no room for more
    x = torch.linspace(0, 1, 12)
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(compiled(x), fn(x))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits files as POSIX does")
def test_without_room_for_the_cache_there_is_a_warning_and_nothing_half_written(
    tmp_path: Path,
) -> None:
    told = process(DISK_FULL, DYNAMO_ONNX_CACHE=str(tmp_path))
    assert told.count("the program is not kept: cannot write") == 1
    assert "File too large" in told
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


# ---------------------------------------------------------------------------- provider
class Dying:
    """A launch whose provider fails so many times, then runs."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error, self.left, self.runs = error, times, Launch._launch

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def launch(this: Launch, *arguments: Any) -> None:
            if self.left:
                self.left -= 1
                raise self.error
            self.runs(this, *arguments)

        monkeypatch.setattr(Launch, "_launch", launch)


ERRORS = [ort_c.EPFail("the device is lost"), ort_c.Fail("a kernel failed")]
if hasattr(ort_c, "DeviceReset"):
    ERRORS.append(ort_c.DeviceReset("the device was reset"))


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_a_run_that_dies_is_answered_by_eager_and_the_next_one_runs(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="dynamo_onnx")
    compiled = torch.compile(fn, backend="onnx")
    with torch.no_grad():
        compiled(X)
        Dying(error, 1).install(monkeypatch)
        for _ in range(3):
            torch.testing.assert_close(compiled(X), fn(X))
    report = dynamo_onnx.report(compiled)
    (fallback,) = report.fallbacks
    assert fallback.reason.kind.value == "run failed"
    assert (str(error) in fallback.reason.detail, fallback.count) == (True, 1)
    lost = not isinstance(error, ort_c.Fail)
    assert report.sessions == (2 if lost else 1)  # a provider's state may be gone
    assert len([r for r in caplog.records if r.name.startswith("dynamo_onnx")]) == 1


def test_a_run_that_dies_is_an_error_in_strict_and_the_next_one_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled = torch.compile(fn, backend="onnx", options={"strict": True})
    with torch.no_grad():
        compiled(X)
        Dying(ERRORS[0], 1).install(monkeypatch)
        with pytest.raises(SessionError, match="the device is lost"):
            compiled(X)
        torch.testing.assert_close(compiled(X), fn(X))
    assert dynamo_onnx.report(compiled).sessions == 2


def test_a_provider_that_dies_again_and_again_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh())
    compiled = torch.compile(model, backend="onnx")
    dying = Dying(ERRORS[0], 100)
    dying.install(monkeypatch)
    with torch.no_grad():
        for _ in range(6):
            torch.testing.assert_close(compiled(X), model(X))
    assert dying.left == 100 - DEATHS_BEFORE_EAGER - 1
    assert dynamo_onnx.report(compiled).sessions == DEATHS_BEFORE_EAGER + 1


def test_a_buffer_written_in_place_is_right_after_a_run_that_dies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def write(cache: Tensor, place: Tensor, row: Tensor) -> Tensor:
        cache.index_copy_(0, place, row)
        return cache.sum(0)

    compiled = torch.compile(write, backend="onnx")
    ours, eager = torch.zeros(5, 4), torch.zeros(5, 4)
    with torch.no_grad():
        for step in range(3):
            if step == 1:
                Dying(ERRORS[0], 1).install(monkeypatch)
            place, row = torch.tensor([step]), torch.randn(1, 4)
            torch.testing.assert_close(compiled(ours, place, row), write(eager, place, row))
            assert torch.equal(ours, eager)
