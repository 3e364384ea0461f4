"""How fast does a language model read a prompt, and write token by token with a KV cache?

    python -m benchmarks.generate
    python -m benchmarks.generate --cases "gpt2 static cache" --rounds 3
    python -m benchmarks.generate --device cuda

Each case runs in a process of its own. The weights are random, so the next token is drawn with
noise that is the same for every contender: the highest logit alone would repeat one token for ever.
What quantized weights cost in accuracy is told by how they read the prompt: the perplexity of its
tokens, and how far the predicted distributions are from eager's.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, StaticCache

from . import backends, contest, harness, measure, plots, render
from .backends import Contender
from .isolate import isolated, prepared
from .machine import Watch
from .models import MODELS
from .record import Case, Row, Run, Settings

BACKENDS = ("eager", "inductor", "onnx", "onnx int8", "onnx int4")
CASES = {
    f"{name} {kind} cache": (model, kind)
    for name, model in (("gpt2", "gpt2"), ("llama", "llama-30x576"))
    for kind in ("static", "dynamic")
}


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt [1, P] to be continued; `noise` [N, V] decides which of the V tokens come next."""

    prompt: Tensor
    noise: Tensor

    @property
    def tokens(self) -> int:
        return len(self.noise)


@dataclass(slots=True)
class Generation:
    """What one generation took and gave; `logits` holds a [V] for the prompt and each token."""

    prefill_ms: float = math.nan
    decode_ms: float = math.nan
    tokens: list[int] = field(default_factory=list[int])
    logits: list[Tensor] = field(default_factory=list[Tensor])


@dataclass(frozen=True, slots=True)
class Reading:
    """The distributions that a model predicts along a text, as log probabilities [P, V]."""

    text: Tensor  # int64 [1, P]
    predicted: Tensor

    @property
    def perplexity(self) -> float:
        """exp of the mean of -log p of each token but the first, given those before it."""
        following = self.text[0, 1:, None]
        return float((-self.predicted[:-1].gather(1, following)).mean().exp())

    def divergence_from(self, other: Reading) -> float:
        """The mean over the text of KL(other || this), in nats."""
        return float((other.predicted.exp() * (other.predicted - self.predicted)).sum(-1).mean())


def read(forward: Callable[..., Any], text: Tensor) -> Reading:
    """How a model reads a text [1, P] in one call without a cache."""
    logits = forward(input_ids=text, use_cache=False).logits[0]
    return Reading(text, logits.double().log_softmax(-1))


def generate(forward: Callable[..., Any], cache: Any, task: Task) -> Generation:  # noqa: ANN401 - transformers' cache
    """Read the prompt, then feed each drawn token back, one call of the model for each."""
    made = Generation()

    def step(ids: Tensor, index: int) -> Tensor:
        output = forward(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits = output.logits[0, -1]
        made.logits.append(logits)
        token = (logits + task.noise[min(index, task.tokens - 1)]).argmax()
        made.tokens.append(int(token))
        return token.view(1, 1)

    start = time.perf_counter()
    token = step(task.prompt, 0)
    prompt_read = time.perf_counter()
    for index in range(1, task.tokens + 1):
        token = step(token, index)
    made.prefill_ms = (prompt_read - start) * 1e3
    made.decode_ms = (time.perf_counter() - prompt_read) * 1e3
    return made


def _task(model: str, device: torch.device, *, small: bool) -> tuple[Any, Task]:
    """A model of `models`, and its input there as the prompt."""
    module, kwargs = MODELS[model].build(small=small)
    config: Any = module.config
    drawn = torch.Generator().manual_seed(0)
    uniform = torch.rand(8 if small else 64, config.vocab_size, generator=drawn)
    gumbel = -(-uniform.clamp_min(1e-20).log()).clamp_min(1e-20).log()
    return module.to(device), Task(kwargs["input_ids"].to(device), gumbel.to(device))


def _quantization(backend: str) -> dict[str, str]:
    """The options of "onnx int8", say."""
    _, _, quantize = backend.partition(" ")
    return {"quantize": quantize} if quantize else {}


def _forward(module: Any, backend: str) -> Callable[..., Any]:  # noqa: ANN401 - transformers' model
    if backend == "eager":
        return module
    if backend.startswith("onnx"):
        return torch.compile(module, backend="onnx", options=_quantization(backend))
    return torch.compile(module, backend=backend)


def _contender(module: Any, backend: str, kind: str, task: Task) -> Contender:  # noqa: ANN401 - transformers' model
    """`call` generates; a static cache is made once, filled once in eager, and emptied each time.

    That eager call allocates it: else the compiled one would, and be compiled once more.
    """
    forward = _forward(module, backend)
    length = task.prompt.shape[1] + task.tokens
    static = StaticCache(config=module.config, max_cache_len=length)
    if kind == "static":
        module(input_ids=task.prompt, past_key_values=static, use_cache=True, logits_to_keep=1)

    def call() -> Generation:
        if kind == "dynamic":
            return generate(forward, DynamicCache(config=module.config), task)
        static.reset()
        return generate(forward, static, task)

    def tensors(made: object) -> list[Tensor]:
        assert isinstance(made, Generation)
        return made.logits

    def report() -> dict[str, Any] | None:
        if not backend.startswith("onnx"):
            return None
        found = backends.onnx_report(forward)
        if _quantization(backend):
            ours, eager = read(forward, task.prompt), read(module, task.prompt)
            found["perplexity"] = {"eager": eager.perplexity, "quantized": ours.perplexity}
            found["divergence"] = ours.divergence_from(eager)
        return found

    return Contender(call, tensors, report)


@dataclass(frozen=True, slots=True)
class Recorder:
    """Generates when called; keeps what the timed calls made."""

    generation: Callable[[], Any]
    made: list[Generation] = field(default_factory=list[Generation])

    def __call__(self) -> object:
        return self.generation()

    def timed(self) -> float:
        self.made.append(self.generation())
        return self.made[-1].prefill_ms + self.made[-1].decode_ms


def measure_case(name: str, settings: Settings) -> Case:
    """All contenders of one model and cache. Meant for a process of its own."""
    model, kind = CASES[name]
    shown = harness.eager_first(settings.backends)
    import torch._dynamo.config as dynamo_config

    # The graphs of all contenders are graphs of one frame, more than Dynamo's usual limit.
    device = torch.device(settings.device)
    with (
        prepared(settings.threads),
        dynamo_config.patch(recompile_limit=64),
        backends.side_stream(device),
    ):
        module, task = _task(model, device, small=settings.small)
        makers = {backend: partial(_contender, module, backend, kind, task) for backend in shown}
        ready, failed = contest.made_ready(makers)
        recorders = {backend: Recorder(contender.call) for backend, contender in ready.items()}
        watch = Watch.start()
        measure.interleave(
            recorders,
            device,
            rounds=settings.rounds,
            limit_s=settings.limit_s,
            warm_s=0,
            timer=Recorder.timed,
        )
        load = watch.load()
        made = {backend: recorder.made for backend, recorder in recorders.items()}
        rows = [
            row_of(backend, made[backend], made["eager"], contender.report())
            for backend, contender in ready.items()
        ]
    facts = {"prompt_tokens": task.prompt.shape[1], "new_tokens": task.tokens}
    return Case(name, facts, load, contest.in_order([*rows, *failed], shown))


def row_of(
    backend: str,
    made: list[Generation],
    eager: list[Generation],
    report: dict[str, Any] | None,
) -> Row:
    """One contender's rates, its times over eager's by round, and whether it wrote the same."""
    rates = [1e3 * (len(one.tokens) - 1) / one.decode_ms for one in made]
    pairs = list(zip(made, eager, strict=True))
    last, expected = pairs[-1]
    values = {
        "prefill_ms": measure.quartiles([one.prefill_ms for one in made]),
        "decode_tokens_per_s": measure.quartiles(rates),
        "prefill_ratio": measure.quartiles([a.prefill_ms / b.prefill_ms for a, b in pairs]),
        "decode_ratio": measure.quartiles([a.decode_ms / b.decode_ms for a, b in pairs]),
    }
    same = last.tokens == expected.tokens
    facts: dict[str, Any] = {"tokens_equal": same, "distinct_tokens": len(set(last.tokens))}
    # Behind another token the logits answer another question.
    if same:
        facts["max_error"] = contest.finite_error(last.logits, expected.logits)
    if report is not None:
        facts |= report
    return Row(backend, values, facts)


def _cell(case: Case, backend: str, value: str, unit: str, ratio: str) -> str:
    median = case.median(backend, ratio)
    speedup = None if median is None or backend == "eager" else 1 / median
    return render.with_times(case.median(backend, value), unit, speedup)


def _same(case: Case) -> str:
    others = [
        row
        for row in case.rows
        if row.contender != "eager" and row.error is None and "divergence" not in row.facts
    ]
    return ", ".join(
        f"{row.contender} {'yes' if row.facts['tokens_equal'] else 'no'}" for row in others
    )


def _accuracy(case: Case) -> str:
    """Of the rows with quantized weights."""
    return ", ".join(
        f"{row.contender.removeprefix('onnx ')} {row.facts['perplexity']['quantized']:.5g} for "
        f"{row.facts['perplexity']['eager']:.5g}; {row.facts['divergence']:.2g}"
        for row in case.rows
        if row.error is None and "divergence" in row.facts
    )


def page(run: Run) -> str:
    """A row per model and cache."""
    shown = harness.eager_first(run.settings.backends)
    header = ["model", *(f"{backend} prefill" for backend in shown)]
    header += [f"{backend} tokens/s" for backend in shown]
    header += ["tokens as eager's", "perplexity; KL in nats"]
    rows: list[list[str]] = []
    for case in run.cases:
        cells = [render.case_name(case)]
        cells += [_cell(case, b, "prefill_ms", "ms", "prefill_ratio") for b in shown]
        cells += [_cell(case, b, "decode_tokens_per_s", "", "decode_ratio") for b in shown]
        rows.append([*cells, _same(case), _accuracy(case)])
    sizes = sorted(
        {
            (case.facts["prompt_tokens"], case.facts["new_tokens"])
            for case in run.cases
            if case.error is None
        }
    )
    asked = ", ".join(f"{new} tokens after a prompt of {prompt}" for prompt, new in sizes)
    return render.page(
        run,
        [render.table(header, rows)],
        f"{asked}, batch 1, float32, random weights; medians of up to {run.settings.rounds} "
        "interleaved rounds, after one generation that compiled. × is eager's time over the "
        "backend's, the median of the rounds' ratios. Perplexity and KL divergence from eager's "
        "predictions are of the prompt, read with quantized weights.",
    )


def picture(run: Run, path: Path) -> None:
    """Bars of the decoded tokens per second, a group per case."""
    where = render.hardware(run.machine, run.settings.threads)
    plots.bars(
        path,
        [case.name for case in run.cases],
        plots.by_contender(
            run.cases, harness.eager_first(run.settings.backends), "decode_tokens_per_s"
        ),
        title=f"Decoding with a KV cache, batch 1, float32; {where}",
        label="tokens a second, longer is faster",
        digits=".1f",
    )


BENCHMARK = harness.Benchmark(
    name="generate",
    text=__doc__ or "",
    cases=tuple(CASES),
    backends=BACKENDS,
    usual=Settings(rounds=8, limit_s=180),
    measure=partial(isolated, measure_case),
    page=page,
    picture=picture,
    devices=("cpu", "cuda"),
    caption="Decoded tokens a second per model, cache and backend",
)

if __name__ == "__main__":
    raise SystemExit(harness.main(BENCHMARK, sys.argv[1:]))
