"""Graphs on a GPU, on two, beside the CPU: what computes where. The tensors are fake ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from dynamo_onnx import Options
from dynamo_onnx.backend.compile import lower_graph
from dynamo_onnx.backend.partition import Plan
from dynamo_onnx.backend.placing import Placing
from dynamo_onnx.runtime.errors import ReasonKind

CPU, FIRST, SECOND = torch.device("cpu"), torch.device("cuda", 0), torch.device("cuda", 1)
CUDA = "CUDAExecutionProvider"


@pytest.fixture
def with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """An onnxruntime that says it has CUDA."""
    both = [CUDA, "CPUExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: both)


def traced(fn: Callable[..., Any], *devices: torch.device) -> torch.fx.GraphModule:
    """fn's graph of fake tensors [2, 3] on these devices."""
    with FakeTensorMode():
        inputs = [torch.empty(2, 3, device=device) for device in devices]
        gm = make_fx(fn)(*inputs)
    (output,) = gm.graph.find_nodes(op="output")
    if isinstance(output.args[0], torch.fx.Node):
        output.args = ((output.args[0],),)
    return gm


def planned(fn: Callable[..., Any], *devices: torch.device, **options: Any) -> tuple[Plan, Placing]:
    gm = traced(fn, *devices)
    chosen = Options.parse(options)
    placing = Placing(chosen, gm.graph)
    return lower_graph(gm, chosen, placing).plan, placing


def reasons(plan: Plan) -> set[str]:
    assert {reason.kind for _, reason in plan.eager} <= {ReasonKind.DEVICE}
    return {reason.detail for _, reason in plan.eager}


@pytest.mark.usefixtures("with_cuda")
def test_the_tensors_choose_the_provider_and_its_device() -> None:
    plan, placing = planned(lambda x: x.sin() + 1, SECOND)
    (region,) = plan.regions
    assert placing.providers(region) == ((CUDA, {"device_id": 1}),)
    places = placing.places(region)
    assert places is not None
    assert (places.session, places.inputs, places.outputs) == (SECOND, (SECOND,), (SECOND,))
    on_cpu, placing = planned(lambda x: x.sin() + 1, CPU)
    assert placing.providers(on_cpu.regions[0]) == (("CPUExecutionProvider", {}),)
    assert placing.places(on_cpu.regions[0]) is None


def test_without_a_provider_for_it_a_gpu_is_left_to_torch_with_the_reason() -> None:
    plan, _ = planned(lambda x: x.sin() + 1, FIRST)
    assert not plan.regions
    ((node, reason), *_) = plan.eager
    assert node.target == torch.ops.aten.sin.default
    assert reason.detail.startswith("a tensor on cuda:0; this onnxruntime")
    assert reason.hint == f"{CUDA} comes with the package onnxruntime-gpu"


@pytest.mark.usefixtures("with_cuda")
@pytest.mark.parametrize(
    ("providers", "detail"),
    [
        (["cpu"], "a tensor on cuda:1, where CPUExecutionProvider does not compute"),
        ([("cuda", {"device_id": 0})], f"a tensor on cuda:1; {CUDA} was given device_id 0"),
    ],
)
def test_providers_that_the_user_chose_for_elsewhere(providers: list[Any], detail: str) -> None:
    plan, _ = planned(lambda x: x.sin() + 1, SECOND, providers=providers)
    assert reasons(plan) == {detail}


@pytest.mark.usefixtures("with_cuda")
def test_chosen_providers_get_the_device_and_keep_their_options() -> None:
    plan, placing = planned(
        lambda x: x.sin() + 1, SECOND, providers=[("cuda", {"gpu_mem_limit": 9}), "cpu"]
    )
    wanted = ((CUDA, {"gpu_mem_limit": 9, "device_id": 1}), ("CPUExecutionProvider", {}))
    assert placing.providers(plan.regions[0]) == wanted


@pytest.mark.usefixtures("with_cuda")
def test_the_user_may_send_tensors_of_the_cpu_to_a_gpu() -> None:
    plan, placing = planned(lambda x: x.sin() + 1, CPU, providers=["cuda"])
    assert placing.providers(plan.regions[0]) == ((CUDA, {}),)


@pytest.mark.usefixtures("with_cuda")
def test_each_device_has_regions_of_its_own_and_copies_are_torchs() -> None:
    def mixed(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        on_cpu = (x.sin() + 1).to(FIRST)
        first = (y * on_cpu + 1).to(SECOND)
        return (z.exp() + first).relu()

    plan, placing = planned(mixed, CPU, FIRST, SECOND, providers=["cuda"], min_region=1)
    found = {placing.device(region): placing.providers(region) for region in plan.regions}
    assert found == {
        CPU: (("CPUExecutionProvider", {}),),
        FIRST: ((CUDA, {"device_id": 0}),),
        SECOND: ((CUDA, {"device_id": 1}),),
    }
    wanted = {
        "from cpu to cuda:0: torch copies between devices",
        "from cuda:0 to cuda:1: torch copies between devices",
    }
    assert reasons(plan) == wanted
    for region in plan.regions:
        device = placing.device(region)
        assert all(node.meta["val"].device == device for node in region.nodes)


@pytest.mark.usefixtures("with_cuda")
def test_a_number_of_the_cpu_goes_to_any_device_with_what_reads_it() -> None:
    def scaled(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x * y[0, 0]).relu()

    plan, placing = planned(scaled, FIRST, CPU)
    (region,) = (region for region in plan.regions if placing.device(region) == FIRST)
    places = placing.places(region)
    assert places is not None
    assert set(places.inputs) == {FIRST, CPU}
    assert places.of_outputs(2) == (FIRST, CPU)  # a second one only computes strides


@pytest.mark.usefixtures("with_cuda")
@pytest.mark.parametrize(
    ("installed", "first"), [(True, "TensorrtExecutionProvider"), (False, CUDA)]
)
def test_max_autotune_puts_tensorrt_first_where_it_is(
    installed: bool, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynamo_onnx.backend.placing._has_tensorrt", lambda: installed)
    plan, placing = planned(lambda x: x.sin() + 1, FIRST, mode="max-autotune")
    providers = placing.providers(plan.regions[0])
    assert providers[0] == (first, {"device_id": 0})
    assert providers[-1] == (CUDA, {"device_id": 0})
