"""A region: a connected piece of an FX graph to be lowered into one program."""

from __future__ import annotations

import linecache
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.fx

from .dims import Dim, dim_of, dims_of

SMALL_CONSTANT_ELEMENTS = 1024
# What reads a number off a tensor of one element.
READS_ITEM = (
    torch.ops.aten.item.default,
    torch.ops.aten._local_scalar_dense.default,  # noqa: SLF001 - its name
)


@dataclass(frozen=True, slots=True)
class Region:
    """`nodes` in topological order; `inputs` and `outputs` are nodes outside and inside it."""

    nodes: tuple[torch.fx.Node, ...]
    inputs: tuple[torch.fx.Node, ...]
    outputs: tuple[torch.fx.Node, ...]


def items(node: torch.fx.Node) -> Iterator[Dim]:
    """The sizes that the graph reads off this tensor of one element: `n.item()`."""
    for user in node.users:
        val = user.meta.get("val")
        if user.target in READS_ITEM and isinstance(val, torch.SymInt):
            yield dim_of(val)


def whole(graph: torch.fx.Graph) -> Region:
    """All of a graph, for a model: nobody outside of it computes sizes and floats.

    Tensors of which it reads the sizes alone are inputs too. Sizes are where no tensor has them.
    """
    computing = [n for n in graph.nodes if n.op == "call_function" and not is_symbolic(n)]
    read = {source for node in computing for source in node.all_input_nodes}
    constants = [n for n in graph.nodes if n in read and constant_tensor(n) is not None]
    inside = {*constants, *computing}
    given = [n for n in graph.nodes if _is_given(n, read) and n not in inside]
    known = {dim for tensor in tensors(given) for dim in dims_of(tensor.shape)}
    inputs = [n for n in given if not is_symbolic(n) or dim_of(n.meta["val"]) not in known]
    (output,) = graph.find_nodes(op="output")
    returned = {n for n in output.all_input_nodes if isinstance(n.meta["val"], torch.Tensor)}
    return Region(
        (*constants, *computing), tuple(inputs), tuple(n for n in computing if n in returned)
    )


def _is_given(node: torch.fx.Node, read: Collection[torch.fx.Node]) -> bool:
    if node.op == "get_attr":
        return node in read and inner_graph(node) is None
    if node.op != "placeholder" or all(user.op == "output" for user in node.users):
        return False
    return isinstance(node.meta["val"], (torch.Tensor, torch.SymInt))


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


def device_of(node: torch.fx.Node) -> torch.device | None:
    """Where a node computes: where its results are, or without any what it reads."""
    return next((t.device for t in tensors((node, *node.all_input_nodes))), None)


def is_symbolic(node: torch.fx.Node) -> bool:
    """Does the node return a size (SymInt) or another symbolic number?"""
    return isinstance(
        node.meta.get("val"), (torch.SymInt, torch.SymFloat, torch.SymBool, int, float, bool)
    )
