"""The pages as text: their blocks, sections and tables."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
_FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


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


def section_of(page: Path, heading: str) -> str:
    """What stands below a heading of the second level."""
    text = page.read_text(encoding="utf-8")
    _, _, rest = text.partition(f"\n## {heading}\n")
    assert rest, f"{page.name} has no section {heading}"
    return rest.partition("\n## ")[0]


def rows_of(section: str) -> list[list[str]]:
    """The cells of the tables' rows, without headers."""
    lines = [line for line in section.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    rulers = [index for index, row in enumerate(rows) if set("".join(row)) <= set("-: ")]
    headers = {index - 1 for index in rulers}
    return [row for index, row in enumerate(rows) if index not in headers.union(rulers)]
