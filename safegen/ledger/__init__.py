"""The ledger: append-only entries in SQL under an RFC 6962 Merkle tree, each transaction with a signed checkpoint."""

from safegen.ledger.append_results import Receipt
from safegen.ledger.bindings import Binding
from safegen.ledger.checkpoint import Checkpoint, VerifierKey, open_checkpoint, open_note, sign_checkpoint, sign_note
from safegen.ledger.entry import Entry, Event, EventKind
from safegen.ledger.fsck_report import LedgerReport, Problem
from safegen.ledger.proof import InclusionProof, verify_inclusion
from safegen.ledger.schema import current_revision, downgrade, upgrade
from safegen.ledger.store import Ledger

__all__ = [
    "Binding",
    "Checkpoint",
    "Entry",
    "Event",
    "EventKind",
    "InclusionProof",
    "Ledger",
    "LedgerReport",
    "Problem",
    "Receipt",
    "VerifierKey",
    "current_revision",
    "downgrade",
    "open_checkpoint",
    "open_note",
    "sign_checkpoint",
    "sign_note",
    "upgrade",
    "verify_inclusion",
]
