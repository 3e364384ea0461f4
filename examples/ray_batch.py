"""Embed many texts with Ray Data: two actors, each of which loads the bundle once.

    python examples/save_bundle.py build/minilm    # once, with PyTorch
    python examples/ray_batch.py build/minilm      # needs: pip install 'dynamo-onnx[cpu,ray]'

The texts are what the modules of Python's standard library say about themselves. Exits with 1 if
they come back in another order, if an actor loaded the bundle more than once, or if a vector is
not what the bundle gives here. On a cluster, the folder must lie where every machine can read it.
"""

from __future__ import annotations

import argparse
import ast
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
from tokenizers import Tokenizer

from dynamo_onnx.runtime import load

ACTORS = 2
TOLERANCE = 1e-5


class Embedder:
    """What an actor holds: the bundle, opened when the actor starts."""

    loads = 0  # by this process

    def __init__(self, folder: Path) -> None:
        self.bundle = load(folder / "model.onnxbundle", threads=1)  # the actors share the cores
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_padding()
        self.tokenizer.enable_truncation(512)
        type(self).loads += 1

    def __call__(self, batch: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Add to the texts their vectors, and who made them."""
        texts = batch["text"]
        return {
            **batch,
            "vector": self.vectors(texts.tolist()),
            "process": np.full(len(texts), os.getpid()),
            "loads": np.full(len(texts), self.loads),
        }

    def vectors(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """[B, 384], of unit length."""
        encoded = self.tokenizer.encode_batch(texts)
        return self.bundle(
            input_ids=np.array([text.ids for text in encoded]),
            attention_mask=np.array([text.attention_mask for text in encoded]),
        )


def module_texts() -> list[str]:
    """The first paragraph of each module's docstring."""
    parsed = (
        ast.parse(path.read_bytes()) for path in sorted(Path(ast.__file__).parent.glob("*.py"))
    )
    docstrings = filter(None, map(ast.get_docstring, parsed))
    return [text.split("\n\n")[0] for text in docstrings]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="as save_bundle.py writes it")
    folder: Path = parser.parse_args().folder.resolve()
    texts = module_texts()

    ray.init(num_cpus=ACTORS, include_dashboard=False, log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.wait_for_min_actors_s = 120  # or the first to be ready does it all
    dataset = ray.data.from_items([{"text": text} for text in texts], override_num_blocks=8)
    embedded = dataset.map_batches(
        Embedder,
        fn_constructor_args=(folder,),
        compute=ray.data.ActorPoolStrategy(size=ACTORS),
        batch_size=16,
    )
    start = time.perf_counter()
    rows = embedded.take_all()
    seconds = time.perf_counter() - start
    ray.shutdown()

    in_order = [row["text"] for row in rows] == texts
    loads = {row["process"]: row["loads"] for row in rows}
    expected = Embedder(folder).vectors(texts[:16])
    difference = np.abs([row["vector"] for row in rows[:16]] - expected).max()
    print(f"{len(rows)} texts in {seconds:.1f} s, {'in order' if in_order else 'OUT OF ORDER'}")
    for process, count in loads.items():
        share = sum(row["process"] == process for row in rows)
        print(f"  process {process}: {share} texts; loads of the bundle: {count}")
    print(f"max |here - there| {difference:.1e}")
    right = in_order and set(loads.values()) == {1} and len(loads) == ACTORS
    return 0 if right and difference <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
