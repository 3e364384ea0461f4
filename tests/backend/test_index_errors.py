"""Indices that eager refuses: the same error, never the row that ONNX would count from the end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

import dynamo_onnx

TABLE = torch.randn(5, 3)
ROWS = TABLE[:2] * 2
SCORES = TABLE[:2].log_softmax(-1)
Fn = Callable[[torch.Tensor], torch.Tensor]


def wide(index: torch.Tensor) -> torch.Tensor:
    return index[:, None].expand(2, 3)


READS: dict[str, Fn] = {
    "embedding": lambda i: functional.embedding(i, TABLE),
    "embedding_bag": lambda i: functional.embedding_bag(i[None], TABLE),
    "index_select": lambda i: TABLE.index_select(0, i),
    "gather": lambda i: TABLE.gather(0, wide(i)),
    "nll_loss": lambda i: functional.nll_loss(SCORES, i),
    "nll_loss with weights": lambda i: functional.nll_loss(SCORES, i, weight=torch.ones(3)),
    "cross_entropy": lambda i: functional.cross_entropy(TABLE[:2], i, label_smoothing=0.1),
}
WRITES: dict[str, Fn] = {
    "scatter": lambda i: TABLE.scatter(0, wide(i), ROWS),
    "scatter of a number": lambda i: TABLE.scatter(0, wide(i), 2.0),
    "scatter_add": lambda i: TABLE.scatter_add(0, wide(i), ROWS),
    "scatter_reduce": lambda i: TABLE.scatter_reduce(0, wide(i), ROWS, "amax"),
    "index_add": lambda i: TABLE.index_add(0, i, ROWS),
    "index_copy": lambda i: TABLE.index_copy(0, i, ROWS),
    "index_reduce": lambda i: TABLE.index_reduce(0, i, ROWS, "amax"),
}


@pytest.mark.parametrize("name", READS | WRITES)
def test_a_negative_index_raises_as_in_eager(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    fn = (READS | WRITES)[name]
    ours = torch.compile(lambda i: fn(i) + 1, backend="onnx")
    good = torch.tensor([0, 2])
    torch.testing.assert_close(ours(good), fn(good) + 1)
    for wrong in (-1, torch.iinfo(torch.int64).min):
        bad = torch.tensor([0, wrong])
        with pytest.raises((IndexError, RuntimeError)) as eager:
            fn(bad)
        with pytest.raises(type(eager.value)) as raised:
            ours(bad)
        assert str(raised.value) == str(eager.value)
    assert dynamo_onnx.report(ours).native_ops > 0
    assert "onnxruntime" not in capfd.readouterr().err


@pytest.mark.parametrize("name", ["index", "index_put", "index_fill", "take"])
def test_a_negative_index_that_eager_takes_counts_from_the_end(name: str) -> None:
    fns: dict[str, Fn] = {
        "index": lambda i: TABLE[i],
        "index_put": lambda i: TABLE.index_put((i,), torch.tensor(2.0)),
        "index_fill": lambda i: TABLE.index_fill(0, i, 2.0),
        "take": lambda i: TABLE.take(i),
    }
    fn = fns[name]
    ours = torch.compile(lambda i: fn(i) + 1, backend="onnx", options={"strict": True})
    torch.testing.assert_close(ours(torch.tensor([0, -2])), fn(torch.tensor([0, -2])) + 1)


COMPUTED: dict[str, Fn] = {
    "sorted": lambda i: TABLE.index_select(0, i.sort().values),
    "a range": lambda i: TABLE.index_select(0, torch.arange(int(i.shape[0]) - 5, 2)),
    "the least": lambda i: TABLE.index_select(0, i.topk(1, largest=False).values),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_a_negative_index_that_the_program_computes_raises_too(name: str) -> None:
    ours = torch.compile(lambda i: COMPUTED[name](i * 1) + 1, backend="onnx", dynamic=True)
    with pytest.raises(IndexError) as eager:
        COMPUTED[name](torch.tensor([0, -1, 1]))
    with pytest.raises(IndexError) as raised:
        ours(torch.tensor([0, -1, 1]))
    assert str(raised.value) == str(eager.value)
    assert dynamo_onnx.report(ours).native_ops > 0
