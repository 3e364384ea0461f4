"""What the pages name is what the code has: fields, defaults, errors, commands, providers."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import re
import shlex
from html import unescape
from typing import Any

import pytest

import dynamo_onnx
from dynamo_onnx.__main__ import _parser
from dynamo_onnx.backend.export.errors import OnnxExporterError
from dynamo_onnx.backend.options import Options
from dynamo_onnx.backend.report import CompileReport, Fallback, QuantizedProgram, Timings
from dynamo_onnx.backend.saved import CachedProgram, Port
from dynamo_onnx.backend.state import GraphBreak
from dynamo_onnx.runtime.compare import TOLERANCE
from dynamo_onnx.runtime.errors import DynamoOnnxError, Reason, ReasonKind
from dynamo_onnx.runtime.placement import Copied, Placed
from dynamo_onnx.runtime.providers import _KNOWN

from .pages import DOCS, PAGES, ROOT, blocks, rows_of, section_of


def test_the_readme_has_each_option_with_its_default() -> None:
    section = section_of(ROOT / "README.md", "Options")
    rows = {row[0].strip("`"): row[1].strip("`") for row in rows_of(section)}
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
    rows = rows_of(section_of(DOCS / f"{page}.md", f"`{kind.__name__}`"))
    told = [(row[0].strip("`"), unescape(re.sub("`|</?code>", "", row[1]))) for row in rows]
    assert told == [(field.name, str(field.type)) for field in dataclasses.fields(kind)]
    assert all(row[2] for row in rows)


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
    kinds = rows_of(
        section_of(DOCS / "troubleshooting.md", "What runs in eager, by kind of reason")
    )
    told = [text for row in kinds for text in re.findall(r"`([^`]+)`", row[1])]
    for heading in re.findall(r"^## `(\w+Error)`$", page, re.MULTILINE):
        rows = rows_of(section_of(DOCS / "troubleshooting.md", f"`{heading}`"))
        told += [row[0].strip("`").replace("\\|", "|") for row in rows]
    assert len(told) > 80
    assert [text for text in told if not occurs(text, texts)] == []
    assert not occurs("unknown option … in a bottle", texts)


def test_each_class_of_errors_and_each_kind_of_reason_has_its_place() -> None:
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    headings = set(re.findall(r"^## `(\w+)`$", page, re.MULTILINE))
    classes = {c.__name__ for c in DynamoOnnxError.__subclasses__()} | {OnnxExporterError.__name__}
    assert headings == {name for name in classes if hasattr(dynamo_onnx, name)} | {"ImportError"}
    kinds = rows_of(
        section_of(DOCS / "troubleshooting.md", "What runs in eager, by kind of reason")
    )
    assert [row[0].strip("`") for row in kinds] == [kind.value for kind in ReasonKind]


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
    rows = rows_of(section_of(DOCS / "providers.md", "By name"))
    told = [tuple(cell.replace("`", "") for cell in row) for row in rows]
    assert told == [(k.name, ", ".join(k.short), k.package) for k in _KNOWN]


def test_the_page_on_verification_has_the_tolerances() -> None:
    rows = rows_of(section_of(DOCS / "verification.md", "What counts as different"))
    told = {row[0]: row[1] for row in rows if row[1][:1].isdigit()}
    wanted = {str(dtype).removeprefix("torch."): value for dtype, value in TOLERANCE.items()}
    assert {name: float(value) for name, value in told.items()} == wanted


def test_every_public_name_is_in_the_reference() -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    for name in dynamo_onnx.__all__:
        assert f"dynamo_onnx.{name}" in page, name


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_of_the_files_beside_the_site_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", h).lower().replace(" ", "-") for h in headings}
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith("https://"):
            path, _, anchor = target.partition("#")
            assert (ROOT / path).exists(), target
            assert path or anchor in anchors, target
