"""What verification of a ledger found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One contradiction: the entry it concerns (None: the ledger as a whole), the column or table, and a sentence."""

    index: int | None
    column: str
    summary: str


@dataclass(frozen=True, slots=True)
class LedgerReport:
    """The outcome of verification. ``root`` is the recomputed root in hex, empty where it could not be computed.

    ``key_trusted`` is false when the caller gave no key: then the signatures were checked against the key that the
    ledger names for itself, which whoever rewrote the whole ledger could have replaced.
    """

    ok: bool
    size: int
    root: str
    problems: tuple[Problem, ...]
    key_trusted: bool
