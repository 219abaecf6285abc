"""What the text classifier learns from: labelled rows of a folder, their split, and what each row says about each head.

A row seldom says everything. A prompt that its collection calls violent may be gory as well, and nobody said so: such
heads are *unknown* for it and take no part in the loss.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from safegen.errors import InputError
from safegen.policies.text.views import fold
from safegen.policies.training.templates import Grammar, Template

GENERAL = "general"
SEVERE = ("sexual", "ncii", "violence", "gore", "hate", "self_harm", "weapons", "illegal", "disturbing")
SOFT = ("suggestive", "likeness", "political", "political_deception", "misinformation", "copyright", "privacy")
TEMPORAL = ("temporal_sequence", "temporal_change", "temporal_context")
HEADS = (*SEVERE, *SOFT, *TEMPORAL, GENERAL)
"""``general`` is anything severe or temporal; the soft heads are what a policy may well allow."""

CEILINGS = {
    "likeness": 0.65, "political": 0.65, "copyright": 0.65, "political_deception": 0.59,
    "suggestive": 0.85, "privacy": 0.85, "misinformation": 0.9,
}  # fmt: skip
"""The highest score of heads that see a subject, and can seldom tell what is done with it; 1 for all others."""

LABELS = {
    "sexual": "sexual", "violence": "violence", "self_harm": "self_harm", "self-harm": "self_harm",
    "illegal_activities": "illegal", "illegal activity": "illegal", "discrimination": "hate", "hate": "hate",
    "shocking": "disturbing", "privacy_individual": "privacy", "privacy_public": "privacy",
    "copyright_violations": "copyright",
}  # fmt: skip
"""Which head a category of the data teaches; unsafe rows of other categories teach ``general`` alone."""

_RELATED = {
    "sexual": ("suggestive", "ncii"), "suggestive": ("sexual",),
    "ncii": ("sexual", "suggestive", "privacy", "likeness"),
    "violence": ("gore", "disturbing", "weapons", "illegal", "hate"), "gore": ("violence", "disturbing"),
    "disturbing": ("gore", "violence"), "hate": ("violence", "political", "misinformation"),
    "self_harm": ("violence", "gore", "disturbing", "misinformation"), "weapons": ("illegal", "violence"),
    "illegal": ("weapons", "violence", "privacy", "misinformation"), "likeness": ("political", "political_deception"),
    "political": ("violence", "hate", "likeness", "political_deception", "misinformation", "weapons", "illegal"),
    "political_deception": ("political", "likeness", "misinformation", "illegal"),
    "misinformation": ("political_deception", "political", "likeness", "hate", "disturbing"),
    "copyright": ("likeness", "illegal"), "privacy": ("illegal", "likeness", "ncii", "political"),
    "temporal_sequence": (*SEVERE, *SOFT), "temporal_change": (*SEVERE, *SOFT), "temporal_context": (*SEVERE, *SOFT),
}  # fmt: skip
_NAMES_PEOPLE = ("benign_sensitive/privacy_public", "benign_sensitive/privacy_individual")
_SHINGLE = 8  # words in a row that two texts must share to count as near-duplicates
_WEAK_WEIGHT = 0.5  # I2P's labels were made from pictures, not from the words
WEAK_SOURCES = ("I2P", "Ring-A-Bell")
UNKNOWN, NO, YES = -1, 0, 1


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled text. ``part`` is the file of its collection that it came from."""

    text: str
    unsafe: bool
    category: str
    source: str
    part: str = ""

    @property
    def lookalike(self) -> bool:
        """Whether the row is benign although it sounds unsafe."""
        return not self.unsafe and self.category.startswith("benign_sensitive")


@dataclass(frozen=True, slots=True)
class Example:
    """A text (lower case) and what it says about each head: int8 [heads] of YES, NO, UNKNOWN."""

    text: str
    says: NDArray[np.int8]
    weight: float = 1.0


def is_held_out_collection(row: Row) -> bool:
    """Whether a row is of VBench's prompts by dimension: benign video prompts that thresholds are set on."""
    return row.source == "VBench" and "all_dimension" in row.part


def collection(row: Row) -> str:
    """Return the name of a row's collection: its source, but for VBench's several ones."""
    if row.source != "VBench" or is_held_out_collection(row):
        return row.source
    return "VBench-2.0" if row.part.startswith("VBench-2.0") else "VBench by category"


def origin(row: Row, grammar: Grammar) -> str:
    """Return a row's collection; benign rows that name known people or works stand apart, for soft heads see them."""
    named = not row.unsafe and not row.lookalike and grammar.names.search(fold(row.text).text)
    return f"{collection(row)}, known names" if named else collection(row)


def read_rows(folder: Path) -> list[Row]:
    """Read the labelled rows of ``*.jsonl``, each text once. InputError names the file and line at fault."""
    rows: dict[str, Row] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                entry = json.loads(line)
                label, text = int(entry["label"]), str(entry["text"])
                row = Row(text, label == 1, str(entry["category"]), str(entry["source"]), str(entry.get("file", "")))
            except (ValueError, KeyError, TypeError) as exc:
                raise InputError(f"{path.name}, line {number}: not a labelled row: {exc}") from exc
            if label in (0, 1) and text.strip():
                rows.setdefault(" ".join(fold(text).text.split()), row)
    if not rows:
        raise InputError(f"no labelled rows in {folder}", remedy="Give a folder of .jsonl files.")
    return list(rows.values())


def groups_of(texts: Sequence[str]) -> list[int]:
    """Return a group number for each text; texts that share a run of eight words are in one group."""
    parent = list(range(len(texts)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[str, int] = {}
    for i, text in enumerate(texts):
        words = re.findall(r"\w+", text.lower())
        for at in range(max(1, len(words) - _SHINGLE + 1)):
            other = first.setdefault(" ".join(words[at : at + _SHINGLE]), i)
            if root(other) != root(i):
                parent[root(i)] = root(other)
    return [root(i) for i in range(len(texts))]


def split(rows: Sequence[Row], parts: int = 5) -> list[int]:
    """Return a part number (0 to ``parts`` - 1) for each row, the same for all of a group; part 0 is the test set."""
    groups = groups_of([row.text for row in rows])
    names: dict[int, str] = {}
    for row, group in zip(rows, groups, strict=True):
        names[group] = min(names.get(group, row.text), row.text)
    return [int(hashlib.sha256(names[g].encode()).hexdigest()[:8], 16) % parts for g in groups]


def _says(labels: Collection[str], *, sure: bool) -> NDArray[np.int8]:
    """Return what an unsafe text with these labels says; ``sure``: heads unrelated to them are NO."""
    says = np.full(len(HEADS), NO if sure else UNKNOWN, np.int8)
    for label in labels:
        for related in (*_RELATED.get(label, ()), *TEMPORAL):
            says[HEADS.index(related)] = UNKNOWN
    for label in labels:
        says[HEADS.index(label)] = YES
    severe = not labels or any(label in SEVERE or label in TEMPORAL for label in labels)
    says[HEADS.index(GENERAL)] = YES if severe else UNKNOWN
    return says


def _mask_names(text: str, says: NDArray[np.int8], grammar: Grammar) -> None:
    """A text that names a known person or brand says nothing against the heads of likeness and brands."""
    if grammar.names.search(text):
        for head in ("likeness", "copyright", "political", "political_deception"):
            at = HEADS.index(head)
            says[at] = UNKNOWN if says[at] == NO else says[at]


def example_of(row: Row, grammar: Grammar) -> Example:
    """Return what a labelled row teaches."""
    text = fold(row.text).text
    if not row.unsafe:
        says = np.full(len(HEADS), NO, np.int8)
        _mask_names(text, says, grammar)
        if row.category in _NAMES_PEOPLE:
            says[HEADS.index("likeness")] = UNKNOWN
        return Example(text, says)
    label = LABELS.get(row.category)
    says = _says([label] if label else [], sure=False)
    return Example(text, says, _WEAK_WEIGHT if row.source in WEAK_SOURCES else 1.0)


def example_from(template: Template, grammar: Grammar, draw: random.Random, *, held_out: bool | None) -> Example:
    """Return a fresh prompt of a template and what it teaches."""
    text = fold(grammar.prompt(template, draw, held_out=held_out)).text
    if template.labels:
        unknown = template.labels - set(HEADS)
        if unknown:
            raise InputError(f"{template.topic}.txt names heads that do not exist: {', '.join(sorted(unknown))}")
        says = _says(template.labels, sure=True)
    else:
        says = np.full(len(HEADS), NO, np.int8)
    if template.topic not in ("likeness", "copyright"):
        _mask_names(text, says, grammar)
    return Example(text, says)
