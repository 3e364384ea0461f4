"""The pass that lets linear layers read quantized weights, run when a session is opened.

Gemm, MatMul and FusedMatMul whose right operand is a frozen weight become `MatMulNBits`, whatever
the layout of the weight: it is quantized as [N, K]. The float weight is then no input any more,
unless something else reads it.
Ref: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulNBits
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass

from .program import Program, Quantization, TensorSpec
from .quantize import BLOCK, QuantizedWeight, QuantizedWeights

MS_DOMAIN = "com.microsoft"
PRODUCTS = frozenset({("", "Gemm"), ("", "MatMul"), (MS_DOMAIN, "FusedMatMul")})
# A weight in 16 bits is one of float32 by the time a layer that computes in float32 reads it.
FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
_BYTES = frozenset({ir.DataType.INT8, ir.DataType.UINT8})
_DEQUANTIZES = frozenset(
    {"Cast", "Sub", "Mul", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "DequantizeLinear"}
)
# With fewer features in than one block, a weight is mostly padding. One with few features out (the
# head of a classifier) weighs nothing, and what it computes is the answer itself.
LEAST_FEATURES = BLOCK


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an input comes from: one of the lowered program's, or a `part` that is made of it."""

    position: int
    part: str = ""


@dataclass(frozen=True, slots=True)
class QuantizedLayers:
    """What was quantized, and what was not.

    `errors` has |W - dequantized| / |W| of each weight, behind its position among the inputs of the
    lowered program (twice for one that is read transposed as well, in blocks of its own); the sizes
    are those of these weights. `left` counts layers in float by reason.
    """

    bits: int
    layers: int
    errors: tuple[tuple[int, float], ...]
    before_bytes: int
    after_bytes: int
    left: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A program as it is opened: an origin for each input, and the tensors that were made.

    `integer_layers` counts the layers that read integers which the model itself has for weights. It
    keeps the quantized weights in use, so that other sessions find them.
    """

    program: Program
    origins: tuple[Origin, ...]
    made: Mapping[int, torch.Tensor] = field(default_factory=dict[int, torch.Tensor])
    integer_layers: int = 0
    quantized: QuantizedLayers | None = None
    in_use: tuple[QuantizedWeight, ...] = ()


def as_lowered(program: Program) -> Prepared:
    """The program as it is."""
    return Prepared(program, tuple(Origin(i) for i in range(len(program.inputs))))


# A weight, by its position, and whether it lies there as [N, K]; else it is [K, N].
WeightKey: TypeAlias = "tuple[int, bool]"


_NO_WEIGHT: WeightKey = (-1, False)  # in float, that is


@dataclass(frozen=True, slots=True)
class _Layer:
    """x @ W, as one node computes it."""

    node: ir.Node
    weight: WeightKey
    why_float: str | None


@dataclass(frozen=True, slots=True)
class LayerInputs:
    """The inputs of a program that hold one quantized weight."""

    packed: ir.Value
    scales: ir.Value
    content: QuantizedWeight

    @classmethod
    def of(cls, name: str, content: QuantizedWeight) -> LayerInputs:
        """Inputs that are called after the weight."""

        def value(part: str, tensor: torch.Tensor, dtype: ir.DataType) -> ir.Value:
            shape = ir.Shape(tuple(tensor.shape))
            return ir.Value(name=f"{name}_{part}", type=ir.TensorType(dtype), shape=shape)

        return cls(
            packed=value("packed", content.packed, ir.DataType.UINT8),
            scales=value("scales", content.scales, ir.DataType.FLOAT),
            content=content,
        )


def quantize_layers(
    program: Program,
    quantization: Quantization,
    frozen: Mapping[int, torch.Tensor],
    left: Mapping[int, str],
    weights: QuantizedWeights,
) -> Prepared:
    """The program with its `frozen` inputs (by position) quantized where linear layers read them.

    `left` are inputs that stay in float, and why. The program itself is shared, and not changed.
    """
    model = ir.serde.deserialize_model(ir.serde.serialize_model(program.model))
    inputs: dict[WeightKey, LayerInputs | None] = {}
    reasons: Counter[str] = Counter()
    layers = 0
    for layer in _linear_layers(model, program, frozen, left):
        if layer.why_float is None and layer.weight not in inputs:
            position, by_output = layer.weight
            tensor = frozen[position] if by_output else frozen[position].t()
            made = weights.of(tensor, quantization.bits)
            name = f"{program.inputs[position].name}{_suffix(by_output)}"
            inputs[layer.weight] = None if made is None else LayerInputs.of(name, made)
        found = None if layer.why_float is not None else inputs[layer.weight]
        if found is None:
            reasons[layer.why_float or "the weight is not finite"] += 1
            continue
        replace_layer(layer.node, found, quantization.accuracy_level)
        layers += 1
    used = {weight: found for weight, found in inputs.items() if found is not None}
    prepared = with_inputs(program, model, used, frozen)
    positions = {position for position, _ in used}
    summary = QuantizedLayers(
        bits=quantization.bits,
        layers=layers,
        errors=tuple((position, found.content.error) for (position, _), found in used.items()),
        before_bytes=sum(frozen[p].nbytes for p in positions),
        after_bytes=sum(found.content.size_bytes for found in used.values()),
        left=reasons,
    )
    return replace(prepared, quantized=summary)


def _linear_layers(
    model: ir.Model, program: Program, frozen: Mapping[int, torch.Tensor], left: Mapping[int, str]
) -> list[_Layer]:
    """The products whose right operand is a matrix that the program takes."""
    positions = {spec.name: i for i, spec in enumerate(program.inputs)}
    layers: list[_Layer] = []
    for node in model.graph.all_nodes():
        if (node.domain, node.op_type) not in PRODUCTS:
            continue
        name = _uncast(node.inputs[1]).name
        position = None if name is None else positions.get(name)
        if _is_of_integers(node.inputs[1], program, frozen):
            layers.append(_Layer(node, _NO_WEIGHT, "the model has integers for its weight already"))
        if position is None or len(program.inputs[position].shape) != 2:
            continue
        by_output = node.attributes.get_int("transB", 0) == 1
        why = left.get(position) or _why_float(node, program.inputs[position], frozen.get(position))
        layers.append(_Layer(node, (position, by_output), why))
    return layers


def _uncast(value: ir.Value | None) -> ir.Value:
    """What a weight in a 16-bit type is converted from to be multiplied in float32."""
    assert value is not None
    node = value.producer()
    if node is None or (node.domain, node.op_type) != ("", "Cast"):
        return value
    (source,) = node.inputs
    assert source is not None
    return source


def _is_of_integers(value: ir.Value | None, program: Program, frozen: Collection[int]) -> bool:
    """Is a weight what a dequantization makes of frozen bytes?"""
    if value is None:
        return False
    node = value.producer()
    if node is not None:
        steps = node.inputs if node.op_type in _DEQUANTIZES else ()
        return any(_is_of_integers(step, program, frozen) for step in steps)
    return any(
        program.inputs[i].name == value.name and program.inputs[i].dtype in _BYTES for i in frozen
    )


def _why_float(node: ir.Node, spec: TensorSpec, weight: torch.Tensor | None) -> str | None:
    """What stands against quantizing the weight of a layer."""
    w = node.inputs[1]
    assert w is not None
    if weight is None:
        return "the right operand is no frozen weight"
    if w.dtype != ir.DataType.FLOAT or spec.dtype not in FLOATS:
        return f"a weight of {spec.dtype.name} is multiplied in {w.dtype and w.dtype.name}"
    if (why := why_not_plain(node)) is not None:
        return why
    if min(weight.shape) < LEAST_FEATURES:
        return f"the weight has fewer than {LEAST_FEATURES} features in or out"
    return None


def why_not_plain(node: ir.Node) -> str | None:
    """Why a product is not x [*, K] @ W [K, N] (+ bias), if it is not."""
    x = node.inputs[0]
    assert x is not None
    if node.op_type != "Gemm" and (x.shape is None or len(x.shape) < 2):
        return "the input is not known to be a matrix"
    if any(node.attributes.get_int(name, 0) for name in ("transA", "transBatchA", "transBatchB")):
        return "the input is read transposed"
    if any(node.attributes.get_float(name, 1.0) != 1.0 for name in ("alpha", "beta")):
        return "the product is scaled"
    return None


def _suffix(by_output: bool) -> str:  # noqa: FBT001 - part of a weight's key
    return "" if by_output else "_transposed"


def replace_layer(node: ir.Node, weight: LayerInputs, accuracy_level: int) -> None:
    """MatMulNBits in the place of the node; it takes a bias [N], another one is added to it."""
    graph, (old,) = node.graph, node.outputs
    assert graph is not None
    n, k = weight.content.features
    x, _, bias = (*node.inputs, None)[:3]
    is_vector = bias is not None and bias.shape is not None and bias.shape == (n,)
    attributes = {
        "K": k,
        "N": n,
        "bits": weight.content.bits,
        "block_size": weight.content.block,
        "accuracy_level": accuracy_level,
    }
    new = [
        ir.node(
            "MatMulNBits",
            [x, weight.packed, weight.scales, *([None, None, bias] if is_vector else [])],
            attributes,
            domain=MS_DOMAIN,
            name=f"{node.name}_quantized",
        )
    ]
    if bias is not None and not is_vector:
        new[0].outputs[0].name = f"{old.name}_product"
        new.append(ir.node("Add", [new[0].outputs[0], bias], name=f"{node.name}_bias"))
    (result,) = new[-1].outputs
    result.name, old.name = old.name, f"{old.name}_float"
    result.type, result.shape = old.type, old.shape
    graph.insert_before(node, new)
    ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def with_inputs(
    program: Program,
    model: ir.Model,
    used: Mapping[WeightKey, LayerInputs],
    frozen: Mapping[int, torch.Tensor],
) -> Prepared:
    """The program over the rewritten model, whose quantized weights become inputs.

    The frozen ones that nothing reads any more are none.
    """
    RemoveUnusedNodesPass()(model)
    graph = model.graph
    kept = [
        i
        for i, value in enumerate(graph.inputs)
        if i not in frozen or value.uses() or value.is_graph_output()
    ]
    values: list[ir.Value] = [graph.inputs[i] for i in kept]
    specs = [program.inputs[i] for i in kept]
    origins = [Origin(i) for i in kept]
    made: dict[int, torch.Tensor] = {}
    for (position, by_output), found in used.items():
        for value, tensor, part in (
            (found.packed, found.content.packed, "packed"),
            (found.scales, found.content.scales, "scales"),
        ):
            made[len(values)] = tensor
            values.append(value)
            specs.append(_spec(value, tensor))
            origins.append(Origin(position, f".{part}{_suffix(by_output)}"))
    graph.inputs[:] = values
    if used:
        graph.opset_imports.setdefault(MS_DOMAIN, 1)
    return Prepared(
        program=replace(program, model=model, inputs=tuple(specs), node_count=len(graph)),
        origins=tuple(origins),
        made=made,
        in_use=tuple(found.content for found in used.values()),
    )


def _spec(value: ir.Value, tensor: torch.Tensor) -> TensorSpec:
    assert value.name is not None
    assert value.dtype is not None
    return TensorSpec(value.name, value.dtype, tuple(tensor.shape))
