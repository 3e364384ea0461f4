"""Quantized weights: blocks of integers with a scale each, made from tensors and shared.

A block is BLOCK weights in a row along the input features. Its scale maps the weight that is
furthest from 0 to the least integer, so that the others lie within the range, one of the same size
and the other sign aside, which is rounded to the greatest. There is no zero point: onnxruntime's
AVX2 kernel for one row (1.32) computes wrong results with one.
Ref: https://github.com/microsoft/onnxruntime/issues/29853
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakValueDictionary

import torch

from .locks import ProcessLock
from .weights import WeightWatch

BLOCK = 32
CHUNK_ELEMENTS = 1 << 18  # quantized at a time, so that temporaries stay in the cache


@dataclass(frozen=True, slots=True, weakref_slot=True)
class QuantizedWeight:
    """A weight [N, K] as `com.microsoft.MatMulNBits` reads it.

    `features` are N and K. `packed` is uint8 [N, blocks, block * bits / 8], lower bits first,
    `scales` float32 [N, blocks]. `error` is |W - dequantized| / |W|. `watch` tells whether the
    weight is still what it was.
    """

    features: tuple[int, int]
    bits: int
    block: int
    packed: torch.Tensor
    scales: torch.Tensor
    error: float
    watch: WeightWatch

    @property
    def size_bytes(self) -> int:
        """What it occupies."""
        return self.packed.nbytes + self.scales.nbytes


class QuantizedWeights:
    """Those in use, by what they were made from: sessions over one weight share one of them.

    Held weakly: a weight stays as long as a session has it. A session's own watch keeps the tensor
    alive that long, so an equal address means the same memory.
    """

    def __init__(self) -> None:
        self._made: WeakValueDictionary[object, QuantizedWeight] = WeakValueDictionary()
        self._lock = ProcessLock()

    def of(self, weight: torch.Tensor, bits: int) -> QuantizedWeight | None:
        """The quantized form of a weight [N, K]; None if the weight has NaN or infinity in it."""
        return self._find([weight], bits, lambda: quantize(weight, bits))

    def of_integers(
        self, values: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor | None, block: int
    ) -> QuantizedWeight | None:
        """int8 [N, K] in 4 bits, with float32 scales [N, groups]; None if they are not enough.

        A group is one block or several. A zero point that is not 0 cannot be kept.
        """
        tensors = [values, scales, *([] if zeros is None else [zeros])]
        return self._find(tensors, block, lambda: pack_integers(values, scales, zeros, block))

    def _find(
        self, tensors: list[torch.Tensor], how: int, make: Callable[[], QuantizedWeight | None]
    ) -> QuantizedWeight | None:
        key = (how, *((t.data_ptr(), t.dtype, t.shape, t.stride()) for t in tensors))
        with self._lock():
            found = self._made.get(key)
            if found is not None and found.watch.unchanged(tensors):
                return found
            made = make()
            if made is not None:
                self._made[key] = made
            return made

    def clear(self) -> None:
        """Share none of them any longer."""
        with self._lock():
            self._made.clear()


def quantize(weight: torch.Tensor, bits: int) -> QuantizedWeight | None:
    """A weight [N, K] in 4 or 8 bits; None if it has NaN or infinity in it."""
    watch = WeightWatch([weight])  # before it is read: a change in between is then noticed
    n, k = weight.shape
    blocks = -(-k // BLOCK)
    packed = torch.empty(n, blocks, BLOCK * bits // 8, dtype=torch.uint8, device="cpu")
    scales = torch.empty(n, blocks, dtype=torch.float32, device="cpu")
    rows = max(1, CHUNK_ELEMENTS // k)
    squares = lost = 0.0
    for first in range(0, n, rows):
        part = slice(first, first + rows)
        padded = scales.new_zeros(len(scales[part]), blocks * BLOCK)
        padded[:, :k] = weight.detach()[part]
        values = padded.view(-1, blocks, BLOCK)
        integers, scale = _round(values, bits)
        if not scale.isfinite().all():
            return None
        scales[part] = scale.squeeze(-1)
        packed[part] = _pack(integers, bits)
        squares += values.square().sum(dtype=torch.float64).item()
        lost += (integers * scale - values).square().sum(dtype=torch.float64).item()
    error = (lost / squares) ** 0.5 if squares else 0.0
    return QuantizedWeight((n, k), bits, BLOCK, packed, scales, error, watch)


def pack_integers(
    values: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor | None, block: int
) -> QuantizedWeight | None:
    """See `QuantizedWeights.of_integers`."""
    watch = WeightWatch([values, scales, *([] if zeros is None else [zeros])])
    n, k = values.shape
    least, greatest = values.aminmax()
    if least < -8 or greatest > 7 or (zeros is not None and bool(zeros.any())):
        return None
    if not scales.isfinite().all():
        return None
    blocks = values.detach().reshape(n, k // block, block)
    by_block = scales.detach().reshape(n, -1).repeat_interleave(k // block * n // scales.numel(), 1)
    return QuantizedWeight((n, k), 4, block, _pack(blocks, 4), by_block.contiguous(), 0.0, watch)


def _round(values: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Blocks [N, blocks, BLOCK] as integers (in float32) and scales [N, blocks, 1]."""
    half = 1 << (bits - 1)
    least, greatest = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
    scale = torch.where(greatest > -least, greatest, least) / -half
    divisor = torch.where(scale == 0, 1.0, scale)
    return (values / divisor).round_().clamp_(-half, half - 1), scale


def _pack(integers: torch.Tensor, bits: int) -> torch.Tensor:
    """Integers around 0 as unsigned bytes around 2^(bits - 1), two of 4 bits to a byte."""
    unsigned = (integers + (1 << (bits - 1))).to(torch.uint8)
    return unsigned if bits == 8 else unsigned[..., 0::2] | (unsigned[..., 1::2] << 4)
