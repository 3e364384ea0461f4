"""Emits ONNX nodes: hash-consed, typed, and checked against the provider's kernels as they come.

Equal nodes are one node (everything we emit is a pure function of its inputs), a node whose
result is known is not emitted (view chains collapse here), and a type without a kernel is computed
in a wider one where that gives eager's answer. Nothing needs to be optimised afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
import sympy

from ..runtime.errors import LoweringError, Reason, ReasonKind
from ..runtime.program import Kernels, Signature
from .dims import Dim, Dims, broadcast, is_static, may_be_zero, simplify, text
from .dtypes import WIDER, type_name, type_of_name

MS_DOMAIN = "com.microsoft"
FOLDED_ELEMENTS = 1024  # views of constants up to this size are made while lowering
AttrValue: TypeAlias = Any

# Operators whose output has the broadcast shape of their inputs.
ELEMENTWISE = frozenset(
    "Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr "
    "BitwiseXor Cast Ceil Celu Clip Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater "
    "GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log "
    "LogSoftmax Max Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Sigmoid Sign "
    "Sin Sinh Softmax Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor "
    "QuickGelu FastGelu".split()
)


class Declined(Exception):  # noqa: N818 - not an error: it carries a verdict
    """This node cannot be lowered here, found while lowering it; the verdict is `reason`."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Value(ir.Value):
    """An ONNX value whose type is known, and whose dims are known unless None.

    `view` remembers that it is a Transpose or Reshape of another value, so that the next view
    starts from there.
    """

    __slots__ = ("dims", "view")

    def __init__(self, name: str, dtype: ir.DataType, dims: Dims | None) -> None:
        super().__init__(name=name, type=ir.TensorType(dtype))
        self.dims = dims
        self.view: tuple[str, Value, tuple[int, ...]] | None = None

    @property
    def elem(self) -> ir.DataType:
        """The element type."""
        assert self.dtype is not None
        return self.dtype

    @property
    def known_dims(self) -> Dims:
        """The dims, where a rule relies on them."""
        if self.dims is None:
            raise LoweringError(f"a rule relies on the dims of {self.name!r}, which are not known")
        return self.dims

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return len(self.known_dims)


class Builder:
    """One ONNX graph under construction."""

    def __init__(self, opset: int, kernels: Kernels) -> None:
        self.opset = opset
        self.kernels = kernels
        self.nodes: list[ir.Node] = []
        self.initializers: list[Value] = []
        self.prefix = "n"
        self._consed: dict[tuple[Any, ...], tuple[Value, ...]] = {}
        self._constants: dict[tuple[Any, ...], Value] = {}
        self._constant_arrays: dict[Value, np.ndarray[Any, Any]] = {}
        self._plans: dict[tuple[Any, ...], dict[str, ir.DataType]] = {}
        self._dim_sources: dict[Dim, tuple[Value, int]] = {}
        self._dim_values: dict[Dim, Value] = {}
        self._count = 0

    # ---------------------------------------------------------------- values
    def input(self, name: str, dtype: ir.DataType, dims: Dims) -> Value:
        """A graph input; its symbolic dims become sources for shape arithmetic."""
        value = Value(name, dtype, dims)
        self.know_dims(value)
        return value

    def know_dims(self, value: Value) -> None:
        """Let shape arithmetic read the symbolic dims of this value."""
        for axis, dim in enumerate(value.known_dims):
            if not isinstance(dim, int):
                self._dim_sources.setdefault(dim, (value, axis))

    def give_dim(self, dim: Dim, value: Value) -> None:
        """`value` (int64 [1]) holds this dim."""
        self._dim_values[dim] = value

    def knows_dim(self, dim: Dim) -> bool:
        """Can the dim be computed in the graph?"""
        if isinstance(dim, int) or dim in self._dim_values or dim in self._dim_sources:
            return True
        return bool(dim.args) and all(self.knows_dim(simplify(a)) for a in dim.args)

    def constant(self, array: np.ndarray[Any, Any], dtype: ir.DataType | None = None) -> Value:
        """An initializer, shared by content. Sub-byte and 16-bit brain types go through `dtype`."""
        onnx_type = ir.DataType.from_numpy(array.dtype) if dtype is None else dtype
        key = (onnx_type, array.shape, array.tobytes())
        value = self._constants.get(key)
        if value is None:
            value = Value(f"c{len(self._constants)}", onnx_type, tuple(array.shape))
            value.shape = ir.Shape(array.shape)
            value.const_value = ir.Tensor(array, dtype=onnx_type, name=value.name)
            self._constants[key] = value
            self._constant_arrays[value] = array
            self.initializers.append(value)
        return value

    def constant_array(self, value: Value) -> np.ndarray[Any, Any] | None:
        """The content of a constant; None for every other value."""
        return self._constant_arrays.get(value)

    # ---------------------------------------------------------------- nodes
    def emit(
        self,
        domain: str,
        op_type: str,
        inputs: Sequence[Value | None],
        attrs: dict[str, AttrValue],
        outputs: int = 1,
        dtypes: Sequence[ir.DataType] | None = None,
    ) -> tuple[Value, ...]:
        """The outputs of one node; an equal node that exists already is returned instead."""
        args = list(inputs)
        while args and args[-1] is None:
            args.pop()
        frozen = tuple(sorted((k, _freeze(v)) for k, v in attrs.items() if v is not None))
        key = (domain, op_type, tuple(map(id, args)), frozen, outputs)
        found = self._consed.get(key)
        if found is not None:
            return found
        made = self._make(domain, op_type, args, attrs, outputs, dtypes)
        self._consed[key] = made
        return made

    def _make(
        self,
        domain: str,
        op_type: str,
        args: list[Value | None],
        attrs: dict[str, AttrValue],
        outputs: int,
        dtypes: Sequence[ir.DataType] | None,
    ) -> tuple[Value, ...]:
        signature = self.kernels.signature(domain, op_type)
        if signature is None:
            raise Declined(
                Reason(
                    ReasonKind.KERNEL,
                    f"onnxruntime has no operator {domain or 'ai.onnx'}::{op_type} "
                    f"at opset {self.opset}",
                )
            )
        bound = _bind(signature, op_type, args)
        widened = self._widening(domain, op_type, bound, attrs)
        if widened:
            variables = _input_variables(signature, len(args))
            args = [
                a if a is None or v not in widened else self.cast(a, widened[v])
                for a, v in zip(args, variables, strict=True)
            ]
        types = self._output_types(signature, {**bound, **widened}, attrs, outputs, dtypes, op_type)
        dims = None
        if op_type in ELEMENTWISE:
            given = [a for a in args if a is not None]
            shapes = [a.dims for a in given if a.dims is not None]
            if len(shapes) == len(given):
                dims = broadcast(*shapes)
        made = tuple(Value(self._name(), t, dims) for t in types)
        node = ir.Node(
            domain,
            op_type,
            args,
            [_attribute(name, value) for name, value in attrs.items() if value is not None],
            outputs=made,
            name=f"{self.prefix}/{op_type}_{self._count}",
        )
        self.nodes.append(node)
        if not widened:
            return made
        narrow = [
            bound.get(v) if v in widened else None for v in _output_variables(signature, outputs)
        ]
        return tuple(
            value if dtype is None else self.cast(value, dtype)
            for value, dtype in zip(made, narrow, strict=True)
        )

    def _widening(
        self, domain: str, op_type: str, bound: dict[str, ir.DataType], attrs: dict[str, AttrValue]
    ) -> dict[str, ir.DataType]:
        """Type variables to compute in a wider type, {} when the kernel takes them as they are."""
        key = (
            domain,
            op_type,
            tuple(bound.items()),
            attrs.get("to") if op_type == "Cast" else None,
        )
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = self._find_widening(domain, op_type, bound)
        return plan

    def _find_widening(
        self, domain: str, op_type: str, bound: dict[str, ir.DataType]
    ) -> dict[str, ir.DataType]:
        widened: dict[str, ir.DataType] = {}
        while True:
            types = {**bound, **widened}
            pairs = tuple((var, type_name(t)) for var, t in types.items())
            if self.kernels.accepts(domain, op_type, pairs):
                return widened
            further = {var: WIDER[t] for var, t in types.items() if t in WIDER}
            if not further or op_type == "Cast":
                listed = ", ".join(f"{t.name.lower()}" for t in bound.values())
                raise Declined(
                    Reason(
                        ReasonKind.KERNEL,
                        f"no kernel for {domain or 'ai.onnx'}::{op_type}({listed}) "
                        f"at opset {self.opset}",
                    )
                )
            widened.update(further)

    def _output_types(
        self,
        signature: Signature,
        bound: dict[str, ir.DataType],
        attrs: dict[str, AttrValue],
        outputs: int,
        dtypes: Sequence[ir.DataType] | None,
        op_type: str,
    ) -> list[ir.DataType]:
        if dtypes is not None:
            return list(dtypes)
        if op_type == "Cast":
            return [ir.DataType(attrs["to"])]
        types: list[ir.DataType] = []
        for variable in _output_variables(signature, outputs):
            dtype = bound.get(variable) or type_of_name(variable)
            if dtype is None:
                raise LoweringError(
                    f"{op_type}: the rule must pass `dtypes`, outputs do not follow"
                )
            types.append(dtype)
        return types

    def _name(self) -> str:
        self._count += 1
        return f"v{self._count}"

    # ---------------------------------------------------------------- views and casts
    def cast(self, value: Value, dtype: ir.DataType) -> Value:
        """Convert, unless it has the type already. Constants are converted now."""
        if value.elem == dtype:
            return value
        array = self._constant_arrays.get(value)
        if array is not None and array.size <= 16 and dtype != ir.DataType.BFLOAT16:
            return self.constant(array.astype(dtype.numpy()))
        (out,) = self.emit("", "Cast", [value], {"to": int(dtype)})
        return out

    def transpose(self, value: Value, perm: Sequence[int]) -> Value:
        """Permute dimensions; chains compose, an identity is nothing."""
        perm = tuple(perm)
        if value.view is not None and value.view[0] == "transpose":
            _, source, inner = value.view
            return self.transpose(source, tuple(inner[p] for p in perm))
        if perm == tuple(range(len(perm))):
            return value
        array = self._constant_arrays.get(value)
        if array is not None and array.size <= FOLDED_ELEMENTS:
            return self.constant(array.transpose(perm).copy(), value.elem)
        dims = value.known_dims
        target = tuple(dims[p] for p in perm)
        moved = [p for p in perm if dims[p] != 1]
        if moved == sorted(moved):
            return self.reshape(value, target)
        (out,) = self.emit("", "Transpose", [value], {"perm": list(perm)})
        out.dims = target
        out.view = ("transpose", value, perm)
        return out

    def reshape(self, value: Value, dims: Dims) -> Value:
        """The same elements in row-major order under other dims; chains start at their source."""
        if value.view is not None and value.view[0] == "reshape":
            value = value.view[1]
        if value.dims == dims:
            return value
        array = self._constant_arrays.get(value)
        if array is not None and array.size <= FOLDED_ELEMENTS and is_static(dims):
            return self.constant(array.reshape(dims), value.elem)  # type: ignore[arg-type]  # ints
        out = self._emit_reshape(value, dims)
        if out.dims is None:
            out.dims = dims
            out.view = ("reshape", value, ())
        return out

    def _emit_reshape(self, value: Value, dims: Dims) -> Value:
        """A Reshape with a constant target; failing that Unsqueeze or Squeeze; else any target."""
        target = self._constant_target(value, dims)
        if target is None and value.dims is not None:
            for op, longer, shorter in (
                ("Unsqueeze", dims, value.dims),
                ("Squeeze", value.dims, dims),
            ):
                axes = _extra_ones(longer, shorter)
                if axes is not None:
                    (out,) = self.emit("", op, [value, self.shape(axes)], {})
                    return out
        # 0 in a target means "as in the input", unless allowzero says that it means zero.
        zero = 1 if any(may_be_zero(d) for d in dims) and (target is None or 0 in dims) else None
        shape = self.shape(dims) if target is None else target
        (out,) = self.emit("", "Reshape", [value, shape], {"allowzero": zero})
        return out

    def _constant_target(self, value: Value, dims: Dims) -> Value | None:
        """A constant, where one unknown (-1) and dims kept in place (0) can say it."""
        if is_static(dims):
            return self.constant(np.array(dims, dtype=np.int64))
        source = value.dims
        entries: list[int] = []
        for axis, dim in enumerate(dims):
            if dim == 0:
                return None
            if isinstance(dim, int):
                entries.append(dim)
            elif source is not None and axis < len(source) and source[axis] == dim:
                entries.append(0)
            else:
                entries.append(-1)
        # -1 cannot be inferred beside a dim that is zero at run time. Symbols that a guard backs
        # are never zero (0 and 1 are specialised); data-dependent ones can be.
        others = [d for d, e in zip(dims, entries, strict=True) if e != -1]
        if entries.count(-1) > 1 or (-1 in entries and any(may_be_zero(d) for d in others)):
            return None
        return self.constant(np.array(entries, dtype=np.int64))

    def expand(self, value: Value, dims: Dims) -> Value:
        """Broadcast to dims."""
        if value.dims == dims:
            return value
        if 0 in dims and is_static(dims):
            # onnxruntime's optimizer (1.32) drops an Expand from 1 to 0.
            return self.constant(np.empty(dims, value.elem.numpy()), value.elem)  # type: ignore[arg-type]  # ints
        (out,) = self.emit("", "Expand", [value, self.shape(dims)], {})
        out.dims = dims
        return out

    # ---------------------------------------------------------------- shape arithmetic
    def shape(self, dims: Sequence[Dim]) -> Value:
        """int64 [len(dims)] holding the dims: a constant, or a Concat of what must be computed."""
        if is_static(dims):
            return self.constant(np.array(dims, dtype=np.int64))
        parts: list[Value] = []
        run: list[int] = []
        for dim in dims:
            if isinstance(dim, int):
                run.append(dim)
                continue
            if run:
                parts.append(self.constant(np.array(run, dtype=np.int64)))
                run = []
            parts.append(self.dim(dim))
        if run:
            parts.append(self.constant(np.array(run, dtype=np.int64)))
        if len(parts) == 1:
            return parts[0]
        (out,) = self.emit("", "Concat", parts, {"axis": 0})
        out.dims = (len(dims),)
        return out

    def dim(self, dim: Dim) -> Value:
        """int64 [1] holding one dim, computed from the shapes of values in the graph."""
        if isinstance(dim, int):
            return self.constant(np.array([dim], dtype=np.int64))
        if dim not in self._dim_values:
            self._dim_values[dim] = self._compute_dim(dim)
        return self._dim_values[dim]

    def _compute_dim(self, dim: sympy.Expr) -> Value:
        if dim in self._dim_sources:
            value, axis = self._dim_sources[dim]
            (out,) = self.emit("", "Shape", [value], {"start": axis, "end": axis + 1})
            out.dims = (1,)
            return out
        args = [self.dim(simplify(a)) for a in dim.args] if self.knows_dim(dim) else []
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
            out = self._dim_op(op, out, arg)
        return out

    def _dim_op(self, op: str, a: Value, b: Value) -> Value:
        if op == "FloorDiv":
            # ONNX's integer Div truncates; sizes are not negative, but differences of them can be.
            (rest,) = self.emit("", "Mod", [a, b], {})
            (exact,) = self.emit("", "Sub", [a, rest], {})
            (out,) = self.emit("", "Div", [exact, b], {})
        elif op == "CeilDiv":
            (negated,) = self.emit("", "Neg", [a], {})
            (out,) = self.emit("", "Neg", [self._dim_op("FloorDiv", negated, b)], {})
        else:
            (out,) = self.emit("", op, [a, b], {})
        out.dims = (1,)
        return out

    # ---------------------------------------------------------------- the end
    def finish(self, inputs: Sequence[Value], outputs: Sequence[Value], name: str) -> ir.Model:
        """The model of what the outputs need. The builder is spent afterwards."""
        needed: set[ir.Value] = set(outputs)
        kept: list[ir.Node] = []
        for node in reversed(self.nodes):
            if any(o in needed for o in node.outputs):
                kept.append(node)
                needed.update(i for i in node.inputs if i is not None)
            else:
                for index in range(len(node.inputs)):
                    node.replace_input_with(index, None)
        kept.reverse()
        for node in kept:
            for value in node.outputs:
                _write_shape(value)
        for value in inputs:
            _write_shape(value)
        domains = {node.domain for node in kept}
        graph = ir.Graph(
            inputs,
            outputs,
            nodes=kept,
            initializers=[v for v in self.initializers if v in needed],
            opset_imports={"": self.opset, **{d: 1 for d in sorted(domains) if d}},
            name=name,
        )
        return ir.Model(graph, ir_version=10, producer_name="dynamo-onnx")


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


def _write_shape(value: ir.Value) -> None:
    if isinstance(value, Value) and value.dims is not None and value.shape is None:
        value.shape = ir.Shape([text(d) for d in value.dims])


def _extra_ones(longer: Dims, shorter: Dims) -> list[int] | None:
    """The axes of size 1 that `longer` has beyond `shorter`; None if they differ otherwise."""
    axes: list[int] = []
    at = 0
    for axis, dim in enumerate(longer):
        if at < len(shorter) and shorter[at] == dim:
            at += 1
        elif dim == 1:
            axes.append(axis)
        else:
            return None
    return axes if at == len(shorter) else None


def _input_variables(signature: Signature, count: int) -> list[str]:
    formal = signature.inputs
    if count > len(formal) and not signature.variadic:
        raise LoweringError(f"{count} inputs for an operator of {len(formal)}")
    return [formal[min(i, len(formal) - 1)] for i in range(count)]


def _output_variables(signature: Signature, count: int) -> list[str]:
    formal = signature.outputs
    if count > len(formal) and not signature.variadic_outputs:
        raise LoweringError(f"{count} outputs from an operator of {len(formal)}")
    return [formal[min(i, len(formal) - 1)] for i in range(count)]


def _bind(
    signature: Signature, op_type: str, args: Sequence[Value | None]
) -> dict[str, ir.DataType]:
    """Type variables of the operator as these inputs bind them."""
    bound: dict[str, ir.DataType] = {}
    if signature.mixed:
        return bound
    for arg, variable in zip(args, _input_variables(signature, len(args)), strict=True):
        if arg is None:
            continue
        wanted = bound.get(variable) or type_of_name(variable) or arg.elem
        if wanted != arg.elem:
            raise LoweringError(
                f"{op_type}: input {arg.name!r} is {arg.elem.name}, {variable} is {wanted.name}"
            )
        if type_of_name(variable) is None:
            bound[variable] = arg.elem
    return bound


def _freeze(value: AttrValue) -> object:
    if isinstance(value, (list, tuple)):
        return tuple(value)
    if isinstance(value, ir.Tensor):
        return (value.dtype, tuple(value.shape), value.tobytes())
    if isinstance(value, ir.Graph):
        return id(value)
    return (type(value).__name__, value)


def _attribute(name: str, value: AttrValue) -> ir.Attr:
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
