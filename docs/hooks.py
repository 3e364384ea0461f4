"""What mkdocs adds to the pages when it builds the site, so that nothing is copied by hand.

In a page, `<!-- fields: backend/options.py Options -->` becomes the fields of that dataclass, with
their types, defaults and docstrings, and `<!-- bench: inference -->` the README's section of that
benchmark. The sources are read, never imported.
"""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("backend", "lowering", "runtime")
_WIDE = ("coverage.md", "models.md", "exports.md")
_FIELDS = re.compile(r"<!-- fields: (?P<file>\S+) (?P<name>\w+) -->")
_BENCH = re.compile(r"<!-- bench: (?P<section>\w+) -->")


def on_startup(**_: object) -> None:
    """Lay the package out as it is when installed, in links, where the API reference reads it."""
    package = ROOT / "build" / "docs" / "dynamo_onnx"
    package.mkdir(parents=True, exist_ok=True)
    for link in package.iterdir():
        if not link.exists():  # what it led to is no more
            link.unlink(missing_ok=True)
    for source in (*(ROOT / "api").glob("*.py"), *(ROOT / name for name in PACKAGES)):
        with contextlib.suppress(FileExistsError):  # of an earlier build, or one beside this
            (package / source.name).symlink_to(source)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pictures that the benchmarks drew."""
    for picture in sorted((ROOT / "benchmarks" / "results").glob("*.png")):
        file = File.generated(config, f"benchmarks/{picture.name}", abs_src_path=str(picture))
        files.append(file)
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """The page with the markers replaced. Pages of wide tables have no contents beside them."""
    if page.file.src_uri in _WIDE:
        page.meta["hide"] = ["toc"]
    markdown = _FIELDS.sub(lambda m: _definitions(m["file"], m["name"]), markdown)
    return _BENCH.sub(
        lambda m: f'<div class="bench" markdown>\n\n{bench_section(m["section"])}\n\n</div>',
        markdown,
    )


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a dataclass as its source has it."""

    name: str
    type: str
    default: str
    doc: str
    keyed: bool


def fields_of(file: str, name: str) -> Iterator[Field]:
    """The annotated names of a class, in order."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    (found,) = (n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == name)
    for node, after in zip(found.body, [*found.body[1:], ast.Pass()], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        default, keyed = _default(node.value)
        yield Field(node.target.id, ast.unparse(node.annotation), default, _text(after), keyed)


def _default(value: ast.expr | None) -> tuple[str, bool]:
    """The default as Python, and whether the field is part of a program's fingerprint."""
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "field":
        given = {k.arg: ast.unparse(k.value) for k in value.keywords}
        factory = given.get("default_factory", "").partition("[")[0]
        return given.get("default", f"{factory}()"), given.get("metadata") == "KEYED"
    return ("" if value is None else ast.unparse(value)), False


def _text(node: ast.stmt) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return " ".join(str(node.value.value).split())
    return ""


def _definitions(file: str, name: str) -> str:
    parts: list[str] = []
    for each in fields_of(file, name):
        default = f", default `{each.default}`" if each.default else ", required"
        key = " Part of a program's fingerprint." if each.keyed else ""
        anchor = f"{{: #{name.lower()}.{each.name} }}"
        parts.append(f"`{each.name}`{anchor} : `{each.type}`{default}\n:   {each.doc}{key}\n")
    return "\n".join(parts)


def bench_section(section: str) -> str:
    """What stands in the README between the markers of a benchmark."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    begin, end = f"<!-- bench:{section}:begin -->", f"<!-- bench:{section}:end -->"
    body = readme.partition(begin)[2].partition(end)[0].strip()
    if not body:
        raise ValueError(f"README.md has no section {begin}")
    return body.replace("](benchmarks/results/", "](benchmarks/")
