"""Reshapes at the end of a program, left to torch, for which they are views.

onnxruntime computes an output into memory of its own, so that a Reshape that ends in one copies:
2 ms for the logits of a language model (128 tokens, 50,257 words).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import onnx
import torch

from .program import Program
from .sizes import Size, read_sizes, sizes_of


@dataclass(frozen=True, slots=True)
class Reshaped:
    """An output, by its position, that has to be viewed in its shape.

    `written` is the shape that the session gives it, if that is known before the run.
    """

    position: int
    shape: tuple[Size, ...]
    written: tuple[Size, ...] | None

    def view(self, output: torch.Tensor, args: Sequence[object]) -> torch.Tensor:
        """The output as the program has it. `args` are the program's arguments."""
        return output.view(read_sizes(self.shape, args))


def shed_last_reshapes(graph: onnx.GraphProto, program: Program) -> tuple[Reshaped, ...]:
    """Take the Reshapes off the outputs of a program's serialised graph, in place.

    One stays where the sizes cannot be read off the arguments, and where it reshapes no result of
    the graph's own. For others that read what it makes the node stays: within a run it is no copy.
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
        shape = sizes_of(program.outputs[position].shape, program.inputs)
        if shape is None or source not in makers or outputs[source]:
            continue
        if not readers[value.name]:
            graph.node.remove(maker)
        outputs[source] += 1
        value.name = source
        value.type.tensor_type.ClearField("shape")
        shed.append(Reshaped(position, shape, _written(program, position)))
    return tuple(shed)


def _written(program: Program, position: int) -> tuple[Size, ...] | None:
    """The shape of what the last Reshape reads."""
    reshape = program.model.graph.outputs[position].producer()
    source = None if reshape is None else reshape.inputs[0]
    if source is None or source.shape is None:
        return None
    dims = [dim if isinstance(dim, int) else dim.value or "" for dim in source.shape]
    return sizes_of(dims, program.inputs)


def _read(node: onnx.NodeProto) -> list[str]:
    """The values that a node or a body of it reads."""
    names = list(node.input)
    for attribute in node.attribute:
        for inner in attribute.g.node:
            names.extend(_read(inner))
        names.extend(value.name for value in attribute.g.output)
    return names
