"""The body of a Loop: elementwise nodes of its own, outside the builder's graph."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
import torch

from ..dims import Dims, text
from ..value import Value


class Step:
    """A body under construction."""

    def __init__(self, prefix: str, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.nodes: list[ir.Node] = []
        self._names = (f"{prefix}.{n}" for n in itertools.count())

    def value(self, dtype: ir.DataType, dims: Dims | None) -> Value:
        """A fresh value; onnxruntime wants the shape of what a Loop hands in."""
        value = Value(next(self._names), dtype, dims)
        if dims is not None:
            value.shape = ir.Shape([text(d) for d in dims])
        return value

    def emit(
        self, op_type: str, *inputs: Value, dtype: ir.DataType | None = None, **attrs: int
    ) -> Value:
        """One node, of the type of its first input unless given."""
        out = self.value(dtype or inputs[0].elem, None)
        if op_type == "Cast":
            attrs["to"] = int(out.elem)
        attributes = [ir.AttrInt64(name, number) for name, number in attrs.items()]
        self.nodes.append(ir.Node("", op_type, list(inputs), attributes, outputs=[out]))
        return out

    def add(self, a: Value, b: Value | float) -> Value:
        """a + b."""
        return self.emit("Add", a, self._value(b, a))

    def sub(self, a: Value | float, b: Value) -> Value:
        """a - b."""
        return self.emit("Sub", self._value(a, b), b)

    def mul(self, a: Value, b: Value | float) -> Value:
        """a * b."""
        return self.emit("Mul", a, self._value(b, a))

    def div(self, a: Value, b: Value) -> Value:
        """a / b."""
        return self.emit("Div", a, b)

    def number(self, number: float, dtype: ir.DataType) -> Value:
        """A 0-d constant; it stands in the body, which initializers of the graph do not reach."""
        out = self.value(dtype, ())
        tensor = ir.Tensor(np.array(number, dtype=dtype.numpy()))
        attributes = [ir.AttrTensor("value", tensor)]
        self.nodes.append(ir.Node("", "Constant", [], attributes, outputs=[out]))
        return out

    def _value(self, operand: Value | float, like: Value) -> Value:
        return operand if isinstance(operand, Value) else self.number(operand, like.elem)
