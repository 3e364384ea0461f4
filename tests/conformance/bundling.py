"""One family saved as a bundle: does it answer what the compiled model answered?"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

import dynamo_onnx

from .families import Family
from .family import build, counts, difference, forward, line


def run(family: Family) -> dict[str, Any]:
    """What came of it: `equal`, `refused` with the reason, or worse."""
    try:
        model, inputs = build(family)
        forward(model, inputs)
        model.compile(backend="onnx")
        expected = forward(model, inputs)
    except Exception as error:  # noqa: BLE001 - the other sweep judges it
        return {"outcome": "not compiled", "detail": line(error)}
    result = counts()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "family.onnxbundle"
        try:
            dynamo_onnx.save(model, path)
        except dynamo_onnx.BundleError as error:
            return result | {"outcome": "refused", "detail": line(error)}
        except Exception as error:  # noqa: BLE001 - any other exception is a crash
            return result | {"outcome": "crashed", "detail": line(error)}
        try:
            found = forward(dynamo_onnx.load(path), inputs)  # type: ignore[arg-type]  # as a module
        except Exception as error:  # noqa: BLE001 - as above
            return result | {"outcome": "crashed", "detail": line(error)}
    ours, theirs = dict(leaves(found)), dict(leaves(expected))
    told = f"{sorted(theirs.keys() ^ ours.keys())[:3]} are in one of them"
    if ours.keys() == theirs.keys():
        told = difference(list(ours.values()), list(theirs.values()))
    return result | {"outcome": "wrong" if told else "equal", "detail": told}


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors in a result, by where they are."""
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from leaves(item, f"{path}.{name}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}.{index}")
    elif hasattr(value, "__dict__"):
        public = ((n, item) for n, item in vars(value).items() if not n.startswith("_"))
        for name, item in public:
            yield from leaves(item, f"{path}.{name}")
