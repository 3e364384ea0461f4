"""Arrays of any library in and out of ONNX Runtime: numpy's, or what speaks DLPack.

An array on the CPU is read in place if it is contiguous. A result is of the library that the call's
first array is of: numpy gets ONNX Runtime's memory as an array that owns it, others by DLPack.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import _pybind_state as ort_c

from ..errors import BundleError

# ONNX's element types, by the names that numpy, ml_dtypes, torch and others give them.
ELEMENT_TYPES = {
    "float32": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7,
    "bool": 9, "float16": 10, "float64": 11, "uint32": 12, "uint64": 13, "complex64": 14,
    "complex128": 15, "bfloat16": 16, "float8_e4m3fn": 17, "float8_e5m2": 19,
}  # fmt: skip
# Those that numpy has itself; others are of the package ml_dtypes.
NUMPYS = frozenset(ELEMENT_TYPES) - {"bfloat16", "float8_e4m3fn", "float8_e5m2"}
NAMES = {number: name for name, number in ELEMENT_TYPES.items()}
REALS = {"complex64": "float32", "complex128": "float64"}  # in pairs, as programs take them


def is_array(value: object) -> bool:
    """Is it an array, of whichever library?"""
    return isinstance(value, (np.ndarray, np.generic)) or hasattr(value, "__dlpack__")


def dtype_of(array: Any) -> str:  # noqa: ANN401 - an array of any library
    """The name of its dtype: `float32`, `bfloat16`."""
    return str(array.dtype).rpartition(".")[2]


def shape_of(array: Any) -> tuple[int, ...]:  # noqa: ANN401 - an array of any library
    """Its sizes."""
    if not is_array(array):
        raise BundleError(f"{type(array).__name__} is given where an array was")
    return tuple(int(size) for size in array.shape)


def number_of(value: Any) -> Any:  # noqa: ANN401 - int, float, bool
    """The number in an array of one element; a number is itself."""
    return value.item() if is_array(value) else value


def as_ort_value(value: Any, element_type: int) -> ort.OrtValue:  # noqa: ANN401 - any library's
    """An array for an input of this element type, in place if it can be.

    Of numbers, programs take a size as an int64 [1] and another one as a float64 [].
    """
    if isinstance(value, ort.OrtValue):
        return value
    if isinstance(value, (bool, int, float)):
        number = np.array(value, np.float64) if isinstance(value, float) else np.array([value])
        return ort.OrtValue.ortvalue_from_numpy(number)
    if not is_array(value):
        raise BundleError(f"{type(value).__name__} is given where an array was")
    found = dtype_of(value)
    if ELEMENT_TYPES.get(REALS.get(found, found)) != element_type:
        raise BundleError(f"{found} is given where {NAMES.get(element_type, '?')} was")
    if isinstance(value, (np.ndarray, np.generic)):
        return _of_numpy(np.asarray(value), found, element_type)
    return _by_dlpack(value, found)


def _of_numpy(array: npt.NDArray[Any], name: str, element_type: int) -> ort.OrtValue:
    array = np.ascontiguousarray(array)
    if name in REALS:
        array = array.view(REALS[name]).reshape(*array.shape, 2)
    if array.dtype.isbuiltin == 1:
        return ort.OrtValue.ortvalue_from_numpy(array)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(
        array.view(f"uint{8 * array.itemsize}"), element_type
    )


def _by_dlpack(value: Any, name: str) -> ort.OrtValue:  # noqa: ANN401 - of any library
    """Not all libraries give all arrays: not those of which a gradient is wanted, for one."""
    if name in REALS:
        raise BundleError(f"{name} is taken as a numpy array")
    given = value.detach() if hasattr(value, "detach") else value
    given = given.contiguous() if hasattr(given, "contiguous") else given
    try:
        capsule = given.__dlpack__()
    except (BufferError, RuntimeError, TypeError) as error:
        raise BundleError(f"an array of {type(value).__module__} is not given: {error}") from error
    return ort.OrtValue(ort_c.OrtValue.from_dlpack(capsule))


def library_of(arrays: Iterable[Any]) -> str:
    """The library of the first array."""
    return next((type(a).__module__.partition(".")[0] for a in arrays if is_array(a)), "numpy")


def from_ort_value(value: ort.OrtValue, library: str) -> Any:  # noqa: ANN401 - of that library
    """A result as an array of the library, in ONNX Runtime's memory."""
    module: Any = sys.modules.get(library)
    if library != "numpy" and hasattr(module, "from_dlpack"):
        return module.from_dlpack(value._ortvalue)  # noqa: SLF001 - it has __dlpack__
    return as_numpy(value)


def as_numpy(value: ort.OrtValue) -> npt.NDArray[Any]:
    """A result as a numpy array; bfloat16 and float8 are ml_dtypes', where that is installed."""
    name = NAMES.get(value.element_type(), "?")
    if name in NUMPYS:
        return value.numpy()
    try:
        import ml_dtypes
    except ImportError as error:
        raise BundleError(f"{name} in numpy takes the package ml_dtypes") from error
    dtype = np.dtype(getattr(ml_dtypes, name))
    shape = tuple(value.shape())
    count = int(np.prod(shape)) * dtype.itemsize
    pointer = ctypes.cast(value.data_ptr(), ctypes.POINTER(ctypes.c_uint8))
    held = np.ctypeslib.as_array(pointer, (count,)) if count else np.empty(0, np.uint8)
    return held.copy().view(dtype).reshape(shape)


def as_complex(array: Any) -> Any:  # noqa: ANN401 - of any library
    """Pairs of reals as complex numbers."""
    if isinstance(array, np.ndarray):
        dtype = np.complex64 if array.dtype == np.float32 else np.complex128
        return np.ascontiguousarray(array).view(dtype)[..., 0]
    return sys.modules[type(array).__module__.partition(".")[0]].view_as_complex(array)


def memory_of(array: Any) -> tuple[int, int]:  # noqa: ANN401 - an array of any library
    """The first and the last address of an array's elements, as far as the library tells."""
    if 0 in array.shape:
        return 0, 0
    if isinstance(array, np.ndarray):
        return np.lib.array_utils.byte_bounds(array)
    if hasattr(array, "data_ptr"):
        start = int(array.data_ptr())
        steps = zip(array.shape, array.stride(), strict=True)
        reach = sum((size - 1) * step for size, step in steps if size > 1)
        return start, start + (reach + 1) * array.element_size()
    return id(array), id(array) + 1


def overwrite(target: Any, value: Any) -> None:  # noqa: ANN401 - arrays of one library
    """Write a result into an argument that the model writes to."""
    target[...] = value
