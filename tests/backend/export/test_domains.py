"""Operators of other domains: asked for by name, by rules and by onnxscript functions."""

from __future__ import annotations

from typing import Any

import onnx
import onnxscript
import pytest
import torch
from onnxscript import opset18 as op18
from torch import Tensor, nn

import dynamo_onnx
from dynamo_onnx import OnnxExporterError, export

GADGETS = onnxscript.values.Opset("gadgets", 3)
_SCHEMA = onnx.defs.OpSchema(
    "Scale",
    "gadgets",
    3,
    inputs=[onnx.defs.OpSchema.FormalParameter("x", "T")],
    outputs=[onnx.defs.OpSchema.FormalParameter("y", "T")],
    type_constraints=[("T", ["tensor(float)"], "")],
    attributes=[onnx.defs.OpSchema.Attribute("factor", onnx.defs.OpSchema.AttrType.FLOAT)],
)
SCALE = onnxscript.values.Op(GADGETS, "Scale", _SCHEMA)


@torch.library.custom_op("domains::gadget", mutates_args=())
def gadget(x: Tensor, factor: float) -> Tensor:
    return x * factor


@gadget.register_fake
def _(x: Tensor, factor: float) -> Tensor:
    return torch.empty_like(x)


def _nodes(program: Any) -> list[tuple[str, str]]:
    return [(node.domain, node.op_type) for node in program.model.graph]


class Symbolic(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        made = torch.onnx.ops.symbolic(
            "my.domain::Gadget",
            (x + 1, None),
            {
                "count": 2, "rate": 0.5, "name": "some", "flag": True,
                "counts": [1, 2], "rates": [1.0, 2.0], "names": ["a", "b"],
            },
            dtype=torch.int64,
            shape=[x.shape[0], 3],
            version=4,
            metadata_props={"origin": "test"},
        )  # fmt: skip
        return made.float() * 2


@pytest.mark.parametrize("shapes", [None, ({0: "batch"},)])
def test_symbolic_is_the_node_that_it_names(shapes: Any) -> None:
    program = export(Symbolic(), (torch.randn(2, 4),), dynamic_shapes=shapes)
    assert _nodes(program) == [("", "Add"), ("my.domain", "Gadget"), ("", "Cast"), ("", "Mul")]
    node = program.model.graph[1]
    assert program.model.graph.opset_imports["my.domain"] == 4
    assert {a.name: a.value for a in node.attributes.values()} == {
        "count": 2, "rate": 0.5, "name": "some", "flag": 1,
        "counts": (1, 2), "rates": (1.0, 2.0), "names": ("a", "b"),
    }  # fmt: skip
    assert node.metadata_props == {"origin": "test"}
    assert node.outputs[0].dtype.name == "INT64"
    assert program.model.graph.outputs[0].shape == ([2, 3] if shapes is None else ["batch", 3])
    onnx.checker.check_model(program.model_proto)


def test_symbolic_in_a_captured_frame_is_what_eager_gives() -> None:
    model, x = Symbolic(), torch.randn(2, 4)
    assert torch.equal(torch.compile(model, backend="onnx")(x), model(x))


class SeveralResults(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        a, b = torch.onnx.ops.symbolic_multi_out(
            "my.domain::Pair", (x,), dtypes=(x.dtype, torch.bool), shapes=(x.shape, [1])
        )
        return torch.where(b, a, x)


def test_symbolic_with_several_results() -> None:
    program = export(SeveralResults(), (torch.randn(2, 4),))
    assert _nodes(program) == [("my.domain", "Pair"), ("", "Where")]
    assert [o.dtype.name for o in program.model.graph[0].outputs] == ["FLOAT", "BOOL"]


def test_operators_of_onnxruntime_that_were_asked_for_stay_and_run() -> None:
    class Asks(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return torch.onnx.ops.symbolic(
                "com.microsoft::FusedMatMul", (x, y), {"alpha": 2.0}, dtype=x.dtype, shape=[2, 5]
            )

    x, y = torch.randn(2, 4), torch.randn(4, 5)
    program = export(Asks(), (x, y))
    assert _nodes(program) == [("com.microsoft", "FusedMatMul")]
    torch.testing.assert_close(program(x, y)[0], 2 * x @ y)


def test_equal_nodes_that_were_asked_for_stay_two() -> None:
    def draws(x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = (
            torch.onnx.ops.symbolic("my.domain::Draw", (x,), dtype=x.dtype, shape=x.shape)
            for _ in range(2)
        )
        return a, b

    assert len(_nodes(export(draws, (torch.randn(3),)))) == 2


def test_a_rule_may_use_any_domain() -> None:
    def rule(cx: Any, x: Any, factor: float) -> Any:
        made = cx.domain("gadgets", 2).Scale(x, factor=factor)
        flag = cx.domain("gadgets", 2).Check(made, dtypes=[torch.bool])
        return cx.op.Where(flag, made, x)

    table = {torch.ops.domains.gadget.default: rule}
    program = export(lambda x: gadget(x, 3.0), (torch.randn(2),), custom_translation_table=table)
    assert _nodes(program) == [("gadgets", "Scale"), ("gadgets", "Check"), ("", "Where")]
    assert program.model.graph.opset_imports["gadgets"] == 2
    onnx.checker.check_model(program.model_proto)


def test_a_domain_of_two_versions_is_refused() -> None:
    def rule(cx: Any, x: Any, factor: float) -> Any:
        return cx.domain("gadgets", 2).Scale(cx.domain("gadgets", 1).Scale(x, factor=factor))

    with pytest.raises(OnnxExporterError, match="a model has one version of a domain"):
        export(
            lambda x: gadget(x, 3.0),
            (torch.randn(2),),
            custom_translation_table={torch.ops.domains.gadget.default: rule},
        )


@onnxscript.script(GADGETS)
def scripted(x, factor: float):
    return GADGETS.Scale(x, factor=factor)


def plain(x: onnxscript.FLOAT, factor: float) -> onnxscript.FLOAT:
    return op18.Neg(SCALE(op18.Neg(x), factor=factor))


def direct(x: onnxscript.FLOAT, factor: float) -> onnxscript.FLOAT:
    return SCALE(op18.Neg(x), factor=factor)


@pytest.mark.parametrize("function", [scripted, direct])
def test_an_onnxscript_function_may_use_any_domain(function: Any) -> None:
    table = {torch.ops.domains.gadget.default: function}
    program = export(lambda x: gadget(x, 3.0), (torch.randn(2),), custom_translation_table=table)
    assert _nodes(program)[-1] == ("gadgets", "Scale")
    assert program.model.graph.opset_imports["gadgets"] == 3
    assert program.model.graph[-1].attributes["factor"].value == 3.0


def test_a_result_of_unknown_type_says_what_to_write_instead() -> None:
    table = {torch.ops.domains.gadget.default: plain}
    with pytest.raises(OnnxExporterError, match=r"cx\.domain\('gadgets'\)"):
        export(lambda x: gadget(x, 3.0), (torch.randn(2),), custom_translation_table=table)


def test_a_plain_function_in_torchlibs_style_is_taken() -> None:
    def twice(x: onnxscript.FLOAT, factor: float) -> onnxscript.FLOAT:
        return op18.Add(x, x)

    table = {torch.ops.domains.gadget.default: twice}
    x = torch.randn(2)
    program = export(lambda x: gadget(x, 2.0), (x,), custom_translation_table=table, verify=True)
    assert _nodes(program) == [("", "Add")]


class Rotated(nn.Module):
    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return torch.onnx.ops.rotary_embedding(x, cos, sin) * 2


class Attends(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.onnx.ops.attention(q, k, v, is_causal=True, scale=0.3)[0]


@pytest.mark.parametrize(
    ("model", "args", "op_type"),
    [
        (Rotated(), (torch.randn(2, 3, 4, 8), torch.randn(2, 4, 4), torch.randn(2, 4, 4)),
         "RotaryEmbedding"),
        (Attends(), tuple(torch.randn(2, 3, 4, 8) for _ in range(3)), "Attention"),
    ],
)  # fmt: skip
def test_the_operators_of_torch_onnx_are_those_of_onnx(model: Any, args: Any, op_type: str) -> None:
    program = export(model, args, verify=True)
    assert ("", op_type) in _nodes(program)
    assert program.model.graph.opset_imports[""] == 23
    compiled = torch.compile(model, backend="onnx", options={"strict": True})
    torch.testing.assert_close(compiled(*args), model(*args))


def test_lowers_takes_a_rule_of_any_domain_in_captured_frames_too() -> None:
    """onnxruntime has no such operator: the session says so, and the frame runs in eager."""

    def rule(cx: Any, x: Any, factor: float) -> Any:
        return cx.domain("com.microsoft").Gelu(x)

    dynamo_onnx.lowers(torch.ops.domains.gadget.default)(rule)
    try:
        x = torch.randn(2)
        found = torch.compile(lambda x: gadget(x, 3.0), backend="onnx")(x)
        torch.testing.assert_close(found, nn.functional.gelu(x))
    finally:
        from dynamo_onnx.lowering.registry import registry

        registry.unregister(torch.ops.domains.gadget.default)
