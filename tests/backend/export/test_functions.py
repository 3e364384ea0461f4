"""`export_modules_as_functions`: calls of chosen modules are local functions of the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from dynamo_onnx import OptionError, enable_fake_mode, export

HERE = __name__


class Block(nn.Module):
    def __init__(self, width: int = 8, *, act: nn.Module | None = None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, width)
        self.act = nn.GELU(approximate="tanh") if act is None else act

    def forward(self, x: Tensor) -> Tensor:
        flat = self.linear(self.norm(x)).reshape(x.shape[0] * x.shape[1], -1)
        return x + self.act(flat).reshape(x.shape)


class Twice(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.block(x) * 2)


X = torch.randn(3, 5, 8)
ANY = ({0: "batch", 1: "length"},)


def exported(model: nn.Module, classes: Any, *args: Tensor, shapes: Any = None) -> ir.Model:
    """The model, checked by onnx and compared with eager in plain onnxruntime."""
    model = model.eval()
    program = export(
        model, args or (X,), dynamic_shapes=shapes, export_modules_as_functions=classes, verify=True
    )
    onnx.checker.check_model(program.model_proto, full_check=True)
    if shapes is not None:
        for given in (X, torch.randn(7, 2, 8), torch.randn(1, 1, 8)):
            found = ort_run(program.model_proto, given)
            torch.testing.assert_close(found, [model(given)], rtol=1e-5, atol=1e-5)
    return program.model


def ort_run(proto: onnx.ModelProto, *args: Tensor) -> list[Tensor]:
    session = ort.InferenceSession(proto.SerializeToString())
    feeds = {i.name: a.numpy() for i, a in zip(session.get_inputs(), args, strict=True)}
    return [torch.from_numpy(r) for r in session.run(None, feeds)]


def functions(model: ir.Model) -> list[str]:
    return [f.name for f in model.functions.values()]


def kinds(nodes: Sequence[ir.Node] | ir.Graph | ir.Function) -> list[str]:
    return [n.op_type for n in nodes]


@pytest.mark.parametrize("shapes", [None, ANY], ids=["static", "dynamic"])
def test_equal_layers_share_a_function(shapes: Any) -> None:
    layers = nn.Sequential(*(Block() for _ in range(3)))
    model = exported(layers, (Block,), shapes=shapes)
    assert [(n.domain, n.op_type, n.name) for n in model.graph] == [
        (HERE, "Block", f"_{i}/Block_{i + 1}") for i in range(3)
    ]
    (function,) = model.functions.values()
    assert function.identifier() == (HERE, "Block", "")
    assert [v.name for v in function.inputs] == [
        "x0", "norm.weight", "norm.bias", "linear.weight", "linear.bias"
    ]  # fmt: skip
    assert {"LayerNormalization", "Gelu"} <= {*kinds(function)}  # patterns are found in it as well
    assert not {*kinds(function)} & {"Tanh", "FusedMatMul"}
    assert {*model.graph.initializers} == {*layers.state_dict()}
    assert model.opset_imports == {"": 23, HERE: 1}


def test_names_of_inputs_and_outputs_are_as_without_functions() -> None:
    layers = nn.Sequential(Block(), Block()).eval()
    graphs = [
        export(layers, (X,), export_modules_as_functions=classes).model.graph
        for classes in (False, (Block,))
    ]
    for ports in ("inputs", "outputs"):
        names = [[(v.name, v.shape) for v in getattr(graph, ports)] for graph in graphs]
        assert names[0] == names[1]


def test_layers_that_differ_have_functions_of_their_own() -> None:
    layers = nn.Sequential(Block(), Block(act=nn.SiLU()), Block(), Block(act=nn.SiLU()))
    model = exported(layers, (Block,), shapes=ANY)
    assert kinds(model.graph) == ["Block", "Block_2", "Block", "Block_2"]
    assert functions(model) == ["Block", "Block_2"]


def test_layers_of_other_sizes_differ() -> None:
    layers = nn.Sequential(Block(8), nn.Linear(8, 4), Block(4))
    assert functions(exported(layers, [Block])) == ["Block", "Block_2"]


def test_a_module_that_is_called_twice_is_called_with_the_same_weights() -> None:
    model = exported(Twice(Block()), (Block,), shapes=ANY)
    calls = [n for n in model.graph if n.op_type == "Block"]
    assert functions(model) == ["Block"]
    assert len(calls) == 2
    assert calls[0].inputs[1:] == calls[1].inputs[1:]


def test_functions_call_functions() -> None:
    layers = nn.Sequential(Twice(Block()), Twice(Block()))
    model = exported(layers, (nn.LayerNorm, Block, Twice), shapes=ANY)
    assert kinds(model.graph) == ["Twice", "Twice"]
    assert functions(model) == ["LayerNorm", "Block", "Twice"]
    norm, block, twice = model.functions.values()
    assert Counter(kinds(twice))["Block"] == 2
    assert Counter(kinds(block))["LayerNorm"] == 1
    assert norm.domain == "torch.nn.modules.normalization"
    assert norm.domain in model.opset_imports


def test_true_takes_every_class_of_the_users() -> None:
    model = exported(nn.Sequential(Twice(Block()), Block()), True, shapes=ANY)
    assert kinds(model.graph) == ["Twice", "Block"]
    assert functions(model) == ["Block", "Twice"]
    with pytest.raises(OptionError, match="export_modules_as_functions=True"):
        export(torch.sin, (X,), export_modules_as_functions=True)


def test_the_whole_model_is_a_function() -> None:
    model = exported(Block(), (Block,), shapes=ANY)
    assert kinds(model.graph) == ["Block"]
    assert {*model.graph.initializers} == {*Block().state_dict()}


@pytest.mark.parametrize("given", [nn.LSTM, (Block, nn.LSTM)])
def test_a_class_that_is_never_called_is_an_error_that_names_it(given: Any) -> None:
    with pytest.raises(OptionError, match=r"calls no torch\.nn\.modules\.rnn\.LSTM; it calls .*"):
        export(nn.Sequential(Block()), (X,), export_modules_as_functions=given)


@pytest.mark.parametrize("given", [Block(), ["Block"], [Tensor], 3])
def test_what_is_no_class_of_modules_is_an_error(given: Any) -> None:
    with pytest.raises(OptionError, match="is no class of modules"):
        export(nn.Sequential(Block()), (X,), export_modules_as_functions=given)


class Chain(nn.Module):
    def __init__(self, *, back: bool) -> None:
        super().__init__()
        self.back = back

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = torch.sin(x)
        beside = torch.cos(first)
        second = torch.exp(beside if self.back else first)
        return beside, second


@pytest.mark.parametrize("back", [True, False])
def test_a_call_whose_result_comes_back_to_it_stays_in_the_graph(back: bool) -> None:
    program = torch.export.export(Chain(back=back), (X,))
    for node in program.graph.nodes:
        if node.target in (torch.ops.aten.sin.default, torch.ops.aten.exp.default):
            stack = {"block": ("block", f"{HERE}.Block")}
            node.meta["nn_module_stack"] = stack  # as if these two were of one call
    model = export(program, export_modules_as_functions=(Block,)).model
    assert kinds(model.graph) == (["Sin", "Cos", "Exp"] if back else ["Block", "Cos"])
    found = ort_run(ir.to_proto(model), X)
    torch.testing.assert_close(found, [*Chain(back=back)(X)])


class Spectrum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft(x)


class Power(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.spectrum = Spectrum()

    def forward(self, x: Tensor) -> Tensor:
        return self.spectrum(x).abs()


def test_complex_numbers_stay_within_a_function() -> None:
    model = exported(nn.Sequential(Power(), nn.ReLU()), (Power, Spectrum))
    assert kinds(model.graph) == ["Power", "Relu"]
    assert functions(model) == ["Power"]


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,))


def test_a_branch_is_part_of_a_function() -> None:
    model = exported(nn.Sequential(Branches(), Branches()), (Branches,))
    assert kinds(model.graph) == ["Branches", "Branches"]
    assert functions(model) == ["Branches"]


class Picks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x[:, 0, 0] > -100]


def test_sizes_that_depend_on_data_pass_through_functions() -> None:
    model = exported(nn.Sequential(Picks(), Block()), (Picks, Block), shapes=ANY)
    assert kinds(model.graph) == ["Picks", "Block"]


class Fills(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(8))

    def forward(self, count: int) -> Tensor:
        return self.weight.expand(count, 8) * 2


class Sized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fills = Fills()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fills(x.shape[1])


def test_a_size_that_no_tensor_tells_is_given() -> None:
    model = exported(Sized(), (Fills,), shapes=ANY)
    (function,) = model.functions.values()
    assert [v.dtype for v in function.inputs] == [ir.DataType.FLOAT, ir.DataType.INT64]


class Draws(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.dropout(x, 0.5, training=True)


class DrawsTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = Draws(), Draws()

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) - self.two(x)


def test_calls_that_draw_numbers_are_not_one() -> None:
    program = export(DrawsTwice(), (X,), export_modules_as_functions=(Draws,))
    assert kinds(program.model.graph)[:2] == ["Draws", "Draws"]
    (found,) = program(torch.ones_like(X))
    assert found.abs().max() > 0


def test_weights_are_applied_and_lie_beside_the_file(tmp_path: Path) -> None:
    real = nn.Sequential(Block(), Block()).eval()
    with enable_fake_mode():
        program = export(
            nn.Sequential(Block(), Block()).eval(),
            (torch.zeros(3, 5, 8),),
            export_modules_as_functions=Block,
        )
    program.apply_weights(real.state_dict())
    torch.testing.assert_close(program(X)[0], real(X))
    program.save(tmp_path / "m.onnx", external_data=True)
    assert (tmp_path / "m.onnx.data").is_file()
    onnx.checker.check_model(tmp_path / "m.onnx", full_check=True)
    (found,) = ort.InferenceSession(tmp_path / "m.onnx").run(None, {"input_1": X.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), real(X))


def test_the_layers_of_a_llama_are_one_function() -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm

    config = transformers.LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        use_cache=False,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    ids = torch.randint(0, 50, (2, 9))
    program = export(
        model,
        (ids,),
        dynamic_shapes={"input_ids": {0: "batch", 1: "length"}},
        export_modules_as_functions=(LlamaDecoderLayer, LlamaRMSNorm),
        verify=True,
    )
    onnx.checker.check_model(program.model_proto, full_check=True)
    assert functions(program.model) == ["LlamaRMSNorm", "LlamaDecoderLayer"]
    calls = Counter(n.op_type for n in program.model.graph if n.domain)
    assert calls == {"LlamaDecoderLayer": 3, "LlamaRMSNorm": 1}
    other = torch.randint(0, 50, (3, 4))
    torch.testing.assert_close(program(other)[0], model(other).logits, rtol=1e-4, atol=1e-4)
