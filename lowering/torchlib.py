"""The one door to onnxscript: functions in torchlib's style as rules of ours.

A function is recorded, and each recorded node is emitted again through our builder: so it is
hash-consed, checked against the kernels and typed like every other node.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxscript
import onnxscript.evaluator
import onnxscript.values
import sympy
import torch

from ..runtime.errors import LoweringError
from .builder import MS_DOMAIN
from .dims import text
from .dtypes import TO_ONNX
from .registry import Registry, schema_arguments
from .rule import Rule, RuleFunction
from .torch_private import (
    OpOverload,
    new_recorder,
    symbolic_tensor_class,
    torchlib_functions,
)
from .value import Value

RECORDING_OPSET = 18  # torchlib is written against it
_NOT_FOR_ONNX = frozenset({"device", "layout", "pin_memory", "memory_format", "generator"})


def is_onnxscript(function: object) -> bool:
    """Is it an onnxscript function (`@onnxscript.script()`, or a traced torchlib function)?"""
    return isinstance(function, (onnxscript.OnnxFunction, onnxscript.values.TracedOnnxFunction))


def is_traceable(op: OpOverload, function: Callable[..., object]) -> bool:
    """Has a plain function the parameters of one in torchlib's style, without a context?"""
    kept = [a for a in schema_arguments(op) if a.name not in _NOT_FOR_ONNX]
    parameters = list(inspect.signature(function).parameters.values())
    open_ended = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters)
    has_context = bool(parameters) and parameters[0].name == "cx"
    return len(parameters) == len(kept) and not open_ended and not has_context


def adapt(op: OpOverload, function: Callable[..., object]) -> RuleFunction:
    """An onnxscript function, which takes the schema's arguments, as a rule."""
    if isinstance(function, onnxscript.OnnxFunction) and not function.traceable:
        return _adapt_script(op, function)
    arguments = schema_arguments(op)

    def rule(cx: Rule, *_: object) -> Value | list[Value | None]:
        recorder = new_recorder(RECORDING_OPSET)
        env: dict[ir.Value, Value] = {}
        positional: list[object] = []
        keyword: dict[str, object] = {}
        for argument, given in zip(arguments, _, strict=True):
            if argument.name in _NOT_FOR_ONNX:
                continue
            value = _to_recorder(cx, recorder, given, env)
            if argument.kwarg_only:
                if value is not None:
                    keyword[argument.name] = value
            else:
                positional.append(value)
        with onnxscript.evaluator.default_as(recorder):
            result = function(*positional, **keyword)
        results = list(result) if isinstance(result, (list, tuple)) else [result]
        _emit_again(cx, recorder.nodes, env, recorder.functions, {}, _returned(cx, results))
        if isinstance(result, (list, tuple)):
            return [_from_recorder(cx, r, env) for r in result]
        return _from_recorder(cx, result, env)

    return rule


def one_of(rules: Sequence[tuple[Callable[..., object], RuleFunction]]) -> RuleFunction:
    """The rule of the first function whose annotations allow the dtypes that are given."""
    kinds = [_annotated(function) for function, _ in rules]

    def rule(cx: Rule, *given: object) -> Any:  # noqa: ANN401 - what the chosen rule returns
        found = [value.elem if isinstance(value, Value) else None for value in given]
        for (_, chosen), allowed in zip(rules, kinds, strict=True):
            pairs = zip(allowed, found, strict=False)
            if all(kind is None or types is None or kind in types for types, kind in pairs):
                return chosen(cx, *given)
        shown = ", ".join(kind.name for kind in found if kind is not None)
        return cx.decline(f"none of the {len(rules)} functions given for it takes ({shown})")

    return rule


def _annotated(function: Callable[..., object]) -> list[frozenset[ir.DataType] | None]:
    """The types that each parameter may have; None where anything will do."""
    plain = getattr(function, "function", function)
    try:
        hints = typing.get_type_hints(plain)
    except NameError:  # annotations that only a type checker can resolve
        hints = {}
    return [_types(hints.get(name)) for name in inspect.signature(plain).parameters if name != "cx"]


def _types(annotation: Any) -> frozenset[ir.DataType] | None:  # noqa: ANN401 - the user's
    """FLOAT, FLOAT[...], a Union or a TypeVar of such."""
    parts = typing.get_args(annotation) or getattr(annotation, "__constraints__", ())
    if parts:
        each = [_types(part) for part in parts if part is not type(None)]
        known = [types for types in each if types is not None]
        return frozenset().union(*known) if len(known) == len(each) else None
    dtype = getattr(annotation, "dtype", None)
    return None if dtype is None else frozenset({ir.DataType(dtype)})


def _adapt_script(op: OpOverload, function: onnxscript.OnnxFunction[..., Any]) -> RuleFunction:
    """A scripted function is a graph already: its nodes are emitted with our values put in.

    Recording a call of it would need annotations of what it returns, which users need not write.
    """
    kept = [i for i, a in enumerate(schema_arguments(op)) if a.name not in _NOT_FOR_ONNX]
    signature = function.op_signature
    assert signature is not None, f"{function.name} was scripted"
    names = [p.name for p in signature.params]
    if len(names) != len(kept):
        raise LoweringError(
            f"{function.name} takes ({', '.join(names)}), {op} has {len(kept)} arguments for it"
        )
    called = function.function_ir.get_called_functions().values()
    functions = {(f.function_ir.domain, f.name, ""): f for f in called}

    def rule(cx: Rule, *_: object) -> list[Value | None] | Value:
        body = _function_ir(function)
        formals = {v.name: v for v in body.inputs}
        env: dict[ir.Value, Value] = {}
        attributes = dict(body.attributes)
        for name, given in zip(names, (_[i] for i in kept), strict=True):
            if given is None:
                continue
            if name in formals:
                env[formals[name]] = _as_input(cx, given)
            else:
                plain = int(TO_ONNX[given]) if isinstance(given, torch.dtype) else given
                attributes[name] = ir.Attr(name, body.attributes[name].type, plain)
        _emit_again(cx, body, env, functions, attributes, _returned(cx, body.outputs))
        results = [_lookup(cx, v, env) for v in body.outputs]
        return results[0] if len(results) == 1 else list(results)

    return rule


def _as_input(cx: Rule, given: object) -> Value:
    """A tensor as it is, a number or a list of numbers as a constant of ONNX's types for them."""
    if isinstance(given, Value):
        return given
    if isinstance(given, sympy.Expr):
        return cx.scalar(given, torch.int64)
    return cx.const(given, torch.as_tensor(given).dtype)


def register_tail(registry: Registry, ops: Mapping[OpOverload, None] | list[OpOverload]) -> None:
    """Register torchlib's functions for these overloads; each is looked up when first used."""
    for op in ops:
        if op not in registry:
            registry.register(op, _lazy(op), None, replace=False)


def _lazy(op: OpOverload) -> RuleFunction:
    adapted: list[RuleFunction] = []

    def rule(cx: Rule, *_: object) -> Any:  # noqa: ANN401 - what the adapted rule returns
        if not adapted:
            functions = torchlib_functions(op)
            if not functions:
                raise LoweringError(f"this torch's torchlib has no function for {op}")
            adapted.append(adapt(op, functions[0]))
        try:
            return adapted[0](cx, *_)
        except NotImplementedError as error:  # torchlib's way of declining some arguments
            cx.decline(f"torchlib says: {error}")

    return rule


def _to_recorder(cx: Rule, recorder: Any, given: object, env: dict[ir.Value, Value]) -> object:  # noqa: ANN401
    if isinstance(given, sympy.Expr):
        given = cx.scalar(given, torch.int64)
    if isinstance(given, Value):
        stand_in = symbolic_tensor_class()(
            recorder.opset,
            name=given.name,
            shape=None if given.dims is None else ir.Shape([text(d) for d in given.dims]),
            type=ir.TensorType(given.elem),
        )
        env[stand_in] = given
        return stand_in
    if isinstance(given, torch.dtype):
        return int(TO_ONNX[given])
    if isinstance(given, list):
        return [_to_recorder(cx, recorder, g, env) for g in given]
    return given


def _from_recorder(cx: Rule, result: object, env: dict[ir.Value, Value]) -> Value:
    if isinstance(result, ir.Value):
        return _lookup(cx, result, env)
    if isinstance(result, (bool, int, float)):
        return cx.scalar(result, cx.out.dtype)
    raise LoweringError(f"an onnxscript function returned a {type(result).__name__}")


def _lookup(cx: Rule, value: ir.Value, env: dict[ir.Value, Value]) -> Value:
    if value not in env:
        if value.const_value is None:
            raise LoweringError(f"onnxscript value {value.name!r} comes from nowhere")
        env[value] = _constant(cx, value.const_value)
    return env[value]


def _constant(cx: Rule, tensor: ir.TensorProtocol) -> Value:
    return cx.builder.constant(np.asarray(tensor.numpy()), tensor.dtype)


def _emit_again(
    cx: Rule,
    nodes: Any,  # noqa: ANN401 - an iterable of ir.Node
    env: dict[ir.Value, Value],
    functions: Mapping[Any, Any],
    attributes: Mapping[str, ir.Attr],
    returned: Mapping[ir.Value, ir.DataType],
) -> None:
    """Emit recorded nodes through the builder, functions inlined."""
    for node in nodes:
        inputs = [None if i is None else _lookup(cx, i, env) for i in node.inputs]
        attrs = {a.name: _attr_value(a, attributes) for a in node.attributes.values()}
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            env[node.outputs[0]] = _constant_node(cx, attrs)
            continue
        function = functions.get((node.domain, node.op_type, ""))
        if function is not None:
            body = function if isinstance(function, ir.Function) else _function_ir(function)
            inner: dict[ir.Value, Value] = {
                formal: actual
                for formal, actual in zip(body.inputs, inputs, strict=False)
                if actual is not None
            }
            own = {
                a.name: a if a.ref_attr_name is None else attributes[a.ref_attr_name]
                for a in node.attributes.values()
            }
            given = {**body.attributes, **own}
            within = {
                formal: returned[outer]
                for outer, formal in zip(node.outputs, body.outputs, strict=True)
                if outer in returned
            }
            _emit_again(cx, body, inner, functions, given, within)
            for outer, formal in zip(node.outputs, body.outputs, strict=True):
                env[outer] = inner[formal]
            continue
        if node.op_type == "CastLike":  # a function of ONNX, for which there is no kernel
            source, like = inputs
            assert source is not None
            assert like is not None
            env[node.outputs[0]] = cx.builder.cast(source, like.elem)
            continue
        domain = "" if node.domain == "ai.onnx" else node.domain
        if domain in ("", MS_DOMAIN):
            made = cx.builder.emit(domain, node.op_type, inputs, attrs, len(node.outputs))
        else:
            kinds = [_type_of(node, out, returned) for out in node.outputs]
            version = node.version or _imported(node)
            made = cx.builder.opaque(domain, node.op_type, inputs, attrs, kinds, version=version)
        env.update(zip(node.outputs, made, strict=True))


def _returned(cx: Rule, results: Iterable[object]) -> dict[ir.Value, ir.DataType]:
    """The types of what a function returns, which the operator knows."""
    pairs = zip(results, cx.outs, strict=False)
    return {value: meta.onnx for value, meta in pairs if isinstance(value, ir.Value)}


def _imported(node: ir.Node) -> int | None:
    """The version of its domain that the function which it is in imports."""
    owner = node.graph
    return None if owner is None else owner.opset_imports.get(node.domain)


def _type_of(node: ir.Node, out: ir.Value, returned: Mapping[ir.Value, ir.DataType]) -> ir.DataType:
    """The type of an output of an operator of which nothing is known here."""
    found = returned.get(out, out.dtype)
    if found is None:
        raise LoweringError(
            f"what {node.domain}::{node.op_type} returns is not known, and it is not what the "
            f"function returns; write the rule with cx.domain({node.domain!r}), which takes dtypes"
        )
    return found


def _function_ir(function: Any) -> ir.Function:  # noqa: ANN401 - an OnnxFunction
    return ir.serde.deserialize_function(function.to_function_proto())


def _constant_node(cx: Rule, attrs: Mapping[str, Any]) -> Value:
    ((name, value),) = attrs.items()
    if name == "value":
        return _constant(cx, value)
    dtype = torch.int64 if name.startswith("value_int") else torch.float32
    return cx.const(value, dtype)


def _attr_value(attr: ir.Attr, attributes: Mapping[str, ir.Attr]) -> Any:  # noqa: ANN401
    if attr.ref_attr_name is not None:
        attr = attributes[attr.ref_attr_name]
    if attr.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
        raise LoweringError("onnxscript functions with If, Loop or Scan are not accepted as rules")
    return list(attr.value) if isinstance(attr.value, tuple) else attr.value
