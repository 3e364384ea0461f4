"""Small questions that passes ask of a graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from ..value import Value


def made_by(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node that makes this value, if it is that ai.onnx operator."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op_type and node.domain == "" else None


def number(value: ir.Value | None) -> float | None:
    """The content of a one-element constant."""
    if value is None or value.const_value is None or value.const_value.size != 1:
        return None
    return float(value.const_value.numpy().reshape(-1)[0])


def orders(node: ir.Node) -> Iterator[tuple[ir.Value, ir.Value]]:
    """Both orders of the operands of a commutative operator."""
    a, b = node.inputs
    if a is not None and b is not None:
        yield a, b
        yield b, a


def with_number(node: ir.Node | None) -> tuple[ir.Value, float] | None:
    """`x op c`: the operand and the number, of a commutative operator."""
    if node is not None:
        for x, c in orders(node):
            found = number(c)
            if found is not None:
                return x, found
    return None


def is_product_of(value: ir.Value | None, x: ir.Value, power: int) -> bool:
    """Is it x, multiplied by itself to this power?"""
    if power == 1:
        return value is x
    node = made_by(value, "Mul")
    if node is None:
        return False
    return any(b is x and is_product_of(a, x, power - 1) for a, b in orders(node))


def replace(
    graph: ir.Graph,
    last: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value],
    attributes: Sequence[ir.Attr],
) -> None:
    """Put one node in the place of a chain that ends with `last`."""
    old = last.outputs[0]
    assert isinstance(old, Value)
    new = Value(f"{old.name}_fused", old.elem, old.dims)
    new.shape = old.shape
    node = ir.Node("", op_type, inputs, attributes, outputs=[new], name=f"{last.name}_{op_type}")
    graph.insert_after(last, node)
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
