"""One fresh process up to its first answer, for `bundle`.

    python -m benchmarks.first_answer save resnet50 build/r50 --threads 2
    python -m benchmarks.first_answer bundle resnet50 build/r50 --threads 2

The first writes a bundle, a filled cache, inputs and eager's answer; the others print JSON. What
imports torch does so inside functions, since a bundle is to run without it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

BUNDLE, INPUTS, EXPECTED, CACHE = "model.onnxbundle", "inputs.npz", "expected.npy", "cache"


def save(model: str, folder: Path, *, threads: int, small: bool) -> None:
    """Leave in the folder what the other processes start from."""
    import numpy as np
    import torch

    import dynamo_onnx

    from .isolate import prepared
    from .models import MODELS

    with prepared(threads):
        module, kwargs = MODELS[model].build(small=small)
        compiled = torch.compile(module, backend="onnx", options={"cache_dir": folder / CACHE})
        compiled(**kwargs)
        dynamo_onnx.save(compiled, folder / BUNDLE)
        np.savez(folder / INPUTS, **{name: value.numpy() for name, value in kwargs.items()})
        np.save(folder / EXPECTED, module(**kwargs)[0].numpy())


def by_bundle(folder: Path, *, threads: int) -> dict[str, Any]:
    """The bundle, loaded and called, with nothing of torch."""
    start = time.perf_counter()
    import numpy as np

    from dynamo_onnx.runtime import load

    import_s = time.perf_counter() - start
    inputs = dict(np.load(folder / INPUTS))
    start = time.perf_counter()
    answer = load(folder / BUNDLE, threads=threads)(**inputs)
    answer_s = time.perf_counter() - start
    assert "torch" not in sys.modules
    error = _error(answer[0], folder)
    return {"import_s": import_s, "answer_s": answer_s, "error": error, "report": None}


def by_compiling(
    model: str, folder: Path, *, cached: bool, threads: int, small: bool
) -> dict[str, Any]:
    """The model, compiled and called; making it is not timed."""
    start = time.perf_counter()
    from torch._dynamo.backends.registry import lookup_backend

    lookup_backend("onnx")
    import_s = time.perf_counter() - start

    from .backends import onnx
    from .isolate import prepared
    from .models import MODELS

    with prepared(threads):
        example = MODELS[model].build(small=small)
        contender = onnx(example, {"cache_dir": folder / CACHE} if cached else None)
        start = time.perf_counter()
        answer: Any = contender.prime()
        answer_s = time.perf_counter() - start
        report = contender.report()
    error = _error(answer[0].numpy(), folder)
    return {"import_s": import_s, "answer_s": answer_s, "error": error, "report": report}


def _error(answer: Any, folder: Path) -> float:  # noqa: ANN401 - of numpy, which is timed
    """The largest difference from eager, relative to eager's largest number."""
    import numpy as np

    expected = np.load(folder / EXPECTED)
    return float(np.abs(answer - expected).max() / np.abs(expected).max())


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_answer")
    parser.add_argument("way", choices=("save", "compile", "cache", "bundle"))
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--small", action="store_true")
    asked = parser.parse_args(argv)
    model, folder, threads, small = asked.model, asked.folder, asked.threads, asked.small
    ways: dict[str, Callable[[], dict[str, Any] | None]] = {
        "save": lambda: save(model, folder, threads=threads, small=small),
        "bundle": lambda: by_bundle(folder, threads=threads),
        **{
            way: lambda cached=way == "cache": by_compiling(
                model, folder, cached=cached, threads=threads, small=small
            )
            for way in ("compile", "cache")
        },
    }
    print(json.dumps(ways[asked.way]()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
