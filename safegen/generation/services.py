"""What every run needs: keys, policy, probes, signer and ledger of one home."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safegen.keys import KeyStore
from safegen.policies.engine.engine import Engine
from safegen.policies.probes.probe_set import ProbeSet
from safegen.settings import Home

if TYPE_CHECKING:
    from safegen.ledger import Ledger
    from safegen.ledger.subjects import Personal
    from safegen.provenance.signing_identity import Seal

# Imported where they are used: what loads c2pa, cv2 or sqlalchemy.


@dataclass(frozen=True, slots=True)
class Services:
    """What every run needs, opened before any work so that it cannot be missing after it."""

    home: Home
    keys: KeyStore
    ledger: Ledger
    engine: Engine
    seal: Seal
    probes: ProbeSet

    @classmethod
    def open(cls, home: Home, policy: str | Path, probes: Sequence[str | Path] = ()) -> Services:
        """Open keys, policy and ledger; raises KeyStoreError, PolicyError, ConfigError or LedgerError, and
        InstallationError where OpenCV does not load.

        ``probes`` are asked besides the policy's own; InputError or PolicyError for one that is missing or damaged.
        """
        import safegen.opencv  # noqa: F401 - judging frames and marking need it, after the model has run
        from safegen.ledger import Ledger
        from safegen.provenance.signing_identity import Seal

        engine = Engine.load(policy)
        probe_set = ProbeSet.load(engine.pack, probes, folders=(home.probes,))
        keys = KeyStore.load(home)
        seal = Seal.of(home, keys)
        ledger = Ledger.open(
            home.ledger_url, key=keys.ledger_key, origin=keys.ledger_name, busy_seconds=home.ledger_busy_seconds
        )
        return cls(home, keys, ledger, engine, seal, probe_set)

    @property
    def personal(self) -> Personal:
        """The personal fields of the ledger's entries."""
        from safegen.ledger.subjects import Personal

        return Personal(self.ledger, self.home)
