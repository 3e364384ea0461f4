"""Which providers compute on the devices of a graph's tensors."""

from __future__ import annotations

import importlib

import torch
import torch.fx

from ..lowering.region import Region, device_of, tensors
from ..runtime.errors import Reason
from ..runtime.opened import Places
from ..runtime.providers import TENSORRT, ProviderChoice, providers_on
from .options import Options


class Placing:
    """The user's choice of providers, on each device that a graph has tensors on."""

    def __init__(self, options: Options, graph: torch.fx.Graph) -> None:
        self._chosen = options.chosen_providers()
        self._tensorrt = options.exhaustive and not self._chosen and _has_tensorrt()
        # Beside a GPU's tensors, those of the CPU are none to carry to it.
        self._elsewhere = any(t.device.type != "cpu" for t in tensors(graph.nodes))
        self._found: dict[torch.device, tuple[ProviderChoice, ...] | Reason] = {}

    def reason(self, device: torch.device) -> Reason | None:
        """Why nothing is computed on a device; None where it is."""
        found = self._on(device)
        return found if isinstance(found, Reason) else None

    def providers(self, region: Region) -> tuple[ProviderChoice, ...]:
        """The providers of a region whose nodes all had no reason against their device."""
        found = self._on(self.device(region))
        assert not isinstance(found, Reason)
        return found

    def device(self, region: Region) -> torch.device:
        """Where a region computes."""
        devices = (device_of(node) for node in region.nodes if node.op == "call_function")
        return next((d for d in devices if d is not None), _CPU)

    def places(self, region: Region) -> Places | None:
        """The devices of a region and its inputs and outputs; None if all are the CPU."""
        device = self.device(region)
        inputs = tuple(_device(node) for node in region.inputs)
        if device.type == "cpu" and all(d.type == "cpu" for d in inputs):
            return None
        return Places(device, inputs, tuple(_device(node) for node in region.outputs))

    def _on(self, device: torch.device) -> tuple[ProviderChoice, ...] | Reason:
        if device not in self._found:
            chosen = () if device.type == "cpu" and self._elsewhere else self._chosen
            found = providers_on(device.type, device.index or 0, chosen)
            if self._tensorrt and device.type == "cuda" and not isinstance(found, Reason):
                found = ((TENSORRT, dict(found[0][1])), *found)
            self._found[device] = found
        return self._found[device]


_CPU = torch.device("cpu")


def _device(node: torch.fx.Node) -> torch.device:
    """That of a node's tensor; a size is on the CPU."""
    value = node.meta["val"]
    return value.device if isinstance(value, torch.Tensor) else _CPU


def _has_tensorrt() -> bool:
    """Are TensorRT's own libraries there? onnxruntime-gpu names its provider without them.

    Importing its package loads them for onnxruntime as well.
    """
    try:
        importlib.import_module("tensorrt")
    except (ImportError, OSError):
        return False
    return True
