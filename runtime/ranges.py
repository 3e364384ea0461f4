"""NVTX ranges around the runs of CUDA sessions, for Nsight Systems and its like.

They are asked for by an environment variable. Without it, and on any other device, a session is
called as if this file did not exist.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

import torch

VARIABLE = "DYNAMO_ONNX_NVTX"


class Ranges(Protocol):
    """What marks a range on the timeline of a tool: `torch.cuda.nvtx`, or what stands in for it."""

    def range_push(self, msg: str) -> object:
        """Begin one, within those that last."""
        ...

    def range_pop(self) -> object:
        """End the last one."""
        ...


def wanted_ranges(device: torch.device) -> Ranges | None:
    """What is to mark runs on this device, if anything."""
    asked = os.environ.get(VARIABLE, "0") not in ("", "0")
    return torch.cuda.nvtx if asked and device.type == "cuda" else None


def ranged(run: Callable[..., None], name: str, ranges: Ranges | None) -> Callable[..., None]:
    """The same function, in a range of that name; itself where nobody marks any."""
    if ranges is None:
        return run

    def call(*args: object) -> None:
        ranges.range_push(name)
        try:
            run(*args)
        finally:
            ranges.range_pop()

    return call
