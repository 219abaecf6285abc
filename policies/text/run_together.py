"""Words that were written without blanks between them: "ARedBall", "aredball".

Humps are split where they are. Other long words that no list knows are cut into known ones, by the fewest cuts; a word
so long that it is none, and that cannot be cut, hides what it says from every list.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from safegen.errors import PolicyError

DATA = Path(__file__).parents[1] / "data"
TOO_LONG = 20
"""Letters: a longer word is no English one, but for a few that name substances."""

_WORD = re.compile(r"[a-z]{8,}")
_HUMPS = re.compile(r"[A-Za-z][a-z]*(?:[A-Z][a-z]+)+")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SHORT = frozenset(
    {"a", "i", "an", "at", "by", "go", "he", "in", "is", "it", "me", "my", "no", "of", "on", "to", "up", "we"}
)
_ENDINGS = ("s", "es", "ed", "ing", "ly", "er", "d")
_LONGEST = 18


@cache
def _known() -> frozenset[str]:
    """All single words of the English vocabulary and of the word lists."""
    words: set[str] = set()
    try:
        for path in (DATA / "english.vocabulary", *sorted(DATA.glob("*.txt"))):
            for line in path.read_text("utf-8").casefold().splitlines():
                if not line.startswith("#"):
                    words.update(re.findall(r"[a-z]{3,}", line))
    except (OSError, UnicodeDecodeError) as exc:
        raise PolicyError(f"the word lists cannot be read: {exc}", remedy="Reinstall safegen.") from exc
    return frozenset(words)


def _is_known(word: str) -> bool:
    if len(word) < 3:
        return word in _SHORT
    known = _known()
    return word in known or any(word.endswith(e) and word[: -len(e)] in known for e in _ENDINGS)


@cache
def cuts(word: str) -> tuple[int, ...]:
    """Where to cut a lower-case word of ASCII letters into known words; empty where it is known, or cannot be cut."""
    if _is_known(word) or len(word) > 400:
        return ()
    best: list[tuple[int, int] | None] = [(0, 0)] + [None] * len(word)  # (pieces so far, start of the last piece)
    for end in range(1, len(word) + 1):
        for start in range(max(0, end - _LONGEST), end):
            before = best[start]
            here = best[end]
            if before is not None and (here is None or before[0] + 1 < here[0]) and _is_known(word[start:end]):
                best[end] = (before[0] + 1, start)
    last = best[len(word)]
    if last is None or len(word) < 3 * last[0]:  # crumbs: almost any letters can be cut into pairs
        return ()
    found, at = [], len(word)
    while (step := best[at]) is not None and step[1] > 0:
        at = step[1]
        found.append(at)
    return tuple(reversed(found))


def humps(text: str) -> list[int]:
    """Places in a text, as written, where one word with humps is to be cut."""
    return [m.start() + cut.start() for m in _HUMPS.finditer(text) for cut in _HUMP.finditer(m[0])]


def seams(text: str) -> list[int]:
    """Places in a lower-case text where words that run together are to be cut."""
    return [m.start() + cut for m in _WORD.finditer(text) for cut in cuts(m[0])]


def hides_words(text: str) -> bool:
    """Whether a lower-case text holds a word that is too long to be one and cannot be cut into known ones."""
    return any(len(m[0]) >= TOO_LONG and not _is_known(m[0]) and not cuts(m[0]) for m in _WORD.finditer(text))
