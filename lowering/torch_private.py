"""Every private torch name that lowering uses, with the torch versions it was seen in."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch._ops import (
    HigherOrderOperator,  # 2.11-2.13: the type of `torch.ops.higher_order.cond`
    OpOverload,  # 2.11-2.13: the type of `torch.ops.aten.add.Tensor`
)

__all__ = [
    "HigherOrderOperator",
    "OpOverload",
    "new_recorder",
    "onnx_operator",
    "symbolic_tensor_class",
    "torchlib_functions",
]


@cache
def _torchlib() -> Any:  # noqa: ANN401 - a private class
    """torchlib's registry. Filling it takes about 0.3 s, so it waits for the first need."""
    from torch.onnx._internal.exporter import _registration

    logger = logging.getLogger(_registration.__name__)
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns of an absent torchvision, whatever is asked for
    try:
        return _registration.ONNXRegistry.from_torchlib()
    finally:
        logger.setLevel(level)


def torchlib_functions(op: OpOverload) -> list[Callable[..., object]]:
    """torchlib's functions for an overload (real ones; complex variants left out). 2.11-2.13."""
    return [d.onnx_function for d in _torchlib().get_decomps(op) if not d.is_complex]


def new_recorder(opset: int):  # noqa: ANN201 - a private class
    """An onnxscript evaluator that records nodes. 2.11-2.13."""
    import onnxscript.values
    from torch.onnx._internal.exporter import _building

    return _building.OpRecorder(onnxscript.values.Opset("", opset), {})


def symbolic_tensor_class():  # noqa: ANN201 - a private class
    """The ir.Value subclass that torchlib's functions take as tensors. 2.11-2.13."""
    from torch.onnx._internal.exporter import _tensors

    return _tensors.SymbolicTensor


def onnx_operator(name: str, overload: str) -> OpOverload:
    """One of the operators that `torch.onnx.ops` defines. 2.11-2.13."""
    importlib.import_module("torch.onnx.ops")
    namespace, _, op = name.partition("::")
    return getattr(getattr(getattr(torch.ops, namespace), op), overload)
