"""`dynamo_onnx.save(compiled, "model.onnxbundle")`: what runs without PyTorch."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch

from ...runtime.bundle.expressions import Expression
from ...runtime.bundle.load import load
from ...runtime.bundle.manifest import FORMAT, MANIFEST, WEIGHTS, Block, Run, Write
from ...runtime.errors import BundleError, SessionError
from ..options import check_writable
from ..report import records_of
from ..state import state
from ..torch_private import Entry, code_versions, entry_of, graph_breaks
from .graphs import Graphs
from .results import Weights, result_expression
from .tracing import trace


def save_bundle(compiled: object, directory: str | os.PathLike[str]) -> list[Path]:
    """Write the bundle of a compiled function or module; see `dynamo_onnx.save`."""
    folder = Path(directory)
    records = records_of(compiled)
    if not records:
        raise BundleError(
            "nothing to save: call the compiled function at least once, under torch.no_grad()"
            + _graph_breaks()
        )
    entry = entry_of(compiled)
    with state.lock:
        graphs = Graphs.of(records, state.graphs)
    _refuse_partly_captured(entry, graphs)
    block = trace(entry.function, entry.bound_to, graphs)
    check_writable("save", folder.parent)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder.parent) as made:
        aside = Path(made) / folder.name
        aside.mkdir()
        _write(aside, entry, graphs, block)
        _try(aside)
        return _moved(aside, folder)


def _refuse_partly_captured(entry: Entry, graphs: Graphs) -> None:
    if any(graphs.is_ours(v.compile_id) for v in code_versions(entry.function.__code__)):
        return
    raise BundleError(
        f"Dynamo does not capture {entry.name} itself, but what it calls{_graph_breaks()}"
    )


def _graph_breaks() -> str:
    told = [f"\n  {b.location or 'an unknown line'}: {b.reason}" for b in graph_breaks()]
    return "; Dynamo's graph breaks:" + "".join(told) if told else ""


def _write(folder: Path, entry: Entry, graphs: Graphs, block: Block) -> None:
    offsets = graphs.write(folder)
    kept = {
        name: {
            "dtype": str(graphs.weights.tensors[name].dtype).removeprefix("torch."),
            "shape": list(graphs.weights.tensors[name].shape),
            "offset": offsets[name],
        }
        for name in sorted(graphs.weights.kept)
    }
    manifest = {
        "format": FORMAT,
        "name": entry.name,
        "versions": {
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        "providers": list(_providers(graphs)),
        "parameters": _parameters(entry),
        "programs": [
            {
                "file": _file(folder / graphs.file(index)),
                "inputs": [asdict(port) for port in program.inputs],
                "outputs": [asdict(port) for port in program.outputs],
            }
            for index, program in enumerate(graphs.programs)
        ],
        "kept": kept,
        "weights": _file(folder / WEIGHTS) if offsets else None,
        "block": _told(block),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    if offsets:  # safetensors lets nobody but the owner read what it writes
        shutil.copymode(folder / MANIFEST, folder / WEIGHTS)


def _try(folder: Path) -> None:
    """Every program opens, and none would read what is not its own."""
    try:
        load(folder).load_all()
    except SessionError as error:
        raise BundleError(f"what would be saved does not open: {error}") from error


def _moved(aside: Path, folder: Path) -> list[Path]:
    """Put a complete bundle in place of an older one, of which nothing is left."""
    if folder.is_symlink() or (folder.exists() and not (folder / MANIFEST).is_file()):
        if folder.is_symlink() or not folder.is_dir() or any(folder.iterdir()):
            raise BundleError(f"{folder} is there and no bundle: choose another name, or remove it")
        folder.rmdir()
    older = aside.parent / "older"
    if folder.exists():
        folder.rename(older)
    aside.rename(folder)
    shutil.rmtree(older, ignore_errors=True)
    return sorted(folder.iterdir())


def _providers(graphs: Graphs) -> Sequence[str]:
    found: dict[str, None] = {}
    for record in graphs.records.values():
        for region in record.regions:
            executable = region.executable()
            if executable is not None:
                found.update(dict.fromkeys(executable.providers))
    return tuple(found) or ("CPUExecutionProvider",)


def _parameters(entry: Entry) -> list[dict[str, Any]]:
    # Not those of what a wrapper wraps: guards and code are the wrapper's.
    signature = inspect.signature(entry.function, follow_wrapped=False)
    made: list[dict[str, Any]] = []
    for parameter in list(signature.parameters.values())[entry.bound_to is not None :]:
        optional = parameter.default is not inspect.Parameter.empty
        default, left_out = _default(parameter.default) if optional else (None, False)
        made.append(
            {
                "name": parameter.name,
                "kind": str(parameter.kind),
                "optional": optional,
                "left_out": left_out,
                "default": default,
            }
        )
    return made


def _default(value: object) -> tuple[Expression, bool]:
    weights = Weights()
    try:
        made = result_expression(value, weights)
    except BundleError:
        return None, True
    return (None, True) if weights.kept or isinstance(value, (type, torch.dtype)) else (made, False)


def _file(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"name": path.name, "size": path.stat().st_size, "sha256": digest}


def _told(block: Block) -> Mapping[str, Any]:
    return {
        "steps": [_step(step) for step in block.steps],
        "choices": [
            {"name": c.name, "when": list(c.conditions), "then": _told(c.then)}
            for c in block.choices
        ],
        "result": block.result,
    }


def _step(step: Run | Write) -> Mapping[str, Any]:
    if isinstance(step, Run):
        return {"number": step.number, "program": step.program, "inputs": list(step.inputs)}
    return {"target": step.target, "attribute": step.attribute, "value": step.value}
