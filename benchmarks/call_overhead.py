"""What does a call cost beyond the session's own run, where there is next to nothing to compute?

    python -m benchmarks.call_overhead
    python -m benchmarks.call_overhead --device cuda
    python -m benchmarks.call_overhead --cases mlp --backends eager,onnx,bare --rounds 5

Each case runs in a process of its own. `bare` opens the sessions that this project opened, over the
same weights, and calls them on values that are bound already, with nothing of torch around them.
What a call costs beyond that is Dynamo's guards, AOTAutograd's wrapper and this project's own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from onnxruntime.capi import _pybind_state as ort_c
from torch import Tensor, nn

from . import backends, contest, harness, measure, plots, render
from .backends import Contender
from .isolate import isolated, prepared
from .machine import Watch
from .models import Example
from .record import Case, Run, Settings

OURS, BARE = "onnx", "bare"


class AddOne(nn.Module):
    """[*A] -> [*A]."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1


class SumOfInputs(nn.Module):
    """Any number of [*A] -> [*A]."""

    def forward(self, **inputs: Tensor) -> Tensor:
        first, *others = inputs.values()
        total = first
        for other in others:
            total = total + other
        return total


class EagerBetween(nn.Module):
    """Blocks with a sine between them, which the case leaves to eager."""

    def __init__(self, regions: int, width: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_layers(1, width) for _ in range(regions))

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self.blocks):
            x = block(x) if index == 0 else block(x.sin())
        return x


def _layers(count: int, width: int) -> nn.Sequential:
    """Linear layers, [*, width] -> [*, width], each followed by a ReLU."""
    pairs = [[nn.Linear(width, width), nn.ReLU()] for _ in range(count)]
    return nn.Sequential(*(layer for pair in pairs for layer in pair))


def _one_input(module: nn.Module, name: str, *shape: int) -> Example:
    return Example(module.eval(), {name: torch.randn(*shape)})


@dataclass(frozen=True, slots=True)
class Tiny:
    """A case: a module with little to compute, in full and in small, and onnx's options."""

    make: Callable[[bool], Example]
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


def _many_inputs(small: bool) -> Example:  # noqa: FBT001 - as `Tiny.make`
    return Example(
        SumOfInputs().eval(), {f"x{i}": torch.randn(8) for i in range(10 if small else 300)}
    )


CASES = {
    "x + 1": Tiny(lambda _: _one_input(AddOne(), "x", 8)),
    "mlp": Tiny(lambda _: _one_input(_layers(4, 16), "input", 1, 16)),
    "many weights": Tiny(lambda small: _one_input(_layers(5 if small else 100, 8), "input", 1, 8)),
    "many inputs": Tiny(_many_inputs),
    "regions": Tiny(lambda _: _one_input(EagerBetween(4, 16), "x", 1, 16), {"eager_ops": ["sin"]}),
}


def bare(example: Example, options: Mapping[str, Any]) -> Contender:
    """The example's sessions alone, called one after another on inputs that are bound already.

    In a process where `onnx` has been made ready for the example, what it compiled is found again:
    Dynamo keeps it with the code, whoever asked for it. So nothing else may have been compiled.
    """
    import dynamo_onnx

    module = torch.compile(example.module, backend="onnx", options=dict(options))
    module(**example.kwargs)
    cached = dynamo_onnx.programs()
    if not cached:
        raise RuntimeError("no program was compiled, so there is no session to call")
    device = next(iter(example.kwargs.values())).device
    runs = [_bare_run(program, device, alone=len(cached) == 1) for program in cached]

    def call() -> list[Tensor]:
        return [tensor for run in runs for tensor in run().to_dlpacks(torch.from_dlpack)]

    def run_all() -> None:
        for run in runs:
            run()

    return Contender(run_all, lambda _: call(), lambda: None)


def _bare_run(
    cached: Any,  # noqa: ANN401 - a CachedProgram
    device: torch.device,
    *,
    alone: bool,
) -> Callable[[], Any]:
    """One run of a program's session over its weights, with ones for the other inputs.

    The weights are constants of the session on the CPU alone, as in the compiled model.
    """
    from dynamo_onnx.runtime.session import open_session, session_options
    from dynamo_onnx.runtime.tensors import Feeder, ort_device

    program = cached.program
    frozen = {
        index: cached.weights[spec.name]
        for index, spec in enumerate(program.inputs)
        if spec.name in cached.weights and device.type == "cpu"
    }
    options = session_options({}, threads=torch.get_num_threads(), spinning=alone)
    opened = open_session(program, options, backends.providers(device), frozen)
    specs = [spec for index, spec in enumerate(program.inputs) if index not in frozen]
    fed = [torch.from_numpy(_ones(spec)).to(device) for spec in specs]
    feeds = Feeder([spec.dtype for spec in specs], [tensor.device for tensor in fed]).feed(fed)
    names = [spec.name for spec in specs]
    session, outputs = opened.session, opened.output_names
    devices = [ort_device(device)] * len(outputs)
    run_options = ort_c.RunOptions()

    def run(_alive: object = (opened, fed)) -> Any:  # noqa: ANN401 - values of onnxruntime
        results = ort_c.OrtValueVector()
        session.run_with_ortvaluevector(run_options, names, feeds, outputs, results, devices)
        return results

    return run


def _ones(spec: Any) -> Any:  # noqa: ANN401 - a TensorSpec, and an array of numpy
    import numpy as np

    return np.ones(spec.shape, spec.dtype.numpy())


def _makers(tiny: Tiny, example: Example) -> dict[str, Callable[[], Contender]]:
    return {
        "eager": partial(backends.eager, example),
        "aot_eager": partial(backends.capture_only, example),
        "inductor": partial(backends.BACKENDS["inductor"], example),
        OURS: partial(backends.onnx, example, tiny.options),
        BARE: partial(bare, example, tiny.options),
    }


BACKENDS = ("eager", "aot_eager", "inductor", OURS, BARE)


def measure_case(name: str, settings: Settings) -> Case:
    """All contenders of one case. Meant for a process of its own."""
    device = torch.device(settings.device)
    with prepared(settings.threads), backends.side_stream(device):
        torch.manual_seed(0)
        tiny = CASES[name]
        example = backends.place(tiny.make(settings.small), device, torch.float32)
        makers = _makers(tiny, example)
        chosen = {backend: makers[backend] for backend in BACKENDS if backend in settings.backends}
        ready, failed = contest.made_ready(chosen)
        ours = ready[OURS].report() if OURS in ready else None
        calls = {b: ready[b].call for b in settings.backends if b in ready}
        watch = Watch.start()
        times = measure.interleave_blocks(calls, rounds=settings.rounds, limit_s=settings.limit_s)
        load = watch.load()
        rows = contest.timed_rows(times, "call_us", facts={OURS: ours} if ours else None)
        if BARE in times:
            for row in rows:
                pairs = zip(times[row.contender], times[BARE], strict=True)
                row.values["over_bare_us"] = measure.quartiles([a - b for a, b in pairs])
        if OURS in ready and "eager" in ready:
            outputs = (ready[name].tensors(ready[name].call()) for name in (OURS, "eager"))
            error = contest.finite_error(*outputs)
            for row in rows:
                if row.contender == OURS:
                    row.facts["max_error"] = error
    facts = {
        "weights": len(list(example.module.parameters())),
        "inputs": len(example.kwargs),
        "regions": ours["regions"] if ours else None,
    }
    return Case(name, facts, load, contest.in_order([*rows, *failed], settings.backends))


def page(run: Run) -> str:
    """A row per case."""
    shown = run.settings.backends
    header = ["case", "weights", "inputs", "regions", *map(render.label, shown)]
    header += ["onnx beyond the bare session"] if {OURS, BARE} <= set(shown) else []
    rows: list[list[str]] = []
    for case in run.cases:
        counts = [case.facts.get(key) for key in ("weights", "inputs", "regions")]
        cells = [render.case_name(case), *("" if n is None else str(n) for n in counts)]
        cells += [render.cell(case.median(backend, "call_us"), "µs") for backend in shown]
        cells.append(render.cell(case.median(OURS, "over_bare_us"), "µs"))
        rows.append(cells[: len(header)])
    return render.page(
        run,
        [render.table(header, rows)],
        f"Microseconds a call, medians of up to {run.settings.rounds} interleaved rounds, each of "
        "which calls for some 20 ms. The bare session is the same program over the same weights, "
        "run on values bound already; what comes beyond it is taken round by round.",
    )


def picture(run: Run, path: Path) -> None:
    """Bars of the time of a call, a group per case."""
    where = render.hardware(run.machine, run.settings.threads)
    plots.bars(
        path,
        [case.name for case in run.cases],
        plots.by_contender(run.cases, run.settings.backends, "call_us"),
        title=f"A call with little to compute; {where}",
        label="microseconds a call, shorter is faster",
        digits=".3g",
        logarithmic=True,
    )


BENCHMARK = harness.Benchmark(
    name="call_overhead",
    text=__doc__ or "",
    cases=tuple(CASES),
    backends=BACKENDS,
    usual=Settings(rounds=20, limit_s=60),
    measure=partial(isolated, measure_case),
    page=page,
    picture=picture,
    caption="Microseconds of a call with little to compute, per contender",
    devices=("cpu", "cuda"),
)

if __name__ == "__main__":
    raise SystemExit(harness.main(BENCHMARK, sys.argv[1:]))
