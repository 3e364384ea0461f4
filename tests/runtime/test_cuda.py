"""What is decided about CUDA without a device: streams, options, which runs are captured."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from dynamo_onnx.runtime import cuda_graphs
from dynamo_onnx.runtime.cuda import SessionStream, may_round_to_tf32, with_cuda_options
from dynamo_onnx.runtime.cuda_graphs import CudaGraphs, why_not_captured
from dynamo_onnx.runtime.in_place import Targets
from dynamo_onnx.runtime.launch import Launch
from dynamo_onnx.runtime.program import OutputLayout, Program, TensorSpec
from dynamo_onnx.runtime.session import open_session, run_options, session_options
from dynamo_onnx.runtime.tensors import Feeder

CPU, GPU = torch.device("cpu"), torch.device("cuda", 1)


@dataclass(eq=False)
class Stream:
    """A stream that notes for whom it waits."""

    name: str
    cuda_stream: int
    log: list[str]

    def wait_stream(self, other: Stream) -> None:
        self.log.append(f"{self.name} waits for {other.name}")


@dataclass
class Cuda:
    """`torch.cuda` as far as sessions use it."""

    log: list[str] = field(default_factory=list)
    made: int = 0

    def __post_init__(self) -> None:
        self.current = Stream("default", 0, self.log)

    def current_stream(self, device: torch.device) -> Stream:
        assert device == GPU
        return self.current

    def Stream(self, device: torch.device) -> Stream:
        assert device == GPU
        self.made += 1
        return Stream(f"own {self.made}", 100 + self.made, self.log)

    @contextlib.contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        self.log.append(f"on {device}")
        yield
        self.log.append(f"off {device}")

    @contextlib.contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before


# --------------------------------------------------------------------------------- streams
def test_a_session_never_gets_stream_0_and_waits_both_ways() -> None:
    cuda = Cuda()
    stream = SessionStream(GPU, cuda)
    assert stream.handle == 101
    with stream.ordered():
        cuda.log.append("run")
    assert cuda.log == [
        "on cuda:1", "own 1 waits for default", "run", "default waits for own 1", "off cuda:1",
    ]  # fmt: skip


def test_a_run_that_fails_is_waited_for_as_well() -> None:
    cuda = Cuda()
    stream = SessionStream(GPU, cuda)
    with pytest.raises(ValueError, match="in the run"), stream.ordered():
        raise ValueError("in the run")
    assert "default waits for own 1" in cuda.log
    with stream.ordered():  # and it is not locked
        pass


def test_a_session_computes_on_the_users_stream_and_waits_for_another_one() -> None:
    cuda = Cuda()
    user = Stream("user", 7, cuda.log)
    with cuda.stream(user):
        stream = SessionStream(GPU, cuda)
        with stream.ordered():
            pass
    assert (stream.handle, cuda.made) == (7, 0)
    assert cuda.log == ["on cuda:1", "off cuda:1"]
    with stream.ordered():
        pass
    assert cuda.log[3:5] == ["user waits for default", "default waits for user"]


# --------------------------------------------------------------------------------- options
def chosen(*providers: Any, **settings: Any) -> list[dict[str, Any]]:
    defaults = {"tf32": False, "graphs": False, "exhaustive": False, "cache_dir": None}
    given = with_cuda_options(providers, stream=7, **{**defaults, **settings})
    assert [name for name, _ in given] == [name for name, _ in providers]
    return [own for _, own in given]


def test_cuda_is_given_the_stream_and_what_the_mode_asks_for() -> None:
    (plain,) = chosen(("CUDAExecutionProvider", {"device_id": 1}))
    assert plain == {
        "device_id": 1,
        "user_compute_stream": "7",
        "use_tf32": "0",
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "enable_cuda_graph": "0",
    }
    (tuned,) = chosen(("CUDAExecutionProvider", {}), tf32=True, graphs=True, exhaustive=True)
    assert (tuned["use_tf32"], tuned["enable_cuda_graph"]) == ("1", "1")
    assert tuned["cudnn_conv_algo_search"] == "EXHAUSTIVE"


def test_the_users_provider_options_win() -> None:
    own = {"use_tf32": 1, "gpu_mem_limit": 1 << 30, "arena_extend_strategy": "kNextPowerOfTwo"}
    (given,) = chosen(("CUDAExecutionProvider", own))
    assert {**given, **own} == given


def test_tensorrt_keeps_its_engines_in_the_cache_directory(tmp_path: Path) -> None:
    names = ("TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider", "CPUExecutionProvider")
    first, rtx, cpu = chosen(*[(name, {}) for name in names], cache_dir=tmp_path)
    assert first["trt_engine_cache_enable"] == "True"
    assert first["trt_engine_cache_path"] == rtx["nv_runtime_cache_path"] == str(tmp_path)
    assert rtx["has_user_compute_stream"] == "1"
    assert cpu == {}
    without, _, _ = chosen(*[(name, {}) for name in names])
    assert set(without) == {"user_compute_stream"}


def program(*op_types: str, dims: Sequence[int | str] = (2,), body: bool = False) -> Program:
    """x -> op -> … -> y of these dims."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(list(dims)))
    nodes: list[ir.Node] = []
    value = x
    for op_type in op_types:
        graph = ir.Graph([], [], nodes=[], name="body")
        attributes = {"then_branch": graph} if body else {}
        nodes.append(ir.node(op_type, [value], attributes))
        value = nodes[-1].outputs[0]
    value.name, value.type, value.shape = "y", x.type, x.shape
    graph = ir.Graph([x], [value], nodes=nodes, opset_imports={"": 23}, name="g")
    specs = [(TensorSpec(name, ir.DataType.FLOAT, tuple(dims)),) for name in "xy"]
    model = ir.Model(graph, ir_version=10)
    return Program(model, *specs, (OutputLayout(),), "", len(nodes), {})


@pytest.mark.parametrize(
    ("matmul", "conv", "allowed"),
    [
        (False, True, {"Conv", "Relu"}),  # as torch is set from the start
        (True, False, {"MatMul", "Relu"}),
        (True, True, {"Conv", "MatMul", "both", "Relu"}),
        (False, False, {"Relu"}),
    ],
)
def test_tf32_is_allowed_as_torch_allows_it(matmul: bool, conv: bool, allowed: set[str]) -> None:
    programs = {name: (name,) for name in ("Conv", "MatMul", "Relu")} | {"both": ("Conv", "MatMul")}
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = matmul
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=conv):
            found = {name for name, ops in programs.items() if may_round_to_tf32(program(*ops))}
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    assert found == allowed


def test_runs_are_asynchronous_only_where_asked_and_take_the_users_entries() -> None:
    shrinkage = "memory.enable_memory_arena_shrinkage"
    options = run_options({shrinkage: "gpu:0"}, severity=3, asynchronous=True)
    assert options.log_severity_level == 3
    assert options.get_run_config_entry("disable_synchronize_execution_providers") == "1"
    assert options.get_run_config_entry(shrinkage) == "gpu:0"


# ---------------------------------------------------------------------------- CUDA graphs
def why(*op_types: str, inputs: Sequence[torch.device] = (GPU,), **given: Any) -> str:
    made = program(*op_types, dims=given.get("dims", (2,)), body=given.get("body", False))
    providers = [(name, {}) for name in given.get("providers", ["CUDAExecutionProvider"])]
    return why_not_captured(made, providers, inputs, given.get("outputs", [GPU]))


def test_what_keeps_a_program_from_being_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "__version__", "1.30.0")
    assert why("Relu") == ""
    assert why("Relu", dims=["n"]) == ""
    assert "control flow" in why("If", body=True)
    assert "from the CPU" in why("Relu", inputs=[GPU, CPU])
    assert "on the CPU" in why("Relu", outputs=[CPU])
    assert "known only in the run" in why("NonZero", "ReduceSum")
    assert "TensorrtExecutionProvider" in why("Relu", providers=["TensorrtExecutionProvider"])
    assert "captures GatherND wrongly" in why("GatherND")
    monkeypatch.setattr(ort, "__version__", "1.32.0")
    assert why("GatherND") == ""
    monkeypatch.setattr(ort, "__version__", "1.29.1")
    assert "captures some operators wrongly" in why("Relu")


def test_a_run_that_cannot_be_captured_is_not_tried_again(graphs: CudaGraphs) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    graphs._launch = fails
    x = torch.ones(2)
    with pytest.raises(RuntimeError):
        graphs.run([x], [x])
    assert graphs.run([x], [x]) is None
    assert graphs.why_refused() == "onnxruntime failed to capture a run"


def test_graphs_made_in_inference_mode_serve_other_calls(graphs: CudaGraphs) -> None:
    x = torch.tensor([-1.0, 2.0])
    with torch.inference_mode():
        graphs.run([x], [x])
    (y,) = graphs.run([x], [x]) or ()
    assert y.tolist() == [0.0, 2.0]


def test_results_of_onnxruntimes_become_torchs_on_the_sessions_stream() -> None:
    cuda = Cuda()
    stream = SessionStream(GPU, cuda)
    given = torch.ones(2)
    with stream.ordered():
        (made,) = stream.owned([given])
    assert made.data_ptr() != given.data_ptr()
    assert torch.equal(made, given)


def test_sessions_on_one_stream_launch_one_after_another() -> None:
    cuda = Cuda()
    with cuda.stream(Stream("user", 7, cuda.log)):
        one, other = SessionStream(GPU, cuda), SessionStream(GPU, cuda)
    assert one._lock is other._lock


@pytest.fixture
def graphs() -> CudaGraphs:
    """Those of x -> relu(x) of one dim, in a session on the CPU: what is copied is the same."""
    relu = program("Relu", dims=["n"])
    options = session_options({}, threads=1, spinning=False)
    opened = open_session(relu, options, [("CPUExecutionProvider", {})], {})
    targets = Targets((None,), (((0, 0),),), (torch.float32,), (CPU,))
    feeder = Feeder([ir.DataType.FLOAT], [CPU])

    def new_options() -> ort.RunOptions:
        return run_options({}, severity=4, asynchronous=False)

    launch = Launch(
        opened.session, (["x"], feeder), (["y"], feeder), [CPU], run_options=new_options,
        targets=targets, stream=None, captures=True, weights=frozenset(),
    )  # fmt: skip
    assert launch.graphs is None  # no stream, nothing to capture on
    cuda = Cuda()
    stream = SessionStream(GPU, cuda)
    return CudaGraphs(
        launch._launch, new_options, (feeder, feeder), stream, targets, frozenset(), cuda
    )


def test_a_graph_has_memory_of_its_own_and_results_do_not(graphs: CudaGraphs) -> None:
    first = torch.tensor([-1.0, 2.0])
    (one,) = graphs.run([first], [first]) or ()
    second = torch.tensor([3.0, -4.0])
    (two,) = graphs.run([second], [second]) or ()
    assert one.tolist() == [0.0, 2.0]  # not overwritten by the second run
    assert two.tolist() == [3.0, 0.0]
    assert graphs.captured == 1


def test_each_set_of_shapes_is_captured_up_to_a_limit(
    graphs: CudaGraphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_graphs, "GRAPHS_PER_SESSION", 2)
    for size in (1, 2, 1, 2):
        x = torch.randn(size)
        (y,) = graphs.run([x], [x]) or ()
        assert torch.equal(y, x.relu())
    assert (graphs.captured, graphs.refused) == (2, 0)
    x = torch.randn(3)
    assert graphs.run([x], [x]) is None
    assert (graphs.captured, graphs.refused) == (2, 1)
    assert graphs.why_refused() == "more than 2 shapes"
    numbers = [g.options.get_run_config_entry("gpu_graph_id") for g in graphs._graphs.values()]
    assert numbers == ["1", "2"]
