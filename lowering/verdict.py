"""Can this node be lowered here? Reads metadata only; a no carries its Reason."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import torch
import torch.fx
from torch.fx.experimental.symbolic_shapes import statically_known_true

from ..runtime.errors import Reason, ReasonKind
from .absent import ABSENT
from .dtypes import REAL, TO_ONNX
from .region import device_of, inner_graph, is_symbolic, tensors
from .registry import Lowering, Registry
from .torch_private import HigherOrderOperator, OpOverload

# Why nothing is computed on a device; None where it is.
ComputesOn: TypeAlias = Callable[[torch.device], "Reason | None"]


def verdict(
    node: torch.fx.Node, registry: Registry, eager_ops: frozenset[str], computes_on: ComputesOn
) -> Reason | None:
    """None if the node can be lowered, otherwise why not."""
    target = node.target
    if target is operator.getitem:
        return None
    if not isinstance(target, (OpOverload, HigherOrderOperator)):
        return Reason(
            ReasonKind.NO_RULE, f"{getattr(target, '__name__', target)} is not an operator"
        )
    if eager_ops and not eager_ops.isdisjoint(_names(target)):
        return Reason(ReasonKind.OPTION, f"{target} is listed in eager_ops")
    values = list(tensors((node, *node.all_input_nodes)))
    is_complex = any(t.dtype in REAL for t in values)
    lowering = registry.get_complex(target) if is_complex else registry.get(target)
    if lowering is None and is_complex:
        detail = f"ONNX has no complex numbers, and {target} no form in pairs of reals here"
        return Reason(ReasonKind.NO_RULE, detail)
    if lowering is None:
        return _no_rule(target)
    reason = next(filter(None, map(unsupported_tensor, values)), None)
    reason = reason or _misplaced(node, computes_on)
    reason = reason or _in_graphs(node, registry, eager_ops, computes_on)
    reason = reason or _too_large(lowering, node)
    if reason is not None or lowering.supports is None:
        return reason
    return lowering.supports(node)


def _too_large(lowering: Lowering, node: torch.fx.Node) -> Reason | None:
    largest = lowering.largest
    if largest is None:
        return None
    for tensor in tensors(node.all_input_nodes):
        if not statically_known_true(tensor.numel() <= largest):
            return Reason(
                ReasonKind.SEMANTICS,
                f"{node.target} of more than {largest} elements: ONNX has only loops for it, which "
                "take many times what eager takes",
            )
    return None


def _in_graphs(
    node: torch.fx.Node, registry: Registry, eager_ops: frozenset[str], computes_on: ComputesOn
) -> Reason | None:
    """What stands in the way within the graphs that an operator takes as functions."""
    for graph in filter(None, map(inner_graph, node.all_input_nodes)):
        for inner in graph.graph.nodes:
            if inner.op == "call_function" and not is_symbolic(inner):
                reason = verdict(inner, registry, eager_ops, computes_on)
                if reason is not None:
                    return in_graph(inner, reason)
    return None


def in_graph(node: torch.fx.Node, reason: Reason) -> Reason:
    """Why an operator cannot be lowered that takes a graph with this node."""
    return replace(reason, detail=f"it takes a graph with {node.target}: {reason.detail}")


def _names(target: OpOverload | HigherOrderOperator) -> tuple[str, ...]:
    """The names by which `eager_ops` can mean it."""
    if isinstance(target, HigherOrderOperator):
        return (target.name(), f"higher_order.{target.name()}")
    return (str(target), f"{target.namespace}.{target._opname}", target._opname)


def _no_rule(target: OpOverload | HigherOrderOperator) -> Reason:
    if isinstance(target, HigherOrderOperator):
        return Reason(ReasonKind.NO_RULE, f"{target.name()} has no ONNX lowering")
    if torch.Tag.nondeterministic_seeded in target.tags:
        return Reason(ReasonKind.RANDOM, f"{target} draws from torch's generator")
    if target._schema.is_mutable:
        return Reason(ReasonKind.MUTATION, f"{target} writes to its arguments")
    missing = ABSENT.get(target._opname)
    what = f"{target} has no ONNX lowering"
    hint = "register one with dynamo_onnx.lowers"
    return Reason(ReasonKind.NO_RULE, f"ONNX has no {missing}" if missing else what, hint)


def _misplaced(node: torch.fx.Node, computes_on: ComputesOn) -> Reason | None:
    """Why no session computes this where its tensors are.

    Torch itself takes a number from the CPU, a tensor without dimensions, to any device.
    """
    device = device_of(node)
    for tensor in tensors((node, *node.all_input_nodes)):
        number = tensor.device.type == "cpu" and not tensor.dim()
        if tensor.device != device and not number:
            return Reason(
                ReasonKind.DEVICE, f"from {tensor.device} to {device}: torch copies between devices"
            )
    return None if device is None else computes_on(device)


def on_cpu(device: torch.device) -> Reason | None:
    """The `ComputesOn` of a graph for the CPU."""
    if device.type == "cpu":
        return None
    return Reason(ReasonKind.DEVICE, f"a tensor on {device}, and the graph is for the CPU")


def unsupported_tensor(value: torch.Tensor) -> Reason | None:
    """Why ONNX Runtime cannot hold this tensor, if it cannot."""
    if value.dtype not in TO_ONNX and value.dtype not in REAL:
        return Reason(ReasonKind.DTYPE, f"{value.dtype} has no ONNX element type we compute with")
    if value.layout is not torch.strided:
        return Reason(ReasonKind.LAYOUT, f"a tensor of layout {value.layout}")
    if value.is_neg():
        return Reason(ReasonKind.LAYOUT, "a tensor with a lazy negative bit")
    return None
