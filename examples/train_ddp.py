"""Train on two processes with DistributedDataParallel and backend="onnx".

    torchrun --standalone --nproc-per-node 2 examples/train_ddp.py

Each process has half of every batch; gloo averages the gradients between the backward graphs of the
buckets into which Dynamo cuts the model. The first process then checks the weights against eager
training on whole batches in one process, and ends with 1 if they differ.
"""

from __future__ import annotations

import argparse
import datetime as dt
import itertools
import sys
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import dynamo_onnx

BATCH, FEATURES, CLASSES = 32, 64, 10
LEARNING_RATE = 0.05
BUCKET_MB = 1  # small, so that this small model falls into several
TOLERANCE = 1e-5


class Classifier(nn.Module):
    """[B, 64] -> [B, 10]."""

    def __init__(self) -> None:
        super().__init__()
        widths = [FEATURES, 1024, 512, 512, CLASSES]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.gelu(layer(x))
        return self.layers[-1](x)


def batches(steps: int) -> list[tuple[Tensor, Tensor]]:
    """The same for every process."""
    chance = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(BATCH, FEATURES, generator=chance),
            torch.randint(0, CLASSES, (BATCH,), generator=chance),
        )
        for _ in range(steps)
    ]


def train(model: nn.Module, run: nn.Module, part: slice, steps: int) -> list[float]:
    """On this part of every batch; the losses."""
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    losses: list[float] = []
    for inputs, targets in batches(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(run(inputs[part]), targets[part])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def made() -> Classifier:
    """With the same weights in every process."""
    torch.manual_seed(0)
    return Classifier()


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--timeout-s", type=float, default=60.0, help="to wait for the others")
    options = parser.parse_args(argv)
    dist.init_process_group("gloo", timeout=dt.timedelta(seconds=options.timeout_s))
    rank, size = dist.get_rank(), dist.get_world_size()
    torch.set_num_threads(max(1, torch.get_num_threads() // size))
    model = made()
    parallel = DistributedDataParallel(model, bucket_cap_mb=BUCKET_MB)
    compiled = torch.compile(parallel, backend="onnx")
    share = BATCH // size
    losses = train(model, compiled, slice(rank * share, (rank + 1) * share), options.steps)
    dist.destroy_process_group()
    if rank > 0:
        return 0
    kinds = [program.kind for program in dynamo_onnx.programs()]
    print(f"{kinds.count('forward')} forward, {kinds.count('backward')} backward programs")
    alone = made()
    train(alone, alone, slice(None), options.steps)
    apart = max(
        float((a - b).abs().max())
        for a, b in zip(model.parameters(), alone.parameters(), strict=True)
    )
    print(f"loss {losses[0]:.4f} to {losses[-1]:.4f}; weights differ by {apart:.1e} at most")
    return 0 if apart < TOLERANCE else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
