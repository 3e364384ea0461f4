"""Objects with tensors in them that `torch.export` does not know: caches, most of all.

It takes and returns trees of lists, dicts and classes that were registered with pytree. Others are
registered here, by their attributes, and stay so: what was exported refers to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ..torch_private import pytree

_PLAIN = (bool, int, float, str, bytes, type(None))


@dataclass(frozen=True, slots=True)
class _Rest:
    """The attributes of an object without tensors; two are the same structure if these are equal.

    Of those that are no plain values, any will do.
    """

    names: tuple[str, ...]
    plain: Mapping[str, object]
    others: Mapping[str, object] = field(compare=False)


def register_objects(value: Any) -> None:  # noqa: ANN401 - any tree
    """Let pytree take apart what it does not know in this tree, if there are tensors in it."""
    for leaf in pytree.tree_leaves(value):
        if not hasattr(leaf, "__dict__") or isinstance(leaf, (torch.Tensor, torch.nn.Module, type)):
            continue
        if callable(leaf) or not _has_tensors(leaf, set()):
            continue
        if type(leaf) not in pytree.SUPPORTED_NODES:  # two of one class can be leaves here
            _register(type(leaf))
        register_objects(leaf)


def _has_tensors(value: object, seen: set[int]) -> bool:
    if isinstance(value, torch.Tensor):
        return True
    if isinstance(value, (*_PLAIN, torch.nn.Module, type)) or id(value) in seen:
        return False
    seen.add(id(value))
    leaves = pytree.tree_leaves(value)
    if len(leaves) != 1 or leaves[0] is not value:
        return any(_has_tensors(leaf, seen) for leaf in leaves)
    return any(_has_tensors(item, seen) for item in getattr(value, "__dict__", {}).values())


def _register(kind: type[Any]) -> None:
    def split(value: Any) -> tuple[dict[str, Any], _Rest]:  # noqa: ANN401 - of that class
        inside = {n: v for n, v in vars(value).items() if _has_tensors(v, set())}
        for item in inside.values():
            register_objects(item)
        rest = {n: v for n, v in vars(value).items() if n not in inside}
        plain = {n: v for n, v in rest.items() if isinstance(v, _PLAIN)}
        return inside, _Rest(tuple(inside), plain, {n: rest[n] for n in rest.keys() - plain.keys()})

    def flatten(value: Any) -> tuple[list[Any], _Rest]:  # noqa: ANN401
        inside, rest = split(value)
        return list(inside.values()), rest

    def flatten_with_keys(value: Any) -> tuple[list[tuple[Any, Any]], _Rest]:  # noqa: ANN401
        inside, rest = split(value)
        return [(pytree.GetAttrKey(n), v) for n, v in inside.items()], rest

    def unflatten(items: Any, rest: _Rest) -> Any:  # noqa: ANN401
        made = object.__new__(kind)
        vars(made).update(rest.plain)
        vars(made).update(rest.others)
        vars(made).update(zip(rest.names, items, strict=True))
        return made

    pytree.register_pytree_node(
        kind,
        flatten,
        unflatten,
        serialized_type_name=f"{kind.__module__}.{kind.__qualname__}",
        flatten_with_keys_fn=flatten_with_keys,
    )
