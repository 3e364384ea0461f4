"""The cached programs as the user sees them, and as files."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnxruntime
import torch
import torch.onnx
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnx_ir.tensor_adapters import TorchTensor

from ..runtime.errors import CacheError
from ..runtime.executable import Executable
from ..runtime.program import OutputLayout, Program
from .dump import file_stem, write_atomically
from .options import check_writable
from .report import records_of
from .state import GraphRecord, RegionRecord
from .torch_private import guards_text

MANIFEST_FORMAT = 1
BUNDLE_SUFFIX = ".onnxbundle"


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output: the user's name, the ONNX name, element type and shape.

    A symbolic dimension is text. `weight` inputs are stored in the file as initializers.
    """

    name: str
    onnx_name: str
    dtype: str
    shape: tuple[int | str, ...]
    weight: bool = False


@dataclass(frozen=True, slots=True)
class CachedProgram:
    """One program of the cache: where it belongs, what guards it, what goes in and out."""

    frame: str
    guard_set: str
    region: int
    kind: str
    guards: tuple[str, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    providers: tuple[str, ...]
    program: Program
    weights: dict[str, torch.Tensor]

    @property
    def onnx_program(self) -> torch.onnx.ONNXProgram:
        """A `torch.onnx.ONNXProgram` with the weights as initializers, not copied.

        Its outputs are in torch's dimension order.
        """
        return torch.onnx.ONNXProgram(self.model(), None)

    def model(self) -> ir.Model:
        """A model of its own, with the weights as initializers under the user's names."""
        model = ir.serde.deserialize_model(ir.serde.serialize_model(self.program.model))
        graph = model.graph
        values = {v.name: v for v in graph.inputs}
        for port in self.inputs:
            value = values[port.onnx_name]
            value.name = port.name
            tensor = self.weights.get(port.onnx_name)
            if tensor is not None:
                value.const_value = TorchTensor(tensor, name=port.name)
                graph.inputs.remove(value)
                graph.initializers[port.name] = value
        for index, layout in enumerate(self.program.layouts):
            if layout.permute is not None:
                _permuted_output(graph, index, layout)
        if len(graph.outputs) > len(self.program.layouts):  # strides are torch's own concern
            del graph.outputs[len(self.program.layouts) :]
            RemoveUnusedNodesPass()(model)
        return model


def programs(compiled: object | None = None) -> list[CachedProgram]:
    """The programs in use, of one compiled callable or of all, in the order of compilation."""
    found: list[CachedProgram] = []
    for graph in records_of(compiled):
        for index, region in enumerate(graph.regions):
            executable = region.executable()
            if executable is not None:
                found.append(_cached(graph, region, executable, index))
    return found


def save(compiled: object, directory: str | os.PathLike[str]) -> list[Path]:
    """Write every cached program of `compiled` as `.onnx` with external data, and `manifest.json`.

    A directory called `….onnxbundle` becomes a bundle: all guard sets with what lies between their
    graphs, for `dynamo_onnx.load`, or `dynamo_onnx.runtime.load` where there is no torch. What a
    bundle cannot say is a BundleError which names it.

    The manifest comes last and is replaced in one step: a directory with a manifest is complete.
    Returns the paths written. CacheError when there is nothing to save or a file cannot be written.
    """
    if Path(directory).suffix == BUNDLE_SUFFIX:
        from .bundle.save import save_bundle

        return save_bundle(compiled, directory)
    cached = programs(compiled)
    if not cached:
        raise CacheError(
            "nothing to save: call the compiled function at least once, under torch.no_grad()"
        )
    folder = Path(directory)
    check_writable("save", folder)
    written: list[Path] = []
    entries: list[dict[str, Any]] = []
    for program in cached:
        stem = file_stem(program.guard_set, program.region)
        path = folder / f"{stem}.onnx"
        try:
            _write(program.model(), path)
        except OSError as error:
            raise CacheError(f"cannot write {path}: {error.strerror or error}") from error
        written.append(path)
        entries.append(_entry(program, path.name))
    manifest = {
        "format": MANIFEST_FORMAT,
        "versions": {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__},
        "programs": entries,
    }
    target = folder / "manifest.json"
    write_atomically(target, lambda p: p.write_text(json.dumps(manifest, indent=2) + "\n"))
    return [*written, target]


def _write(model: ir.Model, path: Path) -> None:
    """Write aside, then move into place: a name never holds half a file."""
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=path.parent) as aside:
        ir.save(model, Path(aside) / path.name, external_data=f"{path.name}.data")
        for made in sorted(Path(aside).iterdir(), reverse=True):  # the data before what names it
            made.replace(path.parent / made.name)


def _entry(program: CachedProgram, file: str) -> dict[str, Any]:
    return {
        "file": file,
        "frame": program.frame,
        "guard_set": program.guard_set,
        "region": program.region,
        "kind": program.kind,
        "guards": list(program.guards),
        "inputs": [asdict(p) for p in program.inputs if not p.weight],
        "weights": [asdict(p) for p in program.inputs if p.weight],
        "outputs": [asdict(p) for p in program.outputs],
        "providers": list(program.providers),
        "opset": program.program.model.opset_imports[""],
        "fingerprint": program.program.fingerprint,
    }


def _cached(
    graph: GraphRecord, region: RegionRecord, executable: Executable, index: int
) -> CachedProgram:
    prepared = executable.prepared
    program = prepared.program
    weights = {program.inputs[i].name: tensor for i, tensor in executable.weight_tensors().items()}
    names = [f"{region.input_names[o.position]}{o.part}" for o in prepared.origins]
    frame, _, _ = graph.frame.compile_id.partition("/")
    code = graph.frame.code() if graph.frame.code is not None else None
    return CachedProgram(
        frame=frame,
        guard_set=graph.frame.compile_id,
        region=index,
        kind=graph.kind,
        guards=guards_text(code, graph.frame.compile_id) if code is not None else (),
        inputs=tuple(
            Port(name, spec.name, spec.dtype.name, spec.shape, spec.name in weights)
            for name, spec in zip(_distinct(names), program.inputs, strict=True)
        ),
        outputs=tuple(
            Port(spec.name, spec.name, spec.dtype.name, _permuted(spec.shape, layout))
            for spec, layout in zip(program.outputs, program.layouts, strict=False)
        ),
        providers=tuple(executable.providers),
        program=program,
        weights=weights,
    )


def _distinct(names: Sequence[str]) -> list[str]:
    """Two inputs of one name (a weight passed twice) get a number."""
    return [f"{n}_{i}" if n in names[:i] else n for i, n in enumerate(names)]


def _permuted(shape: tuple[int | str, ...], layout: OutputLayout) -> tuple[int | str, ...]:
    return tuple(shape[p] for p in _order(layout, len(shape)))


def _order(layout: OutputLayout, rank: int) -> list[int]:
    """torch's order of an output's dimensions; behind it the pairs of a complex one."""
    order = list(layout.permute or ())
    return [*order, *range(len(order), rank)]


def _permuted_output(graph: ir.Graph, index: int, layout: OutputLayout) -> None:
    """Bring a graph output from memory order into torch's order of dimensions."""
    physical = graph.outputs[index]
    assert physical.shape is not None
    order = _order(layout, len(physical.shape))
    name = physical.name
    physical.name = f"{name}_physical"
    node = ir.node("Transpose", [physical], {"perm": order})
    logical = node.outputs[0]
    logical.name, logical.type = name, physical.type
    logical.shape = ir.Shape([physical.shape[p] for p in order])
    graph.append(node)
    graph.outputs[index] = logical
