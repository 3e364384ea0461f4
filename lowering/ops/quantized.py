"""Quantized tensors as PT2E's graphs have them: integers beside a scale and a zero point.

`QuantizeLinear` and `DequantizeLinear`, so that onnxruntime computes what lies between a pair of
them in integers. It divides by the scale where eager multiplies by its reciprocal, and its integer
kernels round once where eager rounds twice: results may differ by one step of the quantization.
The operators exist once `torch.ao.quantization` or torchao is imported.
Ref: torch/ao/quantization/fx/_decomposed.py,
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..registry import registry
from ..rule import Operand, Rule
from ..value import Value

# Of these, the integer kernels exist.
_BYTES = (torch.int8, torch.uint8)
_LONGEST_SUM = 2**31 // 255**2  # products of bytes whose sum is an int32


@dataclass(frozen=True, slots=True)
class Integers:
    """(values - zero_point) * scale; of these, [C] lie along `axis` and [] have none."""

    values: Value
    scale: Value
    zero_point: Value | None
    axis: int | None


def quantize_per_tensor(
    cx: Rule, input: Value, scale: Operand, zero_point: Operand, quant_min: int, quant_max: int,
    dtype: torch.dtype,
) -> Value:  # fmt: skip
    """input [*A], scale and zero_point [] or [1] -> integers [*A], clamped."""
    step, zero = _scalar(cx, scale, torch.float64), _zero_point(cx, zero_point, dtype)
    return _quantize(cx, input, step, zero, None, (quant_min, quant_max))


def quantize_per_channel(
    cx: Rule, input: Value, scales: Value, zero_points: Value, axis: int, quant_min: int,
    quant_max: int, dtype: torch.dtype,
) -> Value:  # fmt: skip
    """input [*A], scales and zero_points [C] along `axis` -> integers [*A], clamped."""
    if cx.dtype(scales) is not torch.float32:
        cx.decline(f"scales in {cx.dtype(scales)}, in which eager then divides")
    zero = _zero_points(cx, zero_points, dtype)
    return _quantize(cx, input, scales, zero, cx.axis(axis, input.rank), (quant_min, quant_max))


def _quantize(
    cx: Rule, input: Value, scale: Value, zero_point: Value, axis: int | None,
    bounds: tuple[int, int],
) -> Value:  # fmt: skip
    dtype = cx.out.dtype
    values = cx.cast(input, torch.float32)
    if dtype in _BYTES and bounds == _bounds(dtype):
        return cx.op.QuantizeLinear(values, cx.cast(scale, torch.float32), zero_point, axis=axis)
    inverse = cx.cast(cx.op.Reciprocal(scale), torch.float32)
    inverse.dims = scale.dims
    inverse = _along(cx, inverse, input.rank, axis)
    zero = _along(cx, cx.cast(zero_point, torch.float32), input.rank, axis)
    rounded = cx.op.Add(cx.op.Round(cx.op.Mul(values, inverse)), zero)
    least, greatest = (cx.scalar(bound, torch.float32) for bound in bounds)
    return cx.cast(cx.op.Clip(rounded, least, greatest), dtype)


def dequantize_per_tensor(
    cx: Rule, input: Value, scale: Operand, zero_point: Operand, quant_min: int, quant_max: int,
    dtype: torch.dtype, out_dtype: torch.dtype | None,
) -> Value:  # fmt: skip
    """Integers [*A], scale and zero_point [] or [1] -> float [*A]. The bounds mean nothing."""
    step, zero = _scalar(cx, scale, torch.float32), _zero_point(cx, zero_point, dtype)
    return _dequantize(cx, input, step, zero, None)


def dequantize_per_channel(
    cx: Rule, input: Value, scales: Value, zero_points: Value | None, axis: int, quant_min: int,
    quant_max: int, dtype: torch.dtype, out_dtype: torch.dtype | None,
) -> Value:  # fmt: skip
    """Integers [*A], scales and zero_points [C] along `axis` -> float [*A]."""
    if cx.dtype(scales) is not torch.float32:
        cx.decline(f"scales in {cx.dtype(scales)}, in which eager then multiplies")
    zero = None if zero_points is None else _zero_points(cx, zero_points, dtype)
    return _dequantize(cx, input, scales, zero, cx.axis(axis, input.rank))


def _dequantize(
    cx: Rule, input: Value, scale: Value, zero_point: Value | None, axis: int | None
) -> Value:
    if cx.out.dtype is not torch.float32:
        cx.decline(f"a quantized tensor that becomes {cx.out.dtype}")
    if cx.dtype(input) in _BYTES:
        floats = [cx.out.onnx]
        return cx.op.DequantizeLinear(input, scale, zero_point, axis=axis, dtypes=floats)
    values = cx.cast(input, torch.float32)
    if zero_point is not None:
        zero = cx.cast(zero_point, torch.float32)
        values = cx.op.Sub(values, _along(cx, zero, input.rank, axis))
    return cx.op.Mul(values, _along(cx, scale, input.rank, axis))


def product(cx: Rule, a: Value, b: Value, bias: Value | None = None) -> Value | None:
    """a [M, K] x b [K, N] + bias [N] by the integers of dequantized a and b, if they are that.

    A session makes it exact where the processor is not (`runtime/bytes.py`).
    """
    left, right = _integers(cx, a), _integers(cx, b)
    k = a.known_dims[-1]
    if left is None or right is None or left.axis is not None or right.axis == 0:
        return None
    if not isinstance(k, int) or k > _LONGEST_SUM or not has_integer_product(cx):
        return None
    rows, zero = _unsigned(cx, left)
    out: Value = cx.ms.MatMulIntegerToFloat(
        rows, right.values, left.scale, right.scale, zero, right.zero_point, bias
    )
    out.dims = (a.known_dims[0], b.known_dims[1])
    return out


def whole_numbers(cx: Rule, values: Value) -> Integers:
    """Bytes that stand for themselves."""
    return Integers(values, cx.scalar(1, torch.float32), None, None)


def has_integer_product(cx: Rule) -> bool:
    """Do the execution providers multiply unsigned by signed bytes?"""
    return cx.has_kernel("MatMulInteger", T1=torch.uint8, T2=torch.int8)


def integer_product(cx: Rule, left: Integers, right: Integers) -> Value:
    """[M, K] x [K, N] less their zero points -> int32 [M, N]."""
    rows, zero = _unsigned(cx, left)
    out: Value = cx.op.MatMulInteger(rows, right.values, zero, right.zero_point)
    out.dims = (left.values.known_dims[0], right.values.known_dims[1])
    return out


def is_integer_convolution(cx: Rule, input: Value, weight: Value) -> bool:
    """Are both dequantized as integer convolutions read them?

    The input by a constant, the weight with one scale or one for each channel of the output.
    """
    x, w = _integers(cx, input), _integers(cx, weight)
    if x is None or w is None or w.axis not in (None, 0):
        return False
    return cx.builder.constant_array(x.scale) is not None


def foldable(cx: Rule, weight: Value) -> Value:
    """A dequantized weight that no integer kernel reads, computed so that onnxruntime folds it.

    It folds no `DequantizeLinear`, which would run at every call.
    """
    found = _integers(cx, weight)
    if found is None:
        return weight
    rank = weight.rank
    values = cx.cast(found.values, torch.float32)
    if found.zero_point is not None:
        zero = cx.cast(found.zero_point, torch.float32)
        values = cx.op.Sub(values, _along(cx, zero, rank, found.axis))
    out: Value = cx.op.Mul(values, _along(cx, found.scale, rank, found.axis))
    return out


def _integers(cx: Rule, value: Value) -> Integers | None:
    """What a value was dequantized from, below a transposition or (of one scale) a reshape."""
    if value.view is not None:
        kind, source, perm = value.view
        inner = _integers(cx, source)
        if inner is None:
            return None
        if kind == "transpose":
            axis = None if inner.axis is None else perm.index(inner.axis)
            return replace(inner, values=cx.transpose(inner.values, perm), axis=axis)
        if inner.axis is not None:
            return None
        return replace(inner, values=cx.reshape(inner.values, value.known_dims))
    node = value.producer()
    if node is None or node.op_type != "DequantizeLinear":
        return None
    values, scale, zero_point = (*node.inputs, None)[:3]
    assert isinstance(values, Value)
    assert isinstance(scale, Value)
    assert zero_point is None or isinstance(zero_point, Value)
    axis = None if scale.rank == 0 else node.attributes.get_int("axis", 1)
    return Integers(values, scale, zero_point, axis)


def _unsigned(cx: Rule, matrix: Integers) -> tuple[Value, Value]:
    """A matrix of bytes and its zero point as uint8: for int8 on the left, no kernel is fast."""
    values, zero = matrix.values, matrix.zero_point
    if zero is None:
        zero = cx.scalar(0, cx.dtype(values))
    if cx.dtype(values) is torch.uint8:
        return values, zero
    return _raised(cx, values), _raised(cx, zero)


def _raised(cx: Rule, values: Value) -> Value:
    """int8 + 128 as uint8."""
    raised: Value = cx.op.Add(cx.cast(values, torch.int32), cx.scalar(128, torch.int32))
    return cx.cast(raised, torch.uint8)


def choose_qparams(
    cx: Rule, input: Value, quant_min: int, quant_max: int, eps: float, dtype: torch.dtype
) -> tuple[Value, Value]:
    """input [*A] -> scale float64 [1] and zero_point int64 [1] that cover its range and 0."""
    least, greatest = _range(cx, input)
    span = cx.op.Sub(greatest, least)
    scale = _at_least(cx, span, float(quant_max - quant_min), eps)
    steps = cx.op.Round(cx.op.Div(least, scale))
    low, high = (cx.scalar(bound, torch.float32) for bound in (quant_min, quant_max))
    zero_point = cx.op.Clip(cx.op.Sub(low, steps), low, high)
    return _params(cx, scale, zero_point)


def choose_qparams_symmetric(
    cx: Rule, input: Value, quant_min: int, quant_max: int, eps: float, dtype: torch.dtype
) -> tuple[Value, Value]:
    """input [*A] -> scale float64 [1] that covers its furthest value, and the middle int64 [1]."""
    least, greatest = _range(cx, input)
    furthest = cx.op.Max(cx.op.Neg(least), greatest)
    scale = _at_least(cx, furthest, (quant_max - quant_min) / 2, eps)
    return _params(cx, scale, cx.scalar(128 if dtype is torch.uint8 else 0, torch.float32))


def _range(cx: Rule, input: Value) -> tuple[Value, Value]:
    """The least value or 0, and the greatest or 0, both float32 []."""
    if cx.dtype(input) is not torch.float32:
        cx.decline(f"the range of {cx.dtype(input)}, in which eager computes the scale")
    zero = cx.scalar(0, torch.float32)
    least = cx.op.Min(cx.op.ReduceMin(input, keepdims=0), zero)
    greatest = cx.op.Max(cx.op.ReduceMax(input, keepdims=0), zero)
    least.dims = greatest.dims = ()
    return least, greatest


def _at_least(cx: Rule, size: Value, steps: float, eps: float) -> Value:
    scale = cx.op.Div(size, cx.scalar(steps, torch.float32))
    return cx.op.Max(scale, cx.scalar(eps, torch.float32))


def _params(cx: Rule, scale: Value, zero_point: Value) -> tuple[Value, Value]:
    scale, zero_point = (cx.reshape(v, (1,)) for v in (scale, zero_point))
    return cx.cast(scale, torch.float64), cx.cast(zero_point, torch.int64)


def _scalar(cx: Rule, number: Operand, dtype: torch.dtype) -> Value:
    """A number or a tensor of one element as a [] of this dtype."""
    return cx.reshape(cx.as_value(number, dtype), ())


def _zero_point(cx: Rule, number: Operand, dtype: torch.dtype) -> Value:
    """[] of the dtype. One in a tensor is within it, as quantizers choose it."""
    least, greatest = _bounds(dtype)
    if isinstance(number, Value):
        return cx.reshape(_zero_points(cx, number, dtype), ())
    if not isinstance(number, int) or not least <= number <= greatest:
        cx.decline(f"a zero point of {number} for {dtype}")
    return cx.scalar(number, dtype)


def _zero_points(cx: Rule, numbers: Value, dtype: torch.dtype) -> Value:
    if cx.dtype(numbers).is_floating_point:
        cx.decline(f"zero points in {cx.dtype(numbers)}, which need not be whole")
    return cx.cast(numbers, dtype)


def _along(cx: Rule, values: Value, rank: int, axis: int | None) -> Value:
    """[C] as [C, 1, 1], to be combined with a tensor that has C at `axis`; [] as it is."""
    if axis is None:
        return values
    return cx.reshape(values, (*values.known_dims, *(1,) * (rank - 1 - axis)))


def _bounds(dtype: torch.dtype) -> tuple[int, int]:
    info = torch.iinfo(dtype)
    return int(info.min), int(info.max)


for _name, _rule in {
    "quantize_per_tensor.default": quantize_per_tensor,
    "quantize_per_tensor.tensor": quantize_per_tensor,
    "quantize_per_channel.default": quantize_per_channel,
    "dequantize_per_tensor.default": dequantize_per_tensor,
    "dequantize_per_tensor.tensor": dequantize_per_tensor,
    "dequantize_per_channel.default": dequantize_per_channel,
    "choose_qparams.tensor": choose_qparams,
    "choose_qparams_symmetric.tensor": choose_qparams_symmetric,
}.items():
    registry.expect(f"quantized_decomposed.{_name}", _rule)
