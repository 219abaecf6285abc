"""Development C2PA certificates, and the encodings of keys.

The PKI made here is for *development*: a self-signed root that no verifier but the present home trusts. It follows the
C2PA certificate profile (C2PA 2.4 §14.5.1; RFC 5280) except for what would need an online service (OCSP, CRL) and for
the three extensions that only a certification authority on the C2PA trust list may honestly write: its certificate
policy, the assurance level and the product record.

The private keys of the root and of the issuing authority are never written anywhere: once the leaf is issued nobody,
us included, can issue a second certificate under that root.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from safegen.errors import KeyStoreError

CLAIM_SIGNING_EKU: Final = x509.ObjectIdentifier("1.3.6.1.4.1.62558.2.1")
"""id-kp-c2paClaimSigning: the extended key usage that a C2PA claim signer must have."""

LEAF_DAYS: Final = 365
ISSUING_DAYS: Final = 1825
ROOT_DAYS: Final = 3650


@dataclass(frozen=True, slots=True, repr=False)
class Pki:
    """PEM of a fresh root, of the chain (leaf, then issuing CA) and of the leaf's private key (PKCS#8)."""

    root: bytes
    chain: bytes
    signing_key: bytes


def issue_pki(organisation: str, now: dt.datetime) -> Pki:
    """Issue root (ES384), issuing CA (ES384) and claim-signing leaf (ES256), valid from five minutes before ``now``.

    Raises KeyStoreError if ``organisation`` cannot stand in a certificate.
    """
    start = now - dt.timedelta(minutes=5)  # clocks of verifiers may lag behind ours
    if not (1 <= len(organisation) <= 64 and organisation.isprintable() and organisation.strip()):  # RFC 5280, A.1
        raise KeyStoreError(
            f"{organisation!r} cannot be the organisation in a certificate", remedy="Use 1 to 64 printable characters."
        )
    names = [_subject(organisation, part) for part in ("Root CA", "Issuing CA", "Claim Signer")]
    root_key, issuing_key = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    leaf_key = ec.generate_private_key(ec.SECP256R1())
    eku = x509.ExtendedKeyUsage([CLAIM_SIGNING_EKU, ExtendedKeyUsageOID.EMAIL_PROTECTION])
    root = _certificate(names[0], names[0], root_key, root_key, start, ROOT_DAYS, path_length=1)
    issuing = _certificate(names[1], names[0], issuing_key, root_key, start, ISSUING_DAYS, path_length=0, eku=eku)
    leaf = _certificate(names[2], names[1], leaf_key, issuing_key, start, LEAF_DAYS, eku=eku)
    pem = serialization.Encoding.PEM
    return Pki(
        root=root.public_bytes(pem),
        chain=leaf.public_bytes(pem) + issuing.public_bytes(pem),
        signing_key=private_pem(leaf_key),
    )


def _subject(organisation: str, part: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(NameOID.COMMON_NAME, f"safegen development {part}"),
        ]
    )


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    start: dt.datetime,
    days: int,
    *,
    path_length: int | None = None,
    eku: x509.ExtendedKeyUsage | None = None,
) -> x509.Certificate:
    """Issue one certificate; ``path_length`` makes it a certification authority."""
    authority = path_length is not None
    usage = x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=not authority,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(authority, path_length), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if eku is not None:
        builder = builder.add_extension(eku, critical=False)
    return builder.sign(issuer_key, hashes.SHA384())


def private_pem(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    """Return ``key`` as unencrypted PKCS#8 PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_pem(key: Ed25519PublicKey) -> bytes:
    """Return ``key`` as SubjectPublicKeyInfo PEM."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def public_id(key: object) -> str:
    """Return the key's public name: the first 16 hex digits of SHA-256 over its SubjectPublicKeyInfo."""
    spki = key.public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(spki).hexdigest()[:16]


def symmetric_id(key: bytes, use: str) -> str:
    """Return a symmetric key's public name: 16 hex digits of an HMAC under it, which tell nothing about the key."""
    return hmac.digest(key, f"safegen key id: {use}".encode(), "sha256").hex()[:16]
