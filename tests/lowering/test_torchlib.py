"""torchlib's long tail against eager, and rules that a user registers."""

from __future__ import annotations

from collections.abc import Iterator

import onnxscript
import pytest
import torch
from onnxscript import opset18 as op

from dynamo_onnx.lowering.ops.tail import TAIL
from dynamo_onnx.lowering.registry import Registry, lowers, registry
from dynamo_onnx.lowering.torchlib import register_tail
from dynamo_onnx.runtime.errors import LoweringError, ReasonKind

from . import harness
from .harness import Case, check, lower

aten, prims = torch.ops.aten, torch.ops.prims

X = torch.tensor([[-2.5, -1.0, -0.5, -0.0], [0.0, 0.3, 1.0, 2.5]])
POSITIVE = X.abs() + 0.5
ODD = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 3.0, -3.0])
INTS, DIVISORS = torch.tensor([-7, -3, 0, 2, 5]), torch.tensor([2, -2, 3, -3, 4])

UNARY = (
    "abs acos acosh asin asinh atan atanh ceil cos cosh erf exp floor log neg round sin sinh sqrt "
    "tan tanh"
).split()
BINARY = "add div eq ge gt le lt mul ne pow sub".split()


def call(overload, *options):
    return lambda x: overload(x, *options)


def two(overload):
    return lambda a, b: overload(a, b)


ROWS = [
    *((getattr(prims, name).default, call(getattr(prims, name).default), (x,))
      for name in UNARY for x in (X, POSITIVE, ODD, X.bfloat16(), X[0, 0])),
    *((getattr(prims, name).default, call(getattr(prims, name).default), (X.double(),))
      for name in ("abs", "ceil", "exp", "floor", "log", "neg", "round", "sqrt", "tanh")),
    *((getattr(prims, name).default, call(getattr(prims, name).default), (INTS,))
      for name in ("abs", "neg")),
    *((getattr(prims, name).default, two(getattr(prims, name).default), pair)
      for name in BINARY
      for pair in ((X, POSITIVE), (ODD, ODD.flip(0)), (INTS, DIVISORS), (X.double(), X.double()))),
    (prims.reshape.default, call(prims.reshape.default, [4, 2]), (X,)),
    (prims.where.default, lambda c, a, b: prims.where.default(c, a, b), (X > 0, X, POSITIVE)),
    (prims.sum.default, call(prims.sum.default, [0]), (X,)),
    (prims.sum.default, call(prims.sum.default, [0, 1]), (X,)),
    (prims.sum.default, call(prims.sum.default, [0]), (INTS,)),
    (prims.sum.default, call(prims.sum.default, [0]), (ODD,)),
]  # fmt: skip


@pytest.mark.parametrize(("overload", "fn", "args"), ROWS, ids=[str(row[0]) for row in ROWS])
def test_the_tail_gives_the_numbers_of_eager(overload, fn, args) -> None:
    check(Case(str(overload), fn, args))


def test_every_overload_of_the_tail_has_a_row() -> None:
    assert {str(overload) for overload, _, _ in ROWS} == {str(overload) for overload in TAIL}


def test_arguments_that_torchlib_does_not_take_stay_eager(monkeypatch) -> None:
    tail = Registry()
    register_tail(tail, [aten.bincount.default])
    monkeypatch.setattr(harness, "registry", tail)
    (reason,) = lower(two(aten.bincount.default), INTS[:4].abs(), POSITIVE[0]).reasons
    assert reason.kind is ReasonKind.SEMANTICS
    assert "weights" in reason.detail


# -------------------------------------------------------------------- rules of the user
@onnxscript.script(onnxscript.values.Opset("tests.helpers", 1), default_opset=op)
def squared_and_shifted(x, by: float):
    return op.Mul(x, x) + by


@onnxscript.script(default_opset=op)
def half_squared_in_onnx(x, shift: float = 0.0):
    return squared_and_shifted(x, by=0.0) * 0.5 + squared_and_shifted(x * 0.0, by=shift)


@onnxscript.script(default_opset=op)
def squared(x):
    return op.Mul(x, x)


@torch.library.custom_op("dynamo_onnx_tests::half_squared", mutates_args=())
def half_squared(x: torch.Tensor, shift: float = 0.0) -> torch.Tensor:
    return x * x / 2 + shift


@half_squared.register_fake
def _(x, shift=0.0):
    return torch.empty_like(x)


OVERLOAD = torch.ops.dynamo_onnx_tests.half_squared.default


@pytest.fixture
def clean_registry() -> Iterator[None]:
    yield
    if OVERLOAD in registry:
        registry.unregister(OVERLOAD)


def plain(x):
    return OVERLOAD(x)


def shifted(x):
    return OVERLOAD(x, 1.5)


def test_an_operator_without_a_rule_stays_eager_and_says_how_to_register_one() -> None:
    (reason,) = lower(plain, X).reasons
    assert reason.kind is ReasonKind.NO_RULE
    assert "lowers" in reason.hint


@pytest.mark.usefixtures("clean_registry")
def test_a_rule_of_the_user_lowers_an_operator_of_the_user() -> None:
    @lowers(OVERLOAD)
    def rule(cx, x, shift):
        half = cx.op.Mul(cx.op.Mul(x, x), cx.scalar(0.5, cx.out.dtype))
        return cx.op.Add(half, cx.scalar(shift, cx.out.dtype)) if shift else half

    check(Case("", plain, (X,), max_nodes=2))
    check(Case("", shifted, (X.double(),), max_nodes=3))
    registry.unregister(OVERLOAD)
    assert lower(plain, X).program is None


@pytest.mark.usefixtures("clean_registry")
def test_an_onnxscript_function_is_a_rule() -> None:
    @lowers(OVERLOAD)
    @onnxscript.script()
    def function(x, shift: float = 0.0):
        half = op.Mul(op.Mul(x, x), op.CastLike(op.Constant(value_float=0.5), x))
        return op.Add(half, op.CastLike(op.Constant(value_float=shift), x))

    for fn in (plain, shifted):
        check(Case("", fn, (X,)))
        check(Case("", fn, (X.double(),)))


@pytest.mark.usefixtures("clean_registry")
def test_an_onnxscript_function_that_calls_another_is_a_rule() -> None:
    lowers(OVERLOAD)(half_squared_in_onnx)
    check(Case("", shifted, (X,)))


def test_an_onnxscript_function_with_other_parameters_is_refused() -> None:
    with pytest.raises(LoweringError, match=r"squared takes \(x\)"):
        lowers(OVERLOAD)(squared)


@pytest.mark.usefixtures("clean_registry")
def test_a_second_rule_must_say_that_it_replaces_the_first() -> None:
    version = registry.version

    @lowers(OVERLOAD)
    def first(cx, x, shift):
        return cx.op.Identity(x)

    def second(cx, x, *_):
        return cx.op.Mul(cx.op.Mul(x, x), cx.scalar(0.5, cx.out.dtype))

    with pytest.raises(LoweringError, match="replace=True"):
        lowers(OVERLOAD)(second)
    lowers(OVERLOAD, replace=True)(second)
    check(Case("", plain, (X,)))
    assert registry.version == version + 2


@pytest.mark.usefixtures("clean_registry")
def test_a_rule_whose_parameters_are_not_the_schemas_is_refused() -> None:
    with pytest.raises(LoweringError, match=r"takes \(x\), its schema has \(x, shift\)"):

        @lowers(OVERLOAD)
        def rule(cx, x):
            return x


def test_a_packet_is_not_an_overload() -> None:
    with pytest.raises(LoweringError, match="overload"):
        lowers(torch.ops.dynamo_onnx_tests.half_squared)(lambda cx, x, shift: x)


@pytest.mark.usefixtures("clean_registry")
def test_a_rule_that_raises_is_an_error_that_names_the_operator() -> None:
    @lowers(OVERLOAD)
    def rule(cx, x, shift):
        raise ZeroDivisionError("oh")

    with pytest.raises(LoweringError, match=r"half_squared\.default raised ZeroDiv"):
        lower(plain, X)
