"""Measuring helpers that the benchmarks share: timing, statistics, error, load and machine."""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

MIN_ROUNDS = 3
PACKAGES = (
    "dynamo-onnx",
    "torch",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "transformers",
)


@dataclass(frozen=True, slots=True)
class Quartiles:
    """The spread of n measurements, in their own unit."""

    q1: float
    median: float
    q3: float
    n: int


@dataclass(frozen=True, slots=True)
class CpuClock:
    """A reading of the machine's and of this process's CPU clocks, in seconds since their start."""

    wall_s: float
    busy_s: float  # all CPUs, all processes
    stolen_s: float  # taken by the hypervisor
    own_s: float  # this process and the children it has waited for


@dataclass(frozen=True, slots=True)
class Load:
    """How quiet the machine was during a measurement. None where the system does not say."""

    average_before: float | None  # the one-minute load average
    average_after: float | None
    others_share: float | None  # of all CPU time: used by other processes
    stolen_share: float | None  # of all CPU time: taken by the hypervisor


@dataclass(frozen=True, slots=True)
class Machine:
    """What the measurements ran on."""

    cpu: str
    cores: int
    system: str
    gpu: str | None


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
    calls: Mapping[str, Callable[[], object]],
    device: torch.device,
    *,
    rounds: int,
    limit_s: float,
    settle_s: float = 0.05,
    warm_s: float = 0.03,
) -> dict[str, list[float]]:
    """One timed call of each per round, in ms; at least MIN_ROUNDS, then until `limit_s` is over.

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
            times[name].append(time_ms(call, device))
    return times


def sgemm_gflops(device: torch.device, sizes: Sequence[int] = (1024, 1536, 2048)) -> float:
    """The best fp32 matrix multiplication of torch on this machine, in GFLOP/s."""
    best = 0.0
    for n in sizes:
        a, b = torch.randn(n, n, device=device), torch.randn(n, n, device=device)
        out = torch.empty(n, n, device=device)

        def multiply(a: Tensor = a, b: Tensor = b, out: Tensor = out) -> object:
            return torch.mm(a, b, out=out)

        multiply()
        shortest_ms = min(time_ms(multiply, device) for _ in range(8))
        best = max(best, 2 * n**3 / (shortest_ms * 1e6))
    return best


def load_average() -> float | None:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # not on this system
        return None


def read_cpu_clock(stat: Path = Path("/proc/stat")) -> CpuClock | None:
    """None where there is no /proc/stat."""
    if not stat.exists():
        return None
    user, nice, system, _, _, irq, softirq, steal = (
        int(field) / os.sysconf("SC_CLK_TCK") for field in stat.read_text().split()[1:9]
    )
    own = os.times()
    return CpuClock(
        wall_s=time.monotonic(),
        busy_s=user + nice + system + irq + softirq,
        stolen_s=steal,
        own_s=own.user + own.system + own.children_user + own.children_system,
    )


def load_between(
    before: CpuClock | None,
    after: CpuClock | None,
    average_before: float | None,
    average_after: float | None,
    cores: int,
) -> Load:
    if before is None or after is None:
        return Load(average_before, average_after, None, None)
    available_s = (after.wall_s - before.wall_s) * cores
    others_s = (after.busy_s - before.busy_s) - (after.own_s - before.own_s)
    return Load(
        average_before,
        average_after,
        others_share=max(0.0, others_s / available_s),  # the two clocks tick apart
        stolen_share=(after.stolen_s - before.stolen_s) / available_s,
    )


def machine(device: torch.device) -> Machine:
    return Machine(
        cpu=_cpu_model(),
        cores=os.cpu_count() or 1,
        system=f"{platform.system()} {platform.machine()}",
        gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    )


def _cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Of Python and of those of PACKAGES that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
