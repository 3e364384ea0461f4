"""Measuring helpers that the benchmarks share: timing, statistics and error."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

C = TypeVar("C", bound=Callable[[], object])
MIN_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Quartiles:
    """The spread of n measurements, in their own unit."""

    q1: float
    median: float
    q3: float
    n: int


def quartiles(values: Sequence[float]) -> Quartiles:
    """Linear interpolation between the measured values; one value is its own quartiles."""
    if not values:
        raise ValueError("no measurement to summarise")
    if len(values) == 1:
        return Quartiles(values[0], values[0], values[0], 1)
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return Quartiles(q1, median, q3, len(values))


def paired_ratios(times: Sequence[float], base: Sequence[float]) -> list[float]:
    """Round by round, so that a machine that slows down for a while slows both sides down."""
    return [time / reference for time, reference in zip(times, base, strict=True)]


def geometric_mean(values: Sequence[float]) -> float | None:
    """None of no values; they are positive."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Of the straight line through the points (x, y) with the least squares."""
    return statistics.linear_regression(xs, ys).slope


def relative_error(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The worst over the outputs of max|actual - expected| / max|expected|; a nan stays one."""
    worst = 0.0
    for a, e in zip(actual, expected, strict=True):
        if a.shape != e.shape:
            raise ValueError(f"output of shape {tuple(a.shape)}, expected {tuple(e.shape)}")
        wanted = e.detach().cpu().double()
        difference = (a.detach().cpu().double() - wanted).abs().max().item()
        scale = wanted.abs().max().item()
        if math.isnan(difference):
            return math.nan
        worst = max(worst, difference / scale if scale else difference)
    return worst


_CPU = torch.device("cpu")


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_ms(call: Callable[[], object], device: torch.device) -> float:
    """One call. On CUDA between two events of the current stream, else by the wall clock."""
    if device.type == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1e3


def interleave(
    calls: Mapping[str, C],
    device: torch.device,
    *,
    rounds: int,
    limit_s: float,
    settle_s: float = 0.05,
    warm_s: float = 0.03,
    timer: Callable[[C], float] | None = None,
) -> dict[str, list[float]]:
    """One timed call of each per round, in ms; at least MIN_ROUNDS, then until `limit_s` is over.

    `timer` makes the timed call where it is more than a call between two readings of the clock, and
    returns what it measured.

    Before its timed call each contender lets the others' threads go to sleep (`settle_s`) and warms
    its own up (`warm_s`, at least one call). Without the first, the threads of an ONNX Runtime
    session still spin during the next contender's call, which made eager's mobilenet_v2 take twice
    its time on two cores; without the second, the first call after the sleep is up to 1.6 times
    slower. With both, each contender runs as fast as when it is alone in the process. Every round
    starts with another contender, so that none always follows the same one.
    """
    names = list(calls)
    times: dict[str, list[float]] = {name: [] for name in names}
    deadline = time.monotonic() + limit_s
    for index in range(rounds):
        if index >= MIN_ROUNDS and time.monotonic() > deadline:
            break
        first = index % len(names)
        for name in names[first:] + names[:first]:
            call = calls[name]
            synchronize(device)
            time.sleep(settle_s)
            warm_until = time.perf_counter() + warm_s
            call()
            while time.perf_counter() < warm_until:
                call()
            synchronize(device)
            times[name].append(timer(call) if timer else time_ms(call, device))
    return times


def interleave_blocks(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    limit_s: float,
    block_s: float = 0.02,
    device: torch.device = _CPU,
) -> dict[str, list[float]]:
    """`interleave` for calls too short to be timed alone: microseconds a call, over `block_s`.

    By the wall clock: on CUDA, that is until the device has done the last call of a block.
    """
    counts = {name: _calls_within(call, block_s) for name, call in calls.items()}
    blocks = {name: _repeated(call, counts[name], device) for name, call in calls.items()}
    times = interleave(blocks, _CPU, rounds=rounds, limit_s=limit_s)
    return {name: [ms * 1e3 / counts[name] for ms in values] for name, values in times.items()}


def _calls_within(call: Callable[[], object], block_s: float) -> int:
    """How often it fits into the time, at least once; the first call, which may compile, apart."""
    call()
    count, end = 0, time.perf_counter() + block_s
    while time.perf_counter() < end:
        call()
        count += 1
    return max(1, count)


def _repeated(call: Callable[[], object], count: int, device: torch.device) -> Callable[[], None]:
    def block() -> None:
        for _ in range(count):
            call()
        synchronize(device)

    return block
