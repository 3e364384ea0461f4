"""Calls of chosen modules, each cut out of the graph into a graph that `invoke_subgraph` takes."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import sympy
import torch
import torch.fx

from ...lowering import dtypes
from ...lowering.dims import Dim, dim_of, dims_of, simplify
from ...lowering.region import attribute, constant_tensor, inner_graph, is_symbolic, tensors
from ...runtime.errors import OptionError

Classes: TypeAlias = "Mapping[str, type[torch.nn.Module]]"  # by name, as the graph has them

WEIGHT = "dynamo_onnx_weight"  # in a placeholder's meta: the name in the state dict
PATH = "dynamo_onnx_path"  # in a graph module's meta: the path of the module that was called

_SIZE = torch.ops.aten.sym_size.int
hop = torch.ops.higher_order


def chosen(option: object, model: object) -> Classes:
    """The classes that `export_modules_as_functions` means; OptionError for anything else."""
    if option is False:
        return {}
    if option is True:
        if not isinstance(model, torch.nn.Module):
            raise OptionError(
                "export_modules_as_functions=True: the modules are known of an nn.Module alone; "
                "name their classes"
            )
        types = {type(m) for m in model.modules()} - {type(model)}
        return {_text(t): t for t in types if not t.__module__.startswith("torch.")}
    given: tuple[Any, ...] = tuple(option) if isinstance(option, Iterable) else (option,)
    for each in given:
        if not (isinstance(each, type) and issubclass(each, torch.nn.Module)):
            raise OptionError(f"export_modules_as_functions: {each!r} is no class of modules")
    return {_text(t): t for t in given}


def check_called(graph: torch.fx.Graph, classes: Classes) -> None:
    """OptionError for a class of which the captured graph has no call."""
    called = {_text(cls) for node in graph.nodes for _, cls in _stack(node).values()}
    for name in classes:
        if name not in called:
            raise OptionError(
                f"export_modules_as_functions: the captured program calls no {name}; it calls "
                f"{', '.join(sorted(called)) or 'no module'}"
            )


def _text(cls: str | type) -> str:
    return cls if isinstance(cls, str) else f"{cls.__module__}.{cls.__qualname__}"


def _stack(node: torch.fx.Node) -> Mapping[str, tuple[str, str | type]]:
    """The calls that a node was traced in: path and class of each module, the outermost first."""
    return node.meta.get("nn_module_stack") or {}


def title(cls: type) -> str:
    """What `invoke_subgraph` names a call of the class."""
    return f"{cls.__module__}::{cls.__name__}"


def cut(
    gm: torch.fx.GraphModule, classes: Classes, weights: Mapping[str, str]
) -> torch.fx.GraphModule:
    """A copy of the graph with each call of these classes as `invoke_subgraph`, nested ones too.

    `weights` has the name in the state dict by that of the placeholder. A call whose results come
    back to it by way of others, or that takes or returns other than real tensors and sizes, stays
    as it is.
    """
    graph = torch.fx.Graph()
    graph.output(graph.graph_copy(gm.graph, {}))
    for node in graph.find_nodes(op="placeholder"):
        if node.name in weights:
            node.meta[WEIGHT] = weights[node.name]
    made = torch.fx.GraphModule(gm, graph)
    _cut_calls(made, classes, None)
    return made


@dataclass(frozen=True, slots=True)
class _Call:
    """The nodes of one call of a module, under `key` in their module stacks."""

    key: str
    path: str
    cls: type
    nodes: list[torch.fx.Node]


def _cut_calls(owner: torch.fx.GraphModule, classes: Classes, within: str | None) -> None:
    # Backwards, so that the sizes which one call reads off another's results are gone by then.
    for index, call in enumerate(reversed(_calls(owner.graph, classes, within))):
        _Cut(owner, call).make(f"call_{index}", classes)


def _calls(graph: torch.fx.Graph, classes: Classes, within: str | None) -> list[_Call]:
    """The outermost calls of these classes within a call, or within the model."""
    calls: dict[str, _Call] = {}
    of: dict[torch.fx.Node, _Call] = {}
    for node in graph.nodes:
        if node.op != "call_function" or is_symbolic(node):
            continue
        source = node.args[0] if node.target is operator.getitem else None
        call = _call(node, classes, within, calls) if source is None else of.get(source)
        if call is not None:
            of[node] = call
            call.nodes.append(node)
    return list(calls.values())


def _call(
    node: torch.fx.Node, classes: Classes, within: str | None, calls: dict[str, _Call]
) -> _Call | None:
    inside = within is None
    for key, (path, cls) in _stack(node).items():
        if inside and _text(cls) in classes:
            return calls.setdefault(key, _Call(key, path, classes[_text(cls)], []))
        inside = inside or key == within
    return None


class _Cut:
    """One call that is cut out of its graph."""

    def __init__(self, owner: torch.fx.GraphModule, call: _Call) -> None:
        self._owner = owner
        self._graph = owner.graph
        self._call = call
        self._nodes = sorted(call.nodes)
        self._inside = set(self._nodes)
        self._moved: dict[torch.fx.Node, None] = {}  # what reads results and stands before the end
        self._dead: set[torch.fx.Node] = set()  # sizes that nothing else reads
        self._inner = torch.fx.Graph()
        self._env: dict[torch.fx.Node, torch.fx.Node] = {}
        self._operands: dict[torch.fx.Node, torch.fx.Node] = {}  # and their placeholders
        self._sizes: dict[Dim, torch.fx.Node] = {}
        self._attributes: dict[str, Any] = {}
        self._last: torch.fx.Node | None = None

    def make(self, name: str, classes: Classes) -> None:
        """Put `invoke_subgraph` in the place of the call's nodes, if it can be."""
        if not self._find_moved():
            return
        for node in self._nodes:
            self._env[node] = self._inner.node_copy(node, self._in)
        self._find_dead()
        gone = self._inside | self._dead
        outputs = [n for n in self._nodes if not gone.issuperset(n.users)]
        self._inner.output(tuple(self._env[o] for o in outputs))
        read = [n for n in self._env if is_symbolic(n)]
        if not outputs or not all(map(_is_plain, (*self._operands, *outputs, *read))):
            return
        self._take_sizes()
        module = torch.fx.GraphModule(self._attributes, self._inner)
        module.meta[PATH] = self._call.path
        _cut_calls(module, classes, self._call.key)
        self._owner.add_module(name, module)
        self._replace(name, outputs)

    def _find_moved(self) -> bool:
        """Note what depends on the call's results; False if the call reads any of that.

        A size of a result is no obstacle: it is computed inside as well.
        """
        later: set[torch.fx.Node] = set()
        node = self._nodes[0]
        while True:
            sources = node.all_input_nodes
            if node in self._inside:
                if not later.isdisjoint(sources):
                    return False
            elif any(s in self._inside or s in self._moved for s in sources):
                self._moved[node] = None
                if not (is_symbolic(node) and later.isdisjoint(sources)):
                    later.add(node)
            if node is self._nodes[-1]:
                return True
            node = node.next

    def _find_dead(self) -> None:
        for node in reversed(self._moved):
            if is_symbolic(node) and all(u in self._inside or u in self._dead for u in node.users):
                self._dead.add(node)

    def _in(self, node: torch.fx.Node) -> torch.fx.Node:
        """What a node of the graph around is inside."""
        found = self._env.get(node)
        if found is None:
            found = self._env[node] = self._taken(node)
        return found

    def _taken(self, node: torch.fx.Node) -> torch.fx.Node:
        val = node.meta.get("val")
        if not is_symbolic(node):
            own = constant_tensor(node) is not None or inner_graph(node) is not None
            return self._attribute(node) if own else self._placeholder(node)
        if node in self._moved or not (_is_symbol(val) or node.op == "placeholder"):
            return self._inner.node_copy(node, self._in)
        dim = dim_of(val) if isinstance(val, torch.SymInt) else None
        if dim is None:
            return self._placeholder(node)
        if dim not in self._sizes:
            self._sizes[dim] = self._placeholder(node)
        return self._sizes[dim]

    def _attribute(self, node: torch.fx.Node) -> torch.fx.Node:
        name = f"attribute_{len(self._attributes)}"
        self._attributes[name] = attribute(node)
        made = self._inner.get_attr(name)
        made.meta = dict(node.meta)
        return made

    def _placeholder(self, node: torch.fx.Node) -> torch.fx.Node:
        inner, last = self._inner, self._last
        with inner.inserting_before(None) if last is None else inner.inserting_after(last):
            made = inner.placeholder(f"given_{len(self._operands)}")
        made.meta = {key: node.meta[key] for key in ("val", WEIGHT) if key in node.meta}
        self._last = self._operands[node] = made
        return made

    def _drop_sizes(self) -> set[Dim]:
        """Read sizes off the tensors that are given, where one tells. Returns what is known then.

        A size that is given could be one of another call's results, which is no result of that
        call's unless it is needed.
        """
        told: dict[Dim, tuple[torch.fx.Node, int]] = {}
        for placeholder in self._operands.values():
            for tensor in tensors([placeholder]):
                for axis, dim in enumerate(dims_of(tensor.shape)):
                    told.setdefault(dim, (placeholder, axis))
        for node, placeholder in list(self._operands.items()):
            place = told.get(dim_of(node.meta["val"])) if is_symbolic(node) else None
            if place is None:
                continue
            with self._inner.inserting_after(self._last):
                size = self._inner.call_function(_SIZE, place)
            size.meta["val"] = node.meta["val"]
            placeholder.replace_all_uses_with(size)
            del self._operands[node]
            self._inner.erase_node(placeholder)
            self._last = next(reversed(self._operands.values()))
        return {*told, *self._sizes}

    def _take_sizes(self) -> None:
        """Make operands of the sizes that the inside has and its tensors do not tell."""
        known = self._drop_sizes()
        missing: set[Dim] = set()
        for node in self._inner.nodes:
            dims = [d for t in tensors([node]) for d in dims_of(t.shape)]
            if isinstance(node.meta.get("val"), torch.SymInt):
                dims.append(dim_of(node.meta["val"]))
            for dim in dims:
                missing.update(() if isinstance(dim, int) else map(simplify, dim.free_symbols))
        missing -= known
        node = next(iter(self._graph.nodes))
        while missing and node is not self._nodes[0]:
            val = node.meta.get("val")
            sizes = enumerate(val.shape) if isinstance(val, torch.Tensor) else ()
            for axis, size in sizes:
                if _is_symbol(size) and dim_of(size) in missing:
                    missing.discard(dim_of(size))
                    with self._graph.inserting_before(self._nodes[-1]):
                        made = self._graph.call_function(_SIZE, (node, axis))
                    made.meta["val"] = size
                    self._placeholder(made)
            node = node.next

    def _replace(self, name: str, outputs: Sequence[torch.fx.Node]) -> None:
        graph, gone = self._graph, self._inside | self._dead
        with graph.inserting_before(self._nodes[-1].next):
            args = (graph.get_attr(name), title(self._call.cls), *self._operands)
            shown = self._call.path or self._call.cls.__name__
            called = graph.create_node("call_function", hop.invoke_subgraph, args, name=shown)
            called.meta = {"val": tuple(o.meta["val"] for o in outputs)}
            items = [
                graph.call_function(operator.getitem, (called, i)) for i in range(len(outputs))
            ]
        for output, item in zip(outputs, items, strict=True):
            item.meta["val"] = output.meta["val"]
            output.replace_all_uses_with(item, delete_user_cb=lambda user: user not in gone)
        end = items[-1]
        for node in self._moved:
            if node not in self._dead:
                end.append(node)
                end = node
        sources = dict.fromkeys(s for n in gone for s in n.all_input_nodes if s not in gone)
        for node in sorted(gone, reverse=True):
            graph.erase_node(node)
        for output, item in zip(outputs, items, strict=True):
            item.name = output.name
        _erase_unread_sizes(graph, sources)


def _is_plain(node: torch.fx.Node) -> bool:
    """A real tensor or a size?"""
    val = node.meta["val"]
    if isinstance(val, torch.Tensor):
        return val.dtype not in dtypes.REAL
    return isinstance(val, (torch.SymInt, int)) and not isinstance(val, bool)


def _is_symbol(size: object) -> bool:
    """A size that is no expression of others?"""
    return isinstance(size, torch.SymInt) and isinstance(dim_of(size), sympy.Symbol)


def _erase_unread_sizes(graph: torch.fx.Graph, nodes: Iterable[torch.fx.Node]) -> None:
    wanted, erased = list(nodes), set[torch.fx.Node]()
    while wanted:
        node = wanted.pop()
        unread = node.op == "call_function" and is_symbolic(node) and not node.users
        if unread and node not in erased:
            wanted += node.all_input_nodes
            erased.add(node)
            graph.erase_node(node)
