"""Floats that a graph computes from sizes or reads off a tensor, in float64 as Python has them.

A captured frame computes them in Python and feeds them; a model has nobody who would.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
import torch.fx

from ..runtime.errors import Reason, ReasonKind
from .builder import Builder
from .dims import dim_of
from .region import READS_ITEM
from .value import Declined, Value

# What Python does with one or two floats; an int among them becomes a float first.
_OPERATORS: Mapping[object, str] = {
    operator.add: "Add",
    operator.sub: "Sub",
    operator.mul: "Mul",
    operator.truediv: "Div",
    operator.pow: "Pow",
    operator.neg: "Neg",
    operator.abs: "Abs",
    abs: "Abs",
    torch.sym_sqrt: "Sqrt",
    torch.sym_max: "Max",
    torch.sym_min: "Min",
    torch.sym_float: "Identity",
}


class Floats:
    """Computes them in one graph. `known` gives the value of a node that has one."""

    def __init__(self, builder: Builder, known: Callable[[torch.fx.Node], object | None]) -> None:
        self._builder = builder
        self._known = known

    def value(self, node: torch.fx.Node) -> Value:
        """float64 []: the float that this node returns."""
        known = self._known(node)
        if isinstance(known, Value):
            return known
        if node.target in READS_ITEM:
            return self._item(node)
        op_type = _OPERATORS.get(node.target)
        if op_type is None:
            raise _declined(f"takes a float that {_name(node.target)} computes at run time")
        operands = [self._operand(arg) for arg in node.args]
        if op_type == "Identity":
            return operands[0]
        (out,) = self._builder.emit("", op_type, operands, {})
        return out

    def _item(self, node: torch.fx.Node) -> Value:
        tensor = self._known(node.all_input_nodes[0])
        if not isinstance(tensor, Value):
            raise _declined("takes an element of a tensor that is not in the graph")
        return self._builder.cast(self._builder.reshape(tensor, ()), ir.DataType.DOUBLE)

    def _operand(self, arg: Any) -> Value:  # noqa: ANN401 - whatever a node takes
        if isinstance(arg, torch.fx.Node):
            val = arg.meta["val"]
            if isinstance(val, torch.SymFloat):
                return self.value(arg)
            if isinstance(val, torch.SymInt):
                size = self._builder.sizes.dim(dim_of(val))
                return self._builder.cast(self._builder.reshape(size, ()), ir.DataType.DOUBLE)
        if isinstance(arg, (int, float)) and not isinstance(arg, bool):
            return self._builder.constant(np.array(float(arg)))
        raise _declined(f"takes a float computed from {arg} at run time")


def _name(target: object) -> str:
    return getattr(target, "__name__", str(target))


def _declined(detail: str) -> Declined:
    return Declined(Reason(ReasonKind.SYMBOLIC, detail))
