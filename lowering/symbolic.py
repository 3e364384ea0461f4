"""ONNX operators that a model asks for by name: those of `torch.onnx.ops`. For exports alone.

`symbolic` returns zeros in eager, so in a captured frame it stays there.
Ref: https://docs.pytorch.org/docs/stable/onnx_ops.html
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir

from .dims import Dims
from .registry import Registry
from .rule import Rule
from .torch_private import onnx_operator
from .value import Value


def symbolic(
    cx: Rule,
    inputs: Sequence[Value | None],
    op_type: str,
    onnx_dtype: int,
    shape: Dims,
    *encoded: Any,  # noqa: ANN401 - see _emitted
) -> Value:
    """inputs -> a tensor of this dtype and shape."""
    (made,) = _emitted(cx, inputs, op_type, [onnx_dtype], *encoded)
    made.dims = tuple(shape)
    return made


def symbolic_multi_out(
    cx: Rule,
    inputs: Sequence[Value | None],
    op_type: str,
    onnx_dtypes: Sequence[int],
    shapes: Sequence[Dims],
    *encoded: Any,  # noqa: ANN401 - see _emitted
) -> list[Value]:
    """inputs -> tensors of these dtypes and shapes."""
    made = _emitted(cx, inputs, op_type, onnx_dtypes, *encoded)
    for value, dims in zip(made, shapes, strict=True):
        value.dims = tuple(dims)
    return list(made)


def _emitted(
    cx: Rule,
    inputs: Sequence[Value | None],
    op_type: str,
    onnx_dtypes: Sequence[int],
    attr_keys: Sequence[str],
    attr_types: Sequence[str],
    attr_pos: Sequence[Sequence[int]],
    attr_ints: Sequence[int],
    attr_floats: Sequence[float],
    attr_strs: Sequence[str],
    metadata_props_keys: Sequence[str],
    metadata_props_values: Sequence[str],
    domain: str,
    version: int | None,
) -> tuple[Value, ...]:
    """The node. An attribute is part of the list of its type: i, f, s, and is, fs, ss for lists."""
    lists: dict[str, Sequence[Any]] = {"i": attr_ints, "f": attr_floats, "s": attr_strs}
    attrs: dict[str, Any] = {}
    for key, kind, (start, end) in zip(attr_keys, attr_types, attr_pos, strict=True):
        values = list(lists[kind[0]][start:end])
        attrs[key] = values if len(kind) == 2 else values[0]
    return cx.builder.opaque(
        domain,
        op_type,
        list(inputs),
        attrs,
        [ir.DataType(code) for code in onnx_dtypes],
        version=version,
        metadata=dict(zip(metadata_props_keys, metadata_props_values, strict=True)),
    )


def _of_onnx(op_type: str, version: int, tensors: int) -> Callable[..., Any]:
    """The rule of an operator of ai.onnx whose first arguments are tensors, the rest attributes."""

    def rule(cx: Rule, *arguments: Any) -> Any:  # noqa: ANN401 - as the schema has them
        target: Any = cx.node.target
        names = [a.name for a in target._schema.arguments[tensors:]]
        attrs = dict(zip(names, arguments[tensors:], strict=True))
        read = [n.args[1] for n in cx.node.users if n.target is operator.getitem]
        count = max((i for i in read if isinstance(i, int)), default=0) + 1
        made = cx.builder.opaque(
            "",
            op_type,
            arguments[:tensors],
            {
                n: float(v) if n in ("scale", "softcap") and v is not None else v
                for n, v in attrs.items()
            },
            [m.onnx for m in cx.outs[:count]],
            version=version,
        )
        return made[0] if len(cx.outs) == 1 else [*made, *[None] * (len(cx.outs) - count)]

    return rule


def register_symbolic(registry: Registry) -> None:
    """Add them: for programs that need not give what eager gives."""
    for op, rule in {
        onnx_operator("onnx_symbolic::_symbolic", "default"): symbolic,
        onnx_operator("onnx_symbolic::_symbolic_multi_out", "default"): symbolic_multi_out,
        onnx_operator("onnx::RotaryEmbedding", "opset23"): _of_onnx("RotaryEmbedding", 23, 4),
        onnx_operator("onnx::Attention", "opset23"): _of_onnx("Attention", 23, 6),
    }.items():
        registry.register(op, rule)
