"""The sum that ends a rotary embedding is one RotaryEmbedding.

Measured on 128 tokens of 9 heads of 64 with 2 threads: six nodes 67 µs, RotaryEmbedding of
[1, 128, 576] 20 µs, which also spares the transposes around it.
"""

from __future__ import annotations

import onnx_ir as ir
import torch

from ..passes.matching import made_by, orders
from ..rule import Rule
from ..value import Value


def as_rotation(cx: Rule, first: Value, second: Value) -> Value | None:
    """x·cos + turned(x)·sin as one node, if `first` and `second` are these products.

    x is [B, H, S, D] in float32, cos and sin [B|1, 1, S, D] of two equal halves each, as they are
    when made from the angles written twice; turned(x) joins the negated second half of x and the
    first.
    Ref: https://onnx.ai/onnx/operators/onnx__RotaryEmbedding.html
    """
    if cx.out.dtype is not torch.float32 or not cx.has_kernel("RotaryEmbedding", T=torch.float32):
        return None
    for straight, turned in ((first, second), (second, first)):
        found = _parts(straight, turned)
        if found is not None:
            return _rotation(cx, *found)
    return None


def _parts(straight: Value, turned: Value) -> tuple[Value, Value, Value] | None:
    """x, cos and sin, of the two products."""
    product, plain = made_by(turned, "Mul"), made_by(straight, "Mul")
    if product is None or plain is None:
        return None
    for joined, sin in orders(product):
        x = _turned_back(joined)
        if x is None or not isinstance(sin, Value):
            continue
        for other, cos in orders(plain):
            if other is x and isinstance(cos, Value) and _fits(x, cos) and _fits(x, sin):
                return x, cos, sin
    return None


def _fits(x: Value, factor: Value) -> bool:
    """Is it [B|1, 1, S, D], of two equal halves in D?"""
    if factor.dims is None or len(factor.dims) != 4 or factor.elem is not x.elem:
        return False
    batch, _, length, size = x.known_dims
    return (
        factor.dims[0] in (1, batch)
        and factor.dims[1:] == (1, length, size)
        and _has_equal_halves(factor)
    )


def _turned_back(joined: ir.Value) -> Value | None:
    """x [B, H, S, D], where this joins the negated second half of its last dim and the first."""
    node = made_by(joined, "Concat")
    if node is None or len(node.inputs) != 2:
        return None
    negated = made_by(node.inputs[0], "Neg")
    if negated is None:
        return None
    second, first = _half(negated.inputs[0]), _half(node.inputs[1])
    if first is None or second is None or first[0] is not second[0]:
        return None
    x = first[0]
    last = node.attributes.get_int("axis", 0) in (-1, 3)
    return x if last and len(x.known_dims) == 4 and (first[1], second[1]) == (0, 1) else None


def _half(value: ir.Value | None) -> tuple[Value, int] | None:
    """Whose half of the last dim this is, and which of the two."""
    node = made_by(value, "Slice") or made_by(value, "Split")
    x = node.inputs[0] if node is not None else None
    if node is None or not isinstance(x, Value) or x.dims is None or not isinstance(value, Value):
        return None
    size = x.dims[-1]
    if not isinstance(size, int) or value.dims != (*x.dims[:-1], size // 2) or size % 2:
        return None
    if node.op_type == "Split":
        return (x, node.outputs.index(value)) if len(node.outputs) == 2 else None
    if len(node.inputs) < 5 or _constant(node.inputs[4]) != 1:
        return None  # every other element is a half as well
    start = _constant(node.inputs[1])
    return (x, start // (size // 2)) if start in (0, size // 2) else None


def _constant(value: ir.Value | None) -> int | None:
    content = None if value is None else value.const_value
    return int(content.numpy().item()) if content is not None and content.size == 1 else None


def _has_equal_halves(value: ir.Value | None) -> bool:
    """Are both halves of the last dim equal, as they are when it is made from one written twice?"""
    node = value.producer() if isinstance(value, Value) else None
    if node is None or not isinstance(value, Value) or value.dims is None:
        return False
    source = node.inputs[0]
    if node.op_type in ("Cos", "Sin", "Cast"):
        return _has_equal_halves(source)
    if node.op_type == "Mul":
        return any(_is_one_number(b) and _has_equal_halves(a) for a, b in orders(node))
    if node.op_type in ("Reshape", "Unsqueeze") and isinstance(source, Value):
        return source.dims is not None and _same_last(source, value) and _has_equal_halves(source)
    if node.op_type == "Concat" and len(node.inputs) == 2:
        last = node.attributes.get_int("axis", 0) in (-1, len(value.dims) - 1)
        return last and node.inputs[0] is node.inputs[1]
    return False


def _same_last(a: Value, b: Value) -> bool:
    return bool(a.known_dims and b.known_dims and a.known_dims[-1] == b.known_dims[-1])


def _is_one_number(value: ir.Value) -> bool:
    return isinstance(value, Value) and value.dims is not None and all(d == 1 for d in value.dims)


def _rotation(cx: Rule, x: Value, cos: Value, sin: Value) -> Value:
    """The node, of x as it lies in memory if that is [B, S, H, D]."""
    batch, heads, length, size = x.known_dims
    assert isinstance(size, int)
    caches = [
        cx.expand(
            cx.slice(cx.reshape(factor, (factor.known_dims[0], length, size)), 2, 0, size // 2),
            (batch, length, size // 2),
        )
        for factor in (cos, sin)
    ]
    packed = packed_heads(cx, x) if isinstance(heads, int) else None
    if packed is None:
        rotated: Value = cx.op.RotaryEmbedding(x, *caches)
        return rotated
    rotated = cx.op.RotaryEmbedding(packed, *caches, num_heads=heads)
    rotated.dims = packed.known_dims
    return cx.transpose(cx.reshape(rotated, (batch, length, heads, size)), (0, 2, 1, 3))


def packed_heads(cx: Rule, x: Value) -> Value | None:
    """[B, S, H*D] if x is a [B, H, S, D] made from it by a transpose, which is saved that way."""
    batch, heads, length, size = x.known_dims
    if not isinstance(heads, int):
        return None
    if length == 1 or heads == 1:
        return cx.reshape(x, (batch, length, heads * size))
    if x.view is None or x.view[0] != "transpose" or x.view[2] != (0, 2, 1, 3):
        return None
    return cx.reshape(x.view[1], (batch, length, heads * size))
