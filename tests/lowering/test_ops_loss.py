"""Losses against eager, in every reduction."""

from __future__ import annotations

import pytest
import torch

from .harness import Case, check

aten = torch.ops.aten


def given(last, fn):
    return lambda *args: fn(*args, last)


def rounded(loss, *rest):
    return lambda a, b: loss(a, b, NONE, *rest)


X, Y = torch.randn(3, 4) * 3, torch.randn(3, 4) * 3
P, T = torch.tensor([0.0, 1e-9, 0.3, 0.7, 1.0]), torch.tensor([0.0, 1.0, 0.4, 1.0, 0.0])
LOGITS = torch.randn(4, 5).log_softmax(-1)
LABELS = torch.tensor([1, -100, 4, 1])
W = torch.rand(5)
NONE, MEAN, SUM = 0, 1, 2

CASES = [
    case
    for r, how in enumerate(("none", "mean", "sum"))
    for case in (
        Case(f"mse_loss, {how}", given(r, lambda a, b, r: aten.mse_loss.default(a, b, r)), (X, Y)),
        Case(
            f"mse_loss of bfloat16, {how}",
            given(r, lambda a, b, r: aten.mse_loss.default(a, b, r)),
            (X.bfloat16(), Y.bfloat16()),
        ),
        Case(
            f"smooth_l1_loss, {how}",
            given(r, lambda a, b, r: aten.smooth_l1_loss.default(a, b, r)),
            (X, Y),
        ),
        Case(
            f"smooth_l1_loss with beta, {how}",
            given(r, lambda a, b, r: aten.smooth_l1_loss.default(a, b, r, 2.5)),
            (X, Y),
        ),
        Case(
            f"huber_loss, {how}",
            given(r, lambda a, b, r: aten.huber_loss.default(a, b, r, 2.5)),
            (X, Y),
        ),
        Case(
            f"soft_margin_loss, {how}",
            given(r, lambda a, b, r: aten.soft_margin_loss.default(a, b, r)),
            (X, Y.sign()),
        ),
        Case(
            f"binary_cross_entropy, {how}",
            given(r, lambda a, b, r: aten.binary_cross_entropy.default(a, b, None, r)),
            (P, T),
        ),
        Case(
            f"binary_cross_entropy with weights, {how}",
            given(r, lambda a, b, w, r: aten.binary_cross_entropy.default(a, b, w, r)),
            (P, T, W),
        ),
        Case(
            f"nll_loss, {how}",
            given(r, lambda a, b, r: aten.nll_loss_forward.default(a, b, None, r, -100)),
            (LOGITS, LABELS),
        ),
        Case(
            f"nll_loss with weights, {how}",
            given(r, lambda a, b, w, r: aten.nll_loss_forward.default(a, b, w, r, 1)),
            (LOGITS, LABELS.abs() % 5, W),
        ),
        Case(
            f"nll_loss of one sample, {how}",
            given(r, lambda a, b, w, r: aten.nll_loss_forward.default(a, b, w, r, -100)),
            (LOGITS[0], LABELS[0], W),
        ),
        Case(
            f"nll_loss of bfloat16, {how}",
            given(r, lambda a, b, r: aten.nll_loss_forward.default(a, b, None, r, -100)),
            (LOGITS.bfloat16(), LABELS),
        ),
        Case(
            f"nll_loss, symbolic, {how}",
            given(r, lambda a, b, r: aten.nll_loss_forward.default(a, b, None, r, -100)),
            (LOGITS, LABELS),
            dynamic=True,
        ),
        Case(
            f"nll_loss2d, {how}",
            given(r, lambda a, b, w, r: aten.nll_loss2d_forward.default(a, b, w, r, 2)),
            (torch.randn(2, 5, 3, 4), torch.randint(0, 5, (2, 3, 4)), W),
        ),
    )
]
CASES += [
    Case(
        "smooth_l1_loss without beta",
        lambda a, b: aten.smooth_l1_loss.default(a, b, MEAN, 0.0),
        (X, Y),
    ),
    Case(
        "smooth_l1_loss of an infinite difference",
        lambda a, b: aten.smooth_l1_loss.default(a, b, NONE),
        (X * float("inf"), Y),
    ),
    Case(
        "soft_margin_loss overflows as in eager",
        lambda a, b: aten.soft_margin_loss.default(a, b, SUM),
        (torch.tensor([-200.0]), torch.ones(1)),
    ),
    *(
        Case(
            f"soft_margin_loss of {dtype} rounds and overflows at each step",
            lambda a, b: aten.soft_margin_loss.default(a, b, NONE),
            (torch.linspace(-14, 4, 97).to(dtype), torch.ones(97, dtype=dtype)),
            tolerance=0.0,
        )
        for dtype in (torch.float16, torch.bfloat16)
    ),
    *(
        Case(
            f"{loss} of {dtype} rounds where eager does",
            rounded(loss, *width),
            (torch.linspace(-3, 3, 97).to(dtype), torch.linspace(-1, 2, 97).to(dtype)),
            tolerance=0.0,
        )
        for loss, width in (
            (aten.mse_loss.default, ()),
            (aten.smooth_l1_loss.default, (0.7,)),
            (aten.huber_loss.default, (0.7,)),
        )
        for dtype in (torch.float16, torch.bfloat16)
    ),
    Case("mse_loss of nothing is NaN", aten.mse_loss.default, (torch.ones(0), torch.ones(0))),
    Case("mse_loss with symbolic dims", aten.mse_loss.default, (X, Y), dynamic=True),
    Case(
        "nll_loss with all ignored is NaN",
        lambda a, b: aten.nll_loss_forward.default(a, b, None, MEAN, -100),
        (LOGITS, torch.full((4,), -100)),
    ),
    Case(
        "nll_loss never reads an ignored row",
        lambda a, b: aten.nll_loss_forward.default(a, b, None, SUM, -100),
        (torch.where(LABELS[:, None] < 0, float("nan"), LOGITS), LABELS),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_loss(case: Case) -> None:
    check(case)
