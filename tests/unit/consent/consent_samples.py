"""A home with keys, a trusted signer, and consent records of it. Names are invented."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safegen.consent.record import Consent, SignedConsent, parse_consent, sign_consent
from safegen.keys.pki import private_pem, public_pem

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
DAY = dt.timedelta(days=1)
SUBJECT = "Ada Wong"


def consent(subject: str = SUBJECT, **changes: Any) -> Consent:
    fields: dict[str, Any] = {"not_before": NOW - DAY, "expires": NOW + DAY, "granted_by": subject} | changes
    return Consent(subject, **fields)


def signed(key: Ed25519PrivateKey, subject: str = SUBJECT, **changes: Any) -> SignedConsent:
    return parse_consent(sign_consent(consent(subject, **changes), key))


def write(path: Path, key: Ed25519PrivateKey, subject: str = SUBJECT, **changes: Any) -> Path:
    path.write_bytes(sign_consent(consent(subject, **changes), key))
    return path


def altered(content: bytes, **changes: Any) -> bytes:
    """The record with other fields under the old signature."""
    import base64

    import rfc8785

    envelope = json.loads(content)
    body = envelope["payload"]
    fields = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))) | changes
    envelope["payload"] = base64.urlsafe_b64encode(rfc8785.dumps(fields)).rstrip(b"=").decode()
    return json.dumps(envelope).encode()


def write_key(folder: Path, key: Ed25519PrivateKey, name: str = "signer") -> tuple[Path, Path]:
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    private.write_bytes(private_pem(key))
    private.chmod(0o600)
    public.write_bytes(public_pem(key.public_key()))
    return private, public
