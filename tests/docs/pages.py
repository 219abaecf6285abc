"""The pages that are documentation, and the blocks of code in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUN = ("sh", "console", "python")
KNOWN = (*RUN, "yaml", "json", "sql", "text")
"""Every block says which it is. Those in RUN are run, yaml and json are parsed, sql is executed, text is left alone."""

_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_NOT_RUN = re.compile(r"<!-- not run: (?P<why>[^>]+?) -->\s*\Z")
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    language: str
    text: str
    title: str = ""  # the file that the block shows; it is there before any block runs
    not_run: str = ""  # why it is not run

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """Every page, by its path in the repository."""
    found = [p for p in (ROOT / "docs").rglob("*.md") if p.name != "template.md"]
    top = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
    return sorted(str(p.relative_to(ROOT)) for p in (*found, *top) if p.is_file())


def blocks(page: str) -> Iterator[Block]:
    """The blocks of a page, in their order."""
    text = (ROOT / page).read_text("utf-8")
    for found in _FENCE.finditer(text):
        indent, info = found["indent"], found["info"]
        language = info.split(" ", 1)[0]
        lines = [line.removeprefix(indent) for line in found["text"].splitlines()]
        reason = _NOT_RUN.search(text[: found.start()])
        title = _TITLE.search(info)
        yield Block(
            page,
            text.count("\n", 0, found.start()) + 1,
            language,
            "\n".join(lines) + "\n",
            title[1] if title else "",
            reason["why"] if reason else "",
        )
