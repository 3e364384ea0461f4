"""Which execution provider is meant, whether it is there, and where its nodes went."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import onnx_ir as ir
import onnxruntime as ort
import pytest

from dynamo_onnx import OptionError
from dynamo_onnx.runtime import providers
from dynamo_onnx.runtime.errors import SessionError
from dynamo_onnx.runtime.placement import Copied, Placed, Placement, placement, refuse_strays
from dynamo_onnx.runtime.program import Program
from dynamo_onnx.runtime.providers import as_onnxruntime_takes, choose_providers, providers_on


def device(ep_name: str, kind: str) -> Any:
    """As `onnxruntime.get_ep_devices()` describes one."""
    return SimpleNamespace(ep_name=ep_name, device=SimpleNamespace(type=SimpleNamespace(name=kind)))


@dataclass
class SessionOptions:
    """What is asked of `onnxruntime.SessionOptions`."""

    added: list[tuple[object, dict[str, str]]] = field(default_factory=list)

    def add_provider(self, name: str, options: dict[str, str]) -> None:
        self.added.append((name, options))

    def add_provider_for_devices(self, devices: Sequence[Any], options: dict[str, str]) -> None:
        self.added.append(([(d.ep_name, d.device.type.name) for d in devices], options))


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """An installed package of a plugin, which offers two CPUs and a GPU once it is loaded."""
    devices = [device("CPUExecutionProvider", "CPU")]
    library = ModuleType("onnxruntime_ep_openvino")
    library.get_library_path = lambda: "/plugin.so"  # type: ignore[attr-defined]
    library.__spec__ = SimpleNamespace()  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, library.__name__, library)
    monkeypatch.setattr(ort, "get_ep_devices", lambda: list(devices))

    def register(name: str, path: str) -> None:
        assert (name, path) == ("OpenVINOExecutionProvider", "/plugin.so")
        devices.extend(device(name, kind) for kind in ("GPU", "CPU", "CPU"))

    monkeypatch.setattr(ort, "register_execution_provider_library", register)
    return devices


def test_an_installed_plugin_is_loaded_when_it_is_named(plugin: list[Any]) -> None:
    assert choose_providers(["cpu"], []) == (("CPUExecutionProvider", {}),)
    assert len(plugin) == 1
    chosen = choose_providers(["openvino", "cpu"], [])
    assert chosen == (("OpenVINOExecutionProvider", {}), ("CPUExecutionProvider", {}))
    assert len(plugin) == 4
    choose_providers(["OpenVINOExecutionProvider"], [])  # it is loaded once
    assert len(plugin) == 4


def test_onnxruntime_gets_a_plugin_by_its_device(plugin: list[Any]) -> None:
    options: Any = SessionOptions()
    chosen = choose_providers([("openvino", {"num_streams": 2}), "cpu"], [])
    assert as_onnxruntime_takes(options, chosen) is None
    assert options.added == [([("OpenVINOExecutionProvider", "CPU")], {"num_streams": "2"})]
    options = SessionOptions()
    chosen = choose_providers([("openvino", {"device_type": "GPU", "device_id": 0})], [])
    assert as_onnxruntime_takes(options, chosen) is None
    assert options.added == [([("OpenVINOExecutionProvider", "GPU")], {})]
    options = SessionOptions()
    assert as_onnxruntime_takes(options, choose_providers(["cpu"], [])) == [
        ("CPUExecutionProvider", {})
    ]
    assert not options.added


@pytest.mark.parametrize("own", [{"device_type": "npu"}, {"device_id": 2}])
def test_a_device_that_a_plugin_does_not_offer(plugin: list[Any], own: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="it offers gpu 0, cpu 0, cpu 1; choose by"):
        choose_providers([("openvino", own)], [])


def test_a_plugin_that_does_not_load(plugin: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def register(name: str, path: str) -> None:
        raise RuntimeError("wrong ABI")

    monkeypatch.setattr(ort, "register_execution_provider_library", register)
    with pytest.raises(OptionError, match=r"does not load /plugin\.so: wrong ABI"):
        choose_providers(["openvino"], [])


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("NvTensorRTRTXExecutionProvider", "onnxruntime-ep-nv-tensorrt-rtx"),
        ("dml", "onnxruntime-directml"),
        ("webgpu", "onnxruntime-ep-webgpu"),
        ("migraphx", "onnxruntime-migraphx"),
    ],
)
def test_a_provider_that_is_not_there(name: str, package: str) -> None:
    with pytest.raises(OptionError, match=f"CPUExecutionProvider; it comes with .* {package}"):
        choose_providers([name], [])


@pytest.fixture
def with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: both)


@pytest.mark.usefixtures("with_cuda")
def test_a_device_has_its_own_provider_or_those_of_the_chosen_ones_that_compute_there() -> None:
    assert providers_on("cpu", 0, ()) == (("CPUExecutionProvider", {}),)
    assert providers_on("cuda", 1, ()) == (("CUDAExecutionProvider", {"device_id": 1}),)
    both = choose_providers(["cuda", "cpu"], [])
    assert providers_on("cpu", 0, both) == both
    on_second = (("CUDAExecutionProvider", {"device_id": 1}), ("CPUExecutionProvider", {}))
    assert providers_on("cuda", 1, both) == on_second
    refused = providers_on("cuda", 1, choose_providers(["cpu"], []))
    assert str(refused) == "device: a tensor on cuda:1, where CPUExecutionProvider does not compute"
    refused = providers_on("mps", 0, ())
    assert str(refused).startswith("device: a tensor on mps:0; this onnxruntime")


def test_onnxruntimes_without_plugins_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(ort, "get_ep_devices")
    assert providers.plugins() == set()


# ------------------------------------------------------------------------------ placement
def program() -> Program:
    """y = reshape(x + x, [shape of x, doubled...]): two nodes compute, three deal with sizes."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["n"]))
    one = ir.Value(name="one", const_value=ir.tensor([1], name="one"))
    shape = ir.node("Shape", [x], name="view/Shape_1")
    both = ir.node("Concat", [one, shape.outputs[0]], {"axis": 0}, name="view/Concat_2")
    add = ir.node("Add", [x, x], name="add/Add_3")
    y = ir.node("Reshape", [add.outputs[0], both.outputs[0]], name="view/Reshape_4")
    graph = ir.Graph([x], y.outputs, nodes=[shape, both, add, y], initializers=[one])
    where = {"view": "model.py:7", "add": "model.py:6"}
    return Program(ir.Model(graph, ir_version=10), (), (), (), "", 4, where)


class Session:
    """As a session tells: the Add on one provider, everything else on the CPU's."""

    def __init__(self, name: str = "XExecutionProvider") -> None:
        self.name = name

    def get_provider_graph_assignment_info(self) -> list[Any]:
        def subgraph(ep_name: str, *nodes: tuple[str, str]) -> Any:
            each = [SimpleNamespace(name=n, op_type=op, domain="") for op, n in nodes]
            return SimpleNamespace(ep_name=ep_name, get_nodes=lambda: each)

        return [
            subgraph(self.name, ("Add", "add/Add_3")),
            subgraph("CPUExecutionProvider", ("Shape", "view/Shape_1")),
            subgraph("CPUExecutionProvider", ("Concat", "view/Concat_2")),
            subgraph("CPUExecutionProvider", ("Reshape", "view/Reshape_4")),
            subgraph("CPUExecutionProvider", ("Reshape", "view/Reshape_4")),
        ]


def test_nodes_are_told_by_provider_and_line() -> None:
    session: Any = Session()
    assert placement(session, program()).placed == (
        Placed("XExecutionProvider", "Add", "model.py:6", sizes=False, count=1),
        Placed("CPUExecutionProvider", "Shape", "model.py:7", sizes=True, count=1),
        Placed("CPUExecutionProvider", "Concat", "model.py:7", sizes=True, count=1),
        Placed("CPUExecutionProvider", "Reshape", "model.py:7", sizes=False, count=2),
    )
    older: Any = object()
    assert placement(older, program()) == Placement()


def test_what_passes_to_another_devices_memory_is_told() -> None:
    on_gpu: Any = Session("CUDAExecutionProvider")
    wanted = Copied("CUDAExecutionProvider", "CPUExecutionProvider", "model.py:6", count=1)
    assert placement(on_gpu, program()).copied == (wanted,)
    beside: Any = Session("XExecutionProvider")  # it reads the CPU's memory
    assert placement(beside, program()).copied == ()


def test_only_sizes_may_be_left_to_the_cpu() -> None:
    session: Any = Session()
    placed = placement(session, program()).placed
    wanted = "XExecutionProvider does not take 2 × Reshape at model.py:7$"
    with pytest.raises(SessionError, match=wanted):
        refuse_strays(placed, [("XExecutionProvider", {})])
    refuse_strays(placed[:3], [("XExecutionProvider", {})])
