"""The operator sweep: `python -m tests.conformance.ops`, writes docs/coverage.md and a JSON.

Workers run the cases; one that dies is replaced and goes on after the case that ended it.
"""

from __future__ import annotations

import argparse
import json
import queue
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .cases import DTYPES, operator_names
from .coverage import coverage
from .modules import module_names

ROOT = Path(__file__).parents[2]
PROGRESS_S = 30.0


@dataclass(frozen=True, slots=True)
class Job:
    """One operator in one dtype."""

    name: str
    dtype: str
    samples: int
    gradients: bool


@dataclass
class Sweep:
    """Results by case key, filled by the workers' threads."""

    jobs_done: int = 0

    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def counts(self) -> Counter[str]:
        """How many cases had each outcome."""
        with self.lock:
            return Counter(r["outcome"] for r in self.results.values())

    def write(self, out: Path, others: dict[str, Any]) -> None:
        """The results so far, beside those of `others`, in a file that is whole at any time."""
        with self.lock:
            content = {
                "results": others["results"] | self.results,
                "unavailable": others["unavailable"] | self.unavailable,
            }
            text = json.dumps(content, indent=1, sort_keys=True) + "\n"
        out.parent.mkdir(parents=True, exist_ok=True)
        part = out.with_suffix(".part")
        part.write_text(text)
        part.replace(out)

    def drive(self, jobs: queue.Queue[Job]) -> None:
        """Work through the jobs; a worker that dies is replaced and goes on after the case."""
        worker = _Worker()
        while True:
            try:
                job = jobs.get_nowait()
            except queue.Empty:
                worker.stop()
                return
            skip: list[str] = []
            while (dead := self._run(worker, job, skip)) is not None:
                skip.append(dead)
                worker = _Worker()
            with self.lock:
                self.jobs_done += 1

    def _run(self, worker: _Worker, job: Job, skip: list[str]) -> str | None:
        """Run one job; the key of the case that ended the process, if one did."""
        current = f"{job.name}/{job.dtype}/samples/0"
        for message in worker.answers(
            {
                "name": job.name,
                "dtype": job.dtype,
                "samples": job.samples,
                "gradients": job.gradients,
                "skip": skip,
            }
        ):
            with self.lock:
                if "start" in message:
                    current = message["start"]
                elif "done" in message:
                    skip.append(message["done"])
                    self.results[message.pop("done")] = message
                elif "unavailable" in message:
                    self.unavailable[message["unavailable"]] = message["detail"]
                elif "finished" in message:
                    return None
        with self.lock:
            ended = f"the process ended: {worker.process.wait()}"
            self.results[current] = {"outcome": "crashed", "detail": ended}
        return current


class _Worker:
    """One worker process."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.conformance.worker"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def answers(self, job: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """What the worker says about a job, until it has finished it or ends."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("{"):
                message = json.loads(line)
                yield message
                if "finished" in message:
                    return

    def stop(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def main() -> int:
    """Run the sweep; the exit code is 1 if anything was wrong or crashed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ops", help="only operators whose name matches this pattern")
    parser.add_argument("--dtypes", help="comma-separated; all, or float32 for gradients")
    parser.add_argument("--gradients", action="store_true", help="forward and backward instead")
    parser.add_argument("--samples", type=int, default=4, help="inputs per operator and dtype")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--coverage", action="store_true", help="write docs/coverage.md")
    options = parser.parse_args()
    jobs: queue.Queue[Job] = queue.Queue()
    names, what, dtypes = operator_names(), "ops", ",".join(DTYPES)
    if options.gradients:
        names, what, dtypes = [*names, *module_names()], "gradients", "float32"
    options.out = options.out or ROOT / "build" / f"conformance-{what}.json"
    for name in names:
        if options.ops is None or re.search(options.ops, name):
            for dtype in (options.dtypes or dtypes).split(","):
                jobs.put(Job(name, dtype, options.samples, options.gradients))
    sweep, total = Sweep(), jobs.qsize()
    chosen = {(job.name, job.dtype) for job in jobs.queue}
    others = _others(options.out, chosen)
    threads = [threading.Thread(target=sweep.drive, args=(jobs,)) for _ in range(options.workers)]
    for thread in threads:
        thread.start()
    while any(t.is_alive() for t in threads):
        deadline = time.monotonic() + PROGRESS_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        sys.stderr.write(f"{sweep.jobs_done}/{total} {dict(sweep.counts())}\n")
        sweep.write(options.out, others)
    if options.coverage:
        written = json.loads(options.out.read_text())
        (ROOT / "docs" / "coverage.md").write_text(coverage(written["results"]))
    print(dict(sweep.counts()))
    bad = {k: r for k, r in sweep.results.items() if r["outcome"] in ("wrong", "crashed")}
    for key, result in sorted(bad.items()):
        print(f"{result['outcome']}: {key}: {result['detail']}")
    return 1 if bad else 0


def _others(out: Path, chosen: set[tuple[str, str]]) -> dict[str, Any]:
    """What the file holds of operators and dtypes that this run leaves out: it is kept."""
    content = json.loads(out.read_text()) if out.exists() else {"results": {}, "unavailable": {}}
    return {
        "results": {
            key: result
            for key, result in content["results"].items()
            if tuple(key.split("/")[:2]) not in chosen
        },
        "unavailable": {
            key: why
            for key, why in content["unavailable"].items()
            if tuple(key.rsplit(" ", 1)) not in chosen
        },
    }


if __name__ == "__main__":
    raise SystemExit(main())
