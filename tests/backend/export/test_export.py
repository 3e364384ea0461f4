"""`dynamo_onnx.export`: what comes out is a file that plain onnxruntime runs as eager computes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnxscript import FLOAT, script
from onnxscript import opset18 as op18
from torch import Tensor, nn
from torch.export import Dim

import dynamo_onnx
from dynamo_onnx import OnnxExporterError, OptionError, export


class Encoder(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(10, 8)
        self.linear = torch.nn.Linear(8, 16)
        self.register_buffer("offset", torch.ones(16))

    def forward(self, ids: torch.Tensor, scale: torch.Tensor | None = None) -> dict[str, Any]:
        x = torch.nn.functional.gelu(self.linear(self.embed(ids))) + self.offset
        x = x if scale is None else x * scale
        return {"features": x, "turned": x.transpose(0, 1), "none": None}


def ids(*shape: int) -> torch.Tensor:
    return torch.randint(0, 10, shape)


def run(model: torch.onnx.ONNXProgram | Path, feeds: Mapping[str, torch.Tensor]) -> list[Any]:
    """Checked by onnx, computed by plain onnxruntime."""
    if isinstance(model, Path):
        onnx.checker.check_model(model, full_check=True)
        session = ort.InferenceSession(model)
    else:
        onnx.checker.check_model(model.model_proto, full_check=True)
        session = ort.InferenceSession(model.model_proto.SerializeToString())
    found = session.run(None, {name: t.detach().numpy() for name, t in feeds.items()})
    return [torch.from_numpy(r) for r in found]


def close(found: Sequence[Any], wanted: Sequence[Any]) -> None:
    torch.testing.assert_close(list(found), list(wanted), rtol=1e-5, atol=1e-5)


def names(values: Sequence[ir.Value]) -> list[str | None]:
    return [v.name for v in values]


def test_a_module_is_one_model_with_weights_by_their_names() -> None:
    model, x = Encoder().eval(), ids(3, 5)
    program = export(model, (x,))
    assert isinstance(program, torch.onnx.ONNXProgram)
    assert names(program.model.graph.inputs) == ["ids"]
    weights = {n: v.const_value for n, v in program.model.graph.initializers.items()}
    assert {*model.state_dict()} <= {*weights}
    wanted = [model(x)[name] for name in ("features", "turned")]
    close(run(program, {"ids": x}), wanted)
    close(program(x), wanted)


def test_a_function_and_an_exported_program_are_taken_as_well() -> None:
    def scaled(x: torch.Tensor, *, by: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x * by, -1)

    x, by = torch.randn(2, 3), torch.randn(3)
    program = export(scaled, (x,), kwargs={"by": by})
    close(run(program, {"x": x, "by": by}), [scaled(x, by=by)])
    exported = torch.export.export(Encoder().eval(), (ids(2, 3),))
    found = export(exported)(ids(2, 3))
    assert [tuple(r.shape) for r in found] == [(2, 3, 16), (3, 2, 16)]


SHAPES: list[Any] = [
    {"ids": {0: "batch", 1: "length"}, "scale": None},
    {"ids": {0: Dim("batch"), 1: Dim("length")}, "scale": {}},
    ({0: "batch", 1: Dim("length", max=64)}, None),
    ({0: Dim.DYNAMIC, 1: Dim.DYNAMIC}, None),
]


@pytest.mark.parametrize("shapes", SHAPES, ids=lambda s: type(s).__name__)
def test_dynamic_shapes_bear_the_users_names(shapes: Any) -> None:
    model, scale = Encoder().eval(), torch.rand(16)
    program = export(model, (ids(3, 5), scale), dynamic_shapes=shapes)
    if shapes != SHAPES[-1]:
        graph = program.model.graph
        assert [str(d) for d in graph.inputs[0].shape or ()] == ["batch", "length"]
        assert [str(d) for d in graph.outputs[1].shape or ()] == ["length", "batch", "16"]
    for shape in ((2, 7), (1, 1), (9, 2)):
        x = ids(*shape)
        wanted = model(x, scale)
        found = run(program, {"ids": x, "scale": scale})
        close(found, [wanted["features"], wanted["turned"]])


def test_dimensions_of_nested_inputs_have_names_too() -> None:
    def joined(xs: list[torch.Tensor], more: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.cat([*xs, more["x"]])

    xs, more = [torch.rand(2, 3), torch.rand(4, 3)], {"x": torch.rand(5, 3)}
    shapes = {"xs": [{0: "a"}, {0: "b"}], "more": {"x": {0: "c"}}}
    program = export(joined, (xs, more), dynamic_shapes=shapes)
    assert [str((v.shape or [])[0]) for v in program.model.graph.inputs] == ["a", "b", "c"]
    (total, _) = program.model.graph.outputs[0].shape or ()
    assert sorted(str(total).split("+")) == ["a", "b", "c"]


def test_sizes_that_differ_have_two_names_whatever_they_were_given() -> None:
    def both(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x * 2, y * 3

    shapes = ({0: "n"}, {0: "n"})
    program = export(both, (torch.rand(2), torch.rand(3)), dynamic_shapes=shapes)
    assert [str((v.shape or [])[0]) for v in program.model.graph.inputs] == ["n", "n_1"]
    x, y = torch.rand(5), torch.rand(9)
    close(run(program, {"x": x, "y": y}), both(x, y))


def test_inputs_and_outputs_take_the_names_given() -> None:
    x = ids(2, 3)
    given = {"input_names": ["tokens"], "output_names": ["v3", "features"]}
    program = export(Encoder().eval(), (x,), **given)  # `v3` is a name of our own elsewhere
    assert names(program.model.graph.inputs) == ["tokens"]
    assert names(program.model.graph.outputs) == ["v3", "features"]
    run(program, {"tokens": x})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"output_names": ["a", "a"]}, "output_names has 'a' twice"),
        ({"input_names": ["a", "b"]}, "input_names has 2 names, the model has 1 inputs: ids"),
        ({"input_names": [""]}, "input_names: '' is no name"),
        ({"output_names": ["linear.bias"]}, "the name of another input, output or weight"),
        ({"opset_version": 9}, "opset_version=9: choose"),
    ],
    ids=str,
)
def test_arguments_that_cannot_be_used(given: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        export(Encoder().eval(), (ids(2, 3),), **given)


def test_results_that_are_inputs_weights_numbers_or_twice_the_same() -> None:
    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.rand(3))

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[Any, ...]:
            z = x + 1
            return x, self.weight, z, z, x.shape[0], 7, 2.5, None

    x, model = torch.rand(4, 3), Odd()
    program = export(model, (x, torch.rand(2)), dynamic_shapes=({0: "n"}, None))
    x = torch.rand(6, 3)
    found = run(program, {"x": x, "y": torch.rand(2)})
    z = x + 1
    number = torch.tensor
    close(found, [x, model.weight, z, z, number(6), number(7), number(2.5)])


def test_tied_weights_are_one_initializer() -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(10, 8)
            self.head = torch.nn.Linear(8, 10, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.embed(x))

    model, x = Tied().eval(), ids(2, 3)
    program = export(model, (x,))
    sizes = [
        v.const_value.nbytes for v in program.model.graph.initializers.values() if v.const_value
    ]
    assert sum(size == model.embed.weight.nbytes for size in sizes) == 1
    close(run(program, {"x": x}), [model(x)])


def test_a_function_may_compute_nothing() -> None:
    x = torch.rand(2)
    close(run(export(lambda x: x, (x,)), {"x": x}), [x])
    close(export(lambda x: (x, "text", 3), (x,))(x), [x, torch.tensor(3)])


def test_products_of_transposed_matrices_are_spelled_out() -> None:
    def scores(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return (q @ k.transpose(-1, -2)) * 0.125

    q, k = torch.rand(2, 3, 4), torch.rand(2, 5, 4)
    program = export(scores, (q, k), verify=True)
    assert {n.domain for n in program.model.graph.all_nodes()} == {""}
    assert list(program.model.opset_imports) == [""]
    close(run(program, {"q": q, "k": k}), [scores(q, k)])


def test_patterns_are_kept_without_optimizing() -> None:
    def gelu(x: torch.Tensor) -> torch.Tensor:
        return 0.5 * x * (1 + torch.tanh(0.7978845608 * (x + 0.044715 * x**3)))

    x = torch.randn(5)
    ops = [
        [n.op_type for n in export(gelu, (x,), optimize=optimize, verify=True).model.graph]
        for optimize in (True, False)
    ]
    assert ops[0] == ["Gelu"]
    assert "Tanh" in ops[1]


def test_an_integer_argument_of_varying_value() -> None:
    def repeated(x: torch.Tensor, n: int) -> torch.Tensor:
        return x.expand(n, -1) * n

    x = torch.rand(1, 3)
    program = export(repeated, (x, 4), dynamic_shapes=(None, Dim.DYNAMIC))
    close(run(program, {"x": x, "n": torch.tensor(6)}), [repeated(x, 6)])


class Cache:
    """As caches of transformers are: no pytree knows it."""

    def __init__(self, tensors: list[torch.Tensor], kind: str) -> None:
        self.tensors = tensors
        self.kind = kind


def test_objects_with_tensors_in_them_are_taken_apart() -> None:
    def grown(x: torch.Tensor, cache: Cache) -> tuple[torch.Tensor, Cache]:
        tensors = [torch.cat([t, x]) for t in cache.tensors]
        return x + tensors[0].sum(), Cache(tensors, cache.kind)

    x, cache = torch.rand(2, 3), Cache([torch.rand(4, 3), torch.rand(1, 3)], "sliding")
    program = export(grown, (x, cache))
    y, after = grown(x, cache)
    close(program(x, cache), [y, *after.tensors])


def test_a_model_is_saved_with_its_weights_beside_it(tmp_path: Path) -> None:
    model, x = Encoder().eval(), ids(2, 3)
    path = tmp_path / "made" / "model.onnx"
    export(model, (x,), path)
    assert {p.name for p in path.parent.iterdir()} == {"model.onnx", "model.onnx.data"}
    close(run(path, {"ids": x})[:1], [model(x)["features"]])
    export(model, (x,), tmp_path / "whole.onnx", external_data=False)
    assert not (tmp_path / "whole.onnx.data").exists()
    (tmp_path / "file").touch()
    with pytest.raises(OnnxExporterError, match=r"cannot write .*model\.onnx"):
        export(model, (x,), tmp_path / "file" / "model.onnx")


def test_a_table_replaces_rules() -> None:
    @script()
    def doubled(self: FLOAT[...]) -> FLOAT[...]:
        return op18.Add(self, self)

    table = {torch.ops.aten.sin.default: doubled}
    x = torch.rand(3)
    program = export(torch.sin, (x,), custom_translation_table=table)
    close(program(x), [x + x])
    close(export(torch.sin, (x,))(x), [x.sin()])
    close(
        export(torch.sin, (x,), custom_translation_table={torch.ops.aten.sin: [doubled]})(x),
        [2 * x],
    )


def test_verify_tells_of_results_that_differ() -> None:
    @script()
    def doubled(self: FLOAT[...]) -> FLOAT[...]:
        return op18.Add(self, self)

    table = {torch.ops.aten.sin.default: doubled}
    export(torch.sin, (torch.rand(3),), verify=True)
    with pytest.raises(OnnxExporterError, match=r"verify: output \S+: Tensor-likes are not close"):
        export(torch.sin, (torch.rand(3),), verify=True, custom_translation_table=table)


class Unsupported(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(x).real


def test_an_operator_without_onnx_form_is_told_with_its_line() -> None:
    with pytest.raises(OnnxExporterError) as caught:
        export(Unsupported(), (torch.rand(3, 3),))
    message = str(caught.value)
    assert "1 operators have no ONNX form" in message
    assert "aten.linalg_eig" in message
    assert isinstance(caught.value, torch.onnx.errors.OnnxExporterError)
    assert isinstance(caught.value, dynamo_onnx.DynamoOnnxError)


def test_control_flow_on_data_is_told_with_both_ways_tried() -> None:
    class Branch(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sin() if x.sum() > 0 else x

    with pytest.raises(OnnxExporterError) as caught:
        export(Branch(), (torch.rand(3),))
    message = str(caught.value)
    assert "strict=False" in message
    assert "strict=True" in message
    assert "ata-dependent" in message


def test_shapes_that_torch_export_refuses() -> None:
    with pytest.raises(OnnxExporterError, match="dynamic_shapes"):
        export(Encoder().eval(), (ids(2, 3),), dynamic_shapes={"nothing": {0: "batch"}})


def test_a_dynamic_size_where_onnx_has_a_number_is_refused() -> None:
    def strided(x: torch.Tensor, w: torch.Tensor, n: int) -> torch.Tensor:
        return torch.nn.functional.conv1d(x, w, stride=n)

    x, w = torch.rand(2, 3, 8), torch.rand(4, 3, 2)
    with pytest.raises(OnnxExporterError, match=r"stride of .* depends on a dynamic size"):
        export(strided, (x, w, 2), dynamic_shapes=(None, None, Dim.DYNAMIC))
    close(export(strided, (x, w, 2))(x, w, 2), [strided(x, w, 2)])


class AsksWhetherItIsExported(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if torch.compiler.is_exporting() else x * 3


def test_verify_tells_when_torch_export_captured_something_else() -> None:
    with pytest.raises(OnnxExporterError, match=r"torch\.export captured differs from the model"):
        export(AsksWhetherItIsExported(), (torch.rand(3),), verify=True)


class CountsItsCalls(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.norm(x.add_(1))


def test_verify_leaves_inputs_buffers_and_the_generator_as_they_were() -> None:
    model, x = CountsItsCalls(), torch.rand(3, 4)
    kept = x.clone()
    before = {name: b.clone() for name, b in model.named_buffers()}
    torch.manual_seed(0)
    wanted = torch.rand(2)
    torch.manual_seed(0)
    export(model, (x,), verify=True)
    assert torch.equal(torch.rand(2), wanted)
    assert torch.equal(x, kept)
    for name, b in model.named_buffers():
        assert torch.equal(b, before[name]), name


class OfSixteenParts(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        parts = x.unfold(0, 2, 2)
        return parts.reshape(4, -1) + 1


def test_conditions_on_sizes_are_told_and_checked(tmp_path: Path) -> None:
    x = torch.rand(16)
    program = export(
        OfSixteenParts(),
        (x,),
        dynamic_shapes={"x": {0: "length"}},
        report=True,
        artifacts_dir=tmp_path,
    )
    (page,) = tmp_path.glob("*.md")
    text = page.read_text(encoding="utf-8")
    assert "Sizes that it is right for" in text
    assert "length" in text.split("Sizes that it is right for")[1]
    close(run(program, {"x": x}), [OfSixteenParts()(x)])
    longer = torch.rand(24)
    close(run(program, {"x": longer}), [OfSixteenParts()(longer)])
    with pytest.raises(Exception, match=r"condition on sizes: .*length"):
        run(program, {"x": torch.rand(14)})  # seven parts of two, for four rows


class Blocks(nn.Module):
    """Eager takes another way for a length that is no multiple of 4."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] % 4 == 0 and x.shape[0] < 100:
            return x + 1
        return x - 1


@pytest.mark.parametrize("optimize", [True, False])
def test_sizes_for_which_the_model_goes_another_way_are_refused(*, optimize: bool) -> None:
    x = torch.rand(8)
    program = export(Blocks(), (x,), dynamic_shapes={"x": {0: "n"}}, optimize=optimize, verify=True)
    for size in (4, 96):
        close(run(program, {"x": x[:1].repeat(size)}), [Blocks()(x[:1].repeat(size))])
    for size, condition in ((6, r"Mod\(n, 4\)"), (104, "n <= 9[69]|n < 100")):
        with pytest.raises(Exception, match=f"condition on sizes: .*({condition})"):
            run(program, {"x": torch.rand(size)})


def test_bounds_that_are_given_are_checked_and_those_of_torch_are_not() -> None:
    def halves(x: Tensor) -> Tensor:
        return x / 2

    program = export(halves, (torch.rand(8),), dynamic_shapes={"x": {0: Dim("n", min=4, max=16)}})
    for size in (4, 16):
        close(run(program, {"x": torch.ones(size)}), [torch.ones(size) / 2])
    for size, bound in ((3, "n >= 4"), (17, "n <= 16")):
        with pytest.raises(Exception, match=f"condition on sizes: {bound}"):
            run(program, {"x": torch.ones(size)})
    free = export(halves, (torch.rand(8),), dynamic_shapes={"x": {0: "n"}})
    for size in (1, 0):
        close(run(free, {"x": torch.ones(size)}), [torch.ones(size) / 2])
    assert not [n for n in free.model.graph if n.name and "condition" in n.name]


def test_a_condition_is_checked_where_the_results_are_of_sizes_alone() -> None:
    def counted(x: Tensor) -> Tensor:
        torch._check(x.shape[0] < 12)
        return torch.arange(x.shape[0])

    program = export(counted, (torch.rand(8),), dynamic_shapes={"x": {0: "n"}})
    close(run(program, {"x": torch.rand(11)}), [torch.arange(11)])
    with pytest.raises(Exception, match="condition on sizes: n <"):
        run(program, {"x": torch.rand(13)})


def test_a_condition_of_two_inputs_is_checked() -> None:
    def longer(x: Tensor, y: Tensor) -> Tensor:
        torch._check(x.shape[0] > y.shape[0])
        return x[: y.shape[0]] * y

    shapes = {"x": {0: "n"}, "y": {0: "m"}}
    program = export(longer, (torch.rand(8), torch.rand(5)), dynamic_shapes=shapes)
    x, y = torch.rand(9), torch.rand(3)
    close(run(program, {"x": x, "y": y}), [longer(x, y)])
    with pytest.raises(Exception, match=r"condition on sizes: .*n"):
        run(program, {"x": y, "y": x})


def test_conditions_that_cannot_be_checked_are_told(caplog: pytest.LogCaptureFixture) -> None:
    def of_even_length(x: Tensor) -> Tensor:
        torch._check((x.shape[0] & 1) == 0)
        return x + 1

    export(of_even_length, (torch.rand(8),), dynamic_shapes={"x": {0: "length"}})
    (message,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert "right only for sizes with" in message
    assert "length" in message
