"""Calls of chosen modules as local functions of the model.

The graph of a call, which `calls` cut out, is lowered by itself into a function. Equal calls, their
weights aside, are calls of one function.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

import onnx_ir as ir
import sympy
import torch
import torch.fx

from ...lowering import dtypes
from ...lowering.builder import AS_ASKED
from ...lowering.dims import Dim, SymbolNames, dims_of, may_be_zero
from ...lowering.fingerprint import fingerprint, fingerprint_entries
from ...lowering.interpreter import Lowered, lower_region
from ...lowering.region import Region, tensors, whole
from ...lowering.registry import Registry
from ...lowering.rule import Operand, Rule, Scalar
from ...lowering.value import Declined, NeedsOpset, Value
from ...runtime.program import Kernels
from .calls import PATH, WEIGHT, Classes, hop, title

_DRAWS = frozenset("RandomNormal RandomNormalLike RandomUniform RandomUniformLike".split())


class Functions:
    """The local functions of a model, made as its calls are lowered.

    `registry` has the rule that makes them, and the others of the one given.
    """

    def __init__(
        self,
        classes: Classes,
        registry: Registry,
        kernels: Callable[[int], Kernels],
        *,
        fused: bool,
    ) -> None:
        self._classes = {title(cls): cls for cls in classes.values()}
        self._kernels = kernels
        self._fused = fused
        self._made: dict[tuple[int, str], ir.Function | None] = {}
        self.registry = registry.copy()
        self.registry.register(hop.invoke_subgraph, self._lower, replace=True)

    def add_to(self, model: ir.Model) -> None:
        """Give the model the functions that it calls, and the domains of what they call."""
        made = {f.identifier(): f for f in self._made_at(model.graph.opset_imports[""])}
        called = set[ir.OperatorIdentifier]()
        wanted = [n.op_identifier() for n in model.graph.all_nodes()]
        while wanted:
            each = wanted.pop()
            if each in made and each not in called:
                called.add(each)
                wanted += [n.op_identifier() for n in made[each].all_nodes()]
        for identifier, function in made.items():  # those that others call come first
            if identifier in called:
                model.functions[identifier] = function
                for domain, version in function.opset_imports.items():
                    model.graph.opset_imports.setdefault(domain, version)

    def _made_at(self, opset: int) -> list[ir.Function]:
        return [f for (at, _), f in self._made.items() if at == opset and f is not None]

    def _lower(
        self, cx: Rule, subgraph: torch.fx.GraphModule, identifier: str, *operands: Operand
    ) -> Sequence[Value]:
        """The call of a function; in place where the function cannot be lowered by itself."""
        cls = self._classes.get(identifier)
        if cls is None or PATH not in subgraph.meta:
            return cx.inline(subgraph, *operands)
        (output,) = subgraph.graph.find_nodes(op="output")
        region = whole(subgraph.graph)
        region = replace(region, outputs=output.args[0])
        opset = cx.builder.opset
        key = (opset, _key(region, self.registry, identifier))
        if key not in self._made:
            self._made[key] = self._function(cls, subgraph, region, opset)
        function = self._made[key]
        formals = subgraph.graph.find_nodes(op="placeholder")
        given = dict(zip(formals, operands, strict=True))
        inputs = _inputs(cx, [given[node] for node in region.inputs])
        if function is None or inputs is None:
            return cx.inline(subgraph, *operands)
        results = cx.builder.call(
            function.domain,
            function.name,
            inputs,
            [dtypes.TO_ONNX[node.meta["val"].dtype] for node in region.outputs],
            pure=not any(map(_is_own, self._nodes(function))),
        )
        return list(results)

    def _nodes(self, function: ir.Function) -> Iterator[ir.Node]:
        """Those of the function and of the functions that it calls."""
        made = {f.identifier(): f for f in self._made_at(function.opset_imports[""])}
        for node in function.all_nodes():
            yield node
            if node.op_identifier() in made:
                yield from self._nodes(made[node.op_identifier()])

    def _function(
        self, cls: type, subgraph: torch.fx.GraphModule, region: Region, opset: int
    ) -> ir.Function | None:
        """The function of a region; None where the region cannot be lowered by itself."""
        lowered = lower_region(
            region,
            registry=self.registry,
            kernels=self._kernels,
            opsets=(opset, opset),
            fingerprint="",
            name=cls.__name__,
            strided=False,
            fused=self._fused,
        )
        if lowered.program is None:
            _raise_opset(lowered)
            return None
        graph = lowered.program.model.graph
        _name_weights(graph, region, subgraph.meta[PATH])
        _without_initializers(graph)
        _without_symbols(graph)
        taken = {f.name for f in self._made_at(opset) if f.domain == cls.__module__}
        return ir.Function(cls.__module__, _free(cls.__name__, taken), graph=graph, attributes=[])


def _is_own(node: ir.Node) -> bool:
    """Is it another node than its equal?"""
    return node.op_type in _DRAWS or AS_ASKED in node.meta


def _key(region: Region, registry: Registry, identifier: str) -> str:
    """Equal for regions that are one function."""
    names = SymbolNames()
    layouts: list[object] = []
    for tensor in tensors((*region.inputs, *region.nodes)):
        dims = (*dims_of(tensor.shape), *dims_of(tensor.stride()))
        layouts.append([(names.canonical(d), may_be_zero(d)) for d in dims])
    settings = {"class": identifier, "layouts": layouts}
    return fingerprint(fingerprint_entries(region, registry=registry, settings=settings))


def _inputs(cx: Rule, operands: Sequence[Operand]) -> list[Value] | None:
    """Operands as functions take them, sizes as int64 [1]; None where a size is not known."""
    try:
        return [o if isinstance(o, Value) else cx.ints([_size(o)]) for o in operands]
    except Declined:
        return None


def _size(operand: Scalar) -> Dim:
    assert isinstance(operand, (int, sympy.Expr)), operand
    return operand


def _raise_opset(lowered: Lowered) -> None:
    """Have the whole model lowered at a later opset, where one is all that is missing."""
    needed = [r for r in lowered.refusals if r.opset is not None]
    if needed and len(needed) == len(lowered.refusals):
        newest = max(needed, key=lambda r: r.opset or 0)
        assert newest.opset is not None
        raise NeedsOpset(newest.reason, newest.opset)


def _name_weights(graph: ir.Graph, region: Region, path: str) -> None:
    """Call the inputs that are weights as the module calls them."""
    taken = {v.name for v in (*graph.inputs, *graph.initializers.values())}
    taken.update(v.name for node in graph.all_nodes() for v in node.outputs)
    for value, node in zip(graph.inputs, region.inputs, strict=True):
        name = node.meta.get(WEIGHT)
        if name is not None:
            value.name = _free(name.removeprefix(f"{path}."), taken)
            taken.add(value.name)


def _free(name: str, taken: Collection[str | None]) -> str:
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    return found


def _without_initializers(graph: ir.Graph) -> None:
    """Functions have none: constants are nodes."""
    made: list[ir.Node] = []
    for value in list(graph.initializers.values()):
        assert value.const_value is not None
        node = ir.node("Constant", [], {"value": value.const_value}, name=f"{value.name}/Constant")
        (out,) = node.outputs
        out.name, out.type, out.shape = value.name, value.type, value.shape
        ir.convenience.replace_all_uses_with(value, out)
        made.append(node)
    graph.initializers.clear()
    if made:
        graph.insert_before(graph[0], made)


def _without_symbols(graph: ir.Graph) -> None:
    """Dimensions that vary have no names: each call has its own."""
    values = [*graph.inputs]
    for node in graph.all_nodes():
        values.extend(node.outputs)
        for attribute in node.attributes.values():
            if attribute.type is ir.AttributeType.GRAPH:
                values.extend(attribute.as_graph().inputs)
    for value in values:
        if value.shape is not None:
            value.shape = ir.Shape([d if isinstance(d, int) else None for d in value.shape])
