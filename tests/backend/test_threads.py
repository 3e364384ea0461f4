"""Threads on one compiled model while something else happens to it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dynamo_onnx
from dynamo_onnx import SessionError
from dynamo_onnx.backend.state import state

THREADS = 8


def together(work: Callable[[int], None], meanwhile: Callable[[], None] | None = None) -> None:
    """So many at a time, and another thing beside them; what one of them raises is raised."""
    raised: list[Exception] = []
    start = threading.Barrier(THREADS)

    def run(index: int) -> None:
        start.wait()
        try:
            with torch.no_grad():
                work(index)
        except Exception as error:  # noqa: BLE001 - raised below
            raised.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    while meanwhile is not None and any(thread.is_alive() for thread in threads):
        meanwhile()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4)).eval()


def test_programs_are_forgotten_while_threads_compile() -> None:
    def work(index: int) -> None:
        for number in range(4):
            factor = float(index * 4 + number + 1)
            ours = torch.compile(
                lambda x, f=factor: (x * f).tanh() + f,
                backend="onnx",
                options={"strict": True, "max_programs": 2},
            )
            x = torch.randn(3, 4)
            torch.testing.assert_close(ours(x), (x * factor).tanh() + factor)

    # Two threads that are the first to look a backend up meet in torch (2.13): "duplicate name".
    torch.compile(torch.sin, backend="onnx")
    with torch._dynamo.config.patch(recompile_limit=100, accumulated_recompile_limit=1000):
        together(work)
    assert len(state.programs) <= 2


def test_a_reset_while_threads_call() -> None:
    model = net()
    ours = torch.compile(model, backend="onnx", options={"strict": True})
    inputs = [torch.randn(3, 16) for _ in range(THREADS)]
    with torch.no_grad():
        wanted = [model(x) for x in inputs]
        ours(inputs[0])

    def work(index: int) -> None:
        for _ in range(50):
            torch.testing.assert_close(ours(inputs[index]), wanted[index])

    together(work, dynamo_onnx.reset)


@pytest.mark.parametrize("weights", ["auto", "frozen", "live"])
def test_weights_change_while_threads_call(weights: str) -> None:
    """Each row is by the weights before or after, and the last word is theirs."""
    model = net()
    ours = torch.compile(model, backend="onnx", options={"strict": True, "weights": weights})
    inputs = [torch.randn(3, 16) for _ in range(THREADS)]
    bias: Any = model[2].bias  # type: ignore[index]  # of a Sequential
    with torch.no_grad():
        bias.zero_()
        ours(inputs[0])
        without = [model(x) for x in inputs]
    steps = torch.arange(5.0)

    def work(index: int) -> None:
        for _ in range(40):
            for added in ours(inputs[index]) - without[index]:
                step = (added.mean() - steps).abs().argmin()
                torch.testing.assert_close(added, steps[step].expand(4), atol=1e-4, rtol=0)

    left = iter(steps.tolist())

    def change() -> None:
        step = next(left, None)
        if step is not None:
            bias.detach().copy_(torch.full((4,), step))

    together(work, change)
    with torch.no_grad():
        torch.testing.assert_close(ours(inputs[0]), model(inputs[0]))


def test_first_calls_of_all_threads_are_compared() -> None:
    def spoil(model: Any) -> Any:
        for node in model.graph:
            if node.op_type == "Sin":
                node.op_type = "Cos"
        return model

    def fn(x: Tensor) -> Tensor:
        return x.sin() * 2 + 1

    options = {"verify": THREADS, "transforms": [spoil]}
    ours = torch.compile(fn, backend="onnx", options=options)
    inputs = [torch.randn(3, 4) for _ in range(THREADS)]
    together(lambda index: torch.testing.assert_close(ours(inputs[index]), fn(inputs[index])))
    torch._dynamo.reset()
    ours = torch.compile(fn, backend="onnx", options={**options, "strict": True})
    for _ in range(2):
        with pytest.raises(SessionError, match="no single operator of it deviates"):
            ours(inputs[0])
