"""How long things live: programs up to a number, sessions and weights as long as their model."""

from __future__ import annotations

import gc
import os
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dynamo_onnx
from dynamo_onnx.backend.state import state
from dynamo_onnx.runtime import opened
from dynamo_onnx.runtime.executable import Executable

X = torch.randn(3, 4)


def call(fn: Any) -> Tensor:
    with torch.no_grad():
        return fn(X)


def executables() -> list[Executable]:
    found = (region.executable() for graph in state.graphs for region in graph.regions)
    return [executable for executable in found if executable is not None]


def test_the_programs_that_were_not_used_for_longest_are_forgotten() -> None:
    kept: list[list[str]] = []
    for function in (torch.sin, torch.cos, lambda x: x.sin(), torch.tan):
        call(torch.compile(function, backend="onnx", options={"max_programs": 2}))
        kept.append(list(state.programs))
    first, second = kept[1]
    assert kept[2] == [second, first]  # used again
    assert kept[3][0] == first
    assert len(kept[3]) == 2
    assert (state.cache_hits, state.cache_misses) == (1, 3)
    torch.testing.assert_close(call(torch.compile(torch.cos, backend="onnx")), X.cos())
    assert (state.cache_hits, state.cache_misses) == (1, 4)


def test_a_function_outlives_the_place_of_its_program() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    ours = torch.compile(model, backend="onnx", options={"strict": True, "max_programs": 1})
    call(ours)
    (fingerprint,) = state.programs
    with torch.no_grad():
        other = torch.compile(torch.sin, backend="onnx", options={"max_programs": 1})
        other(X)
        assert fingerprint not in state.programs
        model[0].weight.mul_(2)  # a new session, of the program that is forgotten
        torch.testing.assert_close(ours(X), model(X))
    assert len(dynamo_onnx.programs(ours)) == 1


def test_records_of_functions_that_are_gone_are_forgotten_as_well() -> None:
    living = torch.compile(torch.cos, backend="onnx", options={"max_programs": 3})
    call(living)
    for factor in range(4):
        before = torch.compile(
            lambda x, f=float(factor): x * f - 1, backend="onnx", options={"max_programs": 3}
        )
        call(before)
        del before
        gc.collect()
    assert len(state.graphs) == 3
    assert dynamo_onnx.report(living).graphs == 1


def use(ours: Any, *, train: bool) -> None:
    if train:
        ours(torch.randn(3, 64)).sum().backward()
        return
    with torch.no_grad():
        ours(torch.randn(3, 64))


@pytest.mark.parametrize("forgotten", [False, True], ids=["", "after a reset"])
@pytest.mark.parametrize(
    "options",
    [{}, {"weights": "frozen"}, {"weights": "live"}, {"quantize": "int8"}, {"train": True}],
    ids=str,
)
def test_a_model_that_is_dropped_leaves_nothing(options: dict[str, Any], forgotten: bool) -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
    chosen = {name: value for name, value in options.items() if name != "train"}
    ours = torch.compile(model, backend="onnx", options={"strict": True, **chosen})
    use(ours, train="train" in options)
    made = executables()
    opened = [executable._opened for executable in made]
    assert all(opened)
    sessions = [weakref.ref(o.session) for o in opened if o is not None]
    weights = [weakref.ref(p) for p in model.parameters()]
    executable_references = [weakref.ref(executable) for executable in made]
    whole = weakref.ref(model)
    if forgotten:
        dynamo_onnx.reset()
        use(ours, train="train" in options)  # keeps working
    del model, ours, made, opened
    gc.collect()
    assert whole() is None
    assert not any(weight() for weight in weights)
    if "train" not in options and options.get("weights") != "live":
        assert not any(session() for session in sessions)
    # What Dynamo compiled for a class waits for the next model of it; so does a session over none.
    torch._dynamo.reset()
    gc.collect()
    assert not any(reference() for reference in (*sessions, *executable_references))


def test_a_session_that_ends_with_the_interpreter_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = object.__new__(opened.Opened)
    object.__setattr__(ended, "pid", os.getpid())
    monkeypatch.setattr(opened, "os", None)  # as modules are by then
    ended.__del__()
