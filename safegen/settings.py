"""Where safegen keeps what it keeps, and the limits it works within."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

MAX_PROMPT_CHARACTERS = 10_000
"""Longer prompts are refused before any classifier sees them: no model reads that much, and regexes must stay fast."""

LEDGER_BUSY_SECONDS = 30.0
"""How long a writer waits for another one before it gives up with LedgerBusyError."""

MARK_FRAMES = 161
"""Frames at a clip's beginning that are held in memory at once: 10 s at 16 fps. The clip mark is read from all."""

ISSUED_IDS = 10_000
"""How many of the latest content ids a damaged mark is compared with."""


@dataclass(frozen=True, slots=True)
class Home:
    """One folder that holds all of safegen's state: keys, ledger, manifests. Two homes share nothing."""

    root: Path
    ledger_url_override: str = ""
    ledger_busy_seconds: float = LEDGER_BUSY_SECONDS
    signer: str = ""  # URI of the key that signs claims; the key store's own if empty
    timestamp_authorities: str = ""  # URLs, asked in turn; none if empty
    ocsp: str = ""  # whether the signer's OCSP responder is asked: off if empty

    @classmethod
    def default(cls) -> Home:
        """``$SAFEGEN_HOME``, or the platform's user data folder.

        ``$SAFEGEN_LEDGER_URL`` moves the ledger elsewhere, ``$SAFEGEN_SIGNER`` names another signer,
        ``$SAFEGEN_TSA`` time-stamp authorities, ``$SAFEGEN_OCSP`` whether proof of non-revocation is stapled.
        """
        root = os.environ.get("SAFEGEN_HOME", "")
        if not root:
            import platformdirs

            root = platformdirs.user_data_dir("safegen", appauthor=False)
        return cls(
            Path(root).expanduser().absolute(),
            os.environ.get("SAFEGEN_LEDGER_URL", ""),
            signer=os.environ.get("SAFEGEN_SIGNER", ""),
            timestamp_authorities=os.environ.get("SAFEGEN_TSA", ""),
            ocsp=os.environ.get("SAFEGEN_OCSP", ""),
        )

    @property
    def keys(self) -> Path:
        """Folder of private and public keys, mode 0700."""
        return self.root / "keys"

    @property
    def manifests(self) -> Path:
        """Folder of C2PA manifest stores, one ``<content id>.c2pa`` each, and of the clips' kept pictures."""
        return self.root / "manifests"

    @property
    def probes(self) -> Path:
        """Folder of probes that packs and calls may name (docs/probes.md)."""
        return self.root / "probes"

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy URL of the ledger."""
        return self.ledger_url_override or f"sqlite:///{self.root / 'ledger.db'}"
