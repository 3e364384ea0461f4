"""A report as a file: a page, text or data, by the suffix of its name."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

from ..runtime.errors import OptionError
from .dump import write_atomically
from .report import CompileReport
from .report_data import document
from .report_document import Document
from .report_markdown import markdown

_PART = re.compile(r"\{\{([\w.]+)\}\}")
# A script element ends at `</script>` wherever that stands; JSON has other spellings of these.
_IN_A_PAGE = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def write(report: CompileReport, path: Path) -> Path:
    """Write the report as the suffix says, whole or not at all."""
    made = _FORMATS.get(path.suffix)
    if made is None:
        raise OptionError(f"save: {path} must end in one of {', '.join(_FORMATS)}")
    text = made(document(report))
    # The name of a file may hold what is no text: half of a surrogate pair.
    write_atomically(path, lambda p: p.write_text(text, encoding="utf-8", errors="replace"))
    return path


def html(document: Document) -> str:
    """The page: one file, with its style, its scripts and the document in it."""
    parts = files(__name__.rpartition(".")[0]) / "page"
    plain = json.dumps(document.as_json(), separators=(",", ":"), ensure_ascii=False)
    data = plain.translate(_IN_A_PAGE)

    def part(match: re.Match[str]) -> str:
        name = match[1]
        return data if name == "document" else (parts / name).read_text(encoding="utf-8").rstrip()

    return _PART.sub(part, (parts / "page.html").read_text(encoding="utf-8"))


def data(document: Document) -> str:
    """The document itself."""
    return json.dumps(document.as_json(), indent=2) + "\n"


_FORMATS = {".html": html, ".md": markdown, ".json": data}
