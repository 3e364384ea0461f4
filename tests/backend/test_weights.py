"""A compiled model sees its weights change, however they change."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import nn

import dynamo_onnx
from dynamo_onnx.backend.state import state
from dynamo_onnx.runtime.executable import Executable

MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], torch.Tensor]]] = {
    "linear": (lambda: nn.Linear(8, 4), lambda: torch.randn(3, 8)),
    "conv": (lambda: nn.Conv2d(3, 8, 3, padding=1), lambda: torch.randn(2, 3, 9, 9)),
    "embedding": (lambda: nn.Embedding(50, 8), lambda: torch.randint(0, 50, (3, 5))),
}


def by_optimizer(model: nn.Module, x: torch.Tensor) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with torch.enable_grad():
        model(x).square().sum().backward()
    optimizer.step()


def by_load_state_dict(model: nn.Module, _: torch.Tensor) -> None:
    model.load_state_dict({k: torch.randn_like(v) for k, v in model.state_dict().items()})


def by_new_data(model: nn.Module, _: torch.Tensor) -> None:
    for p in model.parameters():
        p.data = torch.randn_like(p)


def by_copy_into_data(model: nn.Module, _: torch.Tensor) -> None:
    for p in model.parameters():
        p.data.copy_(torch.randn_like(p))


UPDATES = [by_optimizer, by_load_state_dict, by_new_data, by_copy_into_data]


@pytest.mark.parametrize("weights", ["auto", "frozen", "live"])
@pytest.mark.parametrize("update", UPDATES, ids=lambda u: u.__name__)
@pytest.mark.parametrize("name", MODELS)
def test_the_next_call_sees_updated_weights(
    name: str, update: Callable[[nn.Module, torch.Tensor], None], weights: str
) -> None:
    make_model, make_input = MODELS[name]
    model, x = make_model(), make_input()
    compiled = torch.compile(model, backend="onnx", options={"weights": weights, "strict": True})
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(compiled(x), model(x))
        before = model(x)
        update(model, x)
        after = model(x)
        assert not torch.allclose(before, after)
        for _ in range(2):
            torch.testing.assert_close(compiled(x), after)


def test_unchanged_weights_open_one_session() -> None:
    model = nn.Linear(8, 4)
    compiled = torch.compile(model, backend="onnx")
    with torch.no_grad():
        for _ in range(5):
            compiled(torch.randn(3, 8))
    assert dynamo_onnx.report(compiled).sessions == 1


def test_auto_goes_live_when_weights_keep_changing_and_frozen_does_not() -> None:
    sessions = {}
    for policy in ("auto", "frozen"):
        model = nn.Linear(8, 4)
        compiled = torch.compile(model, backend="onnx", options={"weights": policy})
        x = torch.randn(3, 8)
        with torch.no_grad():
            for _ in range(8):
                torch.testing.assert_close(compiled(x), model(x))
                model.weight.add_(1.0)
        sessions[policy] = dynamo_onnx.report(compiled).sessions
    assert sessions == {"auto": 4, "frozen": 8}


def test_weights_with_nans_are_not_taken_for_changed() -> None:
    model = nn.Linear(8, 4)
    with torch.no_grad():
        model.weight[0, 0] = float("nan")
        compiled = torch.compile(model, backend="onnx")
        for _ in range(3):
            compiled(torch.randn(3, 8))
    assert dynamo_onnx.report(compiled).sessions == 1


def test_non_contiguous_and_empty_weights() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.permuted = nn.Parameter(torch.randn(4, 8).t())
            self.strided = nn.Parameter(torch.randn(8, 8)[:, ::2])
            self.empty = nn.Parameter(torch.randn(3, 0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.permuted + x @ self.strided + (self.empty @ self.empty.t()).sum()

    model = Odd()
    compiled = torch.compile(model, backend="onnx", options={"strict": True})
    x = torch.randn(3, 8)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x))
        model.strided.data.mul_(3.0)
        torch.testing.assert_close(compiled(x), model(x))


def test_a_weight_of_which_only_the_shape_matters_is_no_obstacle() -> None:
    class Shaped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kept, self.unread = nn.Linear(8, 4), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.kept(x) + torch.zeros_like(self.unread(x))

    model = Shaped()
    compiled = torch.compile(model, backend="onnx", options={"strict": True})
    x = torch.randn(3, 8)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x))


def test_a_buffer_that_the_model_writes_to_is_not_frozen() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count += 1
            return x * self.count

    model = Counter()
    compiled = torch.compile(model, backend="onnx")
    with torch.no_grad():
        for step in range(1, 6):
            assert torch.equal(compiled(torch.ones(4)), torch.full((4,), float(step)))
    assert torch.equal(model.count, torch.full((4,), 5.0))
    assert dynamo_onnx.report(compiled).sessions == 1


def test_weights_behind_an_eager_operator_are_frozen_too() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(self.first(x))
            return torch.relu(self.second(y + torch.rand_like(y)))

    compiled = torch.compile(Noisy(), backend="onnx")
    with torch.no_grad():
        compiled(torch.randn(3, 8))
    first, second = dynamo_onnx.programs(compiled)
    for program, layer in ((first, "first"), (second, "second")):
        weights = [p.name for p in program.inputs if p.weight]
        assert weights == [f"{layer}.weight", f"{layer}.bias"]
        assert "Transpose" not in [n.op_type for n in program.program.model.graph]


def test_guard_sets_over_one_program_and_the_same_weights_share_a_session() -> None:
    linear = nn.Linear(8, 8)

    def fn(x: torch.Tensor, name: str) -> torch.Tensor:
        return torch.relu(linear(x)) if name else x

    compiled = torch.compile(fn, backend="onnx", options={"strict": True})
    x = torch.randn(3, 8)
    with torch.no_grad():
        for _ in range(2):
            for name in ("a", "b"):  # a guard set each, one graph
                torch.testing.assert_close(compiled(x, name), fn(x, name))
        report = dynamo_onnx.report(compiled)
        assert (report.graphs, report.sessions) == (2, 1)
        linear.weight.data.mul_(2.0)
        for name in ("a", "b"):
            torch.testing.assert_close(compiled(x, name), fn(x, name))
    assert dynamo_onnx.report(compiled).sessions == 2


class Layer(nn.Linear):
    """Dynamo compiles no forward of torch's own classes where that is the whole frame."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight, self.bias)


def test_layers_of_one_kind_share_the_session_that_reads_their_weights() -> None:
    layers = [Layer(8, 8) for _ in range(3)]
    for layer in layers:
        layer.compile(backend="onnx", options={"strict": True, "weights": "live"})
    x = torch.randn(3, 8)
    with torch.no_grad():
        for _ in range(2):
            for layer in layers:
                wanted = nn.functional.linear(x, layer.weight, layer.bias)
                torch.testing.assert_close(layer(x), wanted)
    assert dynamo_onnx.report().sessions == 1


def test_dropping_the_model_frees_its_weights() -> None:
    import gc
    import weakref

    model = nn.Linear(64, 64)
    compiled = torch.compile(model, backend="onnx")
    with torch.no_grad():
        compiled(torch.randn(2, 64))
    alive = weakref.ref(model.weight)
    del model, compiled
    torch._dynamo.reset()
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("options", [{}, {"weights": "frozen"}, {"quantize": "int8"}], ids=str)
def test_layers_compiled_one_by_one_keep_a_session_each(options: dict[str, str]) -> None:
    layers = [Layer(64, 64) for _ in range(5)]
    x = torch.randn(3, 64)
    with torch.no_grad():
        eager = [layer(x) for layer in layers]
        for layer in layers:
            layer.compile(backend="onnx", options={"strict": True, **options})
        first = [layer(x) for layer in layers]
        for ours, wanted in zip(first, eager, strict=True):
            torch.testing.assert_close(ours, wanted, atol=0.03, rtol=0)
        for _ in range(3):
            assert all(torch.equal(layer(x), y) for layer, y in zip(layers, first, strict=True))
        assert sum(one.counters.sessions for one in _executables()) == 5
        layers[2].weight.data.mul_(2.0)
        for _ in range(2):
            same = [torch.equal(layer(x), y) for layer, y in zip(layers, first, strict=True)]
            assert same == [True, True, False, True, True]
    assert sum(one.counters.sessions for one in _executables()) == 6


def test_a_session_is_closed_when_its_weights_are_gone() -> None:
    models = [nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(3)]
    compiled = [torch.compile(model, backend="onnx") for model in models]
    x = torch.randn(3, 8)
    with torch.no_grad():
        for one in compiled:
            one(x)
    (executable,) = _executables()
    open_ones = [weakref.ref(weights.opened) for weights in executable._sets.values()]
    assert [one() is not None for one in open_ones] == [True, True, True]
    del models[-1], compiled[-1], one
    gc.collect()
    assert [one() is not None for one in open_ones] == [True, True, False]


def test_weights_made_anew_for_each_call_are_not_frozen_for_ever() -> None:
    linear = nn.Linear(8, 8)
    compiled = torch.compile(linear, backend="onnx")
    x = torch.randn(3, 8)
    with torch.no_grad():
        for step in range(8):
            linear.weight = nn.Parameter(torch.full((8, 8), float(step)))
            torch.testing.assert_close(compiled(x), linear(x))
    assert sum(one.counters.sessions for one in _executables()) <= 4


def _executables() -> list[Executable]:
    found = (region.executable() for graph in state.graphs for region in graph.regions)
    return list(dict.fromkeys(one for one in found if one is not None))


def test_without_guards_on_modules_weights_are_watched_all_the_same() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU()).eval()
    options = {"guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe}
    compiled = torch.compile(model, backend="onnx", options={"strict": True, **options})
    x = torch.randn(3, 8)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x))
        model[0].weight.data.mul_(2.0)
        torch.testing.assert_close(compiled(x), model(x))
        model.load_state_dict({k: torch.randn_like(v) for k, v in model.state_dict().items()})
        torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.parametrize("weights", ["frozen", "live"])
def test_without_guards_a_weight_of_another_shape_is_not_read_as_the_old_one(weights: str) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU()).eval()
    options = {"guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe}
    compiled = torch.compile(model, backend="onnx", options={"weights": weights, **options})
    x = torch.randn(3, 8)
    with torch.no_grad():
        compiled(x)
        for features in (6, 12):
            model[0] = nn.Linear(8, features)
            torch.testing.assert_close(compiled(x), model(x))
