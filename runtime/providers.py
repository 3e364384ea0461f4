"""Execution providers: names, availability, plugins, and what to install for a missing one."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import onnxruntime as ort

from .errors import OptionError, Reason, ReasonKind

ProviderChoice: TypeAlias = tuple[str, dict[str, Any]]

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
TENSORRT_RTX = "NvTensorRTRTXExecutionProvider"


@dataclass(frozen=True, slots=True)
class _Known:
    """A provider, what else it is called, and the package that brings it.

    A `module` is one of a plugin: it has `get_library_path()`, for onnxruntime to load. `memory` is
    the torch device type whose tensors it reads in place.
    """

    name: str
    short: tuple[str, ...]
    package: str
    module: str = ""
    memory: str = "cpu"


_KNOWN = (
    _Known(CPU, ("cpu",), "onnxruntime"),
    _Known(CUDA, ("cuda",), "onnxruntime-gpu", memory="cuda"),
    _Known(TENSORRT, ("tensorrt",), "onnxruntime-gpu", memory="cuda"),
    _Known(
        TENSORRT_RTX,
        ("nvtensorrtrtx", "tensorrt-rtx"),
        "onnxruntime-ep-nv-tensorrt-rtx",
        "onnxruntime_ep_nv_tensorrt_rtx",
        memory="cuda",
    ),
    _Known(
        "OpenVINOExecutionProvider",
        ("openvino",),
        "onnxruntime-ep-openvino",
        "onnxruntime_ep_openvino",
    ),
    _Known("DmlExecutionProvider", ("dml", "directml"), "onnxruntime-directml"),
    _Known("CoreMLExecutionProvider", ("coreml",), "onnxruntime (on macOS)"),
    # torch calls the GPUs of ROCm "cuda" as well.
    _Known("ROCMExecutionProvider", ("rocm",), "onnxruntime-rocm", memory="cuda"),
    _Known("MIGraphXExecutionProvider", ("migraphx",), "onnxruntime-migraphx", memory="cuda"),
    _Known(
        "WebGpuExecutionProvider", ("webgpu",), "onnxruntime-ep-webgpu", "onnxruntime_ep_webgpu"
    ),
    _Known("QNNExecutionProvider", ("qnn",), "onnxruntime-qnn", "onnxruntime_qnn"),
    _Known("CANNExecutionProvider", ("cann",), "onnxruntime-cann"),
)
_BY_NAME = {known.name: known for known in _KNOWN}
_FULL_NAMES = {short: known.name for known in _KNOWN for short in known.short}

# Of a plugin's options these are ours: they choose among the devices that it offers.
_DEVICE_TYPE, _DEVICE_ID = "device_type", "device_id"


def choose_providers(
    wanted: Sequence[str | tuple[str, dict[str, Any]]], options: Sequence[dict[str, Any]]
) -> tuple[ProviderChoice, ...]:
    """Full names with their options, each checked to be there.

    The plugin of an installed package is loaded when it is wanted; another one is there once
    `onnxruntime.register_execution_provider_library` has loaded it.
    """
    if options and len(options) != len(wanted):
        raise OptionError(
            f"provider_options has {len(options)} entries for {len(wanted)} providers; "
            f"give one dict per provider"
        )
    chosen: list[ProviderChoice] = []
    for index, entry in enumerate(wanted):
        name, own = (entry, {}) if isinstance(entry, str) else entry
        full = _FULL_NAMES.get(name.lower(), name)
        given = {**own, **(options[index] if options else {})}
        _check(name, full)
        if full in plugins():
            _plugin_devices(full, given)
        chosen.append((full, given))
    return tuple(chosen)


def _check(name: str, full: str) -> None:
    available = _available()
    known = _BY_NAME.get(full)
    if full not in available and known is not None and known.module:
        _load_plugin(known)
        available = _available()
    if full not in available:
        hint = f"; it comes with the package {known.package}" if known is not None else ""
        raise OptionError(
            f"provider {name!r} is not available: this onnxruntime {ort.__version__} has "
            f"{', '.join(available)}{hint}"
        )


def _available() -> list[str]:
    return [*ort.get_available_providers(), *sorted(plugins())]


def plugins() -> set[str]:
    """The providers that onnxruntime has loaded from libraries of their own."""
    if not hasattr(ort, "get_ep_devices"):
        return set()
    return {device.ep_name for device in ort.get_ep_devices()} - {*ort.get_available_providers()}


def _load_plugin(known: _Known) -> None:
    """Have onnxruntime load the plugin of a package, if that is installed."""
    if importlib.util.find_spec(known.module) is None:
        return
    library = importlib.import_module(known.module).get_library_path()
    try:
        ort.register_execution_provider_library(known.name, library)
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise OptionError(
            f"provider {known.name}: onnxruntime {ort.__version__} does not load {library}: {error}"
        ) from error


def _plugin_devices(name: str, own: dict[str, Any]) -> list[Any]:
    """The device of a plugin that its options choose: a CPU, or else the first one."""
    devices = [device for device in ort.get_ep_devices() if device.ep_name == name]
    kinds = [device.device.type.name.lower() for device in devices]
    wanted = str(own.get(_DEVICE_TYPE, "cpu" if "cpu" in kinds else kinds[0])).lower()
    matching = [d for d, kind in zip(devices, kinds, strict=True) if kind == wanted]
    number = int(own.get(_DEVICE_ID, 0))
    if not 0 <= number < len(matching):
        offered = ", ".join(f"{k} {kinds[:i].count(k)}" for i, k in enumerate(kinds))
        raise OptionError(
            f"provider {name} has no device {wanted} {number} here: it offers {offered}; choose by "
            f"the provider options {_DEVICE_TYPE!r} and {_DEVICE_ID!r}"
        )
    return [matching[number]]


def as_onnxruntime_takes(
    options: ort.SessionOptions, providers: Sequence[ProviderChoice]
) -> list[ProviderChoice] | None:
    """The providers for `InferenceSession`; None where the options have them now.

    onnxruntime takes the providers of plugins by their devices, and then all of them like that.
    """
    loaded = plugins()
    if not any(name in loaded for name, _ in providers):
        return list(providers)
    for name, own in providers:
        if name in loaded:
            rest = {k: str(v) for k, v in own.items() if k not in (_DEVICE_TYPE, _DEVICE_ID)}
            options.add_provider_for_devices(_plugin_devices(name, own), rest)
        elif name != CPU:  # which is always there, as the last
            options.add_provider(name, {k: str(v) for k, v in own.items()})
    return None


def providers_on(
    memory: str, index: int, chosen: Sequence[ProviderChoice]
) -> tuple[ProviderChoice, ...] | Reason:
    """Those of the chosen providers for tensors of a torch device, or the device's own ones.

    Every provider takes tensors of the CPU. With a Reason, none takes those of this device.
    """
    if memory == "cpu":
        return tuple(chosen) or ((CPU, {}),)
    where = f"a tensor on {memory}:{index}"
    usable = [(name, own) for name, own in chosen if memory_of(name) in (memory, "cpu")]
    if chosen and not any(memory_of(name) == memory for name, _ in usable):
        names = ", ".join(name for name, _ in chosen)
        return Reason(ReasonKind.DEVICE, f"{where}, where {names} does not compute")
    if not chosen:
        known = next((known for known in _KNOWN if known.memory == memory), None)
        available = _available()
        if known is None or known.name not in available:
            hint = f"{known.name} comes with the package {known.package}" if known else ""
            detail = f"{where}; this onnxruntime {ort.__version__} has {', '.join(available)}"
            return Reason(ReasonKind.DEVICE, detail, hint)
        usable = [(known.name, {})]
    placed: list[ProviderChoice] = []
    for name, own in usable:
        if memory_of(name) != memory:
            placed.append((name, own))
            continue
        wanted = int(own.get(_DEVICE_ID, index))
        if wanted != index:
            return Reason(ReasonKind.DEVICE, f"{where}; {name} was given {_DEVICE_ID} {wanted}")
        placed.append((name, {**own, _DEVICE_ID: index}))
    return tuple(placed)


def memory_of(name: str) -> str:
    """The torch device type of the tensors that a provider reads in place."""
    known = _BY_NAME.get(name)
    return "cpu" if known is None else known.memory
