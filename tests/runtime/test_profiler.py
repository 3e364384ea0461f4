"""What is read out of the files that onnxruntime's profiler writes."""

from __future__ import annotations

from typing import Any

from dynamo_onnx.runtime.profiler import session_profile


def kernel(name: str, ts: int, dur: int, op: str, tid: int = 1) -> dict[str, Any]:
    args = {"op_name": op, "provider": "CPUExecutionProvider"}
    return {"cat": "Node", "ph": "X", "name": name, "ts": ts, "dur": dur, "tid": tid, "args": args}


EVENTS: list[dict[str, Any]] = [
    {"cat": "Session", "ph": "X", "name": "model_run", "ts": 0, "dur": 100, "tid": 1, "args": {}},
    kernel("loop/Loop_1_kernel_time", 10, 60, "Loop"),
    kernel("loop/Add_2_kernel_time", 15, 20, "Add"),
    kernel("loop/Mul_3_kernel_time", 35, 10, "Mul"),
    kernel("fused addmm/Gemm_4_kernel_time", 70, 20, "FusedGemm"),
    kernel("other/Add_5_kernel_time", 12, 5, "Add", tid=2),
    {"cat": "Node", "ph": "X", "name": "x_fence_before", "ts": 1, "dur": 1, "tid": 1, "args": {}},
]


def test_a_node_with_bodies_is_not_charged_for_them() -> None:
    profile = session_profile(EVENTS, 1000.0, {"addmm": "model.py:3"})
    assert {(t.node, t.thread): t.own_us for t in profile.nodes} == {
        ("loop/Loop_1", 1): 30.0,
        ("loop/Add_2", 1): 20.0,
        ("loop/Mul_3", 1): 10.0,
        ("addmm/Gemm_4", 1): 20.0,
        ("other/Add_5", 2): 5.0,
    }
    assert sum(t.own_us for t in profile.nodes if t.thread == 1) == 80.0


def test_a_fused_node_has_the_line_of_the_one_that_it_was_made_of() -> None:
    profile = session_profile(EVENTS, 1000.0, {"addmm": "model.py:3"})
    (fused,) = [t for t in profile.nodes if t.op == "FusedGemm"]
    assert fused.location == "model.py:3"
    assert fused.start_us == 1070.0


def test_what_began_earlier_is_left_out() -> None:
    profile = session_profile(EVENTS, 1000.0, {}).since(1050.0)
    assert profile.runs == ()
    assert [t.op for t in profile.nodes] == ["FusedGemm"]
