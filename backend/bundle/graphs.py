"""The captured graphs of a compiled function, each as one program of its bundle.

A graph is lowered anew, whole: sizes and views that torch makes around regions are part of the
program, and its results come in torch's order of dimensions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir
import sympy
import torch
import torch.fx
from safetensors.torch import save_file

from ...lowering.interpreter import lower_region
from ...lowering.ops import registry
from ...lowering.region import Region, is_symbolic, whole
from ...runtime.bundle.arrays import NAMES, REALS
from ...runtime.bundle.manifest import WEIGHTS, Port
from ...runtime.errors import BundleError
from ...runtime.integer_weights import read_integers
from ...runtime.kernels import kernel_table
from ...runtime.linear_layers import Prepared, quantize_layers
from ...runtime.program import Program
from ...runtime.quantize import QuantizedWeights
from ..compile import transformed
from ..export.convert import as_tensor, drop_checks
from ..options import DEFAULT_OPSET, NEWEST_OPSET
from ..placing import Placing
from ..state import GraphRecord
from ..stitch import Stitched
from .results import Weights
from .symbols import Symbol, real
from .tracing import Call


@dataclass(frozen=True, slots=True)
class BundledProgram:
    """A program with the names of its weights, by that of the initializer."""

    stem: str
    model: ir.Model
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    weights: Mapping[str, str]


@dataclass(slots=True)
class Graphs:
    """Those of one compiled function, by the compile ids of their frames."""

    records: Mapping[str, GraphRecord]
    others: frozenset[str]
    weights: Weights = field(default_factory=Weights)
    programs: list[BundledProgram] = field(default_factory=list[BundledProgram])
    _quantized: QuantizedWeights = field(default_factory=QuantizedWeights)
    _calls: dict[object, Call] = field(default_factory=dict[object, Call])

    @classmethod
    def of(cls, records: Sequence[GraphRecord], every: Sequence[GraphRecord]) -> Graphs:
        """Those of the records; `every` are those of all compiled functions."""
        ours = {record.frame.compile_id: record for record in records}
        others = {record.frame.compile_id for record in every} - ours.keys()
        return cls(ours, frozenset(others))

    def is_ours(self, compile_id: str) -> bool:
        """See `tracing.Graphs`."""
        return compile_id not in self.others

    def where(self, compile_id: str) -> str:
        """See `tracing.Graphs`."""
        record = self.records.get(compile_id)
        cause = None if record is None else record.frame.graph_break
        return "" if cause is None else f"the graph break at {cause.location}: {cause.reason}"

    def call(self, compile_id: str, args: Sequence[object]) -> Call:
        """See `tracing.Graphs`."""
        fixed = {i: v for i, a in enumerate(args) if isinstance(v := real(a), torch.Tensor)}
        key = (compile_id, tuple((i, id(v)) for i, v in fixed.items()))
        if key not in self._calls:
            record = self.records.get(compile_id)
            if record is None:
                raise BundleError(f"the graph {compile_id} is not known any more: call it again")
            self._calls[key] = self._bundled(record, args, fixed)
        return self._calls[key]

    def _bundled(
        self, record: GraphRecord, args: Sequence[object], fixed: Mapping[int, torch.Tensor]
    ) -> Call:
        stitched = record.stitched()
        _refuse(record, stitched, args, fixed)
        assert stitched is not None
        graph, results = _whole_graph(stitched.graph)
        conditions = list(dict.fromkeys(drop_checks(graph.graph)))
        region = whole(graph.graph)
        lowered = _lowered(record, graph.graph, region, conditions)
        placeholders = graph.graph.find_nodes(op="placeholder")
        positions = [placeholders.index(node) for node in region.inputs]
        written = record.written
        names = _names(record, len(placeholders))
        kept = {i: self.weights.keep(names[i], fixed[i]) for i in written if i in fixed}
        constant = {
            at: fixed[position]
            for at, position in enumerate(positions)
            if position in fixed and position not in kept
        }
        prepared = self._prepared(lowered, record, constant, [names[p] for p in positions])
        made = {
            **{
                i: constant[origin.position]
                for i, origin in enumerate(prepared.origins)
                if origin.position in constant and not origin.part
            },
            **prepared.made,
        }
        fed = [i for i in range(len(prepared.origins)) if i not in made]
        told = [f"{names[positions[o.position]]}{o.part}" for o in prepared.origins]
        values = [placeholders[positions[prepared.origins[i].position]].meta["val"] for i in fed]
        model = ir.serde.deserialize_model(ir.serde.serialize_model(prepared.program.model))
        weights = self._initializers(model, made, told)
        for value, name in zip(
            model.graph.inputs, _distinct([told[i] for i in fed], weights), strict=True
        ):
            value.name = name
        outputs = [node.meta["val"] for node in region.outputs]
        self.programs.append(
            BundledProgram(
                record.frame.compile_id.replace("/", "_"),
                model,
                tuple(_port(v, val) for v, val in zip(model.graph.inputs, values, strict=True)),
                tuple(
                    _port(v, val, number=node in results.numbers)
                    for v, val, node in zip(
                        model.graph.outputs, outputs, region.outputs, strict=True
                    )
                ),
                weights,
            )
        )
        return Call(
            program=len(self.programs) - 1,
            feeds=tuple(positions[prepared.origins[i].position] for i in fed),
            results=tuple(
                ~record.returned[i] if i in record.returned else _position(n, region, placeholders)
                for i, n in enumerate(results.nodes)
            ),
            written=written,
            kept=kept,
            arrays={i: val.dtype for i, val in enumerate(outputs) if isinstance(val, torch.Tensor)},
        )

    def _prepared(
        self,
        program: Program,
        record: GraphRecord,
        constant: Mapping[int, torch.Tensor],
        names: Sequence[str],
    ) -> Prepared:
        on_host = {i: tensor.detach().cpu() for i, tensor in constant.items()}
        quantize = record.options.quantize
        if quantize is None:
            return read_integers(program, on_host, self._quantized)
        skipped = {i: "skipped" for i, name in enumerate(names) if quantize.skips(name)}
        wanted = quantize.quantization()
        return quantize_layers(
            replace(program, quantization=wanted), wanted, on_host, skipped, self._quantized
        )

    def _initializers(
        self, model: ir.Model, made: Mapping[int, torch.Tensor], told: Sequence[str]
    ) -> dict[str, str]:
        """Turn inputs into initializers, of which each is an entry of the file of weights."""
        graph = model.graph
        values = list(graph.inputs)
        names: dict[str, str] = {}
        for index, tensor in made.items():
            value = values[index]
            graph.inputs.remove(value)
            if not value.uses() and not value.is_graph_output():
                continue
            entry = self.weights.add(told[index], tensor)
            value.name = _free(entry, names)
            names[value.name] = entry
            graph.register_initializer(_placed(value, tensor))
        return names

    def write(self, folder: Path) -> dict[str, int]:
        """The weights, and the programs that read them; returns the offset of each weight."""
        tensors = {n: _stored(t) for n, t in self.weights.tensors.items()}
        offsets: dict[str, int] = {}
        if tensors:
            save_file(tensors, folder / WEIGHTS)
            offsets = _offsets(folder / WEIGHTS)
        for index, program in enumerate(self.programs):
            for name, entry in program.weights.items():
                value = program.model.graph.initializers[name]
                assert value.dtype is not None
                value.const_value = ir.ExternalTensor(
                    WEIGHTS,
                    offsets[entry],
                    tensors[entry].nbytes,
                    value.dtype,
                    shape=ir.Shape(tensors[entry].shape),
                    name=name,
                    base_dir=folder,
                )
            data = ir.serde.serialize_model(program.model).SerializeToString()
            (folder / self.file(index)).write_bytes(data)
        return offsets

    def file(self, index: int) -> str:
        """The name of a program's file."""
        stem = self.programs[index].stem
        same = [i for i, program in enumerate(self.programs) if program.stem == stem]
        return f"{stem}.onnx" if same[0] == index else f"{stem}_{same.index(index)}.onnx"


@dataclass(frozen=True, slots=True)
class _Results:
    """What a graph returns: nodes or None; `numbers` are those that were no tensors."""

    nodes: tuple[torch.fx.Node | None, ...]
    numbers: frozenset[torch.fx.Node]


def _whole_graph(original: torch.fx.Graph) -> tuple[torch.fx.GraphModule, _Results]:
    """A copy of the graph, which returns nothing but tensors."""
    graph = torch.fx.Graph()
    copies: dict[torch.fx.Node, torch.fx.Node] = {}
    graph.graph_copy(original, copies)
    (output,) = original.find_nodes(op="output")
    nodes: list[torch.fx.Node | None] = []
    numbers: set[torch.fx.Node] = set()
    for result in output.args[0]:
        node = copies[result] if isinstance(result, torch.fx.Node) else None
        if result is not None and (node is None or is_symbolic(node)):
            node = as_tensor(graph, result if node is None else node)
            numbers.add(node)
        nodes.append(node)
    graph.output(tuple(node for node in nodes if node is not None))
    assert original.owning_module is not None
    return torch.fx.GraphModule(original.owning_module, graph), _Results(
        tuple(nodes), frozenset(numbers)
    )


def _lowered(
    record: GraphRecord, graph: torch.fx.Graph, region: Region, conditions: Sequence[sympy.Basic]
) -> Program:
    options = record.options
    providers = tuple(name for name, _ in Placing(options, graph).providers(region))
    lowered = lower_region(
        region,
        registry=registry,
        kernels=partial(kernel_table, providers),
        opsets=(options.opset or DEFAULT_OPSET, options.opset or NEWEST_OPSET),
        fingerprint="",
        name="graph",
        strided=False,
        conditions=conditions,
    )
    if lowered.program is None:
        refused = lowered.refusals[0]
        raise BundleError(f"{refused.node.target} has no ONNX form: {refused.reason}")
    return transformed(lowered.program, options)


def _refuse(
    record: GraphRecord,
    stitched: Stitched | None,
    args: Sequence[object],
    fixed: Mapping[int, torch.Tensor],
) -> None:
    """BundleError for a graph that one program cannot stand for."""
    frame = record.frame.compile_id
    if record.kind != "inference":
        raise BundleError(
            f"{frame} was compiled for training; call it under torch.no_grad() and save that"
        )
    if record.eager:
        lines = [f"  {e.op} at {e.location or 'an unknown line'}: {e.reason}" for e in record.eager]
        raise BundleError(
            f"{frame} has {len(lines)} operators in eager PyTorch, which a bundle has not:\n"
            + "\n".join(dict.fromkeys(lines))
        )
    if stitched is None:
        raise BundleError(f"the graph of {frame} is gone: its compiled function was dropped")
    placeholders = stitched.graph.find_nodes(op="placeholder")
    if len(placeholders) != len(args):
        raise BundleError(f"{frame}: arguments are tensor subclasses, or share their memory")
    for position, tensor in fixed.items():
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer):
            raise BundleError(f"{frame}: argument {position} is a {type(tensor).__name__}")
    for arg in args:
        if not isinstance(real(arg), (Symbol, torch.Tensor, int, float)):
            raise BundleError(f"{frame}: a {type(real(arg)).__name__} goes into the graph")


def _position(
    node: torch.fx.Node | None, region: Region, placeholders: Sequence[torch.fx.Node]
) -> int | None:
    if node is None:
        return None
    if node in region.outputs:
        return region.outputs.index(node)
    if node in placeholders:
        return ~placeholders.index(node)
    raise BundleError(f"a constant of the graph, {node.target}, is returned as it is")


def _names(record: GraphRecord, count: int) -> list[str]:
    """The user's names of the arguments of a graph."""
    told = record.frame.input_names
    if len(told) != count:
        return [f"input_{i}" for i in range(count)]
    return [name.removeprefix("kwargs.") for name in told]


def _distinct(names: Sequence[str], taken: Mapping[str, str]) -> list[str]:
    seen: dict[str, str] = dict(taken)
    found: list[str] = []
    for name in names:
        found.append(_free(name, seen))
        seen[found[-1]] = name
    return found


def _free(name: str, taken: Mapping[str, str]) -> str:
    free, number = name, 0
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def _port(value: ir.Value, val: Any, *, number: bool = False) -> Port:  # noqa: ANN401 - a meta value
    assert value.name is not None
    assert value.dtype is not None
    name = NAMES[int(value.dtype)]
    if isinstance(val, torch.Tensor) and val.is_complex():
        name = next(complex_ for complex_, pair in REALS.items() if pair == name)
    return Port(value.name, name, number)


def _placed(value: ir.Value, tensor: torch.Tensor) -> ir.Value:
    """An initializer needs a value to be registered; the file is written later."""
    assert value.dtype is not None
    value.const_value = ir.ExternalTensor(
        WEIGHTS, 0, tensor.nbytes, value.dtype, shape=ir.Shape(tensor.shape), name=str(value.name)
    )
    return value


def _stored(tensor: torch.Tensor) -> torch.Tensor:
    """As a file has it: complex numbers as pairs."""
    plain = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    return plain.detach().cpu().contiguous()


def _offsets(path: Path) -> dict[str, int]:
    """Where each tensor of a safetensors file begins.

    Ref: https://github.com/huggingface/safetensors#format
    """
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    return {
        name: 8 + length + told["data_offsets"][0]
        for name, told in header.items()
        if name != "__metadata__"
    }
