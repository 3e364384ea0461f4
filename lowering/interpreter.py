"""Lowers one region: walks its nodes, calls their rules, and returns the program."""

from __future__ import annotations

import logging
import operator
from dataclasses import dataclass
from typing import Any, TypeAlias

import onnx_ir as ir
import torch
import torch.fx

from ..runtime.errors import DynamoOnnxError, LoweringError, Reason, ReasonKind
from ..runtime.program import Kernels, OutputLayout, Program, TensorSpec
from . import dtypes
from .builder import Builder
from .dims import dim_of, dims_of, text
from .layout import output_layout
from .passes import run_passes
from .region import Region, constant_tensor, location, source_line
from .registry import Registry, bind_arguments
from .rule import Rule, metas
from .value import Declined, Value

log = logging.getLogger(__name__)

Result: TypeAlias = "Value | tuple[Value | None, ...]"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A node that turned out not to be lowerable; `error` is set where a rule failed."""

    node: torch.fx.Node
    reason: Reason
    error: LoweringError | None = None


@dataclass(frozen=True, slots=True)
class Lowered:
    """A program, or the nodes that stand in its way."""

    program: Program | None
    refusals: tuple[Refusal, ...]


def lower_region(
    region: Region, *, registry: Registry, kernels: Kernels, opset: int, fingerprint: str, name: str
) -> Lowered:
    """One region as one program. Every node that refuses is found in the same pass."""
    interpreter = _Interpreter(registry, Builder(opset, kernels))
    return interpreter.run(region, kernels, fingerprint, name)


class _Interpreter:
    def __init__(self, registry: Registry, builder: Builder) -> None:
        self.registry = registry
        self.builder = builder
        self.cx = Rule(builder)
        self.env: dict[torch.fx.Node, Result] = {}
        self.refusals: list[Refusal] = []

    def run(self, region: Region, kernels: Kernels, fingerprint: str, name: str) -> Lowered:
        inputs = [self._input(node, index) for index, node in enumerate(region.inputs)]
        for node in region.nodes:
            try:
                self.env[node] = self._lower(node)
            except Declined as declined:
                self._refuse(Refusal(node, declined.reason))
            except LoweringError as error:
                reason = Reason(ReasonKind.RULE_FAILED, str(error))
                self._refuse(Refusal(node, reason, error))
        outputs: list[Value] = []
        layouts: list[OutputLayout] = []
        if not self.refusals:
            self.builder.prefix = "output"
            for node in region.outputs:
                try:
                    value, layout = self._output(node)
                except Declined as declined:
                    self.refusals.append(Refusal(node, declined.reason))
                    continue
                outputs.append(self._named_output(value, outputs))
                layouts.append(layout)
        if self.refusals:
            return Lowered(None, tuple(self.refusals))
        model = self.builder.finish(inputs, outputs, name)
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
        return Lowered(program, ())

    def _input(self, node: torch.fx.Node, index: int) -> Value:
        val = node.meta["val"]
        name = f"x{index}"
        if isinstance(val, (torch.SymInt, int)):
            value = Value(name, ir.DataType.INT64, (1,))
            self.builder.sizes.give(dim_of(val), value)
            return value
        value = self.builder.input(name, dtypes.TO_ONNX[val.dtype], dims_of(val.shape))
        self.env[node] = value
        return value

    def _lower(self, node: torch.fx.Node) -> Result:
        if node.op == "get_attr":
            tensor = constant_tensor(node)
            assert tensor is not None, f"{node.target} is not a small constant"
            return self.cx.const(
                tensor.detach().float().numpy()
                if tensor.dtype is torch.bfloat16
                else tensor.detach().numpy(),
                tensor.dtype,
            )
        if node.target is operator.getitem:
            return self._item(node)
        lowering = self.registry.get(node.target)
        if lowering is None:
            raise LoweringError(f"{node.target} was accepted without a rule")
        self.cx.enter(node)
        arguments = [
            self._argument(a) for a in bind_arguments(lowering.arguments, node.args, node.kwargs)
        ]
        try:
            result = lowering.rule(self.cx, *arguments)
        except (Declined, DynamoOnnxError):
            raise
        except Exception as error:
            raise LoweringError(
                f"the rule for {node.target} raised {type(error).__name__}: {error} "
                f"(node {node.name}, {location(node) or 'no source line'}); "
                f"mend the rule, or pass options={{'eager_ops': ['{node.target}']}}"
            ) from error
        log.debug("lowered %s (%s)", node.name, node.target)
        return self._checked(node, result)

    def _item(self, node: torch.fx.Node) -> Value:
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
            if value is not None:
                _check(node, value, expected)
                self.builder.sizes.learn(value)
        return values[0] if single else values

    def _refuse(self, refusal: Refusal) -> None:
        """Note it, and stand fresh inputs in for the results so that the walk goes on."""
        self.refusals.append(refusal)
        node = refusal.node
        stand_ins = tuple(
            self.builder.input(f"{node.name}_{i}", m.onnx, m.dims)
            for i, m in enumerate(metas(node))
        )
        single = isinstance(node.meta["val"], torch.Tensor)
        self.env[node] = stand_ins[0] if single else stand_ins

    def _output(self, node: torch.fx.Node) -> tuple[Value, OutputLayout]:
        value = self.env[node]
        assert isinstance(value, Value), f"{node} returns a tuple"
        layout = output_layout(node.meta["val"])
        if layout.permute is not None:
            inverse = layout.permute
            order = [inverse.index(i) for i in range(len(inverse))]
            value = self.builder.transpose(value, order)
        return value, layout

    def _named_output(self, value: Value, outputs: list[Value]) -> Value:
        """A value of its own for each output: inputs, constants and repeats pass an Identity."""
        if value.producer() is not None and value not in outputs:
            return value
        own = Value(f"y{len(outputs)}", value.elem, value.dims)
        self.builder.nodes.append(ir.Node("", "Identity", [value], outputs=[own]))
        return own


def _check(node: torch.fx.Node, value: Value, expected: torch.Tensor) -> None:
    if value.elem != dtypes.TO_ONNX[expected.dtype]:
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


def _spec(value: ir.Value) -> TensorSpec:
    assert isinstance(value, Value)
    assert value.name is not None
    return TensorSpec(value.name, value.elem, tuple(text(d) for d in value.known_dims))
