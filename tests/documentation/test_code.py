"""The code of the pages runs, and prints what they say."""

from __future__ import annotations

import contextlib
import doctest
import io
import linecache
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.compiler._cache import CacheArtifactManager

from dynamo_onnx import registry
from dynamo_onnx.lowering.ops import OWN_RULES

from .pages import PAGES, ROOT, Block, blocks

# What differs from run to run: measured numbers, lines of pages, the names of symbols.
_VARIES = re.compile(
    r"-?\d+\.\d+(e[-+]\d+)?|\d+(?= ms)|(?<=partition )\d+|(?<=lowering )\d+|(?<=sessions )\d+(?=\))"
    r"|(?<=example\.py:)\d+|(?<=\bs)\d+\b"
)


def same_output(found: str, told: str) -> bool:
    """Do both say the same, but for what varies? `...` in what is told is anything."""
    found, told = (_VARIES.sub("0", text).strip() + "\n" for text in (found, told))
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.OutputChecker().check_output(told, found, flags)


@contextlib.contextmanager
def own_rules() -> Iterator[None]:
    """No rules but ours, before and afterwards: a page may register some."""
    lowerings, version = dict(registry._lowerings), registry.version
    registry.version = OWN_RULES
    try:
        yield
    finally:
        registry._lowerings.clear()
        registry._lowerings.update(lowerings)
        registry.version = version


def run(page: Path, folder: Path) -> Iterator[tuple[Block, str]]:
    """Run a page's blocks in order, in one namespace; each with what it printed.

    They are compiled as `example.py`, at the lines that they have in the page.
    """
    file = folder / "example.py"
    module = sys.modules["example"] = ModuleType("example")  # onnxscript looks it up
    lines = page.read_text(encoding="utf-8").splitlines(keepends=True)
    linecache.cache[str(file)] = (len(lines), None, lines, str(file))
    try:
        for block in blocks(page):
            if block.runs:
                code = compile("\n" * (block.line - 1) + block.text, str(file), "exec")
                printed = io.StringIO()
                with contextlib.redirect_stdout(printed):
                    exec(code, module.__dict__)
                yield block, printed.getvalue().replace(f"{folder}/", "")
    finally:
        del sys.modules["example"], linecache.cache[str(file)]


@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if any(b.runs for b in blocks(p)) and p.name != "exporting.md"],
    ids=lambda page: page.stem,
)  # exporting.md: test_examples.py
def test_the_code_of_a_page_runs_and_prints_what_it_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("DYNAMO_ONNX_CACHE", raising=False)
    torch.compiler.reset()
    CacheArtifactManager.clear()  # of what other tests have compiled
    every = blocks(page)
    with own_rules():
        for block, printed in run(page, tmp_path):
            after = every[every.index(block) + 1 :][:1]
            if after and after[0].is_output:
                told = after[0].text
                where = f"{page.name}:{after[0].line}"
                assert same_output(printed, told), f"{where}: it prints\n{printed}"


def test_a_block_that_does_not_run_says_why_or_is_a_part_of_a_file() -> None:
    reasons = {"needs a GPU", "needs a plugin", "needs a checkpoint"}
    for page in PAGES:
        for block in blocks(page):
            if block.info.startswith("python") and not block.runs:
                title = re.fullmatch(r'python title="(?P<why>.*)"', block.info)
                assert title, f"{page.name}:{block.line}: {block.info}"
                if title["why"] not in reasons:
                    source = ROOT / title["why"]
                    assert source.is_file(), f"{page.name}:{block.line}: {block.info}"
                    assert block.text in source.read_text(encoding="utf-8"), title["why"]


def test_what_varies_is_no_difference_and_the_rest_is() -> None:
    told = (
        "3 graphs, error 0.38%\ncompile time of ours: 11 ms (partition 1, lowering 8, sessions 2)"
    )
    found = (
        "3 graphs, error 0.41%\ncompile time of ours: 9 ms (partition 0, lowering 7, sessions 2)"
    )
    assert same_output(found, told)
    assert not same_output(found.replace("3 graphs", "4 graphs"), told)
    assert same_output("a long list of things", "a long ... things")
