"""Train on two processes with DistributedDataParallel, or sharded by FSDP2, and backend="onnx".

    torchrun --standalone --nproc-per-node 2 examples/train_ddp.py
    torchrun --standalone --nproc-per-node 2 examples/train_ddp.py --shard

Each process has half of every batch; gloo averages the gradients between the backward graphs of the
buckets into which Dynamo cuts the model. With --shard each process keeps half of every weight, and
the layers, compiled one by one, gather theirs around their graphs. The first process then checks
the weights against eager training on whole batches in one process, and ends with 1 if they differ.
"""

from __future__ import annotations

import argparse
import datetime as dt
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from typing import NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import dynamo_onnx

BATCH, FEATURES, CLASSES = 32, 64, 10
LEARNING_RATE = 0.05
BUCKET_MB = 1  # small, so that this small model falls into several
TOLERANCE = 1e-5


class Layer(nn.Module):
    """[B, F] -> [B, G]."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(F.gelu(x))


class Classifier(nn.Module):
    """[B, 64] -> [B, 10]."""

    def __init__(self) -> None:
        super().__init__()
        widths = [FEATURES, 1024, 512, 512, CLASSES]
        self.layers = nn.ModuleList(Layer(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def batches(steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The same for every process."""
    chance = torch.Generator().manual_seed(0)
    for _ in range(steps):
        yield (
            torch.randn(BATCH, FEATURES, generator=chance),
            torch.randint(0, CLASSES, (BATCH,), generator=chance),
        )


def train(
    model: nn.Module, run: nn.Module, part: slice, steps: int, *, tell: bool = False
) -> list[float]:
    """On this part of every batch; the losses."""
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    losses: list[float] = []
    for step, (inputs, targets) in enumerate(batches(steps)):
        optimizer.zero_grad()
        loss = F.cross_entropy(run(inputs[part]), targets[part])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if tell:
            print(f"step {step + 1}: loss {losses[-1]:.4f}")
    return losses


def made() -> Classifier:
    """With the same weights in every process."""
    torch.manual_seed(0)
    return Classifier()


def replicated(model: Classifier) -> nn.Module:
    """The whole model in each process."""
    parallel = DistributedDataParallel(model, bucket_cap_mb=BUCKET_MB)
    return torch.compile(parallel, backend="onnx")


def sharded(model: Classifier) -> nn.Module:
    """Half of every weight in each of two processes."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in model.layers:
        layer.compile(backend="onnx")
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def main(argv: Sequence[str]) -> NoReturn:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--shard", action="store_true", help="the weights, by FSDP2")
    parser.add_argument("--tell", action="store_true", help="print each step")
    parser.add_argument("--timeout-s", type=float, default=60.0, help="to wait for the others")
    options = parser.parse_args(argv)
    dist.init_process_group("gloo", timeout=dt.timedelta(seconds=options.timeout_s))
    rank, size = dist.get_rank(), dist.get_world_size()
    torch.set_num_threads(max(1, torch.get_num_threads() // size))
    model = made()
    compiled = sharded(model) if options.shard else replicated(model)
    share = BATCH // size
    part = slice(rank * share, (rank + 1) * share)
    try:
        losses = train(model, compiled, part, options.steps, tell=options.tell)
    except dynamo_onnx.DynamoOnnxError:
        raise
    except RuntimeError as error:  # gloo's errors have no class of their own
        print(f"rank {rank}: another process ended or does not answer: {error}", file=sys.stderr)
        leave(1)
    weights = [p.full_tensor() if isinstance(p, DTensor) else p for p in model.parameters()]
    dist.barrier()
    if rank > 0:
        leave(0)
    kinds = [program.kind for program in dynamo_onnx.programs()]
    print(f"{kinds.count('forward')} forward, {kinds.count('backward')} backward programs")
    alone = made()
    train(alone, alone, slice(None), options.steps)
    apart = max(
        float((a - b).detach().abs().max())
        for a, b in zip(weights, alone.parameters(), strict=True)
    )
    print(f"loss {losses[0]:.4f} to {losses[-1]:.4f}; weights differ by {apart:.1e} at most")
    leave(0 if apart < TOLERANCE else 1)


def leave(code: int) -> NoReturn:
    """End the process with the group as it is.

    torch 2.13 takes a group down in a destructor, which holds Python's lock and waits for a thread
    of gloo's; that may wait for the lock. And a broken group can abort the process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
