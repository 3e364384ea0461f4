"""The command line of a benchmark: measure every case, write, draw, print, update the README."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from . import machine, record, render
from .record import Case, Run, Settings

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One question: its cases and contenders, how a case is measured, how the answer is shown.

    `name` is the module's, the results' and the README section's. `usual` holds the settings where
    the command line names none; cases and backends that it leaves out are measured on demand.
    """

    name: str
    text: str  # the module's docstring, which begins with the question
    cases: tuple[str, ...]
    backends: tuple[str, ...]
    usual: Settings
    measure: Callable[[str, Settings], Case]
    page: Callable[[Run], str]
    picture: Callable[[Run, Path], None]
    caption: str
    devices: tuple[str, ...] = ("cpu",)


def names(known: Sequence[str], chosen: str) -> tuple[str, ...]:
    """The names in a comma-separated list, "all" for each one that is known."""
    found = tuple(known if chosen == "all" else chosen.split(","))
    unknown = [name for name in found if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"unknown: {', '.join(unknown)}; known: {', '.join(known)}"
        )
    return found


def eager_first(backends: Iterable[str]) -> tuple[str, ...]:
    """With eager at the front, whether it was named or not: the others are compared with it."""
    return ("eager", *(name for name in backends if name != "eager"))


def parser(
    name: str, text: str, *, rounds: int, limit_s: float, devices: tuple[str, ...] = ("cpu",)
) -> argparse.ArgumentParser:
    """With the flags that every benchmark takes; `devices` are those that it can run on."""
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=text.splitlines()[0]
    )
    add = made.add_argument
    add("--threads", type=int, default=torch.get_num_threads())
    add("--rounds", type=int, default=rounds)
    add("--limit-s", type=float, default=limit_s, help="for the rounds of one case")
    add("--device", choices=devices, default="cpu")
    add("--small", action="store_true", help="small variants, to try the harness")
    add("--out", type=Path, help="the JSON file; the picture goes beside it")
    add("--redraw", action="store_true", help="measure nothing, render the results in --out")
    add("--update-readme", action="store_true", help="put table and picture into README.md")
    return made


def now() -> str:
    """In UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def command_of(name: str, argv: Sequence[str]) -> str:
    """What to type for the same run; where its results go is another machine's own."""
    kept = [
        argument
        for before, argument in zip(("", *argv), argv, strict=False)
        if not argument.startswith("--out") and before != "--out"
    ]
    return shlex.join(["python", "-m", f"benchmarks.{name}", *kept])


def run_cases(benchmark: Benchmark, settings: Settings, command: str, out: Path) -> Run:
    """Measure every case; the file is written anew after each, so an interruption loses one."""
    torch.set_num_threads(settings.threads)
    run = Run(
        date=now(),
        command=command,
        settings=settings,
        machine=machine.machine(torch.device(settings.device)),
        versions=machine.versions(),
    )
    for name in settings.cases:
        start = time.monotonic()
        try:
            case = benchmark.measure(name, settings)
        except Exception as error:  # noqa: BLE001  (whatever it is, it is the result)
            case = Case(name, error=record.describe(error))
        run = replace(run, cases=(*run.cases, case))
        record.write(run, out)
        failed = [f"{row.contender} {row.error}" for row in case.rows if row.error]
        outcome = case.error or ", ".join(failed) or "measured"
        print(f"{name}: {outcome} [{time.monotonic() - start:.0f} s]", file=sys.stderr)
    return run


def main(benchmark: Benchmark, argv: Sequence[str]) -> int:
    """0 when every contender of every case was measured, else 1."""
    usual = benchmark.usual
    made = parser(
        benchmark.name,
        benchmark.text,
        rounds=usual.rounds,
        limit_s=usual.limit_s,
        devices=benchmark.devices,
    )
    made.add_argument(
        "--cases",
        type=lambda chosen: names(benchmark.cases, chosen),
        default=usual.cases or benchmark.cases,
        help=f"of {', '.join(benchmark.cases)}, or all",
    )
    made.add_argument(
        "--backends",
        type=lambda chosen: names(benchmark.backends, chosen),
        default=usual.backends or benchmark.backends,
        help=f"of {', '.join(benchmark.backends)}, or all",
    )
    arguments = made.parse_args(argv)
    settings = Settings(
        threads=arguments.threads,
        rounds=arguments.rounds,
        limit_s=arguments.limit_s,
        small=arguments.small,
        device=arguments.device,
        cases=arguments.cases,
        backends=arguments.backends,
    )
    stem = f"{benchmark.name}-{settings.device}{'-small' if settings.small else ''}"
    out: Path = arguments.out or RESULTS / f"{stem}.json"
    if arguments.redraw:
        run = record.read(out, Run)
    else:
        run = run_cases(benchmark, settings, command_of(benchmark.name, argv), out)
    image = out.with_suffix(".png")
    benchmark.picture(run, image)
    page = benchmark.page(run)
    print(page)
    if arguments.update_readme:
        render.update_readme(ROOT / "README.md", benchmark.name, page, image, benchmark.caption)
    failed = any(case.error or any(row.error for row in case.rows) for case in run.cases)
    return 1 if failed else 0
