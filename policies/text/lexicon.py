"""Word lists and the rules over them: which words, in which company, raise which category's score.

The words lie in ``data/*.txt`` (one term a line) and the rules in ``data/rules.yaml``; none are written in code.
Matching is a dictionary look-up of one to five words in a row at word boundaries, so it takes linear time however many
terms there are.
"""

from __future__ import annotations

import bisect
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from safegen.errors import PolicyError
from safegen.policies.text.hits import Hit
from safegen.policies.text.people import find_people, load_names
from safegen.policies.text.views import View

DATA = Path(__file__).parents[1] / "data"
_TOKEN = re.compile(r"[^\W_]+(?:'[a-z]+)?", re.UNICODE)
_BENIGN_PHRASES = "benign_phrases"
_NAMED = "named_people"  # found by persons.py, not by a list
_MAX_WORDS = 5
_MIN_SPELLED = 4  # letters: shorter terms turn up by chance inside letters that were joined


_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, where PyYAML was built with it: quicker to start


@dataclass(frozen=True, slots=True)
class LexiconRule:
    """All lists in ``every`` must match within ``within`` words; words from ``unless`` lower the score."""

    id: str
    category: str
    every: tuple[tuple[str, ...], ...]  # each is a set of lists, of which one must match
    score: float
    within: int  # words; 0: anywhere in the text
    unless: tuple[str, ...]
    unless_score: float


@dataclass(frozen=True, slots=True)
class _Match:
    start: int  # in the view's text
    end: int
    word: int  # index of the first token


def tokens(text: str) -> list[tuple[str, int, int]]:
    """Return the words of a text with where they start and end."""
    return [(m[0], m.start(), m.end()) for m in _TOKEN.finditer(text)]


def _forms(term: str) -> set[str]:
    """Return a term with its regular English endings on the last word."""
    forms = {term}
    if not term[-1:].isalpha() or len(term) < 3:
        return forms
    forms.add(term + ("es" if term.endswith(("s", "x", "z", "ch", "sh")) else "s"))
    if term.endswith("y") and term[-2] not in "aeiou":
        forms.add(term[:-1] + "ies")
    return forms


class Lexicon:
    """The rules and word lists of one folder, compiled.

    Raises PolicyError when the folder lacks a file or a rule names a list that does not exist.
    """

    name = "lexicon"

    def __init__(
        self, lists: Mapping[str, Sequence[str]], rules: Sequence[LexiconRule], digest: str, version: str
    ) -> None:
        self.version = version
        self.weights_sha256: str | None = digest
        self.lists = {name: tuple(terms) for name, terms in lists.items()}
        self.rules = tuple(rules)
        self._index: dict[str, set[str]] = {}
        for name, terms in self.lists.items():
            for term in terms:
                exact = term.startswith("=")
                words = " ".join(t for t, _, _ in tokens(term.lstrip("=").casefold()))
                for form in {words} if exact else _forms(words):
                    if form:
                        self._index.setdefault(form, set()).add(name)
        self._starts = {form.split(" ", 1)[0] for form in self._index}
        self._spelled: dict[str, list[str]] = {}
        for form in self._index:
            if " " not in form and len(form) >= _MIN_SPELLED:
                self._spelled.setdefault(form[:_MIN_SPELLED], []).append(form)

    @classmethod
    def load(cls, folder: Path = DATA) -> Lexicon:
        """Read ``rules.yaml`` and ``*.txt`` from ``folder``."""
        digest = hashlib.sha256()
        try:
            raw = (folder / "rules.yaml").read_bytes()
            digest.update(raw)
            document = yaml.load(raw, Loader=_YAML)  # noqa: S506 - both are safe loaders
            lists: dict[str, list[str]] = {}
            for path in sorted(folder.glob("*.txt")):
                body = path.read_bytes()
                digest.update(path.name.encode() + b"\0" + body)
                lines = (line.strip() for line in body.decode("utf-8").splitlines())
                lists[path.stem] = [line for line in lines if line and not line.startswith("#")]
            rules = tuple(_rule(entry) for entry in document["rules"])
            version = str(document["version"])
        except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError) as exc:
            raise PolicyError(
                f"the word lists in {folder} cannot be read: {exc}",
                remedy="Reinstall safegen: its data files are damaged.",
            ) from exc
        load_names()
        named = {n for r in rules for group in (*r.every, r.unless) for n in group}
        missing = sorted(n for n in named - {_NAMED} if not lists.get(n))
        if missing:
            raise PolicyError(f"word lists missing or empty in {folder}: {', '.join(missing)}")
        return cls(lists, rules, digest.hexdigest(), version)

    def score(self, texts: Sequence[Sequence[View]]) -> list[list[Hit]]:
        """Return the hits of each text; ``texts[i]`` are the views of one text."""
        return [[hit for view in views for hit in self._judge(view)] for views in texts]

    def lists_in(self, views: Sequence[View]) -> frozenset[str]:
        """Return the names of the word lists of which a term occurs in any view of one text."""
        return frozenset(name for view in views for name in self._find(view))

    def ranges_in(self, view: View, name: str) -> list[tuple[int, int]]:
        """Return where the terms of one list occur in a view's text."""
        return [(m.start, m.end) for m in self._find(view).get(name, ())]

    def _judge(self, view: View) -> list[Hit]:
        found = self._find(view)
        if not found:
            return []
        hits = []
        for rule in self.rules:
            match = _conjunction(rule, found)
            if match is None:
                continue
            softened = any(name in found for name in rule.unless)
            score = rule.unless_score if softened else rule.score
            if score > 0:
                hits.append(Hit(rule.category, score, view.name, view.raw_range(*match), f"lexicon:{rule.id}"))
        return hits

    def _find(self, view: View) -> dict[str, list[_Match]]:
        """Return, for each list, where its terms occur."""
        found: dict[str, list[_Match]] = {}
        words = tokens(view.text)
        for i, (word, start, end) in enumerate(words):
            if word not in self._starts:
                continue
            phrase = word
            for j in range(i, min(i + _MAX_WORDS, len(words))):
                if j > i:
                    phrase = f"{phrase} {words[j][0]}"
                    end = words[j][2]
                # A reading that arose by chance needs a longer word to count.
                if not view.reliable and len(phrase) < 5:
                    continue
                for name in self._index.get(phrase, ()):
                    found.setdefault(name, []).append(_Match(start, end, i))
        for start, end in view.spelled:
            self._find_spelled(view.text, start, end, found)
        found = _without_benign_phrases(found)
        if view.reliable and (people := find_people(view.text, words)):
            found[_NAMED] = [_Match(*person) for person in people]
        return found

    def _find_spelled(self, text: str, start: int, end: int, found: dict[str, list[_Match]]) -> None:
        """Look for terms anywhere inside letters that were joined: their word boundaries are lost."""
        for a in range(start, end - _MIN_SPELLED + 1):
            for term in self._spelled.get(text[a : a + _MIN_SPELLED], ()):
                if text.startswith(term, a, end):
                    for name in self._index[term]:
                        found.setdefault(name, []).append(_Match(a, a + len(term), a // _MIN_SPELLED))


def _without_benign_phrases(found: dict[str, list[_Match]]) -> dict[str, list[_Match]]:
    """Drop matches that lie inside a harmless fixed phrase."""
    phrases = found.pop(_BENIGN_PHRASES, None)
    if not phrases:
        return found
    covered = {at for m in phrases for at in range(m.start, m.end)}
    kept = {n: [m for m in ms if m.start not in covered] for n, ms in found.items()}
    return {n: ms for n, ms in kept.items() if ms}


def _rule(entry: Mapping[str, Any]) -> LexiconRule:
    every = tuple(tuple([group] if isinstance(group, str) else group) for group in entry["every"])
    return LexiconRule(
        id=str(entry["id"]),
        category=str(entry["category"]),
        every=every,
        score=float(entry["score"]),
        within=int(entry.get("within", 0)),
        unless=tuple(entry.get("unless", ())),
        unless_score=float(entry.get("unless_score", 0.0)),
    )


def _conjunction(rule: LexiconRule, found: Mapping[str, list[_Match]]) -> tuple[int, int] | None:
    """Return the range of the text in which all of the rule's lists match, or None."""
    groups = [sorted((m for name in group for m in found.get(name, ())), key=_by_word) for group in rule.every]
    if not all(groups):
        return None
    anchors = min(groups, key=len)
    for anchor in anchors:
        chosen = [anchor]
        for group in groups:
            if group is anchors:
                continue
            nearest = _nearest(group, anchor)
            if nearest is None or (rule.within and abs(nearest.word - anchor.word) > rule.within):
                break
            chosen.append(nearest)
        else:
            return min(m.start for m in chosen), max(m.end for m in chosen)
    return None


def _by_word(match: _Match) -> int:
    return match.word


def _nearest(group: Sequence[_Match], anchor: _Match) -> _Match | None:
    """Return the match nearest to ``anchor`` that does not overlap it: one word cannot be both sides of a rule."""
    at = bisect.bisect_left(group, anchor.word, key=_by_word)
    around = (m for m in group[max(at - 3, 0) : at + 4] if m.end <= anchor.start or m.start >= anchor.end)
    return min(around, key=lambda m: abs(m.word - anchor.word), default=None)
