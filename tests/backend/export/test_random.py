"""Operators that draw: a model has the distributions of torch, from ONNX's generators."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from dynamo_onnx import export

N = 20_000

# By name: a function that draws N numbers of x [N], the mean and the deviation that they have.
DRAWN: dict[str, tuple[Callable[[Tensor], Tensor], float, float]] = {
    "rand": (lambda x: torch.rand(N), 0.5, 12**-0.5),
    "rand_like": (torch.rand_like, 0.5, 12**-0.5),
    "randn": (lambda x: torch.randn(N), 0.0, 1.0),
    "randn_like": (torch.randn_like, 0.0, 1.0),
    "randint": (lambda x: torch.randint(3, 7, (N,)), 4.5, 1.25**0.5),
    "bernoulli": (lambda x: torch.bernoulli(torch.full((N,), 0.3)), 0.3, 0.21**0.5),
    "normal": (lambda x: torch.normal(x * 0 + 5, 2.0), 5.0, 2.0),
    "exponential": (lambda x: x.clone().exponential_(4.0), 0.25, 0.25),
    "uniform": (lambda x: x.clone().uniform_(2.0, 4.0), 3.0, 3**-0.5),
    "dropout": (lambda x: functional.dropout(torch.ones(N), 0.2), 1.0, 0.5),
    "randperm": (lambda x: torch.randperm(N) + 0 * x.long(), (N - 1) / 2, ((N**2 - 1) / 12) ** 0.5),
    "multinomial": (
        lambda x: torch.multinomial(torch.tensor([1.0, 3.0]), N, replacement=True),
        0.75,
        0.1875**0.5,
    ),
}


@pytest.mark.parametrize("name", DRAWN)
def test_the_numbers_have_torchs_distribution(name: str) -> None:
    function, mean, deviation = DRAWN[name]
    program = export(function, (torch.zeros(N),))
    (drawn,) = program(torch.zeros(N))
    (again,) = program(torch.zeros(N))
    assert not torch.equal(drawn, again)
    numbers = drawn.double()
    assert float(numbers.mean()) == pytest.approx(mean, abs=5 * deviation / N**0.5)
    assert float(numbers.std()) == pytest.approx(deviation, rel=0.05)


def test_two_draws_are_two() -> None:
    program = export(lambda x: (torch.rand(N), torch.rand(N)), (torch.zeros(1),))
    one, other = program(torch.zeros(1))
    assert not torch.equal(one, other)


def test_a_permutation_has_every_number_once() -> None:
    program = export(lambda x: torch.randperm(100) + x.long(), (torch.zeros(100),))
    assert program(torch.zeros(100))[0].sort().values.tolist() == list(range(100))


def test_samples_without_replacement_differ() -> None:
    def drawn(w: Tensor) -> Tensor:
        return torch.multinomial(w, 3)

    weights = torch.tensor([[1.0, 2.0, 0.0, 3.0], [0.0, 1.0, 1.0, 1.0]])
    for row, never in zip(export(drawn, (weights,))(weights)[0].tolist(), (2, 0), strict=True):
        assert len({*row}) == 3
        assert never not in row


def test_as_many_as_an_input_of_any_size_has() -> None:
    def drawn(x: Tensor) -> Tensor:
        return torch.randn_like(x)

    program = export(drawn, (torch.zeros(3, 4),), dynamic_shapes=({0: "n"},))
    assert program(torch.zeros(7, 4))[0].shape == (7, 4)


def test_dropout_keeps_and_scales() -> None:
    class Model(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return functional.dropout(x, 0.25, training=True)

    x = torch.rand(1000) + 1
    (found,) = export(Model(), (x,))(x)
    kept = found != 0
    torch.testing.assert_close(found[kept], x[kept] / 0.75)
    assert 650 < int(kept.sum()) < 850


@pytest.mark.parametrize("p", [0.5, 1.0])
def test_what_is_dropped_is_multiplied_by_zero_as_in_eager(p: float) -> None:
    def dropped(x: Tensor) -> Tensor:
        return functional.dropout(x, p, training=True)

    x = torch.full((64,), torch.inf)
    for found in (dropped(x), export(dropped, (x,))(x)[0]):
        assert found.isnan().any()
        assert not (found == 0).any()
