"""The model sweep: `python -m tests.conformance.models`, writes a JSON, and docs/models.md.

Each family runs in a process of its own, forked from one that has imported everything, so that a
crash or an endless compilation ends that family only.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from .families import FAMILIES
from .models_page import exports_page, is_bad, page

ROOT = Path(__file__).parents[2]
LIMIT_S = 300.0


def _answer(name: str, kind: str, pipe: Connection) -> None:
    """In the process of a family."""
    import logging
    import warnings

    import torch

    from . import bundling, exporting, family, training

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    kinds = {"bundles": bundling, "exports": exporting, "gradients": training, "models": family}
    what = kinds[kind]
    pipe.send(what.run(FAMILIES[name]))


def in_process(name: str, limit_s: float, kind: str = "models") -> dict[str, Any]:
    """The result of one family; a process that ends or takes too long is a crash."""
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(name, kind, theirs))
    started = time.perf_counter()
    process.start()
    theirs.close()
    result: dict[str, Any]
    try:
        if ours.poll(limit_s):
            result = ours.recv()
        else:
            result = {"outcome": "crashed", "detail": f"no answer within {limit_s:.0f} s"}
    except EOFError:
        process.join()
        result = {"outcome": "crashed", "detail": f"the process ended: {process.exitcode}"}
    process.join(5)
    process.kill()
    process.join()
    return result | {"kind": FAMILIES[name].kind, "wall_s": time.perf_counter() - started}


def main() -> int:
    """Run the sweep; the exit code is 1 if anything was wrong, crashed or compiled again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--families", default="", help="only those whose name matches (re)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds for a family")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--exports", action="store_true", help="export instead of compiling")
    parser.add_argument("--gradients", action="store_true", help="a step of training instead")
    parser.add_argument("--bundles", action="store_true", help="save and load a bundle instead")
    parser.add_argument("--docs", action="store_true", help="write docs/models.md")
    options = parser.parse_args()
    chosen = (kind for kind in ("bundles", "exports", "gradients") if getattr(options, kind))
    kind = next(chosen, "models")
    options.out = options.out or ROOT / "build" / f"conformance-{kind}.json"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.conformance.family", "dynamo_onnx.backend.dynamo"])
    names = iter([n for n in FAMILIES if re.search(options.families, n)])
    results: dict[str, dict[str, Any]] = {}
    if options.families and options.out.exists():  # a run of some keeps the results of the others
        results |= json.loads(options.out.read_text())
    ran: list[str] = []
    lock = threading.Lock()

    def drive() -> None:
        while True:
            with lock:
                name = next(names, None)
            if name is None:
                return
            result = in_process(name, options.limit, kind)
            with lock:
                results[name] = result
                ran.append(name)
                print(_line(name, result), flush=True)
                _write(options.out, results)

    threads = [threading.Thread(target=drive) for _ in range(options.workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if options.docs and kind in ("exports", "models"):
        make = exports_page if options.exports else page
        (ROOT / "docs" / f"{kind}.md").write_text(make(results))
    return 1 if any(is_bad(results[name]) for name in ran) else 0


def _write(path: Path, results: dict[str, dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")


def _line(name: str, result: dict[str, Any]) -> str:
    said = [name, result["outcome"], f"{result['wall_s']:.0f} s"]
    if "graphs" in result:
        said.append("graphs {graphs}, whole {whole}, eager {eager}".format(**result))
    for cache, generated in result.get("generate", {}).items():
        compilations = [generated.get(b) for b in ("aot_eager", "onnx")]
        said.append(f"{cache} {generated['outcome']} {compilations} {generated.get('detail', '')}")
    exports = {n: c for n, c in result.items() if n.endswith(("static", "dynamic"))}
    said += [f"{n} {c['outcome']} {c.get('detail', '')}" for n, c in exports.items()]
    said += [result.get("detail", ""), *result.get("reasons", {})]
    return " | ".join(s for s in said if s)


if __name__ == "__main__":
    sys.exit(main())
