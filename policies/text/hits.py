"""What a classifier hands to the engine, and what the engine asks of a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from safegen.errors import PolicyError
from safegen.policies.text.views import View


class NotAvailableError(PolicyError):
    """A classifier cannot run here at all: its package, model, key or service is not there."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One category's score for one text: in [0, 1], in which view, and the range of the raw text that caused it."""

    category: str
    score: float
    view: str
    span: tuple[int, int]
    detail: str = ""


class TextClassifier(Protocol):
    """Scores texts. Anything that it raises, and any score outside [0, 1], counts as a failed run and blocks.

    One with an attribute ``batch`` is given at most so many texts at a time.
    """

    name: str
    version: str
    weights_sha256: str | None

    def score(self, texts: Sequence[Sequence[View]]) -> list[list[Hit]]:
        """Return one list of hits for each text, given as its views."""
        ...
