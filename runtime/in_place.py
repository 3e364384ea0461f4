"""Outputs that a run writes onto the memory of an input: the rows of a cache, and no copy of it.

A tensor that a graph writes to comes back as an output, which torch copies into the tensor. Where
the program scatters rows into an input that nothing else reads, the output is that memory: nothing
is copied, neither by the kernel nor by torch. A run that fails may have written already; so only
writes that give the same when they are done once more are eligible.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from .last_reshapes import Reshaped
from .program import Program
from .sizes import Size, read_sizes, sizes_of
from .tensors import TORCH_TYPES

# Their CPU kernels copy the first input unless the output is the same memory.
_SCATTERS = frozenset({"ScatterElements", "ScatterND"})


def overwritable(program: Program) -> dict[int, int]:
    """Outputs that may be written onto an input: the positions of both.

    Such an output is scattered into the input, without a reduction, and nothing else reads that
    but its shape.
    """
    found: dict[int, int] = {}
    inputs = {value: position for position, value in enumerate(program.model.graph.inputs)}
    outputs = list(program.model.graph.outputs)
    for position, value in enumerate(outputs):
        node = value.producer()
        if node is None or node.domain or node.op_type not in _SCATTERS or outputs.count(value) > 1:
            continue
        target = node.inputs[0]
        reduced = node.attributes.get_string("reduction", "none") != "none"
        if target not in inputs or target.is_graph_output() or reduced:
            continue
        readers = [use.node for use in target.uses() if use.node.op_type != "Shape"]
        if len(readers) == 1:
            found[position] = inputs[target]
    return found


@dataclass(frozen=True, slots=True)
class Targets:
    """The tensors that runs write to: inputs to be overwritten, and new ones of known shapes.

    `places` has, for each output, its place among the fed inputs or None.
    """

    places: tuple[int | None, ...]
    shapes: tuple[tuple[Size, ...], ...]
    dtypes: tuple[torch.dtype, ...]
    devices: tuple[torch.device, ...]

    def tensors(self, fed: Sequence[torch.Tensor], args: Sequence[object]) -> list[torch.Tensor]:
        """One for each output of a run over these contiguous inputs."""
        return [
            fed[place]
            if place is not None
            else torch.empty(read_sizes(shape, args), dtype=dtype, device=device)
            for place, shape, dtype, device in zip(
                self.places, self.shapes, self.dtypes, self.devices, strict=True
            )
        ]


def targets(
    program: Program,
    overwrites: Mapping[int, int],
    fed: Sequence[int],
    reshaped: Sequence[Reshaped],
    devices: Sequence[torch.device],
) -> Targets | None:
    """What to run into, where all shapes are known before.

    `overwrites` are outputs to be written onto an input, by position. `fed` are the positions of
    the inputs that a run is given, `devices` those of the outputs.
    """
    shapes = [sizes_of(spec.shape, program.inputs) for spec in program.outputs]
    for output in reshaped:
        shapes[output.position] = output.written
    known = [shape for shape in shapes if shape is not None]
    if len(known) != len(shapes):
        return None
    places = {position: place for place, position in enumerate(fed)}
    return Targets(
        tuple(
            places[overwrites[position]] if position in overwrites else None
            for position in range(len(shapes))
        ),
        tuple(known),
        tuple(TORCH_TYPES[spec.dtype] for spec in program.outputs),
        tuple(devices),
    )
