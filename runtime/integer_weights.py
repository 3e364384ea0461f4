"""The pass that lets linear layers read weights that the model has as 4-bit integers.

torchao's graphs make floats of an integer weight [N, K] in groups of columns, each with a scale,
and multiply those. onnxruntime would fold that into a float weight, eight times the size. Where all
integers fit 4 bits and no group has a zero point, `MatMulNBits` reads them instead: at its
`accuracy_level` 1 it computes in float32 what the float weight gives. (Of 8 bits it makes floats at
every call, so that those are folded.)
Ref: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulNBits
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir
import torch

from .integer_biases import round_biases
from .linear_layers import (
    PRODUCTS,
    LayerInputs,
    Prepared,
    WeightKey,
    as_lowered,
    replace_layer,
    why_not_plain,
    with_inputs,
)
from .program import Program
from .quantize import QuantizedWeights

_IN_FLOAT32 = 1  # of MatMulNBits' accuracy levels
_BLOCKS = (256, 128, 64, 32, 16)
_VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True, slots=True)
class _Weight:
    """Positions of what a weight is made of, and how many columns in a row share a scale."""

    values: int
    scales: int
    zeros: int | None
    columns: int


def read_integers(
    program: Program, frozen: Mapping[int, torch.Tensor], weights: QuantizedWeights
) -> Prepared:
    """The program with its frozen 4-bit weights (by position) read as they are, and biases rounded.

    The program itself is shared, and not changed.
    """
    if not any(tensor.dtype is torch.int8 for tensor in frozen.values()):
        return as_lowered(program)
    model = ir.serde.deserialize_model(ir.serde.serialize_model(program.model))
    positions = {spec.name: i for i, spec in enumerate(program.inputs) if i in frozen}
    used: dict[WeightKey, LayerInputs] = {}
    read: dict[int, _Weight] = {}
    layers = 0
    for node in list(model.graph.all_nodes()):
        weight = _weight(node, positions, frozen)
        # The same integers with other scales are another weight, and stay in float.
        if weight is None or read.setdefault(weight.values, weight) != weight:
            continue
        key = (weight.values, True)
        if key not in used:
            zeros = None if weight.zeros is None else frozen[weight.zeros]
            made = weights.of_integers(
                frozen[weight.values], frozen[weight.scales], zeros, _block(weight.columns)
            )
            if made is None:
                continue
            used[key] = LayerInputs.of(program.inputs[weight.values].name, made)
        replace_layer(node, used[key], _IN_FLOAT32)
        layers += 1
    if not (round_biases(model, positions, frozen) or used):
        return as_lowered(program)
    return replace(with_inputs(program, model, used, frozen), integer_layers=layers)


def _weight(
    node: ir.Node, positions: Mapping[str, int], frozen: Mapping[int, torch.Tensor]
) -> _Weight | None:
    """What the weight [N, K] is made of that a layer multiplies by, if it is integers.

    (values - zeros) * scales: [N, groups, columns] * [N, groups, 1], or [N, K] * [N, 1].
    """
    if (node.domain, node.op_type) not in PRODUCTS or why_not_plain(node) is not None:
        return None
    weight = node.inputs[1]
    made = _below_views(weight).producer()
    if weight is None or made is None or made.op_type != "Mul":
        return None
    values, scales = made.inputs
    zeros: ir.Value | None = None
    difference = None if values is None else values.producer()
    if difference is not None and difference.op_type == "Sub":
        values, zeros = difference.inputs
    found = [positions.get(_below_views(v).name or "") for v in (values, scales)]
    of_values, of_scales = found
    of_zeros = None if zeros is None else positions.get(_below_views(zeros).name or "")
    if of_values is None or of_scales is None or (zeros is not None and of_zeros is None):
        return None
    stored, steps = frozen[of_values], frozen[of_scales]
    shape = _shape(made.outputs[0])
    fits = (
        node.attributes.get_int("transB", 0) == 1
        and (stored.dtype, steps.dtype) == (torch.int8, torch.float32)
        and _shape(weight) == tuple(stored.shape)
        and shape[:1] == tuple(stored.shape[:1])
        and _shape(scales) == (*shape[:-1], 1)
    )
    return (
        _Weight(of_values, of_scales, of_zeros, shape[-1]) if fits and _block(shape[-1]) else None
    )


def _below_views(value: ir.Value | None) -> ir.Value:
    """What a value shows in another shape, or as float32."""
    assert value is not None
    node = value.producer()
    if node is None or node.domain != "":
        return value
    is_view = node.op_type in _VIEWS
    if is_view or (node.op_type == "Cast" and value.dtype == ir.DataType.FLOAT):
        return _below_views(node.inputs[0])
    return value


def _shape(value: ir.Value | None) -> tuple[int, ...]:
    """() where it is not known."""
    dims = [] if value is None or value.shape is None else list(value.shape)
    known = tuple(d for d in dims if isinstance(d, int))
    return known if len(known) == len(dims) else ()


def _block(columns: int) -> int:
    """The longest block of MatMulNBits that this many columns consist of; 0: there is none."""
    return next((block for block in _BLOCKS if columns % block == 0), 0)
