"""What makes two regions the same program: a list of named entries, hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import onnx_ir
import torch
import torch.fx

from .dims import SymbolNames, dim_of, dims_of
from .region import Region, constant_tensor
from .registry import Registry

FORMAT = 1


def fingerprint_entries(
    region: Region, *, registry: Registry, settings: Mapping[str, object]
) -> dict[str, str]:
    """Named entries: each can be logged, and each changes the fingerprint.

    Node names, symbol numbers and source lines are noise and stay out.
    """
    names = SymbolNames()
    numbers: dict[torch.fx.Node, str] = {}
    inputs: list[str] = []
    for index, node in enumerate(region.inputs):
        numbers[node] = f"%in{index}"
        inputs.append(_describe(node.meta["val"], names, strides=False))
    constants = hashlib.sha256()
    lines: list[str] = []
    for index, node in enumerate(region.nodes):
        numbers[node] = f"%{index}"
        tensor = constant_tensor(node)
        if tensor is not None:
            constants.update(str(tensor.dtype).encode())
            constants.update(str(tuple(tensor.shape)).encode())
            flat = tensor.detach().contiguous().reshape(-1)
            constants.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
            lines.append("constant")
            continue
        args = _text(node.args, numbers, names)
        kwargs = _text(node.kwargs, numbers, names)
        lines.append(
            f"{node.target}{args}{kwargs}->{_describe(node.meta['val'], names, strides=False)}"
        )
    outputs = [
        f"{numbers[node]}:{_describe(node.meta['val'], names, strides=True)}"
        for node in region.outputs
    ]
    return {
        "format": str(FORMAT),
        "torch": torch.__version__,
        "onnx_ir": onnx_ir.__version__,
        "rules": str(registry.version),
        **{name: repr(value) for name, value in settings.items()},
        "inputs": "\n".join(inputs),
        "nodes": "\n".join(lines),
        "constants": constants.hexdigest(),
        "outputs": "\n".join(outputs),
    }


def fingerprint(entries: Mapping[str, str]) -> str:
    """sha256 of the entries, hexadecimal."""
    digest = hashlib.sha256()
    for name, value in entries.items():
        digest.update(f"{name}={len(value)}:{value}\0".encode())
    return digest.hexdigest()


def _describe(val: Any, names: SymbolNames, *, strides: bool) -> str:  # noqa: ANN401 - meta["val"]
    if isinstance(val, torch.Tensor):
        dims = [names.canonical(d) for d in dims_of(val.shape)]
        steps = [names.canonical(d) for d in dims_of(val.stride())] if strides else ""
        return f"{val.dtype}{dims}{steps}"
    if isinstance(val, (torch.SymInt, int)) and not isinstance(val, bool):
        return f"size {names.canonical(dim_of(val))}"
    if isinstance(val, (tuple, list)):
        items: Iterable[Any] = val
        return "(" + ", ".join(_describe(v, names, strides=strides) for v in items) + ")"
    return str(type(val).__name__)


def _text(arg: object, numbers: dict[torch.fx.Node, str], names: SymbolNames) -> str:
    if isinstance(arg, torch.fx.Node):
        return numbers.get(arg) or _describe(arg.meta["val"], names, strides=False)
    if isinstance(arg, (list, tuple)):
        return "[" + ", ".join(_text(a, numbers, names) for a in arg) + "]"
    if isinstance(arg, dict):
        return "{" + ", ".join(f"{k}: {_text(v, numbers, names)}" for k, v in arg.items()) + "}"
    return repr(arg)
