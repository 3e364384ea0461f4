"""From an `ExportedProgram` to one ONNX model, by the lowering that captured frames take."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import onnx_ir as ir
import sympy
import torch
import torch.fx
from onnx_ir.tensor_adapters import TorchTensor
from torch.export.graph_signature import ConstantArgument, InputKind, InputSpec, OutputKind
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from ...lowering import dtypes, random
from ...lowering.dims import dim_of, dims_of, expression, text
from ...lowering.interpreter import lower_region
from ...lowering.region import Region, is_symbolic, tensors, whole
from ...lowering.registry import Registry
from ...lowering.verdict import on_cpu, verdict
from ...runtime.errors import Reason, ReasonKind
from ...runtime.kernels import kernel_table
from ...runtime.program import Program
from ..options import DEFAULT_OPSET, NEWEST_OPSET
from ..partition import is_operator
from ..torch_private import FakeTensor, real_tensors, storage_of
from .calls import Classes, cut
from .decompose import Decomposed
from .fake import known_value
from .functions import Functions
from .program import OTHER_NAMES
from .standard import spell_out

log = logging.getLogger(__name__)

_PROVIDERS = ("CPUExecutionProvider",)


@dataclass(frozen=True, slots=True)
class Refused:
    """An operator that stands in the way of a model."""

    node: torch.fx.Node
    reason: Reason


class NotConvertibleError(Exception):
    """Some operators have no ONNX form."""

    def __init__(self, refused: Sequence[Refused]) -> None:
        super().__init__(f"{len(refused)} operators have no ONNX form")
        self.refused = tuple(refused)


@dataclass(frozen=True, slots=True)
class Converted:
    """The model, those of its inputs that are tensors, and how often it has each ATen overload.

    `conditions` on sizes must hold for its results to be right: a run ends in an error where one
    does not, but for those that are `unchecked`.
    """

    model: ir.Model
    tensors: Sequence[ir.Value]
    operators: Mapping[str, int]
    conditions: Sequence[str]
    unchecked: Sequence[str]


def convert(
    program: Decomposed,
    registry: Registry,
    opset: int | None,
    *,
    fused: bool,
    functions: Classes | None = None,
) -> Converted:
    """The model of a decomposed program: its weights by name, inputs and outputs by torch's names.

    Only what the user's function returns is computed: buffers that it writes to stay as they are.
    Calls of modules of the classes in `functions` are local functions.
    """
    gm = program.graph_module
    _keep_user_outputs(program, gm.graph)
    conditions = list(dict.fromkeys([*_bounds(program, gm.graph), *drop_checks(gm.graph)]))
    refused = [
        Refused(node, reason)
        for node in gm.graph.nodes
        if is_operator(node)
        and (
            reason := _sizes_where_numbers(node, registry)
            or verdict(node, registry, frozenset(), on_cpu)
        )
    ]
    if refused:
        raise NotConvertibleError(refused)
    region = whole(gm.graph)
    operators = Counter(str(node.target) for node in region.nodes if is_operator(node))
    kernels = partial(kernel_table, _PROVIDERS)
    lower = partial(
        lower_region,
        kernels=kernels,
        opsets=(opset, opset) if opset else _opsets(region),
        fingerprint="",
        name="main_graph",
        strided=False,
        fused=fused,
        conditions=conditions,
    )
    local = Functions(functions or {}, registry, kernels, fused=fused)
    apart = cut(gm, functions, _weight_names(program, gm.graph)) if functions else gm
    calling = whole(apart.graph) if functions else region
    lowered = lower(calling, registry=local.registry)
    if lowered.program is not None:
        gm, region = apart, calling
    elif functions:  # the reasons by the model's own nodes
        log.warning("export_modules_as_functions: not done: %s", lowered.refusals[0].reason)
        lowered = lower(region, registry=registry)
    if lowered.program is None:
        raise NotConvertibleError([Refused(r.node, r.reason) for r in lowered.refusals])
    placeholders = gm.graph.find_nodes(op="placeholder")
    ports = _Ports(program, placeholders, region, lowered.program)
    (output,) = gm.graph.find_nodes(op="output")
    model = ports.model(output.args[0])
    local.add_to(model)
    spell_out(model)
    told, unchecked = ([str(c) for c in cs] for cs in (conditions, lowered.unchecked))
    return Converted(model, ports.tensors, operators, told, unchecked)


def _weight_names(program: Decomposed, graph: torch.fx.Graph) -> dict[str, str]:
    """The name in the state dict by that of the placeholder."""
    placeholders = graph.find_nodes(op="placeholder")
    specs = zip(placeholders, program.signature.input_specs, strict=True)
    return {
        node.name: spec.target
        for node, spec in specs
        if spec.kind is not InputKind.USER_INPUT and spec.target is not None
    }


def _opsets(region: Region) -> tuple[int, int]:
    """The first to try and the last: onnxruntime's generators end before operators do."""
    draws = any(node.target in random.RULES for node in region.nodes)
    if draws:
        return random.NEWEST_OPSET, random.NEWEST_OPSET
    return DEFAULT_OPSET, NEWEST_OPSET


def _keep_user_outputs(program: Decomposed, graph: torch.fx.Graph) -> None:
    """Return what the user's function returns: numbers as tensors, without None and text."""
    (output,) = graph.find_nodes(op="output")
    kept: list[object] = []
    with graph.inserting_before(output):
        for spec, value in zip(program.signature.output_specs, output.args[0], strict=True):
            is_value = isinstance(value, (torch.fx.Node, bool, int, float))
            if spec.kind is OutputKind.USER_OUTPUT and is_value:
                is_tensor = isinstance(value, torch.fx.Node) and not is_symbolic(value)
                kept.append(value if is_tensor else as_tensor(graph, value))
    output.args = (tuple(kept),)


def as_tensor(graph: torch.fx.Graph, value: Any) -> torch.fx.Node:  # noqa: ANN401 - a number
    """A number that is returned, as a tensor without dimensions."""
    kind = value.meta["val"] if isinstance(value, torch.fx.Node) else value
    dtype = (
        torch.bool
        if isinstance(kind, (bool, torch.SymBool))
        else torch.int64
        if isinstance(kind, (int, torch.SymInt))
        else torch.float32
    )
    node = graph.call_function(torch.ops.aten.scalar_tensor.default, (value,), {"dtype": dtype})
    node.meta["val"] = torch.empty((), dtype=dtype)
    return node


_CHECKS = frozenset(
    "_assert_scalar _assert_async _assert_tensor_metadata sym_constrain_range "
    "sym_constrain_range_for_size".split()
)


def drop_checks(graph: torch.fx.Graph) -> list[sympy.Basic]:
    """Take out what only checks values, and what nothing reads then; the conditions on sizes."""
    conditions: list[sympy.Basic] = []
    for node in reversed(graph.nodes):
        checks = getattr(node.target, "_opname", None) in _CHECKS
        unread = node.op in ("call_function", "get_attr") and not node.users
        if checks or unread:
            conditions += _conditions(node)
            graph.erase_node(node)
    conditions.reverse()
    return conditions


def _conditions(node: torch.fx.Node) -> Iterable[sympy.Basic]:
    """What is asserted of sizes of inputs, but that two are the same: of names that says enough."""
    asserted = next(iter(node.args), None)
    val = asserted.meta.get("val") if isinstance(asserted, torch.fx.Node) else None
    if getattr(node.target, "_opname", None) == "_assert_scalar" and isinstance(val, torch.SymBool):
        expr = expression(val)
        same = isinstance(expr, sympy.Eq) and all(a.is_Symbol for a in expr.args)
        if not same and not free_unbacked_symbols(val) and expr.free_symbols:
            yield expr


def _bounds(program: Decomposed, graph: torch.fx.Graph) -> Iterable[sympy.Basic]:
    """Those of the inputs' sizes. torch takes sizes for 2 or more, and checks no such bound either.

    Ref: the guards of `torch/export/_unlift.py`
    """
    placeholders = graph.find_nodes(op="placeholder")
    sizes = [dim for tensor in tensors(placeholders) for dim in dims_of(tensor.shape)]
    numbers = (node.meta.get("val") for node in placeholders)
    sizes += [dim_of(number) for number in numbers if isinstance(number, torch.SymInt)]
    for symbol in dict.fromkeys(dim for dim in sizes if isinstance(dim, sympy.Symbol)):
        bounds = program.ranges.get(symbol)
        if bounds is None:
            continue
        if bounds.lower > 2:
            yield sympy.Ge(symbol, bounds.lower)
        if bounds.upper < sys.maxsize - 1:
            yield sympy.Le(symbol, bounds.upper)


def _sizes_where_numbers(node: torch.fx.Node, registry: Registry) -> Reason | None:
    """A size that varies where ONNX has an attribute. In a captured frame a guard would fix it."""
    lowering = registry.get(node.target)
    if lowering is None or lowering.arguments is None or not lowering.numbers:
        return None
    names = [a.name for a in lowering.arguments]
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    for name in sorted(lowering.numbers & given.keys()):
        sizes = [n for n in _nodes(given[name]) if isinstance(n.meta.get("val"), torch.SymInt)]
        if any(not free_unbacked_symbols(n.meta["val"]) for n in sizes):
            return Reason(
                ReasonKind.SYMBOLIC,
                f"{name} of {node.target} depends on a dynamic size, and ONNX has numbers there",
                "leave that dimension out of dynamic_shapes",
            )
    return None


def _nodes(value: object) -> Iterable[torch.fx.Node]:
    if isinstance(value, torch.fx.Node):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _nodes(item)


class _Ports:
    """Inputs, weights and outputs of a model, by their names."""

    def __init__(
        self,
        program: Decomposed,
        placeholders: Sequence[torch.fx.Node],
        region: Region,
        lowered: Program,
    ) -> None:
        self._program = program
        self._model = lowered.model
        self._graph = lowered.model.graph
        given = dict(zip(region.inputs, self._graph.inputs, strict=True))
        self._made = dict(zip(region.outputs, self._graph.outputs, strict=True))
        self._values: dict[torch.fx.Node, ir.Value] = {}
        self._weights: dict[object, ir.Value] = {}
        self._taken: set[str] = set()
        inputs: list[ir.Value] = []
        self.tensors: list[ir.Value] = []
        specs = program.signature.input_specs
        for node, spec in zip(placeholders, specs, strict=True):
            if spec.kind is not InputKind.USER_INPUT:
                if spec.target is not None and (node in given or node.users):
                    tensor = self._tensor(spec.target, in_state=_in_state_dict(spec))
                    self._weight(node, spec.target, tensor, given.get(node))
            elif not isinstance(spec.arg, ConstantArgument):
                inputs.append(self._input(node, given.get(node)))
                if isinstance(node.meta["val"], torch.Tensor):
                    self.tensors.append(inputs[-1])
        self._graph.inputs[:] = inputs
        self._note_ties()
        self._name_others()

    def model(self, results: Sequence[torch.fx.Node]) -> ir.Model:
        """The model that returns these."""
        outputs: list[ir.Value] = []
        for node in results:
            value = self._made.get(node, self._values.get(node))
            assert value is not None, node
            if value in outputs or node.op == "placeholder":
                value = self._copy(value, node)
            elif node.name not in self._taken:
                value.name = node.name
                self._taken.add(node.name)
            outputs.append(value)
        self._graph.outputs[:] = outputs
        return self._model

    def _copy(self, value: ir.Value, node: torch.fx.Node) -> ir.Value:
        copy = ir.node("Identity", [value], name=f"{node.name}/output")
        (out,) = copy.outputs
        out.name, out.type, out.shape = self._free(f"{node.name}_out"), value.type, value.shape
        self._graph.append(copy)
        return out

    def _free(self, name: str) -> str:
        """The name, or one like it that is not taken."""
        found, number = name, 0
        while found in self._taken:
            number += 1
            found = f"{name}_{number}"
        self._taken.add(found)
        return found

    def _input(self, node: torch.fx.Node, value: ir.Value | None) -> ir.Value:
        val = node.meta["val"]
        if isinstance(val, torch.Tensor):
            own = value if value is not None else _value_of(val)
        else:
            own = ir.Value(type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([]))
            if value is not None:
                self._as_vector(own, value)
        own.name = self._free(node.name)
        self._values[node] = own
        return own

    def _as_vector(self, own: ir.Value, value: ir.Value) -> None:
        """Sizes that are given are numbers for the user, and [1] within the program."""
        axes = ir.Value(
            name=self._free(f"{value.name}_axes"),
            type=ir.TensorType(ir.DataType.INT64),
            shape=ir.Shape([1]),
            const_value=ir.tensor([0], dtype=ir.DataType.INT64),
        )
        self._graph.register_initializer(axes)
        node = ir.node("Unsqueeze", [own, axes], name=f"{value.name}/given")
        self._graph.inputs.remove(value)
        ir.convenience.replace_all_uses_with(value, node.outputs[0])
        node.outputs[0].name, node.outputs[0].type = f"{value.name}_given", value.type
        node.outputs[0].shape = value.shape
        self._graph.insert_before(self._graph[0], node)

    def _weight(
        self, node: torch.fx.Node, name: str, tensor: torch.Tensor, value: ir.Value | None
    ) -> None:
        """An initializer under the name in the state dict; tied ones are one."""
        own = self._weights.get(key := _memory(tensor, name))
        if own is not None:
            if value is not None:
                self._graph.inputs.remove(value)
                ir.convenience.replace_all_uses_with(value, own)
            self._values[node] = own
            return
        own = value if value is not None else _value_of(tensor)
        own.name = self._free(name)
        with real_tensors():  # in fake mode, views of what has values would have none
            plain = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
            own.const_value = TorchTensor(plain.detach(), name=own.name)
        self._weights[key] = self._values[node] = own
        if value is not None:
            self._graph.inputs.remove(value)
        self._graph.register_initializer(own)

    def _tensor(self, name: str, *, in_state: bool) -> torch.Tensor:
        found = self._program.tensors[name]
        assert isinstance(found, torch.Tensor), name
        if isinstance(found, FakeTensor) and not in_state:  # nobody could give it its values
            known = known_value(found)
            return found if known is None else known
        return found

    def _note_ties(self) -> None:
        """torch.export gives a weight that has several names one of them."""
        for name, tensor in self._program.tensors.items():
            if type(tensor) in _PLAIN and tensor.layout is torch.strided:
                own = self._weights.get(_memory(tensor, name))
                if own is not None and own.name != name:
                    own.meta.setdefault(OTHER_NAMES, []).append(name)

    def _name_others(self) -> None:
        """Values of the lowering's own, where a user's name is the same."""
        ours = [v for v in self._graph.initializers.values() if v.name not in self._taken]
        for node in self._graph.all_nodes():
            ours.extend(node.outputs)
        mine = set(self._values.values())
        for value in ours:
            if value.name and value not in mine:
                value.name = self._free(value.name)


_PLAIN = (torch.Tensor, torch.nn.Parameter, FakeTensor)  # others need not have memory


def _value_of(tensor: torch.Tensor) -> ir.Value:
    """An input that the program does not read."""
    dims = dims_of(tensor.shape)
    real = dtypes.REAL.get(tensor.dtype)
    shape = [*map(text, dims), *([2] if real is not None else [])]
    dtype = dtypes.TO_ONNX[real or tensor.dtype]
    return ir.Value(type=ir.TensorType(dtype), shape=ir.Shape(shape))


def _memory(tensor: torch.Tensor, name: str) -> object:
    """What two names of one weight have in common."""
    if tensor.numel() == 0:
        return name
    place = (tensor.storage_offset(), tensor.dtype, tensor.shape, tensor.stride())
    return (storage_of(tensor), *place)


def _in_state_dict(spec: InputSpec) -> bool:
    return spec.kind is InputKind.PARAMETER or bool(spec.persistent)
