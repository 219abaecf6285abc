"""Rewrites a prompt by rule: the words that matched are replaced, or taken out, and nothing else is touched."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_MIN_WORDS = 2
_SPACE = re.compile(r"[ \t]{2,}")
_BEFORE_MARK = re.compile(r"[ \t]+(?=[,.;:!?])")
_MARKS = re.compile(r"([,;:])(?:[ \t]*[,;:])+")
_MAX_SHARE = 0.5  # of the prompt that may go: more is another prompt, not this one rewritten


def rewrite_prompt(
    prompt: str, found: Sequence[tuple[str, tuple[int, int]]], replacements: Mapping[str, str]
) -> tuple[str, int] | None:
    """Return the prompt without the words that matched, and how many pieces were replaced.

    ``found``: category and range of the prompt of each match; ``replacements``: the words to put there, by category.
    None where it cannot be done: a match has no place in the text, or too little would be left.
    """
    pieces: list[tuple[int, int, str]] = []
    for category, (start, end) in found:
        if not 0 <= start < end <= len(prompt):
            return None
        start, end = _whole_words(prompt, start, end)
        new = replacements.get(category, "")
        pieces.append((start, end, new))
        # The same words elsewhere: a rule reports its first match only.
        same = re.compile(rf"(?<!\w){re.escape(prompt[start:end])}(?!\w)", re.IGNORECASE)
        pieces += [(m.start(), m.end(), new) for m in same.finditer(prompt)]
    merged: list[tuple[int, int, str]] = []
    for start, end, new in sorted(set(pieces)):
        if merged and start < merged[-1][1]:
            first, last, words = merged[-1]
            merged[-1] = (first, max(last, end), words)
        else:
            merged.append((start, end, new))
    if sum(end - start for start, end, _ in merged) > _MAX_SHARE * len(prompt.strip()):
        return None
    out, at = [], 0
    for start, end, new in merged:
        out += [prompt[at:start], new]
        at = end
    text = _BEFORE_MARK.sub("", _SPACE.sub(" ", "".join([*out, prompt[at:]])))
    text = _MARKS.sub(r"\1", text).strip(" \t,;")
    if len(re.findall(r"\w+", text)) < _MIN_WORDS:
        return None
    return text, len(merged)


def _whole_words(text: str, start: int, end: int) -> tuple[int, int]:
    while start > 0 and text[start - 1].isalnum() and text[start].isalnum():
        start -= 1
    while end < len(text) and text[end].isalnum() and text[end - 1].isalnum():
        end += 1
    return start, end
