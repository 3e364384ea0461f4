"""Caches are written where they lie, when that is safe, and else come out right all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dynamo_onnx.backend.state import state

CACHE = torch.arange(2 * 3 * 16 * 4.0).reshape(2, 3, 16, 4)
ROWS = torch.randn(2, 3, 2, 4)
PLACES = torch.tensor([5, 9])


def index_copy(cache: Tensor, rows: Tensor, places: Tensor) -> Tensor:
    cache.index_copy_(2, places, rows)
    return cache.sum(-1)


def index_put(cache: Tensor, rows: Tensor, places: Tensor) -> Tensor:
    cache[:, :, places] = rows
    return cache.sum(-1)


def first_dim(cache: Tensor, rows: Tensor, places: Tensor) -> Tensor:
    cache[places // 9] = rows[0, 0, 0]
    return cache.sum(-1)


def scatter(cache: Tensor, rows: Tensor, places: Tensor) -> Tensor:
    cache.scatter_(2, places.view(1, 1, 2, 1).expand_as(rows), rows)
    return cache.sum(-1)


def nothing_returned(cache: Tensor, rows: Tensor, places: Tensor) -> None:
    cache[:, :, places] = rows


def the_cache_returned(cache: Tensor, rows: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    cache[:, :, places] = rows
    return cache, cache[0]


def read_before(cache: Tensor, rows: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    before = cache.sum(-1)
    cache[:, :, places] = rows
    return before, cache.sum(-1)


def rows_of_itself(cache: Tensor, rows: Tensor, places: Tensor) -> Tensor:
    cache[:, :, places] = cache[:, :, :2] + rows
    return cache.sum(-1)


def added(cache: Tensor, rows: Tensor, places: Tensor) -> Tensor:
    cache.index_add_(2, places, rows)
    return cache.sum(-1)


def written_twice(cache: Tensor, rows: Tensor, places: Tensor) -> Tensor:
    cache[:, :, places] = rows
    cache[:, :, places - 1] = rows * 2
    return cache.sum(-1)


def also_a_result(cache: Tensor, rows: Tensor, places: Tensor) -> Tensor:
    new = cache.index_copy(2, places, rows)
    cache.copy_(new)
    return new


def read_by_eager(cache: Tensor, rows: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    before = torch.special.zeta(cache.abs() + 2, 1.5)
    cache[:, :, places] = rows
    return before, cache.tanh().exp().sum(-1)


def beside_a_complex_one(cache: Tensor, rows: Tensor, places: Tensor) -> Tensor:
    cache[:, :, places] = rows
    return torch.complex(rows, rows + 1)


Fn = Callable[[Tensor, Tensor, Tensor], Any]
IN_PLACE: list[Fn] = [index_copy, index_put, first_dim, scatter, nothing_returned]
IN_PLACE += [the_cache_returned, beside_a_complex_one]
COPIED: list[Fn] = [read_before, rows_of_itself, added, written_twice, also_a_result, read_by_eager]


def overwritten() -> int:
    """How many outputs of the last program are written onto an input."""
    executables = [region.executable() for graph in state.graphs for region in graph.regions]
    opened = [each._opened for each in executables if each is not None and each._opened is not None]
    places = [one.launch.targets.places for one in opened if one.launch.targets is not None]
    return sum(place is not None for each in places for place in each)


def check(fn: Fn, make_cache: Callable[[], Tensor], **options: Any) -> None:
    compiled = torch.compile(fn, backend="onnx", **options)
    ours, eager = make_cache(), make_cache()
    for step in range(3):
        rows, places = ROWS + step, PLACES + step
        version = ours._version
        got, wanted = compiled(ours, rows, places), fn(eager, rows, places)
        torch.testing.assert_close(got, wanted)
        torch.testing.assert_close(ours, eager)
        assert ours._version > version


@pytest.mark.parametrize("fn", IN_PLACE, ids=lambda f: f.__name__)
def test_rows_are_written_into_the_cache(fn: Fn) -> None:
    check(fn, CACHE.clone, options={"strict": True})
    assert overwritten() == 1


@pytest.mark.parametrize("fn", COPIED, ids=lambda f: f.__name__)
def test_what_is_not_safe_is_copied(fn: Fn) -> None:
    check(fn, CACHE.clone, options={"eager_ops": ["aten.special_zeta"]})
    assert overwritten() == 0


@pytest.mark.parametrize("fn", [index_copy, index_put], ids=lambda f: f.__name__)
def test_with_symbolic_sizes(fn: Fn) -> None:
    check(fn, CACHE.clone, dynamic=True, options={"strict": True})
    assert overwritten() == 1


def test_a_cache_that_is_not_contiguous() -> None:
    check(index_put, lambda: torch.empty(3, 2, 16, 4).transpose(0, 1).copy_(CACHE))
    assert overwritten() == 0


def test_a_part_of_a_larger_cache() -> None:
    whole = torch.zeros(3, 2, 3, 16, 4)
    compiled = torch.compile(index_put, backend="onnx", options={"strict": True})
    torch.testing.assert_close(compiled(whole[1], ROWS, PLACES), index_put(CACHE * 0, ROWS, PLACES))
    torch.testing.assert_close(whole[1][:, :, PLACES], ROWS)
    assert not whole[0].any()
    assert not whole[2].any()
    assert overwritten() == 1


def test_one_cache_given_twice() -> None:
    def fn(a: Tensor, b: Tensor, rows: Tensor) -> Tensor:
        a[:, :, PLACES] = rows
        return b.sum(-1)

    compiled = torch.compile(fn, backend="onnx", options={"strict": True})
    ours, eager = CACHE.clone(), CACHE.clone()
    torch.testing.assert_close(compiled(ours, ours, ROWS), fn(eager, eager, ROWS))
    torch.testing.assert_close(ours, eager)


def test_a_view_of_the_cache_beside_it() -> None:
    def fn(a: Tensor, b: Tensor, rows: Tensor) -> Tensor:
        before = b.sum(-1)
        a[:, :, PLACES] = rows
        return before + b.sum(-1)

    compiled = torch.compile(fn, backend="onnx")
    ours, eager = CACHE.clone(), CACHE.clone()
    torch.testing.assert_close(compiled(ours, ours[1], ROWS), fn(eager, eager[1], ROWS))
    torch.testing.assert_close(ours, eager)


def test_an_index_out_of_range_raises() -> None:
    compiled = torch.compile(index_copy, backend="onnx")
    ours = CACHE.clone()
    compiled(ours, ROWS, PLACES)
    with pytest.raises(IndexError):
        compiled(ours, ROWS, PLACES + 10)


def test_a_default_device_does_not_move_the_results() -> None:
    compiled = torch.compile(index_copy, backend="onnx", options={"strict": True})
    ours = CACHE.clone()
    with torch.device("meta"):
        result = compiled(ours, ROWS, PLACES)
    torch.testing.assert_close(result, index_copy(CACHE.clone(), ROWS, PLACES))
