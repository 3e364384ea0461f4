"""The machine that is measured on: what it is, what it can do at most, how quiet it was."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

from .measure import time_ms

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


def copy_gb_s(device: torch.device, size_bytes: int = 2**28) -> float:
    """The best copy of a tensor far larger than any cache, in GB/s read and written together."""
    source = torch.ones(size_bytes // 4, device=device)
    target = torch.empty_like(source)

    def copy() -> object:
        return target.copy_(source)

    copy()
    shortest_ms = min(time_ms(copy, device) for _ in range(8))
    return 2 * size_bytes / (shortest_ms * 1e6)


@dataclass(frozen=True, slots=True)
class Watch:
    """The beginning of a stretch of time, of which `load` tells how quiet the machine was."""

    clock: CpuClock | None
    average: float | None

    @staticmethod
    def start() -> Watch:
        """Begin now."""
        return Watch(read_cpu_clock(), load_average())

    def load(self) -> Load:
        """Since the start. Children count as this process's own once they have been waited for."""
        cores = os.cpu_count() or 1
        return load_between(self.clock, read_cpu_clock(), self.average, load_average(), cores)


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
