"""ONNX values as rules see them: typed, with dims that are ints or expressions."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ..runtime.errors import LoweringError, Reason
from .dims import Dims


class Declined(Exception):  # noqa: N818 - not an error: it carries a verdict
    """This node cannot be lowered here, found while lowering it; the verdict is `reason`."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(str(reason))
        self.reason = reason


class NeedsOpset(Declined):
    """This node can be lowered at a later opset than the program's."""

    def __init__(self, reason: Reason, opset: int) -> None:
        super().__init__(reason)
        self.opset = opset


class Value(ir.Value):
    """An ONNX value whose type is known, and whose dims are known unless None.

    `view` remembers that it is a Transpose or Reshape of another value, so that the next view
    starts from there.
    """

    __slots__ = ("dims", "elem", "view")

    def __init__(self, name: str, dtype: ir.DataType, dims: Dims | None) -> None:
        super().__init__(name=name, type=ir.TensorType(dtype))
        self.elem = dtype
        self.dims = dims
        self.view: tuple[str, Value, tuple[int, ...]] | None = None

    @property
    def known_dims(self) -> Dims:
        """The dims, where a rule relies on them."""
        if self.dims is None:
            raise LoweringError(f"a rule relies on the dims of {self.name!r}, which are not known")
        return self.dims

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return len(self.known_dims)


@dataclass(frozen=True, slots=True)
class Complex:
    """A complex tensor: two real values of its dims.

    `pairs` is the same as one real value [*dims, 2], where there is one.
    """

    re: Value
    im: Value
    pairs: Value | None = None

    @property
    def known_dims(self) -> Dims:
        """The dims, where a rule relies on them."""
        return self.re.known_dims

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return self.re.rank
