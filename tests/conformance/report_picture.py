"""The README's picture of a report: `python -m tests.conformance.report_picture`.

A small model is compiled and profiled, its report is saved, and Chromium draws the page. The model
has a graph break, two guard sets for each of its frames, and three operators that stay in eager.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import dynamo_onnx

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "report.png"
WIDTH, HEIGHT = 1280, 1790


@torch.library.custom_op("demo::buckets", mutates_args=())
def buckets(tokens: torch.Tensor) -> torch.Tensor:
    return tokens * 31 % 64


@buckets.register_fake
def _(tokens: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(tokens)


class Block(torch.nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention_norm, self.norm = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.attention = torch.nn.MultiheadAttention(width, 4, batch_first=True)
        self.mlp = torch.nn.Sequential(
            torch.nn.Linear(width, 4 * width), torch.nn.GELU(), torch.nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.attention_norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm(x))


class Tagger(torch.nn.Module):
    def __init__(self, width: int = 128, depth: int = 4) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(1000, width)
        self.pieces = torch.nn.Embedding(64, width)
        self.layers = torch.nn.ModuleList([Block(width) for _ in range(depth)])
        self.head = torch.nn.Linear(width, 10)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.words(tokens) + self.pieces(buckets(tokens))
        for layer in self.layers:
            x = layer(x)
        if x.abs().max() > 1e6:
            x = x.clamp(-1, 1)
        x = torch.nn.functional.dropout(x, 0.1, training=True)
        scores = self.head(x).softmax(-1)
        return torch.multinomial(scores.flatten(0, 1), 1)


def profiled(depth: int = 4, calls: int = 10) -> dynamo_onnx.CompileReport:
    """The report of a model that ran."""
    torch.manual_seed(0)
    compiled = torch.compile(Tagger(depth=depth).eval(), backend="onnx", dynamic=False)
    with torch.no_grad():
        compiled(torch.randint(0, 1000, (4, 64)))
        return dynamo_onnx.profile(compiled, torch.randint(0, 1000, (8, 64)), calls=calls)


def chromium() -> str | None:
    """The browser, if there is one."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


def browse(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One call of the browser without a window."""
    browser = chromium()
    assert browser is not None
    quiet = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
    with tempfile.TemporaryDirectory() as home:
        command = [browser, *quiet, f"--user-data-dir={home}", "--enable-logging=stderr"]
        command += ["--virtual-time-budget=5000", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


def main() -> int:
    if chromium() is None:
        print("there is no Chromium to draw the page", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        page = profiled().save(Path(folder) / "report.html")
        browse(f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={PICTURE}", page.as_uri())
    print(f"{PICTURE}: {PICTURE.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
