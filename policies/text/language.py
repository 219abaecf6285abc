"""Whether the text classifiers can read a text at all. They know English; what they cannot read goes to a person.

Four tests, all deliberately simple: a word of two letters or more in another script is unreadable; a text without any
word says nothing that could be judged; a word too long to be one hides what it says; and a text of Latin letters of
which hardly a word is in a small English vocabulary is in another language, or is no language.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from safegen.policies.text.run_together import hides_words
from safegen.policies.text.views import View, fold_character

VOCABULARY = Path(__file__).parents[1] / "data" / "english.vocabulary"
_WORD = re.compile(r"[^\W\d_]{2,}", re.UNICODE)
_MIN_WORDS = 4  # fewer words say too little about a language
_MIN_KNOWN = 0.5
_GIBBERISH = 0.25  # less is no English, nor half of it
_ENCODINGS = frozenset({"base64", "hex", "percent", "entities", "escapes"})
_ENDINGS = ("s", "es", "ed", "ing", "ly", "er", "d")


@cache
def vocabulary() -> frozenset[str]:
    """Return the English words that the language test knows."""
    lines = VOCABULARY.read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))


def unreadable(text: str, views: Sequence[View]) -> str:
    """Return why a text cannot be read (its script, no words, words run together, its vocabulary); "" where it can."""
    for word in _WORD.findall(text):
        if not word.isascii() and not any("a" <= c <= "z" for c in _folded(word)):
            return "script"
    if not any(_WORD.search(view.text) for view in views if view.reliable):
        return "no words"
    if not any(view.name in _ENCODINGS for view in views) and hides_words(views[0].text):
        return "run together"
    known = vocabulary()
    best = 1.0
    for view in views:
        if not view.reliable:
            continue
        words = _WORD.findall(view.text)
        if len(words) < _MIN_WORDS:
            if view.name == "base64" or len(views) == 1:
                return ""
            continue
        share = sum(_known(w, known) for w in words) / len(words)
        if share >= _MIN_KNOWN:
            return ""
        best = min(best, share)
    return "vocabulary" if best < _MIN_KNOWN else ""


def legible(views: Sequence[View]) -> list[View]:
    """Return the reliable views but those that are gibberish beside one that reads as English.

    What a disguise looks like before it is taken off resembles nothing that a classifier has learned from, and scores
    at random. Word lists search every view all the same.
    """
    reliable = [view for view in views if view.reliable]
    shares = [_share(view) for view in reliable]
    if max(shares, default=0.0) < _MIN_KNOWN:
        return reliable
    return [view for view, share in zip(reliable, shares, strict=True) if share >= _GIBBERISH]


def _share(view: View) -> float:
    """The share of words that are English ones; 0 where there are too few to tell."""
    words, known = _WORD.findall(view.text), vocabulary()
    return sum(_known(w, known) for w in words) / len(words) if len(words) >= _MIN_WORDS else 0.0


def _known(word: str, known: frozenset[str]) -> bool:
    return word in known or any(word.endswith(e) and word[: -len(e)] in known for e in _ENDINGS)


def _folded(word: str) -> str:
    """Return the word with look-alikes undone, but only where it mixes scripts: a whole foreign word stays foreign."""
    latin = sum(_is_latin(c) for c in word)
    if latin:
        return "".join(fold_character(c) for c in word)
    # Full-width and styled letters are Latin in disguise: NFKC alone makes them so. Cyrillic words are not.
    return unicodedata.normalize("NFKC", word).lower()


def _is_latin(char: str) -> bool:
    return "LATIN" in unicodedata.name(char, "")
