"""Writing by position against eager."""

from __future__ import annotations

import math

import pytest
import torch

from .harness import Case, check, lower

aten = torch.ops.aten
X = torch.linspace(-3, 3, 24).reshape(2, 3, 4)
M = torch.arange(20.0).reshape(4, 5)
Y = torch.arange(120.0).reshape(2, 3, 4, 5)
ONE = torch.tensor(7.0)
ROWS = torch.tensor([1, -1, 0])
TWICE = torch.tensor([1, 0, 1, -1])
MASK = torch.tensor([True, False, True])
NONE = torch.zeros(0, dtype=torch.int64)
INDEX = torch.tensor([[0, 1, 1], [3, 0, 3]])
SRC = torch.tensor([[2.0, -1.0, 0.5], [4.0, 3.0, -2.0]])
NAN = torch.tensor([[float("nan"), -1.0, 0.5], [4.0, 3.0, float("nan")]])
M_NAN = torch.where(M == 3, float("nan"), M)
M_INT = torch.arange(20).reshape(4, 5) - 7
SRC_INT = torch.tensor([[2, -1, 5], [4, 3, -2]])


def _put(*indices, accumulate=False):
    """x[indices] = (or +=) the last argument; indices are positions in the others."""

    def put(x, *given):
        chosen = [None if i is None else given[i] for i in indices]
        return aten.index_put.default(x, chosen, given[-1], accumulate)

    return put


def _reduce(how, kept):
    return lambda x, i, s: aten.scatter_reduce.two(x, 1, i, s, how, include_self=kept)


def _index_reduce(how, kept):
    return lambda x, i, s: aten.index_reduce.default(x, 1, i, s, how, include_self=kept)


PUTS = [
    Case("index_put of rows", _put(0), (M, ROWS, M[:3] + 100), max_nodes=2),
    Case("index_put broadcasts values", _put(0), (M, ROWS, ONE)),
    Case("index_put by two indices", _put(0, 1), (M, ROWS, ROWS, SRC[0])),
    Case(
        "index_put by row and column",
        _put(0, 1),
        (M, torch.tensor([[1], [-1]]), torch.tensor([[0, 2, 3]]), SRC),
    ),
    Case(
        "index_put of inner dims",
        _put(None, 0, 1),
        (Y, ROWS, ROWS, torch.arange(30.0).reshape(2, 3, 5)),
    ),
    Case(
        "index_put with a gap",
        _put(0, None, 1),
        (Y, torch.tensor([0, 1]), torch.tensor([3, 1]), torch.arange(30.0).reshape(2, 3, 5)),
    ),
    Case("index_put by a 0-d index", _put(0), (M, torch.tensor(-1), M[0] + 50)),
    Case("index_put of nothing", _put(0), (M, NONE, ONE)),
    Case("index_put of bfloat16", _put(0), (M.bfloat16(), ROWS, ONE.bfloat16())),
    Case("index_put of bools", _put(0), (M > 3, ROWS, ONE > 0)),
    Case("index_put by int32", _put(0), (M, ROWS.int(), ONE)),
    Case(
        "_unsafe_index_put",
        lambda x, i, v: aten._unsafe_index_put.default(x, [None, i], v),
        (M, ROWS, ONE),
    ),
    Case("index_put with symbolic dims", _put(None, 0), (M, ROWS, M[:, :3] + 100), dynamic=True),
    Case("index_put that adds duplicates", _put(0, accumulate=True), (M, TWICE, M + 1)),
    Case(
        "index_put that adds duplicates of two indices",
        _put(0, 1, accumulate=True),
        (M, TWICE, TWICE - 1, torch.arange(4.0)),
    ),
    Case(
        "index_put that adds in inner dims",
        _put(None, 0, 1, accumulate=True),
        (
            Y,
            torch.tensor([1, 1, -2]),
            torch.tensor([-1, 3, 3]),
            torch.arange(30.0).reshape(2, 3, 5),
        ),
    ),
    Case(
        "index_put that adds float16 once",
        _put(0, accumulate=True),
        (M.half(), TWICE[:1], M[:1].half()),
    ),
    Case(
        "index_put that adds int8",
        _put(0, accumulate=True),
        ((M * 10).to(torch.int8), TWICE, M.to(torch.int8) + 5),
    ),
    Case(
        "index_put that adds with symbolic dims",
        _put(0, 1, accumulate=True),
        (Y, TWICE, TWICE - 1, Y[0, 0, 0]),
        dynamic=True,
    ),
    Case("index_put of a number by a mask is a Where", _put(0), (M, M > 5, ONE), max_nodes=1),
    Case("index_put of a row by a mask", _put(0), (M, M[:, 1] > 5, M[0])),
    Case(
        "index_put of one element by an inner mask",
        _put(None, 0),
        (X, MASK, torch.tensor([[[5.0]], [[6.0]]])),
    ),
    Case("index_put of a bool by a mask", _put(0), (M > 7, M > 5, ONE < 0)),
    Case("index_put that adds by a mask", _put(0, accumulate=True), (M, M > 5, ONE)),
    Case(
        "index_put of chosen values by a mask",
        lambda x, y: aten.index_put.default(x, [x > 5], y[x > 5]),
        (M, -M),
        dynamic=True,
    ),
    Case(
        "index_put of chosen rows by a mask",
        lambda x, y: aten.index_put.default(x, [x[:, 1] > 5], y[x[:, 1] > 5], True),
        (M, -M),
        dynamic=True,
    ),
    Case(
        "put",
        lambda x, i, s: aten.put.default(x, i, s),
        (M, torch.tensor([[0, -1], [7, 8]]), M[:2, :2] + 50),
    ),
    Case(
        "put that adds",
        lambda x, i, s: aten.put.default(x, i, s, True),
        (M, torch.tensor([[0, -1], [7, 7]]), M[:2, :2] + 50),
    ),
]

SCATTERS = [
    Case(
        "scatter",
        lambda x, i, s: aten.scatter.src(x, 1, i, s),
        (M, INDEX[:, 1:], SRC[:, 1:]),
        max_nodes=2,
    ),
    Case(
        "scatter with a source longer than the index",
        lambda x, i, s: aten.scatter.src(x, 0, i, s),
        (M, INDEX[:, :1], SRC),
        max_nodes=3,
    ),
    Case(
        "scatter of 0-d tensors",
        lambda x, i, s: aten.scatter.src(x, 0, i, s),
        (ONE, torch.tensor(0), ONE + 1),
    ),
    Case(
        "scatter of nothing",
        lambda x, i, s: aten.scatter.src(x, 0, i, s),
        (M, NONE.reshape(0, 3), SRC),
    ),
    Case("scatter of a number", lambda x, i: aten.scatter.value(x, 1, i, 1.5), (M, INDEX)),
    Case(
        "scatter of a number into bools",
        lambda x, i: aten.scatter.value(x, 1, i, 1),
        (M > 90, INDEX),
    ),
    Case(
        "scatter of a number into integers",
        lambda x, i: aten.scatter.value(x, -1, i, -1),
        (M_INT, INDEX),
    ),
    Case(
        "scatter with symbolic dims",
        lambda x, i, s: aten.scatter.src(x, 0, i, s),
        (M, INDEX[:, :1], SRC),
        dynamic=True,
    ),
    Case(
        "scatter that adds",
        lambda x, i, s: aten.scatter.reduce(x, 1, i, s, reduce="add"),
        (M, INDEX, SRC),
    ),
    Case(
        "scatter that multiplies",
        lambda x, i, s: aten.scatter.reduce(x, 1, i, s, reduce="multiply"),
        (M, INDEX, SRC),
    ),
    Case(
        "scatter of a number that multiplies",
        lambda x, i: aten.scatter.value_reduce(x, 1, i, 3, reduce="multiply"),
        (M, INDEX),
    ),
    Case(
        "scatter_add",
        lambda x, i, s: aten.scatter_add.default(x, 1, i, s),
        (M, INDEX, SRC),
        max_nodes=2,
    ),
    Case(
        "scatter_add of bfloat16",
        lambda x, i, s: aten.scatter_add.default(x, 1, i, s),
        (M.bfloat16(), INDEX, SRC.bfloat16()),
    ),
    Case(
        "scatter_add of float64",
        lambda x, i, s: aten.scatter_add.default(x, 0, i, s),
        (M.double(), INDEX, SRC.double()),
    ),
    Case(
        "scatter_add with symbolic dims",
        lambda x, i, s: aten.scatter_add.default(x, 1, i, s),
        (M, INDEX, SRC),
        dynamic=True,
    ),
    *(
        Case(
            f"scatter_reduce by {how} of {kind}, {'with' if kept else 'without'} self",
            _reduce(how, kept),
            args,
        )
        for how in ("sum", "prod", "mean", "amax", "amin")
        for kept in (True, False)
        for kind, args in {
            "floats": (M, INDEX, SRC),
            "integers": (M_INT, INDEX, SRC_INT),
            "NaNs": (M_NAN, INDEX, NAN),
            "float16": (M.half(), INDEX, SRC.half()),
        }.items()
    ),
    Case(
        "index_add",
        lambda x, i, s: aten.index_add.default(x, 1, i, s),
        (M, torch.tensor([0, 3, 0]), torch.arange(12.0).reshape(4, 3)),
    ),
    Case(
        "index_add scales by alpha",
        lambda x, i, s: aten.index_add.default(x, 0, i, s, alpha=3),
        (M, torch.tensor([0, 3, 0]), M[1:]),
    ),
    Case(
        "index_add by a 0-d index",
        lambda x, i, s: aten.index_add.default(x, 0, i, s),
        (M[0], torch.tensor(2), M[0, :1] + 5),
    ),
    Case(
        "index_copy of rows is a ScatterND",
        lambda x, i, s: aten.index_copy.default(x, 0, i, s),
        (M, torch.tensor([0, 3]), -M[:2]),
        max_nodes=3,
    ),
    Case(
        "index_copy on an inner dim",
        lambda x, i, s: aten.index_copy.default(x, 1, i, s),
        (M, torch.tensor([0, 3]), -M[:, :2]),
    ),
    Case(
        "index_copy with symbolic dims",
        lambda x, i, s: aten.index_copy.default(x, 1, i, s),
        (M, torch.tensor([0, 3]), -M[:, :2]),
        dynamic=True,
    ),
    Case(
        "index_fill with a number",
        lambda x, i: aten.index_fill.int_Scalar(x, 1, i, 2),
        (M, torch.tensor([0, -1])),
    ),
    Case(
        "index_fill with a 0-d tensor",
        lambda x, i, v: aten.index_fill.int_Tensor(x, 0, i, v),
        (M_INT, torch.tensor([0, -1]), torch.tensor(5)),
    ),
    Case(
        "embedding_dense_backward leaves padding out",
        lambda g, i: aten.embedding_dense_backward.default(g, i, 5, 1, False),
        (X, torch.tensor([[0, 1, 4], [4, 1, 0]])),
    ),
    Case(
        "embedding_dense_backward without padding",
        lambda g, i: aten.embedding_dense_backward.default(g, i, 5, -1, False),
        (X, torch.tensor([[0, 1, 4], [4, 1, 0]])),
        dynamic=True,
    ),
    Case(
        "index_fill of a 0-d tensor",
        lambda x, i: aten.index_fill.int_Scalar(x, 0, i, 2),
        (ONE, torch.tensor([0])),
    ),
    *(
        Case(
            f"index_reduce by {how}, {'with' if kept else 'without'} self",
            _index_reduce(how, kept),
            (M_NAN, torch.tensor([0, 3, 0]), M_NAN[:, 1:4] - 9),
        )
        for how in ("prod", "mean", "amax", "amin")
        for kept in (True, False)
    ),
]

OVERWRITES = [
    Case(
        "slice_scatter",
        lambda x, s: aten.slice_scatter.default(x, s, 1, 1, 3),
        (M, -M[:, :2]),
        max_nodes=3,
    ),
    Case(
        "slice_scatter at the front",
        lambda x, s: aten.slice_scatter.default(x, s, 0, None, 2),
        (M, -M[:2]),
        max_nodes=2,
    ),
    Case(
        "slice_scatter at the end",
        lambda x, s: aten.slice_scatter.default(x, s, 0, -2, 99),
        (M, -M[:2]),
        max_nodes=2,
    ),
    Case("slice_scatter of everything", lambda x, s: aten.slice_scatter.default(x, s, 1), (M, -M)),
    Case(
        "slice_scatter of nothing",
        lambda x, s: aten.slice_scatter.default(x, s, 1, 9),
        (M, M[:, :0]),
    ),
    Case(
        "slice_scatter by steps",
        lambda x, s: aten.slice_scatter.default(x, s, 1, 1, None, 2),
        (M, -M[:, :2]),
    ),
    Case(
        "slice_scatter with symbolic dims",
        lambda x, s: aten.slice_scatter.default(x, s, 1, -3, -1),
        (M, -M[:, :2]),
        dynamic=True,
    ),
    Case(
        "slice_scatter at a symbolic start",
        lambda x, s: aten.slice_scatter.default(x, s, 1, s.shape[1], 2 * s.shape[1]),
        (M, -M[:, :2]),
        dynamic=True,
    ),
    Case(
        "slice_scatter at a symbolic start from the end",
        lambda x, s: aten.slice_scatter.default(x, s, 1, -s.shape[1]),
        (M, -M[:, :2]),
        dynamic=True,
    ),
    Case("select_scatter", lambda x, s: aten.select_scatter.default(x, s, 1, -2), (M, -M[:, 0])),
    Case(
        "select_scatter of a vector",
        lambda x, s: aten.select_scatter.default(x, s, 0, 0),
        (M[0], ONE),
    ),
    Case(
        "select_scatter with symbolic dims",
        lambda x, s: aten.select_scatter.default(x, s, 1, -1),
        (X, -X[:, 0]),
        dynamic=True,
    ),
    Case("diagonal_scatter", lambda x, s: aten.diagonal_scatter.default(x, s, 1), (M, -M[:, 1])),
    Case(
        "diagonal_scatter below, over given dims",
        lambda x, s: aten.diagonal_scatter.default(x, s, -1, 2, 0),
        (X, torch.arange(6.0).reshape(3, 2)),
    ),
    Case(
        "diagonal_backward",
        lambda g: aten.diagonal_backward.default(g, [2, 3, 4], 1, 1, 2),
        (torch.arange(6.0).reshape(2, 3),),
    ),
    Case("masked_scatter", aten.masked_scatter.default, (M, M % 3 > 1, -M)),
    Case(
        "masked_scatter broadcasts the mask",
        aten.masked_scatter.default,
        (X, MASK.reshape(3, 1), torch.arange(50.0)),
    ),
    Case("masked_scatter of nothing", aten.masked_scatter.default, (M, M > 99, -M)),
    Case(
        "masked_scatter with an empty source",
        aten.masked_scatter.default,
        (M, M > 99, torch.zeros(0)),
    ),
    Case(
        "masked_scatter of integers with symbolic dims",
        aten.masked_scatter.default,
        (M_INT, M % 2 > 0, -M_INT),
        dynamic=True,
    ),
]

COUNTED = torch.tensor([7, 3, 0, 3, 5])
FENCES = torch.tensor([-1.0, 0.0, 0.0, 2.5])
WITH_NAN = torch.tensor([-1.0, 0.5, *[float("nan")] * 3])
VALUES = torch.tensor([[-2.0, -1.0, 0.0], [2.5, 3.0, float("nan")]])

SEARCHES = [
    *(
        Case(
            f"histc of {dtype}",
            lambda x: aten.histc.default(x, 7, -1, 0.3),
            (
                torch.tensor(
                    [-1, 0.3, -0.1, 0.0999, 0.1, 0.3001, -1.01, math.inf, -math.inf, math.nan]
                ).to(dtype),
            ),
        )
        for dtype in (torch.float32, torch.float64, torch.float16)
    ),
    Case("histc of no elements", lambda x: aten.histc.default(x, 3, 0, 1), (VALUES[:0],)),
    Case("histc of symbolic dims", lambda x: aten.histc.default(x, 3, 0, 4), (M,), dynamic=True),
    Case("bincount", aten.bincount.default, (COUNTED,)),
    Case("bincount of at least ten", lambda x: aten.bincount.default(x, None, 10), (COUNTED,)),
    Case("bincount of at least two", lambda x: aten.bincount.default(x, None, 2), (COUNTED.int(),)),
    Case("bincount of nothing", aten.bincount.default, (COUNTED[:0],)),
    Case("bincount of uint8", aten.bincount.default, (COUNTED.to(torch.uint8),)),
    Case("bincount of symbolic size", aten.bincount.default, (COUNTED,), dynamic=True),
    Case("bincount with weights", aten.bincount.default, (COUNTED, torch.rand(5))),
    Case("bincount with integer weights", aten.bincount.default, (COUNTED, COUNTED)),
    Case("bucketize", aten.bucketize.Tensor, (VALUES, FENCES), max_nodes=5),
    Case(
        "bucketize to the right, as int32",
        lambda x, b: aten.bucketize.Tensor(x, b, out_int32=True, right=True),
        (VALUES, FENCES),
    ),
    Case(
        "bucketize of integers",
        aten.bucketize.Tensor,
        (torch.arange(-3, 4), torch.tensor([-1, 0, 0, 2])),
    ),
    Case("bucketize by boundaries with NaN", aten.bucketize.Tensor, (VALUES, WITH_NAN)),
    Case("bucketize without order", aten.bucketize.Tensor, (VALUES, FENCES.flip(0))),
    Case(
        "searchsorted with symbolic dims and NaN",
        lambda b, x: aten.searchsorted.Tensor(b, x, side="right"),
        (torch.stack([WITH_NAN, WITH_NAN + 1]), VALUES),
        dynamic=True,
    ),
    Case("bucketize of a number", lambda b: aten.bucketize.Scalar(0.0, b), (FENCES,)),
    Case("bucketize without boundaries", aten.bucketize.Tensor, (VALUES, FENCES[:0])),
    Case("bucketize with symbolic dims", aten.bucketize.Tensor, (VALUES, FENCES), dynamic=True),
    Case(
        "searchsorted", lambda b, x: aten.searchsorted.Tensor(b, x, side="right"), (FENCES, VALUES)
    ),
    Case(
        "searchsorted in rows",
        aten.searchsorted.Tensor,
        (torch.stack([FENCES, FENCES + 1]), VALUES),
    ),
    Case(
        "searchsorted with a sorter",
        lambda b, x, s: aten.searchsorted.Tensor(b, x, sorter=s),
        (FENCES.flip(0), VALUES, torch.tensor([3, 2, 1, 0])),
    ),
    Case("searchsorted of a number", lambda b: aten.searchsorted.Scalar(b, 2), (FENCES,)),
]


@pytest.mark.parametrize("case", PUTS, ids=str)
def test_index_put(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("case", SCATTERS, ids=str)
def test_scatter(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("case", OVERWRITES, ids=str)
def test_overwrite(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("case", SEARCHES, ids=str)
def test_search(case: Case) -> None:
    check(case)


def test_many_duplicates_all_add_up() -> None:
    # ScatterND(reduction="add") of onnxruntime 1.32 loses some of these to races.
    rows = torch.arange(20_000) % 3
    program = check(Case("", _put(0, accumulate=True), (M[:3], rows, torch.ones(20_000, 5))))
    assert "ScatterND" not in [n.op_type for n in program.model.graph]


def test_bools_that_accumulate_are_declined() -> None:
    lowering = lower(_put(0, accumulate=True), M > 3, ROWS, ONE > 0)
    assert "bools that accumulate" in str(lowering.reasons[0])


def test_a_write_by_two_masks_is_declined() -> None:
    lowering = lower(_put(0, 1), M, M[:, 0] > 3, M[0] > 1, ONE)
    assert "a mask beside another index" in str(lowering.reasons[0])


@pytest.mark.parametrize(
    "fn",
    [
        lambda x, i: aten.index_put.default(x, [i], x, True),
        lambda x, i: aten.put.default(x, i, x, True),
        lambda x, i: aten.index_add.default(x, 0, i, x),
        lambda x, i: aten.index_reduce.default(x, 0, i, x, "mean"),
        lambda x, i: aten.index_reduce.default(x, 0, i, x, "prod"),
    ],
    ids=["index_put", "put", "index_add", "mean", "prod"],
)
def test_sums_that_eager_keeps_in_16_bits_are_declined(fn) -> None:
    lowering = lower(fn, torch.linspace(1, 2, 8).bfloat16(), torch.zeros(8, dtype=torch.int64))
    assert "eager rounds after each" in str(lowering.reasons[0])
