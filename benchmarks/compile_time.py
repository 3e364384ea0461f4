"""How long does the first call take in a fresh process, and what of that is each backend's own?

    python -m benchmarks.compile_time
    python -m benchmarks.compile_time --cases resnet50 --rounds 1

Each round starts a process per backend (`benchmarks.cold`), so nothing is warm: no imports, no
Dynamo caches, none of Inductor's. Capture is the first call of `aot_eager` (Dynamo, AOTAutograd and
one run in eager); a backend's own share is its first call less the capture of the same round.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import harness, measure, plots, render
from .machine import Watch
from .models import MODELS
from .record import Case, Row, Run, Settings

FLOOR, THEIRS, OURS = "aot_eager", "inductor", "onnx"
BACKENDS = (FLOOR, THEIRS, OURS)
STEPS = ("import_torch_s", "import_backend_s", "first_call_s", "second_call_s")
PARTS = ("partition_ms", "lowering_ms", "session_ms")


class ColdStartError(RuntimeError):
    """The process of a cold start failed."""


def _cold_start(model: str, backend: str, settings: Settings) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.cold", model, backend]
    command += ["--threads", str(settings.threads), *(["--small"] if settings.small else [])]
    done = subprocess.run(  # noqa: S603 - arguments of ours
        command, cwd=harness.ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise ColdStartError(lines[-1])
    return json.loads(done.stdout.splitlines()[-1])


def measure_case(name: str, settings: Settings) -> Case:
    """Every backend once a round, each in a process of its own; another is the first each time."""
    watch = Watch.start()
    backends = settings.backends
    starts: dict[str, list[dict[str, Any]]] = {backend: [] for backend in backends}
    errors: dict[str, str] = {}
    for index in range(settings.rounds):
        first = index % len(backends)
        for backend in (*backends[first:], *backends[:first]):
            if backend in errors:
                continue
            try:
                starts[backend].append(_cold_start(name, backend, settings))
            except ColdStartError as error:
                errors[backend] = str(error)
    complete = {backend: found for backend, found in starts.items() if backend not in errors}
    rows = [
        Row(backend, error=errors[backend])
        if backend in errors
        else row_of(backend, complete[backend], complete.get(FLOOR))
        for backend in backends
    ]
    return Case(name, {}, watch.load(), tuple(rows))


def row_of(
    backend: str, starts: Sequence[Mapping[str, Any]], floor: Sequence[Mapping[str, Any]] | None
) -> Row:
    """A backend's cold starts as quartiles of each step, its own share paired by round."""
    values = {step: measure.quartiles([start[step] for start in starts]) for step in STEPS}
    if floor is not None and backend != FLOOR:
        pairs = zip(starts, floor, strict=True)
        own = [start["first_call_s"] - base["first_call_s"] for start, base in pairs]
        values["own_compile_s"] = measure.quartiles(own)
    report: dict[str, Any] | None = starts[-1]["report"]
    if report is None:
        return Row(backend, values)
    timings = [start["report"]["timings"] for start in starts]
    for part in PARTS:
        values[part] = measure.quartiles([timing[part] for timing in timings])
    totals_ms = [sum(timing[part] for part in PARTS) for timing in timings]
    values["timed_ms"] = measure.quartiles(totals_ms)
    nodes = report["native_ops"] + report["eager_ops"]
    values["lowering_us_per_node"] = measure.quartiles(
        [timing["lowering_ms"] * 1e3 / nodes for timing in timings]
    )
    return Row(backend, values, {**report, "fx_nodes": nodes})


def ratio_of_differences(case: Case) -> float | None:
    """Inductor's own compile time over ours, each its first call less capture.

    None where one of them is lost in the noise of the capture, or missing.
    """
    theirs, ours = (case.median(backend, "own_compile_s") for backend in (THEIRS, OURS))
    if theirs is None or ours is None or min(theirs, ours) <= 0:
        return None
    return theirs / ours


def ratio_to_timed(case: Case) -> float | None:
    """Inductor's own compile time over what our own clocks say, which is never below 0."""
    theirs, ours_ms = case.median(THEIRS, "own_compile_s"), case.median(OURS, "timed_ms")
    if theirs is None or ours_ms is None or theirs <= 0:
        return None
    return theirs / (ours_ms / 1e3)


def _mean_row(cases: Sequence[Case], columns: int) -> list[str]:
    cells = [f"**geometric mean** (of {len(cases)})", *[""] * columns]
    for ratio_of in (ratio_of_differences, ratio_to_timed):
        ratios = [ratio for ratio in map(ratio_of, cases) if ratio is not None]
        mean = measure.geometric_mean(ratios)
        left_out = "" if len(ratios) == len(cases) else f" (of {len(ratios)})"
        cells.append("" if mean is None else f"**{render.times(mean)}**{left_out}")
    return cells


def _first_calls(run: Run) -> str:
    others = [backend for backend in (THEIRS, OURS) if backend in run.settings.backends]
    header = ["model", "capture", *(f"{backend} first call" for backend in others)]
    header += [f"{backend}'s own" for backend in others]
    header += ["inductor's own ÷ ours", "inductor's own ÷ ours as timed"]
    rows: list[list[str]] = []
    for case in run.cases:
        cells = [render.case_name(case), render.cell(case.median(FLOOR, "first_call_s"), "s")]
        cells += [render.cell(case.median(backend, "first_call_s"), "s") for backend in others]
        cells += [render.cell(case.median(backend, "own_compile_s"), "s") for backend in others]
        cells += [render.times(ratio_of_differences(case)), render.times(ratio_to_timed(case))]
        rows.append(cells)
    if len(run.cases) > 1:
        rows.append(_mean_row(run.cases, len(header) - 3))
    return render.table(header, rows)


def _parts(run: Run) -> str:
    header = ["model", "FX nodes", "ONNX nodes", "partition", "lowering", "lowering a node"]
    header += ["session", "second call"]
    rows: list[list[str]] = []
    for case in run.cases:
        row = case.row(OURS)
        if row is None or row.error is not None:
            continue
        cells = [case.name, str(row.facts["fx_nodes"]), str(row.facts["onnx_nodes"])]
        cells += [render.cell(row.median(part), "ms") for part in ("partition_ms", "lowering_ms")]
        cells.append(render.cell(row.median("lowering_us_per_node"), "µs"))
        cells.append(render.cell(row.median("session_ms"), "ms"))
        second_s = row.median("second_call_s")
        cells.append(render.cell(None if second_s is None else second_s * 1e3, "ms"))
        rows.append(cells)
    return render.table(header, rows)


def _imports(run: Run) -> str:
    """A sentence on what comes before the first call: medians over all models."""

    def median_of(backend: str, step: str) -> float | None:
        found = [case.median(backend, step) for case in run.cases]
        known = [value for value in found if value is not None]
        return measure.quartiles(known).median if known else None

    torch_s = [median_of(backend, "import_torch_s") for backend in run.settings.backends]
    known_s = [value for value in torch_s if value is not None]
    if not known_s:
        return ""
    loads = [
        f"{backend} {render.cell(median_of(backend, 'import_backend_s'), 's')}"
        for backend in run.settings.backends
    ]
    torch_import_s = measure.quartiles(known_s).median
    return (
        f"Before the first call, `import torch` takes {render.cell(torch_import_s, 's')} and "
        f"loading the backend: {', '.join(loads)}."
    )


def page(run: Run) -> str:
    """The first calls, what ours consist of, and the imports."""
    tables = [_first_calls(run), *([_parts(run)] if OURS in run.settings.backends else [])]
    return render.page(
        run,
        [*tables, *filter(None, [_imports(run)])],
        f"Medians of {run.settings.rounds} cold starts, each in a process of its own with empty "
        "caches. Capture is the first call of `aot_eager`; own is the first call less the capture "
        "of the same round; as timed is partition, lowering and session by this project's own "
        "clocks. The second call is what a run costs, which the first call holds as well.",
    )


def picture(run: Run, path: Path) -> None:
    """Bars of the first call, a group per model."""
    where = render.hardware(run.machine, run.settings.threads)
    plots.bars(
        path,
        [case.name for case in run.cases],
        plots.by_contender(run.cases, run.settings.backends, "first_call_s"),
        title=f"First call in a fresh process; {where}",
        label="seconds, shorter is faster; aot_eager only captures",
    )


BENCHMARK = harness.Benchmark(
    name="compile_time",
    text=__doc__ or "",
    cases=tuple(MODELS),
    backends=BACKENDS,
    usual=Settings(rounds=3),
    measure=measure_case,
    page=page,
    picture=picture,
    caption="Seconds of the first call in a fresh process, per model and backend",
)

if __name__ == "__main__":
    raise SystemExit(harness.main(BENCHMARK, sys.argv[1:]))
