"""Copies and conversions: what has no effect but on dtype."""

from __future__ import annotations

import torch

from ..registry import lowers
from ..rule import Rule
from ..value import Value

aten = torch.ops.aten
prims = torch.ops.prims


@lowers(aten._to_copy.default)
def to_copy(cx: Rule, self: Value, *_: object) -> Value:
    """self [*A] -> [*A] in the given dtype; ONNX Runtime's Cast converts as ATen does on CPU.

    Integers wrap around, NaN is true, a float beyond the integer's range is undefined in both.
    """
    return cx.cast(self, cx.out.dtype)


@lowers(prims.convert_element_type.default)
def convert_element_type(cx: Rule, a: Value, dtype: torch.dtype) -> Value:
    """a [*A] -> [*A] in dtype."""
    return cx.cast(a, dtype)


@lowers(prims.device_put.default)
def device_put(cx: Rule, a: Value, *_: object) -> Value:
    """a [*A] -> [*A]; another device than the program's never comes here."""
    return a


@lowers(
    aten.alias.default,
    aten.clone.default,
    aten.detach.default,
    aten.lift.default,
    aten.lift_fresh.default,
    aten.lift_fresh_copy.default,
    aten.alias_copy.default,
    aten.detach_copy.default,
)
def copy_of(cx: Rule, self: Value, *_: object) -> Value:
    """self [*A] -> the same elements [*A]; what is owned by whom is decided at the outputs."""
    return self


@lowers(aten.copy.default)
def copy(cx: Rule, self: Value, src: Value, non_blocking: bool) -> Value:
    """self [*A] gives dtype and dims, src [*B] -> its elements, broadcast [*A]."""
    return cx.expand(cx.cast(src, cx.out.dtype), cx.out.dims)
