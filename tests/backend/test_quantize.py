"""Linear layers over quantized weights: what they compute, what stays in float, what is told."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

import dynamo_onnx
from dynamo_onnx import Options, Quantize
from dynamo_onnx.backend.compile import _in_float
from dynamo_onnx.backend.saved import CachedProgram
from dynamo_onnx.lowering.region import Region

FLOAT_ACTIVATIONS = [{"weights": weights, "activations": "float32"} for weights in ("int4", "int8")]


class Conv1D(nn.Module):
    """The linear layer of GPT-2, whose weight is [in, out]."""

    def __init__(self, k: int, n: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(k, n)), nn.Parameter(torch.randn(n))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight)
        return flat.reshape(*x.shape[:-1], -1)


class Product(nn.Module):
    """fn(x, weight, bias) with a weight [64, 48]."""

    def __init__(self, fn: Callable[..., torch.Tensor], *bias: int) -> None:
        super().__init__()
        self.fn = fn
        self.weight, self.bias = nn.Parameter(torch.randn(64, 48)), nn.Parameter(torch.randn(*bias))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fn(x, self.weight, self.bias)


class Tied(nn.Module):
    """An embedding whose weight is that of the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(50, 64), nn.Linear(64, 50, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.embedding(ids)))


def compiled(model: nn.Module, quantize: Any, **options: Any) -> Callable[..., Any]:
    return torch.compile(
        model, backend="onnx", options={"strict": True, "quantize": quantize, **options}
    )


def program_of(model: Callable[..., Any]) -> CachedProgram:
    return dynamo_onnx.programs(model)[0]


def ops_of(model: Callable[..., Any]) -> list[str]:
    return [n.op_type for n in program_of(model).program.model.graph]


def with_dequantized(model: nn.Module, program: CachedProgram, bits: int) -> nn.Module:
    """A copy of the model, its weights those of the program, dequantized in torch."""
    model = copy.deepcopy(model)
    named = dict(model.named_parameters())
    stored = {p.name: program.weights[p.onnx_name] for p in program.inputs if p.weight}
    for name, packed in stored.items():
        weight, _, part = name.partition(".packed")
        if weight == name:
            continue
        scales = stored[f"{weight}.scales{part}"]
        integers = packed if bits == 8 else torch.stack([packed & 15, packed >> 4], -1).flatten(-2)
        back = ((integers.float() - 2 ** (bits - 1)) * scales[..., None]).flatten(1)
        target = named[weight]
        n, k = target.shape[::-1] if part else target.shape
        target.data = (back[:n, :k].t() if part else back[:n, :k]).to(target.dtype).clone()
    return model


X = torch.randn(5, 64)
LINEAR: dict[str, tuple[Callable[[], nn.Module], torch.Tensor]] = {
    "a bias": (lambda: nn.Linear(64, 48), X),
    "no bias": (lambda: nn.Linear(64, 48, bias=False), X),
    "odd sizes": (lambda: nn.Linear(101, 37), torch.randn(7, 101)),
    "one row": (lambda: nn.Linear(64, 48), X[:1]),
    "no rows": (lambda: nn.Linear(64, 48), X[:0]),
    "a batch": (lambda: nn.Linear(64, 48), torch.randn(2, 3, 64)),
    "a vector": (lambda: nn.Linear(64, 48), X[0]),
    "Conv1D": (lambda: Conv1D(65, 33), torch.randn(2, 3, 65)),
    "a plain product": (lambda: Product(lambda x, w, _: x @ w, 1), torch.randn(2, 3, 64)),
    "a bias for each row": (lambda: Product(lambda x, w, b: torch.addmm(b, x, w), 5, 1), X),
    "a bias that is one row": (lambda: Product(lambda x, w, b: torch.addmm(b, x, w), 1, 48), X),
    "a bias of one": (lambda: Product(lambda x, w, b: torch.addmm(b, x, w), 1), X),
    "one weight read twice": (
        lambda: Product(lambda x, w, b: torch.addmm(b, x, w) - torch.tanh(x) @ w, 48),
        X,
    ),
}


@pytest.mark.parametrize("quantize", FLOAT_ACTIVATIONS, ids=lambda q: q["weights"])
@pytest.mark.parametrize("name", LINEAR)
def test_a_layer_computes_what_its_dequantized_weights_say(
    name: str, quantize: dict[str, str]
) -> None:
    make_model, x = LINEAR[name]
    model = make_model()
    fast = compiled(model, quantize)
    with torch.no_grad():
        result = fast(x)
        bits = int(quantize["weights"][3:])
        expected = with_dequantized(model, program_of(fast), bits)(x)
        assert result.dtype == expected.dtype
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=2e-5)
    (told,) = dynamo_onnx.report(fast).quantized
    assert told.layers == (2 if "read" in name else 1)
    assert told.left == {}
    assert ops_of(fast).count("MatMulNBits") == told.layers
    assert not {"Gemm", "MatMul", "FusedMatMul"} & set(ops_of(fast))


def test_a_weight_read_both_ways_is_quantized_in_blocks_of_each() -> None:
    model = Product(lambda x, w, _: torch.mm(x, w).mm(w.t()), 1)
    fast = compiled(model, FLOAT_ACTIVATIONS[1])
    with torch.no_grad():
        result = fast(X)
        program = program_of(fast)
        by_input = with_dequantized(model, without(program, ".packed", ".scales"), 8).weight
        by_output = with_dequantized(
            model, without(program, ".packed_transposed", ".scales_transposed"), 8
        ).weight
        assert not torch.equal(by_input, by_output)
        torch.testing.assert_close(result, X @ by_input @ by_output.t(), rtol=1e-5, atol=1e-3)
    (told,) = dynamo_onnx.report(fast).quantized
    assert (told.layers, told.before_bytes) == (2, 64 * 48 * 4)
    assert "weight" not in [p.name for p in program.inputs]


def without(program: CachedProgram, *parts: str) -> CachedProgram:
    """The program with fewer inputs told."""
    return replace(program, inputs=tuple(p for p in program.inputs if not p.name.endswith(parts)))


# Rounded to 8 bits, in blocks of which the greatest is 127: the error of a uniform rounding is
# 1/√12 of a step, against normal numbers about 0.005 of them.
@pytest.mark.parametrize("weights", ["int4", "int8"])
@pytest.mark.parametrize("rows", [1, 2, 7])
def test_int8_activations_are_off_by_their_rounding(weights: str, rows: int) -> None:
    model, x = nn.Linear(512, 256), torch.randn(rows, 512)
    fast = compiled(model, weights)
    with torch.no_grad():
        result = fast(x)
        expected = with_dequantized(model, program_of(fast), int(weights[3:]))(x)
    error = ((result - expected).norm() / expected.norm()).item()
    assert 1e-4 < error < 1e-2


@pytest.mark.parametrize(("weights", "limit"), [("int4", 0.2), ("int8", 0.02)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_16_bits_are_quantized_where_they_are_multiplied_in_float32(
    weights: str, limit: float, dtype: torch.dtype
) -> None:
    model, x = nn.Linear(64, 48).to(dtype), X.to(dtype)
    fast = compiled(model, weights)
    with torch.no_grad():
        result, expected = fast(x), model(x)
    assert result.dtype is dtype
    assert (result - expected).norm() < limit * expected.norm()
    assert "weight" not in [p.name for p in program_of(fast).inputs]


def test_a_layer_inside_a_loop_is_quantized() -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            def body(i: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                return i + 1, torch.tanh(x @ self.layer.weight.t() + self.layer.bias)

            start = torch.tensor(0)
            return torch.while_loop(lambda i, _: i < 3, body, (start, x))[1]

    model = Steps()
    fast = compiled(model, FLOAT_ACTIVATIONS[1])
    with torch.no_grad():
        expected = with_dequantized(model, program_of_called(fast, X), 8)(X)
        torch.testing.assert_close(fast(X), expected, rtol=1e-5, atol=1e-5)
    assert dynamo_onnx.report(fast).quantized[0].layers == 1


def program_of_called(model: Callable[..., Any], x: torch.Tensor) -> CachedProgram:
    model(x)
    return program_of(model)


IN_FLOAT: dict[str, tuple[Callable[[], nn.Module], torch.Tensor, str]] = {
    "few outputs": (lambda: nn.Linear(64, 31), X, "fewer than 32 features"),
    "few inputs": (lambda: nn.Linear(31, 64), torch.randn(3, 31), "fewer than 32 features"),
    "float64": (lambda: nn.Linear(64, 48).double(), X.double(), "weight of DOUBLE"),
    "a factor": (
        lambda: Product(lambda x, w, b: torch.addmm(b, x, w, alpha=2.0), 48),
        X,
        "the product is scaled",
    ),
    "a transposed input": (
        lambda: Product(lambda x, w, _: x.t().mm(w), 1),
        torch.randn(64, 5),
        "the input is read transposed",
    ),
}


@pytest.mark.parametrize("name", IN_FLOAT)
def test_what_is_not_quantized_computes_as_before_and_says_why(name: str) -> None:
    make_model, x, why = IN_FLOAT[name]
    model = make_model()
    fast = compiled(model, "int4")
    with torch.no_grad():
        torch.testing.assert_close(fast(x), model(x))
    told = dynamo_onnx.report(fast)
    (program,) = told.quantized
    assert program.layers == program.after_bytes == 0
    assert [n for reason, n in program.left.items() if why in reason] == [1]
    assert "MatMulNBits" not in ops_of(fast)
    assert f"in float: {next(iter(program.left))}" in str(told)


def test_a_weight_that_is_not_finite_stays_in_float() -> None:
    model = nn.Linear(64, 48)
    model.weight.data[3, 5] = float("inf")
    fast = compiled(model, "int8")
    with torch.no_grad():
        torch.testing.assert_close(fast(X), model(X), equal_nan=True)
        model.weight[3, 5] = 1.0
        fast(X)
    assert dynamo_onnx.report(fast).quantized[0].layers == 1


def test_a_weight_whose_changes_cannot_be_noticed_stays_in_float() -> None:
    with torch.inference_mode():
        model = nn.Linear(64, 48)
        fast = compiled(model, "int8")
        torch.testing.assert_close(fast(X), model(X))
    assert dynamo_onnx.report(fast).quantized[0].left == {
        "the right operand is no frozen weight": 1
    }


def test_matrices_that_are_arguments_stay_in_float() -> None:
    fast = torch.compile(torch.mm, backend="onnx", options={"quantize": "int8"})
    w = torch.randn(64, 48)
    torch.testing.assert_close(fast(X, w), X @ w)
    assert dynamo_onnx.report(fast).quantized[0].left == {
        "the right operand is no frozen weight": 1
    }


def test_a_graph_that_records_gradients_keeps_its_float_weights() -> None:
    model = nn.Linear(64, 48)
    fast = torch.compile(model, backend="onnx", options={"quantize": "int8"})
    result = fast(X)
    result.sum().backward()
    torch.testing.assert_close(result, model(X), rtol=1e-5, atol=1e-6)
    assert dynamo_onnx.report(fast).quantized == ()


def test_a_tied_embedding_keeps_the_float_weight_and_a_layer_alone_does_not() -> None:
    model, ids = Tied(), torch.randint(0, 50, (3, 4))
    fast = compiled(model, FLOAT_ACTIVATIONS[0])
    with torch.no_grad():
        program = program_of_called(fast, ids)
        hidden = torch.tanh(model.embedding(ids))
        head = with_dequantized(nn.ModuleDict({"embedding": model.embedding}), program, 4)
        expected = hidden @ head.get_submodule("embedding").weight.t()
        torch.testing.assert_close(fast(ids), expected, rtol=1e-5, atol=1e-5)
    assert [p.name for p in program.inputs if p.weight] == [
        "embedding.weight",
        "embedding.weight.packed",
        "embedding.weight.scales",
    ]
    alone = compiled(nn.Linear(64, 48, bias=False), "int4")
    with torch.no_grad():
        program = program_of_called(alone, X)
    assert [p.name for p in program.inputs if p.weight] == ["weight.packed", "weight.scales"]


def test_layers_can_be_left_out_by_words_of_their_names(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = nn.Sequential()
    for name in ("body", "body2", "head"):
        model.add_module(name, nn.Linear(64, 64))
    fast = compiled(model, {"weights": "int8", "skip": ["body", "tail"]})
    with torch.no_grad(), caplog.at_level(logging.WARNING, logger="dynamo_onnx"):
        fast(X)
    (told,) = dynamo_onnx.report(fast).quantized
    assert (told.layers, told.left) == (2, {"skip has 'body' in it": 1})
    weights = [p.name for p in program_of(fast).inputs if p.weight and "bias" not in p.name]
    assert [w for w in weights if "." not in w.removesuffix(".weight")] == ["body.weight"]
    warned = [r.getMessage() for r in caplog.records]
    assert len(warned) == 1
    assert "no weight to skip with 'tail' in its name" in warned[0]


def test_a_weight_whose_name_is_not_known_might_be_one_to_skip() -> None:
    graph = torch.fx.Graph()
    x, w = graph.placeholder("x"), graph.placeholder("w")
    region = Region((), (x, w), ())
    options = Options(quantize=Quantize("int8", skip=("head",)))
    why = {1: "its name is not known, and might be one to skip"}
    assert _in_float(region, {w}, {}, options) == why
    assert _in_float(region, {w}, {x: "head", w: "tail.weight"}, options) == {
        0: "skip has 'head' in it"
    }
    assert _in_float(region, {w}, {}, Options(quantize=Quantize("int8"))) == {}


def test_layers_behind_an_eager_operator_are_quantized_too() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 48)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(self.first(x))
            return torch.relu(self.second(y + 0 * torch.rand_like(y)))

    model = Noisy()
    fast = torch.compile(model, backend="onnx", options={"quantize": "int8"})
    with torch.no_grad():
        assert (fast(X) - model(X)).norm() < 0.02 * model(X).norm()
    told = dynamo_onnx.report(fast).quantized
    assert [(t.region, t.layers, t.worst) for t in told] == [
        (0, 1, "first.weight"),
        (1, 1, "second.weight"),
    ]


def by_optimizer(model: nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with torch.enable_grad():
        model(X).square().sum().backward()
    optimizer.step()


def by_load_state_dict(model: nn.Module) -> None:
    model.load_state_dict({k: torch.randn_like(v) for k, v in model.state_dict().items()})


def by_new_data(model: nn.Module) -> None:
    model.get_parameter("weight").data = torch.randn(48, 64)


def by_copy_into_data(model: nn.Module) -> None:
    model.get_parameter("weight").data.copy_(torch.randn(48, 64))


@pytest.mark.parametrize("weights", ["auto", "frozen"])
@pytest.mark.parametrize(
    "update",
    [by_optimizer, by_load_state_dict, by_new_data, by_copy_into_data],
    ids=lambda u: u.__name__,
)
def test_the_next_call_quantizes_changed_weights_again_however_often(
    update: Callable[[nn.Module], None], weights: str
) -> None:
    model = nn.Linear(64, 48)
    fast = compiled(model, FLOAT_ACTIVATIONS[1], weights=weights)
    with torch.no_grad():
        for _ in range(5):
            before = fast(X)
            assert torch.equal(fast(X), before)
            update(model)
            after = fast(X)
            expected = with_dequantized(model, program_of(fast), 8)(X)
            torch.testing.assert_close(after, expected, rtol=1e-5, atol=1e-4)
            error = (after - model(X)).norm() / model(X).norm()
            assert error < 0.01
            assert not torch.allclose(before, after, rtol=0.01)
    report = dynamo_onnx.report(fast)
    assert report.sessions == 6
    assert report.quantized[0].layers == 1


def test_only_weights_that_changed_are_quantized_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made = counting_quantize(monkeypatch)
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 48))
    fast = compiled(model, "int8")
    with torch.no_grad():
        fast(X)
        model[1].weight.add_(1.0)
        fast(X)
    assert made == [(64, 64), (48, 64), (48, 64)]


def test_guard_sets_share_quantized_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    made = counting_quantize(monkeypatch)
    fast = torch.compile(
        nn.Linear(64, 48), backend="onnx", dynamic=False, options={"quantize": "int8"}
    )
    with torch.no_grad():
        for rows in (1, 2, 3):
            fast(X[:rows])
    programs = dynamo_onnx.programs(fast)
    assert len(programs) == 3
    assert made == [(48, 64)]
    addresses = {p.weights["x0_packed"].data_ptr() for p in programs}
    assert len(addresses) == 1


def counting_quantize(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of what is quantized from now on."""
    from dynamo_onnx.runtime import quantize

    made: list[tuple[int, ...]] = []
    original = quantize.quantize

    def counting(weight: torch.Tensor, bits: int) -> quantize.QuantizedWeight | None:
        made.append(tuple(weight.shape))
        return original(weight, bits)

    monkeypatch.setattr(quantize, "quantize", counting)
    return made


def test_the_option_is_part_of_the_cache_key_and_equal_ones_share_a_program() -> None:
    options = [None, "int8", "int4", {"weights": "int4", "activations": "float32"}]
    fingerprints: list[str] = []
    with torch.no_grad():
        for quantize in [*options, {"weights": "int8"}]:
            fast = compiled(nn.Linear(64, 48), quantize)
            fingerprints.append(program_of_called(fast, X).program.fingerprint)
    assert len(set(fingerprints)) == len(options)
    assert fingerprints[-1] == fingerprints[1]
    assert dynamo_onnx.report().cache_hits == 1


def test_the_report_tells_layers_bytes_and_errors() -> None:
    model = nn.Sequential(nn.Linear(128, 96), nn.ReLU(), nn.Linear(96, 64), nn.Linear(64, 2))
    fast = compiled(model, "int4")
    with torch.no_grad():
        fast(torch.randn(3, 128))
        exact = with_dequantized(model, program_of(fast), 4)
    report = dynamo_onnx.report(fast)
    (told,) = report.quantized
    assert (told.guard_set, told.region, told.bits, told.layers) == ("0/0", 0, 4, 2)
    elements = 128 * 96 + 96 * 64
    assert told.before_bytes == 4 * elements
    assert told.after_bytes == elements // 2 + elements // 32 * 4
    errors = {
        name: ((exact.get_parameter(name) - weight).norm() / weight.norm()).item()
        for name, weight in model.named_parameters()
        if name in {"0.weight", "2.weight"}
    }
    torch.testing.assert_close(told.mean_error, sum(errors.values()) / 2, rtol=1e-4, atol=0)
    torch.testing.assert_close(told.max_error, max(errors.values()), rtol=1e-4, atol=0)
    assert told.worst == max(errors, key=errors.__getitem__)
    assert "0/0 region 0: 2 linear layers in int4" in str(report)


def test_node_counts_stay_as_they_are() -> None:
    model = nn.Sequential(nn.Linear(64, 48), nn.GELU(), nn.Linear(48, 64, bias=False))
    plain, fast = torch.compile(model, backend="onnx"), compiled(model, "int8")
    with torch.no_grad():
        plain(X)
        before = ops_of(plain)
        fast(X)
    assert before == ["Gemm", "Gelu", "Gemm"]
    assert ops_of(fast) == ["MatMulNBits", "Gelu", "MatMulNBits"]
    assert program_of(fast).program.node_count == 3


@pytest.mark.parametrize("weights", ["int4", "int8"])
def test_what_is_saved_is_the_quantized_model_and_computes_the_same(
    weights: str, tmp_path: Path
) -> None:
    model = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), Conv1D(256, 64)).eval()
    x = torch.randn(3, 256)
    fast = compiled(model, weights)
    with torch.no_grad():
        expected = fast(x)
    (written, data, *_) = (*dynamo_onnx.save(fast, tmp_path)[:1], *tmp_path.glob("*.data"))
    session = ort.InferenceSession(written)
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_array_equal(got, expected.numpy())
    assert data.stat().st_size < (256 * 256 + 256 * 64) * 4 / (2.5 if weights == "int8" else 5)
    entry = json.loads((tmp_path / "manifest.json").read_text())["programs"][0]
    assert {p["name"] for p in entry["weights"]} == {
        *("0.weight.packed", "0.weight.scales", "0.bias", "2.bias"),
        *("2.weight.packed_transposed", "2.weight.scales_transposed"),
    }
    torch.testing.assert_close(program_of(fast).onnx_program(x)[0], expected, rtol=0, atol=0)


def test_transforms_see_the_program_in_float() -> None:
    seen: list[str] = []

    def look(model: Any) -> Any:
        seen.extend(n.op_type for n in model.graph)
        return model

    fast = compiled(nn.Linear(64, 48), "int8", transforms=[look])
    with torch.no_grad():
        fast(X)
    assert seen == ["Gemm"]
    assert ops_of(fast) == ["MatMulNBits"]


def test_a_language_model_says_nearly_the_same() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_embd=64, n_layer=2, n_head=2, vocab_size=100, n_positions=32,
        bos_token_id=None, eos_token_id=None, use_cache=False,
    )  # fmt: skip
    model, ids = GPT2LMHeadModel(config).eval(), torch.randint(0, 100, (2, 9))
    fast = compiled(model, "int8")
    with torch.no_grad():
        result, expected = fast(ids).logits, model(ids).logits
    assert (result - expected).norm() < 0.03 * expected.norm()
    (told,) = dynamo_onnx.report(fast).quantized
    assert (told.layers, told.left) == (4 * 2 + 1, {})
    assert not {"Gemm", "MatMul"} & set(ops_of(fast))
