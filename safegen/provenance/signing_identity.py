"""What seals a file: who signs, who says when, and who says that the certificate still holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from safegen.errors import ConfigError, ProvenanceError
from safegen.keys import KeyStore
from safegen.provenance.backends import Backend, Order
from safegen.provenance.manifest import Statement
from safegen.provenance.ocsp import VARIABLE, OcspMode, Revocation, check_revocation, parse_mode
from safegen.provenance.signer_sources import open_signer, store_signer
from safegen.provenance.signers import Signer
from safegen.provenance.timestamps import Stamping, parse_authorities
from safegen.provenance.trust import record_signer
from safegen.settings import Home
from safegen.types import Json

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Seal:
    """A signer, the time-stamp authorities to ask in turn, and whether its OCSP responder is asked.

    ``authorities`` are URLs; ``none`` last: rather without than not at all.
    """

    signer: Signer
    authorities: tuple[str, ...] = ()
    ocsp: OcspMode = OcspMode.OFF

    @classmethod
    def of(cls, home: Home, keys: KeyStore) -> Seal:
        """Return the seal that ``home`` is set to: its own key store, no time-stamp and no OCSP, by default.

        Another signer's leaf and issuer are recorded in the home, so that verification knows its files as the home's
        own. Raises ConfigError or KeyStoreError as ``open_signer``, ``parse_authorities`` and ``parse_mode`` do.
        """
        authorities, mode = parse_authorities(home.timestamp_authorities), parse_mode(home.ocsp)
        if not home.signer:
            return cls(store_signer(keys), authorities, mode)
        signer = open_signer(home.signer)
        record_signer(home, signer)
        return cls(signer, authorities, mode)

    def room(self, ingredients: bool = False) -> int:
        """Return how many bytes to keep free in a file, so that a manifest under this seal fits in most cases."""
        stamp, answer = 8_192 if self.authorities else 0, 0 if self.ocsp is OcspMode.OFF else 4_096
        return 6_144 + stamp + answer + (16_384 if ingredients else 0)


@dataclass(frozen=True, slots=True)
class Sealing:
    """One use of a seal: which time-stamp and which OCSP answer it got."""

    seal: Seal
    stamping: Stamping = field(default_factory=Stamping)
    revocation: Revocation = field(default_factory=Revocation)

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate that was signed with."""
        return x509.load_pem_x509_certificate(self.seal.signer.chain_pem.encode())

    def to_json(self) -> dict[str, Json]:
        """Return what the ledger records of a signature."""
        return {
            "signer": self.seal.signer.uri,
            "algorithm": self.seal.signer.algorithm,
            "leaf_sha256": self.leaf.fingerprint(hashes.SHA256()).hex(),
            "timestamp": self.stamping.to_json(),
            "ocsp": self.revocation.to_json(),
        }


def use_seal(
    seal: Seal,
    backend: Backend,
    statement: Statement,
    anchors_pem: str,
    write: Callable[[Order], _T],
) -> tuple[_T, Sealing]:
    """Call ``write`` with an order under ``seal``, and return what it returned and what the seal got.

    Where no authority answers and the seal allows that, it is called again, without time-stamp. Raises ProvenanceError
    where the leaf is revoked, ConfigError where an OCSP answer is required that ``backend`` cannot staple, and what
    ``write`` raises.
    """
    if seal.ocsp is OcspMode.REQUIRE and not backend.staples:
        raise ConfigError(
            f"{VARIABLE}=require, but {backend.name} cannot staple OCSP answers",
            remedy=f"Sign MP4, MOV, PNG or JPEG with SAFEGEN_C2PA_BACKEND=native, or set {VARIABLE}=staple.",
        )
    revocation = check_revocation(seal.signer.chain_pem, seal.signer.issuer_pem, seal.ocsp)
    if revocation.staple is not None and not backend.staples:
        revocation = Revocation(seal.ocsp, None, (*revocation.failures, f"{backend.name} cannot staple"))
    stamping = Stamping(seal.authorities)
    order = Order(statement, seal.signer, anchors_pem, stamping, revocation.response)
    try:
        done = write(order)
    except ProvenanceError:
        if not (stamping.unavailable and stamping.may_go_without):
            raise
        done = write(replace(order, stamping=Stamping()))
    return done, Sealing(seal, stamping, revocation)
