"""`options={"profitable": True}`: a region that is slower than its eager form loses its place."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dynamo_onnx
from dynamo_onnx.backend.options import PROFITABLE_VARIABLE, Options
from dynamo_onnx.backend.state import state
from dynamo_onnx.runtime import profitable
from dynamo_onnx.runtime.errors import ReasonKind
from dynamo_onnx.runtime.executable import Executable
from dynamo_onnx.runtime.launch import Launch
from dynamo_onnx.runtime.profitable import ROUNDS, Profitability

RUN_S = 0.02
X = torch.randn(4, 8)
CPU = torch.device("cpu")


def fn(x: Tensor) -> Tensor:
    return (x.sin() + 1) * x


class Clock:
    """Goes on only where a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def takes(self, *seconds: float) -> Callable[[Any], list[Tensor]]:
        """Something to be timed, which takes so long, call after call; it returns how long."""
        left = iter(seconds)

        def run(_: object) -> list[Tensor]:
            spent = next(left)
            self.now += spent
            return [torch.tensor(spent)]

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(profitable, "time", clock)
    return clock


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> list[float]:
    """Each run in ONNX Runtime takes RUN_S, and eager no time; when they began."""
    launch, runs = Launch._launch, list[float]()

    def late(this: Launch, *arguments: Any) -> None:
        runs.append(clock.now)
        clock.now += RUN_S
        launch(this, *arguments)

    monkeypatch.setattr(Launch, "_launch", late)
    return runs


def compiled(function: Any, **options: Any) -> Any:
    return torch.compile(function, backend="onnx", options={"profitable": True, **options})


def executables() -> list[Executable]:
    found = [r.executable() for graph in state.graphs for r in graph.regions]
    assert all(found)
    return [executable for executable in found if executable is not None]


def is_slower(ours: Any) -> bool:
    """Have all regions lost their places, for that reason?"""
    kinds = {f.reason.kind for f in dynamo_onnx.report(ours).fallbacks}
    left = [executable._broken for executable in executables()]
    assert kinds <= {ReasonKind.SLOWER}
    assert (set(left) == {True}) == bool(kinds)
    return bool(kinds)


def test_a_slower_region_goes_to_eager_and_the_report_has_both_times(
    runs: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="dynamo_onnx")
    ours = compiled(fn)
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(ours(X), fn(X))
    assert len(runs) == ROUNDS + 1
    (fallback,) = dynamo_onnx.report(ours).fallbacks
    assert fallback.reason.kind is ReasonKind.SLOWER
    assert str(fallback.reason) == "slower than eager: 20 ms a run, 0 ms in eager"
    (executable,) = executables()
    assert executable._opened is None  # its memory is given back
    told = [r for r in caplog.records if "slower than eager" in r.getMessage()]
    assert [r.levelno for r in told] == [logging.INFO]


def test_a_region_that_wins_one_round_stays(clock: Clock) -> None:
    ours, eager = clock.takes(9, 3, 2), clock.takes(1, 1, 2)
    outcome = Profitability(CPU)((), ours, eager)
    assert (outcome.reason, outcome.over) == (None, True)
    assert float(outcome.results[0]) == 2
    assert clock.now == 18  # a warm-up and two rounds


@pytest.mark.parametrize(("run_s", "loses"), [(1.05, False), (1.2, True)])
def test_a_region_loses_by_a_margin(run_s: float, loses: bool, clock: Clock) -> None:
    """The margin is between the best runs of each, whatever the others took."""
    ours = clock.takes(9, *[7.0] * (ROUNDS - 1), run_s)
    outcome = Profitability(CPU)((), ours, clock.takes(9, 3, *[1.0] * (ROUNDS - 1)))
    assert (outcome.reason is not None) == loses
    assert outcome.over
    assert float(outcome.results[0]) == pytest.approx(1.0 if loses else run_s)


def test_a_fast_region_is_kept_and_timed_once(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_eager = Executable._run_eager

    def late(this: Executable, args: Any) -> list[Tensor]:
        clock.now += 1
        return run_eager(this, args)

    monkeypatch.setattr(Executable, "_run_eager", late)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU()).eval()
    ours = compiled(model)
    with torch.no_grad():
        for calls in (2, 3, 4):  # one of them to warm up
            torch.testing.assert_close(ours(X), model(X))
            (executable,) = executables()
            assert executable.counters.calls == calls
    assert clock.now == 2
    assert not is_slower(ours)
    assert executable._trials == ()


def test_strict_keeps_the_region(runs: list[float]) -> None:
    ours = compiled(fn, strict=True)
    with torch.no_grad():
        torch.testing.assert_close(ours(X), fn(X))
    assert len(runs) == 1
    assert not dynamo_onnx.report(ours).fallbacks


def test_the_variable_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PROFITABLE_VARIABLE, raising=False)
    assert not Options.parse(None).times_regions
    monkeypatch.setenv(PROFITABLE_VARIABLE, "1")
    assert Options.parse({"strict": True}).times_regions
    assert not Options.parse({"profitable": False}).times_regions
    monkeypatch.setenv(PROFITABLE_VARIABLE, "0")
    assert not Options().times_regions


@pytest.mark.usefixtures("runs")
def test_a_cache_that_is_written_in_place_is_right() -> None:
    """The trial runs several times on one input that it writes to."""

    def write(cache: Tensor, place: Tensor, row: Tensor) -> Tensor:
        cache.index_copy_(0, place, row)
        return cache.sum(0)

    made = compiled(write)
    ours, eager = torch.zeros(5, 4), torch.zeros(5, 4)
    with torch.no_grad():
        for step in range(4):
            place, row = torch.tensor([step]), torch.randn(1, 4)
            torch.testing.assert_close(made(ours, place, row), write(eager, place, row))
            assert torch.equal(ours, eager)
            if not step:
                (executable,) = executables()
                assert executable.setup.overwrites
    assert is_slower(made)


@pytest.mark.usefixtures("runs")
def test_a_step_of_training_has_eagers_gradients() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
    made = compiled(model)
    for _ in range(3):
        x = torch.randn(4, 8)
        made(x).square().mean().backward()
        found = [p.grad for p in model.parameters()]
        wanted = torch.autograd.grad(model(x).square().mean(), [*model.parameters()])
        for ours, eager in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours, eager)
        model.zero_grad()
    assert is_slower(made)
    assert len(executables()) == 2  # forward and backward


@pytest.mark.usefixtures("runs")
def test_weights_that_change_are_seen_before_and_after() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU()).eval()
    made = compiled(model)
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(made(X), model(X))
            model[0].weight.mul_(1.5)
    assert is_slower(made)


def test_dynamic_sizes_are_decided_once(runs: list[float]) -> None:
    made = torch.compile(fn, backend="onnx", dynamic=True, options={"profitable": True})
    with torch.no_grad():
        for rows in (3, 5, 9):
            x = torch.randn(rows, 4)
            torch.testing.assert_close(made(x), fn(x))
    assert len(runs) == ROUNDS + 1
    assert is_slower(made)


def test_verification_comes_first(runs: list[float]) -> None:
    made = compiled(fn, verify=2)
    with torch.no_grad():
        for count in (1, 2, 2 + ROUNDS + 1, 2 + ROUNDS + 1):
            torch.testing.assert_close(made(X), fn(X))
            assert len(runs) == count
    assert is_slower(made)


def test_a_session_that_cannot_be_opened_is_not_called_slow() -> None:
    def broken(model: Any) -> Any:
        for node in model.graph:
            node.op_type = "NoSuchOperator"
        return model

    made = compiled(fn, transforms=[broken])
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(made(X), fn(X))
    (fallback,) = dynamo_onnx.report(made).fallbacks
    assert fallback.reason.kind is ReasonKind.SESSION_FAILED
    assert executables()[0]._trials == ()


@pytest.mark.usefixtures("runs")
def test_threads_call_while_one_of_them_times() -> None:
    made = compiled(fn)
    inputs = [torch.randn(4, 8) for _ in range(4)]
    found: list[Tensor | None] = [None] * 4
    start = threading.Barrier(4)

    def work(index: int) -> None:
        with torch.no_grad():
            start.wait()
            found[index] = made(inputs[index])

    with torch.no_grad():
        torch.compile(fn, backend="onnx")(X)  # so that the threads have little to compile
    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for ours, x in zip(found, inputs, strict=True):
        torch.testing.assert_close(ours, fn(x))


def test_an_interrupt_leaves_the_trial_for_the_next_call(
    runs: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = compiled(fn)
    launch: Callable[..., None] = Launch._launch

    def interrupted(*arguments: Any) -> None:
        launch(*arguments)
        raise KeyboardInterrupt

    with torch.no_grad():
        with monkeypatch.context() as patch:
            patch.setattr(Launch, "_launch", interrupted)
            with pytest.raises(KeyboardInterrupt):
                made(X)
        torch.testing.assert_close(made(X), fn(X))
    assert len(runs) == 1 + ROUNDS + 1
    assert is_slower(made)
