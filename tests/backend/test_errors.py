"""Rules that raise, programs that are rejected, runs that fail: an error that names the line, or
eager's answer with a Reason and one warning."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import onnx_ir as ir
import pytest
import torch

import dynamo_onnx
from dynamo_onnx import LoweringError, SessionError, UnsupportedError, lowers, registry


@pytest.fixture
def custom_op() -> Iterator[Any]:
    library = torch.library.Library("dynamo_onnx_test", "DEF")
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: x * 2, "CompositeExplicitAutograd")
    library.impl("twice", lambda x: torch.empty_like(x), "Meta")
    op = torch.ops.dynamo_onnx_test.twice.default
    yield op
    if op in registry:
        registry.unregister(op)
    library._destroy()


def call(op: Any, **options: Any) -> Any:
    def fn(x: torch.Tensor) -> torch.Tensor:
        y = op(x * 3 + 1)
        return y * 2 + x

    compiled = torch.compile(fn, backend="onnx", options=options)
    x = torch.randn(3, 4)
    with torch.no_grad():
        result = compiled(x)
        torch.testing.assert_close(result, fn(x))
    return compiled


def test_an_operator_without_a_rule_runs_in_eager_and_names_the_users_line(custom_op: Any) -> None:
    report = dynamo_onnx.report(call(custom_op))
    (fallback,) = report.fallbacks
    assert fallback.op == "dynamo_onnx_test.twice.default"
    assert "dynamo_onnx.lowers" in fallback.reason.hint
    assert fallback.location.startswith(__file__)
    assert report.regions == 2


def test_strict_names_the_operator_the_reason_and_the_line(custom_op: Any) -> None:
    with pytest.raises(UnsupportedError, match=r"twice\.default: no lowering.*test_errors\.py:\d+"):
        call(custom_op, strict=True)


def test_a_users_rule_makes_the_operator_native(custom_op: Any) -> None:
    @lowers(custom_op)
    def twice(cx: Any, x: Any) -> Any:
        return cx.op.Add(x, x)

    report = dynamo_onnx.report(call(custom_op, strict=True))
    assert (report.regions, report.eager_ops) == (1, 0)


def test_a_second_rule_must_say_replace(custom_op: Any) -> None:
    lowers(custom_op)(lambda cx, x: cx.op.Add(x, x))
    with pytest.raises(LoweringError, match="replace=True"):
        lowers(custom_op)(lambda cx, x: cx.op.Add(x, x))
    lowers(custom_op, replace=True)(lambda cx, x: cx.op.Mul(x, cx.scalar(2, torch.float32)))
    call(custom_op, strict=True)


def test_a_rule_must_take_the_schemas_arguments(custom_op: Any) -> None:
    with pytest.raises(LoweringError, match=r"takes \(y\), its schema has \(x\)"):
        lowers(custom_op)(lambda cx, y: y)


def test_a_packet_is_refused(custom_op: Any) -> None:
    with pytest.raises(LoweringError, match="name one of its overloads"):
        lowers(torch.ops.dynamo_onnx_test.twice)(lambda cx, x: x)


def test_a_rule_that_raises_is_one_warning_and_eager(
    custom_op: Any, caplog: pytest.LogCaptureFixture
) -> None:
    @lowers(custom_op)
    def twice(cx: Any, x: Any) -> Any:
        raise ZeroDivisionError("a bug of the rule")

    caplog.set_level(logging.WARNING, logger="dynamo_onnx")
    report = dynamo_onnx.report(call(custom_op))
    (fallback,) = report.fallbacks
    assert fallback.reason.kind.value == "rule failed"
    assert "ZeroDivisionError: a bug of the rule" in fallback.reason.detail
    assert len([r for r in caplog.records if r.name.startswith("dynamo_onnx")]) == 1


def test_a_rule_that_raises_is_a_lowering_error_under_strict(custom_op: Any) -> None:
    @lowers(custom_op)
    def twice(cx: Any, x: Any) -> Any:
        raise ZeroDivisionError("a bug of the rule")

    with pytest.raises(
        LoweringError, match=r"twice\.default raised ZeroDivisionError.*test_errors"
    ):
        call(custom_op, strict=True)


@pytest.mark.parametrize("wrong", ["dtype", "shape"])
def test_a_rule_that_contradicts_the_graph_is_caught(custom_op: Any, wrong: str) -> None:
    @lowers(custom_op)
    def twice(cx: Any, x: Any) -> Any:
        return cx.cast(x, torch.float64) if wrong == "dtype" else cx.reshape(x, (4, 3))

    with pytest.raises(LoweringError, match="eager returns"):
        call(custom_op, strict=True)


def broken_transform(model: ir.Model) -> ir.Model:
    """Makes a model that ONNX Runtime rejects: a node of an operator that does not exist."""
    for node in model.graph:
        node.op_type = "NoSuchOperator"
        return model
    return model


def test_a_rejected_program_is_one_warning_and_eager(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="dynamo_onnx")
    compiled = torch.compile(
        lambda x: x * 2 + 1, backend="onnx", options={"transforms": [broken_transform]}
    )
    x = torch.randn(3)
    for _ in range(3):
        torch.testing.assert_close(compiled(x), x * 2 + 1)
    (fallback,) = dynamo_onnx.report(compiled).fallbacks
    assert fallback.reason.kind.value == "session failed"
    assert "test_errors.py" in fallback.reason.detail
    assert len([r for r in caplog.records if r.name.startswith("dynamo_onnx")]) == 1


def test_a_rejected_program_is_a_session_error_under_strict() -> None:
    compiled = torch.compile(
        lambda x: x * 2 + 1,
        backend="onnx",
        options={"transforms": [broken_transform], "strict": True},
    )
    with pytest.raises(SessionError, match=r"rejected the program.*NoSuchOperator.*test_errors"):
        compiled(torch.randn(3))


def raising_transform(model: ir.Model) -> ir.Model:
    raise KeyError("nothing here")


def renaming_transform(model: ir.Model) -> ir.Model:
    model.graph.inputs[0].name = "other"
    return model


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (raising_transform, "raising_transform raised KeyError"),
        (renaming_transform, "changed inputs and outputs"),
        (lambda m: None, "returned NoneType"),
    ],
)
def test_a_bad_transform_is_a_lowering_error(transform: Any, message: str) -> None:
    compiled = torch.compile(lambda x: x * 2, backend="onnx", options={"transforms": [transform]})
    with pytest.raises(LoweringError, match=message):
        compiled(torch.randn(3))


def test_exceptions_of_the_users_code_pass_unchanged() -> None:
    class Mine(Exception):
        pass

    def fn(x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        torch._dynamo.graph_break()
        raise Mine(str(y.shape))

    with pytest.raises(Mine, match="3"):
        torch.compile(fn, backend="onnx")(torch.randn(3))


def test_a_run_that_fails_gives_eagers_own_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="dynamo_onnx")
    embedding = torch.nn.Embedding(4, 2)
    compiled = torch.compile(embedding, backend="onnx")
    with torch.no_grad():
        compiled(torch.tensor([1]))
        with pytest.raises(IndexError, match="index out of range"):
            compiled(torch.tensor([9]))
        torch.testing.assert_close(compiled(torch.tensor([3])), embedding(torch.tensor([3])))
    assert {f.reason.kind.value for f in dynamo_onnx.report(compiled).fallbacks} == {"run failed"}


def test_a_run_that_fails_is_a_session_error_under_strict() -> None:
    compiled = torch.compile(torch.nn.Embedding(4, 2), backend="onnx", options={"strict": True})
    with torch.no_grad():
        compiled(torch.tensor([1]))
        with pytest.raises(SessionError, match="failed while running"):
            compiled(torch.tensor([9]))


def test_a_singular_matrix_raises_eagers_error_behind_a_native_inverse() -> None:
    compiled = torch.compile(torch.linalg.inv, backend="onnx", options={"strict": True})
    good, bad = torch.eye(3) * 2, torch.zeros(3, 3)
    torch.testing.assert_close(compiled(good), torch.linalg.inv(good))
    with pytest.raises(torch.linalg.LinAlgError, match="The diagonal element 1 is zero"):
        compiled(bad)
