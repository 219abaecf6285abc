"""Whose signatures on consent records count in a home, the home's own key for signing them, and what was revoked.

The trusted signers are a file of the home, ``consent/signers.json``. A revocation is a ledger entry: it cannot be
taken back, and taking it out of the ledger shows.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from safegen.errors import ConfigError, InputError, KeyStoreError, LedgerDamagedError
from safegen.files import fsync_folder, replace_file
from safegen.keys.files import check_mode, read_private, write_private
from safegen.keys.pki import private_pem, public_id, public_pem
from safegen.types import Json

if TYPE_CHECKING:
    from safegen.consent.record import SignedConsent
    from safegen.ledger import Ledger, Receipt
    from safegen.ledger.subjects import Personal
    from safegen.settings import Home

# Imported where they are used: what loads sqlalchemy.

SCHEMA: Final = "safegen.consent-signers/1"
_MAX_KEY_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Signer:
    """Somebody whose consent records count: the key's id, a name for people, the public key as PEM, since when."""

    id: str
    name: str
    public_key: str
    added: str

    def to_json(self) -> dict[str, Json]:
        """Return the signer as plain JSON values."""
        return {"id": self.id, "name": self.name, "public_key": self.public_key, "added": self.added}


@dataclass(frozen=True, slots=True)
class Revocation:
    """A record that no longer counts: since when, who said so and why, and the ledger entry that says it."""

    consent_id: str
    entry: int
    time: str
    by: str
    reason: str


def _folder(home: Home) -> Path:
    return home.root / "consent"


def signers(home: Home) -> tuple[Signer, ...]:
    """Return the trusted signers; ConfigError if their file is malformed."""
    path = _folder(home) / "signers.json"
    if not path.exists():
        return ()
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA:
            raise ValueError(f"of schema {document['schema']!r}")
        found = tuple(
            Signer(**{name: str(entry[name]) for name in ("id", "name", "public_key", "added")})
            for entry in document["signers"]
        )
        for signer in found:
            if public_id(_public(signer.public_key.encode())) != signer.id:
                raise ValueError(f"the key of {signer.name} is not {signer.id}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError, InputError) as error:
        raise ConfigError(
            f"the list of consent signers {path} is damaged: {error}",
            remedy="Put it back from a backup, or delete it and name the signers again: `safegen consent trust FILE`.",
        ) from error
    return found


def trust_signer(home: Home, pem: Path, name: str) -> Signer:
    """Add the Ed25519 public key in a PEM file to the trusted signers, or give the one that is there a new name."""
    try:
        raw = pem.expanduser().read_bytes()[:_MAX_KEY_BYTES]
    except OSError as error:
        raise InputError(f"Cannot read the key {pem}: {error.strerror}", remedy="Give a public key as PEM.") from error
    key = _public(raw)
    if not name.strip() or not name.isprintable() or len(name) > 200:
        raise InputError("A signer needs a name of 1 to 200 printable characters.", remedy="Give it with --name.")
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    signer = Signer(public_id(key), name, public_pem(key).decode(), now)
    _write_signers(home, (*(s for s in signers(home) if s.id != signer.id), signer))
    return signer


def distrust_signer(home: Home, signer_id: str) -> Signer:
    """Take a signer off the list: none of its records counts from now on. InputError if it is not there."""
    held = signers(home)
    gone = [s for s in held if s.id == signer_id]
    if not gone:
        raise InputError(f"No trusted signer has the id {signer_id}.", remedy="`safegen consent show` names them.")
    _write_signers(home, tuple(s for s in held if s.id != signer_id))
    return gone[0]


def verify_signature(signed: SignedConsent, trusted: tuple[Signer, ...]) -> str:
    """Return "" where a trusted signer signed exactly this, "unknown_signer" or "altered" where not."""
    for signer in trusted:
        if signer.id == signed.signer:
            try:
                _public(signer.public_key.encode()).verify(signed.signature, signed.signed)
            except InvalidSignature:
                return "altered"
            return ""
    return "unknown_signer"


def load_key(path: Path) -> Ed25519PrivateKey:
    """Read an Ed25519 private key (PEM, unencrypted); KeyStoreError if it is none, or open to others."""
    path = path.expanduser()
    remedy = "Make one: openssl genpkey -algorithm ed25519 -out KEY && chmod 600 KEY"
    if not path.is_file():
        raise KeyStoreError(f"there is no key {path}", remedy=remedy)
    check_mode(path, 0o600)
    try:
        key = serialization.load_pem_private_key(read_private(path, remedy), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyStoreError(f"{path} is no unencrypted private key in PEM: {error}", remedy=remedy) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyStoreError(f"{path} holds no Ed25519 key", remedy=remedy)
    return key


def own_key(home: Home) -> Ed25519PrivateKey:
    """The home's own key for signing consent records, made when it is first asked for; its public part lies beside.

    It is trusted no more than any other until ``consent/signer.pub`` is named to ``safegen consent trust``.
    """
    folder = _folder(home)
    path = folder / "signer.key"
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            (folder / "signer.pub").write_bytes(public_pem(key.public_key()))
            write_private(path, private_pem(key))
            fsync_folder(folder)
        except OSError as error:
            raise KeyStoreError(f"cannot write {path}: {error}", remedy="Check the folder's owner.") from error
    return load_key(path)


def revoke(personal: Personal, consent_id: str, *, by: str, reason: str) -> Receipt:
    """Record that a consent no longer holds. Clips made under it stay as they are; new ones wait for a person."""
    from safegen.ledger import Event, EventKind

    event = Event(EventKind.CONSENT_REVOKED, body={"consent_id": consent_id})
    return personal.append(event, by, {"by": by, "reason": reason})


def revocations(ledger: Ledger, personal: Personal | None = None) -> Mapping[str, Revocation]:
    """Return what was revoked, by record id, the first of several; by whom and why, only with ``personal``.

    LedgerDamagedError if such an entry is damaged.
    """
    from safegen.ledger import EventKind

    found: dict[str, Revocation] = {}
    for entry in ledger.entries(kind=EventKind.CONSENT_REVOKED):
        if entry.damage:
            raise LedgerDamagedError(f"entry {entry.index}: {entry.damage}", remedy="See `safegen ledger fsck`.")
        name = str(entry.body.get("consent_id", ""))
        by, reason = ("" if personal is None else personal.text(entry, key) for key in ("by", "reason"))
        found.setdefault(name, Revocation(name, entry.index, entry.time, by, reason))
    return found


def _public(pem: bytes) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InputError(f"not a public key in PEM: {error}", remedy="openssl pkey -in KEY -pubout") from error
    if not isinstance(key, Ed25519PublicKey):
        raise InputError("the key is no Ed25519 key", remedy="Consent records are signed with Ed25519.")
    return key


def _write_signers(home: Home, held: tuple[Signer, ...]) -> None:
    document = {"schema": SCHEMA, "signers": [signer.to_json() for signer in held]}
    folder = _folder(home)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(folder / "signers.json", json.dumps(document, indent=2).encode())
    except OSError as error:
        raise ConfigError(f"cannot write the list of consent signers: {error}", remedy="Check the home.") from error
