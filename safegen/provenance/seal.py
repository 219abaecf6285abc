"""What seals a file: who signs, and who says when."""

from __future__ import annotations

from dataclasses import dataclass

from safegen.keys import KeyStore
from safegen.provenance.signers import Signer, open_signer, store_signer
from safegen.provenance.timestamps import parse_authorities
from safegen.provenance.trust import record_signer
from safegen.settings import Home


@dataclass(frozen=True, slots=True)
class Seal:
    """A signer, and the time-stamp authorities to ask in turn (URLs; ``none`` last: rather without than not at all)."""

    signer: Signer
    authorities: tuple[str, ...] = ()

    @classmethod
    def of(cls, home: Home, keys: KeyStore) -> Seal:
        """Return the seal that ``home`` is set to: its own key store, and no time-stamp, by default.

        Another signer's leaf and issuer are recorded in the home, so that verification knows its files as the home's
        own. Raises ConfigError or KeyStoreError as ``open_signer`` and ``parse_authorities`` do.
        """
        authorities = parse_authorities(home.timestamp_authorities)
        if not home.signer:
            return cls(store_signer(keys), authorities)
        signer = open_signer(home.signer)
        record_signer(home, signer)
        return cls(signer, authorities)
