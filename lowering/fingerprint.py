"""What makes two regions the same program: a list of named entries, hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import onnx_ir
import torch
import torch.fx

from .dims import SymbolNames, dim_of, dims_of
from .region import Region, constant_tensor, inner_graph, items
from .registry import Registry

FORMAT = 1


class Digest(Protocol):
    """A hash under way."""

    def update(self, data: bytes, /) -> object:
        """Take in more."""
        ...


def fingerprint_entries(
    region: Region, *, registry: Registry, settings: Mapping[str, object]
) -> dict[str, str]:
    """Named entries: each can be logged, and each changes the fingerprint.

    Node names, symbol numbers and source lines are noise and stay out.
    """
    names = SymbolNames()
    numbers: dict[torch.fx.Node, str] = {}
    inputs: list[str] = []
    for index, node in enumerate(region.inputs):
        numbers[node] = f"%in{index}"
        inputs.append(_describe(node.meta["val"], names, strides=False))
        inputs += _items(node, names)
    constants = hashlib.sha256()
    lines = _lines(region.nodes, numbers, names, constants)
    outputs = [
        f"{numbers[node]}:{_describe(node.meta['val'], names, strides=True)}"
        for node in region.outputs
    ]
    return {
        "format": str(FORMAT),
        "torch": torch.__version__,
        "onnx_ir": onnx_ir.__version__,
        "rules": str(registry.version),
        **{name: repr(value) for name, value in settings.items()},
        "inputs": "\n".join(inputs),
        "nodes": "\n".join(lines),
        "constants": constants.hexdigest(),
        "outputs": "\n".join(outputs),
    }


def fingerprint(entries: Mapping[str, str]) -> str:
    """sha256 of the entries, hexadecimal."""
    digest = hashlib.sha256()
    for name, value in entries.items():
        digest.update(f"{name}={len(value)}:{value}\0".encode())
    return digest.hexdigest()


def _describe(val: Any, names: SymbolNames, *, strides: bool) -> str:  # noqa: ANN401 - meta["val"]
    if isinstance(val, torch.Tensor):
        dims = [names.canonical(d) for d in dims_of(val.shape)]
        steps = [names.canonical(d) for d in dims_of(val.stride())] if strides else ""
        return f"{val.dtype}{dims}{steps}"
    if isinstance(val, (torch.SymInt, int)) and not isinstance(val, bool):
        return f"size {names.canonical(dim_of(val))}"
    if isinstance(val, (tuple, list)):
        items: Iterable[Any] = val
        return "(" + ", ".join(_describe(v, names, strides=strides) for v in items) + ")"
    return str(type(val).__name__)


def _lines(
    nodes: Iterable[torch.fx.Node],
    numbers: dict[torch.fx.Node, str],
    names: SymbolNames,
    constants: Digest,
) -> list[str]:
    """A line for each node; those of a graph that an operator takes stand before it."""
    lines: list[str] = []
    for node in nodes:
        tensor = constant_tensor(node)
        if tensor is not None:
            constants.update(str(tensor.dtype).encode())
            constants.update(str(tuple(tensor.shape)).encode())
            flat = tensor.detach().contiguous().reshape(-1)
            constants.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
            line = "constant"
        elif node.op == "output":
            line = f"return {_text(node.args, numbers, names)}"
        elif node.op == "placeholder":
            line = f"takes {_describe(node.meta['val'], names, strides=False)}"
        elif node.op == "get_attr":  # a graph, described where an operator takes it
            continue
        else:
            for source in node.all_input_nodes:
                graph = inner_graph(source)
                if graph is not None:
                    numbers[source] = f"graph {source.target}"
                    lines.append(numbers[source])
                    lines += _lines(graph.graph.nodes, numbers, names, constants)
            args = _text(node.args, numbers, names)
            kwargs = _text(node.kwargs, numbers, names)
            result = _describe(node.meta["val"], names, strides=False)
            line = f"{node.target}{args}{kwargs}->{result}"
        numbers[node] = f"%{len(numbers)}"
        lines += [line, *_items(node, names)]
    return lines


def _items(node: torch.fx.Node, names: SymbolNames) -> list[str]:
    """The sizes that are the element of this tensor."""
    return [f"its item is {names.canonical(dim)}" for dim in items(node)]


def _text(arg: object, numbers: dict[torch.fx.Node, str], names: SymbolNames) -> str:
    if isinstance(arg, torch.fx.Node):
        return numbers.get(arg) or _describe(arg.meta["val"], names, strides=False)
    if isinstance(arg, (list, tuple)):
        return "[" + ", ".join(_text(a, numbers, names) for a in arg) + "]"
    if isinstance(arg, dict):
        return "{" + ", ".join(f"{k}: {_text(v, numbers, names)}" for k, v in arg.items()) + "}"
    return repr(arg)
