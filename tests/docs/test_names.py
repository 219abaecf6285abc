"""What documents and docstrings name exists: modules, what is in them, files, tests."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, pages

FOLDERS = ("benchmarks", "detectors", "docs", "migrations", "policies", "safegen", "tests", "tools", "watermark")
DOTTED = re.compile(r"(?<![\w./:@-])safegen(?:\.[A-Za-z_]\w*+)++(?![\w/.-]*[/@-]|\.\d)")
PATH = re.compile(rf"(?<![\w./<$-])(?:{'|'.join(FOLDERS)})/[\w./*-]+|(?<![\w./])test_\w+\.py")
DOMAINS = "safegen/watermark/v1/"  # strings that keys are derived for, in the form of a path


def documents() -> list[str]:
    """Every page but decisions, which say what was there when they were taken."""
    return [name for name in pages() if not name.startswith("docs/adr/")]


def sources() -> list[str]:
    folders = [ROOT / folder for folder in FOLDERS if folder not in ("docs", "tests")]
    return sorted(str(path.relative_to(ROOT)) for folder in folders for path in folder.rglob("*.py"))


def texts(name: str) -> Iterator[str]:
    """A page whole; of a module, its comments and strings."""
    content = (ROOT / name).read_text("utf-8")
    if name.endswith(".py"):
        for token in tokenize.generate_tokens(io.StringIO(content).readline):
            if token.type in (tokenize.COMMENT, tokenize.STRING):
                yield token.string
    else:
        yield content


@pytest.mark.parametrize("name", documents())
def test_what_a_page_names_is_there(name: str) -> None:
    assert not _missing(name)


@pytest.mark.slow
def test_what_comments_and_docstrings_name_is_there() -> None:
    missing = {name: found for name in sources() if (found := _missing(name))}
    assert not missing


def _missing(name: str) -> list[str]:
    missing = []
    for text in texts(name):
        missing += [found for found in DOTTED.findall(text) if not _resolves(found)]
        missing += [found for found in PATH.findall(text) if not _exists(found, (ROOT / name).parent)]
    return missing


def _resolves(dotted: str) -> bool:
    parts = dotted.split(".")
    for known in range(len(parts), 0, -1):
        try:
            found: object = import_module(".".join(parts[:known]))
        except ModuleNotFoundError:
            continue
        return _reaches(found, parts[known:])
    return False


def _reaches(found: object, parts: list[str]) -> bool:
    for part in parts:
        if part in getattr(found, "__dataclass_fields__", {}):
            return True
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


def _exists(path: str, beside: Path) -> bool:
    if path.startswith(DOMAINS):
        return True
    path = path.rstrip(".*-")
    if path.startswith("test_"):
        return any(True for _ in (ROOT / "tests").rglob(path))
    return any((folder / path).exists() or any(True for _ in folder.glob(f"{path}*")) for folder in (ROOT, beside))
