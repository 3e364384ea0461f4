"""Results that are views: made in torch, behind the regions, where their memory matters.

AOTAutograd leaves it to the compiler that results which share memory in eager share it, and may
read a result's storage offset, or strides that follow from those of an input alone. What ONNX
Runtime returns has memory of its own, which begins with it. So the views between such a result and
the value that owns the memory are copied to the end of the graph, where torch makes them; what
computes with them goes on doing so inside its region.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Iterable

import sympy
import torch
import torch.fx

from ..lowering.dims import dim_of
from .partition import mark_trailing_view
from .torch_private import OpOverload


def separate_views(gm: torch.fx.GraphModule, offset_outputs: Iterable[int]) -> None:
    """Give the results that need it, those at `offset_outputs` too, views of their own."""
    (output,) = [n for n in gm.graph.nodes if n.op == "output"]
    results = output.args[0]
    assert isinstance(results, (list, tuple))
    tensors = [r for r in dict.fromkeys(results) if isinstance(r, torch.fx.Node)]
    wanted = {results[i] for i in offset_outputs if _has_offset(results[i])}
    sizes = _sizes(gm.graph)
    wanted.update(n for n in tensors if not _stride_symbols(n) <= sizes)
    sharing: dict[torch.fx.Node, list[torch.fx.Node]] = defaultdict(list)
    for node in tensors:
        sharing[_owner(node)].append(node)
    for owner, nodes in sharing.items():
        if len(nodes) > 1 and owner.op == "call_function":
            wanted.update(nodes)
    made: dict[torch.fx.Node, torch.fx.Node] = {}
    with gm.graph.inserting_before(output):
        for node in tensors:
            if node in wanted and _is_view(node):
                _again(gm.graph, node, made)
    output.args = (type(results)(made.get(r, r) for r in results),)  # type: ignore[arg-type]  # None
    for node in made:
        _erase_unread(gm.graph, node)


def _again(
    graph: torch.fx.Graph, node: torch.fx.Node, made: dict[torch.fx.Node, torch.fx.Node]
) -> torch.fx.Node:
    """The node's views, copied from their owner on."""
    if not _is_view(node):
        return node
    if node not in made:
        source = _again(graph, _viewed(node), made)
        made[node] = graph.node_copy(node, lambda n: source if n is _viewed(node) else n)
        mark_trailing_view(made[node])
    return made[node]


def _erase_unread(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
    while _is_view(node) and not node.users:
        source = _viewed(node)
        graph.erase_node(node)
        node = source


def _owner(node: torch.fx.Node) -> torch.fx.Node:
    while _is_view(node):
        node = _viewed(node)
    return node


def _viewed(node: torch.fx.Node) -> torch.fx.Node:
    source = node.args[0]
    assert isinstance(source, torch.fx.Node)
    return source


def _sizes(graph: torch.fx.Graph) -> set[sympy.Symbol]:
    """The symbols in the inputs' shapes; others stand in their strides alone."""
    vals = [n.meta.get("val") for n in graph.find_nodes(op="placeholder")]
    shapes = [v.shape for v in vals if isinstance(v, torch.Tensor)]
    return {symbol for shape in shapes for size in shape for symbol in _symbols(size)}


def _stride_symbols(node: torch.fx.Node) -> set[sympy.Symbol]:
    """Of a view of an input, whose strides can be such as only the input's own give."""
    val = node.meta.get("val")
    if not isinstance(val, torch.Tensor) or _owner(node).op != "placeholder":
        return set()
    return {s for stride in val.stride() for s in _symbols(stride)}


def _symbols(size: int | torch.SymInt) -> set[sympy.Symbol]:
    return set() if isinstance(size, int) else set(size.node.expr.free_symbols)


def _has_offset(node: object) -> bool:
    val = node.meta["val"] if isinstance(node, torch.fx.Node) else None
    return isinstance(val, torch.Tensor) and dim_of(val.storage_offset()) != 0


def _is_view(node: torch.fx.Node) -> bool:
    """Does it return a view of its first argument? An item of several views is one as well."""
    if node.op != "call_function":
        return False
    if node.target is operator.getitem:
        return _is_view(_viewed(node))
    return isinstance(node.target, OpOverload) and node.target.is_view
