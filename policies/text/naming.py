"""Whom a text names: well-known figures from their list, and anybody else whose name looks like one."""

from __future__ import annotations

from collections.abc import Sequence

from safegen.policies.text.lexicon import Lexicon, tokens
from safegen.policies.text.people import find_people, is_title
from safegen.policies.text.views import View

FIGURES = "public_figures"


def people_in(lexicon: Lexicon, views: Sequence[View]) -> frozenset[str]:
    """Return every name in any view of one text, in lower case, without titles; of names in names the longest."""
    found: set[str] = set()
    for view in views:
        words = tokens(view.text)
        spans = [(start, end) for start, end, _ in find_people(view.text, words)]
        spans += lexicon.ranges_in(view, FIGURES)
        longest = [s for s in spans if not any(t != s and t[0] <= s[0] and s[1] <= t[1] for t in spans)]
        found.update(_untitled(view.text[a:b].strip()) for a, b in longest)
    return frozenset(name for name in found if name)


def _untitled(name: str) -> str:
    """Return a name without the title before it ("president wong" is "wong")."""
    first, _, rest = name.partition(" ")
    return rest.strip() if rest and is_title(first) else name
