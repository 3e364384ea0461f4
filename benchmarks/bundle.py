"""How long is it from a fresh process to the first answer: compiled, with a cache, as a bundle?

    python -m benchmarks.bundle
    python -m benchmarks.bundle --cases resnet50 --rounds 1

One process saves the bundle and fills the cache. Then each round starts a process for each of three
(`benchmarks.first_answer`): `compile` is torch.compile(backend="onnx") without a cache, `cache` the
same with `cache_dir`, `bundle` is dynamo_onnx.runtime.load, which does without torch.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import harness, measure, plots, render
from .compile_time import PARTS
from .machine import Watch
from .models import MODELS
from .record import Case, Row, Run, Settings

BUNDLE = "bundle"
WAYS = ("compile", "cache", BUNDLE)
CASES = ("bert-base", "resnet50", "t5-small", "llama-30x576")


class ProcessFailedError(RuntimeError):
    """A process ended without an answer."""


def _process(way: str, model: str, folder: Path, settings: Settings) -> Any:  # noqa: ANN401 - JSON
    command = [sys.executable, "-m", "benchmarks.first_answer", way, model, str(folder)]
    command += ["--threads", str(settings.threads), *(["--small"] if settings.small else [])]
    done = subprocess.run(  # noqa: S603 - arguments of ours
        command, cwd=harness.ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise ProcessFailedError(lines[-1])
    return json.loads(done.stdout.splitlines()[-1])


def measure_case(name: str, settings: Settings) -> Case:
    """Every way once a round, each in a process of its own; another is the first each time."""
    ways = settings.backends
    starts: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    errors: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        _process("save", name, folder, settings)
        size_bytes = sum(file.stat().st_size for file in (folder / "model.onnxbundle").iterdir())
        watch = Watch.start()
        for index in range(settings.rounds):
            first = index % len(ways)
            for way in (*ways[first:], *ways[:first]):
                if way in errors:
                    continue
                try:
                    starts[way].append(_process(way, name, folder, settings))
                except ProcessFailedError as error:
                    errors[way] = str(error)
    complete = {way: found for way, found in starts.items() if way not in errors}
    rows = [Row(way, error=errors[way]) if way in errors else row_of(way, complete) for way in ways]
    return Case(name, {"bundle_bytes": size_bytes}, watch.load(), tuple(rows))


def row_of(way: str, starts: Mapping[str, Sequence[Mapping[str, Any]]]) -> Row:
    """One way's processes as quartiles, and how many times as long the others took, by round."""
    own = starts[way]
    steps = {step: [start[step] for start in own] for step in ("import_s", "answer_s", "error")}
    steps["total_s"] = [_total_s(start) for start in own]
    for other in starts.keys() - {way}:
        steps[f"{other}_ratio"] = measure.paired_ratios(
            [_total_s(start) for start in starts[other]], steps["total_s"]
        )
    if own[-1]["report"] is not None:
        timings = [start["report"]["timings"] for start in own]
        steps |= {part: [timing[part] for timing in timings] for part in PARTS}
        steps["own_ms"] = [sum(timing[part] for part in PARTS) for timing in timings]
    values = {step: measure.quartiles(found) for step, found in steps.items()}
    return Row(way, values, own[-1]["report"] or {})


def _total_s(start: Mapping[str, Any]) -> float:
    return start["import_s"] + start["answer_s"]


def _first_answers(run: Run) -> str:
    ways = run.settings.backends
    others = [way for way in ways if way != BUNDLE and BUNDLE in ways]
    header = ["model", "bundle's size"]
    header += [f"{way}: {step}" for way in ways for step in ("imports", "answer")]
    header += [f"{other} ÷ bundle" for other in others] + ["worst error"]
    rows: list[list[str]] = []
    ratios: dict[str, list[float]] = {other: [] for other in others}
    for case in run.cases:
        size_bytes = case.facts.get("bundle_bytes")
        cells = [render.case_name(case), render.cell(size_bytes and size_bytes / 1e6, "MB")]
        for way in ways:
            cells += [render.cell(case.median(way, s), "s") for s in ("import_s", "answer_s")]
        for other in others:
            ratio = case.median(BUNDLE, f"{other}_ratio")
            cells.append(render.times(ratio))
            ratios[other] += [] if ratio is None else [ratio]
        errors = [row.values["error"].q3 for row in case.rows if "error" in row.values]
        rows.append([*cells, f"{max(errors):.0e}" if errors else ""])
    if len(run.cases) > 1:
        means = [render.times(measure.geometric_mean(found)) for found in ratios.values()]
        filled = [f"**{mean}**" if mean else "" for mean in means]
        rows.append(["**geometric mean**", *[""] * (1 + 2 * len(ways)), *filled])
    return render.table(header, rows)


def _own(run: Run) -> str:
    """What of compiling is this project's, and what a cache leaves of it."""
    header = ["model", "way", "partition", "lowering", "session", "all of ours"]
    rows: list[list[str]] = []
    for case in run.cases:
        for row in case.rows:
            if "own_ms" in row.values:
                parts = [render.cell(row.median(part), "ms") for part in (*PARTS, "own_ms")]
                rows.append([case.name, row.contender, *parts])
    return render.table(header, rows)


def page(run: Run) -> str:
    """The first answers, and what of them is ours."""
    return render.page(
        run,
        [_first_answers(run), _own(run)],
        f"Medians of {run.settings.rounds} processes. Imports are those of torch and the backend, "
        "or of numpy and dynamo_onnx.runtime; the answer is the first call, with all that it "
        "compiles or, for the bundle, loads. Making the model and its weights, which a bundle does "
        "without, is not counted. The ratios are of imports and answer together, taken round by "
        "round; the error is the largest of the three against eager.",
    )


def picture(run: Run, path: Path) -> None:
    """Bars of imports and first answer, a group per model."""
    where = render.hardware(run.machine, run.settings.threads)
    plots.bars(
        path,
        [case.name for case in run.cases],
        plots.by_contender(run.cases, run.settings.backends, "total_s"),
        title=f"From a fresh process to the first answer; {where}",
        label="seconds of imports and first answer, shorter is faster",
        logarithmic=True,
    )


BENCHMARK = harness.Benchmark(
    name="bundle",
    text=__doc__ or "",
    cases=tuple(MODELS),
    backends=WAYS,
    usual=Settings(rounds=5, cases=CASES),
    measure=measure_case,
    page=page,
    picture=picture,
    caption="Seconds from a fresh process to the first answer: compiled, with a cache, as a bundle",
)

if __name__ == "__main__":
    raise SystemExit(harness.main(BENCHMARK, sys.argv[1:]))
