"""What a rule works with: the context `Rule` (`cx` in rules) and the metadata of its node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, TypeAlias

import ml_dtypes
import numpy as np
import onnx_ir as ir
import sympy
import torch
import torch.fx

from ..runtime.errors import LoweringError, Reason, ReasonKind
from . import dtypes
from .attributes import AttrValue
from .builder import MS_DOMAIN, Builder
from .dims import Dim, Dims, dims_of, is_static, numel
from .dtypes import TO_ONNX
from .value import Complex, Declined, Value

Scalar: TypeAlias = int | float | bool | sympy.Expr
Operand: TypeAlias = Value | Scalar


@dataclass(frozen=True, slots=True)
class Meta:
    """dtype and dims of one tensor of the FX graph."""

    dtype: torch.dtype
    dims: Dims

    @property
    def onnx(self) -> ir.DataType:
        """The dtype as ONNX has it."""
        return dtypes.TO_ONNX[self.dtype]

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return len(self.dims)


class Emit(Protocol):
    """`cx.op.Add(a, b)`: an emitter of one operator."""

    def __call__(
        self,
        *inputs: Value | None,
        outputs: int = 1,
        dtypes: Sequence[ir.DataType] | None = None,
        **attrs: AttrValue,
    ) -> Any:  # noqa: ANN401 - a Value, or a tuple of `outputs` Values
        """Emit it, or return the equal node that exists."""
        ...


class Ops:
    """The operators of one ONNX domain as attributes.

    An input may be None where ONNX allows it; an attribute that is None is left out. With
    `outputs=1` the result is a Value, otherwise a tuple.
    """

    def __init__(self, builder: Builder, domain: str) -> None:
        self._builder = builder
        self._domain = domain

    def __getattr__(self, op_type: str) -> Emit:
        if op_type.startswith("_"):
            raise AttributeError(op_type)

        def emit(
            *inputs: Value | None,
            outputs: int = 1,
            dtypes: Sequence[ir.DataType] | None = None,
            **attrs: AttrValue,
        ) -> Value | tuple[Value, ...]:
            made = self._builder.emit(self._domain, op_type, inputs, attrs, outputs, dtypes)
            return made[0] if outputs == 1 else made

        setattr(self, op_type, emit)
        return emit


class OpaqueOps:
    """The operators of a domain that onnxruntime need not know, as attributes: see `cx.domain`."""

    def __init__(self, cx: Rule, domain: str, version: int | None) -> None:
        self._cx = cx
        self._domain = domain
        self._version = version

    def __getattr__(self, op_type: str) -> Callable[..., Any]:
        if op_type.startswith("_"):
            raise AttributeError(op_type)

        def emit(
            *inputs: Value | None,
            dtypes: Sequence[torch.dtype] | None = None,
            **attrs: AttrValue,
        ) -> Value | tuple[Value, ...]:
            cx = self._cx
            kinds = [m.dtype for m in cx.outs] if dtypes is None else dtypes
            made = cx.builder.opaque(
                self._domain,
                op_type,
                inputs,
                attrs,
                [TO_ONNX[kind] for kind in kinds],
                version=self._version,
            )
            return made[0] if len(made) == 1 else made

        return emit


LowerGraph: TypeAlias = Callable[[torch.fx.GraphModule, Sequence[Operand]], list[Value]]


class Rule:
    """The context in which a rule lowers one node.

    `op` emits ai.onnx operators, `ms` com.microsoft ones; `out` is what the node returns
    (`outs` for several), `args` the node's own arguments with their torch metadata.
    """

    def __init__(self, builder: Builder, lower_graph: LowerGraph) -> None:
        self.builder = builder
        self._lower_graph = lower_graph
        self.op = Ops(builder, "")
        self.ms = Ops(builder, MS_DOMAIN)
        self.node: torch.fx.Node
        self.outs: tuple[Meta, ...] = ()

    def domain(self, name: str, version: int | None = None) -> OpaqueOps:
        """The operators of any domain, such as your own: `cx.domain("my.domain", 2).Gadget(x)`.

        Nothing is checked, since nothing is known of them: whoever runs the program has them.
        `dtypes` are those of the results (by default those that the node returns).
        """
        return OpaqueOps(self, name, version)

    def inline(self, graph: torch.fx.GraphModule, *operands: Operand) -> list[Value]:
        """The results of a graph that the node takes, emitted here, on these operands."""
        node = self.node
        results = self._lower_graph(graph, operands)
        self.enter(node)
        return results

    def body(
        self,
        parameters: Sequence[tuple[torch.dtype, Dims]],
        make: Callable[..., Sequence[Value]],
    ) -> ir.Graph:
        """A graph to be passed to If, Loop or Scan: `make` emits it and returns its outputs.

        It gets a value for each parameter, and may read every value around it.
        """
        return self.builder.body([(dtypes.TO_ONNX[t], dims) for t, dims in parameters], make)

    def loop(
        self,
        count: Dim | Value,
        states: Sequence[Value],
        step: Callable[..., Sequence[Value]],
        rows: Sequence[tuple[torch.dtype, Dims]] = (),
    ) -> list[Value]:
        """The states after up to `count` steps, and what each step gives of `rows`, [steps, *dims].

        step(i, going, *states) -> [going on?, *states, *rows]; i is int64 [].
        Ref: https://onnx.ai/onnx/operators/onnx__Loop.html
        """
        kinds = [(self.dtype(s), s.known_dims) for s in states]
        body = self.body([(torch.int64, ()), (torch.bool, ()), *kinds], step)
        made = self.op.Loop(
            self.as_value(count, torch.int64),
            None,
            *states,
            outputs=len(kinds) + len(rows),
            dtypes=[dtypes.TO_ONNX[t] for t, _ in (*kinds, *rows)],
            body=body,
        )
        values: list[Value] = [made] if isinstance(made, Value) else list(made)
        for value, (_, dims) in zip(values, kinds, strict=False):
            value.dims = dims
        for value, (_, dims) in zip(values[len(kinds) :], rows, strict=True):
            value.dims = None if isinstance(count, Value) else (count, *dims)
        return values

    def stack(self, value: Complex) -> Value:
        """[*A] complex -> [*A, 2] of real and imaginary parts."""
        if value.pairs is not None:
            return value.pairs
        dims = value.known_dims
        parts = [self.unsqueeze(part, len(dims)) for part in (value.re, value.im)]
        pairs: Value = self.op.Concat(*parts, axis=-1)
        pairs.dims = (*dims, 2)
        return pairs

    def unstack(self, pairs: Value) -> Complex:
        """[*A, 2] of real and imaginary parts -> [*A] complex."""
        dims = pairs.known_dims[:-1]
        re, im = (self.op.Gather(pairs, self.const(i, torch.int64), axis=len(dims)) for i in (0, 1))
        re.dims = im.dims = dims
        return Complex(re, im, pairs)

    def enter(self, node: torch.fx.Node) -> None:
        """Turn to the next node."""
        self.node = node
        self.builder.prefix = node.name
        self.outs = metas(node)

    @property
    def out(self) -> Meta:
        """dtype and dims of what the node returns (of its first tensor if it returns several)."""
        return self.outs[0]

    def fake(self, index: int) -> torch.Tensor:
        """The fake tensor of the node's argument at this position, which has strides as well."""
        return _fake(self.node.args[index])

    # ---------------------------------------------------------------- saying no
    def decline(self, detail: str, hint: str = "") -> NoReturn:
        """This call cannot be expressed in ONNX: the node runs in eager, for this reason."""
        raise Declined(Reason(ReasonKind.SEMANTICS, detail, hint))

    def fail(self, detail: str) -> NoReturn:
        """A contradiction: a bug of the rule, or of the graph."""
        raise LoweringError(detail)

    def static(self, dims: Sequence[Dim], what: str) -> tuple[int, ...]:
        """Dims as ints, for a rule that needs them; where they are symbolic it declines `what`."""
        fixed = tuple(d for d in dims if isinstance(d, int))
        if len(fixed) != len(dims):
            self.decline(what)
        return fixed

    # ---------------------------------------------------------------- constants
    def const(self, value: Any, dtype: torch.dtype) -> Value:  # noqa: ANN401 - scalar, list, array
        """A constant of this dtype: a number, a (nested) list of numbers, or an array."""
        if dtype is torch.bfloat16:
            array = np.asarray(value, dtype=np.float32).astype(ml_dtypes.bfloat16)
            return self.builder.constant(array, ir.DataType.BFLOAT16)
        return self.builder.constant(np.asarray(value, dtype=dtypes.TO_ONNX[dtype].numpy()))

    def scalar(self, value: Scalar, dtype: torch.dtype) -> Value:
        """A 0-d value of this dtype from a Python number or a dim expression."""
        if isinstance(value, sympy.Expr):
            one = self.builder.sizes.dim(value)
            return self.cast(self.reshape(one, ()), dtype)
        return self.const(_wrap(value, dtype), dtype)

    def ints(self, values: Sequence[Dim]) -> Value:
        """int64 [len(values)] of ints and dim expressions."""
        return self.builder.sizes.shape(values)

    def zeros(self, dims: Dims, dtype: torch.dtype) -> Value:
        """[*dims] of zeros."""
        return self.full(dims, 0, dtype)

    def ones(self, dims: Dims, dtype: torch.dtype) -> Value:
        """[*dims] of ones."""
        return self.full(dims, 1, dtype)

    def full(self, dims: Dims, value: Operand, dtype: torch.dtype) -> Value:
        """[*dims] of one number; small ones are constants."""
        known = not isinstance(value, (Value, sympy.Expr))
        if known and is_static(dims) and numel(dims) <= 64:
            return self.const(np.full(dims, _wrap(value, dtype)), dtype)
        return self.expand(self.as_value(value, dtype), dims)

    def places(self, size: Dim, rank: int, axis: int) -> Value:
        """0, 1, ... size - 1 along one axis: int64 [1..., size, ...1] of this rank."""
        dims = tuple(size if i == axis else 1 for i in range(rank))
        if isinstance(size, int):
            return self.reshape(self.const(list(range(size)), torch.int64), dims)
        row: Value = self.op.Range(*(self.scalar(n, torch.int64) for n in (0, size, 1)))
        row.dims = (size,)
        return self.reshape(row, dims)

    def number(self, value: Value) -> float | int | bool | None:
        """The content of a one-element constant; None for everything else."""
        array = self.builder.constant_array(value)
        return array.reshape(-1)[0].item() if array is not None and array.size == 1 else None

    # ---------------------------------------------------------------- types
    def has_kernel(self, op_type: str, **types: torch.dtype) -> bool:
        """Can this operator of ai.onnx be emitted, with these dtypes for its type variables?"""
        return self.builder.has_kernel(op_type, **{v: dtypes.TO_ONNX[t] for v, t in types.items()})

    def dtype(self, value: Value) -> torch.dtype:
        """A value's dtype as torch has it."""
        return dtypes.TO_TORCH[value.elem]

    def cast(self, value: Value, dtype: torch.dtype) -> Value:
        """Convert to dtype as torch does; nothing if it has it.

        float -> integer beyond the integer's range is undefined in both; NaN and bool follow C.
        """
        return self.builder.cast(value, dtypes.TO_ONNX[dtype])

    def as_value(self, operand: Operand, dtype: torch.dtype) -> Value:
        """A tensor converted to dtype, or a number as a 0-d constant of dtype."""
        return (
            self.cast(operand, dtype) if isinstance(operand, Value) else self.scalar(operand, dtype)
        )

    def promote(self, *operands: Operand, dtype: torch.dtype | None = None) -> list[Value]:
        """Operands in the dtype that the node computes in (its output's unless given)."""
        target = self.out.dtype if dtype is None else dtype
        return [self.as_value(o, target) for o in operands]

    def common_dtype(self, *indices: int) -> torch.dtype:
        """torch's promoted dtype of the node's arguments at these positions (numbers included)."""
        tensors = [_fake(self.node.args[i]) for i in indices]
        if len(tensors) == 1:
            return tensors[0].dtype if isinstance(tensors[0], torch.Tensor) else torch.float32
        result = torch.result_type(tensors[0], tensors[1])
        for other in tensors[2:]:
            result = torch.promote_types(result, torch.result_type(other, tensors[0]))
        return result

    # ---------------------------------------------------------------- shapes
    def reshape(self, value: Value, dims: Dims) -> Value:
        """Row-major reshape; nothing if the dims are these already."""
        return self.builder.reshape(value, tuple(dims))

    def transpose(self, value: Value, perm: Sequence[int]) -> Value:
        """Permute dimensions."""
        return self.builder.transpose(value, perm)

    def expand(self, value: Value, dims: Dims) -> Value:
        """Broadcast to dims."""
        return self.builder.expand(value, tuple(dims))

    def unsqueeze(self, value: Value, *axes: int) -> Value:
        """Insert dims of size 1 at these positions of the result (ascending)."""
        dims = list(value.known_dims)
        for axis in axes:
            dims.insert(axis, 1)
        return self.reshape(value, tuple(dims))

    def axis(self, dim: int, rank: int) -> int:
        """A dim of torch (may be negative; a 0-d tensor counts as 1-d) as 0..rank-1."""
        span = max(rank, 1)
        return dim + span if dim < 0 else dim

    def axes(self, dim: int | Sequence[int] | None, rank: int) -> list[int]:
        """Reduction dims of torch as sorted axes; None and [] mean all of them."""
        if dim is None or (not isinstance(dim, int) and len(dim) == 0):
            return list(range(rank))
        dims = [dim] if isinstance(dim, int) else list(dim)
        return sorted(self.axis(d, rank) for d in dims) if rank else []

    def slice(self, value: Value, axis: int, start: Dim, end: Dim, step: int = 1) -> Value:
        """value[..., start:end:step, ...] on one axis; bounds are already within 0..size."""
        dims = value.known_dims
        if start == 0 and end == dims[axis] and step == 1:
            return value
        out: Value = self.op.Slice(
            value, self.ints([start]), self.ints([end]), self.ints([axis]), self.ints([step])
        )
        if out.dims is None and isinstance(start, int) and isinstance(end, int):
            size = max(0, -(-(end - start) // step))
            out.dims = (*dims[:axis], size, *dims[axis + 1 :])
        return out


def metas(node: torch.fx.Node) -> tuple[Meta, ...]:
    """The tensors that a node returns. A node without `meta["val"]` is an error of the graph."""
    value = node.meta["val"]
    values = value if isinstance(value, (tuple, list)) else (value,)
    return tuple(Meta(v.dtype, dims_of(v.shape)) for v in values if isinstance(v, torch.Tensor))


def _fake(arg: object) -> Any:  # noqa: ANN401 - a FakeTensor or a number
    val = arg.meta["val"] if isinstance(arg, torch.fx.Node) else arg
    return 1.0 if isinstance(val, torch.SymFloat) else val


def _wrap(value: float, dtype: torch.dtype) -> float:
    """A Python number as torch stores it in dtype (integers wrap around)."""
    if dtype is torch.bool:
        return bool(value)
    if dtype.is_floating_point:
        return float(value)
    number = int(value)
    info = torch.iinfo(dtype)
    if info.min <= number <= info.max:
        return number
    span = info.max - info.min + 1
    return (number - info.min) % span + info.min


RuleFunction: TypeAlias = Callable[..., "Value | Sequence[Value | None]"]
