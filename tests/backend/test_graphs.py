"""Graphs of every shape: empty ones, aliases, breaks, sizes, random numbers, dynamic dims."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import dynamo_onnx

Fn = Callable[..., Any]


def compiled(fn: Fn, **options: Any) -> Fn:
    return torch.compile(fn, backend="onnx", options={"strict": True, **options})


def same(ours: Any, eager: Any) -> None:
    torch.testing.assert_close(ours, eager, equal_nan=True, check_stride=True)


X = torch.linspace(-2, 2, 12).reshape(3, 4)

WHOLE: dict[str, tuple[Fn, tuple[Any, ...]]] = {
    "one operator": (lambda x: x + 1, (X,)),
    "the input itself": (lambda x: x, (X,)),
    "the same output twice": (lambda x: ((y := x + 1), y), (X,)),
    "an input and a result": (lambda x: (x, x * 2), (X,)),
    "a constant result": (lambda x: (torch.zeros(3), x + 1), (X,)),
    "None among the outputs": (lambda x: (None, x + 1, None), (X,)),
    "numbers among the outputs": (lambda x: (x + 1, 3, 2.5), (X,)),
    "a dict": (lambda d: {"sum": d["a"] + d["b"], "a": d["a"]}, ({"a": X, "b": X},)),
    "a view of a result": (lambda x: (x * 2).t(), (X,)),
    "a view of an input": (lambda x: x.t(), (X,)),
    "a result and its view": (lambda x: ((y := x * 2), y.view(-1)), (X,)),
    "an expanded result": (lambda x: (x[:1] * 2).expand(5, 4), (X,)),
    "an expanded and permuted result": (
        lambda x: (x[:, None] * 2).permute(2, 1, 0).expand(4, 5, 3),
        (X,),
    ),
    "a result with gaps in memory": (lambda x: (x * 2)[:, ::2], (X,)),
    "a permuted result": (lambda x: (x.reshape(3, 2, 2) * 2).permute(2, 0, 1), (X,)),
    "a zero-size input": (lambda x: x * 2 + 1, (torch.zeros(0, 4),)),
    "a 0-d input": (lambda x: x * 2 + 1, (torch.tensor(3.0),)),
    "a non-contiguous input": (lambda x: x * 2 + 1, (X.t(),)),
    "an overlapping input": (lambda x: x * 2 + 1, (X[:1].expand(6, 4),)),
    "a channels_last input": (
        lambda x: x * 2 + 1,
        (torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),),
    ),
    "bool and integer inputs": (lambda m, i: (i * 2, m), (X > 0, torch.arange(4))),
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_graphs(name: str) -> None:
    fn, args = WHOLE[name]
    with torch.no_grad():
        same(compiled(fn)(*args), fn(*args))


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: x.chunk(2),
        lambda x: x.chunk(2)[1].unsqueeze(0),
        lambda x: ((y := x * 2), y.chunk(2)[1]),
    ],
    ids=["of an input", "a view of a view of an input", "of another output"],
)
def test_a_view_with_an_offset_of_symbolic_size_is_where_eagers_is(fn: Fn) -> None:
    """AOTAutograd cannot replay such views: it reads size, strides and offset off our results."""
    x = torch.arange(20.0).reshape(5, 4)
    with torch.no_grad():
        same(torch.compile(fn, backend="onnx", dynamic=True)(x), fn(x))


def test_a_graph_without_tensors() -> None:
    assert compiled(lambda a, b: a + b)(2, 3) == 5


def test_a_graph_without_inputs() -> None:
    fn = compiled(lambda: torch.ones(3) + 1)
    assert torch.equal(fn(), torch.full((3,), 2.0))


def test_a_graph_without_outputs() -> None:
    def fn(x: torch.Tensor) -> None:
        x + 1

    assert compiled(fn)(X) is None


def test_a_graph_with_nothing_native() -> None:
    fn = torch.compile(lambda x: torch.rand_like(x), backend="onnx")
    assert fn(X).shape == X.shape
    assert dynamo_onnx.report(fn).native_ops == 0


def test_mutated_inputs_are_written_back() -> None:
    def fn(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x.add_(y)
        y[0] = 7
        return x * y

    ours, eager = [X.clone(), X.clone()], [X.clone(), X.clone()]
    same(compiled(fn)(*ours), fn(*eager))
    same(ours, eager)


def test_random_numbers_are_eagers_bit_for_bit() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        a = torch.rand_like(x) * 2 + x
        b = torch.nn.functional.dropout(a + 1, 0.5)
        return b * torch.randn(3, 4) + a

    ours = torch.compile(fn, backend="onnx")
    with torch.no_grad():
        torch.manual_seed(7)
        expected = [fn(X), torch.rand(2)]
        torch.manual_seed(7)
        same([ours(X), torch.rand(2)], expected)


def test_eager_draws_keep_their_order_across_regions() -> None:
    """The second draw needs no region, the first one does: by level alone they would swap."""

    def fn(x: torch.Tensor) -> torch.Tensor:
        first = torch.bernoulli(torch.sigmoid(x * 2 + 1))
        second = torch.rand(3, 4)
        return first * 3 + second * 5

    ours = torch.compile(fn, backend="onnx")
    with torch.no_grad():
        torch.manual_seed(3)
        expected = fn(X)
        torch.manual_seed(3)
        same(ours(X), expected)


def test_a_graph_break_gives_two_frames() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        y = x * 2 + 1
        torch._dynamo.graph_break()
        return y * 3 + x

    ours = compiled(fn)
    with torch.no_grad():
        same(ours(X), fn(X))
    report = dynamo_onnx.report(ours)
    assert report.graphs == 2
    (found,) = report.graph_breaks
    assert found.location == f"{__file__}:{fn.__code__.co_firstlineno + 2}"
    assert found.location in str(report)


def test_a_branch_on_a_value_is_reported_as_such() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        y = x * 2 + 1
        return y.sin() if y.sum() > 0 else y.cos()

    ours = compiled(fn)
    with torch.no_grad():
        same(ours(X), fn(X))
    (found,) = dynamo_onnx.report(ours).graph_breaks
    assert found.location == f"{__file__}:{fn.__code__.co_firstlineno + 2}"
    assert "a branch on the value of a tensor" in found.reason
    assert dynamo_onnx.report().graph_breaks == (found,)


def test_a_function_that_dynamo_leaves_whole_to_python_is_reported() -> None:
    ours = torch.compile(torch.nn.LSTM(4, 4), backend="onnx")
    with torch.no_grad():
        ours(X)
    assert "Dynamo captured no graph" in str(dynamo_onnx.report(ours))
    assert "LSTM" in dynamo_onnx.report().graph_breaks[0].reason


def test_eager_operators_between_regions() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        y = (x * 2 + 1) * x
        z = torch.sin(y) + 1
        return (z * y + x) * 2

    ours = torch.compile(fn, backend="onnx", options={"eager_ops": ["aten.sin"]})
    with torch.no_grad():
        same(ours(X), fn(X))
    report = dynamo_onnx.report(ours)
    assert (report.regions, report.eager_ops) == (2, 1)
    (fallback,) = report.fallbacks
    assert fallback.op == "aten.sin.default"
    assert fallback.location.startswith(__file__)
    assert fallback.reason.kind.value == "eager_ops"


def test_a_small_region_between_eager_operators_stays_eager_with_that_reason() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return torch.sin(torch.sin(x) * 2)

    ours = torch.compile(fn, backend="onnx", options={"eager_ops": ["sin"], "min_region": 2})
    with torch.no_grad():
        same(ours(X), fn(X))
    kinds = {f.op: f.reason.kind.value for f in dynamo_onnx.report(ours).fallbacks}
    assert kinds == {"aten.sin.default": "eager_ops", "aten.mul.Tensor": "region too small"}


def test_dynamic_dims_compile_once() -> None:
    def fn(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x + y).reshape(x.shape[0] * x.shape[1]) * x.shape[0]

    ours = torch.compile(fn, backend="onnx", dynamic=True, options={"strict": True})
    for shape in [(3, 4), (5, 6), (7, 2)]:
        x = torch.randn(shape)
        same(ours(x, x), fn(x, x))
    assert dynamo_onnx.report(ours).graphs == 1


def test_expanded_results_of_dynamic_size_keep_their_strides() -> None:
    ours = torch.compile(
        lambda x: (x * 2).sum(1, keepdim=True).expand(x.shape[0], x.shape[1] * 2),
        backend="onnx",
        dynamic=True,
        options={"strict": True},
    )
    for shape in [(3, 4), (5, 6)]:
        x = torch.randn(shape)
        same(ours(x), (x * 2).sum(1, keepdim=True).expand(shape[0], shape[1] * 2))


def test_sizes_as_outputs() -> None:
    def fn(x: torch.Tensor) -> tuple[torch.Tensor, int]:
        return x * 2 + 1, x.shape[0] * 3

    ours = torch.compile(fn, backend="onnx", dynamic=True, options={"strict": True})
    for n in (3, 5):
        x = torch.randn(n, 4)
        same(ours(x), fn(x))


def test_dynamic_sizes_between_regions_and_eager_operators() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        y = x.reshape(-1) * 2 + 1
        z = torch.sin(y).reshape(x.shape[1], x.shape[0])
        return z * x.shape[1] + z

    ours = torch.compile(fn, backend="onnx", dynamic=True, options={"eager_ops": ["sin"]})
    for shape in [(3, 4), (5, 6)]:
        x = torch.randn(shape)
        same(ours(x), fn(x))
    assert dynamo_onnx.report(ours).graphs == 1


def test_grad_mode_and_no_grad_on_one_module() -> None:
    model = nn.Linear(4, 2)
    ours = torch.compile(model, backend="onnx")
    x = torch.randn(3, 4)
    same(ours(x).detach(), model(x).detach())
    with torch.no_grad():
        same(ours(x), model(x))
    with torch.inference_mode():
        same(ours(x), model(x))
    assert dynamo_onnx.report(ours).native_ops > 0


def test_results_can_be_written_to_without_touching_later_results() -> None:
    ours = compiled(lambda x: x * 2)
    first = ours(X)
    kept = first.clone()
    second = ours(X + 1)
    first.zero_()
    same(second, (X + 1) * 2)
    same(ours(X), kept)


def test_equal_regions_share_a_program() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = torch.sin((x * 2 + 1) * 0.5)
        return x

    ours = torch.compile(fn, backend="onnx", options={"eager_ops": ["sin"]})
    with torch.no_grad():
        same(ours(X), fn(X))
    report = dynamo_onnx.report(ours)
    assert (report.regions, report.cache_misses, report.cache_hits) == (3, 1, 2)


def test_two_guard_sets_have_two_programs_under_their_names() -> None:
    ours = torch.compile(lambda x: x * 2 + 1, backend="onnx", dynamic=False)
    with torch.no_grad():
        ours(torch.randn(3))
        ours(torch.randn(4))
    programs = dynamo_onnx.programs(ours)
    assert len({p.guard_set for p in programs}) == 2
    assert len({p.frame for p in programs}) == 1
    assert all(any("size=[" in g for g in p.guards) for p in programs)


def test_module_compile_is_reported_too() -> None:
    class Double(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 + 1

    model = Double()
    model.compile(backend="onnx")
    model(torch.randn(2, 4))
    assert dynamo_onnx.report(model).native_ops == 2


def test_reset_forgets() -> None:
    ours = compiled(lambda x: x + 1)
    ours(X)
    dynamo_onnx.reset()
    assert dynamo_onnx.report().graphs == 0
    same(ours(X), X + 1)


def test_a_small_constant_lives_in_the_program() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return x * torch.tensor([1.0, 2.0, 3.0, 4.0]) + 1

    ours = compiled(fn)
    same(ours(X), fn(X))
    (program,) = dynamo_onnx.programs(ours)
    assert len(program.inputs) == 1


def test_a_large_constant_is_an_input() -> None:
    table = list(range(5000))

    def fn(x: torch.Tensor) -> torch.Tensor:
        return x * torch.tensor(table, dtype=torch.float32) + 1

    ours = compiled(fn)
    x = torch.randn(5000)
    same(ours(x), fn(x))
    assert len(dynamo_onnx.programs(ours)[0].inputs) == 2


def test_data_dependent_sizes() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        picked = x[x > 0]
        return picked * 2 + picked.shape[0]

    ours = torch.compile(fn, backend="onnx")
    with torch.no_grad(), torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        for x in (X, -X, X.abs() + 1, -X.abs() - 1):
            same(ours(x), fn(x))


def test_checks_of_sizes_known_at_run_time_are_not_eager_operators() -> None:
    ours = compiled(lambda x: x.nonzero())
    with torch.no_grad(), torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        same(ours(X), X.nonzero())
    assert dynamo_onnx.report(ours).native_ops == 1


def test_threads_may_share_a_compiled_function() -> None:
    from concurrent.futures import ThreadPoolExecutor

    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))
    ours = torch.compile(model, backend="onnx", options={"strict": True})
    inputs = [torch.randn(4, 64) for _ in range(64)]

    def call(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return ours(x)

    with torch.no_grad():
        ours(inputs[0])
        expected = [model(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        for got, want in zip(pool.map(call, inputs), expected, strict=True):
            torch.testing.assert_close(got, want)


def test_an_eager_result_of_another_dtype_than_its_metadata_says() -> None:
    """The session would read its memory as what the metadata says."""

    @torch.library.custom_op("dynamo_onnx_tests::halved", mutates_args=())
    def halved(x: torch.Tensor) -> torch.Tensor:
        return (x / 2).half()

    halved.register_fake(torch.empty_like)

    def fn(x: torch.Tensor) -> torch.Tensor:
        return (halved(x).half() * 2 + 1).relu()

    with torch.no_grad():
        same(torch.compile(fn, backend="onnx")(X), fn(X))


def test_the_running_statistics_of_a_batch_norm_in_half_precision() -> None:
    """torch's metadata says float32 for the new statistics, whose copies are rounded again."""

    def fn(x: torch.Tensor, mean: torch.Tensor, var: torch.Tensor) -> torch.Tensor:
        return nn.functional.batch_norm(x, mean, var, training=True)

    x = torch.randn(4, 3, 2).half()
    ours, eager = ([torch.zeros(3).half(), torch.ones(3).half()] for _ in range(2))
    with torch.no_grad():
        torch.testing.assert_close(compiled(fn)(x, *ours), fn(x, *eager), rtol=1e-3, atol=1e-3)
    same(ours, eager)


def test_a_program_has_a_later_opset_only_where_an_operator_needs_it() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return torch.signbit(x * 2) & (x < 1)

    def opsets(ours: Any) -> list[int]:
        return [p.program.model.opset_imports[""] for p in dynamo_onnx.programs(ours)]

    plain, later = compiled(lambda x: x * 2 + 1), compiled(fn)
    with torch.no_grad():
        plain(X)
        torch.testing.assert_close(later(X), fn(X))
    assert (opsets(plain), opsets(later)) == ([23], [26])
    held = torch.compile(fn, backend="onnx", options={"opset": 23})
    with torch.no_grad():
        torch.testing.assert_close(held(X), fn(X))
    (fallback,) = [f for f in dynamo_onnx.report(held).fallbacks if "signbit" in f.op]
    assert "BitCast needs opset 26" in fallback.reason.detail


@pytest.mark.parametrize("fails", [False, True])
def test_no_garbage_is_collected_while_a_graph_is_lowered(
    monkeypatch: pytest.MonkeyPatch, *, fails: bool
) -> None:
    import gc

    from dynamo_onnx.backend import compile as compiling

    seen = []
    real = compiling.lower_graph

    def lower_graph(*args: Any) -> Any:
        seen.append(gc.isenabled())
        if fails:
            raise dynamo_onnx.LoweringError("as wanted")
        return real(*args)

    monkeypatch.setattr(compiling, "lower_graph", lower_graph)
    ours = torch.compile(lambda x: x * 2 + 1, backend="onnx")
    if fails:
        with pytest.raises(dynamo_onnx.LoweringError):
            ours(torch.ones(2))
    else:
        same(ours(torch.ones(2)), torch.full((2,), 3.0))
    assert seen == [False]
    assert gc.isenabled()
