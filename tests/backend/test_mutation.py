"""In-place writes, to inputs, buffers, caches and views; results that share memory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import dynamo_onnx

Fn = Callable[..., Any]
X = torch.linspace(-2, 2, 12).reshape(3, 4)


def compiled(fn: Fn, *, strict: bool = True, **kwargs: Any) -> Fn:
    return torch.compile(fn, backend="onnx", options={"strict": strict}, **kwargs)


def same(ours: Any, eager: Any) -> None:
    """Equal, strides too; those of dims of size 1 mean nothing."""
    torch.testing.assert_close(ours, eager, equal_nan=True)
    for a, b in zip(*map(torch.utils._pytree.tree_leaves, (ours, eager)), strict=True):
        assert b is None or strides(a) == strides(b)


def strides(tensor: torch.Tensor) -> list[int]:
    return [s for s, n in zip(tensor.stride(), tensor.shape, strict=True) if n > 1]


def _write(x: torch.Tensor, write: Callable[[torch.Tensor], object]) -> torch.Tensor:
    write(x)
    return x * 2


def _set(x: torch.Tensor, index: Any, value: Any) -> None:
    x[index] = value


IN_PLACE: dict[str, Fn] = {
    "add_": lambda x: _write(x, lambda t: t.add_(1)),
    "a row": lambda x: _write(x, lambda t: _set(t, 1, 7.0)),
    "a slice with steps": lambda x: _write(x, lambda t: _set(t, (..., slice(0, 4, 2)), 7.0)),
    "a mask": lambda x: _write(x, lambda t: _set(t, t > 0, 7.0)),
    "an index tensor": lambda x: _write(x, lambda t: _set(t, torch.tensor([0, 2]), t[1] * 2)),
    "through a view": lambda x: _write(x, lambda t: t.t()[0].mul_(3)),
    "through a reshape": lambda x: _write(x, lambda t: t.reshape(-1)[2:5].fill_(3)),
    "through the diagonal": lambda x: _write(x, lambda t: t[:, :3].diagonal().fill_(9)),
    "twice": lambda x: _write(x, lambda t: t.add_(1).mul_(2)),
    "only written": lambda x: x.zero_(),
    "nothing returned": lambda x: _set(x, 0, 3.0),
    "a copy of itself": lambda x: _write(x, lambda t: t.copy_(t.flip(0))),
    "metadata": lambda x: (x.t_(), x + 1)[1],
    "unsqueeze_": lambda x: (x.unsqueeze_(0), x + 1)[1],
    "an intermediate and its view": lambda x: ((y := x * 2), (v := y[0]).add_(1), y + v)[2],
    "a clone": lambda x: (y := x.clone()).mul_(2) + x + y,
    "the input and a view of it returned": lambda x: (x.mul_(2), x[0], x.t()),
}


@pytest.mark.parametrize("name", IN_PLACE)
@pytest.mark.parametrize("dynamic", [False, True])
def test_writes_in_place(name: str, dynamic: bool) -> None:
    fn = IN_PLACE[name]
    ours = compiled(fn, dynamic=dynamic, strict=not dynamic)
    for make in (X.clone, X.t().contiguous().t, (X + 1).clone):
        a, b = make().clone(), make().clone()
        with torch.no_grad():
            same(ours(a), fn(b))
        same(a, b)


def test_a_view_of_a_larger_tensor_is_written_through() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return x.add_(1).sum(0)

    ours = compiled(fn)
    for index in [(slice(1, 3),), (slice(None), slice(0, 4, 2)), (slice(None), slice(1, 3))]:
        a, b = X.clone(), X.clone()
        same(ours(a[index]), fn(b[index]))
        same(a, b)


def test_two_views_of_one_tensor_as_arguments() -> None:
    def fn(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x.mul_(2)
        y.add_(1)
        return x + y

    ours = compiled(fn, strict=False)  # writes by as_strided_scatter: ONNX knows no strides
    a, b = X.clone(), X.clone()
    same(ours(a[:2], a[1:]), fn(b[:2], b[1:]))
    same(a, b)
    a, b = X.clone(), X.clone()
    same(ours(a, a), fn(b, b))
    same(a, b)


def test_batch_norm_in_train_mode_updates_its_statistics() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).train()
    twin = copy.deepcopy(model)
    ours = compiled(model)
    with torch.no_grad():
        for _ in range(4):
            x = torch.randn(2, 3, 8, 8)
            torch.testing.assert_close(ours(x), twin(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(dict(model.named_buffers()), dict(twin.named_buffers()))


def test_batch_norm_switches_between_train_and_eval() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    twin = copy.deepcopy(model)
    ours = compiled(model)
    with torch.no_grad():
        for train in (True, False, True, False):
            model.train(train)
            twin.train(train)
            x = torch.randn(6, 4)
            torch.testing.assert_close(ours(x), twin(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.state_dict(), twin.state_dict())


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("total", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        self.total.add_(x.sum(0))
        return x - self.total / self.count


def test_buffers_keep_what_is_written() -> None:
    model, twin = Counter(), Counter()
    ours = compiled(model)
    for _ in range(4):
        x = torch.randn(3, 4)
        same(ours(x), twin(x))
    same(model.state_dict(), twin.state_dict())


def test_a_buffer_that_is_replaced() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("last", torch.zeros(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x - self.last
            self.last = x.mean(0) * 2
            return y

    model, twin = Last(), Last()
    ours = compiled(model)
    for _ in range(3):
        x = torch.randn(3, 4)
        same(ours(x), twin(x))
    same(model.last, twin.last)


def _index_copy(cache: torch.Tensor, at: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    cache.index_copy_(1, at, new)
    return cache.sum(-1)


def _assign(cache: torch.Tensor, at: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    cache[:, at] = new
    return cache.sum(-1)


def _scatter(cache: torch.Tensor, at: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    cache.scatter_(1, at[None, :, None].expand_as(new), new)
    return cache.sum(-1)


@pytest.mark.parametrize("write", [_index_copy, _assign, _scatter])
def test_a_cache_is_filled_by_position(write: Fn) -> None:
    ours = compiled(write)
    a, b = torch.zeros(2, 8, 4), torch.zeros(2, 8, 4)
    start = a.data_ptr()
    for position in (0, 1, 2, 7):
        new, at = torch.randn(2, 1, 4), torch.tensor([position])
        same(ours(a, at, new), write(b, at, new))
        same(a, b)
    assert a.data_ptr() == start
    assert dynamo_onnx.report(ours).graphs == 1


def test_a_cache_is_filled_by_slices() -> None:
    def fn(cache: torch.Tensor, new: torch.Tensor, start: int) -> torch.Tensor:
        cache[:, start : start + new.shape[1]] = new
        return cache[:, : start + new.shape[1]].sum(1)

    ours = compiled(fn)
    a, b = torch.zeros(2, 16, 4), torch.zeros(2, 16, 4)
    for start, length in [(0, 3), (3, 1), (4, 1), (5, 2), (7, 4), (-6, 3), (-16, 2)]:
        new = torch.randn(2, length, 4)
        same(ours(a, new, start), fn(b, new, start))
        same(a, b)


def test_a_cache_that_grows_by_cat() -> None:
    def fn(cache: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        return torch.cat([cache, new], 1) * 1

    ours = compiled(fn)
    a = b = torch.zeros(2, 3, 4)
    for _ in range(5):
        new = torch.randn(2, 1, 4)
        a, b = ours(a, new), fn(b, new)
        same(a, b)
    assert dynamo_onnx.report(ours).graphs == 2


SHARING: dict[str, Fn] = {
    "the input": lambda x: (x, x + 1),
    "the input twice": lambda x: (x, x),
    "a view of the input": lambda x: (x[0], x.t(), x + 1),
    "one result twice": lambda x: ((y := x + 1), y),
    "a result and its view": lambda x: ((y := x + 1), y[0], y.t()),
    "equal results of their own": lambda x: (x + 1, x + 1),
    "a result and its clone": lambda x: ((y := x + 1), y.clone()),
    "equal constants of their own": lambda x: (torch.zeros(3), torch.zeros(3), x + 1),
    "the written input": lambda x: (x.add_(1), x),
    "a no-op reshape": lambda x: (x.reshape(3, 4), x.contiguous(), x.view(-1)),
    "a no-op slice": lambda x: (x[:], x[...], x.expand(3, 4)),
    "a no-op cast": lambda x: (x.float(), x.to(torch.float32), x + 0),
    "detach": lambda x: (x.detach(), (y := x * 2), y.detach()),
    "a multi-output view": lambda x: (*x.unbind(0), *(x * 2).split(2, 1)),
}


def sharing(*values: Any) -> list[list[int]]:
    flat, _ = torch.utils._pytree.tree_flatten(values)
    starts = [t.untyped_storage().data_ptr() for t in flat]
    return [[i for i, other in enumerate(starts) if other == start] for start in starts]


@pytest.mark.parametrize("name", SHARING)
def test_results_share_memory_as_in_eager(name: str) -> None:
    fn = SHARING[name]
    ours = compiled(fn)
    for _ in range(2):
        a, b = X.clone(), X.clone()
        got, expected = ours(a), fn(b)
        same(got, expected)
        assert sharing(a, got) == sharing(b, expected)
        for result in got:  # writing to one result reaches what eager's reaches
            result.mul_(2)
        for result in expected:
            result.mul_(2)
        same((a, got), (b, expected))
