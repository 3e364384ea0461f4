"""An `ExportedProgram` in the operators of a captured frame: as AOTAutograd leaves them to us.

`ExportedProgram.run_decompositions` traces the whole program anew, twice. Here each operator that
must be decomposed is traced alone, once per kind of its arguments, and what it consists of takes
its place; everything else stays. Programs that need more (writes to what may be a view, graphs as
arguments, sizes that depend on data) go the long way.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import sympy
import torch
import torch.fx
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature, OutputKind
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from ...lowering.dims import dim_of, dims_of
from ...lowering.region import READS_ITEM
from ...lowering.registry import Registry
from ..decompositions import DECOMPOSITIONS
from ..torch_private import (
    FakeTensorMode,
    OpOverload,
    ValueRanges,
    export_decompositions,
    interpolation_whole,
    is_composite,
    pytree,
    traced,
)

Table: TypeAlias = "Mapping[Any, Callable[..., Any]]"


@dataclass(frozen=True, slots=True)
class Decomposed:
    """A program whose graph is ours to change: what `convert` needs of an `ExportedProgram`."""

    graph_module: torch.fx.GraphModule
    signature: ExportGraphSignature
    tensors: Mapping[str, Any]  # weights and constants by name
    ranges: Mapping[sympy.Symbol, ValueRanges[Any]]  # of the sizes of inputs


def decomposed(program: ExportedProgram, registry: Registry) -> Decomposed:
    """The program in operators that have rules, where they can be had."""
    table = export_decompositions(registry.__contains__, DECOMPOSITIONS)
    with interpolation_whole(registry.__contains__):
        gm = _expanded(program, table)
        if gm is None:
            program = program.run_decompositions(dict(table))
            gm = program.graph_module
    tensors = {**program.constants, **program.state_dict}
    return Decomposed(gm, program.graph_signature, tensors, program.range_constraints)


def _expanded(program: ExportedProgram, table: Table) -> torch.fx.GraphModule | None:
    """The graph with each operator of the table replaced; None where that takes a new trace."""
    if any(s.kind is not OutputKind.USER_OUTPUT for s in program.graph_signature.output_specs):
        return None
    graph = program.graph_module.graph
    mode = _fake_mode(graph)
    if mode is None:
        return None
    expansion = _Expansion(table, mode)
    try:
        made = expansion.run(graph)
        _without_writes(made, mode)
    except _NeedsTraceError:
        return None
    return torch.fx.GraphModule(program.graph_module, made)


class _NeedsTraceError(Exception):
    """The program must be traced as a whole."""


def _fake_mode(graph: torch.fx.Graph) -> FakeTensorMode | None:
    for node in graph.nodes:
        mode = getattr(node.meta.get("val"), "fake_mode", None)
        if mode is not None:
            return mode
    return None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an operand stands among the arguments of an operator."""

    index: int


class _Expansion:
    """Copies a graph, with what operators consist of in their places."""

    def __init__(self, table: Table, mode: FakeTensorMode) -> None:
        self._table = table
        self._mode = mode
        self._kinds: dict[object, torch.fx.Graph] = {}
        self._env: dict[torch.fx.Node, Any] = {}

    def run(self, graph: torch.fx.Graph) -> torch.fx.Graph:
        made = torch.fx.Graph()
        for node in graph.nodes:
            self._env[node] = self._copied(made, node)
        return made

    def _copied(self, made: torch.fx.Graph, node: torch.fx.Node) -> Any:  # noqa: ANN401 - nodes, or what they return
        if node.op == "get_attr" and "val" not in node.meta:
            raise _NeedsTraceError  # a graph
        if node.target is operator.getitem:
            source, index = (self._mapped(a) for a in node.args)
            if isinstance(source, (list, tuple)):
                return source[index]
        target = node.target
        if target in READS_ITEM:  # a number: lowering finds it by what it is read off
            return made.node_copy(node, self._env.__getitem__)
        if isinstance(target, OpOverload) and (target in self._table or is_composite(target)):
            return self._expanded(made, node)
        return made.node_copy(node, self._env.__getitem__)

    def _mapped(self, arg: Any) -> Any:  # noqa: ANN401 - an argument of a node
        return pytree.tree_map_only(torch.fx.Node, self._env.__getitem__, arg)

    def _expanded(self, made: torch.fx.Graph, node: torch.fx.Node) -> Any:  # noqa: ANN401 - as the operator returns it
        leaves, tree = pytree.tree_flatten((node.args, node.kwargs))
        given = list(
            dict.fromkeys(self._env[leaf] for leaf in leaves if isinstance(leaf, torch.fx.Node))
        )
        if not all(isinstance(g, torch.fx.Node) for g in given):
            raise _NeedsTraceError  # a number that was computed
        form = [
            _Place(given.index(self._env[leaf])) if isinstance(leaf, torch.fx.Node) else leaf
            for leaf in leaves
        ]
        values = [g.meta["val"] for g in given]
        key = (node.target, tree, tuple(map(_kind, form)), tuple(map(_kind, values)))
        inner = self._kinds.get(key)
        if inner is None:
            inner = self._kinds[key] = self._trace(node, form, tree, values)
        return _inlined(made, inner, given, node)

    def _trace(
        self,
        node: torch.fx.Node,
        form: Sequence[Any],
        tree: Any,  # noqa: ANN401 - a TreeSpec
        values: Sequence[Any],
    ) -> torch.fx.Graph:
        """What the operator does, its operands as placeholders."""
        target: Any = node.target
        if _data_dependent(node.meta["val"]) - _data_dependent(list(values)):
            raise _NeedsTraceError  # a trace would give the new size another symbol

        def call(*operands: object) -> object:
            args, kwargs = pytree.tree_unflatten(
                [operands[leaf.index] if isinstance(leaf, _Place) else leaf for leaf in form], tree
            )
            return target(*args, **kwargs)

        # A trace tells tensors apart by their identity, and two operands may have one meta["val"]
        # when they were copied from the same trace.
        with self._mode, torch.no_grad():
            own = [v.detach() if isinstance(v, torch.Tensor) else v for v in values]
        graph = traced(call, own, self._table, self._mode)
        if graph.find_nodes(op="get_attr"):
            raise _NeedsTraceError  # a constant that is fake here
        return graph


def _data_dependent(vals: object) -> set[sympy.Symbol]:
    """The symbols of sizes that only the data tell."""
    kinds = (torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool)
    leaves = [leaf for leaf in pytree.tree_leaves(vals) if isinstance(leaf, kinds)]
    return {symbol for leaf in leaves for symbol in free_unbacked_symbols(leaf)}


def _kind(value: object) -> object:
    """What the trace of an operator depends on in an argument."""
    if isinstance(value, torch.Tensor):
        strided = value.layout is torch.strided
        flags = (value.dtype, value.device, value.layout, value.is_conj(), value.is_neg())
        return (*flags, dims_of(value.shape), dims_of(value.stride()) if strided else None)
    if isinstance(value, torch.SymInt):
        return ("size", dim_of(value))
    if isinstance(value, (torch.SymFloat, torch.SymBool)):
        return (type(value).__name__, value.node.expr)
    return (type(value).__name__, repr(value))


_OF_THE_CALL = ("stack_trace", "nn_module_stack", "source_fn_stack")


def _inlined(
    made: torch.fx.Graph, inner: torch.fx.Graph, given: Sequence[Any], node: torch.fx.Node
) -> Any:  # noqa: ANN401 - nodes, as the operator returns them
    env: dict[torch.fx.Node, torch.fx.Node] = {}
    operands = iter(given)
    own = {key: node.meta[key] for key in _OF_THE_CALL if key in node.meta}
    for each in inner.nodes:
        if each.op == "placeholder":
            env[each] = next(operands)
        elif each.op == "output":
            return torch.fx.map_arg(each.args[0], env.__getitem__)
        else:
            env[each] = made.node_copy(each, env.__getitem__)
            env[each].meta = {"val": each.meta["val"], **own}
    raise AssertionError("a graph without an output")


def _without_writes(graph: torch.fx.Graph, mode: FakeTensorMode) -> None:
    """`add_` as `add`, where nothing else can be a view of what is written to."""
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        schema = getattr(node.target, "_schema", None)
        if schema is None and node.target is not operator.getitem:
            if isinstance(node.meta.get("val"), (torch.SymInt, torch.SymFloat, torch.SymBool)):
                continue  # arithmetic on sizes
            raise _NeedsTraceError
        if schema is not None and schema.is_mutable:
            _without_write(graph, node, mode)


def _without_write(graph: torch.fx.Graph, node: torch.fx.Node, mode: FakeTensorMode) -> None:
    target: Any = node.target
    written: Any
    written, *others = node.args
    packet = getattr(torch.ops.aten, target._opname[:-1], None)
    twin = getattr(packet, target._schema.overload_name or "default", None)
    plain = (
        target.namespace == "aten"
        and target._opname.endswith("_")
        and isinstance(written, torch.fx.Node)
        and not any(a.alias_info is not None for a in target._schema.arguments[1:])
        and _is_own(written)
        and all(user is node or user.op == "output" or _is_own(user) for user in written.users)
    )
    if not isinstance(twin, OpOverload) or not plain:
        raise _NeedsTraceError
    val = node.meta["val"]
    args, kwargs = torch.fx.map_arg(((written, *others), node.kwargs), lambda n: n.meta["val"])
    with mode:
        result = twin(*args, **kwargs)
    if (result.dtype, dims_of(result.shape)) != (val.dtype, dims_of(val.shape)):
        raise _NeedsTraceError
    with graph.inserting_before(node):
        made = graph.call_function(twin, (written, *others), dict(node.kwargs))
    made.meta = {**node.meta, "val": result}
    later = False
    for each in graph.nodes:
        later = later or each is node
        if later and each is not node:
            each.replace_input_with(written, made)
    node.replace_all_uses_with(made)
    graph.erase_node(node)


def _is_own(node: torch.fx.Node) -> bool:
    """Is what it returns no view of anything? Composites, which may be, are decomposed by now."""
    if node.target is operator.getitem:
        (node,) = node.all_input_nodes
    schema = getattr(node.target, "_schema", None)
    return (
        node.op == "call_function"
        and schema is not None
        and not schema.is_mutable
        and all(r.alias_info is None for r in schema.returns)
    )
