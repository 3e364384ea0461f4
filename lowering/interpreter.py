"""Lowers one region: walks its nodes, calls their rules, and returns the program."""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import onnx_ir as ir
import sympy
import torch
import torch.fx

from ..runtime.errors import DynamoOnnxError, LoweringError, Reason, ReasonKind
from ..runtime.program import Kernels, OutputLayout, Program, TensorSpec
from . import dtypes
from .builder import Builder
from .conditions import truth, under
from .dims import dim_of, dims_of, expression, text
from .floats import Floats
from .layout import output_layout
from .passes import run_passes
from .region import (
    Region,
    constant_tensor,
    inner_graph,
    is_symbolic,
    items,
    location,
    source_line,
    tensors,
)
from .registry import Lowering, Registry, bind_arguments
from .rule import Meta, Rule, metas
from .value import Complex, Declined, NeedsOpset, Value
from .verdict import in_graph

log = logging.getLogger(__name__)

Result: TypeAlias = "Value | Complex | tuple[Value | Complex | None, ...]"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A node that turned out not to be lowerable.

    `error` is set where a rule failed, `opset` where a later one has what the node needs.
    """

    node: torch.fx.Node
    reason: Reason
    error: LoweringError | None = None
    opset: int | None = None


@dataclass(frozen=True, slots=True)
class Lowered:
    """A program, or the nodes that stand in its way.

    `unchecked` are the conditions on sizes that the program takes for granted.
    """

    program: Program | None
    refusals: tuple[Refusal, ...]
    unchecked: tuple[sympy.Basic, ...] = ()


def lower_region(
    region: Region,
    *,
    registry: Registry,
    kernels: Callable[[int], Kernels],
    opsets: tuple[int, int],
    fingerprint: str,
    name: str,
    strided: bool = True,
    fused: bool = True,
    conditions: Sequence[sympy.Basic] = (),
) -> Lowered:
    """One region as one program. Every node that refuses is found in the same pass.

    With `strided`, the program writes its outputs as they lie in memory: see `OutputLayout`. With
    `fused`, patterns of nodes become one. A run ends in an error where one of the `conditions` on
    sizes does not hold.

    The program has the first of the opsets, or one up to the last if a node needs it; `kernels`
    gives those at an opset.
    """
    opset, newest = opsets
    while True:
        table = kernels(opset)
        interpreter = _Interpreter(registry, Builder(opset, table), strided=strided, fused=fused)
        lowered = interpreter.run(region, table, fingerprint, name, conditions)
        needed = [r.opset for r in lowered.refusals if r.opset is not None and r.opset <= newest]
        if not needed:
            return lowered
        opset = max(needed)


class _Interpreter:
    def __init__(self, registry: Registry, builder: Builder, *, strided: bool, fused: bool) -> None:
        self.strided = strided
        self.fused = fused
        self.registry = registry
        self.builder = builder
        self.cx = Rule(builder, self._inline)
        self.env: dict[torch.fx.Node, Result] = {}
        self.floats = Floats(builder, self.env.get)
        self.refusals: list[Refusal] = []

    def run(
        self,
        region: Region,
        kernels: Kernels,
        fingerprint: str,
        name: str,
        conditions: Sequence[sympy.Basic],
    ) -> Lowered:
        inputs = [self._input(node, index) for index, node in enumerate(region.inputs)]
        unchecked = self._check(region.inputs, conditions)
        for node in region.inputs:
            self._offer_items(node)
        for node in region.nodes:
            try:
                self.env[node] = self._lower(node)
                self._offer_items(node)
            except NeedsOpset as declined:
                self._refuse(Refusal(node, declined.reason, opset=declined.opset))
            except Declined as declined:
                self._refuse(Refusal(node, declined.reason))
            except LoweringError as error:
                reason = Reason(ReasonKind.RULE_FAILED, str(error))
                self._refuse(Refusal(node, reason, error))
        outputs, layouts = self._outputs(region) if not self.refusals else ([], [])
        if self.refusals:
            return Lowered(None, tuple(self.refusals))
        model = self.builder.finish(inputs, outputs, name)
        if self.fused:
            run_passes(model.graph, kernels)
        program = Program(
            model=model,
            inputs=tuple(_spec(v) for v in inputs),
            outputs=tuple(_spec(v) for v in model.graph.outputs),
            layouts=tuple(layouts),
            fingerprint=fingerprint,
            node_count=len(model.graph),
            locations={n.name: location(n) for n in region.nodes},
        )
        return Lowered(program, (), unchecked)

    def _input(self, node: torch.fx.Node, index: int) -> Value:
        val = node.meta["val"]
        name = f"x{index}"
        if isinstance(val, (torch.SymInt, int)):
            value = Value(name, ir.DataType.INT64, (1,))
            self.builder.sizes.give(dim_of(val), value)
            return value
        if isinstance(val, torch.SymFloat):
            value = self.builder.input(name, ir.DataType.DOUBLE, ())
            self.env[node] = value
            return value
        dims = dims_of(val.shape)
        if val.dtype in dtypes.REAL:
            real = dtypes.TO_ONNX[dtypes.REAL[val.dtype]]
            value = self.builder.input(name, real, (*dims, 2))
            self.env[node] = self.cx.unstack(value)
            return value
        value = self.builder.input(name, dtypes.TO_ONNX[val.dtype], dims)
        self.env[node] = value
        return value

    def _check(
        self, inputs: Sequence[torch.fx.Node], conditions: Sequence[sympy.Basic]
    ) -> tuple[sympy.Basic, ...]:
        """Have the inputs whose sizes they are only while the conditions hold; what is not checked.

        Conditions on sizes that no tensor has are for the first tensor.
        """
        given = {n: v for n in inputs if isinstance(v := self.env.get(n), Value)}
        of: dict[torch.fx.Node, list[sympy.Basic]] = {}
        unchecked: list[sympy.Basic] = []
        for condition in conditions:
            symbols = condition.free_symbols
            has = (n for n, v in given.items() if not symbols.isdisjoint(v.known_dims))
            node = next(has, next(iter(given), None))
            (unchecked if node is None else of.setdefault(node, [])).append(condition)
        for node, own in of.items():
            self.cx.enter(node)
            self.env[node], rest = under(self.cx, given[node], own)
            unchecked += rest
        for node in of:
            checked = self.env[node]
            assert isinstance(checked, Value)
            self.builder.sizes.learn_anew(checked)
        return tuple(unchecked)

    def _offer_items(self, node: torch.fx.Node) -> None:
        """Sizes that the graph reads off this tensor are its element."""
        value = self.env.get(node)
        if isinstance(value, Value):
            for dim in items(node):
                self.builder.sizes.offer(dim, value)

    def _lower(self, node: torch.fx.Node) -> Result:
        if node.op == "get_attr":
            return self._constant(node)
        if node.target is operator.getitem:
            return self._item(node)
        find = self.registry.get_complex if is_complex(node) else self.registry.get
        lowering = find(node.target)
        if lowering is None:
            raise LoweringError(f"{node.target} was accepted without a rule")
        self.cx.enter(node)
        if lowering.arguments is None:
            arguments = [self._argument_of_functional(a) for a in node.args]
        else:
            bound = bind_arguments(lowering.arguments, node.args, node.kwargs)
            arguments = [self._argument(a) for a in bound]
            _refuse_numbers(lowering, bound)
        try:
            result = lowering.rule(self.cx, *arguments)
        except (Declined, DynamoOnnxError, MemoryError):
            raise
        except Exception as error:
            raise LoweringError(
                f"the rule for {node.target} raised {type(error).__name__}: {error} "
                f"(node {node.name}, {location(node) or 'no source line'}); "
                f"mend the rule, or pass options={{'eager_ops': ['{node.target}']}}"
            ) from error
        log.debug("lowered %s (%s)", node.name, node.target)
        return self._checked(node, result)

    def _constant(self, node: torch.fx.Node) -> Value:
        tensor = constant_tensor(node)
        assert tensor is not None, f"{node.target} is not a small constant"
        plain = tensor.detach()
        array = plain.float().numpy() if tensor.dtype is torch.bfloat16 else plain.numpy()
        return self.cx.const(array, tensor.dtype)

    def _inline(self, graph: torch.fx.GraphModule, operands: Sequence[Any]) -> list[Value]:
        """The results of a graph that an operator takes; its nodes are emitted where we are."""
        given = iter(operands)
        for node in graph.graph.nodes:
            if node.op == "placeholder":
                self.env[node] = next(given)
            elif node.op == "call_function" and not is_symbolic(node):
                self.env[node] = self._lower_inner(node)
            elif node.op == "get_attr" and constant_tensor(node) is not None:
                self.env[node] = self._constant(node)
        (output,) = graph.graph.find_nodes(op="output")
        returned = output.args[0] if isinstance(output.args[0], (list, tuple)) else output.args
        results = [r for r in map(self._argument, returned) if isinstance(r, Value)]
        if len(results) != len(returned):
            raise Declined(
                Reason(ReasonKind.SEMANTICS, "it takes a graph that returns more than tensors")
            )
        return results

    def _lower_inner(self, node: torch.fx.Node) -> Result:
        """A node of a graph that an operator takes: the reasons tell which one it was."""
        try:
            return self._lower(node)
        except NeedsOpset:
            raise
        except Declined as declined:
            raise Declined(in_graph(node, declined.reason)) from declined

    def _argument_of_functional(self, arg: object) -> object:
        """Operators that take functions also take graphs, and conditions on sizes."""
        if isinstance(arg, torch.fx.Node):
            val = arg.meta.get("val")
            if isinstance(val, torch.SymBool):
                return expression(val)
            graph = inner_graph(arg)
            if graph is not None:
                return graph
        if isinstance(arg, (list, tuple)):
            return [self._argument_of_functional(a) for a in arg]
        return self._argument(arg)

    def _item(self, node: torch.fx.Node) -> Value | Complex:
        """One output of a node that returns several."""
        (source,), index = node.all_input_nodes, node.args[1]
        results = self.env[source]
        assert isinstance(results, tuple)
        assert isinstance(index, int)
        item = results[index]
        if item is None:
            detail = f"output {index} of {source.target} has no ONNX form"
            raise Declined(Reason(ReasonKind.SEMANTICS, detail))
        return item

    def _argument(self, arg: object) -> object:
        if isinstance(arg, torch.fx.Node):
            val = arg.meta.get("val")
            if isinstance(val, (torch.SymInt, int)) and not isinstance(val, bool):
                return dim_of(val)
            if isinstance(val, torch.SymFloat):
                return self.floats.value(arg)
            if isinstance(val, torch.SymBool):
                return truth(self.cx, expression(val))
            if arg not in self.env:
                kind = type(val).__name__
                raise Declined(Reason(ReasonKind.SYMBOLIC, f"takes a {kind} computed at run time"))
            return self.env[arg]
        if isinstance(arg, (list, tuple)):
            return [self._argument(a) for a in arg]
        return arg

    def _checked(self, node: torch.fx.Node, result: Any) -> Result:  # noqa: ANN401 - a rule's
        """The rule's result against the graph's metadata: a contradiction is a bug of ours."""
        val = node.meta["val"]
        single = isinstance(val, torch.Tensor)
        vals = (val,) if single else tuple(val)
        values = (result,) if single else tuple(result)
        if len(values) != len(vals):
            raise LoweringError(f"{node.target}: {len(values)} results for {len(vals)} outputs")
        for value, expected in zip(values, vals, strict=True):
            for part in (value.re, value.im) if isinstance(value, Complex) else (value,):
                if part is not None:
                    _check(node, part, expected)
                    self.builder.sizes.learn(part)
        return values[0] if single else values

    def _refuse(self, refusal: Refusal) -> None:
        """Note it, and stand fresh inputs in for the results so that the walk goes on.

        An item of several results is refused with the node that they are of.
        """
        node = refusal.node
        source = node.all_input_nodes[0] if node.target is operator.getitem else node
        self.refusals.append(replace(refusal, node=source))
        stand_ins = tuple(self._stand_in(f"{node.name}_{i}", m) for i, m in enumerate(metas(node)))
        single = isinstance(node.meta["val"], torch.Tensor)
        self.env[node] = stand_ins[0] if single else stand_ins

    def _stand_in(self, name: str, meta: Meta) -> Value | Complex:
        if meta.dtype not in dtypes.REAL:
            return self.builder.input(name, meta.onnx, meta.dims)
        real = dtypes.TO_ONNX[dtypes.REAL[meta.dtype]]
        return Complex(*(self.builder.input(f"{name}_{p}", real, meta.dims) for p in ("re", "im")))

    def _outputs(self, region: Region) -> tuple[list[Value], list[OutputLayout]]:
        """The results in memory order; behind them, strides that take computing."""
        self.builder.prefix = "output"
        outputs: list[Value] = []
        layouts: list[OutputLayout] = []
        computed: list[Value] = []
        for node in region.outputs:
            value = self.env[node]
            assert not isinstance(value, tuple), f"{node} returns a tuple"
            layout = output_layout(node.meta["val"]) if self.strided else OutputLayout()
            if layout is None:
                strides = dims_of(node.meta["val"].stride())
                try:
                    computed.append(self.builder.sizes.shape(strides))
                except Declined as declined:
                    self.refusals.append(Refusal(node, declined.reason))
                layout = OutputLayout(strides_in=len(region.outputs) + len(computed) - 1)
            if layout.permute is not None:
                inverse = layout.permute
                order = [inverse.index(i) for i in range(len(inverse))]
                if isinstance(value, Complex):
                    value = self.cx.unstack(
                        self.builder.transpose(self.cx.stack(value), [*order, len(order)])
                    )
                else:
                    value = self.builder.transpose(value, order)
            if isinstance(value, Complex):
                layout, value = replace(layout, is_complex=True), self.cx.stack(value)
            outputs.append(self.builder.own(value, outputs))
            layouts.append(layout)
        for value in computed:
            outputs.append(self.builder.own(value, outputs))
        return outputs, layouts


def _check(node: torch.fx.Node, value: Value, expected: torch.Tensor) -> None:
    real = dtypes.REAL.get(expected.dtype, expected.dtype)
    if value.elem != dtypes.TO_ONNX[real]:
        raise LoweringError(
            f"{node.target} ({node.name}, {source_line(location(node))!r}): "
            f"the rule returned {value.elem.name}, eager returns {expected.dtype}"
        )
    dims = dims_of(expected.shape)
    if value.dims is None:
        value.dims = dims
        return
    clash = len(dims) != len(value.dims) or any(
        isinstance(a, int) and isinstance(b, int) and a != b
        for a, b in zip(dims, value.dims, strict=True)
    )
    if clash:
        raise LoweringError(
            f"{node.target} ({node.name}, {source_line(location(node))!r}): "
            f"the rule returned shape {value.dims}, eager returns {dims}"
        )


def _refuse_numbers(lowering: Lowering, bound: Sequence[object]) -> None:
    """Numbers computed at run time come as Values, which not every rule takes for one."""
    assert lowering.arguments is not None
    for argument, arg in zip(lowering.arguments, bound, strict=True):
        val = arg.meta.get("val") if isinstance(arg, torch.fx.Node) else None
        computed = isinstance(val, (torch.SymFloat, torch.SymBool))
        if computed and argument.name.rstrip("_") not in lowering.values:
            kind = "float" if isinstance(val, torch.SymFloat) else "truth"
            detail = f"{argument.name} is a {kind} computed at run time"
            raise Declined(Reason(ReasonKind.SYMBOLIC, detail))


def is_complex(node: torch.fx.Node) -> bool:
    """Does a node take or return a complex tensor?"""
    return any(t.dtype in dtypes.REAL for t in tensors((node, *node.all_input_nodes)))


def _spec(value: ir.Value) -> TensorSpec:
    assert isinstance(value, Value)
    assert value.name is not None
    return TensorSpec(value.name, value.elem, tuple(text(d) for d in value.known_dims))
