"""Sessions on a GPU: where tensors are and stay, in which order, and what is told of it."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dynamo_onnx
from dynamo_onnx.backend.state import state

pytestmark = pytest.mark.cuda

CUDA = "CUDAExecutionProvider"
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


class Net(nn.Module):
    """Two layers, and a buffer that calls write to."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 128), nn.Linear(128, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)))


def compiled(fn: Any, **options: Any) -> Any:
    return torch.compile(fn, backend="onnx", options={"strict": True, **options})


def close(found: Tensor, wanted: Tensor) -> None:
    assert found.device == wanted.device
    assert found.dtype == wanted.dtype
    scale = wanted.abs().max().item()
    tolerance = {torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 2e-2}[wanted.dtype]
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance * max(scale, 1))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("weights", ["auto", "frozen", "live"])
def test_a_model_runs_on_the_gpu_that_its_tensors_are_on(weights: str, dtype: torch.dtype) -> None:
    net = Net().cuda().to(dtype)
    ours = compiled(net, weights=weights, require_provider=True, providers=["cuda"])
    with torch.no_grad():
        for size in (1, 5, 9):
            x = torch.randn(size, 64, device="cuda", dtype=dtype)
            close(ours(x), net(x))
    report = dynamo_onnx.report(ours)
    assert {p.provider for p in report.placed if not p.sizes} == {CUDA}
    assert report.input_copies == 0


@pytest.mark.parametrize("weights", ["auto", "frozen", "live"])
@pytest.mark.parametrize("change", ["step", "data", "load"])
def test_changed_weights_are_seen(weights: str, change: str) -> None:
    net = Net().cuda()
    ours = compiled(net, weights=weights)
    x = torch.randn(4, 64, device="cuda")
    with torch.no_grad():
        close(ours(x), net(x))
        if change == "step":
            net.first.weight.mul_(2)
        elif change == "data":
            net.first.weight.data = torch.randn_like(net.first.weight)
        else:
            net.load_state_dict(Net().state_dict())
        close(ours(x), net(x))


def test_live_weights_are_read_where_they_are() -> None:
    net = Net().cuda()
    ours = compiled(net)
    x = torch.randn(4, 64, device="cuda")
    with torch.no_grad():
        close(ours(x), net(x))
        net.first.weight.data.mul_(3)  # no version counts this
        close(ours(x), net(x))
    assert dynamo_onnx.report(ours).sessions == 1


def busy(x: Tensor) -> Tensor:
    """x, some milliseconds later on its stream."""
    torch.cuda._sleep(20_000_000)
    return x.clone()


@pytest.mark.parametrize("opened_on", ["default", "side"])
@pytest.mark.parametrize("called_on", ["default", "side"])
def test_a_call_follows_what_its_stream_did_before(opened_on: str, called_on: str) -> None:
    ours = compiled(lambda x: (x * 2).relu() + 1)
    streams = {"default": torch.cuda.default_stream(), "side": torch.cuda.Stream()}
    x = torch.randn(1 << 20, device="cuda")
    torch.cuda.synchronize()
    with torch.no_grad(), torch.cuda.stream(streams[opened_on]):
        ours(x)
    torch.cuda.synchronize()
    with torch.no_grad(), torch.cuda.stream(streams[called_on]):
        for step in range(5):
            late = busy(x + step)
            found = ours(late)
            late.zero_()  # after the call has read it
            after = found * 1
            assert torch.equal(after, ((x + step) * 2).relu() + 1)


def test_results_outlive_the_next_calls() -> None:
    ours = compiled(lambda x: x * 2 + 1)
    x = torch.randn(1 << 16, device="cuda")
    with torch.no_grad():
        kept = [ours(x + i) for i in range(8)]
    for i, found in enumerate(kept):
        assert torch.equal(found, (x + i) * 2 + 1)


def test_threads_on_streams_of_their_own() -> None:
    net = Net().cuda()
    ours = compiled(net)
    x = torch.randn(4, 64, device="cuda")
    with torch.no_grad():
        ours(x)
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            with torch.no_grad(), torch.cuda.stream(torch.cuda.Stream()):
                for step in range(50):
                    inputs = torch.full((4, 64), float(seed + step), device="cuda")
                    close(ours(inputs), net(inputs))
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_shapes_known_only_after_the_run() -> None:
    ours = torch.compile(lambda x: x[x > 0] * 2, backend="onnx", dynamic=True)
    x = torch.randn(1000, device="cuda")
    with torch.no_grad():
        assert torch.equal(ours(x), x[x > 0] * 2)


def test_a_number_and_a_tensor_of_the_cpu_beside_the_gpu() -> None:
    def mixed(x: Tensor, scale: Tensor, host: Tensor) -> tuple[Tensor, Tensor]:
        return (x * scale).relu(), (host.sin() + 1).cuda() + x, (host * 2).cos()

    ours = torch.compile(mixed, backend="onnx")
    x, host = torch.randn(8, device="cuda"), torch.randn(8)
    with torch.no_grad():
        for found, wanted in zip(
            ours(x, torch.tensor(2.0), host), mixed(x, torch.tensor(2.0), host), strict=True
        ):
            close(found, wanted)
    kinds = {fallback.reason.kind.value for fallback in dynamo_onnx.report(ours).fallbacks}
    assert kinds <= {"device", "region too small"}


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_the_second_gpu_and_torchs_current_device_stays() -> None:
    net = Net().to("cuda:1")
    ours = compiled(net)
    x = torch.randn(4, 64, device="cuda:1")
    with torch.no_grad():
        close(ours(x), net(x))
    assert torch.cuda.current_device() == 0


def test_channels_last_goes_in_and_comes_out() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).cuda()
    net = net.to(memory_format=torch.channels_last)
    ours = compiled(net)
    x = torch.randn(2, 3, 16, 16, device="cuda").to(memory_format=torch.channels_last)
    with torch.no_grad():
        found, wanted = ours(x), net(x)
    torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-3)  # TF32, as torch's own default
    assert found.stride() == wanted.stride()


def test_a_cache_is_written_in_place() -> None:
    def write(cache: Tensor, place: Tensor, row: Tensor) -> Tensor:
        cache.index_copy_(0, place, row)
        return cache.sum(0)

    ours = compiled(write)
    mine, eager = torch.zeros(8, 4, device="cuda"), torch.zeros(8, 4, device="cuda")
    with torch.no_grad():
        for i in range(4):
            place, row = torch.tensor([i], device="cuda"), torch.randn(1, 4, device="cuda")
            close(ours(mine, place, row), write(eager, place, row))
            assert torch.equal(mine, eager)


def test_memory_comes_back() -> None:
    def used() -> int:
        torch.cuda.synchronize()
        free, total = torch.cuda.mem_get_info()
        return total - free

    def once() -> None:
        net = nn.Sequential(*[nn.Linear(2048, 2048) for _ in range(8)]).cuda()
        ours = compiled(net)
        with torch.no_grad():
            ours(torch.randn(4096, 2048, device="cuda"))
        del ours, net
        torch._dynamo.reset()
        dynamo_onnx.reset()
        gc.collect()
        torch.cuda.empty_cache()

    once()  # libraries load
    before = used()
    for _ in range(3):
        once()
    assert used() - before < 64 << 20


# ---------------------------------------------------------------------------- CUDA graphs
def executables() -> list[Any]:
    return [region.executable() for graph in state.graphs for region in graph.regions]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_reduce_overhead_captures_each_shape(dtype: torch.dtype) -> None:
    net = Net().cuda().to(dtype)
    ours = compiled(net, mode="reduce-overhead")
    kept: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad():
        for size in (4, 7, 4, 7, 4):
            x = torch.randn(size, 64, device="cuda", dtype=dtype)
            kept.append((ours(x), net(x)))
        for found, wanted in kept:
            close(found, wanted)
        net.first.weight.mul_(2)
        x = torch.randn(4, 64, device="cuda", dtype=dtype)
        close(ours(x), net(x))
    report = dynamo_onnx.report(ours)
    assert report.cuda_graphs >= 1
    assert report.uncaptured == ()


def test_what_is_not_captured_is_told_and_right() -> None:
    ours = torch.compile(
        lambda x: x[x > 0] * 2, backend="onnx", dynamic=True, options={"mode": "reduce-overhead"}
    )
    x = torch.randn(1000, device="cuda")
    with torch.no_grad():
        assert torch.equal(ours(x), x[x > 0] * 2)
    assert dynamo_onnx.report(ours).cuda_graphs == 0


# ------------------------------------------------------------------------------- training
@pytest.mark.parametrize("autocast", [None, torch.float16, torch.bfloat16], ids=str)
def test_gradients_on_the_gpu(autocast: torch.dtype | None) -> None:
    def gradients(call: Callable[[Tensor], Tensor], net: nn.Module) -> list[Tensor]:
        net.zero_grad()
        with torch.autocast("cuda", dtype=autocast, enabled=autocast is not None):
            loss = call(x).float().square().mean()
        loss.backward()
        return [p.grad.clone() for p in net.parameters() if p.grad is not None]

    net = Net().cuda()
    x = torch.randn(8, 64, device="cuda")
    ours = compiled(net)
    tolerance = 1e-4 if autocast is None else 2e-2
    for found, wanted in zip(gradients(ours, net), gradients(net, net), strict=True):
        atol = tolerance * wanted.abs().max().item()
        torch.testing.assert_close(found, wanted, rtol=0, atol=atol)


def test_a_grad_scaler_and_an_optimizer_follow_eager() -> None:
    losses: list[list[float]] = []
    for backend in ("eager", "onnx"):
        torch.manual_seed(0)
        net = Net().cuda()
        model = torch.compile(net, backend=backend)
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
        scaler = torch.amp.GradScaler("cuda")
        x, y = torch.randn(32, 64, device="cuda"), torch.randn(32, 16, device="cuda")
        losses.append([])
        for _ in range(20):
            optimizer.zero_grad()
            with torch.autocast("cuda", dtype=torch.float16):
                loss = nn.functional.mse_loss(model(x), y)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            losses[-1].append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
