"""What does each further region cost a call?

    python -m benchmarks.graph_breaks
    python -m benchmarks.graph_breaks --cases "graph break" --backends eager,onnx
    python -m benchmarks.graph_breaks --device cuda

The model is the same row of small blocks each time, cut into 1, 2, 4 … regions: by
`torch._dynamo.graph_break()`, after which Python goes on and Dynamo begins another graph, or by a
sine that `eager_ops` leaves to eager within one graph. Each case runs in a process of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from . import backends, contest, harness, measure, plots, render
from .backends import Contender
from .isolate import isolated, prepared
from .machine import Watch
from .models import Example
from .record import Case, Row, Run, Settings

BACKENDS = ("eager", "inductor", "onnx")
CASES = ("graph break", "eager operator")
WIDTH = 16


def regions_of(blocks: int) -> list[int]:
    """1, 2, 4 … up to the number of blocks, a power of 2."""
    return [2**power for power in range(blocks.bit_length())]


def chain(case: str, blocks: int, regions: int) -> Example:
    """The row of blocks, cut evenly. Its code has no loop: Dynamo does not break graphs in one."""
    root = nn.Module()
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    for index in range(blocks):
        root.add_module(f"block{index}", nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()))
        if index and index % (blocks // regions) == 0:
            if case == "graph break":
                graph.call_function(torch._dynamo.graph_break)  # noqa: SLF001 - it has no public name
            else:
                x = graph.call_function(torch.sin, (x,))
        x = graph.call_module(f"block{index}", (x,))
    graph.output(x)
    return Example(torch.fx.GraphModule(root, graph).eval(), {"x": torch.randn(1, WIDTH)})


def _contender(backend: str, example: Example) -> Contender:
    if backend == "onnx":
        return backends.onnx(example, {"eager_ops": ["sin"]})
    return backends.BACKENDS[backend](example)


def measure_case(name: str, settings: Settings) -> Case:
    """All contenders at all numbers of regions. Meant for a process of its own."""
    shown = harness.eager_first(settings.backends)
    blocks = 4 if settings.small else 64
    device = torch.device(settings.device)
    with prepared(settings.threads), backends.side_stream(device):
        torch.manual_seed(0)
        calls: dict[str, Callable[[], object]] = {}
        errors: dict[str, str] = {}
        counted: list[int] = []
        for regions in regions_of(blocks):
            example = backends.place(chain(name, blocks, regions), device, torch.float32)
            makers = {b: partial(_contender, b, example) for b in shown if b not in errors}
            ready, failed = contest.made_ready(makers)
            errors |= {row.contender: f"{regions} regions: {row.error}" for row in failed}
            calls |= {_key(b, regions): contender.call for b, contender in ready.items()}
            report = ready["onnx"].report() if "onnx" in ready else None
            counted += [report["regions"]] if report else []
        watch = Watch.start()
        times = measure.interleave_blocks(
            calls, rounds=settings.rounds, limit_s=settings.limit_s, device=device
        )
        load = watch.load()
    rows = [
        Row(backend, error=errors[backend])
        if backend in errors
        else row_of(backend, {r: times[_key(backend, r)] for r in regions_of(blocks)})
        for backend in shown
    ]
    return Case(name, {"blocks": blocks, "onnx_regions": counted}, load, tuple(rows))


def _key(backend: str, regions: int) -> str:
    return f"{backend} {regions}"


def row_of(backend: str, times: dict[int, list[float]]) -> Row:
    """The times in µs at each number of regions, and the slope of each round's line."""
    values = {f"{regions}_regions_us": measure.quartiles(own) for regions, own in times.items()}
    slopes = [measure.slope(list(times), one) for one in zip(*times.values(), strict=True)]
    return Row(backend, {**values, "per_region_us": measure.quartiles(slopes)})


def _regions(case: Case) -> list[int]:
    return regions_of(case.facts["blocks"]) if case.error is None else []


def page(run: Run) -> str:
    """A row per case and contender."""
    counts = sorted({regions for case in run.cases for regions in _regions(case)})
    header = ["cut by", "", *(str(n) for n in counts), "a further region"]
    rows: list[list[str]] = []
    for case in run.cases:
        for row in case.rows:
            cells = [render.case_name(case), render.label(row.contender)]
            cells += [render.cell(row.median(f"{n}_regions_us")) for n in counts]
            rows.append([*cells, render.cell(row.median("per_region_us"), "µs")])
    return render.page(
        run,
        [render.table(header, rows)],
        "Microseconds a call of the same blocks cut into so many regions, medians of up to "
        f"{run.settings.rounds} interleaved rounds, each of which calls for some 20 ms; what a "
        "further region costs is the slope of the line of least squares. Only onnx leaves the "
        "sine to eager: to inductor and to eager it is one operator more.",
    )


def picture(run: Run, path: Path) -> None:
    """A panel per case: the time of a call over the number of regions."""
    panels = {
        case.name: {
            row.contender: [(float(n), row.values[f"{n}_regions_us"]) for n in _regions(case)]
            for row in case.rows
            if row.error is None
        }
        for case in run.cases
        if case.error is None
    }
    where = render.hardware(run.machine, run.settings.threads)
    plots.lines(
        path,
        panels,
        title=f"The same blocks in more regions; {where}",
        x_label="regions",
        y_label="microseconds a call",
    )


BENCHMARK = harness.Benchmark(
    name="graph_breaks",
    text=__doc__ or "",
    cases=CASES,
    backends=BACKENDS,
    usual=Settings(rounds=12, limit_s=120),
    measure=partial(isolated, measure_case),
    page=page,
    picture=picture,
    devices=("cpu", "cuda"),
    caption="Microseconds a call over the number of regions",
)

if __name__ == "__main__":
    raise SystemExit(harness.main(BENCHMARK, sys.argv[1:]))
