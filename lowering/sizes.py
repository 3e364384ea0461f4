"""Shape arithmetic in the graph: dims that are only known at run time, computed from shapes."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import sympy

from ..runtime.errors import Reason, ReasonKind
from .dims import Dim, is_static, simplify, text
from .value import Declined, Value

if TYPE_CHECKING:
    from .builder import Builder

_DIM_OPS = {
    "Add": "Add",
    "Mul": "Mul",
    "Max": "Max",
    "Min": "Min",
    "Mod": "Mod",
    "PythonMod": "Mod",
    "FloorDiv": "FloorDiv",
    "CleanDiv": "FloorDiv",
    "CeilDiv": "CeilDiv",
    "Pow": "Pow",
}


_TO_INT = {"TruncToInt": None, "FloorToInt": "Floor", "CeilToInt": "Ceil", "RoundToInt": "Round"}
_REAL_OPS = {"Mul": "Mul", "Add": "Add", "FloatTrueDiv": "Div", "FloatPow": "Pow"}


class Sizes:
    """The dims of one graph as int64 values, each computed once."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self._sources: dict[Dim, tuple[Value, int]] = {}
        self._values: dict[Dim, Value] = {}
        self._items: dict[Dim, Value] = {}

    @contextmanager
    def inside(self) -> Generator[None]:
        """While a body is made: what is learnt and computed in it is not known outside."""
        outside = self._sources, self._values, self._items
        self._sources, self._values, self._items = (
            dict(self._sources),
            dict(self._values),
            dict(self._items),
        )
        try:
            yield
        finally:
            self._sources, self._values, self._items = outside

    def learn(self, value: Value) -> None:
        """Let shape arithmetic read the symbolic dims of this value."""
        for axis, dim in enumerate(value.known_dims):
            if not isinstance(dim, int):
                self._sources.setdefault(dim, (value, axis))

    def learn_anew(self, value: Value) -> None:
        """Let it read them of this value from now on."""
        for axis, dim in enumerate(value.known_dims):
            if not isinstance(dim, int):
                self._sources[dim] = (value, axis)

    def give(self, dim: Dim, value: Value) -> None:
        """`value` (int64 [1]) holds this dim."""
        self._values[dim] = value

    def offer(self, dim: Dim, value: Value) -> None:
        """The only element of `value`, integer [1...], is this dim."""
        self._items.setdefault(dim, value)

    def knows(self, dim: Dim) -> bool:
        """Can the dim be computed in the graph?"""
        if isinstance(dim, int) or any(
            dim in found for found in (self._values, self._sources, self._items)
        ):
            return True
        if type(dim).__name__ in _TO_INT:
            return self._knows_real(dim.args[0])
        return bool(dim.args) and all(self.knows(simplify(a)) for a in dim.args)

    def shape(self, dims: Sequence[Dim]) -> Value:
        """int64 [len(dims)] holding the dims: a constant, or a Concat of what must be computed."""
        dims = tuple(map(simplify, dims))
        if is_static(dims):
            return self._builder.constant(np.array(dims, dtype=np.int64))
        parts: list[Value] = []
        run: list[int] = []
        for dim in dims:
            if isinstance(dim, int):
                run.append(dim)
                continue
            if run:
                parts.append(self._builder.constant(np.array(run, dtype=np.int64)))
                run = []
            parts.append(self.dim(dim))
        if run:
            parts.append(self._builder.constant(np.array(run, dtype=np.int64)))
        if len(parts) == 1:
            return parts[0]
        (out,) = self._builder.emit("", "Concat", parts, {"axis": 0})
        out.dims = (len(dims),)
        return out

    def dim(self, dim: Dim) -> Value:
        """int64 [1] holding one dim, computed from the shapes of values in the graph."""
        if isinstance(dim, int):
            return self._builder.constant(np.array([dim], dtype=np.int64))
        if dim not in self._values:
            self._values[dim] = self._compute(dim)
        return self._values[dim]

    def _compute(self, dim: sympy.Expr) -> Value:
        if dim in self._sources:
            value, axis = self._sources[dim]
            (out,) = self._builder.emit("", "Shape", [value], {"start": axis, "end": axis + 1})
            out.dims = (1,)
            return out
        if dim in self._items:
            item = self._builder.reshape(self._items[dim], (1,))
            return self._builder.cast(item, ir.DataType.INT64)
        if type(dim).__name__ in _TO_INT and self.knows(dim):
            return self._whole(dim)
        args = [self.dim(simplify(a)) for a in dim.args] if self.knows(dim) else []
        op = _DIM_OPS.get(type(dim).__name__)
        if not args or op is None:
            raise Declined(
                Reason(
                    ReasonKind.SYMBOLIC,
                    f"the size {text(dim)} cannot be computed from the inputs' shapes in ONNX",
                )
            )
        if type(dim).__name__ == "Pow" and not dim.args[1].is_positive:
            raise Declined(
                Reason(ReasonKind.SYMBOLIC, f"the size {text(dim)} has a negative power")
            )
        out = args[0]
        for arg in args[1:]:
            out = self._apply(op, out, arg)
        return out

    def _apply(self, op: str, a: Value, b: Value) -> Value:
        if op == "FloorDiv":
            # ONNX's integer Div truncates; sizes are not negative, but differences of them can be.
            (rest,) = self._builder.emit("", "Mod", [a, b], {})
            (exact,) = self._builder.emit("", "Sub", [a, rest], {})
            (out,) = self._builder.emit("", "Div", [exact, b], {})
        elif op == "CeilDiv":
            (negated,) = self._builder.emit("", "Neg", [a], {})
            (out,) = self._builder.emit("", "Neg", [self._apply("FloorDiv", negated, b)], {})
        else:
            (out,) = self._builder.emit("", op, [a, b], {})
        out.dims = (1,)
        return out

    # ---------------------------------------------------------------- sizes by way of floats
    def _knows_real(self, expr: sympy.Basic) -> bool:
        """Is it a float expression of dims whose rounding does not depend on an order of terms?"""
        if isinstance(expr, (sympy.Float, sympy.Integer)):
            return True
        kind = type(expr).__name__
        if kind in ("ToFloat", "IntTrueDiv"):
            return all(self.knows(simplify(a)) for a in expr.args)
        if kind == "OpaqueUnaryFn_sqrt":
            return self._knows_real(expr.args[0])
        return kind in _REAL_OPS and len(expr.args) == 2 and all(map(self._knows_real, expr.args))

    def _whole(self, dim: sympy.Expr) -> Value:
        """int64 [1] of a float expression made whole (an interpolation by 1.7 has such sizes)."""
        value = self._real(dim.args[0])
        rounding = _TO_INT[type(dim).__name__]
        if rounding is not None:
            (value,) = self._builder.emit("", rounding, [value], {})
        out = self._builder.cast(value, ir.DataType.INT64)
        out.dims = (1,)
        return out

    def _real(self, expr: Any) -> Value:  # noqa: ANN401 - sympy types the parts of an Expr as Basic
        """float64 [1], computed as Python computes it."""
        if isinstance(expr, (sympy.Float, sympy.Integer)):
            return self._builder.constant(np.array([float(expr)]))
        kind = type(expr).__name__
        if kind == "ToFloat":
            return self._builder.cast(self.dim(simplify(expr.args[0])), ir.DataType.DOUBLE)
        if kind == "OpaqueUnaryFn_sqrt":
            (out,) = self._builder.emit("", "Sqrt", [self._real(expr.args[0])], {})
        elif kind == "IntTrueDiv":
            sizes = [self.dim(simplify(a)) for a in expr.args]
            reals = [self._builder.cast(size, ir.DataType.DOUBLE) for size in sizes]
            (out,) = self._builder.emit("", "Div", reals, {})
        else:
            (out,) = self._builder.emit("", _REAL_OPS[kind], [*map(self._real, expr.args)], {})
        out.dims = (1,)
        return out
