"""Python values as ONNX attributes."""

from __future__ import annotations

from typing import Any, TypeAlias

import onnx_ir as ir

from ..runtime.errors import LoweringError

AttrValue: TypeAlias = Any


def freeze_attribute(value: AttrValue) -> object:
    """A hashable form: equal attributes of one operator have equal forms."""
    if isinstance(value, (list, tuple)):
        return tuple(value)
    if isinstance(value, ir.Tensor):
        return (value.dtype, tuple(value.shape), value.tobytes())
    if isinstance(value, ir.Graph):
        return id(value)
    return (type(value).__name__, value)


def make_attribute(name: str, value: AttrValue) -> ir.Attr:
    """A Python value as an ONNX attribute; bools are ints, as in ONNX."""
    if isinstance(value, (bool, int)):
        return ir.AttrInt64(name, int(value))
    if isinstance(value, float):
        return ir.AttrFloat32(name, value)
    if isinstance(value, str):
        return ir.AttrString(name, value)
    if isinstance(value, (list, tuple)):
        if any(isinstance(v, float) for v in value):
            return ir.AttrFloat32s(name, [float(v) for v in value])
        if all(isinstance(v, str) for v in value) and value:
            return ir.AttrStrings(name, list(value))
        return ir.AttrInt64s(name, [int(v) for v in value])
    if isinstance(value, ir.Tensor):
        return ir.AttrTensor(name, value)
    if isinstance(value, ir.Graph):
        return ir.AttrGraph(name, value)
    raise LoweringError(f"attribute {name!r} of type {type(value).__name__}")
