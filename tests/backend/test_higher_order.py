"""Operators that take functions: control flow, checkpoint, nested regions. And custom operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._higher_order_ops.map import map as torch_map
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch.utils.checkpoint import checkpoint

import dynamo_onnx

Fn = Callable[..., Any]
X = torch.linspace(-2, 2, 12).reshape(3, 4)


def same(ours: Any, eager: Any) -> None:
    torch.testing.assert_close(ours, eager, equal_nan=True, check_stride=True)


def onnx(fn: Fn, *, strict: bool = False, **kwargs: Any) -> Fn:
    options = {"strict": strict}
    return torch.compile(fn, backend="onnx", fullgraph=True, options=options, **kwargs)


def in_eager(fn: Fn) -> set[str]:
    return {f.op for f in dynamo_onnx.report(fn).fallbacks if "region" not in f.reason.kind.value}


def cond(x: torch.Tensor) -> torch.Tensor:
    y = x * 2 + 1
    return torch.cond(y.sum() > 0, lambda t: t.sin() + y, lambda t: t.cos() - 1, (y,)) * 3


def cond_of_several(x: torch.Tensor) -> Any:
    a, b = torch.cond(x[0, 0] > 0, lambda t: (t + 1, t.sum(0)), lambda t: (t * 2, t[1] + 0), (x,))
    return a * b + 1, b


def nested_cond(x: torch.Tensor) -> torch.Tensor:
    def positive(t: torch.Tensor) -> torch.Tensor:
        return torch.cond(t.max() > 1, lambda u: u * 2, lambda u: u * 3, (t,))

    return torch.cond(x[0].sum() > 0, positive, lambda t: t - 1, (x,)) + x


def loop(x: torch.Tensor) -> Any:
    def more(i: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return (i < 3) & (t.abs().sum() < 1e3)

    def body(i: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return i + 1, t * 2 + 1

    count, y = while_loop(more, body, (torch.zeros((), dtype=torch.int64), x * 1.5))
    return count, y + 1


def scanned(x: torch.Tensor) -> Any:
    def combine(carry: torch.Tensor, row: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        after = carry * 0.5 + row
        return after, after * 2

    last, rows = scan(combine, torch.zeros(4) + x[0] * 0, x * 2)
    return last + 1, rows


def mapped(x: torch.Tensor) -> torch.Tensor:
    return torch_map(lambda row, y: row.softmax(0) + y, x * 2, x[0]) * 2


def cond_on_a_size(x: torch.Tensor) -> torch.Tensor:
    return torch.cond(x.shape[0] > 3, lambda t: t.sum(0) * 2, lambda t: t[0] - 1, (x,)) + 1


def cond_of_what_is_outside(x: torch.Tensor) -> Any:
    y, n = x.exp(), x.shape[0]
    return torch.cond(x.sum() > 0, lambda t: (t * n, y + 0), lambda t: (t.exp(), t - y), (x,))


def cond_that_returns_its_operand(x: torch.Tensor) -> Any:
    y = x + 1
    return torch.cond(x.sum() > 0, lambda t: (t.clone(), t * 2), lambda t: (t * 2, t.clone()), (y,))


def loop_with_weights_outside(x: torch.Tensor) -> Any:
    w = x.sum(0, keepdim=True)

    def body(i: torch.Tensor, t: torch.Tensor, u: torch.Tensor) -> Any:
        return i - 1, t * 0.5 + w, u + t.sum(1)

    start = torch.full((1,), 4, dtype=torch.int32), x, x.sum(1)
    return while_loop(lambda i, *_: (i > 0).all(), body, start)


def loop_that_does_not_start(x: torch.Tensor) -> Any:
    return while_loop(lambda t: t.sum() > 1e6, lambda t: (t * 2,), (x + 1,))


def loop_in_cond(x: torch.Tensor) -> Any:
    def grow(t: torch.Tensor) -> torch.Tensor:
        return while_loop(lambda u: u.sum() < 100, lambda u: (u * 2 + 1,), (t,))[0]

    return torch.cond(x.sum() > 0, grow, lambda t: t - 1, (x,))


def scanned_backwards_in_16_bits(x: torch.Tensor) -> Any:
    def combine(carry: Any, rows: Any) -> Any:
        return {"s": carry["s"] + rows[0] * rows[1]}, carry["s"] * 2

    xs = (x.bfloat16(), x.bfloat16() + 1)
    return scan(combine, {"s": torch.zeros(4, dtype=torch.bfloat16)}, xs, reverse=True)


def scanned_along_columns(x: torch.Tensor) -> Any:
    def combine(carry: torch.Tensor, column: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.maximum(carry, column), carry.argmax()

    return scan(combine, x[:, 0] - 1, x, dim=1)


CONTROL: dict[str, tuple[Fn, str]] = {
    "cond": (cond, "If"),
    "cond with several results": (cond_of_several, "If"),
    "cond in cond": (nested_cond, "If"),
    "cond on a size": (cond_on_a_size, ""),
    "cond of what is outside": (cond_of_what_is_outside, "If"),
    "cond that returns its operand": (cond_that_returns_its_operand, "If"),
    "while_loop": (loop, "Loop"),
    "while_loop with weights": (loop_with_weights_outside, "Loop"),
    "while_loop that does not start": (loop_that_does_not_start, "Loop"),
    "while_loop in cond": (loop_in_cond, "If"),
    "scan": (scanned, "Scan"),
    "scan in 16 bits": (scanned_backwards_in_16_bits, "Scan"),
    "scan along columns": (scanned_along_columns, "Scan"),
    "map": (mapped, "Scan"),
}


@pytest.mark.parametrize("name", CONTROL)
@pytest.mark.parametrize("dynamic", [False, True])
def test_control_flow_is_native(name: str, dynamic: bool) -> None:
    fn, operator = CONTROL[name]
    ours = onnx(fn, dynamic=dynamic, strict=True)
    with torch.no_grad():
        for x in (X + 0.2, -X - 0.2, X + 5, X - 5, *((torch.cat([X, X + 1]),) * dynamic)):
            same(ours(x), fn(x))
    operators = {n.op_type for p in dynamo_onnx.programs(ours) for n in p.program.model.graph}
    assert operator in {*operators, ""}


def test_control_flow_over_what_has_no_lowering_says_which_operator() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, torch.linalg.svdvals, lambda t: t[:, 0] + 1, (x,)) + 1

    ours = onnx(fn)
    for x in (X - 0.2, X + 1):
        same(ours(x), fn(x))
    (fallback,) = [f for f in dynamo_onnx.report(ours).fallbacks if f.op == "cond"]
    assert "it takes a graph with aten." in fallback.reason.detail
    assert "test_higher_order.py" in fallback.location


def test_control_flow_with_weights() -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (
                torch.cond(x.sum() > 0, lambda t: self.a(t), lambda t: self.b(t).relu(), (x,)) + 1
            )

    model = Gate()
    ours = onnx(model)
    with torch.no_grad():
        for x in (X, X + 1, X - 1):
            torch.testing.assert_close(ours(x), model(x))
        model.a.weight.mul_(2)
        torch.testing.assert_close(ours(X + 1), model(X + 1))


def test_checkpoint_without_gradients_is_native() -> None:
    layer = nn.Linear(4, 4)

    def fn(x: torch.Tensor) -> torch.Tensor:
        return checkpoint(lambda t: layer(t).relu(), x, use_reentrant=False) * 2

    ours = torch.compile(fn, backend="onnx")
    with torch.no_grad():
        torch.testing.assert_close(ours(X), fn(X))
    assert dynamo_onnx.report(ours).native_ops > 0


def test_checkpoint_with_gradients() -> None:
    layer = nn.Linear(4, 4)

    def fn(x: torch.Tensor) -> torch.Tensor:
        return checkpoint(lambda t: layer(t).relu(), x, use_reentrant=False) * 2

    def gradients(run: Fn) -> Any:
        layer.zero_grad()
        x = X.clone().requires_grad_()
        run(x).sum().backward()
        return x.grad, layer.weight.grad.clone()

    torch.testing.assert_close(gradients(torch.compile(fn, backend="onnx")), gradients(fn))


def test_nested_compile_region() -> None:
    @torch.compiler.nested_compile_region
    def block(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch.relu(x @ w) + x

    def fn(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = block(x, w)
        return x * 2

    w = torch.randn(4, 4)
    ours = torch.compile(fn, backend="onnx", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(ours(X, w), fn(X, w))


@torch.library.custom_op("dynamo_onnx_programs::shift", mutates_args=())
def shift(x: torch.Tensor, by: int) -> torch.Tensor:
    return x.roll(by, 0)


shift.register_fake(lambda x, by: torch.empty_like(x))


@torch.library.custom_op("dynamo_onnx_programs::store", mutates_args=("cache",))
def store(cache: torch.Tensor, value: torch.Tensor, at: int) -> None:
    cache[at].copy_(value)


store.register_fake(lambda cache, value, at: None)


@torch.library.custom_op("dynamo_onnx_programs::positive", mutates_args=())
def positive(x: torch.Tensor) -> torch.Tensor:
    return x[x > 0].clone()


@positive.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return x.new_empty(torch.library.get_ctx().new_dynamic_size())


def test_a_custom_operator_without_a_rule_runs_in_eager() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return shift(x * 2 + 1, 1) * 3 - x

    ours = onnx(fn)
    with torch.no_grad():
        same(ours(X), fn(X))
    assert in_eager(ours) == {"dynamo_onnx_programs.shift.default"}


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_custom_operator_that_writes_to_its_argument(dynamic: bool) -> None:
    def fn(cache: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        store(cache, x.sum(0) * 2, 1)
        y = cache * 2
        store(cache, y[1] + 1, 0)
        return cache.sum() + y

    ours = onnx(fn, dynamic=dynamic)
    a, b = torch.zeros(2, 4), torch.zeros(2, 4)
    for x in (X, X + 1):
        same(ours(a, x), fn(b, x))
        same(a, b)


def test_a_custom_operator_of_unbacked_size() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        y = positive(x * 2)
        return y * 2 + y.shape[0]

    ours = onnx(fn)
    for x in (X, -X, X.abs() + 1, -X.abs() - 1):
        same(ours(x), fn(x))
