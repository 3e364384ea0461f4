"""Activation rules against eager."""

from __future__ import annotations

import math

import pytest
import torch

from .harness import Case, check, lower

aten = torch.ops.aten
F = torch.nn.functional

X = torch.linspace(-8, 8, 60).reshape(3, 4, 5)
ODD = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0, 0.5, -0.5, 3.0, -3.0, 30.0, -30.0])
D = X.double()
H = X.bfloat16()
HALF = X.half()
I64 = torch.tensor([-7, -1, 0, 1, 7, 2**40])

# name, function, the most nodes that it may take
FUNCTIONS = [
    ("relu", lambda a: aten.relu.default(a), 1),
    ("relu6", lambda a: F.relu6(a), 1),
    ("hardtanh", lambda a: aten.hardtanh.default(a, -0.5, 2.0), 1),
    ("leaky_relu", lambda a: aten.leaky_relu.default(a), 1),
    ("leaky_relu of slope 0.3", lambda a: aten.leaky_relu.default(a, 0.3), 1),
    ("elu", lambda a: aten.elu.default(a), 1),
    ("elu of alpha 0.3", lambda a: aten.elu.default(a, 0.3), 1),
    ("selu", lambda a: F.selu(a), 1),
    ("celu", lambda a: aten.celu.default(a), 4),
    ("celu of alpha 2", lambda a: aten.celu.default(a, 2.0), 4),
    ("gelu", lambda a: aten.gelu.default(a), 1),
    ("gelu by tanh", lambda a: aten.gelu.default(a, approximate="tanh"), 1),
    ("silu", lambda a: aten.silu.default(a), 2),
    ("mish", lambda a: aten.mish.default(a), 3),
    ("hardsigmoid", lambda a: aten.hardsigmoid.default(a), 1),
    ("hardswish", lambda a: aten.hardswish.default(a), 2),
    ("softplus", lambda a: aten.softplus.default(a), 1),
    ("softplus of beta 2", lambda a: aten.softplus.default(a, 2.0), 3),
    ("softplus of threshold 5", lambda a: aten.softplus.default(a, 2.0, 5.0), 5),
    ("log_sigmoid_forward", lambda a: aten.log_sigmoid_forward.default(a)[0], 3),
    ("threshold", lambda a: aten.threshold.default(a, 0.5, 9.0), 2),
    ("softshrink", lambda a: aten.softshrink.default(a, 0.5), 2),
    ("hardshrink", lambda a: aten.hardshrink.default(a, 0.5), 3),
]
LARGE = torch.linspace(-8, 8, 1 << 15).reshape(4, -1)  # so many that a product pays
SPECIAL = ODD.repeat(1 << 11)
BACKWARD = [
    ("threshold_backward", lambda g, x: aten.threshold_backward.default(g, x, 0)),
    ("threshold_backward at 1.5", lambda g, x: aten.threshold_backward.default(g, x, 1.5)),
    ("hardtanh_backward", lambda g, x: aten.hardtanh_backward.default(g, x, -0.5, 6.0)),
]
BOUNDED = [
    ("threshold", lambda b: lambda g, x: aten.threshold_backward.default(g, x, b)),
    ("least", lambda b: lambda g, x: aten.hardtanh_backward.default(g, x, b, 2.0)),
    ("most", lambda b: lambda g, x: aten.hardtanh_backward.default(g, x, -2.0, b)),
]
NO_DOUBLE = {"elu", "selu", "celu", "gelu", "mish", "softplus", "log_sigmoid_forward"}

CASES = [
    *[Case(f"{n} of float32", f, (X,), 2e-6, max_nodes=most) for n, f, most in FUNCTIONS],
    *[
        Case(f"{n} of special values", f, (ODD if "gelu" not in n else ODD[2:],))
        for n, f, _ in FUNCTIONS
    ],
    *[Case(f"{n} of bfloat16", f, (H,)) for n, f, _ in FUNCTIONS],
    *[Case(f"{n} of float16", f, (HALF,)) for n, f, _ in FUNCTIONS],
    *[Case(f"{n} of float64", f, (D,)) for n, f, _ in FUNCTIONS if n.split()[0] not in NO_DOUBLE],
    *[
        Case(f"{n} with symbolic dims", f, (X,), dynamic=True)
        for n, f, _ in FUNCTIONS
        if n in ("gelu", "silu", "hardswish", "celu")
    ],
    *[Case(n, f, (X.flip(0), X), 0.0, max_nodes=5) for n, f in BACKWARD],
    *[Case(f"{n} of many", f, (LARGE.flip(0), LARGE), 0.0, max_nodes=9) for n, f in BACKWARD],
    *[
        Case(f"{n} of bfloat16", f, (LARGE.flip(0).bfloat16(), LARGE.bfloat16()))
        for n, f in BACKWARD
    ],
    *[Case(f"{n} of float16", f, (LARGE.flip(0).half(), LARGE.half())) for n, f in BACKWARD],
    *[Case(f"{n} of float64", f, (LARGE.flip(0).double(), LARGE.double())) for n, f in BACKWARD],
    *[Case(f"{n} of special values", f, (SPECIAL.flip(0), SPECIAL), 0.0) for n, f in BACKWARD],
    *[
        Case(f"{n} at special values", f, (LARGE.flatten()[: SPECIAL.numel()], SPECIAL), 0.0)
        for n, f in BACKWARD
    ],
    *[
        Case(f"{n} of what has no finite sum", f, (LARGE.flip(0) * 1e37, LARGE), 0.0)
        for n, f in BACKWARD
    ],
    *[Case(f"{n} with symbolic dims", f, (X.flip(0), X), 0.0, dynamic=True) for n, f in BACKWARD],
    *[
        Case(f"{name} of a {dtype} that is no bound: {bound}", made(bound), (x.flip(0), x), 0.0)
        for dtype in (torch.bfloat16, torch.float16)
        for x in [torch.tensor([0.1, 0.3, 1 / 3, -0.7, 0.0] * 8).to(dtype)]
        for bound in (0.1, 0.3, 1 / 3, -0.7)
        for name, made in BOUNDED
    ],
    Case("relu of int64", lambda a: F.relu(a), (I64,), max_nodes=1),
    Case("relu of int8", lambda a: F.relu(a), (I64[:5].to(torch.int8),), max_nodes=1),
    Case("relu of uint8", lambda a: F.relu(a), (I64[2:5].to(torch.uint8),)),
    Case("hardtanh of ints", lambda a: aten.hardtanh.default(a, -2, 3), (I64,), max_nodes=1),
    Case("threshold of ints", lambda a: aten.threshold.default(a, 0, 9), (I64,)),
    Case(
        "prelu",
        lambda a, w: F.prelu(a, w),
        (X, torch.tensor([0.1, -0.2, 0.3, 0.0])),
        max_nodes=2,
    ),
    Case("prelu of one weight", lambda a, w: F.prelu(a, w), (X, torch.tensor([0.1]))),
    Case("prelu of float64", lambda a, w: F.prelu(a, w), (D, torch.tensor([0.1]).double())),
    Case("glu", lambda a: aten.glu.default(a, 1), (X,), max_nodes=3),
    Case("glu of the last dim", lambda a: aten.glu.default(a), (X[..., :4],), max_nodes=3),
    Case("glu of bfloat16", lambda a: aten.glu.default(a, -2), (H,)),
    Case("glu with symbolic dims", lambda a: aten.glu.default(a, 1), (X,), dynamic=True),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_activation(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("name", sorted(NO_DOUBLE))
def test_float64_without_a_kernel_is_declined(name: str) -> None:
    functions = {n: f for n, f, _ in FUNCTIONS}
    lowering = lower(functions[name], D)
    assert lowering.program is None
    assert "no kernel for" in str(lowering.reasons[0])
