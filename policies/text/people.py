"""Finds people's names in a text: a given name beside a family name, or a title before a family name.

Names that everybody knows are a word list (``data/public_figures.txt``); this finds the others. Both tests work on
lower-case words, because prompts are often written without capitals and disguises take them away. A given name that
is a word too ("rose", "will") needs a family name that is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from safegen.errors import PolicyError
from safegen.policies.text.language import vocabulary

_DATA = Path(__file__).parents[1] / "data"
_TITLES = frozenset((
    "president", "senator", "congressman", "congresswoman", "governor", "chancellor", "minister", "mr", "mrs", "ms",
    "miss", "dr", "prof", "professor", "sir", "dame", "judge", "justice", "sheriff",
))  # fmt: skip


@cache
def _names(file: str) -> frozenset[str]:
    try:
        lines = (_DATA / file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise PolicyError(
            f"the names cannot be read: {exc}", remedy="Reinstall safegen: its data files are damaged."
        ) from exc
    return frozenset(line for line in lines if line and not line.startswith("#"))


def load_names() -> None:
    """Read the name lists now; PolicyError where they are missing."""
    for file in ("given.names", "family.names", "ambiguous.names"):
        if not _names(file):
            raise PolicyError(f"the name list {file} is empty", remedy="Reinstall safegen: its data files are damaged.")


def is_title(word: str) -> bool:
    """Whether a word before a family name makes it a name."""
    return word in _TITLES


def find_people(text: str, words: Sequence[tuple[str, int, int]]) -> list[tuple[int, int, int]]:
    """Return (start, end, index of the first word) of each name; ``words`` are the text's, with where they lie.

    Words of one name are apart by one blank, hyphen or initial ("ada b. wong").
    """
    given, family = _names("given.names"), _names("family.names")
    ambiguous, common = _names("ambiguous.names"), vocabulary()
    found = []
    for i, (word, start, end) in enumerate(words[:-1]):
        title = word in _TITLES
        if not title and word not in given:
            continue
        j = i + 1
        if len(words[j][0]) == 1 and j + 1 < len(words) and not title:
            j += 1  # an initial in between
        last, at, last_end = words[j]
        last = last.removesuffix("'s")
        gap = text[end:at].replace(words[i + 1][0], "") if j > i + 1 else text[end:at]
        if last not in family or gap.strip(" .-") or len(gap) > 4:
            continue
        if (title or word in ambiguous) and last in common:
            continue
        found.append((start, last_end, i))
    return found
