"""One cold start, for `compile_time`: import, build, compile and run, each timed once.

    python -m benchmarks.cold resnet50 onnx --threads 2

Prints JSON. Everything heavy is imported inside functions, so that it is timed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any


def _seconds(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _import_torch() -> None:
    import torch  # noqa: F401 - being imported is the point


def _import_backend(backend: str) -> None:
    """What Dynamo loads when the backend is first used; Inductor itself is loaded later still."""
    from torch._dynamo.backends.registry import lookup_backend

    lookup_backend(backend)
    if backend == "inductor":
        import torch._inductor.compile_fx  # noqa: F401 - being imported is the point


def cold_start(model: str, backend: str, *, threads: int, small: bool) -> dict[str, Any]:
    """The seconds of each step, and the backend's report. Meant for a fresh process."""
    import_torch_s = _seconds(_import_torch)
    import_backend_s = _seconds(lambda: _import_backend(backend))

    from .backends import BACKENDS, compiled
    from .isolate import prepared
    from .models import MODELS

    with prepared(threads):
        example = MODELS[model].build(small=small)
        contender = BACKENDS.get(backend, compiled(backend))(example)
        first_call_s = _seconds(contender.prime)
        second_call_s = _seconds(contender.call)
        report = contender.report()
    return {
        "import_torch_s": import_torch_s,
        "import_backend_s": import_backend_s,
        "first_call_s": first_call_s,
        "second_call_s": second_call_s,
        "report": report,
    }


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cold")
    parser.add_argument("model")
    parser.add_argument("backend")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--small", action="store_true")
    asked = parser.parse_args(argv)
    found = cold_start(asked.model, asked.backend, threads=asked.threads, small=asked.small)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
