"""Do the results of a program differ from eager's by more than rounding?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)

# Of the largest magnitude in eager's result: two orders of the same sums differ by so much.
TOLERANCE = {
    torch.float64: 1e-9,
    torch.float32: 1e-4,
    torch.float16: 1e-2,
    torch.bfloat16: 4e-2,
}
OF_EAGERS_ERROR = 4  # ours may be so many times as far from the exact result


def difference(
    found: Sequence[Tensor],
    wanted: Sequence[Tensor],
    exact: Callable[[], Sequence[Tensor] | None] = lambda: None,
) -> str:
    """What differs first, in words; nothing where all is equal but for rounding.

    `exact` computes the results in float64, or None where that cannot be done. It is asked where
    the tolerance is exceeded: eager may be the one that is farther off.
    """
    reference: Sequence[Tensor] | None = None
    for index, (ours, eager) in enumerate(zip(found, wanted, strict=True)):
        told = _difference(ours, eager)
        if told and ours.dtype in TOLERANCE and ours.shape == eager.shape:
            reference = exact() if reference is None else reference
            if reference is not None and _as_near(ours, eager, reference[index]):
                continue
        if told:
            return f"result {index} {told}"
    return ""


def _difference(ours: Tensor, eager: Tensor) -> str:
    if (ours.dtype, ours.shape) != (eager.dtype, eager.shape):
        was = f"{ours.dtype}{list(ours.shape)}"
        return f"is {was}, eager's {eager.dtype}{list(eager.shape)}"
    if not ours.numel():
        return ""
    if ours.is_complex():
        return _difference(torch.view_as_real(ours), torch.view_as_real(eager))
    if ours.dtype not in TOLERANCE:
        count = int((ours != eager).sum())
        return f"differs in {count} of {ours.numel()} elements" if count else ""
    if not torch.equal(ours.isnan(), eager.isnan()):
        return f"has NaN in {int(ours.isnan().sum())} places, eager's in {int(eager.isnan().sum())}"
    if not torch.equal(ours.isinf(), eager.isinf()):
        return f"is infinite in {int(ours.isinf().sum())} places, eager's in {_infinite(eager)}"
    distance = _distance(ours, eager)
    scale = _largest(eager)
    if distance <= TOLERANCE[ours.dtype] * max(scale, 1e-6):
        return ""
    return f"differs by {distance:.3g} where the largest is {scale:.3g}"


def _as_near(ours: Tensor, eager: Tensor, exact: Tensor) -> bool:
    """Is ours about as near to the exact result as eager's?"""
    if exact.shape != ours.shape or not torch.equal(ours.isnan(), eager.isnan()):
        return False
    if not torch.equal(ours.isinf(), eager.isinf()):
        return False
    return _distance(ours, exact) <= OF_EAGERS_ERROR * _distance(eager, exact)


def _distance(a: Tensor, b: Tensor) -> float:
    apart = (a.double() - b.double()).abs()
    return float(apart[apart.isfinite()].max()) if apart.isfinite().any() else 0.0


def _largest(tensor: Tensor) -> float:
    finite = tensor[tensor.isfinite()]
    return float(finite.double().abs().max()) if finite.numel() else 0.0


def _infinite(tensor: Tensor) -> int:
    return int(tensor.isinf().sum())


def exactly(eager: Callable[[list[Any]], list[Tensor]], args: Sequence[Any]) -> list[Tensor] | None:
    """The results of a function in float64; None where an operator of it insists on another dtype.

    `args` are tensors, of which those of floats are converted, and numbers.
    """
    wide = [a.double() if isinstance(a, Tensor) and a.is_floating_point() else a for a in args]
    try:
        results = eager(wide)
    except RuntimeError as error:
        log.info("no float64 reference: %s", error)
        return None
    narrow = any(r.is_floating_point() and r.dtype != torch.float64 for r in results)
    return None if narrow else results
