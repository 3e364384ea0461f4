"""NVTX ranges, without a device: who marks them, around what, and that nobody else pays for it."""

from __future__ import annotations

import pytest
import torch

from dynamo_onnx.runtime.ranges import VARIABLE, ranged, wanted_ranges

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


class Noted:
    """`torch.cuda.nvtx` as far as it is used."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def range_push(self, msg: str) -> None:
        self.log.append(f"begin {msg}")

    def range_pop(self) -> None:
        self.log.append("end")


def test_a_run_is_within_its_range() -> None:
    noted = Noted()
    run = ranged(lambda *args: noted.log.append(f"run {args}"), "0/0 region 1", noted)
    run(1, 2)
    assert noted.log == ["begin 0/0 region 1", "run (1, 2)", "end"]


def test_a_run_that_fails_ends_its_range() -> None:
    noted = Noted()

    def fails() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        ranged(fails, "r", noted)()
    assert noted.log == ["begin r", "end"]


def test_without_ranges_the_function_itself_is_called() -> None:
    def run() -> None: ...

    assert ranged(run, "r", None) is run


def test_ranges_are_asked_for_and_only_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert wanted_ranges(GPU) is None
    monkeypatch.setenv(VARIABLE, "0")
    assert wanted_ranges(GPU) is None
    monkeypatch.setenv(VARIABLE, "1")
    assert wanted_ranges(CPU) is None
    assert wanted_ranges(GPU) is torch.cuda.nvtx


def test_a_session_on_the_cpu_is_called_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    import dynamo_onnx

    monkeypatch.setenv(VARIABLE, "1")
    compiled = torch.compile(lambda x: x * 2 + 1, backend="onnx")
    compiled(torch.ones(2))
    ((region,),) = [graph.regions for graph in dynamo_onnx.report(compiled).records]
    opened = region.executable()._opened
    assert opened.launch._run == opened.session._sess.run_with_ortvaluevector
