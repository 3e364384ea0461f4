"""Does it hold? Kills during writes, many threads, many compilations, and memory that stays flat.

    python -m tests.conformance.stress                 # in full, some minutes
    python -m tests.conformance.stress --share 0.01    # a hundredth of it

Prints a line for each part, and ends with 1 if something was wrong, lost or read badly, or if the
memory grew by more than 5 %.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import dynamo_onnx
from benchmarks.memory import resident_mb
from dynamo_onnx.backend.program_files import ProgramFiles
from dynamo_onnx.backend.state import state
from dynamo_onnx.runtime.errors import CacheError
from dynamo_onnx.runtime.stored import from_bytes, to_bytes

GROWTH = 1.05
THREADS = 8


class Net(nn.Module):
    """[B, 32] -> [B, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(32, 64), nn.Linear(64, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.nn.functional.gelu(self.first(x))).softmax(-1)


def _compiled(net: nn.Module) -> Callable[[Tensor], Tensor]:
    torch._dynamo.reset()
    dynamo_onnx.reset()
    return torch.compile(net, backend="onnx", dynamic=True, options={"strict": True})


def _wrong(found: Tensor, wanted: Tensor) -> bool:
    return not torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------- kills
def kills(count: int) -> list[str]:
    """Processes that write programs, killed at any moment; every file is whole at all times."""
    net = Net().eval()
    call = _compiled(net)
    with torch.no_grad():
        call(torch.randn(3, 32))
    (program,) = state.programs.values()
    data = to_bytes(program, {})
    chance = random.Random(0)
    bad: list[str] = []
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        files = ProgramFiles(Path(folder), 1 << 30)

        def write() -> None:
            for number in itertools.count():
                files.keep(str(number % 20), data)

        for _ in range(count):
            process = context.Process(target=write)
            process.start()
            time.sleep(chance.uniform(0.001, 0.02))
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            for entry in files.entries():
                try:
                    from_bytes(entry.path.read_bytes())
                except CacheError as error:
                    bad.append(f"{entry.path.name}: {error}")
    return bad


# ----------------------------------------------------------------------------- threads
def threads(calls: int) -> list[str]:
    """Many threads call one model with sizes that vary, while another changes nothing but time."""
    net = Net().eval()
    call = _compiled(net)
    inputs = [torch.randn(size, 32) for size in range(2, 18)]
    with torch.no_grad():
        wanted = [net(x) for x in inputs]
        call(inputs[0])
    bad: list[str] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        with torch.no_grad():
            for _ in range(calls):
                index = chance.randrange(len(inputs))
                if _wrong(call(inputs[index]), wanted[index]):
                    bad.append(f"thread {seed}: wrong for {tuple(inputs[index].shape)}")

    _together(work, bad)
    return bad


def compilations_at_once(rounds: int) -> list[str]:
    """Every thread compiles a function of its own, all at the same time."""
    bad: list[str] = []

    def work(seed: int) -> None:
        with torch.no_grad():
            for number in range(rounds):
                factor = float(seed * rounds + number + 1)
                call = torch.compile(lambda x, f=factor: (x * f).tanh() + f, backend="onnx")
                x = torch.randn(4, 4)
                if _wrong(call(x), (x * factor).tanh() + factor):
                    bad.append(f"thread {seed}: wrong with {factor}")

    _together(work, bad)
    return bad


def _together(work: Callable[[int], None], bad: list[str]) -> None:
    def caught(seed: int) -> None:
        try:
            work(seed)
        except Exception as error:  # noqa: BLE001 - told in the result
            bad.append(f"thread {seed}: {type(error).__name__}: {error}")

    running = [threading.Thread(target=caught, args=(seed,)) for seed in range(THREADS)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


# ------------------------------------------------------------------------------ memory
def recompilations(count: int) -> list[str]:
    """Models made, compiled, called and dropped, one after another."""

    def once() -> str:
        net = Net().eval()
        call = _compiled(net)
        x = torch.randn(5, 32)
        with torch.no_grad():
            return "wrong" if _wrong(call(x), net(x)) else ""

    return _flat(once, count, "recompilations")


def soak(seconds: float) -> list[str]:
    """Calls with sizes that vary, weights that change, and now and then a step of training."""
    net = Net()
    call = _compiled(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    chance = random.Random(0)

    def once() -> str:
        x = torch.randn(chance.randint(2, 40), 32)
        if chance.random() < 0.1:
            optimizer.zero_grad()
            call(x).square().mean().backward()
            optimizer.step()
        with torch.no_grad():
            return "wrong" if _wrong(call(x), net(x)) else ""

    return _flat(once, None, "soak", seconds)


def _flat(
    once: Callable[[], str], count: int | None, what: str, seconds: float = float("inf")
) -> list[str]:
    """Do it again and again; the memory after the second half is that after the first."""
    bad: list[str] = []
    middle = 0.0
    begun = time.monotonic()
    for number in itertools.count():
        done = number / count if count is not None else (time.monotonic() - begun) / seconds
        if done >= 0.5 and not middle:
            gc.collect()
            middle = resident_mb()["now"]
        if done >= 1:
            break
        told = once()
        bad += [f"{what} {number}: {told}"] if told else []
    gc.collect()
    end = resident_mb()["now"]
    print(f"  {what}: {middle:.0f} MB after half, {end:.0f} MB at the end ({end / middle:.3f}×)")
    if end > middle * GROWTH:
        bad.append(f"{what}: memory grew from {middle:.0f} to {end:.0f} MB")
    return bad


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the usual number of each")
    share = parser.parse_args(argv).share
    torch.set_num_threads(1)

    def part(count: int) -> int:
        return max(2, round(count * share))

    parts: dict[str, Callable[[], list[str]]] = {
        "kills during writes": lambda: kills(part(1000)),
        f"calls of {THREADS} threads": lambda: threads(part(10_000)),
        "compilations at once": lambda: compilations_at_once(part(8)),
        "recompilations": lambda: recompilations(part(200)),
        "soak": lambda: soak(240 * share),
    }
    failed = False
    for name, run in parts.items():
        begun = time.monotonic()
        bad = run()
        failed = failed or bool(bad)
        print(f"{name}: {len(bad)} bad, {time.monotonic() - begun:.0f} s", flush=True)
        for told in bad[:10]:
            print(f"  {told}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
