"""What is wrong with a claim-signing certificate, by name, before a verifier says no more than "invalid".

Two levels. ``error``: C2PA 2.4 §14.5.1 and RFC 5280; some verifiers refuse such a file, even where others do not.
``profile``: the certificate profiles of the C2PA conformance programme, version 0.2, assurance level 1; a development
or private certificate may go without, one from the C2PA trust list may not.
"""

from __future__ import annotations

import datetime as dt
import itertools
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID
from cryptography.x509.oid import ExtendedKeyUsageOID as Eku

from safegen.errors import InputError, KeyStoreError
from safegen.files import fsync_folder
from safegen.keys.files import occupied, write_private
from safegen.keys.pki import ASSURANCE_LEVEL, CERTIFICATE_POLICY, CLAIM_SIGNING_EKU, PRODUCT_RECORD, Pki, public_id
from safegen.types import Json

Level = Literal["error", "profile"]
_E = TypeVar("_E", bound=x509.ExtensionType)

DOCUMENT_SIGNING: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.36")
ACCEPTED_EKUS: Final = frozenset({CLAIM_SIGNING_EKU, Eku.EMAIL_PROTECTION, DOCUMENT_SIGNING})
EXCLUSIVE_EKUS: Final = frozenset({Eku.TIME_STAMPING, Eku.OCSP_SIGNING})
LEAF_DAYS: Final = 366
ISSUING_DAYS: Final = 1827
LEAF_RSA_BITS: Final = 2048
ISSUING_RSA_BITS: Final = 3072
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_HASHES: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


@dataclass(frozen=True, slots=True)
class Defect:
    """One broken rule: its name, which certificate of the file (or its key) breaks it, and what to do."""

    rule: str
    level: Level
    where: str
    message: str
    remedy: str

    def to_json(self) -> dict[str, Json]:
        """Return the defect as plain JSON values."""
        return dict(asdict(self))


def read_certificates(content: bytes, name: str = "the file") -> tuple[x509.Certificate, ...]:
    """Return the certificates in ``content`` (PEM, one or more; or one in DER); InputError if there are none."""
    try:
        if b"-----BEGIN CERTIFICATE-----" in content:
            return tuple(map(_whole, x509.load_pem_x509_certificates(content)))
        if b"-----BEGIN" not in content:
            return (_whole(x509.load_der_x509_certificate(content)),)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.InvalidVersion) as error:
        raise InputError(
            f"{name} holds a certificate that cannot be read: {error}", remedy="Give PEM, leaf first."
        ) from error
    raise InputError(f"{name} holds no certificate", remedy="Give the chain as PEM, leaf first, then its issuers.")


def pem_of(certificate: x509.Certificate) -> str:
    """Return a certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _whole(certificate: x509.Certificate) -> x509.Certificate:
    """Touch every part of a certificate: each is parsed on first use, and here is where that may fail."""
    _ = (certificate.subject, certificate.issuer, certificate.extensions, certificate.public_key())
    _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc, certificate.serial_number)
    _signature_hash(certificate)
    return certificate


def lint(
    content: bytes, *, at: dt.datetime | None = None, profile: bool = True, passphrase: bytes | None = None
) -> tuple[Defect, ...]:
    """Name everything that is wrong with a chain (PEM, leaf first; the leaf's private key may stand in it too).

    ``at`` is the time of signing, now by default. ``profile=False`` leaves out what only the conformance programme
    asks for. Raises InputError if ``content`` holds no certificate that can be read.
    """
    chain = read_certificates(content)
    when = at or dt.datetime.now(dt.UTC)
    if len(chain) > 1 and _signed_by(chain[-1], chain[0]) and not _signed_by(chain[0], chain[1]):
        remedy = "Put the claim-signing certificate first, each issuer after what it issued."
        reverse = _error("reversed-chain", "chain", "The chain begins with the issuer and ends with the leaf.", remedy)
        return (reverse, *_lint_all(chain[::-1], content, when, profile, passphrase))
    return tuple(_lint_all(chain, content, when, profile, passphrase))


def _lint_all(
    chain: Sequence[x509.Certificate], content: bytes, when: dt.datetime, profile: bool, passphrase: bytes | None
) -> list[Defect]:
    found = [*_chain(chain, when), *_leaf_usage(chain[0]), *_leaf_identity(chain[0]), *_key(chain[0])]
    found += _private_key(chain[0], content, passphrase)
    if profile:
        found += _leaf_profile(chain[0])
        if len(chain) > 1 and not _self_signed(chain[1]):
            found += _issuing_profile(chain[1])
    return found


def _error(rule: str, where: str, message: str, remedy: str) -> Defect:
    return Defect(rule, "error", where, message, remedy)


def _profile(rule: str, where: str, message: str) -> Defect:
    return Defect(rule, "profile", where, message, "Ask the certification authority for the C2PA profile, version 0.2.")


# -- the chain as a whole ----------------------------------------------------------------------------------------------


def _chain(chain: Sequence[x509.Certificate], when: dt.datetime) -> Iterator[Defect]:
    leaf = chain[0]
    for number, certificate in enumerate(chain):
        where = "leaf" if number == 0 else f"certificate {number + 1}"
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if when > end:
            yield _error("expired", where, f"It expired on {end:%Y-%m-%d %H:%M} UTC.", "Renew it.")
        if when < start:
            remedy = "Check this machine's clock, or wait."
            yield _error("not-yet-valid", where, f"It is not valid before {start:%Y-%m-%d %H:%M} UTC.", remedy)
    if _self_signed(leaf):
        remedy = "Have a certification authority sign it: `safegen cert init FOLDER` makes one for development."
        yield _error("self-signed-leaf", "leaf", "The claim-signing certificate is signed by its own key.", remedy)
        return
    if len(chain) == 1:
        remedy = "Append the issuing CA's certificate: a verifier that knows the root only cannot find the way to it."
        yield _error("incomplete-chain", "chain", "The chain holds the leaf alone.", remedy)
    for number, (certificate, issuer) in enumerate(itertools.pairwise(chain)):
        if not _signed_by(certificate, issuer):
            message = f"Certificate {number + 2} did not issue certificate {number + 1}."
            yield _error("broken-chain", "chain", message, "Put each issuer directly after what it issued.")
    if len(chain) > 1 and _self_signed(chain[-1]):
        remedy = "Leave the root out: verifiers take it from their own trust list."
        yield _error("root-in-chain", f"certificate {len(chain)}", "The chain contains its root.", remedy)


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _self_signed(certificate: x509.Certificate) -> bool:
    return certificate.subject == certificate.issuer and _signed_by(certificate, certificate)


# -- the leaf ----------------------------------------------------------------------------------------------------------


def _leaf_usage(leaf: x509.Certificate) -> Iterator[Defect]:
    again = "Issue it again with `keyUsage = critical, digitalSignature, nonRepudiation`."
    usage = _extension(leaf, x509.KeyUsage)
    if usage is None:
        yield _error("no-key-usage", "leaf", "It has no key usage extension.", again)
    else:
        if not usage.value.digital_signature:
            yield _error("no-digital-signature", "leaf", "Its key usage lacks digitalSignature.", again)
        if usage.value.key_cert_sign:
            yield _error("leaf-signs-certificates", "leaf", "Its key usage has keyCertSign.", again)
        if not usage.critical:
            yield _error("key-usage-not-critical", "leaf", "Its key usage is not marked critical.", again)
    again = "Issue it again with `extendedKeyUsage = emailProtection, 1.3.6.1.4.1.62558.2.1` and nothing else."
    extended = _extension(leaf, x509.ExtendedKeyUsage)
    if extended is None:
        yield _error("no-extended-key-usage", "leaf", "It has no extended key usage.", again)
        return
    uses = set(extended.value)
    if Eku.ANY_EXTENDED_KEY_USAGE in uses:
        yield _error("any-extended-key-usage", "leaf", "Its extended key usage has anyExtendedKeyUsage.", again)
    elif not uses & ACCEPTED_EKUS and not uses & EXCLUSIVE_EKUS:
        named = ", ".join(sorted(use.dotted_string for use in uses))
        message = f"Its extended key usage ({named}) allows no signing of claims."
        yield _error("unsuitable-extended-key-usage", "leaf", message, again)
    if uses & EXCLUSIVE_EKUS:
        message = "Its extended key usage has timeStamping or OCSPSigning, which exclude every other use."
        yield _error("exclusive-extended-key-usage", "leaf", message, again)


def _leaf_identity(leaf: x509.Certificate) -> Iterator[Defect]:
    basic = _extension(leaf, x509.BasicConstraints)
    again = "Issue it again with `basicConstraints = critical, CA:FALSE`."
    if basic is None:
        yield _error("no-basic-constraints", "leaf", "It has no basic constraints.", again)
    elif basic.value.ca:
        yield _error("leaf-is-ca", "leaf", "Its basic constraints make it a certification authority.", again)
    if _extension(leaf, x509.AuthorityKeyIdentifier) is None and not _self_signed(leaf):
        again = "Issue it again with `authorityKeyIdentifier = keyid`."
        yield _error("no-authority-key-identifier", "leaf", "It has no authority key identifier.", again)
    if _extension(leaf, x509.SubjectKeyIdentifier) is None:
        again = "Issue it again with `subjectKeyIdentifier = hash`."
        yield _error("no-subject-key-identifier", "leaf", "It has no subject key identifier.", again)


def _key(leaf: x509.Certificate) -> Iterator[Defect]:
    remedy = "Use P-256, P-384, P-521, Ed25519, or RSA with at least 2048 bits."
    key = leaf.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < LEAF_RSA_BITS:
            yield _error("weak-key", "leaf", f"Its RSA key has {key.key_size} bits.", remedy)
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, _CURVES):
            yield _error("weak-key", "leaf", f"Its key lies on the curve {key.curve.name}.", remedy)
    elif not isinstance(key, ed25519.Ed25519PublicKey):
        yield _error("weak-key", "leaf", f"C2PA has no signatures with a {type(key).__name__}.", remedy)
    algorithm = _signature_hash(leaf)
    if algorithm is not None and not isinstance(algorithm, _HASHES):
        yield _error("weak-signature", "leaf", f"It is signed with {algorithm.name}.", "Have it signed with SHA-256.")


def _signature_hash(certificate: x509.Certificate) -> hashes.HashAlgorithm | None:
    try:
        return certificate.signature_hash_algorithm  # None for Ed25519
    except UnsupportedAlgorithm:
        return None


def _private_key(leaf: x509.Certificate, content: bytes, passphrase: bytes | None) -> Iterator[Defect]:
    """Check the private key that stands in the same file, if one does."""
    if b"PRIVATE KEY-----" not in content:
        return
    if b"-----BEGIN EC PRIVATE KEY" in content or b"-----BEGIN RSA PRIVATE KEY" in content:
        remedy = "openssl pkcs8 -topk8 -in OLD.pem -out NEW.pem (safegen itself reads both)"
        message = "The private key is in the SEC 1 or PKCS#1 form, which C2PA tools refuse: they want PKCS#8."
        yield _error("key-not-pkcs8", "key", message, remedy)
    encrypted = b"ENCRYPTED" in content
    if encrypted and passphrase is None:
        return  # without its passphrase nothing more can be said
    try:
        key = serialization.load_pem_private_key(content, passphrase if encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        yield _error("key-unreadable", "key", f"The private key cannot be read: {error}.", "Give it as PKCS#8 PEM.")
        return
    if public_id(key.public_key()) != public_id(leaf.public_key()):
        message = "The private key is not the one that the leaf certifies."
        yield _error("key-mismatch", "key", message, "Give the key that the certificate was requested with.")


# -- the conformance programme's profiles ------------------------------------------------------------------------------


def _leaf_profile(leaf: x509.Certificate) -> Iterator[Defect]:
    where = "leaf"
    yield from _common_profile(leaf, where, LEAF_DAYS)
    usage = _extension(leaf, x509.KeyUsage)
    if usage is not None and not usage.value.content_commitment:
        yield _profile("profile-no-non-repudiation", where, "Its key usage lacks nonRepudiation.")
    if not _has_ocsp(leaf):
        yield _profile("profile-no-ocsp", where, "It names no OCSP responder (authority information access).")
    level = _unrecognized(leaf, ASSURANCE_LEVEL)
    if level is None or not level.startswith(b"\x06"):
        yield _profile("profile-no-assurance-level", where, "It states no C2PA assurance level (…62558.3).")
    record = _unrecognized(leaf, PRODUCT_RECORD)
    if record is None or not _is_uuid(record):
        yield _profile("profile-no-product-record", where, "It names no record of the products list (…62558.4).")


def _issuing_profile(issuing: x509.Certificate) -> Iterator[Defect]:
    where = "issuing CA"
    yield from _common_profile(issuing, where, ISSUING_DAYS)
    basic, usage = _extension(issuing, x509.BasicConstraints), _extension(issuing, x509.KeyUsage)
    if basic is None or not basic.value.ca or basic.value.path_length != 0:
        yield _profile("profile-issuing-constraints", where, "Its basic constraints are not CA:TRUE, pathlen:0.")
    if usage is None or not (usage.value.key_cert_sign and usage.value.crl_sign):
        yield _profile("profile-issuing-usage", where, "Its key usage is not keyCertSign, cRLSign.")
    if not _has_ocsp(issuing) and _extension(issuing, x509.CRLDistributionPoints) is None:
        yield _profile("profile-no-revocation", where, "It names neither an OCSP responder nor a CRL.")
    key = issuing.public_key()
    strong = (isinstance(key, rsa.RSAPublicKey) and key.key_size >= ISSUING_RSA_BITS) or (
        isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1 | ec.SECP521R1)
    )
    if not strong:
        yield _profile("profile-issuing-key", where, "Its key is not P-384, P-521 or RSA with at least 3072 bits.")


def _common_profile(certificate: x509.Certificate, where: str, days: int) -> Iterator[Defect]:
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    if lifetime > dt.timedelta(days=days):
        yield _profile("profile-validity", where, f"It is valid for {lifetime.days} days; {days} are allowed.")
    wanted = {"C": NameOID.COUNTRY_NAME, "O": NameOID.ORGANIZATION_NAME, "CN": NameOID.COMMON_NAME}
    missing = [name for name, oid in wanted.items() if not certificate.subject.get_attributes_for_oid(oid)]
    if missing:
        yield _profile("profile-subject", where, f"Its subject lacks {', '.join(missing)}.")
    extended = _extension(certificate, x509.ExtendedKeyUsage)
    uses = set() if extended is None else set(extended.value)
    if CLAIM_SIGNING_EKU not in uses or not uses & {Eku.EMAIL_PROTECTION, DOCUMENT_SIGNING}:
        message = "Its extended key usage is not c2pa-kp-claimSigning with emailProtection or documentSigning."
        yield _profile("profile-extended-key-usage", where, message)
    policies = _extension(certificate, x509.CertificatePolicies)
    if policies is None or CERTIFICATE_POLICY not in {p.policy_identifier for p in policies.value}:
        yield _profile("profile-no-policy", where, "It lacks the C2PA certificate policy (…62558.1.1).")


def _has_ocsp(certificate: x509.Certificate) -> bool:
    access = _extension(certificate, x509.AuthorityInformationAccess)
    return access is not None and any(
        a.access_method == AuthorityInformationAccessOID.OCSP
        and isinstance(a.access_location, x509.UniformResourceIdentifier)
        and a.access_location.value.startswith("http")
        for a in access.value
    )


def _is_uuid(der: bytes) -> bool:
    """Whether ``der`` is a UTF8String of 36 characters that make a UUID."""
    try:
        return der[:2] == b"\x0c\x24" and len(der) == 38 and str(uuid.UUID(der[2:].decode("ascii"))) != ""
    except ValueError:
        return False


def _extension(certificate: x509.Certificate, kind: type[_E]) -> x509.Extension[_E] | None:
    try:
        return certificate.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None


def _unrecognized(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> bytes | None:
    try:
        value = certificate.extensions.get_extension_for_oid(oid).value
    except x509.ExtensionNotFound:
        return None
    return value.value if isinstance(value, x509.UnrecognizedExtension) else None


def describe(certificate: x509.Certificate) -> dict[str, Json]:
    """Return what ``safegen cert show`` prints of one certificate."""
    extended = _extension(certificate, x509.ExtendedKeyUsage)
    key = certificate.public_key()
    kind = type(key).__name__.removesuffix("PublicKey").strip("_")
    if isinstance(key, ec.EllipticCurvePublicKey):
        kind = key.curve.name
    elif isinstance(key, rsa.RSAPublicKey):
        kind = f"RSA {key.key_size}"
    return {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "serial": f"{certificate.serial_number:x}",
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "key": kind,
        "usages": [] if extended is None else [use.dotted_string for use in extended.value],
        "sha256": certificate.fingerprint(hashes.SHA256()).hex(),
    }


def write_pki(folder: Path, pki: Pki) -> None:
    """Write ``root.pem``, ``chain.pem`` and ``signing.key`` into ``folder``, which must be new or empty.

    Raises KeyStoreError, and writes over nothing.
    """
    if occupied(folder):
        raise KeyStoreError(f"{folder} is not empty", remedy="Name a new folder.")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, content in (("root.pem", pki.root), ("chain.pem", pki.chain), ("signing.key", pki.signing_key)):
            write_private(folder / name, content)
        fsync_folder(folder)
    except OSError as error:
        raise KeyStoreError(f"cannot write {folder}: {error}", remedy="Check owner and free space.") from error
