"""Sizes known before a run: numbers, and axes of the program's arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch

from .program import TensorSpec

# A number, or the position of an argument and the axis of it that has this size.
Size: TypeAlias = "int | tuple[int, int]"


def sizes_of(dims: Sequence[int | str], inputs: Sequence[TensorSpec]) -> tuple[Size, ...] | None:
    """Where each dim can be read; None if one cannot be."""
    found: list[Size] = []
    for dim in dims:
        size: Size | None = dim if isinstance(dim, int) else _axis(dim, inputs)
        if size is None:
            return None
        found.append(size)
    return tuple(found)


def read_sizes(sizes: Sequence[Size], args: Sequence[object]) -> list[int]:
    """The sizes in a call with these arguments."""
    values: list[int] = []
    for size in sizes:
        if isinstance(size, int):
            values.append(size)
            continue
        position, axis = size
        tensor = args[position]
        assert isinstance(tensor, torch.Tensor)
        values.append(tensor.shape[axis])
    return values


def _axis(symbol: str, inputs: Sequence[TensorSpec]) -> tuple[int, int] | None:
    for position, spec in enumerate(inputs):
        if symbol in spec.shape:
            return position, spec.shape.index(symbol)
    return None
