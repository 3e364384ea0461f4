"""Where the time of calls goes, by both profilers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import dynamo_onnx
from dynamo_onnx.backend.profiling import EagerPlace, merged
from dynamo_onnx.runtime.errors import OptionError
from dynamo_onnx.runtime.profiler import SessionProfile, Timed


class Model(torch.nn.Module):
    """Two regions with a draw between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Linear(8, 16), torch.nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.bernoulli(torch.sigmoid(self.first(x)))
        return self.last(x).relu()


@pytest.fixture
def model() -> torch.nn.Module:
    return Model().eval()


@torch.no_grad()
def test_every_run_and_every_eager_operator_is_counted(model: torch.nn.Module) -> None:
    compiled = torch.compile(model, backend="onnx")
    report = dynamo_onnx.profile(compiled, torch.randn(2, 8), calls=4)
    profile = report.profile
    assert profile is not None
    assert profile.runs == 2 * 4
    (drawn,) = [op for op in profile.ops if op.engine == "eager"]
    assert (drawn.op, drawn.count) == ("aten.bernoulli.default", 4)
    assert drawn.location == report.fallbacks[0].location
    assert profile.eager_times() == {(drawn.op, drawn.location): drawn.total_ms}
    onnx = [op for op in profile.ops if op.engine == "onnx"]
    assert {op.count for op in onnx} == {4}
    assert {op.provider for op in onnx} == {"CPUExecutionProvider"}
    assert any(op.location.startswith(__file__) for op in onnx)
    inside_ms = sum(op.total_ms for op in onnx)
    assert 0 < inside_ms <= profile.onnx_ms < profile.wall_ms
    assert profile.onnx_ms + profile.eager_ms + profile.other_ms == pytest.approx(profile.wall_ms)


@torch.no_grad()
def test_afterwards_calls_have_their_own_sessions_again(model: torch.nn.Module) -> None:
    compiled = torch.compile(model, backend="onnx")
    x = torch.randn(2, 8)
    compiled(x)
    before = dynamo_onnx.report(compiled)
    executables = [r.executable() for r in before.records[0].regions]
    opened = [e._opened for e in executables if e is not None]
    code = before.records[0].stitched().steps.code
    with dynamo_onnx.profiling(compiled):
        compiled(x)
        assert [e._opened for e in executables if e is not None] != opened
    assert [e._opened for e in executables if e is not None] == opened
    assert before.records[0].stitched().steps.code == code
    compiled(x)
    after = dynamo_onnx.report(compiled)
    assert after.sessions == before.sessions == 2
    assert after.calls == before.calls + 4


@torch.no_grad()
def test_profiled_calls_return_what_others_do(model: torch.nn.Module) -> None:
    compiled = torch.compile(model, backend="onnx")
    x = torch.randn(2, 8)
    torch.manual_seed(1)
    wanted = compiled(x)
    with dynamo_onnx.profiling(compiled):
        torch.manual_seed(1)
        torch.testing.assert_close(compiled(x), wanted, rtol=0, atol=0)


@torch.no_grad()
def test_weights_that_change_within_the_block_are_seen_in_it_and_behind_it() -> None:
    layer = torch.nn.Linear(4, 4).eval()
    compiled = torch.compile(layer, backend="onnx")
    x = torch.randn(2, 4)
    compiled(x)
    with dynamo_onnx.profiling(compiled) as measured:
        compiled(x)
        layer.weight.mul_(2)
        torch.testing.assert_close(compiled(x), layer(x))
    assert measured.profile.runs == 2
    torch.testing.assert_close(compiled(x), layer(x))


@torch.no_grad()
def test_an_error_within_the_block_leaves_everything_as_it_was(model: torch.nn.Module) -> None:
    compiled = torch.compile(model, backend="onnx")
    compiled(torch.randn(2, 8))
    setups = [r.executable().setup for g in dynamo_onnx.report(compiled).records for r in g.regions]
    with pytest.raises(KeyError), dynamo_onnx.profiling(compiled):
        raise KeyError
    graphs = dynamo_onnx.report(compiled).records
    assert [r.executable().setup for g in graphs for r in g.regions] == setups
    compiled(torch.randn(2, 8))


def test_training_is_measured_forward_and_backward() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh())
    compiled = torch.compile(module, backend="onnx")
    x = torch.randn(2, 4)
    compiled(x).sum().backward()
    with dynamo_onnx.profiling(compiled) as measured:
        compiled(x).sum().backward()
    assert measured.profile.runs == 2
    assert measured.report().profile is measured.profile


@torch.no_grad()
def test_the_trace_has_both_on_one_time_line(model: torch.nn.Module, tmp_path: Path) -> None:
    compiled = torch.compile(model, backend="onnx")
    report = dynamo_onnx.profile(compiled, torch.randn(2, 8), calls=2)
    assert report.profile is not None
    path = report.profile.export_chrome_trace(tmp_path / "trace.json")
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    spans = [e for e in events if e.get("ph") == "X"]
    runs = sorted(
        (e for e in spans if e["cat"] == "onnxruntime" and e["name"] == "run"),
        key=lambda e: e["ts"],
    )
    eager = sorted((e for e in spans if e["name"] == "eager aten.bernoulli.default"),
                   key=lambda e: e["ts"])  # fmt: skip
    assert len(runs) == 4
    assert len(eager) == 2
    # A call is a run, the draw, a run: whichever profiler noted it. Clocks may differ by some µs.
    order = sorted([*runs, *eager], key=lambda e: e["ts"])
    assert [e["name"].split()[0] for e in order] == ["run", "eager", "run"] * 2
    assert all(e["args"]["line"].startswith(__file__) for e in eager)
    nodes = [e for e in spans if e["cat"] == "onnxruntime" and e["name"] != "run"]
    assert all(any(_within(node, run) for run in runs) for node in nodes)
    assert any(e["name"] == "aten::bernoulli" for e in spans)


def _within(inner: dict[str, float], outer: dict[str, float]) -> bool:
    slack_us = 2  # onnxruntime counts whole microseconds
    begins = inner["ts"] >= outer["ts"] - slack_us
    return begins and inner["ts"] + inner["dur"] <= outer["ts"] + outer["dur"] + slack_us


def test_two_profiles_become_one() -> None:
    span = {"ph": "X", "ts": 5}
    events = {
        "baseTimeNanoseconds": 1_000_000,
        "traceEvents": [
            {**span, "cat": "user_annotation", "name": "dynamo_onnx eager 0", "dur": 3000},
            {**span, "cat": "cpu_op", "name": "aten::sort", "dur": 2900},
        ],
    }  # fmt: skip
    node = Timed("Gemm", "addmm/Gemm", "CPU", "f.py:1", 1100.0, 2000.0, 2000.0, 7)
    session = SessionProfile(((1090.0, 4000.0),), (node, node))
    profile = merged(events, [EagerPlace("aten.sort.default", "f.py:2")], [session], 10.0)
    assert [(o.op, o.engine, o.count, o.total_ms) for o in profile.ops] == [
        ("Gemm", "onnx", 2, 4.0),
        ("aten.sort.default", "eager", 1, 3.0),
    ]
    assert (profile.onnx_ms, profile.eager_ms, profile.other_ms) == (4.0, 3.0, 3.0)
    drawn = json.loads(profile.trace)["traceEvents"]
    assert drawn[0]["name"] == "eager aten.sort.default"
    assert drawn[1]["name"] == "aten::sort"
    assert {e["ts"] for e in drawn if e.get("name") == "run"} == {90.0}


def test_what_makes_no_sense_is_an_error() -> None:
    compiled = torch.compile(torch.nn.Tanh(), backend="onnx")
    with pytest.raises(OptionError, match="calls=0"):
        dynamo_onnx.profile(compiled, torch.ones(1), calls=0)
    with pytest.raises(OptionError, match=r"not made by torch\.compile"):
        dynamo_onnx.profile(torch.nn.Tanh(), torch.ones(1))
    with (
        dynamo_onnx.profiling(compiled) as measured,
        pytest.raises(OptionError, match="has ended"),
    ):
        _ = measured.profile
