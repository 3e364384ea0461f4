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

# Their CPU kernels copy the first input unless the output is the same memory.
_SCATTERS = frozenset({"ScatterElements", "ScatterND"})


@dataclass(frozen=True, slots=True)
class Overwrites:
    """Outputs that belong onto an input's memory, by position, and the dtypes of all outputs."""

    inputs: Mapping[int, int]
    dtypes: tuple[torch.dtype, ...]


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

    def tensors(self, fed: Sequence[torch.Tensor], args: Sequence[object]) -> list[torch.Tensor]:
        """One for each output of a run over these contiguous inputs."""
        return [
            fed[place]
            if place is not None
            else torch.empty(read_sizes(shape, args), dtype=dtype, device="cpu")
            for place, shape, dtype in zip(self.places, self.shapes, self.dtypes, strict=True)
        ]


def targets(
    program: Program, wanted: Overwrites | None, fed: Sequence[int], reshaped: Sequence[Reshaped]
) -> Targets | None:
    """What to run into, if some output is to overwrite an input and all shapes are known before.

    `fed` are the positions of the inputs that a run is given.
    """
    if wanted is None or not wanted.inputs:
        return None
    shapes = [sizes_of(spec.shape, program.inputs) for spec in program.outputs]
    for output in reshaped:
        shapes[output.position] = output.written
    known = [shape for shape in shapes if shape is not None]
    if len(known) != len(shapes):
        return None
    places = {position: place for place, position in enumerate(fed)}
    return Targets(
        tuple(
            places[wanted.inputs[position]] if position in wanted.inputs else None
            for position in range(len(shapes))
        ),
        tuple(known),
        wanted.dtypes,
    )
