"""Ctrl-C at any line of ours, and by a signal: it reaches the user, and the next call is right."""

from __future__ import annotations

import gc
import linecache
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
import torch.utils.dlpack
from torch import Tensor, nn

import dynamo_onnx
from dynamo_onnx import backend, lowering, registry, runtime
from dynamo_onnx.backend.program_files import SUFFIX
from dynamo_onnx.lowering.ops import OWN_RULES

ROOTS = tuple(
    os.path.realpath(path) + os.sep
    for package in (backend, lowering, runtime)
    for path in package.__path__
)
CALLED_BACK = os.path.realpath(torch.utils.dlpack.__file__)  # by onnxruntime, if anything is


@pytest.fixture(autouse=True)
def own_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no test before had registered a rule of its own: else nothing is kept."""
    monkeypatch.setattr(registry, "version", OWN_RULES)


class Interrupter:
    """Raises KeyboardInterrupt where an interrupt would: before one of our lines, by its number.

    Not at a `with`: its line counts again at its end, before the exit, where Python checks for no
    signal.
    """

    def __init__(self, at: int = 0) -> None:
        self.at, self.lines, self.place = at, 0, ""
        self._ours: dict[str, bool] = {}

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        file = frame.f_code.co_filename
        if file not in self._ours:
            path = os.path.realpath(file)
            self._ours[file] = path.startswith(ROOTS) or path == CALLED_BACK
        return self._line if self._ours[file] else None

    def _line(self, frame: FrameType, event: str, argument: object) -> Any:
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        if event != "line" or line.lstrip().startswith("with "):
            return self._line
        self.lines += 1
        if self.lines == self.at:
            self.place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
            raise KeyboardInterrupt
        return self._line


@contextmanager
def tracing(interrupter: Interrupter) -> Iterator[None]:
    before = sys.gettrace()
    sys.settrace(interrupter)
    try:
        yield
    finally:
        sys.settrace(before)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).relu()).softmax(-1)


X = torch.randn(3, 8)


def compiled(net: nn.Module, **options: Any) -> Callable[[Tensor], Tensor]:
    torch._dynamo.reset()
    dynamo_onnx.reset()
    return torch.compile(net, backend="onnx", options={"strict": True, **options})


@torch.no_grad()
def lines(call: Callable[[Tensor], Tensor]) -> int:
    """How many of our lines a call has."""
    counter = Interrupter()
    with tracing(counter):
        call(X)
    return counter.lines


@torch.no_grad()
def interrupted(call: Callable[[Tensor], Tensor], net: nn.Module, at: int) -> str:
    """A call interrupted at a line, and what comes next; the line."""
    interrupter = Interrupter(at)
    with tracing(interrupter), pytest.raises(KeyboardInterrupt):
        call(X)
    assert gc.isenabled(), interrupter.place
    torch.testing.assert_close(call(X), net(X), msg=interrupter.place)
    return interrupter.place


def test_at_any_line_of_a_call() -> None:
    net = Net().eval()
    call = compiled(net)
    with torch.no_grad():
        call(X)
    places = {interrupted(call, net, at) for at in range(1, lines(call) + 1)}
    assert any("launch.py" in place for place in places)
    assert not any("dlpack" in place for place in places)


def test_at_the_lines_of_a_session_that_opens_anew() -> None:
    net = Net().eval()
    call = compiled(net, weights="frozen")
    with torch.no_grad():
        call(X)

        def change() -> None:
            net.first.weight.data.mul_(1.01)

        change()
        places: set[str] = set()
        for at in range(1, lines(call) * 9 // 10, 7):
            change()
            places.add(interrupted(call, net, at))
    assert {"executable.py", "session.py", "initializers.py"} <= {
        Path(place.partition(":")[0]).name for place in places
    }


def test_at_lines_of_a_compilation_and_the_writing_of_a_program(tmp_path: Path) -> None:
    net = Net().eval()
    compiled(net)(X)  # what only the first compilation of a process does
    count = lines(compiled(net, cache_dir=tmp_path / "counted"))
    places: set[str] = set()
    for at in range(count // 20, count * 9 // 10, count // 20):
        directory = tmp_path / str(at)
        places.add(interrupted(compiled(net, cache_dir=directory), net, at))
        left = [path for path in directory.rglob("*") if path.is_file()]
        assert [path.suffix for path in left] == [SUFFIX], (left, places)
    assert len(places) > 10


def test_while_a_program_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net().eval()
    write = Path.write_bytes

    def half(path: Path, data: bytes) -> int:
        monkeypatch.setattr(Path, "write_bytes", write)
        write(path, data[: len(data) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", half)
    call = compiled(net, cache_dir=tmp_path)
    with torch.no_grad():
        with pytest.raises(KeyboardInterrupt):
            call(X)
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
        torch.testing.assert_close(call(X), net(X))
    assert len([*tmp_path.rglob(f"*{SUFFIX}")]) == 1


SIGNALLED = """
    import os, signal, sys, threading, time, torch, dynamo_onnx
    from torch import nn

    torch.set_num_threads(1)
    phase = sys.argv[1]

    def send():
        os.kill(os.getpid(), signal.SIGINT)

    def transform(model):
        if phase == "lowering" and not told:
            told.append(phase)
            send()
        return model

    told = []
    net = nn.Sequential(nn.Linear(512, 512), *[nn.Linear(512, 512) for _ in range(15)])
    x = torch.randn(512 if phase == "run" else 2, 512)
    options = {"strict": True, "transforms": [transform]}
    compiled = torch.compile(net, backend="onnx", options=options)
    if phase == "opening":
        from dynamo_onnx.runtime import session
        made = session.ort.InferenceSession

        def interrupted(*args, **kwargs):
            session.ort.InferenceSession = made
            threading.Timer(0.0, send).start()
            for _ in range(100):
                opened = made(*args, **kwargs)
            return opened

        session.ort.InferenceSession = interrupted
    with torch.no_grad():
        if phase == "run":
            compiled(x)
            threading.Timer(0.05, send).start()
        try:
            for _ in range(10_000):
                compiled(x)
            print("no interrupt")
        except KeyboardInterrupt:
            print("interrupted")
        print(float((compiled(x) - net(x)).abs().max()) < 1e-5)
    executable = dynamo_onnx.backend.state.state.graphs[-1].regions[0].executable()
    print(executable._lock().locked(), dynamo_onnx.backend.state.state.lock.acquire(timeout=1))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT as POSIX does")
@pytest.mark.parametrize("phase", ["lowering", "opening", "run"])
def test_a_signal_reaches_the_user_and_the_next_call_is_right(phase: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SIGNALLED), phase],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["interrupted", "True", "False", "True"], done.stderr
