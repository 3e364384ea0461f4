"""`ONNXProgram`: what `torch.onnx`'s own tests ask of it, by the public names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import onnx
import onnx_ir as ir
import pytest
import torch
from onnxscript import BOOL, FLOAT, INT64
from onnxscript import opset18 as op18
from torch import Tensor, nn
from torch.export import Dim

from dynamo_onnx import OnnxExporterError, ONNXProgram, OptionError, enable_fake_mode, export


def close(found: Any, wanted: Any) -> None:
    torch.testing.assert_close(list(found), list(wanted), rtol=1e-5, atol=1e-5)


def kinds(program: torch.onnx.ONNXProgram) -> list[str]:
    return [n.op_type for n in program.model.graph]


class TwoInputs(nn.Module):
    def forward(self, x: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return x.relu(), b.sigmoid()


# ------------------------------------------------------------------------------ what is given
def test_one_tensor_needs_no_tuple() -> None:
    x = torch.rand(1, 3)  # as a sequence it would be one row
    program = export(torch.sin, x)
    assert program.model.graph.inputs[0].shape == ir.Shape([1, 3])
    close(program(x), [x.sin()])


def test_a_dict_at_the_end_has_the_keyword_arguments() -> None:
    x, b = torch.rand(2), torch.rand(3)
    program = export(TwoInputs(), (x, {"b": b}), dynamic_shapes={"b": {0: "n"}})
    assert [v.name for v in program.model.graph.inputs] == ["x", "b"]
    close(program(x, b=torch.ones(5)), TwoInputs()(x, torch.ones(5)))
    plain = export(lambda x, y: x + y["a"], (x, {"a": x}))
    close(plain(x, {"a": x}), [x + x])


def test_arguments_that_are_no_sequence_are_refused() -> None:
    with pytest.raises(OptionError, match="args is a dict: give a tuple"):
        export(TwoInputs(), {"x": torch.rand(2)})  # type: ignore[arg-type]


# ------------------------------------------------------------------------------ calls
class Weighted(nn.Module):
    def forward(
        self, x: Tensor, by: int, y: Tensor, *, kind: str = "sum", z: Tensor | None = None
    ) -> Tensor:
        result = x * by + y if kind == "sum" else x
        return result if z is None else result * z


def test_a_call_takes_what_the_model_takes() -> None:
    x, y, z = torch.rand(3), torch.rand(3), torch.rand(3)
    program = export(Weighted(), (x, 3, y), kwargs={"kind": "sum", "z": z})
    wanted = [x * 3 + y * 1]
    close(program(x, 3, y, z=torch.ones(3), kind="sum"), wanted)
    close(program(x, 3, y, kind="sum", z=torch.ones(3)), wanted)
    close(program(x, y, torch.ones(3)), wanted)  # the inputs of the file alone
    close(program.call_reference(x, 3, y, z=torch.ones(3), kind="sum"), wanted)


def test_what_the_export_fixed_cannot_be_given_otherwise() -> None:
    x, y, z = torch.rand(3), torch.rand(3), torch.rand(3)
    program = export(Weighted(), (x, 3, y), kwargs={"kind": "sum", "z": z})
    with pytest.raises(OptionError, match="by is 4, and the model was exported with 3"):
        program(x, 4, y, kind="sum", z=z)
    with pytest.raises(OptionError, match="kind is 'max'"):
        program(x, 3, y, kind="max", z=z)
    with pytest.raises(OptionError, match=r"3 inputs .*, 2 are given"):
        program(x, y)
    with pytest.raises(OptionError, match="'w' is no argument"):
        program(x, 3, y, w=z)


def test_keyword_arguments_in_another_order_than_the_models() -> None:
    def of_four(a: Tensor, b: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return a.sum() + b.sum() + first.sum() - second.sum()

    a, one, nought = torch.rand(4, 4), torch.ones(4, 4), torch.zeros(4, 4)
    shapes = {"a": None, "b": {0: "n"}, "first": {0: "m"}, "second": None}
    program = export(
        of_four, (a, a), kwargs={"second": one, "first": nought}, dynamic_shapes=shapes
    )
    b, first = torch.rand(7, 4), torch.rand(9, 4)
    close(program(a, b, second=one, first=first), [of_four(a, b, first, one)])


def test_a_tensor_that_is_given_twice_is_two_inputs() -> None:
    def difference(x: Tensor, y: Tensor) -> Tensor:
        return x - y

    x = torch.rand(3)
    program = export(difference, (x, x))
    close(program(x, torch.ones(3)), [x - 1])
    linear = nn.Linear(2, 2, bias=False)
    program = export(linear, (linear.weight,))
    x = torch.rand(2, 2)
    close(program(x), [linear(x)])


def test_nested_containers_and_complex_numbers() -> None:
    def nested(xs: Any, y: Tensor) -> Tensor:
        (a, b), more = xs
        return torch.view_as_real(y * (2 + 3j)).sum() + a.sum() + b.sum() * more["c"].sum()

    y = torch.randn(2, 2, dtype=torch.complex64)
    given = ((torch.rand(4, 4), torch.rand(4, 4)), {"c": torch.rand(2)})
    shapes = {"xs": ((None, {0: Dim("n", min=3)}), {"c": None}), "y": None}
    program = export(nested, (given, y), dynamic_shapes=shapes)
    given = ((torch.rand(4, 4), torch.rand(6, 4)), {"c": torch.rand(2)})
    close(program(given, y), [nested(given, y)])


def test_values_inside_can_be_computed() -> None:
    def composed(x: Tensor) -> Tensor:
        return (x + 1).exp()

    x = torch.rand(3)
    program = export(composed, (x,))
    (add,) = [n for n in program.model.graph if n.op_type == "Add"]
    name = add.outputs[0].name
    assert name is not None
    close(program.compute_values([name], (x,)), [x + 1])
    close(program(x), [composed(x)])
    with pytest.raises(ValueError, match="nothing_like_this"):
        program.compute_values(["nothing_like_this"], (x,))


# ------------------------------------------------------------------------------ sizes
def test_axes_are_renamed() -> None:
    def joined(x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([x, y], 1)

    shapes = {"x": {0: "s0", 1: "s1"}, "y": {0: "s0", 1: "s2"}}
    program = export(joined, (torch.rand(2, 3), torch.rand(2, 4)), dynamic_shapes=shapes)
    first = program.model.graph.inputs[0].shape
    assert first is not None
    program.rename_axes({first[0]: "batch", "s1": "past", "s2": "new", "nowhere": "ignored"})
    x, y = program.model.graph.inputs
    assert (x.shape, y.shape) == (ir.Shape(["batch", "past"]), ir.Shape(["batch", "new"]))
    close(program(torch.ones(5, 1), torch.ones(5, 2)), [torch.ones(5, 3)])


def test_dimensions_by_hints_names_and_numbers_at_once() -> None:
    def summed(x: Tensor, ys: list[Tensor], zs: dict[str, Tensor], c: Tensor) -> tuple[Tensor, ...]:
        y = ys[0] + ys[1] + zs["a"] + zs["b"]
        if x.shape[0] < 3 and c.shape[0] != 4:
            return x + 5, x + y, c
        return x - 5, x - y, c

    def given(n: int, m: int) -> tuple[Any, ...]:
        one = torch.ones
        return one(n), [one(n), one(n)], {"a": one(n), "b": one(n)}, one(m)

    shapes = (
        {0: Dim("n", min=3)},
        [("ys",), (Dim.AUTO,)],
        {"a": {0: Dim.AUTO}, "b": ("zs",)},
        {0: "m"},
    )
    program = export(summed, given(5, 6), dynamic_shapes=shapes)
    close(program(*given(4, 5)), summed(*given(4, 5)))
    dims = [value.shape[0] for value in program.model.graph.inputs if value.shape is not None]
    assert dims == [ir.SymbolicDim("n")] * 5 + [ir.SymbolicDim("m")]
    with pytest.raises(Exception, match="condition on sizes: n >= 3"):
        program(*given(2, 5))


def test_derived_and_fixed_dimensions() -> None:
    class Added(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 4)

        def forward(self, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
            return self.linear(x) + y[1:], z * 2.0

    n = Dim("n", min=3, max=6)
    shapes = (
        {0: n, 1: Dim.AUTO},
        {0: n + 1, 1: Dim.STATIC},
        {0: Dim("m", min=3, max=6), 1: 3},
    )
    model = Added()
    inputs = (torch.randn(4, 6), torch.randn(5, 4), torch.randn(3, 3))
    program = export(model, inputs, dynamic_shapes=shapes, verify=True)
    assert program.model.graph.inputs[0].shape == ir.Shape(["n", 6])
    other = (torch.randn(5, 6), torch.randn(6, 4), torch.randn(6, 3))
    close(program(*other), model(*other))


def test_bounds_that_the_model_itself_sets() -> None:
    def refined(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if x.shape[0] >= 6 and y.shape[0] <= 16:
            return x * 2.0, y + 1
        return x, y

    shapes = {"x": {0: "dx"}, "y": {0: "dy"}}
    program = export(refined, (torch.randn(16), torch.randn(12)), dynamic_shapes=shapes)
    x, y = torch.randn(7), torch.randn(16)
    close(program(x, y), refined(x, y))
    for lengths in ((5, 12), (16, 17)):
        with pytest.raises(Exception, match="condition on sizes"):
            program(*map(torch.randn, lengths))


@pytest.mark.parametrize(
    ("function", "node"),
    [
        (lambda x: torch.sym_max(*x.shape), "Max"),
        (lambda x: torch.sym_min(*x.shape), "Min"),
        (lambda x: torch.sym_float(x.shape[0]), "Cast"),
        (lambda x: torch.sym_not(x.shape[0] == x.shape[1] + 1), "Not"),
    ],
)
def test_numbers_that_sizes_give(function: Callable[[Tensor], Any], node: str) -> None:
    shapes = ({0: Dim.DYNAMIC, 1: Dim.DYNAMIC},)
    program = export(lambda x: function(x), (torch.zeros(2, 3),), dynamic_shapes=shapes)
    for shape in ((2, 3), (7, 4), (4, 7)):
        (found,) = program(torch.zeros(shape))
        assert found.item() == function(torch.zeros(shape))
    assert node in kinds(program)


# ------------------------------------------------------------------------------ control flow
class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([100.0]))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = torch.cond(
            x.sum() <= 0, lambda x: x * self.weight, lambda x: x / self.weight, [x]
        )
        return result


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()
        self.weight = nn.Parameter(torch.tensor([42.0]))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = torch.cond(
            x.sum() > 0, lambda x: self.inner(x - self.weight), lambda x: x - self.weight, [x]
        )
        return result


def test_branches_within_branches_with_weights() -> None:
    program = export(Outer(), (torch.tensor([1.0, 2.0]),))
    assert "If" in kinds(program)
    for values in ([1.0, 2.0], [0.0, 0.0], [43.0, 43.0]):
        close(program(torch.tensor(values)), [Outer()(torch.tensor(values))])


# ------------------------------------------------------------------------------ dtypes
def test_bfloat16_weights_and_constants_stay_so() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(2.0, dtype=torch.bfloat16))

        def forward(self, x: Tensor) -> Tensor:
            return x * torch.tensor(3.0, dtype=torch.bfloat16) * self.weight

    x = torch.tensor([1.0, 2.0], dtype=torch.bfloat16)
    program = export(Scaled(), (x,))
    graph = program.model.graph
    ports = [*graph.inputs, *graph.outputs, graph.initializers["weight"]]
    assert {value.dtype for value in ports} == {ir.DataType.BFLOAT16}
    close(program(x), [Scaled()(x)])


# ------------------------------------------------------------------------------ lowerings
def test_a_table_with_several_functions_chooses_by_dtype() -> None:
    def of_bools(self: BOOL, other: BOOL) -> BOOL:
        return op18.Or(self, other)

    def of_floats(self: FLOAT, other: FLOAT) -> FLOAT:
        return op18.Cast(op18.Mul(self, other), to=9)

    table = {torch.ops.aten.logical_and.default: [of_floats, of_bools]}
    truth = torch.tensor([True, False])
    program = export(torch.logical_and, (truth, ~truth), custom_translation_table=table)
    assert kinds(program) == ["Or"]
    x = torch.rand(2)
    program = export(torch.logical_and, (x, x), custom_translation_table=table)
    assert kinds(program) == ["Mul", "Cast"]
    n = torch.arange(2)
    with pytest.raises(OnnxExporterError, match=r"none of the 2 functions .* takes \(INT64, INT64"):
        export(torch.logical_and, (n, n), custom_translation_table=table)
    with pytest.raises(OptionError, match="no function is given"):
        export(torch.logical_and, (x, x), custom_translation_table={torch.ops.aten.sin: []})


Real = TypeVar("Real", FLOAT, INT64)


def test_functions_for_several_dtypes() -> None:
    def of_numbers(self: Real, other: Real) -> Real:
        return op18.Mul(self, other)

    def of_bools(self: BOOL, other: BOOL) -> BOOL:
        return op18.Or(self, other)

    table = {torch.ops.aten.mul.Tensor: [of_bools, of_numbers]}
    x, n, truth = torch.rand(2), torch.arange(2), torch.tensor([True, False])
    for given, node in ((x, "Mul"), (n, "Mul"), (truth, "Or")):
        program = export(torch.mul, (given, given), custom_translation_table=table)
        assert kinds(program) == [node]


# ------------------------------------------------------------------------------ fake mode, flags
class OneWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(42.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight + x


@pytest.mark.parametrize("inside", [True, False])
def test_weights_that_are_fake_are_asked_for(tmp_path: Path, *, inside: bool) -> None:
    with enable_fake_mode():
        program = export(OneWeight(), (torch.tensor(1.0),), optimize=False)
        if inside:
            with pytest.raises(OnnxExporterError, match="1 weights have no values"):
                program.save(tmp_path / "fake.onnx")
    with pytest.raises(OnnxExporterError, match="1 weights have no values"):
        program.save(tmp_path / "fake.onnx")
    program.apply_weights({"weight": torch.tensor(41.0)})
    program.save(tmp_path / "real.onnx")
    (weight,) = onnx.load(tmp_path / "real.onnx").graph.initializer
    assert onnx.numpy_helper.to_array(weight) == 41.0


def test_a_real_model_stays_real_in_fake_mode(tmp_path: Path) -> None:
    model = OneWeight()
    with enable_fake_mode():
        program = export(model, (torch.tensor(1.0),))
        program.save(tmp_path / "inside.onnx")
    program.save(tmp_path / "outside.onnx")
    for name in ("inside", "outside"):
        (weight,) = onnx.load(tmp_path / f"{name}.onnx").graph.initializer
        assert onnx.numpy_helper.to_array(weight) == 42.0


def test_a_model_can_ask_whether_it_is_exported_to_onnx() -> None:
    def asks(x: Tensor) -> Tensor:
        return x.sin() if torch.onnx.is_in_onnx_export() else x.cos()

    assert kinds(export(asks, (torch.rand(3, 4),))) == ["Sin"]
    assert not torch.onnx.is_in_onnx_export()
    with pytest.raises(OnnxExporterError, match="is_in_onnx_export"):
        export(asks, (torch.rand(3, 4),), verify=True)


@pytest.mark.parametrize("inputs", [True, False])
@pytest.mark.parametrize("weights", [True, False])
def test_initializers_are_saved_as_asked(tmp_path: Path, *, inputs: bool, weights: bool) -> None:
    program = export(OneWeight(), (torch.tensor(1.0),))
    path = tmp_path / "model.onnx"
    program.save(path, include_initializers=weights, keep_initializers_as_inputs=inputs)
    graph = onnx.load(path).graph
    assert [v.name for v in graph.input] == (["x", "weight"] if inputs else ["x"])
    assert [v.name for v in graph.initializer] == (["weight"] if weights else [])
    close(program(torch.tensor(1.0)), [torch.tensor(43.0)])


def test_a_program_can_be_made_of_a_model_alone() -> None:
    program = export(OneWeight(), (torch.tensor(1.0),))
    alone = ONNXProgram(program.model, None)
    close(alone(torch.tensor(2.0)), [torch.tensor(44.0)])
