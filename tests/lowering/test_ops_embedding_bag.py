"""Bags of embeddings against eager."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from .harness import Case, check, lower

generator = torch.Generator().manual_seed(0)
W = torch.randn(10, 4, generator=generator)
I = torch.randint(0, 10, (7,), generator=generator)  # noqa: E741 - an index
TABLE = torch.randint(0, 10, (3, 4), generator=generator)
PADDED = torch.tensor([3, 3, 1, 2, 3, 4, 3])
BEGINS = torch.tensor([0, 2, 2, 5])
ENDS = torch.tensor([0, 2, 2, 5, 7])
NONE = torch.tensor([0, 0])


def bags(mode, **options):
    return lambda w, i, offsets: F.embedding_bag(i, w, offsets, mode=mode, **options)


def rows(mode, **options):
    return lambda w, i: F.embedding_bag(i, w, mode=mode, **options)


CASES = [
    case
    for mode in ("sum", "mean")
    for case in (
        Case(f"{mode} of bags of one size", rows(mode), (W, TABLE), max_nodes=6),
        Case(f"{mode} of bags", bags(mode), (W, I, BEGINS)),
        Case(f"{mode} of bags, float64", bags(mode), (W.double(), I, BEGINS)),
        Case(f"{mode} of bags with int32 indices", bags(mode), (W, I.int(), BEGINS.int())),
        Case(f"{mode} with the last end", bags(mode, include_last_offset=True), (W, I, ENDS)),
        Case(f"{mode} with padding", bags(mode, padding_idx=3), (W, PADDED, BEGINS)),
        Case(f"{mode} with padding from the end", rows(mode, padding_idx=-1), (W, TABLE)),
        Case(f"{mode} of no indices", bags(mode), (W, I[:0], NONE)),
        Case(f"{mode} of symbolic dims", bags(mode), (W, I, BEGINS), dynamic=True),
        Case(f"{mode} of rows of symbolic dims", rows(mode), (W, TABLE), dynamic=True),
    )
] + [
    Case(
        "sum of weighted embeddings",
        lambda w, i, s: F.embedding_bag(i, w, mode="sum", per_sample_weights=s),
        (W, TABLE, torch.randn(3, 4, generator=generator)),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_embedding_bag(case):
    check(case)


@pytest.mark.parametrize(
    ("call", "weight", "why"),
    [(bags("max"), W, "loses NaN"), (bags("sum"), W.bfloat16(), "of their own")],
    ids=["max", "bfloat16"],
)
def test_what_stays_eager(call, weight, why):
    (reason,) = lower(call, weight, I, BEGINS).reasons
    assert why in str(reason)


def test_the_module_whose_weights_require_grad() -> None:
    """Without gradients it is `_embedding_bag` all the same, not `_embedding_bag_forward_only`."""
    bag = torch.nn.EmbeddingBag(10, 4, mode="mean", padding_idx=3)
    ours = torch.compile(bag, backend="onnx", options={"strict": True})
    with torch.no_grad():
        torch.testing.assert_close(ours(I, BEGINS), bag(I, BEGINS))
