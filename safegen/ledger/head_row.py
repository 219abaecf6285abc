"""What the head row says: the ledger's verifier key, and the frontier of its tree."""

from __future__ import annotations

from safegen.errors import LedgerError
from safegen.ledger import merkle
from safegen.ledger.checkpoint import VerifierKey
from safegen.ledger.proof import damaged


def parse_head_key(stored_key: object) -> VerifierKey:
    """Return the verifier key that the head row names; LedgerDamagedError if it is none."""
    try:
        return VerifierKey.parse(str(stored_key))
    except LedgerError as exc:
        raise damaged(f"its head row: {exc}") from exc


def parse_frontier(size: object, peaks: object) -> merkle.Frontier:
    """Return the frontier of the tree; LedgerDamagedError if the row has none."""
    try:
        return merkle.Frontier(size, [bytes.fromhex(p) for p in peaks.split()])  # type: ignore[arg-type, attr-defined]
    except (ValueError, TypeError, AttributeError) as exc:
        raise damaged("its head row is malformed") from exc
