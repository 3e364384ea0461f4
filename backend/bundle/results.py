"""What a compiled function returns, as an expression; and the arrays that a bundle holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import torch

from ...runtime.bundle.expressions import Expression
from ...runtime.errors import BundleError
from .symbols import Symbol, real


class Weights:
    """The arrays of a bundle: each once, whichever programs and results read it."""

    def __init__(self) -> None:
        self._names: dict[object, str] = {}
        self.tensors: dict[str, torch.Tensor] = {}
        self.kept: set[str] = set()

    def add(self, name: str, tensor: torch.Tensor) -> str:
        """The name of a tensor; this one, if it is new and the name is free."""
        key = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if key not in self._names or tensor.numel() == 0:
            free, number = name, 0
            while free in self.tensors:
                number += 1
                free = f"{name}.{number}"
            self._names[key] = free
            self.tensors[free] = tensor.detach()  # which keeps the memory, and so the key
        return self._names[key]

    def keep(self, name: str, tensor: torch.Tensor) -> str:
        """As `add`, for one that is read and written outside of programs."""
        added = self.add(name, tensor)
        self.kept.add(added)
        return added


def result_expression(value: object, weights: Weights, name: str = "result") -> Expression:
    """What is returned, with the names of classes in place of objects that a bundle cannot make."""
    value = real(value)
    if isinstance(value, Symbol):
        return value.tree_
    if value is None or type(value) in (bool, int, float, str):
        return cast("Expression", value)
    if isinstance(value, torch.Tensor):
        return ["kept", weights.keep(name, value)]
    if isinstance(value, (type, torch.dtype, torch.device, torch.Size)):
        return getattr(value, "__qualname__", str(value))
    if type(value) in (list, tuple):
        items = enumerate(cast("list[object]", value))
        made = [result_expression(item, weights, f"{name}.{i}") for i, item in items]
        return ["list" if type(value) is list else "tuple", *made]
    if type(value) is dict:
        return ["dict", *_pairs(cast("dict[object, object]", value), weights, name)]
    fields = _fields(value)
    if fields is None:
        raise BundleError(f"{name} is a {type(value).__name__}, which a bundle cannot return")
    kind = type(value)
    return ["record", kind.__qualname__, *_pairs(fields, weights, name)]


def _pairs(fields: Mapping[Any, object], weights: Weights, name: str) -> list[Expression]:
    made: list[Expression] = []
    for key, value in fields.items():
        if not isinstance(key, (str, int, float, bool)):
            raise BundleError(f"{name} has a key of the type {type(key).__name__}")
        made += [key, result_expression(value, weights, f"{name}.{key}")]
    return made


def _fields(value: object) -> Mapping[str, object] | None:
    """Those of an object, by name: of a named tuple, a dataclass, a dict with attributes."""
    if isinstance(value, tuple):
        names: tuple[str, ...] | None = getattr(value, "_fields", None)
        return (
            None if names is None else dict(zip(names, cast("tuple[object]", value), strict=True))
        )
    own: dict[str, object] = {
        name: field for name, field in getattr(value, "__dict__", {}).items() if name[:1] != "_"
    }
    if dataclasses.is_dataclass(value):
        names = tuple(field.name for field in dataclasses.fields(value))
        return {name: getattr(value, name, None) for name in names}
    if isinstance(value, Mapping):
        return {**own, **cast("Mapping[str, object]", value)}
    return own or None
