"""Which execution provider took which node of a program.

Ref: `session.record_ep_graph_assignment_info`; onnxruntime notes it after its basic optimizations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import onnxruntime as ort

from .errors import SessionError
from .program import Program
from .providers import CPU, ProviderChoice, memory_of

RECORDING = {"session.record_ep_graph_assignment_info": "1"}


@dataclass(frozen=True, slots=True)
class Placed:
    """Nodes of one operator, from one line of the user's, that a provider took.

    Those of `sizes` compute shapes, which is for the CPU whatever the provider.
    """

    provider: str
    op_type: str
    location: str
    sizes: bool
    count: int


@dataclass(frozen=True, slots=True)
class Copied:
    """Tensors that a run copies from one device's memory to another's, by the user's line.

    `source` and `target` are the providers that write and that read them.
    """

    source: str
    target: str
    location: str
    count: int


def is_mixed(providers: Sequence[ProviderChoice]) -> bool:
    """Is there a choice to tell about? The CPU provider alone takes everything."""
    return any(name != CPU for name, _ in providers)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a session computes, and what it copies between devices."""

    placed: tuple[Placed, ...] = ()
    copied: tuple[Copied, ...] = ()


def placement(session: ort.InferenceSession, program: Program) -> Placement:
    """Where the nodes of a session run; nothing where this onnxruntime does not tell."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return Placement()
    sizes = _of_sizes(program.model.graph)
    counted: Counter[tuple[str, str, str, bool]] = Counter()
    providers: dict[str | None, str] = {}
    for subgraph in session.get_provider_graph_assignment_info():
        for node in subgraph.get_nodes():
            prefix, _, _ = node.name.rpartition("/")
            op_type = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            location = program.locations.get(prefix, "")
            counted[subgraph.ep_name, op_type, location, node.name in sizes] += 1
            providers[node.name] = subgraph.ep_name
    placed = tuple(Placed(*key, count) for key, count in counted.items())
    return Placement(placed, tuple(_copied(program, providers, sizes)))


def _copied(
    program: Program, providers: Mapping[str | None, str], sizes: set[str | None]
) -> Iterator[Copied]:
    """What passes between providers of different memory, each tensor once per reader's memory.

    A node that onnxruntime has fused with others has a name of its own, and its edges are unknown.
    """
    counted: Counter[tuple[str, str, str]] = Counter()
    for node in program.model.graph:
        source = providers.get(node.name)
        if source is None or node.name in sizes:
            continue
        prefix, _, _ = (node.name or "").rpartition("/")
        for value in node.outputs:
            readers = {providers.get(use.node.name) for use in value.uses()} - {None}
            elsewhere = {memory_of(reader): reader for reader in readers if reader is not None}
            elsewhere.pop(memory_of(source), None)
            for target in elsewhere.values():
                counted[source, target, program.locations.get(prefix, "")] += 1
    return (Copied(*key, count) for key, count in counted.items())


def _of_sizes(graph: ir.Graph) -> set[str | None]:
    """The names of the nodes that compute with the shapes of tensors alone."""
    names: set[str | None] = set()
    values: set[ir.Value | None] = set()
    for node in graph:
        inputs = [
            value for value in node.inputs if value is not None and not value.is_initializer()
        ]
        if node.op_type in ("Shape", "Size") or (inputs and values.issuperset(inputs)):
            names.add(node.name)
            values.update(node.outputs)
    return names


def refuse_strays(placed: Sequence[Placed], providers: Sequence[ProviderChoice]) -> None:
    """SessionError where nodes went to the CPU provider that another one was to compute."""
    strays = [p for p in placed if p.provider == CPU and not p.sizes]
    if strays:
        lines = [f"{p.count} × {p.op_type} at {p.location or 'an unknown line'}" for p in strays]
        more = f"; and {len(lines) - 5} more" if len(lines) > 5 else ""
        raise SessionError(
            f"require_provider: {providers[0][0]} does not take {'; '.join(lines[:5])}{more}"
        )
