"""Programs: an ONNX model and what calling it takes, as immutable data. No session, no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import onnx_ir as ir


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output: its ONNX name, element type and shape.

    A dimension is an int, or the text of a symbolic expression (`"s0"`, `"s0*s1"`).
    """

    name: str
    dtype: ir.DataType
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class OutputLayout:
    """How torch's strides come out of a contiguous ONNX output.

    The program writes the output in memory order; `permute` (dims) views it in torch's order.
    Other strides need one copy of the values. `expanded` are dims along which the result repeats
    (stride 0). `restride` holds exact (shape, strides) of anything else; where they depend on sizes
    known at run time, `strides_in` is the position of a further output that computes the strides. A
    complex tensor comes as pairs of reals, in a last dimension that none of these count.
    """

    permute: tuple[int, ...] | None = None
    expanded: tuple[int, ...] = ()
    restride: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    strides_in: int | None = None
    is_complex: bool = False


@dataclass(frozen=True, slots=True)
class Quantization:
    """How a session of the program keeps the weights of its linear layers.

    `bits` are those of an integer, 4 or 8. `accuracy_level` is that of `com.microsoft.MatMulNBits`:
    1 multiplies float32 activations, 4 rounds them to 8 bits at each call.
    """

    bits: int
    accuracy_level: int


@dataclass(frozen=True, slots=True)
class Program:
    """A lowered region. `model` takes every weight as a graph input; nothing in it is ever changed.

    `layouts` has an entry for each result; outputs behind those only compute strides.
    `locations` maps an ONNX node name's prefix (the FX node's name) to the user's `file:line`.
    The model is in float, also with a `quantization`: that waits for the weights.
    """

    model: ir.Model
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    layouts: tuple[OutputLayout, ...]
    fingerprint: str
    node_count: int
    locations: dict[str, str] = field(repr=False)
    quantization: Quantization | None = None


@dataclass(frozen=True, slots=True)
class Signature:
    """The types of an ONNX operator: per formal parameter a type variable or a concrete type.

    The last input repeats if `variadic`; such inputs share one type variable unless `mixed`.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    variadic: bool
    variadic_outputs: bool
    mixed: bool


class Kernels(Protocol):
    """What a set of execution providers can compute."""

    def signature(self, domain: str, op_type: str) -> Signature | None:
        """The operator's types, or None when onnxruntime does not know the operator."""
        ...

    def needed_opset(self, op_type: str) -> int | None:
        """The first opset of ai.onnx that has this operator, if onnxruntime knows one."""
        ...

    def accepts(self, domain: str, op_type: str, types: tuple[tuple[str, str], ...]) -> bool:
        """Is there a kernel for these (type variable, `tensor(...)`) pairs?"""
        ...
