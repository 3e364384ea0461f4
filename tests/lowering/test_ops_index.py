"""Reading by position against eager."""

from __future__ import annotations

import pytest
import torch

from .harness import Case, check, lower, run

aten = torch.ops.aten
X = torch.linspace(-3, 3, 24).reshape(2, 3, 4)
M = torch.arange(20).reshape(4, 5)
Y = torch.arange(120.0).reshape(2, 3, 4, 5)
EMPTY = torch.zeros(2, 0, 3)
ONE = torch.tensor(7.0)
ROWS = torch.tensor([1, -1, 0, 1])
COLUMNS = torch.tensor([[2, 0, -3, 1]])
MASK = torch.tensor([True, False, True])


def _index(*indices):
    """x[indices] by the overload itself; indices are given positions in the arguments."""
    return lambda x, *given: aten.index.Tensor(
        x, [None if i is None else given[i] for i in indices]
    )


CASES = [
    Case("slice", lambda x: aten.slice.Tensor(x, 1, 1, 3), (X,), max_nodes=1),
    Case(
        "slice of everything is nothing",
        lambda x: aten.slice.Tensor(x, 1, 0, 2**63 - 1) + 1,
        (X,),
        max_nodes=1,
    ),
    Case("slice with negative bounds", lambda x: aten.slice.Tensor(x, -1, -3, -1), (X,)),
    Case("slice beyond both ends", lambda x: aten.slice.Tensor(x, -1, -9, 9, 3), (X,)),
    Case("slice with nothing left", lambda x: aten.slice.Tensor(x, 0, 5, 2), (X,)),
    Case("slice by steps", lambda x: aten.slice_copy.Tensor(x, 2, 1, None, 2), (X,)),
    Case("slice without bounds", lambda x: aten.slice.Tensor(x), (X,)),
    Case("slice of bfloat16", lambda x: aten.slice.Tensor(x, 0, 1), (X.bfloat16(),)),
    Case(
        "slice of symbolic dims with negative bounds",
        lambda x: aten.slice.Tensor(x, 1, -2, -1) + 1,
        (X,),
        dynamic=True,
    ),
    Case("slice up to a symbolic bound", lambda x, y: x[:, : y.shape[0]] + 1, (M, X), dynamic=True),
    Case("slice from a symbolic bound", lambda x, y: x[:, -y.shape[0] :] + 1, (M, X), dynamic=True),
    Case(
        "slice between symbolic bounds",
        lambda x, y: x[:, y.shape[0] - 1 : y.shape[1] + 1 : 2] + 1,
        (M, X),
        dynamic=True,
    ),
    Case("narrow_copy", lambda x: aten.narrow_copy.default(x, 1, -2, 2), (X,)),
    Case("select", lambda x: aten.select.int(x, 1, -1), (X,), max_nodes=1),
    Case("select of a dim of size 1", lambda x: aten.select.int(x, 1, 0), (X[:, :1],)),
    Case("select down to 0-d", lambda x: aten.select_copy.int(x, 0, 2), (M[0],)),
    Case("select from symbolic dims", lambda x: aten.select.int(x, 1, -1) + 1, (X,), dynamic=True),
    Case(
        "select at a symbolic index",
        lambda x, y: aten.select.int(x, 0, y.shape[0] - 1) + 1,
        (M, X),
        dynamic=True,
    ),
    Case("index by one tensor is one Gather", _index(0), (X, torch.tensor([1, -1])), max_nodes=1),
    Case("index by one tensor on the last dim", _index(None, None, 0), (X, COLUMNS), max_nodes=1),
    Case("index by a 0-d tensor", _index(None, 0), (X, torch.tensor(2)), max_nodes=1),
    Case("index by int32", _index(0), (X, torch.tensor([1, -1], dtype=torch.int32))),
    Case("index by an empty tensor", _index(0), (X, torch.zeros(0, dtype=torch.int64))),
    Case("index along the diagonal is a GatherND", _index(0, 1), (M, ROWS, ROWS)),
    Case(
        "index by tensors that broadcast",
        _index(0, 1),
        (Y, torch.tensor([[1], [0]]), COLUMNS[0, :2]),
    ),
    Case(
        "index by row and column is a Gather each",
        _index(0, 1),
        (M, torch.tensor([[1], [-1]]), torch.tensor([[0, 2, 4]])),
        max_nodes=4,
    ),
    Case(
        "index by column and row",
        _index(0, 1),
        (M, torch.tensor([[0, 2, 3]]), torch.tensor([[1], [-1]])),
    ),
    Case(
        "index as attention masks do",
        _index(0, 1),
        (
            X[:1, 0],
            torch.zeros(1, 1, 1, 1, dtype=torch.int64),
            torch.tensor([3, 0, 1]).reshape(1, 1, 3, 1),
        ),
        max_nodes=5,
    ),
    Case(
        "index by rows and columns behind other dims",
        _index(None, None, 0, 1),
        (Y, torch.tensor([[3], [0]]), torch.tensor([4, 1, 0])),
    ),
    Case("index with a gap puts the result in front", _index(0, None, 1), (X, ROWS, ROWS)),
    Case(
        "index with a gap, by row and column",
        _index(0, None, 1),
        (X, torch.tensor([[1], [0]]), torch.tensor([0, 2, -1])),
    ),
    Case(
        "index with a gap, behind another dim",
        _index(None, 0, None, 1),
        (Y, ROWS, torch.tensor([4, 3, -5, 0])),
    ),
    Case("index of the last dims stays in place", _index(None, 0, 1), (X, ROWS, ROWS)),
    Case(
        "index of the last dims by a matrix",
        _index(None, None, 0, 1),
        (Y, ROWS.reshape(2, 2), COLUMNS[0].reshape(2, 2) - 1),
    ),
    Case("index by a 0-d tensor and a vector", _index(0, 1), (Y, torch.tensor(1), ROWS)),
    Case("index by 0-d tensors", _index(0, 1), (Y, torch.tensor(1), torch.tensor(-1))),
    Case("index of bfloat16", _index(0, 1), (X.bfloat16(), ROWS, ROWS)),
    Case(
        "index with three tensors, two of them alike",
        _index(0, 1, 2),
        (X, torch.tensor([[1], [0]]), torch.tensor([[2], [1]]), torch.tensor([3, 0, 1])),
    ),
    Case("_unsafe_index", lambda x, i: aten._unsafe_index.Tensor(x, [None, i]), (X, ROWS)),
    Case(
        "index with symbolic dims", _index(0), (X, torch.tensor([1, -1])), dynamic=True, max_nodes=1
    ),
    Case("index by two tensors with symbolic dims", _index(0, 1), (X, ROWS, ROWS), dynamic=True),
    Case(
        "index by row and column with symbolic dims",
        _index(None, 0, 1),
        (X, torch.tensor([[1], [-1]]), torch.tensor([[0, 2, 3]])),
        dynamic=True,
    ),
    Case("index by a mask", _index(None, 0), (X, MASK), dynamic=True, max_nodes=1),
    Case("index by a mask, of bfloat16", _index(None, 0), (X.bfloat16(), MASK), dynamic=True),
    Case("index by a mask of all dims", _index(0), (X, X > 0), dynamic=True),
    Case("index by a mask of the first dims", _index(0), (X, X[:, :, 0] > 0), dynamic=True),
    Case("index by a mask of the last dims", _index(None, 0), (X, X[0] > -2), dynamic=True),
    Case("index by a mask that picks nothing", _index(0), (X, X > 9), dynamic=True),
    Case(
        "what a mask picked goes on",
        lambda x: (x[x > 0] * 2).sum() + x[x > 0].view(-1, 1),
        (X,),
        dynamic=True,
    ),
    Case("masked_select", aten.masked_select.default, (X, X > 0), dynamic=True),
    Case(
        "masked_select broadcasts",
        aten.masked_select.default,
        (X, MASK.reshape(3, 1)),
        dynamic=True,
    ),
    Case(
        "masked_select broadcasts the other way",
        aten.masked_select.default,
        (X[0, 0], X > 0),
        dynamic=True,
    ),
    Case("nonzero", aten.nonzero.default, (X > 0,), dynamic=True),
    Case(
        "nonzero of floats",
        aten.nonzero.default,
        (torch.tensor([0.0, -0.0, 1.0, float("nan")]),),
        dynamic=True,
    ),
    Case(
        "nonzero_static fills up",
        lambda x: aten.nonzero_static.default(x, size=20, fill_value=-7),
        (X > 0,),
    ),
    Case("nonzero_static cuts off", lambda x: aten.nonzero_static.default(x, size=3), (X > 0,)),
    Case(
        "nonzero of float64",
        aten.nonzero.default,
        (torch.tensor([0.0, 1e-300]).double(),),
        dynamic=True,
    ),
    Case(
        "nonzero of int8",
        aten.nonzero.default,
        (torch.tensor([0, -128]).to(torch.int8),),
        dynamic=True,
    ),
    Case(
        "index_select",
        lambda x, i: aten.index_select.default(x, -1, i),
        (X, torch.tensor([3, 0])),
        max_nodes=2,
    ),
    Case(
        "index_select by a 0-d index",
        lambda x, i: aten.index_select.default(x, 1, i),
        (X, torch.tensor(2)),
    ),
    Case(
        "index_select of a 0-d tensor",
        lambda x, i: aten.index_select.default(x, 0, i),
        (ONE, torch.tensor([0])),
    ),
    Case(
        "index_select with symbolic dims",
        lambda x, i: aten.index_select.default(x, 1, i),
        (X, torch.tensor([2, 0])),
        dynamic=True,
    ),
    Case(
        "gather",
        lambda x, i: aten.gather.default(x, 1, i),
        (M, torch.tensor([[0, 4], [2, 2]])),
        max_nodes=2,
    ),
    Case(
        "gather of longer rows",
        lambda x, i: aten.gather.default(x, -2, i),
        (M, torch.tensor([[0, 3], [2, 2], [1, 1], [3, 3], [0, 0], [1, 2]])),
    ),
    Case(
        "gather of 0-d tensors", lambda x, i: aten.gather.default(x, 0, i), (ONE, torch.tensor(0))
    ),
    Case(
        "gather of a 0-d tensor by a vector",
        lambda x, i: aten.gather.default(x, 0, i),
        (ONE, torch.tensor([0])),
    ),
    Case(
        "gather of nothing",
        lambda x, i: aten.gather.default(x, 0, i),
        (M, torch.zeros(0, 3, dtype=torch.int64)),
    ),
    Case(
        "gather of float16",
        lambda x, i: aten.gather.default(x, 1, i),
        (M.half(), torch.tensor([[0, 4], [2, 2]])),
    ),
    Case(
        "gather with symbolic dims",
        lambda x, i: aten.gather.default(x, 1, i),
        (M, torch.tensor([[0, 4], [2, 2]])),
        dynamic=True,
    ),
    Case("take", aten.take.default, (X, torch.tensor([[0, -1], [23, 5]])), max_nodes=2),
    Case("take from a 0-d tensor", aten.take.default, (ONE, torch.tensor([0, 0]))),
    Case(
        "embedding",
        lambda w, i: aten.embedding.default(w, i, 1),
        (X[0], torch.tensor([[0, 2]])),
        max_nodes=2,
    ),
    Case(
        "embedding by int32",
        aten.embedding.default,
        (X[0], torch.tensor([0, 2], dtype=torch.int32)),
    ),
    Case("embedding of bfloat16", aten.embedding.default, (X[0].bfloat16(), torch.tensor([0, 2]))),
    Case(
        "embedding with symbolic dims",
        aten.embedding.default,
        (X[0], torch.tensor([[0, 2]])),
        dynamic=True,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_index(case: Case) -> None:
    check(case)


OUT_OF_RANGE = {
    "index": (_index(0), (M, torch.tensor([4]))),
    "index by two tensors": (_index(0, 1), (M, torch.tensor([0, 1]), torch.tensor([5, 0]))),
    "index by row and column": (_index(0, 1), (M, torch.tensor([[0]]), torch.tensor([5, 0]))),
    "embedding": (aten.embedding.default, (X[0], torch.tensor([3]))),
    "index_select": (lambda x, i: aten.index_select.default(x, 0, i), (M, torch.tensor([4]))),
    "gather": (lambda x, i: aten.gather.default(x, 0, i), (M, torch.tensor([[4]]))),
    "take": (aten.take.default, (M, torch.tensor([20]))),
}


@pytest.mark.parametrize("name", OUT_OF_RANGE)
def test_an_index_out_of_range_raises(name: str) -> None:
    fn, args = OUT_OF_RANGE[name]
    lowering = lower(fn, *args)
    assert lowering.program is not None
    with pytest.raises((IndexError, RuntimeError)):
        fn(*args)
    with pytest.raises(Exception, match="ind"):
        run(lowering.program, args)


def test_a_mask_beside_another_index_is_declined() -> None:
    lowering = lower(_index(0, 1), Y, X[:, 0, 0] > -9, torch.tensor([0]), dynamic=True)
    assert "a mask beside another index" in str(lowering.reasons[0])
