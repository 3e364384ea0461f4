"""How much memory do building a model, compiling it and calling it take, and is it given back?

    python -m benchmarks.memory
    python -m benchmarks.memory --cases all --backends "eager,onnx frozen" --rounds 1
    python -m benchmarks.memory --device cuda

Every figure comes from a process of its own: the most that was resident at any time (`peak`), what
is resident after some calls (`steady`), and what still is once the model has been dropped, the
compiler's caches emptied and free memory returned to the system (`after`). With `--device cuda`
it is the device's memory, whichever allocator has it.
"""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from . import backends, harness, measure, plots, record, render
from .backends import Contender
from .isolate import isolated, prepared
from .machine import Watch
from .models import MODELS, Example
from .record import Case, Row, Run, Settings

CALLS = 5
FIGURES = ("base_mb", "peak_mb", "steady_mb", "after_mb")
MAKERS: dict[str, Callable[[Example], Contender]] = {
    "eager": backends.eager,
    "onnx frozen": partial(backends.onnx, options={"weights": "frozen"}),
    "onnx live": partial(backends.onnx, options={"weights": "live"}),
    "inductor": backends.compiled("inductor"),
    "aot_eager": backends.compiled("aot_eager"),
}


def resident_mb(status: Path = Path("/proc/self/status")) -> dict[str, float]:
    """`now` and `peak` of this process in MB of 10^6 bytes.

    Where there is no /proc, getrusage tells the peak alone (in kB on Linux, in bytes on macOS).
    """
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        kinds = {"now": "VmRSS", "peak": "VmHWM"}
        return {kind: int(fields[key].split()[0]) * 1024 / 1e6 for kind, key in kinds.items()}
    unit = 1 if sys.platform == "darwin" else 1024
    return {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6}


class DeviceMemory:
    """What is in use on a device in MB of 10^6 bytes, `used()` read again and again in a thread.

    torch counts its own allocations only, and onnxruntime has an arena of its own.
    """

    def __init__(self, used: Callable[[], float], every_s: float = 0.001) -> None:
        self._used = used
        self._every_s = every_s
        self._peak = used()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(self._every_s):
            self._peak = max(self._peak, self._used())

    def read(self) -> dict[str, float]:
        """`now` and the `peak` so far."""
        now = self._used()
        self._peak = max(self._peak, now)
        return {"now": now, "peak": self._peak}

    def close(self) -> None:
        """End the thread."""
        self._over.set()
        self._thread.join()


def _cuda_mb(device: torch.device) -> float:
    free, total = torch.cuda.mem_get_info(device)
    return (total - free) / 1e6


@contextmanager
def _meter(device: torch.device) -> Iterator[Callable[[], dict[str, float]]]:
    """Reads the memory of this process, or of the device."""
    if device.type == "cpu":
        yield resident_mb
        return
    memory = DeviceMemory(partial(_cuda_mb, device))
    try:
        yield memory.read
    finally:
        memory.close()


def _trim(device: torch.device) -> None:
    """Collect garbage, and let glibc return free memory, where it is glibc."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def use_once(model: str, backend: str, settings: Settings) -> dict[str, float]:
    """Build, call and drop the model. Meant for a process of its own: peaks never fall."""
    import dynamo_onnx

    device = torch.device(settings.device)
    with prepared(settings.threads), backends.side_stream(device), _meter(device) as read:
        base = read()
        built = MODELS[model].build(small=settings.small)
        example = backends.place(built, device, torch.float32)
        del built
        contender = MAKERS[backend](example)
        contender.prime()
        for _ in range(CALLS):
            contender.call()
        used = read()
        del example, contender
        if backend != "eager":  # which loads no compiler, and must not to be reset
            torch.compiler.reset()
            dynamo_onnx.reset()
        _trim(device)
        after = read()
    found = {"peak_mb": used["peak"]}
    if "now" in base:
        found |= {"base_mb": base["now"], "steady_mb": used["now"], "after_mb": after["now"]}
    return found


def measure_case(name: str, settings: Settings) -> Case:
    """Every backend once a round, each in a process of its own."""
    watch = Watch.start()
    found: dict[str, list[Mapping[str, float]]] = {backend: [] for backend in settings.backends}
    errors: dict[str, str] = {}
    for _ in range(settings.rounds):
        for backend in settings.backends:
            if backend in errors:
                continue
            try:
                found[backend].append(isolated(use_once, name, backend, settings))
            except Exception as error:  # noqa: BLE001  (whatever it is, it is the result)
                errors[backend] = record.describe(error)
    base = None if "eager" in errors else found.get("eager")
    rows = [
        Row(backend, error=errors[backend])
        if backend in errors
        else row_of(backend, found[backend], base)
        for backend in settings.backends
    ]
    return Case(name, {"calls": CALLS}, watch.load(), tuple(rows))


def row_of(
    backend: str,
    found: Sequence[Mapping[str, float]],
    eager: Sequence[Mapping[str, float]] | None,
) -> Row:
    """One backend's figures as quartiles, its peak also over eager's of the same round."""
    values = {
        figure: measure.quartiles([one[figure] for one in found])
        for figure in FIGURES
        if figure in found[0]
    }
    if eager is not None:
        pairs = zip(found, eager, strict=True)
        values["ratio"] = measure.quartiles([a["peak_mb"] / b["peak_mb"] for a, b in pairs])
    return Row(backend, values)


def page(run: Run) -> str:
    """A row per model: each backend's peak, then what stays."""
    shown = run.settings.backends
    header = ["model", "before the model"]
    header += [f"{backend} peak" for backend in shown]
    header += [f"{backend} steady / after" for backend in shown]
    rows: list[list[str]] = []
    for case in run.cases:
        cells = [render.case_name(case), render.cell(case.median("eager", "base_mb"), "MB")]
        for backend in shown:
            ratio = None if backend == "eager" else case.median(backend, "ratio")
            cells.append(render.with_times(case.median(backend, "peak_mb"), "MB", ratio))
        for backend in shown:
            kept = (case.median(backend, figure) for figure in ("steady_mb", "after_mb"))
            cells.append(" / ".join(render.cell(value) for value in kept if value is not None))
        rows.append(cells)
    memory = "Resident" if run.settings.device == "cpu" else "Device"
    return render.page(
        run,
        [render.table(header, rows)],
        f"{memory} memory, medians of {run.settings.rounds} processes, each of which builds a "
        f"model, compiles it and calls it {1 + CALLS} times. × is the peak over eager's. Steady is "
        "what is resident after the calls; after is what still is once the model and the caches "
        "have been dropped. Compilers that Inductor starts are processes of their own and not "
        "counted. aot_eager captures as the others do and runs in eager: what it takes beyond "
        "eager is Dynamo's.",
    )


def picture(run: Run, path: Path) -> None:
    """Bars of the peak, a group per model."""
    where = render.hardware(run.machine, run.settings.threads)
    plots.bars(
        path,
        [case.name for case in run.cases],
        plots.by_contender(run.cases, run.settings.backends, "peak_mb"),
        title=f"Peak memory; {where}",
        label="MB resident at most, shorter is better",
        digits=".0f",
    )


BENCHMARK = harness.Benchmark(
    name="memory",
    text=__doc__ or "",
    cases=tuple(MODELS),
    backends=tuple(MAKERS),
    usual=Settings(
        rounds=3, cases=("bert-base", "gpt2", "llama-30x576", "resnet50", "mobilenet_v2")
    ),
    measure=measure_case,
    page=page,
    picture=picture,
    devices=("cpu", "cuda"),
    caption="Peak resident memory per model and backend",
)

if __name__ == "__main__":
    raise SystemExit(harness.main(BENCHMARK, sys.argv[1:]))
