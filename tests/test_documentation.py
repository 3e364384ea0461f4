"""The pages are true: their code runs and prints what they say, and they name what the code has."""

from __future__ import annotations

import argparse
import ast
import contextlib
import dataclasses
import doctest
import importlib.util
import io
import linecache
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import dynamo_onnx
from dynamo_onnx import registry
from dynamo_onnx.__main__ import _parser
from dynamo_onnx.backend.export.errors import OnnxExporterError
from dynamo_onnx.backend.options import Options, Quantize
from dynamo_onnx.backend.report import CompileReport, Fallback, QuantizedProgram, Timings
from dynamo_onnx.backend.saved import CachedProgram, Port
from dynamo_onnx.backend.state import GraphBreak
from dynamo_onnx.lowering.ops import OWN_RULES
from dynamo_onnx.runtime.compare import TOLERANCE
from dynamo_onnx.runtime.errors import DynamoOnnxError, Reason, ReasonKind
from dynamo_onnx.runtime.placement import Copied, Placed
from dynamo_onnx.runtime.providers import _KNOWN

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
_FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
# What differs from run to run: measured numbers, lines of pages, the names of symbols.
_VARIES = re.compile(
    r"-?\d+\.\d+(e[-+]\d+)?|\d+(?= ms)|(?<=partition )\d+|(?<=lowering )\d+|(?<=sessions )\d+(?=\))"
    r"|(?<=example\.py:)\d+|(?<=\bs)\d+\b"
)


@dataclass(frozen=True)
class Block:
    """A fenced block: what stands behind the fence, its text, and the line that it begins at."""

    info: str
    text: str
    line: int

    @property
    def runs(self) -> bool:
        """A title says why a block does not run."""
        return self.info == "python"

    @property
    def is_output(self) -> bool:
        """What the block before it prints."""
        return self.info == 'text title="prints"'


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(m["info"].strip(), m["text"], text.count("\n", 0, m.start()) + 2)
        for m in _FENCE.finditer(text)
    ]


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


# ------------------------------------------------------------------------------------ the site
@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """What mkdocs runs when it builds the site."""
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["docs_hooks"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: a warning, such as a link to nowhere, is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_the_site_builds_without_warnings_and_has_every_page(site: Path) -> None:
    for page in DOCS.glob("*.md"):
        assert (site / f"{page.stem}.html").is_file()
    assert not list(site.rglob("*.py"))


def test_nothing_of_the_site_is_fetched_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        tags = re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", text)
        assert [tag for tag in tags if re.search(r'(?:src|href)="(?:https?:)?//', tag)] == []
        assert 'class="mermaid"' not in text  # its script would come from elsewhere
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", sheet.read_text())


def test_markers_are_replaced_and_pictures_are_there(site: Path) -> None:
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "<!-- fields:" not in text
        assert "<!-- bench:" not in text
        for picture in re.findall(r'<img[^>]* src="([^"]+)"', text):
            assert (site / picture).is_file(), f"{page.name}: {picture}"


# ---------------------------------------------------------------------- fields of dataclasses
@pytest.mark.parametrize(("page", "kind"), [("options", Options), ("quantization", Quantize)])
def test_each_option_is_on_its_page_with_type_default_and_text(
    page: str, kind: type[Any], site: Path, hooks: ModuleType
) -> None:
    file = "backend/options.py"
    fields = {field.name: field for field in hooks.fields_of(file, kind.__name__)}
    assert list(fields) == [field.name for field in dataclasses.fields(kind)]
    text = unescape(re.sub(r"<[^>]+>", "", (site / f"{page}.html").read_text(encoding="utf-8")))
    for field in dataclasses.fields(kind):
        told = fields[field.name]
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if default is dataclasses.MISSING:
            assert told.default == ""
        else:
            assert eval(told.default) == default
        assert told.keyed == ("cache_key" in field.metadata)
        assert told.doc
        assert " ".join(re.sub("`", "", told.doc).split()[:6]) in " ".join(text.split())


def test_the_readme_has_each_option_with_its_default() -> None:
    section = _section(ROOT / "README.md", "Options")
    rows = {row[0].strip("`"): row[1].strip("`") for row in _rows(section)}
    assert list(rows) == [field.name for field in dataclasses.fields(Options)]
    for field in dataclasses.fields(Options):
        if field.default not in (None, (), frozenset(), dataclasses.MISSING):
            assert rows[field.name].replace('"', "'") == repr(field.default)


@pytest.mark.parametrize(
    ("page", "kind"),
    [
        ("reports", CompileReport),
        ("reports", Fallback),
        ("reports", Reason),
        ("reports", GraphBreak),
        ("reports", Timings),
        ("reports", QuantizedProgram),
        ("reports", Placed),
        ("reports", Copied),
        ("saved_programs", CachedProgram),
        ("saved_programs", Port),
    ],
)
def test_a_page_has_every_field_of_a_dataclass(page: str, kind: type[Any]) -> None:
    rows = _rows(_section(DOCS / f"{page}.md", f"`{kind.__name__}`"))
    told = [(row[0].strip("`"), unescape(re.sub("`|</?code>", "", row[1]))) for row in rows]
    assert told == [(field.name, str(field.type)) for field in dataclasses.fields(kind)]
    assert all(row[2] for row in rows)


def _section(page: Path, heading: str) -> str:
    """What stands below a heading of the second level."""
    text = page.read_text(encoding="utf-8")
    _, _, rest = text.partition(f"\n## {heading}\n")
    assert rest, f"{page.name} has no section {heading}"
    return rest.partition("\n## ")[0]


def _rows(section: str) -> list[list[str]]:
    """The cells of the tables' rows, without headers."""
    lines = [line for line in section.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    rulers = [index for index, row in enumerate(rows) if set("".join(row)) <= set("-: ")]
    headers = {index - 1 for index in rulers}
    return [row for index, row in enumerate(rows) if index not in headers.union(rulers)]


# ------------------------------------------------------------------------------------- errors
def texts_of_the_code() -> list[str]:
    """The string literals of the package, with a … for each part that is put in."""
    found: list[str] = []
    for folder in ("api", "backend", "lowering", "runtime"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value.replace("%s", "…").replace("%r", "…"))
                elif isinstance(node, ast.JoinedStr):
                    parts = [
                        str(part.value) if isinstance(part, ast.Constant) else "…"
                        for part in node.values
                    ]
                    found.append("".join(parts))
    return found


def occurs(told: str, texts: list[str]) -> bool:
    """Do the parts of a text that do not vary stand in one literal, in this order?"""
    parts = [re.escape(part) for raw in told.split("…") if (part := raw.strip(" :;,.()"))]
    pattern = re.compile(".*".join(parts), re.DOTALL)
    return any(pattern.search(text) for text in texts)


def test_texts_of_errors_are_those_of_the_code() -> None:
    texts = texts_of_the_code()
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    kinds = _rows(_section(DOCS / "troubleshooting.md", "What runs in eager, by kind of reason"))
    told = [text for row in kinds for text in re.findall(r"`([^`]+)`", row[1])]
    for heading in re.findall(r"^## `(\w+Error)`$", page, re.MULTILINE):
        rows = _rows(_section(DOCS / "troubleshooting.md", f"`{heading}`"))
        told += [row[0].strip("`").replace("\\|", "|") for row in rows]
    assert len(told) > 80
    assert [text for text in told if not occurs(text, texts)] == []
    assert not occurs("unknown option … in a bottle", texts)


def test_each_class_of_errors_and_each_kind_of_reason_has_its_place() -> None:
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    headings = set(re.findall(r"^## `(\w+)`$", page, re.MULTILINE))
    classes = {c.__name__ for c in DynamoOnnxError.__subclasses__()} | {OnnxExporterError.__name__}
    assert headings == {name for name in classes if hasattr(dynamo_onnx, name)} | {"ImportError"}
    kinds = _rows(_section(DOCS / "troubleshooting.md", "What runs in eager, by kind of reason"))
    assert [row[0].strip("`") for row in kinds] == [kind.value for kind in ReasonKind]


# ------------------------------------------------------------------------------- names in text
def test_commands_of_the_pages_are_commands() -> None:
    parser = _parser()
    for page in PAGES:
        for block in blocks(page):
            if block.info != "sh":
                continue
            for line in block.text.splitlines():
                if line.startswith("python -m dynamo_onnx ") and " | " not in line:
                    parser.parse_args(shlex.split(line, comments=True)[3:])


def test_each_command_and_flag_is_on_the_page_of_the_command_line() -> None:
    page = (DOCS / "command_line.md").read_text(encoding="utf-8")
    (commands,) = (a for a in _parser()._actions if a.dest == argparse.SUPPRESS or a.choices)
    assert commands.choices is not None
    for name, command in commands.choices.items():
        assert f"`{name}`" in page
        for action in command._actions:
            for flag in action.option_strings:
                assert flag in ("-h", "--help") or flag in page, f"{name} {flag}"


def test_the_table_of_providers_is_that_of_the_code() -> None:
    rows = _rows(_section(DOCS / "providers.md", "By name"))
    told = [tuple(cell.replace("`", "") for cell in row) for row in rows]
    assert told == [(k.name, ", ".join(k.short), k.package) for k in _KNOWN]


def test_the_page_on_verification_has_the_tolerances() -> None:
    rows = _rows(_section(DOCS / "verification.md", "What counts as different"))
    told = {row[0]: row[1] for row in rows if row[1][:1].isdigit()}
    wanted = {str(dtype).removeprefix("torch."): value for dtype, value in TOLERANCE.items()}
    assert {name: float(value) for name, value in told.items()} == wanted


def test_every_public_name_is_in_the_reference() -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    for name in dynamo_onnx.__all__:
        assert f"dynamo_onnx.{name}" in page, name
