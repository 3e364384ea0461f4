"""How long does a training step take, beside eager, and what do compiling and memory cost?

    python -m benchmarks.training
    python -m benchmarks.training --cases resnet18 --backends eager,onnx --rounds 5
    python -m benchmarks.training --device cuda

A step is a forward pass, a backward pass and one step of SGD, with dropout as the models have it.
Each contender has a copy of the model; all of a case are timed in turn in one process. Compile
time and peak memory come from a process for each, which takes a few steps.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    ConvNextConfig,
    ConvNextForImageClassification,
    GPT2Config,
    GPT2LMHeadModel,
    ResNetConfig,
    ResNetForImageClassification,
)

from . import contest, harness, measure, plots, record, render
from .backends import onnx_report
from .isolate import isolated, prepared
from .machine import Watch
from .memory import resident_mb
from .record import Case, Row, Run, Settings

FLOOR = "aot_eager"  # captures, and splits forward from backward, as the others do
STEPS = 3
LEARNING_RATE = 1e-3


def _bert(*, small: bool) -> tuple[nn.Module, dict[str, Tensor]]:
    size = 64 if small else 256
    config = BertConfig(
        hidden_size=size,
        num_hidden_layers=2 if small else 4,
        num_attention_heads=4,
        intermediate_size=4 * size,
        vocab_size=1000 if small else 30522,
    )
    ids = torch.randint(0, config.vocab_size, (2, 16) if small else (8, 128))
    return BertModel(config), {"input_ids": ids}


def _gpt2(*, small: bool) -> tuple[nn.Module, dict[str, Tensor]]:
    config = GPT2Config(
        n_embd=64 if small else 256,
        n_layer=2 if small else 4,
        n_head=4,
        vocab_size=1000 if small else 8192,
        use_cache=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    ids = torch.randint(0, config.vocab_size, (2, 16) if small else (8, 128))
    return GPT2LMHeadModel(config), {"input_ids": ids, "labels": ids}


def _resnet18(*, small: bool) -> tuple[nn.Module, dict[str, Tensor]]:
    sizes: dict[str, Any] = (
        dict(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1])
        if small
        else dict(hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2])
    )
    config = ResNetConfig(layer_type="basic", **sizes)
    side = 32 if small else 128
    return ResNetForImageClassification(config), _labelled(2 if small else 8, side)


def _convnext(*, small: bool) -> tuple[nn.Module, dict[str, Tensor]]:
    sizes: dict[str, Any] = (
        dict(hidden_sizes=[16, 32], depths=[1, 1], num_stages=2)
        if small
        else dict(hidden_sizes=[48, 96, 192, 384], depths=[2, 2, 4, 2])
    )
    side = 32 if small else 128
    return ConvNextForImageClassification(ConvNextConfig(**sizes)), _labelled(
        2 if small else 8, side
    )


def _labelled(batch: int, side: int) -> dict[str, Tensor]:
    return {
        "pixel_values": torch.randn(batch, 3, side, side),
        "labels": torch.randint(0, 2, (batch,)),
    }


MODELS: dict[str, Callable[..., tuple[nn.Module, dict[str, Tensor]]]] = {
    "bert-4x256": _bert,
    "gpt2-4x256": _gpt2,
    "resnet18": _resnet18,
    "convnext-10x48": _convnext,
}
BACKENDS = ("eager", "inductor", "onnx", FLOOR)


def build(name: str, *, small: bool, device: str = "cpu") -> tuple[nn.Module, dict[str, Tensor]]:
    """The module in training mode and its arguments, the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module, kwargs = MODELS[name](small=small)
    module.train().to(device)
    return module, {key: tensor.to(device) for key, tensor in kwargs.items()}


class Trained:
    """A copy of a model under one backend, and a step of its training."""

    def __init__(self, backend: str, module: nn.Module, kwargs: dict[str, Tensor]) -> None:
        self.module = copy.deepcopy(module)
        self.run: Any = self.module
        if backend == "onnx":
            import dynamo_onnx

            dynamo_onnx.reset()
        if backend != "eager":
            self.run = torch.compile(self.module, backend=backend)
        self.kwargs = kwargs
        self.optimizer = torch.optim.SGD(self.module.parameters(), lr=LEARNING_RATE)

    def step(self) -> Tensor:
        """The loss, before the weights have moved."""
        self.optimizer.zero_grad()
        outputs = self.run(**self.kwargs)
        given = getattr(outputs, "loss", None)
        loss = outputs[0].float().square().mean() if given is None else given
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def held_mb(device: str) -> dict[str, float]:
    """The memory of this process, or of a GPU, where all allocators keep what they once had."""
    if device == "cpu":
        return resident_mb()
    free, total = torch.cuda.mem_get_info()
    return {"now": (total - free) / 1e6, "peak": (total - free) / 1e6}


def first_steps(name: str, backend: str, settings: Settings) -> dict[str, Any]:
    """What the first steps cost. Meant for a process of its own."""
    with prepared(settings.threads), torch.enable_grad():
        module, kwargs = build(name, small=settings.small, device=settings.device)
        trained = Trained(backend, module, kwargs)
        del module
        base = held_mb(settings.device)
        start = time.perf_counter()
        trained.step()
        first_s = time.perf_counter() - start
        for _ in range(STEPS):
            trained.step()
        peak = held_mb(settings.device)["peak"]
        facts = onnx_report(trained.run) if backend == "onnx" else {}
    return {"first_s": first_s, "base_mb": base.get("now", 0.0), "peak_mb": peak, "facts": facts}


def time_steps(
    name: str, backends: list[str], settings: Settings
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Milliseconds of a step by backend, all in turn, and the loss after as many steps as eager."""
    with prepared(settings.threads), torch.enable_grad():
        module, kwargs = build(name, small=settings.small, device=settings.device)
        contenders = {backend: Trained(backend, module, kwargs) for backend in backends}
        losses: dict[str, float] = {}
        for backend, trained in contenders.items():
            torch.manual_seed(1)
            for _ in range(STEPS):
                losses[backend] = float(trained.step())
        calls = {backend: trained.step for backend, trained in contenders.items()}
        device = torch.device(settings.device)
        times = measure.interleave(calls, device, rounds=settings.rounds, limit_s=settings.limit_s)
        return times, losses


def measure_case(name: str, settings: Settings) -> Case:
    """Every backend alone, then all that can be timed beside each other."""
    watch = Watch.start()
    alone: dict[str, dict[str, Any]] = {}
    errors: dict[str, str] = {}
    for backend in settings.backends:
        try:
            alone[backend] = isolated(first_steps, name, backend, settings)
        except Exception as error:  # noqa: BLE001  (whatever it is, it is the result)
            errors[backend] = record.describe(error)
    timed = [backend for backend in settings.backends if backend in alone and backend != FLOOR]
    times, losses = isolated(time_steps, name, timed, settings)
    facts = {b: {**alone[b]["facts"], "loss": losses.get(b)} for b in alone}
    rows = {row.contender: row for row in contest.timed_rows(times, "step_ms", facts=facts)}
    found: list[Row] = []
    for backend in settings.backends:
        if backend in errors:
            found.append(Row(backend, error=errors[backend]))
            continue
        own = alone[backend]
        row = rows.get(backend, Row(backend, facts=facts[backend]))
        values = {key: measure.quartiles([own[key]]) for key in ("first_s", "base_mb", "peak_mb")}
        if FLOOR in alone and backend not in ("eager", FLOOR):
            own_s = own["first_s"] - alone[FLOOR]["first_s"]
            values["own_compile_s"] = measure.quartiles([own_s])
        found.append(Row(backend, {**row.values, **values}, row.facts))
    return Case(name, {"steps": STEPS}, watch.load(), tuple(found))


def page(run: Run) -> str:
    """A row per model: a step of each backend, what compiling takes, and the memory."""
    shown = [backend for backend in run.settings.backends if backend != FLOOR]
    others = [backend for backend in shown if backend != "eager"]
    header = ["model", *shown, *(f"{b}'s own compile time" for b in others)]
    header += [
        *(f"{b} peak memory" for b in shown),
        "onnx regions / eager ops",
        "loss less eager's",
    ]
    rows: list[list[str]] = []
    for case in run.cases:
        cells = [render.case_name(case)]
        for backend in shown:
            ratio = case.median(backend, "ratio")
            speed = None if backend == "eager" or ratio is None else 1 / ratio
            cells.append(render.with_times(case.median(backend, "step_ms"), "ms", speed))
        cells += [render.cell(case.median(b, "own_compile_s"), "s") for b in others]
        eager_mb = case.median("eager", "peak_mb")
        for backend in shown:
            peak = case.median(backend, "peak_mb")
            over = None if backend == "eager" or not (peak and eager_mb) else peak / eager_mb
            cells.append(render.with_times(peak, "MB", over))
        ours, eager = case.row("onnx"), case.row("eager")
        facts = {} if ours is None else ours.facts
        cells.append(f"{facts.get('regions', '')} / {facts.get('eager_ops', '')}")
        known = eager is not None and facts.get("loss") is not None
        cells.append(f"{facts['loss'] - eager.facts['loss']:.0e}" if known and eager else "")
        rows.append(cells)
    means = ["**geometric mean**", *([""] if "eager" in shown else [])]
    for backend in others:
        ratios = [r for case in run.cases if (r := case.median(backend, "ratio")) is not None]
        mean = measure.geometric_mean([1 / ratio for ratio in ratios])
        means.append(f"**{render.times(mean)}**")
    rows.append([*means, *[""] * (len(header) - len(means))])
    return render.page(
        run,
        [render.table(header, rows)],
        f"Medians of up to {run.settings.rounds} interleaved steps (forward, backward, SGD) in "
        "float32. × is eager's time over the backend's, and peak memory over eager's. A backend's "
        f"own compile time is its first step less that of {FLOOR}. The last column compares the "
        f"losses of step {STEPS}, with the same dropout.",
    )


def picture(run: Run, path: Path) -> None:
    """Bars of a step, a group per model."""
    where = render.hardware(run.machine, run.settings.threads)
    shown = [backend for backend in run.settings.backends if backend != FLOOR]
    plots.bars(
        path,
        [case.name for case in run.cases],
        plots.by_contender(run.cases, shown, "step_ms"),
        title=f"One training step; {where}",
        label="milliseconds a step, shorter is better",
        digits=".0f",
    )


BENCHMARK = harness.Benchmark(
    name="training",
    text=__doc__ or "",
    cases=tuple(MODELS),
    backends=BACKENDS,
    usual=Settings(rounds=15, limit_s=60.0),
    measure=measure_case,
    page=page,
    picture=picture,
    caption="Milliseconds per training step, by model and backend",
    devices=("cpu", "cuda"),
)

if __name__ == "__main__":
    raise SystemExit(harness.main(BENCHMARK, sys.argv[1:]))
