"""Consent records: who allows which uses of a person's likeness, until when, signed by somebody whom the home trusts.

A record is a JWS in the flattened JSON serialisation (RFC 7515 §7.2.2), signed with Ed25519 (RFC 8037), over the
RFC 8785 canonical JSON of its fields; any JWS library verifies it. It holds personal data and stays with those who use
it: ledger and manifest only hold its id and its digest, which a random salt among the fields keeps from being guessed.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import json
import re
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safegen.errors import InputError
from safegen.keys.pki import public_id
from safegen.types import Json

SCHEMA: Final = "safegen.consent/1"
TYPE: Final = "safegen-consent+jws"
USES: Final = ("likeness", "voice")
MAX_BYTES: Final = 65_536

_ID = re.compile(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HINT: Final = "Make records with `safegen consent sign`."


@dataclass(frozen=True, slots=True)
class Consent:
    """What is allowed. ``images`` are SHA-256 digests of files that show the subject and may be drawn from.

    ``excluded_contexts`` are categories of the policy (docs/consent.md): where the request reaches one, the consent
    does not hold. ``projects``: the consent holds for these alone; for any if empty. Times are aware.
    """

    subject: str
    granted_by: str
    not_before: dt.datetime
    expires: dt.datetime
    aliases: tuple[str, ...] = ()
    uses: tuple[str, ...] = ("likeness",)
    excluded_contexts: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    id: str = ""
    salt: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The subject's name and its aliases."""
        return (self.subject, *self.aliases)

    def to_json(self) -> dict[str, Json]:
        """Return the record's fields as plain JSON values."""
        fields: dict[str, Json] = {"schema": SCHEMA} | asdict(self)
        return fields | {"not_before": _stamp(self.not_before), "expires": _stamp(self.expires)}


@dataclass(frozen=True, slots=True)
class SignedConsent:
    """A record as it was read: nothing about it is verified yet but its form. ``digest`` is of the canonical fields."""

    consent: Consent
    signer: str  # the id of the key that it says it is signed with
    digest: str
    signed: bytes  # what the signature is over
    signature: bytes


def sign_consent(consent: Consent, key: Ed25519PrivateKey) -> bytes:
    """Return the signed record as a file's content; a missing id and salt are drawn. InputError names a bad field."""
    drawn = {"id": consent.id or f"urn:uuid:{uuid.uuid4()}", "salt": consent.salt or secrets.token_hex(16)}
    fields = _plain(consent.to_json() | drawn)
    _parse(fields)
    payload = rfc8785.dumps(fields)
    head = {"alg": "EdDSA", "kid": public_id(key.public_key()), "typ": TYPE}
    protected, body = _encode(rfc8785.dumps(head)), _encode(payload)
    signature = key.sign(f"{protected}.{body}".encode())
    envelope = {"payload": body, "protected": protected, "signature": _encode(signature)}
    return json.dumps(envelope, indent=2).encode() + b"\n"


def read_consent(path: str | Path) -> SignedConsent:
    """Read a record's file; InputError if it is no consent record. Whether it holds is another question."""
    path = Path(path).expanduser()
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"Cannot read the consent record {path}: {error.strerror}", remedy=_HINT) from error
    try:
        return parse_consent(raw)
    except InputError as error:
        raise InputError(f"{path.name}: {error}", remedy=_HINT) from error


def parse_consent(raw: bytes) -> SignedConsent:
    """Read a record from a file's content; InputError if it is none."""
    if len(raw) > MAX_BYTES:
        raise InputError(f"longer than {MAX_BYTES} bytes, so no consent record")
    try:
        envelope = json.loads(raw)
        protected, body = str(envelope["protected"]), str(envelope["payload"])
        signature = _decode(str(envelope["signature"]))
        head, payload = json.loads(_decode(protected)), _decode(body)
        fields = json.loads(payload)
        if set(envelope) != {"payload", "protected", "signature"} or not isinstance(head, dict):
            raise ValueError("unknown members")
        if head.get("alg") != "EdDSA" or head.get("typ") != TYPE or set(head) != {"alg", "kid", "typ"}:
            raise ValueError("another kind of JWS")
        canonical = rfc8785.dumps(fields) == payload
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error, rfc8785.CanonicalizationError) as error:
        raise InputError(f"not a consent record: {error}") from error
    if not canonical:
        raise InputError("not a consent record: its fields are not in canonical form")
    consent = _parse(fields)
    return SignedConsent(
        consent, str(head["kid"]), hashlib.sha256(payload).hexdigest(), f"{protected}.{body}".encode(), signature
    )


def is_consent_id(text: str) -> bool:
    """Whether a text is a record's id."""
    return _ID.fullmatch(text) is not None


def parse_time(text: object, name: str) -> dt.datetime:
    """Return an RFC 3339 time, or a date (its beginning in UTC), as an aware datetime; InputError if it is none."""
    try:
        if not isinstance(text, str):
            raise TypeError("not text")
        when = dt.datetime.fromisoformat(text)
        return (when.replace(tzinfo=dt.UTC) if when.tzinfo is None else when).astimezone(dt.UTC)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(
            f"{name} is no time: {text!r}", remedy="Write it like 2027-01-31 or 2027-01-31T12:00Z."
        ) from error


def _parse(fields: object) -> Consent:
    if not isinstance(fields, Mapping):
        raise InputError("the record is no JSON object")
    expected = {"schema", *Consent.__dataclass_fields__}
    if set(fields) != expected:
        raise InputError(f"fields missing or unknown: {', '.join(sorted(set(fields) ^ expected))}")
    if fields["schema"] != SCHEMA:
        raise InputError(f"of schema {fields['schema']!r}; this safegen reads {SCHEMA}")
    if not isinstance(fields["id"], str) or not _ID.fullmatch(fields["id"]):
        raise InputError("id is no urn:uuid")
    if not isinstance(fields["salt"], str) or not re.fullmatch(r"[0-9a-f]{32}", fields["salt"]):
        raise InputError("salt is not 32 hex digits")
    consent = Consent(
        subject=_short_text(fields["subject"], "subject"),
        granted_by=_short_text(fields["granted_by"], "granted_by"),
        not_before=parse_time(fields["not_before"], "not_before"),
        expires=parse_time(fields["expires"], "expires"),
        aliases=_texts(fields["aliases"], "aliases"),
        uses=_texts(fields["uses"], "uses"),
        excluded_contexts=_texts(fields["excluded_contexts"], "excluded_contexts"),
        projects=_texts(fields["projects"], "projects"),
        images=_texts(fields["images"], "images"),
        id=fields["id"],
        salt=fields["salt"],
    )
    if consent.not_before >= consent.expires:
        raise InputError("expires is not after not_before")
    if unknown := sorted(set(consent.uses) - set(USES)):
        raise InputError(f"unknown use {unknown[0]!r}", remedy=f"Uses: {', '.join(USES)}.")
    if any(not _SHA256.fullmatch(digest) for digest in consent.images):
        raise InputError("images are SHA-256 digests of files, 64 lower-case hex digits each")
    return consent


def _short_text(value: object, name: str) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > 200 or not value.isprintable():
        raise InputError(f"{name} is not a text of 1 to 200 printable characters")
    return value


def _texts(value: object, name: str) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > 100:
        raise InputError(f"{name} is not a list of at most 100 texts")
    return tuple(_short_text(item, name) for item in value)


def _plain(fields: Mapping[str, Any]) -> Any:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def _stamp(when: dt.datetime) -> str:
    return when.astimezone(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    """Decode unpadded base64url, and nothing else: two spellings of one signature would be two records."""
    data = base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if _encode(data) != text:
        raise ValueError("not canonical base64url")
    return data
