"""Views of a text: the same words with one disguise after another taken off.

A classifier that sees only the raw text misses words written with look-alike letters, invisible characters, digits for
letters, gaps between letters, or an encoding. Each view undoes some of that and remembers, for every character, where
it came from, so that a match in any view can be shown as the words that the user really wrote. Everything here takes
linear time and never raises on any string, lone surrogates included.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from safegen.errors import PolicyError
from safegen.policies.text import run_together
from safegen.policies.text.decodings import decodings

_MAP = Path(__file__).parents[1] / "data" / "lookalikes.map"


def _lookalikes() -> dict[str, str]:
    """Read which character looks like which plain one."""
    try:
        lines = _MAP.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise PolicyError(
            f"the table of look-alike characters cannot be read: {exc}",
            remedy="Reinstall safegen: its data files are damaged.",
        ) from exc
    pairs = (line.split("\t", 1) for line in lines if "\t" in line)
    return {odd: plain for plain, odds in pairs for odd in odds}


_TAGS = {chr(0xE0000 + code): chr(code) for code in range(0x20, 0x7F)}
"""Tag characters: invisible, and to a tokenizer as good as the ASCII that each stands for."""

_INDICATORS = {chr(0x1F1E6 + n): letter for n, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}
"""Regional indicators: two are a flag, more of them spell words."""

_CONFUSABLE = _lookalikes() | _TAGS | _INDICATORS

_ALPHABET = "abcdefghijklmnopqrstuvwxyz"
_ROT13 = str.maketrans(_ALPHABET, _ALPHABET[13:] + _ALPHABET[:13])
_LEET = str.maketrans({
    "0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "7": "t", "8": "b", "9": "g",
    "@": "a", "$": "s", "!": "i", "|": "l", "+": "t", "€": "e", "£": "l",
})  # fmt: skip
_LEET_L = str.maketrans({"1": "l", "!": "l"})  # the other reading of these two
_LEET_WORD = re.compile(r"[a-z0-9@$!|+€£]+")
_LEET_SIGN = re.compile(r"[0-9@$!|+€£]")
# Units, ordinals, resolutions and years are no disguises.
_PLAIN_NUMBER_WORD = re.compile(r"\d+(?:st|nd|rd|th|s|d|k|p|fps|mm|cm|km|m|x|hz|h|am|pm|yo)?|\d+x\d+|[a-z]\d+")
_SPELLED = re.compile(r"(?<![a-z0-9])[a-z0-9](?:[\s.\-_*·•,/\\|~+:;]{1,3}[a-z0-9](?![a-z0-9])){2,}")
_LETTER = re.compile(r"[a-z]")
_WORD_BREAK = re.compile(r"\s{2,}")
_INNER_MARK = re.compile(r"(?<=[a-z])(?:[^\w\s]|_)+(?=[a-z])")
_STRETCHED = re.compile(r"([a-z])\1{2,}")
_MAX_SYMBOLS = 64


@dataclass(frozen=True, slots=True)
class View:
    """One reading of a text.

    ``text`` is lower case; ``origin[i]`` is the index in the raw text that ``text[i]`` came from (None: the same
    index). ``spelled`` holds the spans of ``text`` that were joined from single letters and so carry no word
    boundaries. ``reliable`` is false for views that read as words only by chance (reversed, rot13). ``written`` is the
    raw text, in the first view of a text alone.
    """

    name: str
    text: str
    origin: Sequence[int] | None = None
    spelled: tuple[tuple[int, int], ...] = ()
    reliable: bool = True
    written: str = ""

    def raw_range(self, start: int, end: int) -> tuple[int, int]:
        """Return the range of the raw text behind ``text[start:end]``."""
        if start >= end:
            return (0, 0)
        if self.origin is None:
            return start, end
        where = self.origin[start:end]
        return min(where), max(where) + 1


@lru_cache(maxsize=65536)
def fold_character(char: str) -> str:
    """Return what one character stands for: NFKD without marks and format characters, look-alikes undone, lower case.

    The result is a fixed point: folding it again changes nothing.
    """
    text = _CONFUSABLE.get(char, char)
    for _ in range(6):
        kept = (
            c for c in unicodedata.normalize("NFKD", text) if unicodedata.category(c) not in ("Mn", "Me", "Cf", "Cs")
        )
        plain = "".join(_CONFUSABLE.get(c, c) for c in "".join(kept).casefold())
        # Control characters and every kind of blank read as one space.
        plain = "".join(" " if c.isspace() or unicodedata.category(c) in ("Cc", "Zs") else c for c in plain)
        if plain == text:
            break
        text = plain
    return text


def fold(text: str) -> View:
    """Return the ``clean`` view: every character folded, offsets kept."""
    if text.isascii():
        lowered = text.lower()
        if "\x00" not in lowered and lowered.replace("\n", " ").replace("\t", " ").isprintable():
            return View("clean", lowered.replace("\n", " ").replace("\t", " "))
    pieces = [fold_character(c) for c in text]
    origin = [i for i, piece in enumerate(pieces) for _ in piece]
    return View("clean", "".join(pieces), origin)


def _edit(view: View, name: str, edits: list[tuple[int, int, str]], *, spelled: bool = False) -> View:
    """Return ``view`` with the ranges replaced; each new character maps onto a place in its range."""
    out: list[str] = []
    origin: list[int] = []
    marks: list[tuple[int, int]] = [] if spelled else list(view.spelled)
    base = view.origin if view.origin is not None else range(len(view.text))
    at = length = 0
    for start, end, new in edits:
        out.append(view.text[at:start])
        origin.extend(base[at:start])
        length += start - at
        step = (end - start - 1) / max(len(new) - 1, 1)
        origin.extend(base[start + round(k * step)] for k in range(len(new)))
        out.append(new)
        if spelled:
            marks.append((length, length + len(new)))
        length += len(new)
        at = end
    out.append(view.text[at:])
    origin.extend(base[at:])
    return View(name, "".join(out), origin, tuple(marks), view.reliable)


def _unleet(view: View, first: dict[int, str] | None = None) -> View:
    """Read digits and signs as the letters that they look like, in words that hold a letter too.

    ``first``: readings that go before the usual ones.
    """
    edits = []
    for found in _LEET_WORD.finditer(view.text):
        word = found[0].rstrip("!+|")
        if not _LEET_SIGN.search(word) or not _LETTER.search(word) or _PLAIN_NUMBER_WORD.fullmatch(word):
            continue
        edits.append((found.start(), found.start() + len(word), word.translate(first or {}).translate(_LEET)))
    return _edit(view, view.name if view.name == "joined" else "leet", edits) if edits else view


def _join(view: View) -> View:
    """Join letters that were pulled apart: "w o r d", "w.o.r.d"; a wider gap is taken for the end of a word."""
    edits = []
    for run in _SPELLED.finditer(view.text):
        words = ["".join(c for c in part if c.isalnum()) for part in _WORD_BREAK.split(run[0])]
        edits.append((run.start(), run.end(), " ".join(words)))
    joined = _edit(view, "joined", edits, spelled=True) if edits else view
    inner = [(m.start(), m.end(), "") for m in _INNER_MARK.finditer(joined.text)]
    if inner:
        removed = _edit(joined, "joined", inner)
        joined = View("joined", removed.text, removed.origin, _shift(joined.spelled, inner), view.reliable)
    stretched = [(m.start(), m.end(), m[1]) for m in _STRETCHED.finditer(joined.text)]
    if stretched:
        spans = _shift(joined.spelled, [(s + 1, e, "") for s, e, _ in stretched])
        shrunk = _edit(joined, "joined", stretched)
        joined = View("joined", shrunk.text, shrunk.origin, spans, view.reliable)
    return joined


def _cut(view: View, places: Sequence[int]) -> View:
    """Put a blank at each of some places in the text, where words run together."""
    return _edit(view, "cut", [(at, at, " ") for at in places]) if places else view


def _without_humps(text: str, clean: View) -> View:
    """The clean view with the words apart that capitals begin: "ARedBall"."""
    places = set(run_together.humps(text))
    if not places:
        return clean
    if clean.origin is None:
        return _cut(clean, sorted(places))
    return _cut(clean, [i for i, origin in enumerate(clean.origin) if origin in places])


def _without_marks(view: View) -> View:
    """Remove marks between letters and leave blanks alone: "w.o.r.d b.y w.o.r.d" keeps its words apart."""
    inner = [(m.start(), m.end(), "") for m in _INNER_MARK.finditer(view.text)]
    return _edit(view, "joined", inner) if inner else view


def _shift(spans: tuple[tuple[int, int], ...], removed: list[tuple[int, int, str]]) -> tuple[tuple[int, int], ...]:
    """Move spans left past deletions that lie before their ends."""
    if not spans:
        return ()
    moved = []
    for start, end in spans:
        before = sum(min(e, start) - s for s, e, _ in removed if s < start)
        upto = sum(min(e, end) - s for s, e, _ in removed if s < end)
        moved.append((start - before, end - upto))
    return tuple(moved)


def _named_symbols(view: View) -> View:
    """Read pictographs by their Unicode names: a picture of a thing asks for that thing."""
    edits = []
    for at, char in enumerate(view.text):
        if ord(char) > 0x2000 and unicodedata.category(char) == "So" and (name := unicodedata.name(char, "")):
            edits.append((at, at + 1, f" {name.lower()} "))
            if len(edits) == _MAX_SYMBOLS:
                break
    return _edit(view, "symbols", edits) if edits else view


def _decoded(text: str) -> list[View]:
    """Return readings of the parts that are written in an encoding, each also without leet and gaps."""
    views = []
    for name, start, end, plain in decodings(text):
        inner = fold(plain)
        scale = (end - start) / max(len(inner.text), 1)
        view = View(name, inner.text, [start + int(i * scale) for i in range(len(inner.text))])
        views.append(view)
        plainer = _unleet(view)
        for bare in (_join(plainer), _without_marks(plainer)):
            if bare.text != view.text:
                views.append(View(name, bare.text, bare.origin, bare.spelled))
    return [v for v in views if v.text]


def views_of(text: str) -> tuple[View, ...]:
    """Return the distinct views of ``text``, the plainest first.

    clean, leet (two readings), joined, cut (words that ran together), symbols, what is encoded (base64, hex, percent,
    entities, escapes); then those that are no readings of honest text: rot13, reversed, and raw (lower case, look-
    alikes left in place). Scores are the maximum over views. A view that equals an earlier one is left out, so plain
    English costs three.
    """
    clean = fold(text)
    leet = _unleet(clean)
    joined = _join(clean)
    apart = _without_humps(text, clean)
    candidates = [clean, leet, joined, _join(leet), _unleet(joined), _without_marks(leet), apart]
    candidates += [_cut(view, run_together.seams(view.text)) for view in (apart, joined)]
    if leet is not clean and ("1" in clean.text or "!" in clean.text):
        candidates.append(replace(_unleet(clean, _LEET_L), name="leet_l"))
    if not clean.text.isascii():
        candidates.append(_named_symbols(clean))
    candidates.extend(_decoded(text))
    base = clean.origin if clean.origin is not None else range(len(clean.text))
    candidates.append(View("rot13", clean.text.translate(_ROT13), clean.origin, (), False))
    candidates.append(View("reversed", clean.text[::-1], base[::-1], (), False))
    if not text.isascii():
        lowered = [(i, low) for i, char in enumerate(text) for low in char.lower()]
        candidates.append(View("raw", "".join(low for _, low in lowered), [i for i, _ in lowered], (), False))
    seen: set[str] = set()
    kept = []
    for view in candidates:
        if view.text not in seen:
            seen.add(view.text)
            kept.append(view)
    return tuple(replace(view, written=text) if at == 0 else view for at, view in enumerate(kept))
