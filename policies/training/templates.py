"""Prompts made from templates: what the text classifier learns beside labelled prompts of other people.

``data/templates/*.txt`` hold one template a line. ``+ violence,gore: ...`` is unsafe and names its heads; ``- ...`` is
a harmless twin in much the same words. ``[a|b|]`` is one of its parts, ``{name}`` a value from ``slots.txt``, and
``styles.txt`` holds ways to word a prompt around a subject; both kinds of lines get the same styles, so that no style
tells them apart. Everything is drawn from a seeded generator.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from safegen.errors import InputError

TEMPLATES = Path(__file__).parents[1] / "data" / "templates"
NAMES = ("politician", "celebrity", "character", "brand", "film")
"""Slots of proper names. A part of each is kept from training, to see what is made of names that were never shown."""
_STYLE_WEIGHTS = {
    "plain": 8, "verb": 3, "video": 3, "cinematic": 3, "art": 2, "long": 3, "sequence": 1, "dialogue": 1,
}  # fmt: skip
_INNERMOST = re.compile(r"\{([a-z_]+)\}|\[([^\[\]{}]*)\]")
_FOLDS = 5
_MAX_EXPANSIONS = 200


@dataclass(frozen=True, slots=True)
class Template:
    """One line: ``labels`` are the heads that it teaches, empty for a harmless twin; ``topic`` is its file."""

    text: str
    labels: frozenset[str]
    topic: str

    @property
    def held_out(self) -> bool:
        """Whether the line is kept from training where a measurement needs lines that were not seen."""
        return _fold(self.text) == 0


def _fold(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) % _FOLDS


@dataclass(frozen=True)
class Grammar:
    """Templates, slots and styles of one folder."""

    templates: tuple[Template, ...]
    slots: Mapping[str, tuple[str, ...]]
    styles: Mapping[str, tuple[str, ...]]

    def expand(self, text: str, draw: random.Random, *, held_out: bool | None = None) -> str:
        """Return the text with every slot and choice filled; ``held_out`` picks names: kept ones, others, or all."""
        for _ in range(_MAX_EXPANSIONS):
            found = _INNERMOST.search(text)
            if found is None:
                return " ".join(text.replace(" ,", ",").split())
            if found[1]:
                values = self.slots.get(found[1])
                if not values:
                    raise InputError(f"the templates name a slot that does not exist: {found[1]}")
                if held_out is not None and found[1] in NAMES:
                    values = tuple(v for v in values if (_fold(v) == 0) == held_out) or values
                new = draw.choice(values)
            else:
                new = draw.choice(found[2].split("|"))
            text = text[: found.start()] + new + text[found.end() :]
        raise InputError(f"a template expands without end: {text[:60]}")

    def prompt(self, template: Template, draw: random.Random, *, held_out: bool | None = None) -> str:
        """Return one prompt made from a template in a style drawn at random."""
        weights = [_STYLE_WEIGHTS.get(name, 1) for name in self.styles]
        style = draw.choices(list(self.styles), weights)[0]
        frame = draw.choice(self.styles[style])
        return self.expand(frame.replace("%", template.text), draw, held_out=held_out)

    @cached_property
    def names(self) -> re.Pattern[str]:
        """Return a pattern that finds the proper names of the slots in lower-case text."""
        values = {v.lower() for slot in (*NAMES, "painter") for v in self.slots.get(slot, ()) if "{" not in v}
        ordered = sorted(values, key=len, reverse=True)
        return re.compile(rf"\b(?:{'|'.join(map(re.escape, ordered))})\b") if ordered else re.compile(r"(?!)")


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise InputError(f"the templates cannot be read: {exc}") from exc
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def read_grammar(folder: Path = TEMPLATES) -> Grammar:
    """Read a folder of templates. InputError names the file and the line at fault."""
    slots: dict[str, tuple[str, ...]] = {}
    for line in _lines(folder / "slots.txt"):
        name, _, values = line.partition(":")
        slots[name.strip()] = tuple(v for given in _alternatives(values) for v in _values(given.strip(), folder.parent))
    styles: dict[str, list[str]] = {}
    for line in _lines(folder / "styles.txt"):
        if line.startswith("["):
            styles[line.strip("[]")] = []
        else:
            list(styles.values())[-1].append(line)
    templates: list[Template] = []
    for path in sorted(folder.glob("*.txt")):
        if path.stem in ("slots", "styles"):
            continue
        templates.extend(_template(line, path) for line in _lines(path))
    if not templates or not styles:
        raise InputError(f"no templates in {folder}")
    return Grammar(tuple(templates), slots, {k: tuple(v) for k, v in styles.items()})


def _values(given: str, lists: Path) -> list[str]:
    """Return a slot's value, or with ``@file`` the lines of a word list of the rules."""
    if not given.startswith("@"):
        return [given] if given else []
    return [line.lstrip("=").strip() for line in _lines(lists / given[1:])]


def _alternatives(text: str) -> Sequence[str]:
    """Split at ``|`` outside brackets."""
    parts, depth, at = [], 0, 0
    for i, c in enumerate(text):
        depth += (c == "[") - (c == "]")
        if c == "|" and depth == 0:
            parts.append(text[at:i])
            at = i + 1
    return [*parts, text[at:]]


def _template(line: str, path: Path) -> Template:
    sign, _, text = line.partition(" ")
    if sign == "-" and text:
        return Template(text, frozenset(), path.stem)
    labels, colon, text = text.partition(": ")
    if sign != "+" or not colon:
        raise InputError(f"{path.name}: neither '+ heads: text' nor '- text': {line[:40]}")
    return Template(text, frozenset(labels.split(",")), path.stem)
