"""View rules against eager."""

from __future__ import annotations

import pytest
import torch

from .harness import Case, check, lower

aten = torch.ops.aten
X = torch.linspace(-3, 3, 24).reshape(2, 3, 4)
M = torch.arange(20).reshape(4, 5)
EMPTY = torch.zeros(2, 0, 3)
ONE = torch.tensor(7.0)
SOURCE = torch.arange(100, 106)


def _chain(x):
    """Split heads, swap, merge, split again: what attention does around itself."""
    heads = x.view(2, 3, 2, 2).transpose(1, 2).transpose(1, 2).view(2, 3, 4)
    return heads.view(6, 4).view(2, 3, 4).unsqueeze(0).squeeze(0).view(2, 12).view(3, 8)


def _there_and_back(x):
    """Heads apart, in front and together, and all of it undone: two transposes that meet."""
    heads = x.view(2, 3, 2, 2).transpose(1, 2).reshape(4, 3, 2)
    return heads.view(2, 2, 3, 2).transpose(1, 2).reshape(2, 3, 4) + 1


def _written(size, stride, offset):
    """A strided part overwritten by as many elements."""
    return lambda x, y: aten.as_strided_scatter.default(x, y.view(size), size, stride, offset)


CASES = [
    Case(
        "views and transposes that undo each other are nothing", _there_and_back, (X,), max_nodes=1
    ),
    Case("view infers a -1", lambda x: aten.view.default(x, [4, -1]), (X,), max_nodes=1),
    Case(
        "view of symbolic dims",
        lambda x: x.view(x.shape[0], -1) + 0 * x.shape[1],
        (X,),
        dynamic=True,
    ),
    Case(
        "view merges and splits symbolic dims",
        lambda x: x.view(x.shape[0] * x.shape[1], 2, x.shape[2] // 2) + 1,
        (X,),
        dynamic=True,
    ),
    Case("view between zero-size shapes", lambda x: aten.view.default(x, [0, 5]), (EMPTY,)),
    Case("view to a 0-d tensor", lambda x: aten.view.default(x, []), (X[0, 0, :1],)),
    Case("_unsafe_view", lambda x: aten._unsafe_view.default(x, [6, 4]), (X,), max_nodes=1),
    Case("view_copy", lambda x: aten.view_copy.default(x, [6, 4]), (X,)),
    Case("_reshape_copy", lambda x: aten._reshape_copy.default(x, [6, 4]), (X,)),
    Case(
        "_reshape_alias",
        lambda x: aten._reshape_alias.default(x, [6, 4], [4, 1]) + 1,
        (
            M.reshape(2, 2, 5)[:, :, :4]
            .contiguous()
            .reshape(2, 8)[:, :]
            .reshape(4, 4)
            .repeat(2, 1)[:6],
        ),
    ),
    Case("a chain of views collapses", _chain, (X,), max_nodes=1),
    Case(
        "transpose of a transpose is nothing but the output's Identity",
        lambda x: x.transpose(1, 2).transpose(1, 2),
        (X,),
        max_nodes=1,
    ),
    Case(
        "transposes compose",
        lambda x: x.transpose(0, 1).transpose(1, 2).permute(2, 0, 1) + 1.0,
        (X,),
        max_nodes=2,
    ),
    Case(
        "permuting a dim of size 1 is a reshape",
        lambda x: aten.permute.default(x.unsqueeze(1), [1, 0, 2, 3]),
        (X,),
        max_nodes=1,
    ),
    Case("permute with negative dims", lambda x: aten.permute.default(x, [-1, 0, -2]), (X,)),
    Case("permute of bools", lambda x: aten.permute_copy.default(x, [2, 0, 1]), (X > 0,)),
    Case("permute of bfloat16", lambda x: aten.permute.default(x, [2, 0, 1]), (X.bfloat16(),)),
    Case("t of a matrix", aten.t.default, (M,), max_nodes=1),
    Case("t of a vector", aten.t.default, (M[0],)),
    Case("t_copy", aten.t_copy.default, (M,)),
    Case("transpose of a 0-d tensor", lambda x: aten.transpose.int(x, 0, -1), (ONE,)),
    Case("transpose_copy", lambda x: aten.transpose_copy.int(x, 0, -1), (X,)),
    Case("transpose of symbolic dims", lambda x: aten.transpose.int(x, 0, -1), (X,), dynamic=True),
    Case(
        "expand keeps dims given as -1",
        lambda x: aten.expand.default(x, [5, -1, 3, -1]),
        (X[:, :1],),
        max_nodes=1,
    ),
    Case("expand of a 0-d tensor", lambda x: aten.expand.default(x, [2, 3]), (ONE,)),
    Case("expand to a zero-size dim", lambda x: aten.expand.default(x, [0, 3]), (ONE,)),
    Case(
        "expand from one element to none, inside of a graph",
        lambda x: aten.expand.default(x + 1, [0, 3]) * 2,
        (X[0, 0, :1],),
    ),
    Case("expand of bfloat16", lambda x: aten.expand_copy.default(x, [2, 2]), (ONE.bfloat16(),)),
    Case(
        "expand to symbolic dims",
        lambda x, y: x.expand(y.shape[0], y.shape[1], -1) + y,
        (torch.ones(1, 1, 4), X),
        dynamic=True,
    ),
    Case("unsqueeze at the end", lambda x: aten.unsqueeze.default(x, -1), (X,), max_nodes=1),
    Case("unsqueeze_copy", lambda x: aten.unsqueeze_copy.default(x, 1), (X,)),
    Case(
        "unsqueeze of symbolic dims is one node",
        lambda x: aten.unsqueeze.default(x, 0),
        (X,),
        dynamic=True,
        max_nodes=1,
    ),
    Case("squeeze drops every dim of size 1", aten.squeeze.default, (X[:1, :, :1],)),
    Case("squeeze of a longer dim is nothing", lambda x: aten.squeeze.dim(x, 1), (X,)),
    Case("squeeze of one dim", lambda x: aten.squeeze.dim(x, -1), (X[:, :, :1],)),
    Case("squeeze of several dims", lambda x: aten.squeeze.dims(x, [0, 1, -1]), (X[:1, :, :1],)),
    Case("squeeze_copy", lambda x: aten.squeeze_copy.default(x), (X[:1],)),
    Case("squeeze_copy.dim", lambda x: aten.squeeze_copy.dim(x, 0), (X[:1],)),
    Case("squeeze_copy.dims", lambda x: aten.squeeze_copy.dims(x, [0]), (X[:1],)),
    Case(
        "squeeze between symbolic dims is one node",
        lambda x: aten.squeeze.dim(x, 1),
        (X.unsqueeze(1),),
        dynamic=True,
        max_nodes=1,
    ),
    Case(
        "view.dtype between integers of one size",
        lambda x: aten.view.dtype(x, torch.uint8),
        (torch.tensor([-1, 5], dtype=torch.int8),),
    ),
    Case("view_copy.dtype of bools", lambda x: aten.view_copy.dtype(x, torch.uint8), (X > 0,)),
    Case("diagonal", aten.diagonal.default, (M,), max_nodes=2),
    Case("diagonal above", lambda x: aten.diagonal.default(x, 2), (M,)),
    Case("diagonal below, over given dims", lambda x: aten.diagonal.default(x, -1, -1, 0), (X,)),
    Case("diagonal_copy", lambda x: aten.diagonal_copy.default(x, 1, 1, 2), (X,)),
    Case("a diagonal outside of the matrix", lambda x: aten.diagonal.default(x, 9), (M,)),
    Case(
        "diagonal of symbolic dims",
        lambda x: aten.diagonal.default(x, -1, 0, 2) + 1,
        (X,),
        dynamic=True,
    ),
    Case("unfold in windows that overlap", lambda x: aten.unfold.default(x, -1, 3, 1), (X,)),
    Case("unfold with gaps", lambda x: aten.unfold.default(x, 0, 1, 3), (M,)),
    Case(
        "unfold in windows side by side",
        lambda x: aten.unfold.default(x, 1, 2, 2),
        (M,),
        max_nodes=2,
    ),
    Case("unfold of a 0-d tensor", lambda x: aten.unfold_copy.default(x, 0, 1, 1), (ONE,)),
    Case(
        "unfold of symbolic dims", lambda x: aten.unfold.default(x, 1, 3, 2) + 1, (M,), dynamic=True
    ),
    Case(
        "unfold of symbolic dims side by side",
        lambda x: aten.unfold.default(x, 1, 2, 2) + 1,
        (M,),
        dynamic=True,
    ),
    *(
        Case(f"as_strided_scatter of a {name}", _written(size, stride, offset), (x, SOURCE[:n]))
        for name, x, size, stride, offset, n in (
            ("slice", M, [2, 3], [3, 1], 7, 6),
            ("column", M, [3], [4], 2, 3),
            ("permuted operand", M.t(), [3], [4], 2, 3),
            ("single element", M, [], [], 3, 1),
            ("part without elements", M, [0, 2], [1, 1], 0, 0),
        )
    ),
    Case(
        "as_strided with its own strides",
        lambda x: aten.as_strided.default(x, [2, 3, 4], [12, 4, 1]),
        (X,),
        max_nodes=1,
    ),
    Case(
        "as_strided that only reshapes",
        lambda x: aten.as_strided.default(x, [6, 4, 1], [4, 1, 9]),
        (X,),
        max_nodes=1,
    ),
    Case(
        "as_strided that transposes",
        lambda x: aten.as_strided.default(x, [5, 4], [1, 5]),
        (M,),
        max_nodes=1,
    ),
    Case(
        "as_strided that slices",
        lambda x: aten.as_strided.default(x, [2, 3], [3, 1], 7),
        (M,),
        max_nodes=3,
    ),
    Case(
        "as_strided that repeats", lambda x: aten.as_strided.default(x, [3, 2, 5], [0, 5, 1]), (M,)
    ),
    Case(
        "as_strided with overlapping windows",
        lambda x: aten.as_strided_copy.default(x, [4, 3], [2, 1], 1),
        (M,),
    ),
    Case(
        "as_strided of a permuted base reads its storage",
        lambda x: aten.as_strided.default(x.t() + 2, [10, 2], [2, 1], 0),
        (M,),
    ),
    Case("as_strided of nothing", lambda x: aten.as_strided.default(x, [0, 2], [2, 1]), (M,)),
    Case(
        "as_strided of symbolic dims that only reshapes",
        lambda x: aten.as_strided.default(
            x, [x.shape[0] * x.shape[1], x.shape[2]], [x.shape[2], 1]
        ),
        (X,),
        dynamic=True,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_view(case: Case) -> None:
    check(case)


def test_a_float_read_as_an_integer_is_declined() -> None:
    lowering = lower(lambda x: aten.view.dtype(x, torch.int32), X)
    assert "the bytes of torch.float32 read as torch.int32" in str(lowering.reasons[0])


def test_as_strided_beyond_its_base_is_declined() -> None:
    base = torch.arange(12.0)[:6]
    lowering = lower(lambda x: aten.as_strided.default(x, [4, 2], [2, 1]), base)
    assert "beyond the elements" in str(lowering.reasons[0])
