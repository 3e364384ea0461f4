"""Modes and callers: random numbers, autocast, gradients, subclasses, threads, callables."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor

import dynamo_onnx

Fn = Callable[..., Any]
X = torch.linspace(-2, 2, 12).reshape(3, 4)


def compiled(fn: Fn, **kwargs: Any) -> Fn:
    return torch.compile(fn, backend="onnx", options={"strict": True}, **kwargs)


def same(ours: Any, eager: Any) -> None:
    torch.testing.assert_close(ours, eager, equal_nan=True, check_stride=True)


# ------------------------------------------------------------------------------ random numbers
def _draws(x: torch.Tensor) -> Any:
    a = torch.rand(3, 4) * 2 + x
    b = torch.randn_like(a) + a
    c = F.dropout(b, 0.4) * 3
    d = torch.randint(0, 9, (3,)) + 1
    e = torch.bernoulli(torch.sigmoid(c)) + torch.normal(0.0, 1.0, (4,))
    f = torch.randperm(5) * 2
    g = torch.multinomial(torch.softmax(x, 1), 2) + d[:, None]
    h = x.clone().uniform_(-1, 1) + x.clone().normal_() * 2
    return a, b, c, d, e, f, g, h, torch.empty(3).exponential_() + 1


@pytest.mark.parametrize("dynamic", [False, True])
def test_every_draw_is_eagers_under_a_seed(dynamic: bool) -> None:
    ours = torch.compile(_draws, backend="onnx", dynamic=dynamic)
    with torch.no_grad():
        for seed in range(3):
            torch.manual_seed(seed)
            expected = [_draws(X), torch.rand(2)]
            torch.manual_seed(seed)
            got = [ours(X), torch.rand(2)]
            torch.testing.assert_close(got, expected)


def test_dropout_of_a_module_in_train_and_eval_mode() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 4))
    ours = torch.compile(model, backend="onnx")
    with torch.no_grad():
        for train in (True, False, True):
            model.train(train)
            torch.manual_seed(1)
            expected = model(X)
            torch.manual_seed(1)
            torch.testing.assert_close(ours(X), expected)


def test_a_generator_of_ones_own() -> None:
    def fn(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return torch.rand(3, 4, generator=generator) + x * 2

    ours = torch.compile(fn, backend="onnx")
    a, b = (torch.Generator().manual_seed(5) for _ in range(2))
    for _ in range(2):
        same(ours(X, a), fn(X, b))


# ------------------------------------------------------------------------------ autocast
class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(F.gelu(self.norm(self.a(x)))).softmax(-1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_around_the_call(dtype: torch.dtype) -> None:
    model = Net()
    ours = compiled(model)
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype):
        got, expected = ours(X), model(X)
    assert got.dtype == expected.dtype
    torch.testing.assert_close(got, expected, rtol=2e-2, atol=2e-2)
    with torch.no_grad():  # another guard set
        torch.testing.assert_close(ours(X), model(X))


def test_autocast_inside() -> None:
    w = torch.randn(4, 4)

    def fn(x: torch.Tensor) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = x @ w
            with torch.autocast("cpu", enabled=False):
                z = y.float() @ w
        return y, z, x @ w

    got, expected = compiled(fn)(X), fn(X)
    assert [t.dtype for t in got] == [torch.bfloat16, torch.float32, torch.float32]
    torch.testing.assert_close(got, expected, rtol=2e-2, atol=5e-2)


# ------------------------------------------------------------------------------ gradients
def test_inference_mode_around_and_inside() -> None:
    model = Net()
    ours = compiled(model)
    with torch.inference_mode():
        got = ours(X)
        assert got.is_inference()
        same(got, model(X))
        same(ours(X * 2), model(X * 2))

    def fn(x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return x * 2 + 1

    same(compiled(fn)(X), fn(X))


def test_no_grad_inside_a_function_of_a_trained_model() -> None:
    model = Net()

    @torch.no_grad()
    def fn(x: torch.Tensor) -> torch.Tensor:
        return model(x)

    got = compiled(fn)(X)
    assert not got.requires_grad
    torch.testing.assert_close(got, fn(X))


def _gradients(run: Fn, model: nn.Module) -> Any:
    model.zero_grad()
    x = X.clone().requires_grad_()
    y = run(x)
    (y * torch.arange(y.numel()).reshape(y.shape)).sum().backward()
    return y.detach(), x.grad, [p.grad.clone() for p in model.parameters()]


def test_training_gives_eagers_gradients() -> None:
    model = Net()
    ours = torch.compile(model, backend="onnx")
    torch.testing.assert_close(_gradients(ours, model), _gradients(model, model))


def test_training_and_evaluation_in_turn() -> None:
    model = Net()
    ours = torch.compile(model, backend="onnx")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(4):
        optimizer.zero_grad()
        ours(X).square().sum().backward()
        optimizer.step()
        with torch.no_grad():
            torch.testing.assert_close(ours(X), model(X))
    assert dynamo_onnx.report(ours).native_ops > 0


def test_a_partly_frozen_model_still_trains() -> None:
    model = Net()
    model.a.requires_grad_(requires_grad=False)
    ours = torch.compile(model, backend="onnx")

    def gradients(run: Fn) -> Any:
        model.zero_grad()
        run(X).square().sum().backward()
        return [None if p.grad is None else p.grad.clone() for p in model.parameters()]

    torch.testing.assert_close(gradients(ours), gradients(model))


def test_a_detached_part_and_double_use() -> None:
    def fn(x: torch.Tensor, w: torch.Tensor) -> Any:
        y = x @ w
        return y.detach() * 2, y.relu() + x.sum()

    def gradients(run: Fn) -> Any:
        x, w = X.clone().requires_grad_(), torch.eye(4).requires_grad_()
        a, b = run(x, w)
        assert not a.requires_grad
        b.sum().backward()
        return a, b.detach(), x.grad, w.grad

    torch.testing.assert_close(gradients(torch.compile(fn, backend="onnx")), gradients(fn))


def test_writes_in_place_while_recording_gradients() -> None:
    def fn(x: torch.Tensor, buffer: torch.Tensor) -> torch.Tensor:
        y = x * 2
        y[0] = 1
        buffer.add_(y.detach().sum(0))
        return y * buffer

    def run(run: Fn) -> Any:
        x, buffer = X.clone().requires_grad_(), torch.zeros(4)
        y = run(x, buffer)
        y.sum().backward()
        return y.detach(), x.grad, buffer

    torch.testing.assert_close(run(torch.compile(fn, backend="onnx")), run(fn))


def test_functional_gradients_inside() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return torch.func.grad(lambda t: (t.sin() * t).sum())(x) * 2

    ours = torch.compile(fn, backend="onnx")
    torch.testing.assert_close(ours(X), fn(X))


def test_vmap_inside() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return torch.vmap(lambda row: row.softmax(0) @ row)(x) * 2

    torch.testing.assert_close(compiled(fn)(X), fn(X))


# ------------------------------------------------------------------------------ subclasses
def test_a_traceable_subclass() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return (x * 2 + 1).t()

    a, b = TwoTensor(X.clone(), X + 1), TwoTensor(X.clone(), X + 1)
    got, expected = compiled(fn)(a), fn(b)
    assert type(got) is TwoTensor
    same((got.a, got.b), (expected.a, expected.b))


def test_a_subclass_that_is_written_to() -> None:
    def fn(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x.add_(y) * 2

    a, b = TwoTensor(X.clone(), X + 1), TwoTensor(X.clone(), X + 1)
    got, expected = compiled(fn)(a, X), fn(b, X)
    same((got.a, got.b, a.a, a.b), (expected.a, expected.b, b.a, b.b))


def test_a_plain_subclass() -> None:
    class Tagged(torch.Tensor):
        pass

    x = X.clone().as_subclass(Tagged)
    got = torch.compile(lambda t: t * 2 + 1, backend="onnx")(x)
    assert type(got) is Tagged
    same(got.as_subclass(torch.Tensor), X * 2 + 1)


def test_parameters_as_arguments() -> None:
    weight = nn.Parameter(torch.randn(4, 2))
    ours = compiled(lambda x, w: x @ w)
    with torch.no_grad():
        same(ours(X, weight), X @ weight)
        weight.mul_(2)
        same(ours(X, weight), X @ weight)


# ------------------------------------------------------------------------------ callables
@dataclass
class Batch:
    x: torch.Tensor
    scale: float = 2.0
    name: str = "batch"


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


class Host:
    def __init__(self) -> None:
        self.factor = torch.tensor(3.0)

    def method(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor + 1

    @staticmethod
    def plain(x: torch.Tensor) -> torch.Tensor:
        return x * 5

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.method(x) * 2


def _keywords(x: torch.Tensor, *rest: torch.Tensor, scale: float = 1.0, **more: Any) -> Any:
    return {"y": x * scale + sum(rest), "more": [v + 1 for v in more.values()]}


def _times(w: torch.Tensor) -> Fn:
    return lambda x: x @ w


CALLS: dict[str, tuple[Fn, tuple[Any, ...], dict[str, Any]]] = {
    "keywords": (_keywords, (X, X, X), {"scale": 2.0, "a": X, "b": X[0]}),
    "a dataclass": (lambda b: b.x * b.scale, (Batch(X),), {}),
    "a dataclass made inside": (lambda x: Batch(x * 2, 3.0).x + 1, (X,), {}),
    "a named tuple": (lambda p: Pair(p.first + 1, p.second * 2), (Pair(X, X),), {}),
    "nested containers": (lambda d: [d["a"][0] + 1, (d["b"],)], ({"a": [X], "b": X},), {}),
    "a method": (Host().method, (X,), {}),
    "a static method": (Host.plain, (X,), {}),
    "a callable object": (Host(), (X,), {}),
    "a partial": (functools.partial(torch.add, alpha=3), (X, X), {}),
    "an optional argument": (lambda x, mask=None: x * 2 if mask is None else x * mask, (X,), {}),
    "a string and a bool": (
        lambda x, how, on: x * 2 if on and how == "a" else x,
        (X, "a", True),
        {},
    ),
    "a default list": (lambda x, sizes=(3, 4): x.reshape(*sizes) * 2, (X,), {}),
    "a comprehension": (lambda xs: [x * i for i, x in enumerate(xs, 1)], ([X, X + 1],), {}),
    "a closure over a tensor": (_times(torch.eye(4) * 2), (X,), {}),
    "a size": (lambda x: torch.Size([x.shape[1], 2]), (X,), {}),
}


@pytest.mark.parametrize("name", CALLS)
def test_callables_arguments_and_results(name: str) -> None:
    fn, args, kwargs = CALLS[name]
    with torch.no_grad():
        got, expected = compiled(fn)(*args, **kwargs), fn(*args, **kwargs)
    assert type(got) is type(expected)
    same(got, expected)


def test_a_dataclass_as_result() -> None:
    got = compiled(lambda x: Batch(x * 2, 4.0))(X)
    assert isinstance(got, Batch)
    assert got.scale == 4.0
    same(got.x, X * 2)


def test_module_compile_and_hooks() -> None:
    model = Net()
    model.norm.register_forward_hook(lambda module, args, output: output * 2)
    expected = model(X).detach()
    model.compile(backend="onnx", options={"strict": True})
    with torch.no_grad():
        same(model(X), expected)


def test_a_compiled_part_of_a_plain_model() -> None:
    model = Net()
    with torch.no_grad():
        expected = model(X)
        model.a.compile(backend="onnx", options={"strict": True})
        model.norm = torch.compile(model.norm, backend="onnx", options={"strict": True})
        same(model(X), expected)


def test_a_compiled_function_in_a_compiled_function() -> None:
    inner = compiled(lambda x: x * 2 + 1)
    outer = compiled(lambda x: inner(x) * 3)
    same(outer(X), (X * 2 + 1) * 3)


def test_a_disabled_function_breaks_the_graph() -> None:
    @torch.compiler.disable
    def opaque(x: torch.Tensor) -> torch.Tensor:
        return x + len(str(x.shape))

    def fn(x: torch.Tensor) -> torch.Tensor:
        return opaque(x * 2) * 3

    same(compiled(fn)(X), fn(X))


def test_fullgraph_refuses_a_break() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        return x * 2

    with pytest.raises(torch._dynamo.exc.Unsupported):
        compiled(fn, fullgraph=True)(X)


def test_globals_and_attributes_that_change() -> None:
    host = Host()
    ours = compiled(host.method)
    same(ours(X), X * 3 + 1)
    host.factor = torch.tensor(4.0)
    same(ours(X), X * 4 + 1)
    host.factor.fill_(5.0)
    same(ours(X), X * 5 + 1)


def test_several_threads_compile_and_call() -> None:
    models = [nn.Sequential(nn.Linear(4, 4 + i), nn.ReLU(), nn.Linear(4 + i, 2)) for i in range(6)]
    ours = [torch.compile(m, backend="onnx", options={"strict": True}) for m in models]

    def call(index: int) -> torch.Tensor:
        with torch.no_grad():
            return ours[index % 6](X * index)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(call, range(48)))
    with torch.no_grad():
        for index, got in enumerate(results):
            torch.testing.assert_close(got, models[index % 6](X * index))


def test_one_function_first_called_in_several_threads() -> None:
    ours = compiled(lambda x: (x * 2 + 1).sum(0), dynamic=False)

    def call(rows: int) -> torch.Tensor:
        return ours(torch.ones(rows, 4))

    with ThreadPoolExecutor(4) as pool:
        for rows, got in zip(range(1, 5), pool.map(call, range(1, 5)), strict=True):
            same(got, torch.full((4,), rows * 3.0))
