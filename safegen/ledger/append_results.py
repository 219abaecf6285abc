"""What an append is answered with: receipts, or the error that kept it from being recorded."""

from __future__ import annotations

from dataclasses import dataclass

from safegen.errors import LedgerError


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an append returns: the entry's index, its leaf hash (hex) and the signed checkpoint that first covers it."""

    index: int
    leaf_hash: str
    checkpoint: str


class RefusedError(LedgerError):
    """One event cannot be recorded; it says nothing of the others."""


Outcome = list[Receipt] | LedgerError
"""Of one job, which is recorded whole or not at all."""
