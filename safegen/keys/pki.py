"""Development C2PA certificates, and the encodings of keys.

The PKI made here is for *development*: a self-signed root that no verifier but the present home trusts. Its shape is
that of the C2PA conformance programme's certificate profiles, version 0.2 (root, issuing CA, claim-signing leaf at
assurance level 1), so that what works with it works with a certificate from the C2PA trust list. Three values say that
nobody stands behind it: the country is ZZ (ISO 3166: for the user to assign), the product record is the nil UUID, and
the OCSP responder lies under ``.invalid`` (RFC 2606), which no name server answers for.

The private keys of the root and of the issuing authority are never written anywhere: once the leaf is issued nobody,
us included, can issue a second certificate under that root.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from safegen.errors import KeyStoreError

CLAIM_SIGNING_EKU: Final = x509.ObjectIdentifier("1.3.6.1.4.1.62558.2.1")
"""id-kp-c2paClaimSigning: the extended key usage that a C2PA claim signer must have."""

CERTIFICATE_POLICY: Final = x509.ObjectIdentifier("1.3.6.1.4.1.62558.1.1")
"""c2pa-certificate-policy."""

ASSURANCE_LEVEL: Final = x509.ObjectIdentifier("1.3.6.1.4.1.62558.3")
"""id-c2pa-al: an extension whose value is the OBJECT IDENTIFIER of the level."""

ASSURANCE_LEVEL_1: Final = bytes.fromhex("060a2b0601040183e85e030a")
"""DER of c2pa-assuranceLevel-1, 1.3.6.1.4.1.62558.3.10."""

PRODUCT_RECORD: Final = x509.ObjectIdentifier("1.3.6.1.4.1.62558.4")
"""c2pa-cpl-record: an extension whose value is a UTF8String of a UUID, the record in the conforming products list."""

NO_OCSP: Final = "http://ocsp.invalid/"
NO_COUNTRY: Final = "ZZ"

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | Ed25519PrivateKey

ALGORITHMS: Final[dict[str, Callable[[], PrivateKey]]] = {
    "es256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "es384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "es512": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ps256": lambda: rsa.generate_private_key(65537, 3072),
    "ed25519": Ed25519PrivateKey.generate,
}
"""How to draw a key for each algorithm that a leaf may sign with (C2PA 2.4 §13.2.1; RSA with SHA-256 only)."""

LEAF_DAYS: Final = 365
ISSUING_DAYS: Final = 1825
ROOT_DAYS: Final = 3650


@dataclass(frozen=True, slots=True, repr=False)
class Pki:
    """PEM of a fresh root, of the chain (leaf, then issuing CA) and of the leaf's private key (PKCS#8)."""

    root: bytes
    chain: bytes
    signing_key: bytes


def issue_pki(
    organisation: str,
    now: dt.datetime,
    *,
    algorithm: str = "es256",
    country: str = NO_COUNTRY,
    ocsp_url: str = NO_OCSP,
    passphrase: str = "",
) -> Pki:
    """Issue root (ES384), issuing CA (ES384) and a claim-signing leaf, valid from five minutes before ``now``.

    ``algorithm`` is one of ``ALGORITHMS``. ``ocsp_url`` ends in a slash: c2pa-rs drops what follows the last one.
    With a ``passphrase`` the leaf's key is encrypted. Raises KeyStoreError if a value cannot stand in a certificate.
    """
    start = now - dt.timedelta(minutes=5)  # clocks of verifiers may lag behind ours
    _check_values(organisation, algorithm, country, ocsp_url)
    names = [_subject(organisation, country, part) for part in ("Root CA", "Issuing CA", "Claim Signer")]
    root_key, issuing_key = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    leaf_key = ALGORITHMS[algorithm]()
    responder = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(ocsp_url))
    record = str(uuid.UUID(int=0)).encode()
    common: list[x509.ExtensionType] = [
        x509.ExtendedKeyUsage([CLAIM_SIGNING_EKU, ExtendedKeyUsageOID.EMAIL_PROTECTION]),
        x509.CertificatePolicies([x509.PolicyInformation(CERTIFICATE_POLICY, None)]),
        x509.AuthorityInformationAccess([responder]),
    ]
    of_leaf: list[x509.ExtensionType] = [
        x509.UnrecognizedExtension(ASSURANCE_LEVEL, ASSURANCE_LEVEL_1),
        x509.UnrecognizedExtension(PRODUCT_RECORD, b"\x0c" + bytes([len(record)]) + record),
    ]
    root = _certificate(names[0], names[0], root_key, root_key, start, ROOT_DAYS, path_length=1)
    issuing = _certificate(names[1], names[0], issuing_key, root_key, start, ISSUING_DAYS, common, path_length=0)
    leaf = _certificate(names[2], names[1], leaf_key, issuing_key, start, LEAF_DAYS, [*common, *of_leaf])
    pem = serialization.Encoding.PEM
    return Pki(
        root=root.public_bytes(pem),
        chain=leaf.public_bytes(pem) + issuing.public_bytes(pem),
        signing_key=private_pem(leaf_key, passphrase),
    )


def _check_values(organisation: str, algorithm: str, country: str, ocsp_url: str) -> None:
    if not (1 <= len(organisation) <= 64 and organisation.isprintable() and organisation.strip()):  # RFC 5280, A.1
        raise KeyStoreError(
            f"{organisation!r} cannot be the organisation in a certificate", remedy="Use 1 to 64 printable characters."
        )
    if algorithm not in ALGORITHMS:
        raise KeyStoreError(f"there is no algorithm {algorithm!r}", remedy=f"Use one of {', '.join(ALGORITHMS)}.")
    if not (len(country) == 2 and country.isascii() and country.isalpha() and country.isupper()):
        raise KeyStoreError(f"{country!r} is no country code", remedy="Use two capital letters, as in FR.")
    if not (ocsp_url.startswith("http://") and ocsp_url.endswith("/") and ocsp_url.isascii()):
        raise KeyStoreError(
            f"{ocsp_url!r} cannot be an OCSP responder", remedy="Use a URL that begins with http:// and ends with /."
        )


def _subject(organisation: str, country: str, part: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, country),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(NameOID.COMMON_NAME, f"safegen development {part}"),
        ]
    )


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: PrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    start: dt.datetime,
    days: float,
    extensions: Sequence[x509.ExtensionType] = (),
    *,
    path_length: int | None = None,
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
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer_key, hashes.SHA384())


def private_pem(key: PrivateKey, passphrase: str = "") -> bytes:
    """Return ``key`` as PKCS#8 PEM, encrypted where there is a passphrase."""
    cipher = serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, cipher)


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
