"""The names that the user gives: of inputs, outputs and dynamic dimensions."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch.export import Dim

from ...lowering.conditions import CONDITION
from ...runtime.errors import OptionError
from ..torch_private import pytree

_SYMBOL = re.compile(r"\b[a-zA-Z_]\w*\b(?!\()")


def as_export_takes(dynamic_shapes: Any) -> Any:  # noqa: ANN401 - a tree of the user's
    """The shapes with `Dim.DYNAMIC` where a dimension only has a name: `{0: "batch"}`."""
    if isinstance(dynamic_shapes, str):
        return Dim.DYNAMIC
    if isinstance(dynamic_shapes, dict):
        return {key: as_export_takes(value) for key, value in dynamic_shapes.items()}
    if isinstance(dynamic_shapes, (list, tuple)):
        return type(dynamic_shapes)(map(as_export_takes, dynamic_shapes))
    return dynamic_shapes


def named_dims(
    model: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    dynamic_shapes: Any,  # noqa: ANN401 - a tree of the user's
) -> list[dict[int, str]]:
    """The names of the dimensions of each tensor that is given, in the order of the inputs."""
    forward = model.forward if isinstance(model, torch.nn.Module) else model
    parameters = list(inspect.signature(forward).parameters.values())
    given: list[tuple[str, Any]] = []
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            given.append((parameter.name, tuple(args[len(given) :])))
        elif len(given) < len(args):
            given.append((parameter.name, args[len(given)]))
    rest = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), "")
    of: dict[str, Any] = {}
    if isinstance(dynamic_shapes, Mapping):
        of = {**dict(dynamic_shapes.get(rest) or {}), **dynamic_shapes}
    elif dynamic_shapes is not None:
        names = [name for name, _ in given] + list(kwargs)
        of = dict(zip(names, dynamic_shapes, strict=False))
    return [
        names for name, value in [*given, *kwargs.items()] for names in _leaves(value, of.get(name))
    ]


def _leaves(value: Any, shapes: Any) -> Iterator[dict[int, str]]:  # noqa: ANN401 - trees of the user's
    if isinstance(value, torch.Tensor):
        axes = shapes.items() if isinstance(shapes, Mapping) else enumerate(shapes or ())
        yield {axis: name for axis, dim in axes if (name := _name(dim))}
    elif isinstance(value, Mapping) and isinstance(shapes, Mapping):
        for key, item in value.items():
            yield from _leaves(item, shapes.get(key))
    elif type(value) in pytree.SUPPORTED_NODES:
        items, _ = pytree.SUPPORTED_NODES[type(value)].flatten_fn(value)
        inner = shapes if isinstance(shapes, (list, tuple)) else [None] * len(items)
        for item, own in zip(items, inner, strict=False):
            yield from _leaves(item, own)


def _name(dim: object) -> str:
    """What the user calls a dimension; "" for one without a name, or that is fixed."""
    if isinstance(dim, str):
        return dim
    return dim.__name__ if isinstance(dim, Dim) and dim.__name__.isidentifier() else ""


def rename_dims(
    model: ir.Model, tensors: Sequence[ir.Value], names: Sequence[Mapping[int, str]]
) -> dict[str, str]:
    """Call the model's symbols what the user calls the dimensions of these inputs; by symbol."""
    symbols: dict[str, str] = {}
    for value, axes in zip(tensors, names, strict=True):
        for axis, name in axes.items():
            dim = None if value.shape is None else value.shape[axis]
            if isinstance(dim, ir.SymbolicDim) and dim.value and dim.value.isidentifier():
                symbols.setdefault(dim.value, _unlike(name, symbols))
    for value in _values(model.graph) if symbols else ():
        if value.shape is not None:
            value.shape = ir.Shape(
                [d if isinstance(d, int) else _renamed(d, symbols) for d in value.shape]
            )
    for node in model.graph if symbols else ():
        if node.name and node.name.startswith(CONDITION):
            node.name = in_names(node.name, symbols)
    return symbols


def in_names(text: str, symbols: Mapping[str, str]) -> str:
    """An expression of symbols in the user's names for them."""
    return _SYMBOL.sub(lambda m: symbols.get(m.group(), m.group()), text)


def _unlike(name: str, symbols: Mapping[str, str]) -> str:
    """The name, numbered where another symbol has it: onnxruntime takes one name for one size."""
    taken = {*symbols.values()}
    return next(
        n for i in range(len(taken) + 1) if (n := f"{name}_{i}" if i else name) not in taken
    )


def _renamed(dim: ir.SymbolicDim, symbols: Mapping[str, str]) -> ir.SymbolicDim:
    if dim.value is None:
        return dim
    return ir.SymbolicDim(in_names(dim.value, symbols))


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    for node in graph.all_nodes():
        yield from node.outputs
        for attribute in node.attributes.values():
            if attribute.type is ir.AttributeType.GRAPH:
                yield from attribute.as_graph().inputs


def rename_ports(model: ir.Model, kind: str, names: Sequence[str] | None) -> None:
    """Give inputs or outputs the user's names, the first ones first."""
    if names is None:
        return
    ports = model.graph.inputs if kind == "input" else model.graph.outputs
    wanted = list(names)
    if len(wanted) > len(ports):
        raise OptionError(
            f"{kind}_names has {len(wanted)} names, the model has {len(ports)} {kind}s: "
            f"{', '.join(v.name or '?' for v in ports)}"
        )
    for name in wanted:
        if not isinstance(name, str) or not name:
            raise OptionError(f"{kind}_names: {name!r} is no name")
        if wanted.count(name) > 1:
            raise OptionError(f"{kind}_names has {name!r} twice")
    named = set(ports[: len(wanted)])
    others = {v.name: v for v in (*_values(model.graph), *model.graph.initializers.values())}
    for name in wanted:
        other = others.get(name)
        if other is None or other in named:
            continue
        if other.is_graph_input() or other.is_graph_output() or other.is_initializer():
            raise OptionError(
                f"{kind}_names: {name!r} is the name of another input, output or weight"
            )
        other.name = next(n for i in range(len(others)) if (n := f"{name}_{i}") not in others)
    for index, value in enumerate(ports[: len(wanted)]):
        value.name = f"\0{index}"  # so that names can be exchanged
    for value, name in zip(ports, wanted, strict=False):
        value.name = name
