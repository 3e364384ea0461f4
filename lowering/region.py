"""A region: a connected piece of an FX graph to be lowered into one program."""

from __future__ import annotations

import linecache
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.fx

SMALL_CONSTANT_ELEMENTS = 1024


@dataclass(frozen=True, slots=True)
class Region:
    """`nodes` in topological order; `inputs` and `outputs` are nodes outside and inside it."""

    nodes: tuple[torch.fx.Node, ...]
    inputs: tuple[torch.fx.Node, ...]
    outputs: tuple[torch.fx.Node, ...]


_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)')


def location(node: torch.fx.Node) -> str:
    """The user's `file:line` that a node comes from; "" when Dynamo recorded none."""
    return _location(node.meta.get("stack_trace") or "")


@lru_cache(maxsize=4096)  # repeated layers share their lines
def _location(trace: str) -> str:
    found = ""
    for match in _FRAME.finditer(trace):
        if "/torch/" not in match["file"] or not found:
            found = f"{match['file']}:{match['line']}"
    return found


def source_line(where: str) -> str:
    """The text of a `file:line`, stripped; "" when the file cannot be read."""
    file, _, line = where.rpartition(":")
    return linecache.getline(file, int(line)).strip() if file else ""


def attribute(node: torch.fx.Node) -> object:
    """What a `get_attr` node stands for; None for every other node."""
    if node.op != "get_attr":
        return None
    owner: object = node.graph.owning_module
    for name in str(node.target).split("."):
        owner = getattr(owner, name)
    return owner


def inner_graph(node: torch.fx.Node) -> torch.fx.GraphModule | None:
    """The graph of a `get_attr` node that an operator takes as a function, if it is one."""
    owner = attribute(node)
    return owner if isinstance(owner, torch.fx.GraphModule) else None


def constant_tensor(node: torch.fx.Node) -> torch.Tensor | None:
    """The tensor of a `get_attr` node that is small enough to live inside a program."""
    owner = attribute(node)
    if not isinstance(owner, torch.Tensor) or owner.numel() > SMALL_CONSTANT_ELEMENTS:
        return None
    plain = type(owner) in (torch.Tensor, torch.nn.Parameter) and owner.layout is torch.strided
    return owner if plain and not owner.is_complex() and owner.device.type == "cpu" else None


def tensors(nodes: Iterable[torch.fx.Node]) -> Iterator[torch.Tensor]:
    """The tensors that nodes return."""
    for node in nodes:
        val = node.meta.get("val")
        if isinstance(val, torch.Tensor):
            yield val
        elif isinstance(val, (tuple, list)):
            yield from (item for item in val if isinstance(item, torch.Tensor))


def is_symbolic(node: torch.fx.Node) -> bool:
    """Does the node return a size (SymInt) or another symbolic number?"""
    return isinstance(
        node.meta.get("val"), (torch.SymInt, torch.SymFloat, torch.SymBool, int, float, bool)
    )
