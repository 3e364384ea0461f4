"""Sizes that change from call to call: recompiles, dynamic dims, sizes as values, unbacked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import dynamo_onnx

Fn = Callable[..., Any]


def compiled(fn: Fn, *, dynamic: bool | None = None, fullgraph: bool = False) -> Fn:
    return torch.compile(
        fn, backend="onnx", dynamic=dynamic, fullgraph=fullgraph, options={"strict": True}
    )


def same(ours: Any, eager: Any) -> None:
    torch.testing.assert_close(ours, eager, equal_nan=True, check_stride=True)


def graphs(fn: Fn) -> int:
    return dynamo_onnx.report(fn).graphs


def test_static_shapes_recompile_once_each() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return x * 2 + x.shape[0]

    ours = compiled(fn, dynamic=False)
    for n in (3, 4, 3, 5, 4):
        x = torch.randn(n, 2)
        same(ours(x), fn(x))
    assert graphs(ours) == 3


def test_the_second_size_makes_a_dim_dynamic() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return x.flatten() * x.shape[0] + 1

    ours = compiled(fn)
    for n in (3, 4, 5, 6, 7):
        x = torch.randn(n, 2)
        same(ours(x), fn(x))
    assert graphs(ours) == 2


def test_a_marked_dim_compiles_once() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x.flip(0)]).reshape(2, -1)

    ours = compiled(fn)
    for n in (3, 4, 9):
        x = torch.randn(n, 2)
        torch._dynamo.mark_dynamic(x, 0, min=2, max=64)
        same(ours(x), fn(x))
    assert graphs(ours) == 1


def test_sizes_0_and_1_are_specialised_under_automatic_dynamism() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return (x * 2 + 1).sum(0)

    ours = compiled(fn)
    for n in (3, 4, 1, 0, 1, 0, 5):
        x = torch.randn(n, 2)
        same(ours(x), fn(x))
    assert graphs(ours) == 4


def test_a_marked_unbacked_dim_holds_for_0_and_1_too() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return x * 2 + 1

    ours = compiled(fn, fullgraph=True)
    for n in (3, 1, 0, 5):
        x = torch.randn(n, 2)
        torch._dynamo.decorators.mark_unbacked(x, 0)
        same(ours(x), fn(x))
    assert graphs(ours) == 1


def test_two_inputs_of_one_dynamic_size() -> None:
    def fn(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x @ y + x.shape[0] - y.shape[1]

    ours = compiled(fn, dynamic=True)
    for a, b, c in [(2, 3, 4), (5, 6, 7), (4, 4, 4)]:
        x, y = torch.randn(a, b), torch.randn(b, c)
        same(ours(x, y), fn(x, y))


def test_an_int_argument_becomes_a_symbol() -> None:
    def fn(x: torch.Tensor, n: int) -> torch.Tensor:
        return x[:n] * n + torch.arange(n)[:, None]

    ours = compiled(fn)
    x = torch.randn(9, 2)
    for n in (3, 4, 5, 1, 0, 8):
        same(ours(x, n), fn(x, n))


def test_a_float_argument_that_changes() -> None:
    def fn(x: torch.Tensor, scale: float) -> torch.Tensor:
        return x * scale + 1

    ours = torch.compile(fn, backend="onnx")
    x = torch.randn(3)
    for scale in (0.5, 0.25, -1.5, 3.0, float("inf")):
        same(ours(x, scale), fn(x, scale))


def test_sizes_and_their_arithmetic_as_results() -> None:
    def fn(x: torch.Tensor) -> tuple[Any, ...]:
        a, b = x.shape
        return a, x + 1, a * b, b // 2, (a + b) % 3, max(a, b), x.numel(), b - a, x.stride(0)

    ours = compiled(fn, dynamic=True)
    for shape in [(3, 4), (5, 6), (7, 2)]:
        x = torch.randn(shape)
        same(ours(x), fn(x))


def test_only_sizes_as_results() -> None:
    ours = compiled(lambda x: x.shape[0] * 2, dynamic=True)
    for n in (3, 5):
        assert ours(torch.randn(n)) == n * 2


def test_branches_on_sizes_are_guards() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.shape[0] > 4 else x + 2

    ours = compiled(fn, dynamic=True)
    for n in (3, 6, 4, 9, 2):
        x = torch.randn(n)
        same(ours(x), fn(x))


SHAPED: dict[str, Fn] = {
    "reshape by products": lambda x: x.reshape(x.shape[0] * x.shape[1], -1) * 2,
    "halves": lambda x: x[: x.shape[0] // 2] + 1,
    "the end of a slice from behind": lambda x: x[1:-1, ::2] * 2,
    "arange of a size": lambda x: torch.arange(x.shape[0], dtype=x.dtype)[:, None, None] + x,
    "full of sizes": lambda x: torch.full((x.shape[1], x.shape[0]), x.shape[2]) + 1,
    "expand": lambda x: (x.sum(0) * 2).expand(x.shape[0], -1, -1),
    "pad up to a multiple": lambda x: torch.nn.functional.pad(x, (0, -x.shape[2] % 4)) + 1,
    "causal mask": lambda x: torch.ones(x.shape[0], x.shape[0], dtype=torch.bool).tril() & True,
    "chunk": lambda x: torch.cat([c * 2 for c in x.chunk(2, 1)], 1),
    "repeat": lambda x: (x + 1).repeat(2, 1, x.shape[0]),
    "mean over a dynamic dim": lambda x: x.mean(1) + x.var(0).mean(),
    "interpolate": lambda x: torch.nn.functional.interpolate(x, scale_factor=2.0) + 1,
    "roll and flip": lambda x: x.roll(1, 1).flip(0) * 2,
    "unfold": lambda x: x.unfold(1, 2, 1) * 2,
}


@pytest.mark.parametrize("name", SHAPED)
def test_shapes_computed_from_sizes(name: str) -> None:
    fn = SHAPED[name]
    ours = torch.compile(fn, backend="onnx", dynamic=True)
    for shape in [(4, 6, 5), (6, 4, 7), (2, 8, 3)]:
        x = torch.randn(shape)
        same(ours(x), fn(x))


UNBACKED: dict[str, Fn] = {
    "a mask": lambda x: x[x > 0] * 2 + 1,
    "nonzero": lambda x: x.nonzero() + 1,
    "nonzero and gather": lambda x: x[(x > 0).nonzero()[:, 0]] * 2,
    "the count": lambda x: (x > 0).nonzero().shape[0] + x,
    "masked_select": lambda x: x.masked_select(x > 0).sum() + 1,
    "a mask of rows": lambda x: (x[x[:, 0] > 0] * 2).sum(0),
    "unique": lambda x: x.sign().unique() * 2,
    "two masks": lambda x: torch.cat([x[x > 0], x[x <= 0]]) + 1,
    "as a result": lambda x: (x > 0).nonzero(),
    "matmul of picked rows": lambda x: x[x[:, 1] > 0] @ x.t(),
    "repeat_interleave": lambda x: x.repeat_interleave(torch.arange(x.shape[0]), 0) * 2,
}


@pytest.mark.parametrize("name", UNBACKED)
@pytest.mark.parametrize("dynamic", [None, True])
def test_unbacked_sizes(name: str, dynamic: bool | None) -> None:
    fn = UNBACKED[name]
    ours = torch.compile(fn, backend="onnx", dynamic=dynamic)
    x = torch.linspace(-2, 2, 12).reshape(4, 3)
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        for value in (x, -x, x.abs() + 1, -x.abs() - 1, x[1:3]):
            got, expected = ours(value), fn(value)
            # Eager's nonzero strides an empty result as no other operator does.
            torch.testing.assert_close(got, expected, check_stride=expected.numel() > 0)


def test_a_scalar_read_from_a_tensor_is_a_size() -> None:
    def fn(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        k = n.item()
        torch._check(k >= 0)
        torch._check(k <= x.shape[0])
        return x[:k] * 2 + torch.ones(k, 1)

    ours = torch.compile(fn, backend="onnx", fullgraph=True)
    x = torch.randn(5, 2)
    with torch._dynamo.config.patch(capture_scalar_outputs=True):
        for n in (3, 4, 5, 1, 0):
            same(ours(x, torch.tensor(n)), fn(x, torch.tensor(n)))


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: x * x.max().item() + 1,
        lambda x: (x / x.abs().sum().item()).exp() - x.min().item(),
        lambda x: torch.full((3,), x.mean().item()) + x.shape[0],
        lambda x: torch.full_like(x, (x[0] + 1).item() ** 2),
        lambda x: torch.where(x > x[0].item(), x, 2 * x[1].item()),
        lambda x: (x.long() * x.max().item()).cos(),
    ],
    ids=["product", "two", "full", "power", "where", "of integers"],
)
def test_a_float_read_from_a_tensor(fn: Fn) -> None:
    options = {"strict": True, "min_region": 1}
    ours = torch.compile(fn, backend="onnx", fullgraph=True, options=options)
    with torch._dynamo.config.patch(capture_scalar_outputs=True):
        for _ in range(3):
            x = torch.randn(5)
            same(ours(x), fn(x))


def test_a_float_that_onnx_has_as_an_attribute_is_named() -> None:
    ours = torch.compile(
        lambda x: torch.nn.functional.leaky_relu(x + 1, x[0].item()) * 2, backend="onnx"
    )
    with torch._dynamo.config.patch(capture_scalar_outputs=True):
        x = torch.rand(4)
        same(ours(x), torch.nn.functional.leaky_relu(x + 1, x[0].item()) * 2)
    (fallback,) = [f for f in dynamo_onnx.report(ours).fallbacks if "leaky_relu" in f.op]
    assert "negative_slope is a float computed at run time" in str(fallback.reason)


def test_without_capture_item_breaks_the_graph() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return x * 2 if (x * 3).sum().item() > 0 else x - 1

    ours = compiled(fn)
    for x in (torch.ones(3), -torch.ones(3)):
        same(ours(x), fn(x))


LAYOUTS: dict[str, tuple[Fn, torch.Size]] = {
    "a diagonal": (lambda x: x.diagonal().cos(), torch.Size([5, 5])),
    "rows apart": (
        lambda x: torch.empty_strided((x.shape[0], 2), (x.shape[0] + 3, 1)).copy_(x[:, :2]) + 0,
        torch.Size([6, 5]),
    ),
    "part of the rows": (lambda x: (x + 1)[::2, 1:3], torch.Size([6, 5])),
    "no elements": (lambda x: x * x[:, :1], torch.Size([0, 4, 3])),
    "no elements, permuted": (lambda x: x.transpose(0, 2) * 2, torch.Size([3, 0, 4])),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_strides_that_depend_on_sizes(name: str) -> None:
    fn, shape = LAYOUTS[name]
    ours = compiled(fn, dynamic=True)
    for more in (0, 1, 2):
        x = torch.randn([n + more if n else 0 for n in shape])
        got, wanted = ours(x), fn(x)
        torch.testing.assert_close(got, wanted, check_stride=x.numel() > 0)
    for program in dynamo_onnx.programs(ours):
        assert len(program.outputs) == len(program.onnx_program.model.graph.outputs) == 1


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: x[1:],
        lambda x: x.chunk(2),
        lambda x: (x.narrow(0, 1, 2) + 1, x.narrow(1, 1, 2)),
        lambda x: x.diagonal(),
        lambda x: x[None].expand(3, -1, -1),
        lambda x: torch.tensor_split(x, 2),
    ],
    ids=["slice", "chunk", "narrow", "diagonal", "expand", "tensor_split"],
)
def test_views_of_an_input_whose_strides_follow_from_no_size(fn: Fn) -> None:
    ours = compiled(fn, dynamic=True)
    for x in (torch.randn(6, 9)[:, :5], torch.randn(9, 6)[:5].t(), torch.randn(7, 13)[:, :4]):
        same(ours(x), fn(x))


def convolved(x: torch.Tensor, n: int) -> torch.Tensor:
    return torch.nn.functional.conv2d(x, torch.ones(2, 3, 3, 3), stride=n) + 1


def padded(x: torch.Tensor, n: int) -> torch.Tensor:
    return torch.nn.functional.pad(x, (n, 1, 1, n), mode="reflect") * 2


def pooled(x: torch.Tensor, n: int) -> torch.Tensor:
    return torch.nn.functional.max_pool2d(x, n, stride=1) - 1


@pytest.mark.parametrize("fn", [convolved, pooled])
def test_a_number_that_onnx_has_as_an_attribute_is_guarded_on(fn: Fn) -> None:
    ours = compiled(fn, dynamic=True)
    for size, n in ((12, 2), (12, 3), (11, 2), (9, 3)):
        x = torch.randn(2, 3, size, size)
        same(ours(x, n), fn(x, n))
    assert graphs(ours) == 2


def test_an_amount_to_pad_by_is_no_attribute() -> None:
    ours = compiled(padded, dynamic=True)
    for size, n in ((12, 2), (12, 3), (11, 2), (9, 3)):
        x = torch.randn(2, 3, size, size)
        same(ours(x, n), padded(x, n))
    assert graphs(ours) == 1


def test_a_matrix_too_large_for_a_loop_compiles_again_for_eager() -> None:
    def inverse(a: torch.Tensor) -> torch.Tensor:
        return torch.linalg.inv_ex(a * 2)[0] + 1

    compiled = torch.compile(inverse, backend="onnx", dynamic=True)
    small, large = torch.eye(4) + 0.1, torch.eye(40) + 0.1
    torch.testing.assert_close(compiled(small), inverse(small))
    assert not dynamo_onnx.report(compiled).fallbacks
    torch.testing.assert_close(compiled(large), inverse(large))
    assert {f.op for f in dynamo_onnx.report(compiled).fallbacks} >= {"aten.linalg_inv_ex.default"}
    torch.testing.assert_close(compiled(torch.eye(5)), inverse(torch.eye(5)))
    assert dynamo_onnx.report(compiled).graphs == 2


@pytest.mark.parametrize(
    "fn",
    [torch.linalg.lu_factor_ex, torch.linalg.inv_ex, torch.linalg.slogdet, torch.linalg.qr],
    ids=lambda f: f.__name__,
)
def test_factorizations_of_symbolic_sizes_are_native(fn: Callable[..., Any]) -> None:
    compiled = torch.compile(fn, backend="onnx", dynamic=True, options={"strict": True})
    for n in (3, 5):
        a = torch.randn(2, n, n, generator=torch.Generator().manual_seed(n))
        torch.testing.assert_close(tuple(compiled(a)), tuple(fn(a)), rtol=1e-3, atol=1e-3)
