"""Execution providers: names, availability, and what to install for one that is missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import onnxruntime as ort

from .errors import OptionError

ProviderChoice: TypeAlias = tuple[str, dict[str, Any]]

_SHORT_NAMES = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "dml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
}
_PACKAGES = {
    "CUDAExecutionProvider": "onnxruntime-gpu",
    "TensorrtExecutionProvider": "onnxruntime-gpu",
    "OpenVINOExecutionProvider": "onnxruntime-openvino",
    "DmlExecutionProvider": "onnxruntime-directml",
}

# The streams and allocators of a CUDA device are not handled yet.
_ON_CUDA = frozenset({"CUDAExecutionProvider", "TensorrtExecutionProvider"})


def choose_providers(
    wanted: Sequence[str | tuple[str, dict[str, Any]]], options: Sequence[dict[str, Any]]
) -> tuple[ProviderChoice, ...]:
    """Full names with their options, each checked to be there; CPU when nothing is wanted."""
    if options and len(options) != len(wanted):
        raise OptionError(
            f"provider_options has {len(options)} entries for {len(wanted)} providers; "
            f"give one dict per provider"
        )
    available = ort.get_available_providers()
    chosen: list[ProviderChoice] = []
    for index, entry in enumerate(wanted or ["CPUExecutionProvider"]):
        name, own = (entry, {}) if isinstance(entry, str) else entry
        full = _SHORT_NAMES.get(name.lower(), name)
        if full not in available:
            package = _PACKAGES.get(full)
            hint = f"; it comes with the package {package}" if package else ""
            raise OptionError(
                f"provider {name!r} is not available: this onnxruntime {ort.__version__} has "
                f"{', '.join(available)}{hint}"
            )
        if full in _ON_CUDA:
            raise OptionError(
                f"provider {name!r} computes on CUDA devices, which this version does not support "
                f"yet; it runs on {', '.join(p for p in available if p not in _ON_CUDA)}"
            )
        chosen.append((full, {**own, **(options[index] if options else {})}))
    return tuple(chosen)


def device_type(providers: Sequence[ProviderChoice]) -> str:
    """The torch device type on which a choice of providers computes."""
    return "cuda" if any(name in _ON_CUDA for name, _ in providers) else "cpu"
