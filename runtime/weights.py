"""Frozen weights: bound into the session in place, and watched for changes at every call.

ONNX Runtime prepacks constant weights, which snapshots them. What can happen to a parameter:
`optimizer.step()`, `load_state_dict` and `p.copy_` raise `p._version`; `p.data = x` moves
`data_ptr()`; `p.data.copy_(x)` changes neither, and is seen in the content: evenly spaced elements
of each weight are compared, bit by bit, with what they were. An edit through `.data` that misses
all of them is not seen; `weights="live"` has no snapshot and needs none of this.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import torch

PROBES = 64  # elements compared per weight; all of them in a small one
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_version = attrgetter("_version")
_pointer = torch.Tensor.data_ptr


class WeightWatch:
    """Remembers the identity, version and sampled content of tensors."""

    __slots__ = ("_keep", "_pointers", "_probes", "_versions")

    def __init__(self, weights: Sequence[Any]) -> None:
        # Keeping the tensors keeps their memory: an equal data_ptr then means the same storage.
        self._keep = [w.detach() for w in weights]
        self._versions = [*map(_version, weights)]
        self._pointers = [*map(_pointer, weights)]
        views: dict[torch.dtype, list[torch.Tensor]] = defaultdict(list)
        for weight in self._keep:
            if weight.numel():
                probe = probe_view(weight)
                views[probe.dtype].append(probe)
        self._probes = [(group, torch.cat(group)) for group in views.values()]

    @property
    def tensors(self) -> list[torch.Tensor]:
        """The frozen tensors, detached."""
        return self._keep

    def unchanged(self, weights: Sequence[Any]) -> bool:
        """Are these the tensors that were frozen, with the content they had?"""
        return (
            [*map(_version, weights)] == self._versions
            and [*map(_pointer, weights)] == self._pointers
            and all(torch.equal(torch.cat(group), snapshot) for group, snapshot in self._probes)
        )


def freezable(weight: torch.Tensor) -> bool:
    """Can changes of this tensor be noticed? Inference tensors count no versions."""
    return not weight.is_inference()


def probe_view(weight: torch.Tensor) -> torch.Tensor:
    """Up to PROBES evenly spaced elements of the memory that a tensor spans, as integers."""
    span = 1 + sum(
        (size - 1) * stride for size, stride in zip(weight.shape, weight.stride(), strict=True)
    )
    bits = _BITS[weight.element_size()]
    count = min(span, PROBES)
    step = max(1, (span - 1) // max(count - 1, 1))
    return weight.as_strided((count,), (step,)).view(bits)
