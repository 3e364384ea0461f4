"""Do threads help, and do they disturb torch's own operators or another compiled model?

    python -m benchmarks.threads
    python -m benchmarks.threads --cases "torch after a call" --rounds 10

Three questions on one resource. Scaling: each model on 1 to `--threads` threads, a process for each
number. Torch after a call: a matrix product of torch's, timed right after a call of the model, when
the threads of a session that still spin would hold the cores. Two models in turn: both calls one
after the other, against each model called alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from . import backends, contest, harness, measure, plots, render
from .isolate import isolated, prepared
from .machine import Watch
from .models import MODELS
from .record import Case, Row, Run, Settings

BACKENDS = ("eager", "inductor", "onnx")
CPU = torch.device("cpu")
SCALED = {"scaling bert-base": "bert-base", "scaling resnet50": "resnet50"}
AFTER, IN_TURN = "torch after a call", "two models in turn"
SHORT = "mobilenet_v2"  # the model before torch's operator
PAIR = ("resnet50", "bert-base")
MATRIX_SIDE = 256
Calls: TypeAlias = Mapping[str, Callable[[], object]]


def _ready(model: str, shown: Sequence[str], *, small: bool) -> tuple[Calls, list[Row]]:
    """The calls of each contender on one model, and the rows of those that failed."""
    example = MODELS[model].build(small=small)
    makers = {backend: partial(backends.BACKENDS[backend], example) for backend in shown}
    ready, failed = contest.made_ready(makers)
    return {backend: contender.call for backend, contender in ready.items()}, failed


def scaled_times(
    model: str, threads: int, settings: Settings
) -> tuple[dict[str, list[float]], list[Row]]:
    """All contenders on so many threads, in ms. Meant for a process of its own."""
    with prepared(threads):
        calls, failed = _ready(model, settings.backends, small=settings.small)
        times = measure.interleave(calls, CPU, rounds=settings.rounds, limit_s=settings.limit_s)
    return times, failed


def measure_scaling(name: str, settings: Settings) -> Case:
    """One model on each number of threads."""
    watch = Watch.start()
    counts = list(range(1, settings.threads + 1))
    rows: dict[str, Row] = {backend: Row(backend) for backend in settings.backends}
    for threads in counts:
        times, failed = isolated(scaled_times, SCALED[name], threads, settings)
        rows |= {row.contender: row for row in failed}
        for backend, own in times.items():
            ratios = measure.paired_ratios(own, times["eager"])
            rows[backend].values[f"{threads}_threads_ms"] = measure.quartiles(own)
            rows[backend].values[f"{threads}_threads_ratio"] = measure.quartiles(ratios)
    return Case(name, {"threads": counts}, watch.load(), tuple(rows.values()))


@dataclass(frozen=True, slots=True)
class Followed:
    """A call, and torch's operator right after it, which alone is `timed`."""

    call: Callable[[], object]
    operator: Callable[[], object]

    def __call__(self) -> object:
        self.call()
        return self.operator()

    def timed(self) -> float:
        self.call()
        return measure.time_ms(self.operator, CPU) * 1e3


def measure_after(name: str, settings: Settings) -> Case:
    """A matrix product of torch's in µs, after each contender's call."""
    with prepared(settings.threads):
        calls, failed = _ready(SHORT, settings.backends, small=settings.small)
        side = 64 if settings.small else MATRIX_SIDE
        a, b, out = (torch.randn(side, side) for _ in range(3))

        def multiply() -> Tensor:
            return torch.mm(a, b, out=out)

        followed = {backend: Followed(call, multiply) for backend, call in calls.items()}
        watch = Watch.start()
        times = measure.interleave(
            followed, CPU, rounds=settings.rounds, limit_s=settings.limit_s, timer=Followed.timed
        )
        load = watch.load()
    rows = [*contest.timed_rows(times, "mm_us"), *failed]
    facts = {"matrix_side": side, "model": SHORT}
    return Case(name, facts, load, contest.in_order(rows, settings.backends))


def measure_in_turn(name: str, settings: Settings) -> Case:
    """Two models of each contender, alone and in turn."""
    with prepared(settings.threads):
        (first, failed), (second, also_failed) = (
            _ready(model, settings.backends, small=settings.small) for model in PAIR
        )
        failed_rows = {row.contender: row for row in (*failed, *also_failed)}
        shown = [backend for backend in settings.backends if backend not in failed_rows]
        calls: dict[str, Callable[[], object]] = {}
        for backend in shown:
            one, other = first[backend], second[backend]
            calls |= {f"{backend} first": one, f"{backend} second": other}
            calls[f"{backend} in turn"] = partial(_both, one, other)
        watch = Watch.start()
        times = measure.interleave(calls, CPU, rounds=settings.rounds, limit_s=settings.limit_s)
        load = watch.load()
    rows = [
        in_turn_row(
            backend,
            times[f"{backend} first"],
            times[f"{backend} second"],
            times[f"{backend} in turn"],
        )
        for backend in shown
    ]
    everything = contest.in_order([*rows, *failed_rows.values()], settings.backends)
    return Case(name, {"models": list(PAIR)}, load, everything)


def _both(one: Callable[[], object], other: Callable[[], object]) -> None:
    one()
    other()


def in_turn_row(
    backend: str, first: Sequence[float], second: Sequence[float], in_turn: Sequence[float]
) -> Row:
    """The times in ms; `ratio` is that of the pair over the sum of the two alone, by round."""
    alone = [a + b for a, b in zip(first, second, strict=True)]
    values = {
        "alone_ms": measure.quartiles(alone),
        "in_turn_ms": measure.quartiles(in_turn),
        "ratio": measure.quartiles(measure.paired_ratios(in_turn, alone)),
    }
    return Row(backend, values)


def measure_case(name: str, settings: Settings) -> Case:
    """Each of the three questions in its own way; eager is always there to compare with."""
    shown = replace(settings, backends=harness.eager_first(settings.backends))
    if name in SCALED:
        return measure_scaling(name, shown)
    return isolated(measure_after if name == AFTER else measure_in_turn, name, shown)


def _scaling_table(cases: Sequence[Case], shown: Sequence[str]) -> str:
    header = ["model", "threads", *shown, *(f"{backend} over 1 thread" for backend in shown)]
    rows: list[list[str]] = []
    for case in cases:
        for threads in case.facts["threads"]:
            cells = [render.case_name(case).removeprefix("scaling "), str(threads)]
            for backend in shown:
                ratio = case.median(backend, f"{threads}_threads_ratio")
                speedup = None if ratio is None or backend == "eager" else 1 / ratio
                value = case.median(backend, f"{threads}_threads_ms")
                cells.append(render.with_times(value, "ms", speedup))
            rows.append(cells + [render.times(_gain(case, b, threads)) for b in shown])
    return render.table(header, rows)


def _gain(case: Case, backend: str, threads: int) -> float | None:
    """How much faster than on one thread."""
    one = case.median(backend, "1_threads_ms")
    several = case.median(backend, f"{threads}_threads_ms")
    return None if one is None or several is None else one / several


def _after_table(case: Case, shown: Sequence[str]) -> str:
    side, model = case.facts["matrix_side"], case.facts["model"]
    rows = [
        [
            f"after {row.contender}",
            render.cell(row.median("mm_us"), "µs"),
            render.times(row.median("ratio")),
        ]
        for row in case.rows
        if row.contender in shown
    ]
    name = f"mm of {side}×{side} after a call of {model}{render.busy_mark(case.load)}"
    return render.table([name, "time", "over that after eager"], rows)


def _in_turn_table(case: Case, shown: Sequence[str]) -> str:
    rows = [
        [
            row.contender,
            render.cell(row.median("alone_ms"), "ms"),
            render.cell(row.median("in_turn_ms"), "ms"),
            render.times(row.median("ratio")),
        ]
        for row in case.rows
        if row.contender in shown
    ]
    name = f"{' and '.join(case.facts['models'])}{render.busy_mark(case.load)}"
    return render.table([name, "alone, summed", "in turn", "in turn over alone"], rows)


def page(run: Run) -> str:
    """A table per question."""
    shown = harness.eager_first(run.settings.backends)
    measured = [case for case in run.cases if case.error is None]
    scaled = [case for case in measured if case.name in SCALED]
    tables = [_scaling_table(scaled, shown)] if scaled else []
    tables += [_after_table(case, shown) for case in measured if case.name == AFTER]
    tables += [_in_turn_table(case, shown) for case in measured if case.name == IN_TURN]
    return render.page(
        run,
        tables,
        f"Medians of up to {run.settings.rounds} interleaved rounds. × behind a time is eager's "
        "over it on as many threads, by round.",
    )


def picture(run: Run, path: Path) -> None:
    """A panel per scaled model; without one, bars of the two ratios."""
    where = render.hardware(run.machine, run.settings.threads)
    shown = harness.eager_first(run.settings.backends)
    scaled = [case for case in run.cases if case.name in SCALED and case.error is None]
    if not scaled:
        plots.bars(
            path,
            [case.name for case in run.cases],
            plots.by_contender(run.cases, shown, "ratio"),
            title=f"Threads; {where}",
            label="time over that after eager, or over the models alone",
            line=(1.0, "undisturbed"),
        )
        return
    panels = {
        case.name: {
            row.contender: [
                (float(n), row.values[f"{n}_threads_ms"]) for n in case.facts["threads"]
            ]
            for row in case.rows
            if row.error is None
        }
        for case in scaled
    }
    plots.lines(path, panels, title=f"Threads; {where}", x_label="threads", y_label="milliseconds")


BENCHMARK = harness.Benchmark(
    name="threads",
    text=__doc__ or "",
    cases=(*SCALED, AFTER, IN_TURN),
    backends=BACKENDS,
    usual=Settings(rounds=20, limit_s=60),
    measure=measure_case,
    page=page,
    picture=picture,
    caption="Milliseconds a call over the number of threads",
)

if __name__ == "__main__":
    raise SystemExit(harness.main(BENCHMARK, sys.argv[1:]))
