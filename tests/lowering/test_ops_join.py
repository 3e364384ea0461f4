"""Joining, splitting, repeating, rolling and padding against eager."""

from __future__ import annotations

import pytest
import torch

from .harness import Case, check, lower

aten = torch.ops.aten
X = torch.linspace(-3, 3, 24).reshape(2, 3, 4)
M = torch.arange(20).reshape(4, 5)
INTS = torch.arange(24).reshape(2, 3, 4)
EMPTY = torch.zeros(2, 0, 3)
ONE = torch.tensor(7.0)
IMAGE = torch.arange(60.0).reshape(1, 3, 4, 5)
VOLUME = torch.arange(120.0).reshape(1, 2, 3, 4, 5)

CASES = [
    Case("cat", lambda a, b: aten.cat.default([a, b, a], 1), (X, X[:, :1]), max_nodes=1),
    Case("cat on a negative dim", lambda a, b: aten.cat.default([a, b], -1), (X, X[:, :, 1:])),
    Case(
        "cat skips empty vectors",
        lambda a, b: aten.cat.default([b, a, b], 1),
        (X, torch.zeros(0)),
        max_nodes=1,
    ),
    Case(
        "cat of empty vectors only",
        lambda a, b: aten.cat.default([a, b]),
        (torch.zeros(0), torch.zeros(0)),
    ),
    Case(
        "cat of an empty and a full vector",
        lambda a, b: aten.cat.default([a, b]),
        (torch.zeros(0), X[0, 0]),
    ),
    Case("cat promotes", lambda a, b: aten.cat.default([a, b]), (X, INTS)),
    Case(
        "cat promotes an empty vector's type as well",
        lambda a, b: aten.cat.default([a, b]),
        (torch.zeros(0), INTS),
    ),
    Case("cat of one", lambda a: aten.cat.default([a], 1), (X,)),
    Case("cat of zero-size tensors", lambda a, b: aten.cat.default([a, b], 1), (EMPTY, EMPTY + 1)),
    Case("cat of bools", lambda a, b: aten.cat.default([a, b]), (X > 0, X > 1)),
    Case("cat of bfloat16", lambda a, b: aten.cat.default([a, b]), (X.bfloat16(), X.bfloat16())),
    Case("cat of float16 and float32", lambda a, b: aten.cat.default([a, b]), (X.half(), X)),
    Case(
        "cat with symbolic dims",
        lambda a, b: aten.cat.default([a, b], 1),
        (X, X[:, :2]),
        dynamic=True,
        max_nodes=1,
    ),
    Case(
        "stack is a Concat and a Reshape",
        lambda a, b: aten.stack.default([a, b], 1),
        (X, X + 1),
        max_nodes=2,
    ),
    Case("stack in front", lambda a, b: aten.stack.default([a, b, a]), (X, X + 1), max_nodes=2),
    Case("stack at the end", lambda a, b: aten.stack.default([a, b], -1), (X, X + 1)),
    Case("stack of 0-d tensors", lambda a, b: aten.stack.default([a, b]), (ONE, ONE + 1)),
    Case("stack of one", lambda a: aten.stack.default([a], 1), (X,)),
    Case(
        "stack with symbolic dims",
        lambda a, b: aten.stack.default([a, b], 1),
        (X, X + 1),
        dynamic=True,
    ),
    Case("split with a rest", lambda x: list(aten.split.Tensor(x, 2, 1)), (X,), max_nodes=1),
    Case("split into one", lambda x: list(aten.split.Tensor(x, 9, -1)), (X,)),
    Case("split of a zero-size dim", lambda x: list(aten.split.Tensor(x, 0, 1)), (EMPTY,)),
    Case("split_copy", lambda x: list(aten.split_copy.Tensor(x, 1, 0)), (X,)),
    Case("unsafe_split", lambda x: list(aten.unsafe_split.Tensor(x, 1, 0)), (X,)),
    Case(
        "split of symbolic dims",
        lambda x: [p + 1 for p in aten.split.Tensor(x, 2, 1)],
        (X,),
        dynamic=True,
    ),
    Case(
        "split_with_sizes, some of them zero",
        lambda x: list(aten.split_with_sizes.default(x, [1, 0, 3], 2)),
        (X,),
        max_nodes=1,
    ),
    Case(
        "split_with_sizes_copy",
        lambda x: list(aten.split_with_sizes_copy.default(x, [1, 3], 2)),
        (X,),
    ),
    Case(
        "unsafe_split_with_sizes",
        lambda x: list(aten.unsafe_split_with_sizes.default(x, [1, 3], 2)),
        (X,),
    ),
    Case("unbind", lambda x: list(aten.unbind.int(x, 1)), (X,), max_nodes=3),
    Case("unbind of one", lambda x: list(aten.unbind.int(x, 0)), (X[:1],)),
    Case("unbind_copy", lambda x: list(aten.unbind_copy.int(x, -1)), (INTS,)),
    Case(
        "unbind with symbolic dims",
        lambda x: [p + 1 for p in aten.unbind.int(x, 1)],
        (X,),
        dynamic=True,
    ),
    Case("repeat", lambda x: aten.repeat.default(x, [2, 1, 3]), (X,), max_nodes=1),
    Case("repeat in front", lambda x: aten.repeat.default(x, [2, 2, 1, 3]), (X,), max_nodes=2),
    Case(
        "repeat of dims of size 1 is an Expand",
        lambda x: aten.repeat.default(x, [2, 1, 3]),
        (X[:1, :, :1],),
        max_nodes=1,
    ),
    Case("repeat zero times", lambda x: aten.repeat.default(x, [0, 1, 3]), (X,)),
    Case("repeat of a 0-d tensor", lambda x: aten.repeat.default(x, [3]), (ONE,)),
    Case("repeat once", lambda x: aten.repeat.default(x, [1, 1, 1]), (X,)),
    Case("repeat of bfloat16", lambda x: aten.repeat.default(x, [1, 2, 2]), (X.bfloat16(),)),
    Case(
        "repeat a symbolic number of times",
        lambda x, y: aten.repeat.default(x, [y.shape[0], 1, 2]) + 0 * y.shape[0],
        (X, M),
        dynamic=True,
    ),
    Case("repeat_interleave by a number", lambda x: x.repeat_interleave(2, 1) + 1, (X,)),
    Case(
        "repeat_interleave of counts",
        lambda r: aten.repeat_interleave.Tensor(r, output_size=6),
        (torch.tensor([2, 0, 3, 0, 1]),),
    ),
    Case(
        "repeat_interleave of int32 counts",
        lambda r: aten.repeat_interleave.Tensor(r, output_size=2),
        (torch.tensor([0, 2, 0], dtype=torch.int32),),
    ),
    Case(
        "repeat_interleave to a size known at run time only",
        lambda r: aten.repeat_interleave.Tensor(r),
        (torch.tensor([2, 0, 3, 0, 1]),),
        dynamic=True,
    ),
    Case("roll along two dims", lambda x: aten.roll.default(x, [1, -1], [0, 1]), (X,), max_nodes=2),
    Case("roll of the last dim", lambda x: aten.roll.default(x, [-5], [-1]), (X,), max_nodes=2),
    Case("roll all the way around", lambda x: aten.roll.default(x, [4], [-1]), (X,)),
    Case("roll of everything", lambda x: aten.roll.default(x, [5]), (INTS,)),
    Case("roll of nothing", lambda x: aten.roll.default(x, [5], [1]), (EMPTY,)),
    Case("roll of a 0-d tensor", lambda x: aten.roll.default(x, [5], []), (ONE,)),
    Case(
        "roll of symbolic dims", lambda x: aten.roll.default(x, [5, -7], [0, 1]), (X,), dynamic=True
    ),
    Case(
        "roll of everything with symbolic dims",
        lambda x: aten.roll.default(x, [-7]),
        (X,),
        dynamic=True,
    ),
    Case("flip is one Slice", lambda x: aten.flip.default(x, [0, -1]), (X,), max_nodes=1),
    Case("flip of nothing", lambda x: aten.flip.default(x, []), (X,)),
    Case("flip of a zero-size tensor", lambda x: aten.flip.default(x, [0, 1]), (EMPTY,)),
    Case("flip of symbolic dims", lambda x: aten.flip.default(x, [1]), (X,), dynamic=True),
    Case(
        "rot90 any number of times",
        lambda x: [aten.rot90.default(x, k, [0, -1]) for k in (-1, 0, 1, 2, 3)],
        (X,),
    ),
]

PADS = [
    Case(
        "pad with a number",
        lambda x: aten.constant_pad_nd.default(x, [1, 2, 0, 3], 2.5),
        (X,),
        max_nodes=1,
    ),
    Case(
        "pad that cuts off", lambda x: aten.constant_pad_nd.default(x, [-1, -1, 0, -1], 1.0), (X,)
    ),
    Case(
        "pad that cuts off and grows",
        lambda x: aten.constant_pad_nd.default(x, [-1, 2, 1, -1, 0, 1], -1),
        (INTS,),
    ),
    Case("pad by nothing", lambda x: aten.constant_pad_nd.default(x, [0, 0]), (X,)),
    Case("pad of bools", lambda x: aten.constant_pad_nd.default(x, [1, 0], 1), (X > 0,)),
    Case("pad of float16", lambda x: aten.constant_pad_nd.default(x, [1, 0], 0.1), (X.half(),)),
    Case(
        "pad of bfloat16", lambda x: aten.constant_pad_nd.default(x, [1, 0], 0.1), (X.bfloat16(),)
    ),
    Case("pad of int16", lambda x: aten.constant_pad_nd.default(x, [1, 0], 3), (INTS.short(),)),
    Case(
        "pad with infinity and NaN",
        lambda x: aten.constant_pad_nd.default(
            aten.constant_pad_nd.default(x, [1, 0], float("-inf")), [0, 1], float("nan")
        ),
        (X,),
    ),
    Case(
        "pad of a zero-size tensor",
        lambda x: aten.constant_pad_nd.default(x, [1, 0, 1, 1]),
        (EMPTY,),
    ),
    Case(
        "pad with symbolic dims",
        lambda x: aten.constant_pad_nd.default(x, [1, -1, 0, 3], 2.5),
        (X,),
        dynamic=True,
        max_nodes=1,
    ),
    Case(
        "pad by a symbolic number",
        lambda x, y: aten.constant_pad_nd.default(x, [0, y.shape[0]]),
        (X, M),
        dynamic=True,
    ),
    Case("reflection_pad1d", lambda x: aten.reflection_pad1d.default(x, [3, 2]), (X,), max_nodes=1),
    Case(
        "reflection_pad1d without a batch",
        lambda x: aten.reflection_pad1d.default(x, [3, 0]),
        (X[0],),
    ),
    Case(
        "reflection_pad1d that cuts off", lambda x: aten.reflection_pad1d.default(x, [-1, 3]), (X,)
    ),
    Case(
        "reflection_pad2d",
        lambda x: aten.reflection_pad2d.default(x, [4, 2, 1, 3]),
        (IMAGE,),
        max_nodes=1,
    ),
    Case(
        "reflection_pad2d of symbolic dims",
        lambda x: aten.reflection_pad2d.default(x, [4, -2, 1, 3]),
        (IMAGE,),
        dynamic=True,
    ),
    Case(
        "reflection_pad3d",
        lambda x: aten.reflection_pad3d.default(x, [4, 2, 1, 3, 2, 0]),
        (VOLUME,),
    ),
    Case(
        "replication_pad1d", lambda x: aten.replication_pad1d.default(x, [6, 2]), (X,), max_nodes=1
    ),
    Case("replication_pad2d", lambda x: aten.replication_pad2d.default(x, [6, -2, 1, 3]), (IMAGE,)),
    Case(
        "replication_pad2d of float64",
        lambda x: aten.replication_pad2d.default(x, [6, -2, -1, 3]),
        (IMAGE.double(),),
    ),
    Case(
        "replication_pad3d",
        lambda x: aten.replication_pad3d.default(x, [6, 2, 1, 3, 0, 9]),
        (VOLUME,),
    ),
    Case(
        "replication_pad3d of symbolic dims",
        lambda x: aten.replication_pad3d.default(x, [6, 2, 1, -3, 0, 9]),
        (VOLUME,),
        dynamic=True,
    ),
    Case(
        "reflection_pad1d by a symbolic number",
        lambda x, y: aten.reflection_pad1d.default(x, [y.shape[0] % 3, y.shape[0]]),
        (X, M[:2]),
        dynamic=True,
    ),
    Case(
        "reflection_pad2d up to a multiple",
        lambda x: aten.reflection_pad2d.default(x, [0, -x.shape[-1] % 4, 0, -x.shape[-2] % 3]),
        (IMAGE,),
        dynamic=True,
        max_nodes=20,
    ),
    Case(
        "reflection_pad1d by a symbolic number that may cut off",
        lambda x, y: aten.reflection_pad1d.default(x, [y.shape[0] - 3, y.shape[0] - 1]),
        (X, M[:2]),
        dynamic=True,
    ),
    Case(
        "replication_pad2d by symbolic numbers",
        lambda x, y: aten.replication_pad2d.default(x, [y.shape[0], 1 - y.shape[0], 0, 9]),
        (IMAGE, M[:2]),
        dynamic=True,
    ),
    Case("diag_embed", aten.diag_embed.default, (X,)),
    Case("diag_embed above", lambda x: aten.diag_embed.default(x, 2, 0, 2), (X,)),
    Case("diag_embed below", lambda x: aten.diag_embed.default(x, -1, -1, 1), (INTS,)),
    Case(
        "diag_embed of symbolic dims", lambda x: aten.diag_embed.default(x, -1), (X,), dynamic=True
    ),
    Case("select_backward", lambda g: aten.select_backward.default(g, [2, 5, 3, 4], 1, -2), (X,)),
    Case(
        "slice_backward",
        lambda g: aten.slice_backward.default(g, [2, 7, 4], 1, -5, 5, 1),
        (X,),
        max_nodes=1,
    ),
    Case(
        "block_diag",
        lambda a, b, c, d: aten.block_diag.default([a, b, c, d]),
        (M, ONE, X[0, 0], X[0]),
    ),
    Case(
        "block_diag with symbolic dims",
        lambda a, b: aten.block_diag.default([a, b]),
        (M, X[0]),
        dynamic=True,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_join(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("case", PADS, ids=str)
def test_pad(case: Case) -> None:
    check(case)


def test_block_diag_whose_dtype_torch_states_otherwise_is_declined() -> None:
    """Eager's result is float16, the graph says float32."""
    half = torch.ones(2, dtype=torch.float16)
    lowering = lower(lambda a, b: aten.block_diag.default([a, b]), half, torch.tensor(1.5))
    assert "another dtype" in str(lowering.reasons[0])
