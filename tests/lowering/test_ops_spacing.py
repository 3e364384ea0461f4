"""linspace and logspace against eager."""

from __future__ import annotations

import pytest
import torch

from .harness import Case, check, lower

aten = torch.ops.aten
RANGES = [(-2.5, 7, 11), (0, 1, 1), (0, 1, 2), (3, -4, 50), (0, 9, 4), (5, 5, 3), (0, 10, 0)]
DTYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32
]  # fmt: skip
ANY = torch.zeros(1)


def linspace(start, end, steps, dtype):
    return lambda _: aten.linspace.default(start, end, steps, dtype=dtype)


def logspace(start, end, steps, dtype):
    return lambda _: aten.logspace.default(start, end, steps, 3.0, dtype=dtype)


def linspace_between(steps, dtype):
    return lambda a, b: aten.linspace.Tensor_Tensor(a, b, steps, dtype=dtype)


def logspace_between(steps, dtype):
    return lambda a, b: aten.logspace.Tensor_Tensor(a, b, steps, 3.0, dtype=dtype)


def scalars(*numbers):
    return tuple(torch.tensor(float(n)) for n in numbers)


# 16-bit floats and integers to the last bit.
CASES = [
    Case(f"{name} of {n} steps from {a} to {b}, {dtype}, {kind}", make, args,
         tolerance=None if dtype in (torch.float32, torch.float64) else 0.0)
    for dtype in DTYPES
    for a, b, n in RANGES
    for name, kind, make, args in (
        ("linspace", "numbers", linspace(a, b, n, dtype), (ANY,)),
        ("linspace", "tensors", linspace_between(n, dtype), scalars(a, b)),
        ("logspace", "numbers", logspace(a, b, n, dtype), (ANY,)),
        ("logspace", "tensors", logspace_between(n, dtype), scalars(a, b)),
    )
] + [
    Case("linspace from a tensor", lambda a: aten.linspace.Tensor_Scalar(a, 3, 5), scalars(1)),
    Case("linspace to a tensor", lambda a: aten.linspace.Scalar_Tensor(3, a, 5), scalars(1)),
    Case("logspace from a tensor", lambda a: aten.logspace.Tensor_Scalar(a, 3, 5), scalars(1)),
    Case("logspace to a tensor", lambda a: aten.logspace.Scalar_Tensor(3, a, 5), scalars(1)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_spacing(case):
    check(case)


def test_very_many_steps_stay_eager():
    (reason,) = lower(linspace(0, 1, 9000, torch.float32), ANY).reasons
    assert "more than" in str(reason)
