"""Frozen weights: bound into the session in place, and watched for changes at every call.

ONNX Runtime prepacks constant weights, which snapshots them. What can happen to a parameter:
`optimizer.step()`, `load_state_dict` and `p.copy_` raise `p._version`; `p.data = x` moves
`data_ptr()`; `p.data.copy_(x)` changes neither, and is seen in the content: evenly spaced cache
lines of each weight are compared, bit by bit, with what they were. An edit through `.data` that
misses all of them is not seen; `weights="live"` has no snapshot and needs none of this. Of a weight
on another device only version and address are compared; it is frozen only where the user asks so.

Lines and not elements, because the run before has pushed the weights out of the cache: what a check
costs is the lines that it reads.
"""

from __future__ import annotations

import ctypes
from collections import defaultdict
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import torch

LINE_BYTES = 64
LINES = 8  # compared per weight; the whole of one that is no longer
_version = attrgetter("_version")
_pointer = torch.Tensor.data_ptr


class WeightWatch:
    """Remembers the identity and version of tensors, and sampled content of those on the CPU."""

    __slots__ = ("_keep", "_pointers", "_samples", "_versions")

    def __init__(self, weights: Sequence[Any]) -> None:
        # Keeping the tensors keeps their memory: an equal data_ptr then means the same storage.
        self._keep = [w.detach() for w in weights]
        self._versions = [*map(_version, weights)]
        self._pointers = [*map(_pointer, weights)]
        addresses: dict[int, list[np.ndarray[Any, Any]]] = defaultdict(list)
        for weight in self._keep:
            for size_bytes, places in probe_addresses(weight):
                addresses[size_bytes].append(places)
        self._samples = [_Sample(s, np.concatenate(a)) for s, a in addresses.items()]

    @property
    def tensors(self) -> list[torch.Tensor]:
        """The frozen tensors, detached."""
        return self._keep

    def unchanged(self, weights: Sequence[Any]) -> bool:
        """Are these the tensors that were frozen, with the content they had?"""
        return (
            [*map(_version, weights)] == self._versions
            and [*map(_pointer, weights)] == self._pointers
            and all(sample.read() == sample.before for sample in self._samples)
        )


class _Sample:
    """Pieces of memory of one size at fixed addresses, read in one gather.

    A numpy view over the whole span from the first address to the last makes that one call, some
    forty times sooner than joining a view of each weight. Only addresses inside tensors that the
    watch keeps alive are ever read; what lies between them is not touched.
    """

    __slots__ = ("_memory", "_places", "before")

    def __init__(self, size_bytes: int, addresses: np.ndarray[Any, Any]) -> None:
        first = int(addresses.min())
        span = int(addresses.max()) - first + size_bytes
        raw = (ctypes.c_uint8 * span).from_address(first)
        self._memory = np.ctypeslib.as_array(raw).view(f"V{size_bytes}")
        self._places = (addresses - first) // size_bytes
        self.before = self.read()

    def read(self) -> bytes:
        """The bits now."""
        return self._memory.take(self._places).tobytes()


def freezable(weight: torch.Tensor, *, unsampled: bool) -> bool:
    """Can changes of this tensor be noticed? Inference tensors count no versions.

    The content of one on another device than the CPU is not sampled, for which a call would have
    to wait for the device: `unsampled` says whether that will do. A complex one would be frozen as
    what it is not, pairs of reals.
    """
    plain = not weight.is_inference() and not weight.is_complex()
    return plain and (unsampled or weight.device.type == "cpu")


def probe_addresses(weight: torch.Tensor) -> list[tuple[int, np.ndarray[Any, Any]]]:
    """Sizes in bytes, and the addresses of pieces of that size to compare, which divide by it.

    Whole lines of the memory that the tensor spans, whatever its strides: LINES of them, evenly
    spaced; all of one that has no more.
    """
    if weight.numel() == 0 or weight.device.type != "cpu":
        return []
    elements = 1 + sum(
        (size - 1) * stride for size, stride in zip(weight.shape, weight.stride(), strict=True)
    )
    start = weight.data_ptr()
    end = start + elements * weight.element_size()
    first, last = -(-start // LINE_BYTES), end // LINE_BYTES  # whole lines, `last` excluded
    if last - first > LINES:
        return [(LINE_BYTES, np.linspace(first, last - 1, LINES).astype(np.int64) * LINE_BYTES)]
    return [*_pieces(start, end, (LINE_BYTES, 8, 1))]


def _pieces(
    start: int, end: int, sizes: Sequence[int]
) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
    """All of [start, end), each part of it in the largest pieces that are aligned there."""
    if start >= end:
        return
    size, *smaller = sizes
    first, last = -(-start // size) * size, end // size * size
    if first >= last:
        yield from _pieces(start, end, smaller)
        return
    yield size, np.arange(first, last, size)
    yield from _pieces(start, first, smaller)
    yield from _pieces(last, end, smaller)
