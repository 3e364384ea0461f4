"""Contenders beside each other: what becomes of those that fail, and the rows of the others."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks import contest
from benchmarks.backends import Contender
from benchmarks.measure import Quartiles
from benchmarks.record import Row


def _contender(call) -> Contender:
    return Contender(call, lambda _: [], lambda: None)


def _fail() -> None:
    raise OSError("no\nmore")


def test_a_contender_that_fails_is_a_row_and_the_others_go_on():
    makers = {"onnx": lambda: _contender(_fail), "inductor": lambda: _contender(list)}
    ready, failed = contest.made_ready(makers)
    assert list(ready) == ["inductor"]
    assert failed == [Row("onnx", error="OSError: no")]


def test_a_case_in_which_eager_fails_fails():
    with pytest.raises(OSError, match="no"):
        contest.made_ready({"eager": lambda: _contender(_fail)})


def test_a_contender_that_compiles_in_a_call_of_its_own_is_primed_by_it():
    order = []
    contender = Contender(
        lambda: order.append("call"), lambda _: [], lambda: None, lambda: order.append("first")
    )
    contest.made_ready({"inductor": lambda: contender})
    assert order == ["first", "call"]


def test_rows_hold_the_times_and_their_ratios_by_round():
    times = {"eager": [10.0, 20.0, 10.0], "onnx": [5.0, 10.0, 5.0]}
    eager, onnx = contest.timed_rows(times, "call_us", facts={"onnx": {"regions": 1}})
    assert eager.values["ratio"] == Quartiles(1.0, 1.0, 1.0, 3)
    assert onnx.values["ratio"] == Quartiles(0.5, 0.5, 0.5, 3)
    assert onnx.median("call_us") == 5.0
    assert onnx.facts == {"regions": 1}
    (alone,) = contest.timed_rows({"onnx": [5.0]}, "call_us")
    assert set(alone.values) == {"call_us"}


def test_rows_are_in_the_order_of_the_names():
    rows = contest.in_order([Row("b"), Row("a")], ["a", "b"])
    assert [row.contender for row in rows] == ["a", "b"]


def test_an_error_that_is_no_number_is_raised():
    good, bad = torch.ones(2), torch.tensor([1.0, math.nan])
    assert contest.finite_error([good], [good]) == 0
    with pytest.raises(ValueError, match="nan"):
        contest.finite_error([bad], [good])
