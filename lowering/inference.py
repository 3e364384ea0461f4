"""The types of a node: what its inputs bind, which kernel takes them, what comes out.

All of it is read from onnxruntime's operator schemas and kernel registry, through `Kernels`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from ..runtime.errors import LoweringError, Reason, ReasonKind
from ..runtime.program import Kernels, Signature
from .dtypes import WIDER, type_name, type_of_name
from .value import Declined, NeedsOpset, Value

Bindings = dict[str, ir.DataType]


@dataclass(frozen=True, slots=True)
class Typing:
    """The types that a node is emitted with.

    `inputs` are the types to convert the inputs to (None: as it is), `outputs` what the node
    returns, `results` what to convert that to.
    """

    inputs: tuple[ir.DataType | None, ...]
    outputs: tuple[ir.DataType, ...]
    results: tuple[ir.DataType, ...]


class TypeInference:
    """Types nodes for one set of kernels at one opset."""

    def __init__(self, kernels: Kernels, opset: int) -> None:
        self._kernels = kernels
        self._opset = opset
        self._typings: dict[object, Typing] = {}

    def has_kernel(self, op_type: str, **types: ir.DataType) -> bool:
        """Does this opset of ai.onnx have the operator, with a kernel for these type variables?"""
        pairs = tuple((variable, type_name(t)) for variable, t in types.items())
        known = self._kernels.signature("", op_type) is not None
        return known and self._kernels.accepts("", op_type, pairs)

    def infer(
        self,
        domain: str,
        op_type: str,
        args: Sequence[Value | None],
        attrs: Mapping[str, Any],
        outputs: int,
        dtypes: Sequence[ir.DataType] | None,
    ) -> Typing:
        """The node's types; Declined where no kernel computes it, or none exactly.

        `dtypes` are the outputs' types, for an operator whose outputs do not follow its inputs.
        """
        if op_type == "Cast":
            dtypes = [ir.DataType(attrs["to"])]
        types = tuple(None if arg is None else arg.elem for arg in args)
        key = (domain, op_type, types, outputs, None if dtypes is None else tuple(dtypes))
        if key not in self._typings:
            self._typings[key] = self._infer(domain, op_type, args, outputs, dtypes)
        return self._typings[key]

    def _infer(
        self,
        domain: str,
        op_type: str,
        args: Sequence[Value | None],
        outputs: int,
        dtypes: Sequence[ir.DataType] | None,
    ) -> Typing:
        signature = self._kernels.signature(domain, op_type)
        if signature is None:
            operator = f"{domain or 'ai.onnx'}::{op_type}"
            later = self._kernels.needed_opset(op_type) if domain == "" else None
            if later is not None:
                detail = f"{operator} needs opset {later}, the program has {self._opset}"
                raise NeedsOpset(Reason(ReasonKind.KERNEL, detail), later)
            detail = f"onnxruntime has no operator {operator} at opset {self._opset}"
            raise Declined(Reason(ReasonKind.KERNEL, detail))
        bound = _bind(signature, op_type, args)
        widened = self._widening(domain, op_type, bound)
        variables = _output_variables(signature, outputs)
        results = tuple(
            _output_type(op_type, v, bound) if dtypes is None else dtypes[i]
            for i, v in enumerate(variables)
        )
        return Typing(
            tuple(widened.get(v) for v in _input_variables(signature, len(args))),
            tuple(widened.get(v, t) for v, t in zip(variables, results, strict=True)),
            results,
        )

    def _widening(self, domain: str, op_type: str, bound: Bindings) -> Bindings:
        """Type variables to compute in a wider type, {} when a kernel takes them as they are."""
        widened: Bindings = {}
        while True:
            types = {**bound, **widened}
            pairs = tuple((var, type_name(t)) for var, t in types.items())
            if self._kernels.accepts(domain, op_type, pairs):
                return widened
            further = {var: WIDER[t] for var, t in types.items() if t in WIDER}
            if not further or op_type == "Cast":
                listed = ", ".join(t.name.lower() for t in bound.values())
                operator = f"{domain or 'ai.onnx'}::{op_type}({listed})"
                detail = f"no kernel for {operator} at opset {self._opset}"
                raise Declined(Reason(ReasonKind.KERNEL, detail))
            widened.update(further)


def _output_type(op_type: str, variable: str, bound: Bindings) -> ir.DataType:
    dtype = bound.get(variable) or type_of_name(variable)
    if dtype is None:
        raise LoweringError(f"{op_type}: the rule must pass `dtypes`, outputs do not follow")
    return dtype


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
