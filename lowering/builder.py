"""Emits ONNX nodes: hash-consed, typed, and checked against the provider's kernels as they come.

Equal nodes are one node (everything we emit is a pure function of its inputs), a node whose
result is known is not emitted (view chains collapse here), and a type without a kernel is computed
in a wider one where that gives eager's answer. Nothing needs to be optimised afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ..runtime.errors import LoweringError, Reason, ReasonKind
from ..runtime.program import Kernels
from .attributes import AttrValue, freeze_attribute, make_attribute
from .dims import Dims, broadcast, is_static, may_be_zero, simplify, text
from .inference import TypeInference
from .sizes import Sizes
from .value import NeedsOpset, Value

MS_DOMAIN = "com.microsoft"
AS_ASKED = "as asked"  # in an opaque node's `meta`: it is no lowering of ours
FOLDED_ELEMENTS = 1024  # views of constants up to this size are made while lowering

# Operators whose output has the broadcast shape of their inputs.
ELEMENTWISE = frozenset(
    "Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr "
    "BitwiseXor Cast Ceil Celu Clip Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater "
    "GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log "
    "LogSoftmax Max Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Sigmoid Sign "
    "Sin Sinh Softmax Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor "
    "QuickGelu FastGelu".split()
)


class Builder:
    """One ONNX graph under construction."""

    def __init__(self, opset: int, kernels: Kernels) -> None:
        self.opset = opset
        self.sizes = Sizes(self)
        self.nodes: dict[ir.Node, None] = {}  # in order
        self.initializers: list[Value] = []
        self.prefix = "n"
        self.versions: dict[str, int] = {}  # of the domains of opaque nodes
        self._consed: dict[tuple[Any, ...], tuple[Value, ...]] = {}
        self._constants: dict[tuple[Any, ...], Value] = {}
        self._constant_arrays: dict[Value, np.ndarray[Any, Any]] = {}
        self._inference = TypeInference(kernels, opset)
        self._count = 0

    # ---------------------------------------------------------------- values
    def input(self, name: str, dtype: ir.DataType, dims: Dims) -> Value:
        """A graph input; its symbolic dims become sources for shape arithmetic."""
        value = Value(name, dtype, dims)
        self.sizes.learn(value)
        return value

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
    def has_kernel(self, op_type: str, **types: ir.DataType) -> bool:
        """Can a node of ai.onnx be emitted as it is? For rules that have another way."""
        return self._inference.has_kernel(op_type, **types)

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
        frozen = tuple(sorted((k, freeze_attribute(v)) for k, v in attrs.items() if v is not None))
        key = (domain, op_type, tuple(map(id, args)), frozen, outputs)
        found = self._consed.get(key)
        if found is not None:
            return found
        made = self._make(domain, op_type, args, attrs, outputs, dtypes)
        self._consed[key] = made
        return made

    def draw(self, op_type: str, inputs: Sequence[Value], attrs: dict[str, AttrValue]) -> Value:
        """The float32 result of a node that draws random numbers: equal ones are not one node."""
        (made,) = self._make("", op_type, list(inputs), attrs, 1, [ir.DataType.FLOAT])
        return made

    def opaque(
        self,
        domain: str,
        op_type: str,
        inputs: Sequence[Value | None],
        attrs: Mapping[str, AttrValue],
        dtypes: Sequence[ir.DataType],
        *,
        version: int | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> tuple[Value, ...]:
        """The outputs of a node as it was asked for, of which only their types are known.

        No kernel is looked for, and equal nodes are not merged. `version` is that of the domain's
        opset: NeedsOpset for an operator of ai.onnx that is later than the program's.
        """
        domain = "" if domain == "ai.onnx" else domain
        if domain == "":
            if version is not None and version > self.opset:
                detail = f"ai.onnx::{op_type} of opset {version}, the program has {self.opset}"
                raise NeedsOpset(Reason(ReasonKind.KERNEL, detail), version)
        elif self.versions.setdefault(domain, version or 1) != (version or 1):
            raise LoweringError(
                f"{domain}::{op_type} is of version {version or 1}, another operator of the domain "
                f"of version {self.versions[domain]}: a model has one version of a domain"
            )
        made = tuple(Value(self._name(), dtype, None) for dtype in dtypes)
        node = self._append(domain, op_type, inputs, attrs, made)
        node.metadata_props.update(metadata or {})
        node.meta[AS_ASKED] = True
        return made

    def call(
        self,
        domain: str,
        name: str,
        inputs: Sequence[Value],
        dtypes: Sequence[ir.DataType],
        *,
        pure: bool,
    ) -> tuple[Value, ...]:
        """The results of a local function of the model. Equal calls are one, unless it draws."""
        key = (domain, name, tuple(map(id, inputs)), (), len(dtypes))
        found = self._consed.get(key) if pure else None
        if found is None:
            found = tuple(Value(self._name(), dtype, None) for dtype in dtypes)
            self._append(domain, name, inputs, {}, found)
            self._consed[key] = found
        return found

    def _make(
        self,
        domain: str,
        op_type: str,
        args: list[Value | None],
        attrs: dict[str, AttrValue],
        outputs: int,
        dtypes: Sequence[ir.DataType] | None,
    ) -> tuple[Value, ...]:
        typing = self._inference.infer(domain, op_type, args, attrs, outputs, dtypes)
        args = [
            a if a is None or wide is None else self.cast(a, wide)
            for a, wide in zip(args, typing.inputs, strict=True)
        ]
        dims = None
        if op_type in ELEMENTWISE:
            given = [a for a in args if a is not None]
            shapes = [a.dims for a in given if a.dims is not None]
            if len(shapes) == len(given):
                dims = broadcast(*shapes)
        made = tuple(Value(self._name(), t, dims) for t in typing.outputs)
        self._append(domain, op_type, args, attrs, made)
        return tuple(self.cast(v, t) for v, t in zip(made, typing.results, strict=True))

    def _append(
        self,
        domain: str,
        op_type: str,
        inputs: Sequence[Value | None],
        attrs: Mapping[str, AttrValue],
        outputs: Sequence[Value],
    ) -> ir.Node:
        """The node that makes these outputs, behind those that there are."""
        node = ir.Node(
            domain,
            op_type,
            inputs,
            [make_attribute(name, value) for name, value in attrs.items() if value is not None],
            outputs=outputs,
            name=f"{self.prefix}/{op_type}_{self._count}",
        )
        self.nodes[node] = None
        return node

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
        dims = tuple(map(simplify, dims))
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
                    (out,) = self.emit("", op, [value, self.sizes.shape(axes)], {})
                    return out
        # 0 in a target means "as in the input", unless allowzero says that it means zero.
        zero = 1 if any(may_be_zero(d) for d in dims) and (target is None or 0 in dims) else None
        shape = self.sizes.shape(dims) if target is None else target
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
        dims = tuple(map(simplify, dims))
        if value.dims == dims:
            return value
        if 0 in dims and is_static(dims):
            # onnxruntime's optimizer (1.32) drops an Expand from 1 to 0.
            return self.constant(np.empty(dims, value.elem.numpy()), value.elem)  # type: ignore[arg-type]  # ints
        (out,) = self.emit("", "Expand", [value, self.sizes.shape(dims)], {})
        out.dims = dims
        return out

    # ---------------------------------------------------------------- bodies
    def body(
        self,
        parameters: Sequence[tuple[ir.DataType, Dims]],
        make: Callable[..., Iterable[Value]],
    ) -> ir.Graph:
        """The graph that an If, Loop or Scan takes: `make` emits it and returns its outputs.

        What it emits may read every value that exists outside; outside, nothing sees what was
        emitted inside.
        """
        outside, consed = self.nodes, self._consed
        self.nodes, self._consed = {}, dict(consed)
        try:
            with self.sizes.inside():
                formals = [Value(self._name(), dtype, dims) for dtype, dims in parameters]
                for formal in formals:
                    self.sizes.learn(formal)
                outputs: list[Value] = []
                for value in make(*formals):
                    outputs.append(self.own(value, outputs))
            nodes = self.nodes
        finally:
            self.nodes, self._consed = outside, consed
        return ir.Graph(formals, outputs, nodes=_needed(nodes, outputs, formals), name=self._name())

    def own(self, value: Value, taken: Sequence[Value]) -> Value:
        """The value where this graph computes it and it is not `taken`; else an Identity of it."""
        if value not in taken and value.producer() in self.nodes:
            return value
        own = Value(self._name(), value.elem, value.dims)
        self.nodes[ir.Node("", "Identity", [value], outputs=[own])] = None
        return own

    # ---------------------------------------------------------------- the end
    def finish(self, inputs: Sequence[Value], outputs: Sequence[Value], name: str) -> ir.Model:
        """The model of what the outputs need. The builder is spent afterwards."""
        kept = _needed(self.nodes, outputs, inputs)
        read = {value for node in kept for value in _read(node)}
        domains = {inner.domain for node in kept for inner in _with_inner(node)}
        graph = ir.Graph(
            inputs,
            outputs,
            nodes=kept,
            initializers=[v for v in self.initializers if v in read or v in outputs],
            opset_imports={
                "": self.opset,
                **{d: self.versions.get(d, 1) for d in sorted(domains) if d},
            },
            name=name,
        )
        return ir.Model(graph, ir_version=10, producer_name="dynamo-onnx")


def _needed(
    nodes: dict[ir.Node, None], outputs: Sequence[Value], inputs: Sequence[Value]
) -> list[ir.Node]:
    """The nodes that these outputs need, with their shapes written; the others are detached."""
    needed: set[ir.Value | None] = set(outputs)
    kept: list[ir.Node] = []
    for node in reversed(nodes):
        if not needed.isdisjoint(node.outputs):
            kept.append(node)
            needed.update(_read(node))
            continue
        for each in _with_inner(node):
            for index in range(len(each.inputs)):
                each.replace_input_with(index, None)
    kept.reverse()
    for value in (*inputs, *(out for node in kept for out in node.outputs)):
        _write_shape(value)
    return kept


def _with_inner(node: ir.Node) -> Iterator[ir.Node]:
    """The node and those of the bodies that it takes."""
    yield node
    for attribute in node.attributes.values():
        if attribute.type is ir.AttributeType.GRAPH:
            for inner in attribute.as_graph():
                yield from _with_inner(inner)


def _read(node: ir.Node) -> Iterator[ir.Value]:
    """What the node reads, and what its bodies read (their own values are among it)."""
    for each in _with_inner(node):
        yield from (value for value in each.inputs if value is not None)


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
