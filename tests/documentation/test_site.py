"""The site builds without warnings, from these files alone, and has what the code has."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dynamo_onnx.backend.options import Options, Quantize

from .pages import DOCS, ROOT


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
