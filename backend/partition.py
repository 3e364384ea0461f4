"""Splits a graph into regions for ONNX Runtime and nodes for eager PyTorch, in linear time.

A level per node does it. A node is of a kind: eager, or native on one of the devices; with k kinds,
the levels of kind i are those that leave i when divided by k. A node's level is the least of its
kind that is not below any input's. Equal level means one acyclic region: a way out of a region and
back in passes a node of another kind, and so raises the level by k. Executing level by level
respects every dependency.
"""

from __future__ import annotations

import operator
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.fx

from ..lowering.dims import Dim, dim_of, dims_of, simplify
from ..lowering.region import Region, constant_tensor, device_of, inner_graph, is_symbolic
from ..runtime.errors import Reason, ReasonKind
from .torch_private import OpOverload


@dataclass(frozen=True, slots=True)
class Plan:
    """What runs where. `schedule` is every non-region node and region in execution order."""

    regions: tuple[Region, ...]
    eager: tuple[tuple[torch.fx.Node, Reason], ...]
    schedule: tuple[torch.fx.Node | Region, ...]

    @property
    def native(self) -> Counter[str]:
        """How often each overload runs in ONNX Runtime."""
        return Counter(str(n.target) for r in self.regions for n in r.nodes if is_operator(n))


def partition(
    graph: torch.fx.Graph, refused: Mapping[torch.fx.Node, Reason], min_region: int
) -> Plan:
    """Regions of what was not refused.

    A region that is not the whole work and has fewer than `min_region` computing operators is
    refused in turn.
    """
    refused = dict(refused)
    while True:
        kinds = _Kinds(graph, refused)
        levels = _levels(graph, refused, kinds)
        by_level: dict[int, list[torch.fx.Node]] = defaultdict(list)
        for node, level in levels.items():
            if level % kinds.count and _is_native(node, refused):
                by_level[level].append(node)
        small = [
            nodes for nodes in by_level.values() if sum(_computes(n) for n in nodes) < min_region
        ]
        if not small or (len(by_level) == 1 and all(map(_is_check, refused))):
            return _plan(graph, levels, by_level, refused)
        for nodes in small:
            count = sum(_computes(n) for n in nodes)
            reason = Reason(
                ReasonKind.REGION_SIZE,
                f"{count} computing operators between eager ones (min_region={min_region})",
            )
            refused.update((n, reason) for n in nodes if is_operator(n))


def is_operator(node: torch.fx.Node) -> bool:
    """An operator of the graph: what reports count. Sizes, tuple items, trailing views are not."""
    return (
        node.op == "call_function"
        and node.target is not operator.getitem
        and not is_symbolic(node)
        and _TRAILING not in node.meta
    )


_TRAILING = "dynamo_onnx_trailing_view"


def mark_trailing_view(node: torch.fx.Node) -> None:
    """Let torch make this view of a result, behind the regions: no operator to report on."""
    node.meta[_TRAILING] = True


_CHECKS = (
    torch.ops.aten._linalg_check_errors.default,  # noqa: SLF001 - their names
    torch.ops.aten._assert_scalar.default,  # noqa: SLF001
)


def _is_check(node: torch.fx.Node) -> bool:
    """Does it only check numbers known at run time? It computes nothing that ONNX could."""
    target = node.target
    if target is torch.ops.higher_order.with_effects:
        target = node.args[1]
    return target in _CHECKS


_FREE = frozenset(
    "alias alias_copy clone detach detach_copy expand expand_copy lift_fresh permute permute_copy "
    "select slice split split_with_sizes squeeze t t_copy transpose transpose_copy unbind "
    "unsqueeze unsqueeze_copy view view_copy _unsafe_view _reshape_copy as_strided".split()
)


def _computes(node: torch.fx.Node) -> bool:
    """Does the operator do arithmetic worth a session? Views do not."""
    return is_operator(node) and not _is_free(node)


def _is_free(node: torch.fx.Node) -> bool:
    return isinstance(node.target, OpOverload) and node.target._opname in _FREE


def _is_native(node: torch.fx.Node, refused: Mapping[torch.fx.Node, Reason]) -> bool:
    if node.target is operator.getitem and node.op == "call_function":
        return _is_native(node.all_input_nodes[0], refused)
    return is_operator(node) and node not in refused


def _is_float(node: torch.fx.Node) -> bool:
    """Does the node return a float computed at run time?"""
    return isinstance(node.meta.get("val"), torch.SymFloat)


def _is_ordered(node: torch.fx.Node) -> bool:
    """Must this eager node keep its place among its like? Random draws, writes, unknown effects."""
    if not is_operator(node):
        return False
    target = node.target
    if not isinstance(target, OpOverload):
        return True
    return torch.Tag.nondeterministic_seeded in target.tags or target._schema.is_mutable


class _Kinds:
    """The kinds of nodes: 0 is eager, and each device with native nodes has one."""

    def __init__(self, graph: torch.fx.Graph, refused: Mapping[torch.fx.Node, Reason]) -> None:
        self._devices: dict[torch.device | None, int] = {}
        for node in graph.nodes:
            if is_operator(node) and node not in refused:
                self._devices.setdefault(device_of(node), len(self._devices) + 1)
        self.count = max(len(self._devices), 1) + 1

    def least(self, level: int, node: torch.fx.Node | None) -> int:
        """The least level, not below this one, of a native node's kind or (None) of eager."""
        kind = 0 if node is None else self._devices[device_of(node)]
        return level + (kind - level) % self.count

    def has(self, level: int, node: torch.fx.Node) -> bool:
        """Is it a level of this native node's kind?"""
        return level % self.count == self._devices[device_of(node)]


def _levels(
    graph: torch.fx.Graph, refused: Mapping[torch.fx.Node, Reason], kinds: _Kinds
) -> dict[torch.fx.Node, int]:
    levels: dict[torch.fx.Node, int] = {}
    last_ordered = 0
    for node in graph.nodes:
        if node.op in ("placeholder", "output") or (node.op == "get_attr"):
            levels[node] = 0
            continue
        level = max((levels[p] for p in node.all_input_nodes), default=0)
        if _is_float(node):
            levels[node] = kinds.least(level, None)  # made in Python, and fed
        elif is_symbolic(node) or node.target is operator.getitem:
            levels[node] = level  # goes with what it reads
        elif _is_native(node, refused):
            levels[node] = kinds.least(level, node)
        else:
            ordered = _is_ordered(node)
            level = max(level, last_ordered) if ordered else level
            levels[node] = kinds.least(level, None)
            last_ordered = levels[node] if ordered else last_ordered
    _sink_views(graph, refused, kinds, levels)
    return levels


def _sink_views(
    graph: torch.fx.Graph,
    refused: Mapping[torch.fx.Node, Reason],
    kinds: _Kinds,
    levels: dict[torch.fx.Node, int],
) -> None:
    """Move views of inputs to the first region that reads them.

    It then reads the input itself: a weight that a linear layer transposes can be frozen there, and
    is not copied by the first region at each call.
    """
    given: dict[torch.fx.Node, None] = {}
    for node in graph.nodes:
        view = _is_free(node) and _is_native(node, refused)
        if node.op == "placeholder" or (view and all(p in given for p in node.all_input_nodes)):
            given[node] = None
    for node in reversed(given):
        reading = [levels[user] for user in node.users]
        if node.op == "placeholder" or not reading or any(map(is_symbolic, node.users)):
            continue
        if all(kinds.has(level, node) for level in reading):
            levels[node] = min(reading)


def _plan(
    graph: torch.fx.Graph,
    levels: Mapping[torch.fx.Node, int],
    by_level: Mapping[int, list[torch.fx.Node]],
    refused: Mapping[torch.fx.Node, Reason],
) -> Plan:
    order = {node: index for index, node in enumerate(graph.nodes)}
    symbols = _SymbolProviders(graph, levels)
    regions = {
        level: _region(nodes, level, symbols, order) for level, nodes in sorted(by_level.items())
    }
    needed = _needed(graph, regions.values(), refused)
    steps: list[tuple[int, int, torch.fx.Node | Region]] = [
        (levels[node], index, node) for node, index in order.items() if node in needed
    ]
    # A size that is read off a region's result has that region's level, and follows it.
    steps += [(level, -1, region) for level, region in regions.items()]
    steps.sort(key=lambda step: step[:2])
    told = [n for n in graph.nodes if n in refused and is_operator(n) and not _is_check(n)]
    eager = tuple((n, refused[n]) for n in told)
    return Plan(tuple(regions.values()), eager, tuple(step for _, _, step in steps))


def _needed(
    graph: torch.fx.Graph,
    regions: Iterable[Region],
    refused: Mapping[torch.fx.Node, Reason],
) -> set[torch.fx.Node]:
    """Nodes to execute outside the regions.

    Eager operators, and the sizes, constants and tuple items that they, a region or the caller
    read. What only the inside of a region reads is not among them.
    """
    done = {node for region in regions for node in region.nodes if node.op == "call_function"}
    wanted = [n for n in graph.nodes if n in refused or n.op == "output"]
    wanted += [node for region in regions for node in region.inputs]
    needed: set[torch.fx.Node] = set()
    while wanted:
        node = wanted.pop()
        if node in done or node.op == "placeholder":
            continue
        done.add(node)
        wanted.extend(node.all_input_nodes)
        if node.op != "output":
            needed.add(node)
    return needed


def _region(
    nodes: Iterable[torch.fx.Node],
    level: int,
    symbols: _SymbolProviders,
    order: Mapping[torch.fx.Node, int],
) -> Region:
    computing = list(nodes)
    inside = set(computing)
    constants: dict[torch.fx.Node, None] = {}
    inputs: dict[torch.fx.Node, None] = {}
    for node in computing:
        for source in node.all_input_nodes:
            if source in inside or inner_graph(source) is not None:
                continue
            if is_symbolic(source) and not _is_float(source):
                continue  # sizes are read off inputs, or fed where none has them
            if constant_tensor(source) is not None:
                constants[source] = None
            else:
                inputs[source] = None
    outputs = tuple(
        n
        for n in computing
        if isinstance(n.meta["val"], torch.Tensor) and any(_reads(u, inside) for u in n.users)
    )
    for node in symbols.needed(computing, outputs, inputs, level):
        inputs[node] = None
    ordered = tuple(sorted(inputs, key=lambda n: order[n]))
    return Region((*constants, *computing), ordered, outputs)


def _reads(user: torch.fx.Node, inside: set[torch.fx.Node]) -> bool:
    return user not in inside


class _SymbolProviders:
    """Which node gives which size symbol, for regions that cannot read it off a tensor."""

    def __init__(self, graph: torch.fx.Graph, levels: Mapping[torch.fx.Node, int]) -> None:
        self._levels = levels
        self._nodes: dict[Dim, torch.fx.Node] = {}
        for node in graph.nodes:
            val = node.meta.get("val")
            if isinstance(val, torch.SymInt) and not isinstance(dim_of(val), int):
                self._nodes.setdefault(dim_of(val), node)

    def needed(
        self,
        nodes: Iterable[torch.fx.Node],
        outputs: Iterable[torch.fx.Node],
        inputs: Iterable[torch.fx.Node],
        level: int,
    ) -> list[torch.fx.Node]:
        """Size nodes to feed into a region of these nodes and tensor inputs.

        Also those that only the strides of its outputs name, such as an input's own.
        """
        if not self._nodes:
            return []
        known = {d for n in inputs for d in _dims(n) if not isinstance(d, int)}
        read = [d for n in outputs for d in dims_of(n.meta["val"].stride())]
        for node in nodes:
            sources = [n for n in node.all_input_nodes if is_symbolic(n)]
            read += [*_dims(node), *(d for s in sources for d in _dims(s))]
        wanted: dict[Dim, None] = {}
        for dim in read:
            if not isinstance(dim, int) and dim not in known:
                wanted.update((simplify(symbol), None) for symbol in dim.free_symbols)
        found: list[torch.fx.Node] = []
        for symbol in wanted:
            node = self._nodes.get(symbol)
            if symbol in known or node is None or self._levels[node] >= level:
                continue
            found.append(node)
        return found


def _dims(node: torch.fx.Node) -> list[Dim]:
    val = node.meta.get("val")
    values = val if isinstance(val, (tuple, list)) else (val,)
    dims: list[Dim] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            dims.extend(dims_of(value.shape))
        elif isinstance(value, torch.SymInt):
            dims.append(dim_of(value))
        elif isinstance(value, torch.SymBool):
            dims.append(value.node.expr)  # a condition on sizes
    return dims
