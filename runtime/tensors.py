"""Tensors in and out of ONNX Runtime, and who owns which memory until when.

- An input is torch's memory. The feed vector points into it; the tensors are referenced until the
  run has returned, so nothing is freed under the session. A non-contiguous input is copied once.
- An output is ONNX Runtime's memory, handed to torch by DLPack: the tensor's deleter gives it back.
- A frozen weight is torch's memory, which lives as long as the session. See `initializers.py` and
  `weights.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

import onnx_ir as ir
import onnxruntime as ort
import torch
from onnxruntime.capi import _pybind_state as ort_c
from torch.utils.dlpack import to_dlpack  # pyright: ignore[reportPrivateImportUsage] - documented

CPU_DEVICE = ort_c.OrtDevice(ort_c.OrtDevice.cpu(), ort_c.OrtDevice.default_memory(), 0)

# What `OrtValueVector.push_back_batch` takes as element types; others go through DLPack.
_BATCH_TYPES: dict[ir.DataType, type] = {
    dtype: dtype.numpy().type
    for dtype in (
        ir.DataType.FLOAT,
        ir.DataType.DOUBLE,
        ir.DataType.FLOAT16,
        ir.DataType.BOOL,
        ir.DataType.INT64,
        ir.DataType.INT32,
        ir.DataType.INT16,
        ir.DataType.INT8,
        ir.DataType.UINT64,
        ir.DataType.UINT32,
        ir.DataType.UINT16,
        ir.DataType.UINT8,
    )
}


TORCH_TYPES: dict[ir.DataType, torch.dtype] = {
    ir.DataType.BFLOAT16: torch.bfloat16,
    **{dtype: getattr(torch, type_.__name__) for dtype, type_ in _BATCH_TYPES.items()},
}

_pointer, _shape = torch.Tensor.data_ptr, attrgetter("shape")


def ort_device(device: torch.device) -> ort_c.OrtDevice:
    """As onnxruntime calls a device: with its vendor, by which it finds allocators."""
    if device.type == "cpu":
        return CPU_DEVICE
    made = ort.OrtDevice.make(device.type, device.index or 0)
    return made._get_c_device()  # noqa: SLF001


class Feeder:
    """Binds the inputs of one session, call after call."""

    __slots__ = ("_devices", "_types")

    def __init__(self, dtypes: Sequence[ir.DataType], devices: Sequence[torch.device]) -> None:
        types = [_BATCH_TYPES[d] for d in dtypes if d in _BATCH_TYPES]
        self._types = types if len(types) == len(dtypes) else None
        self._devices = [*map(ort_device, devices)]

    def feed(self, tensors: Sequence[torch.Tensor]) -> ort_c.OrtValueVector:
        """Values that point into contiguous tensors, which the caller keeps alive over the run."""
        vector = ort_c.OrtValueVector()
        if self._types is not None:
            pointers = [*map(_pointer, tensors)]
            if 0 not in pointers:
                shapes = [*map(_shape, tensors)]
                vector.push_back_batch(tensors, pointers, self._types, shapes, self._devices)
                return vector
        vector.reserve(len(tensors))
        for tensor in tensors:
            vector.push_back(to_dlpack(tensor))
        return vector


def ort_value(tensor: torch.Tensor) -> ort.OrtValue:
    """An OrtValue over a contiguous tensor's memory, which it keeps alive."""
    return ort.OrtValue(ort_c.OrtValue.from_dlpack(to_dlpack(tensor.detach())))


def as_input(value: torch.Tensor | float) -> torch.Tensor:
    """A size as an int64 [1] tensor, another number as a float64 [].

    Complex numbers become pairs of reals; other tensors stay as they are.
    """
    if isinstance(value, int):
        return torch.tensor([value], device="cpu")
    if isinstance(value, float):
        return torch.tensor(value, dtype=torch.float64, device="cpu")
    return torch.view_as_real(value.resolve_conj()) if value.is_complex() else value


def repeat_in_place(tensor: torch.Tensor, dims: Sequence[int]) -> torch.Tensor:
    """The same values in a new tensor, dense but for stride 0 along `dims`, where they repeat."""
    strides = [0] * tensor.dim()
    step = 1
    for dim in sorted(range(tensor.dim()), key=tensor.stride):
        if dim not in dims:
            strides[dim] = step
            step *= max(tensor.shape[dim], 1)
    return restride(tensor, tensor.shape, strides)


def restride(tensor: torch.Tensor, shape: Sequence[int], strides: Sequence[int]) -> torch.Tensor:
    """The same values in a new tensor with exactly these strides (0 for an expanded dimension)."""
    out = torch.empty_strided(shape, strides, dtype=tensor.dtype, device=tensor.device)
    target, source = out, tensor
    for axis, stride in enumerate(strides):
        if stride == 0 and shape[axis] > 1:
            target, source = target.narrow(axis, 0, 1), source.narrow(axis, 0, 1)
    target.copy_(source)
    return out
