"""Reshapes at the end of a program, left to torch, for which they are views.

onnxruntime computes an output into memory of its own, so that a Reshape that ends in one copies:
2 ms for the logits of a language model (128 tokens, 50,257 words).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import onnx
import torch

from .program import Program, TensorSpec

# A size: a number, or the argument and the axis of it that it is read off.
Size: TypeAlias = "int | tuple[int, int]"


@dataclass(frozen=True, slots=True)
class Reshaped:
    """An output, by its position, that has to be viewed in its shape."""

    position: int
    shape: tuple[Size, ...]

    def view(self, output: torch.Tensor, args: Sequence[object]) -> torch.Tensor:
        """The output as the program has it. `args` are the program's arguments."""
        sizes: list[int] = []
        for size in self.shape:
            if isinstance(size, int):
                sizes.append(size)
                continue
            argument, axis = size
            tensor = args[argument]
            assert isinstance(tensor, torch.Tensor)
            sizes.append(tensor.shape[axis])
        return output.view(sizes)


def shed_last_reshapes(graph: onnx.GraphProto, program: Program) -> tuple[Reshaped, ...]:
    """Take the Reshapes off the outputs of a program's serialised graph, in place.

    One stays where the sizes cannot be read off the arguments, where something else reads what it
    makes, and where it reshapes no result of the graph's own.
    """
    makers = {name: node for node in graph.node for name in node.output}
    readers = Counter(name for node in graph.node for name in _read(node))
    outputs = Counter(value.name for value in graph.output)
    shed: list[Reshaped] = []
    for position, value in enumerate(graph.output):
        maker = makers.get(value.name)
        if maker is None or (maker.domain, maker.op_type) != ("", "Reshape"):
            continue
        source = maker.input[0]
        shape = _shape(program.outputs[position].shape, program.inputs)
        if shape is None or source not in makers or readers[value.name] or outputs[source]:
            continue
        graph.node.remove(maker)
        outputs[source] += 1
        value.name = source
        value.type.tensor_type.ClearField("shape")
        shed.append(Reshaped(position, shape))
    return tuple(shed)


def _read(node: onnx.NodeProto) -> list[str]:
    """The values that a node or a body of it reads."""
    names = list(node.input)
    for attribute in node.attribute:
        for inner in attribute.g.node:
            names.extend(_read(inner))
        names.extend(value.name for value in attribute.g.output)
    return names


def _shape(dims: Sequence[int | str], inputs: Sequence[TensorSpec]) -> tuple[Size, ...] | None:
    sizes: list[Size] = []
    for dim in dims:
        found: Size | None = dim if isinstance(dim, int) else _axis(dim, inputs)
        if found is None:
            return None
        sizes.append(found)
    return tuple(sizes)


def _axis(symbol: str, inputs: Sequence[TensorSpec]) -> tuple[int, int] | None:
    for position, spec in enumerate(inputs):
        if symbol in spec.shape:
            return position, spec.shape.index(symbol)
    return None
