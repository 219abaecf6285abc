"""Other labels than the credential that say that AI made a file: named for people, and no ground for any verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from safegen.provenance.ai_labels.reading import read_ai_labels
from safegen.provenance.report import clean
from safegen.types import Basis, Finding, Json, Status

_MOST_TOLD: Final = 3


def find_labels(path: Path) -> Finding:
    """Look for labels; ``inconclusive`` where there are any, since anybody can write and remove them."""
    labels = read_ai_labels(path)
    if not labels:
        return Finding(Basis.LABELS, Status.ABSENT, "No other label that tells of AI was found in its metadata.")
    told = [f"{clean(label.says)} ({clean(label.place)})" for label in labels[:_MOST_TOLD]]
    more = f"; and {len(labels) - _MOST_TOLD} more" if len(labels) > _MOST_TOLD else ""
    found: list[Json] = [_cleaned(label.to_json()) for label in labels]
    summary = f"Its metadata says: {'; '.join(told)}{more}. Anybody can write that, and no verdict rests on it."
    return Finding(Basis.LABELS, Status.INCONCLUSIVE, summary, {"labels": found})


def _cleaned(values: dict[str, Json]) -> Json:
    return {name: clean(value) if isinstance(value, str) else value for name, value in values.items()}
