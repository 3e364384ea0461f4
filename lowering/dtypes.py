"""torch dtypes, ONNX element types, and which wider type computes the same answer."""

from __future__ import annotations

import onnx_ir as ir
import torch

TO_ONNX: dict[torch.dtype, ir.DataType] = {
    torch.float32: ir.DataType.FLOAT,
    torch.float64: ir.DataType.DOUBLE,
    torch.float16: ir.DataType.FLOAT16,
    torch.bfloat16: ir.DataType.BFLOAT16,
    torch.int64: ir.DataType.INT64,
    torch.int32: ir.DataType.INT32,
    torch.int16: ir.DataType.INT16,
    torch.int8: ir.DataType.INT8,
    torch.uint8: ir.DataType.UINT8,
    torch.uint16: ir.DataType.UINT16,
    torch.uint32: ir.DataType.UINT32,
    torch.uint64: ir.DataType.UINT64,
    torch.bool: ir.DataType.BOOL,
}
# A complex tensor is two real ones.
REAL: dict[torch.dtype, torch.dtype] = {
    torch.complex64: torch.float32,
    torch.complex128: torch.float64,
}
TO_TORCH: dict[ir.DataType, torch.dtype] = {onnx: t for t, onnx in TO_ONNX.items()}

# Computing in the wider type and converting the result back is what eager does (16-bit floats
# are computed in float32 and rounded once per op) or is exact (integers: ONNX Runtime's Cast
# wraps as torch's does). float64 has no wider type: it must never pass through float32.
WIDER: dict[ir.DataType, ir.DataType] = {
    ir.DataType.FLOAT16: ir.DataType.FLOAT,
    ir.DataType.BFLOAT16: ir.DataType.FLOAT,
    ir.DataType.INT8: ir.DataType.INT32,
    ir.DataType.UINT8: ir.DataType.INT32,
    ir.DataType.INT16: ir.DataType.INT32,
    ir.DataType.UINT16: ir.DataType.INT32,
    ir.DataType.INT32: ir.DataType.INT64,
    ir.DataType.UINT32: ir.DataType.INT64,
}

_TYPE_NAMES: dict[ir.DataType, str] = {
    ir.DataType.FLOAT: "tensor(float)",
    ir.DataType.DOUBLE: "tensor(double)",
    ir.DataType.FLOAT16: "tensor(float16)",
    ir.DataType.BFLOAT16: "tensor(bfloat16)",
    ir.DataType.INT64: "tensor(int64)",
    ir.DataType.INT32: "tensor(int32)",
    ir.DataType.INT16: "tensor(int16)",
    ir.DataType.INT8: "tensor(int8)",
    ir.DataType.UINT8: "tensor(uint8)",
    ir.DataType.UINT16: "tensor(uint16)",
    ir.DataType.UINT32: "tensor(uint32)",
    ir.DataType.UINT64: "tensor(uint64)",
    ir.DataType.BOOL: "tensor(bool)",
}
_TYPES_BY_NAME = {name: dtype for dtype, name in _TYPE_NAMES.items()}


def type_name(dtype: ir.DataType) -> str:
    """FLOAT -> "tensor(float)", the spelling of operator schemas and kernel registries."""
    return _TYPE_NAMES[dtype]


def type_of_name(name: str) -> ir.DataType | None:
    """FLOAT from "tensor(float)"; None for a type variable or a type that no tensor of ours has."""
    return _TYPES_BY_NAME.get(name)


def lowest(dtype: torch.dtype) -> float | int:
    """The least finite value of a real dtype."""
    return torch.finfo(dtype).min if dtype.is_floating_point else torch.iinfo(dtype).min


def highest(dtype: torch.dtype) -> float | int:
    """The greatest finite value of a real dtype."""
    return torch.finfo(dtype).max if dtype.is_floating_point else torch.iinfo(dtype).max


def opmath(dtype: torch.dtype) -> torch.dtype:
    """What eager computes one op of this dtype in: float32 for 16-bit floats, else dtype itself."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
