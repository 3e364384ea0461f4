"""How fast is one forward pass under each backend, beside eager, and what does compiling cost?

    python -m benchmarks.inference                            # everything, on the CPU
    python -m benchmarks.inference --models resnet50,gpt2 --backends eager,onnx --out part.json
    python -m benchmarks.inference --redraw --update-readme   # from the last results

Each model runs in a process of its own, with all its backends interleaved. The results go to
`benchmarks/results/inference-<device>.json`, the picture beside it, the table to the terminal.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from . import harness, inference_report, machine, measure, record, render
from .backends import BACKENDS, COMPILED, ON_CUDA, Contender, capture_only, place, side_stream, tiny
from .inference_report import BackendResult, ModelResult, Settings, Sweep
from .isolate import isolated, prepared
from .models import MODELS, Example

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Entry:
    """A backend's result so far, and the backend made ready unless it failed."""

    result: BackendResult
    contender: Contender | None


def measure_model(name: str, settings: Settings) -> ModelResult:
    """All backends of one model. Meant for a process of its own: it sets threads and caches."""
    device = torch.device(settings.device)
    with prepared(settings.threads), side_stream(device):
        built = MODELS[name].build(settings.batch, small=settings.small)
        example = place(built, device, DTYPES[settings.dtype])
        flops = _flops(example)
        capture_s = None
        if not COMPILED.isdisjoint(settings.backends):
            capture_s = _capture_s(example, device)
        entries = [_enter(backend, example, capture_s, device) for backend in settings.backends]
        results, load = _contest(entries, settings, device)
    parameters = list(example.module.parameters())
    return ModelResult(
        name,
        parameters=sum(parameter.numel() for parameter in parameters),
        capture_s=capture_s,
        load=load,
        backends=results,
        flops=flops,
        parameter_bytes=sum(parameter.nbytes for parameter in parameters),
    )


def _flops(example: Example) -> int:
    """Of one eager call, two for a multiplication and an addition."""
    with FlopCounterMode(display=False) as counter:
        example.module(**example.kwargs)
    return counter.get_total_flops()


def _tiny_like(example: Example) -> Example:
    weight = next(example.module.parameters())
    return tiny(weight.device, weight.dtype)


def _capture_s(example: Example, device: torch.device) -> float:
    """The shorter of two first calls of `aot_eager`: the first fills caches that outlive it."""
    capture_only(_tiny_like(example)).call()
    shortest = math.inf
    for _ in range(2):
        torch.compiler.reset()
        start = time.perf_counter()
        capture_only(example).call()
        measure.synchronize(device)
        shortest = min(shortest, time.perf_counter() - start)
    return shortest


def _enter(backend: str, example: Example, capture_s: float | None, device: torch.device) -> Entry:
    """Time the first call, after something tiny has paid for imports, from empty Dynamo caches."""
    make = BACKENDS[backend]
    try:
        make(_tiny_like(example)).prime()
        if backend in COMPILED:
            torch.compiler.reset()
        start = time.perf_counter()
        contender = make(example)
        contender.prime()
        measure.synchronize(device)
        first_call_s = time.perf_counter() - start
        report = contender.report()
        contender.call()
    except Exception as error:  # noqa: BLE001  (whatever it is, it is the result)
        return Entry(BackendResult(backend, error=record.describe(error)), None)
    own_compile_s = None
    if backend in COMPILED and capture_s is not None:
        own_compile_s = first_call_s - capture_s
    result = BackendResult(backend, first_call_s, own_compile_s, report=report)
    return Entry(result, contender)


def _contest(
    entries: Sequence[Entry], settings: Settings, device: torch.device
) -> tuple[tuple[BackendResult, ...], machine.Load]:
    """The rounds, and each backend's output against eager's at their end."""
    ready = {e.result.backend: e.contender for e in entries if e.contender is not None}
    if "eager" not in ready:
        raise RuntimeError(f"eager itself failed: {entries[0].result.error}")
    for contender in ready.values():
        contender.prime()  # compiles again, from caches, what a reset in between has dropped
    watch = machine.Watch.start()
    calls = {backend: contender.call for backend, contender in ready.items()}
    times = measure.interleave(calls, device, rounds=settings.rounds, limit_s=settings.limit_s)
    load = watch.load()
    expected = ready["eager"].tensors(ready["eager"].call())
    results = (
        entry.result
        if entry.contender is None
        else _finish(entry.result, entry.contender, times, expected)
        for entry in entries
    )
    return tuple(results), load


def _finish(
    result: BackendResult,
    contender: Contender,
    times: dict[str, list[float]],
    expected: Sequence[Tensor],
) -> BackendResult:
    own = times[result.backend]
    result = replace(
        result,
        time_ms=measure.quartiles(own),
        ratio=measure.quartiles(measure.paired_ratios(own, times["eager"])),
    )
    try:
        max_error = measure.relative_error(contender.tensors(contender.call()), expected)
    except ValueError as error:  # other shapes, or another number of outputs
        return replace(result, error=record.describe(error))
    if not math.isfinite(max_error):
        return replace(result, error=f"the error against eager is {max_error}")
    return replace(result, max_error=max_error)


def measured_apart(name: str, settings: Settings) -> ModelResult:
    """`measure_model` in a new process, so that a crash ends one model and not the sweep."""
    try:
        return isolated(measure_model, name, settings)
    except Exception as error:  # noqa: BLE001  (whatever it is, it is the result)
        return ModelResult(name, error=record.describe(error))


def sweep(settings: Settings, command: str, out: Path) -> Sweep:
    """Measure every model; the file is written anew after each, so an interruption loses one."""
    torch.set_num_threads(settings.threads)
    device = torch.device(settings.device)
    run = Sweep(
        date=harness.now(),
        command=command,
        settings=settings,
        machine=machine.machine(device),
        versions=machine.versions(),
        sgemm_gflops=machine.sgemm_gflops(device),
        copy_gb_s=machine.copy_gb_s(device),
    )
    for name in settings.models:
        start = time.monotonic()
        result = measured_apart(name, settings)
        run = replace(run, models=(*run.models, result))
        record.write(run, out)
        shown = ", ".join(
            f"{r.backend} {r.time_ms.median:.3g} ms" if r.time_ms else f"{r.backend} {r.error}"
            for r in result.backends
        )
        print(
            f"{name}: {shown or result.error} [{time.monotonic() - start:.0f} s]", file=sys.stderr
        )
    return run


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    usual = Settings()
    parser = harness.parser(
        "inference",
        __doc__ or "",
        rounds=usual.rounds,
        limit_s=usual.limit_s,
        devices=("cpu", "cuda"),
    )
    add = parser.add_argument
    add("--models", type=lambda text: harness.names(list(MODELS), text), default="all")
    add("--backends", type=lambda text: harness.names(list(BACKENDS), text), default="all")
    add("--dtype", choices=tuple(DTYPES), default=usual.dtype)
    add("--batch", type=int, default=usual.batch)
    return parser.parse_args(argv)


def _default_out(settings: Settings) -> Path:
    parts = ["inference", settings.device]
    parts += [f"batch{settings.batch}"] if settings.batch != 1 else []
    parts += [settings.dtype] if settings.dtype != Settings().dtype else []
    parts += ["small"] if settings.small else []
    return harness.RESULTS / ("-".join(parts) + ".json")


def main(argv: Sequence[str]) -> int:
    """0 when every backend of every model was measured, else 1."""
    arguments = _arguments(argv)
    settings = Settings(
        device=arguments.device,
        dtype=arguments.dtype,
        batch=arguments.batch,
        threads=arguments.threads,
        rounds=arguments.rounds,
        limit_s=arguments.limit_s,
        small=arguments.small,
        models=arguments.models,
        backends=harness.eager_first(
            b for b in arguments.backends if arguments.device == "cuda" or b not in ON_CUDA
        ),
    )
    out: Path = arguments.out or _default_out(settings)
    if arguments.redraw:
        run = record.read(out, Sweep)
    else:
        run = sweep(settings, harness.command_of("inference", argv), out)
    image = out.with_suffix(".png")
    inference_report.picture(run, image)
    table = inference_report.table(run)
    print(table)
    if arguments.update_readme:
        caption = "Speed-up over eager per model and backend"
        section = "inference" if settings.batch == 1 else f"inference_batch{settings.batch}"
        render.update_readme(harness.ROOT / "README.md", section, table, image, caption)
    failed = any(m.error or any(r.error for r in m.backends) for m in run.models)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
