"""What makes a program another program, and what does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from dynamo_onnx.lowering.fingerprint import fingerprint, fingerprint_entries
from dynamo_onnx.lowering.ops import registry
from dynamo_onnx.lowering.region import Region, whole

from .harness import trace

SETTINGS: dict[str, object] = {"opset": 23, "providers": ("CPUExecutionProvider",)}
X = torch.ones(3, 4)


def entries(
    fn: Callable[..., Any], *args: Any, dynamic: bool = False, **settings: object
) -> dict[str, str]:
    gm = trace(fn, *args, dynamic=dynamic)
    nodes = [n for n in gm.graph.nodes if n.op in ("call_function", "get_attr")]
    inputs = tuple(
        n
        for n in gm.graph.nodes
        if n.op == "placeholder" and isinstance(n.meta["val"], torch.Tensor)
    )
    (output,) = [n for n in gm.graph.nodes if n.op == "output"]
    region = Region(tuple(nodes), inputs, (output.args[0],))
    return fingerprint_entries(region, registry=registry, settings={**SETTINGS, **settings})


def base(x: torch.Tensor) -> torch.Tensor:
    return torch.ops.aten.add.Tensor(x, 2.0)


NODES = {"nodes"}
EVERYTHING = {"inputs", "nodes", "outputs"}
OTHER_PROVIDER = {"providers": ("CUDAExecutionProvider",)}

# What changes, the function and its input, further arguments, and the entries that must differ.
DIFFERENT: dict[str, tuple[Callable[..., Any], torch.Tensor, dict[str, Any], set[str]]] = {
    "another operator": (lambda x: torch.ops.aten.sub.Tensor(x, 2.0), X, {}, NODES),
    "another number": (lambda x: torch.ops.aten.add.Tensor(x, 3.0), X, {}, NODES),
    "an int for a float": (lambda x: torch.ops.aten.add.Tensor(x, 2), X, {}, NODES),
    "another keyword": (lambda x: torch.ops.aten.add.Tensor(x, 2.0, alpha=2), X, {}, NODES),
    "another dtype": (base, X.double(), {}, EVERYTHING),
    "another shape": (base, torch.ones(3, 5), {}, EVERYTHING),
    "another rank": (base, torch.ones(3), {}, EVERYTHING),
    "symbolic dims": (base, X, {"dynamic": True}, EVERYTHING),
    "another opset": (base, X, {"opset": 24}, {"opset"}),
    "another provider": (base, X, OTHER_PROVIDER, {"providers"}),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_change_changes_the_fingerprint_and_its_own_entries(name: str) -> None:
    fn, x, further, where = DIFFERENT[name]
    original, changed = entries(base, X), entries(fn, x, **further)
    assert {key for key in original if original[key] != changed[key]} == where
    assert fingerprint(original) != fingerprint(changed)


def test_names_lines_and_symbol_numbers_are_noise() -> None:
    def other_name_and_line(tensor: torch.Tensor) -> torch.Tensor:
        renamed = torch.ops.aten.add.Tensor(tensor, 2.0)
        return renamed

    assert entries(base, X) == entries(other_name_and_line, X)
    square, wide = torch.ones(5, 7), torch.ones(9, 6)
    assert entries(base, square, dynamic=True) == entries(base, wide, dynamic=True)


def test_equal_symbols_and_distinct_ones_differ() -> None:
    def fn(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten.mm.default(x, y)

    a = entries(fn, torch.ones(5, 7), torch.ones(7, 5), dynamic=True)
    b = entries(fn, torch.ones(5, 7), torch.ones(7, 9), dynamic=True)
    assert fingerprint(a) != fingerprint(b)


def test_the_wiring_counts() -> None:
    def straight(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten.sub.Tensor(x, y)

    def crossed(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten.sub.Tensor(y, x)

    assert fingerprint(entries(straight, X, X + 1)) != fingerprint(entries(crossed, X, X + 1))


def test_the_tensor_that_a_size_is_read_off_counts() -> None:
    def entries_of(fn: Callable[..., Any]) -> dict[str, str]:
        graph = trace(fn, X, torch.tensor([1, 2]), dynamic=True).graph
        region = whole(graph)
        return fingerprint_entries(region, registry=registry, settings=SETTINGS)

    def reading(place: int) -> Callable[..., Any]:
        def fn(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
            pair = n[0] + 1, n[0] + 2
            count = pair[place].item()
            torch._check(count >= 0)
            torch._check(count <= x.shape[0])
            return torch.cat([x[:count], x * pair[0] * pair[1]])

        return fn

    first, second = entries_of(reading(0)), entries_of(reading(1))
    assert {k for k in first if first[k] != second[k]} == NODES


def test_the_content_of_a_constant_counts() -> None:
    def adding(constant: torch.Tensor) -> dict[str, str]:
        graph = torch.fx.Graph()
        x = graph.placeholder("x")
        c = graph.get_attr("c")
        y = graph.call_function(torch.ops.aten.add.Tensor, (x, c))
        graph.output(y)
        torch.fx.GraphModule({"c": constant}, graph)
        for node in (x, c, y):
            node.meta["val"] = torch.empty(2, device="meta")
        return fingerprint_entries(Region((c, y), (x,), (y,)), registry=registry, settings=SETTINGS)

    one, same, other = (adding(torch.tensor(v)) for v in ([1.0, 2.0], [1.0, 2.0], [1.0, 3.0]))
    assert one == same
    assert {k for k in one if one[k] != other[k]} == {"constants"}


def test_a_changed_rule_changes_the_fingerprint() -> None:
    before = entries(base, X)
    op = torch.ops.aten.add.Tensor
    lowering = registry.get(op)
    assert lowering is not None
    registry.register(op, lowering.rule, lowering.supports, replace=True)
    assert {k for k, v in entries(base, X).items() if before[k] != v} == {"rules"}
