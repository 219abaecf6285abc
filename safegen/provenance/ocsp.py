"""Proof, fetched while signing, that the signer's certificate has not been revoked (OCSP, RFC 6960).

The leaf certificate names its responder. What that answers is checked here as a relying party would: who signed it, for
which certificate, and until when it holds. The answer is then stapled to the signature (C2PA 2.4, ``rVals``), so that
whoever verifies the file needs no network.
"""

from __future__ import annotations

import datetime as dt
import http.client
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from safegen.errors import ConfigError, ProvenanceError
from safegen.provenance.authority import post
from safegen.types import Json

SECONDS: Final = 10.0
"""How long one responder may take."""

MAX_BYTES: Final = 64 << 10
VARIABLE: Final = "SAFEGEN_OCSP"
_SKEW: Final = dt.timedelta(minutes=5)
_QUERY: Final = "application/ocsp-request"
_REPLY: Final = "application/ocsp-response"


class OcspMode(StrEnum):
    """``off``: nobody is asked. ``staple``: stapled where a good answer comes. ``require``: else nothing is signed."""

    OFF = "off"
    STAPLE = "staple"
    REQUIRE = "require"


def parse_mode(text: str) -> OcspMode:
    """Return the mode that a setting names, ``off`` for none; ConfigError for anything else."""
    try:
        return OcspMode(text or "off")
    except ValueError as error:
        modes = ", ".join(OcspMode)
        raise ConfigError(f"{VARIABLE} is {text!r}", remedy=f"Set it to one of: {modes}.") from error


@dataclass(frozen=True, slots=True)
class Staple:
    """A good answer: the whole DER OCSPResponse, who gave it, and the times (ISO 8601) between which it holds."""

    response: bytes = field(repr=False)
    responder: str
    this_update: str
    next_update: str


@dataclass(frozen=True, slots=True)
class Revocation:
    """What came of asking. ``failures`` says, per responder, why there is no good answer."""

    mode: OcspMode = OcspMode.OFF
    staple: Staple | None = None
    failures: tuple[str, ...] = ()

    @property
    def response(self) -> bytes:
        """What is stapled; nothing where there is no good answer."""
        return b"" if self.staple is None else self.staple.response

    def to_json(self) -> dict[str, Json]:
        """Return the outcome for the ledger: ``status`` is "off", "stapled" or "unavailable"."""
        if self.mode is OcspMode.OFF:
            return {"status": "off"}
        failures: dict[str, Json] = {"failures": list(self.failures)} if self.failures else {}
        if self.staple is None:
            return {"status": "unavailable"} | failures
        return {
            "status": "stapled",
            "responder": self.staple.responder,
            "this_update": self.staple.this_update,
            "next_update": self.staple.next_update,
        } | failures


def check_revocation(chain_pem: str, issuer_pem: str, mode: OcspMode) -> Revocation:
    """Ask the responders that the leaf names, in turn, until one gives a good answer.

    Raises ProvenanceError where the leaf is revoked, and with ``require`` where there is no good answer.
    """
    if mode is OcspMode.OFF:
        return Revocation()
    leaf = x509.load_pem_x509_certificate(chain_pem.encode())
    issuer = x509.load_pem_x509_certificate(issuer_pem.encode())
    failures: list[str] = []
    responders = _responders(leaf)
    for url in responders:
        try:
            return Revocation(mode, _ask(url, leaf, issuer), tuple(failures))
        except (OSError, ValueError, http.client.HTTPException, UnsupportedAlgorithm) as error:
            failures.append(f"{url}: {error or type(error).__name__}")
    if not responders:
        failures.append("the certificate names no OCSP responder")
    if mode is OcspMode.REQUIRE:
        raise ProvenanceError(
            "no OCSP responder vouches for the signing certificate: " + "; ".join(failures),
            remedy=f"Try again, or set {VARIABLE}=staple to sign without such proof where there is none.",
        )
    return Revocation(mode, None, tuple(failures))


def _responders(leaf: x509.Certificate) -> list[str]:
    try:
        places = leaf.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    named = [p.access_location for p in places if p.access_method == AuthorityInformationAccessOID.OCSP]
    urls = [n.value for n in named if isinstance(n, x509.UniformResourceIdentifier)]
    return [url for url in urls if url.startswith(("http://", "https://"))]


def _ask(url: str, leaf: x509.Certificate, issuer: x509.Certificate) -> Staple:
    # SHA-1 names the certificate and protects nothing; responders with answers made in advance know no other.
    query = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, hashes.SHA1()).build()  # noqa: S303
    content = post(
        url, query.public_bytes(serialization.Encoding.DER), (_QUERY, _REPLY), seconds=SECONDS, most=MAX_BYTES
    )
    answer = ocsp.load_der_ocsp_response(content)
    if answer.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise ValueError(f"refused: {answer.response_status.name}")
    _check_signature(answer, issuer)
    return _checked(content, answer, query, leaf, url)


def _checked(
    content: bytes, answer: ocsp.OCSPResponse, query: ocsp.OCSPRequest, leaf: x509.Certificate, url: str
) -> Staple:
    """Return the answer if it is a present and good one about the leaf; ValueError else."""
    now = dt.datetime.now(dt.UTC)
    about = [
        single
        for single in answer.responses
        if (single.serial_number, single.issuer_key_hash, single.issuer_name_hash)
        == (query.serial_number, query.issuer_key_hash, query.issuer_name_hash)
    ]
    if len(about) != 1:
        raise ValueError("the answer is about another certificate")
    (single,) = about
    start, end = single.this_update_utc, single.next_update_utc
    if single.certificate_status is ocsp.OCSPCertStatus.REVOKED:
        raise ProvenanceError(
            f"the signing certificate {leaf.serial_number:x} was revoked at {single.revocation_time_utc}",
            remedy="Have a new one issued, for a new key, and find out what was signed since then.",
        )
    if single.certificate_status is not ocsp.OCSPCertStatus.GOOD:
        raise ValueError("the responder does not know the certificate")
    if start > now + _SKEW or end is None or end < now:
        raise ValueError(f"the answer holds from {start} to {end}")
    return Staple(content, url, start.isoformat(), end.isoformat())


def _check_signature(answer: ocsp.OCSPResponse, issuer: x509.Certificate) -> None:
    """ValueError unless the issuer signed the answer, or one to whom it delegated that (RFC 6960 §4.2.2.2)."""
    now = dt.datetime.now(dt.UTC)
    for signer in (issuer, *answer.certificates):
        if not _named(answer, signer):
            continue
        if signer != issuer:
            try:
                signer.verify_directly_issued_by(issuer)
                uses = signer.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
            except (InvalidSignature, TypeError, ValueError, x509.ExtensionNotFound) as error:
                raise ValueError("the answer's signer is not the issuer's delegate") from error
            if ExtendedKeyUsageOID.OCSP_SIGNING not in uses:
                raise ValueError("the answer's signer may not sign OCSP answers")
            if not signer.not_valid_before_utc <= now <= signer.not_valid_after_utc:
                raise ValueError("the certificate of the answer's signer is not valid now")
        try:
            _verify(signer.public_key(), answer)
        except InvalidSignature as error:
            raise ValueError("the answer's signature does not hold") from error
        return
    raise ValueError("the answer is signed by somebody unknown")


def _named(answer: ocsp.OCSPResponse, certificate: x509.Certificate) -> bool:
    if answer.responder_name is not None:
        return answer.responder_name == certificate.subject
    return answer.responder_key_hash == x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest


def _verify(key: Any, answer: ocsp.OCSPResponse) -> None:
    digest = answer.signature_hash_algorithm
    signature, message = answer.signature, answer.tbs_response_bytes
    if isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, message)
    elif digest is None or isinstance(digest, hashes.SHA1 | hashes.MD5):
        raise ValueError("the answer is signed with a broken hash")
    elif isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, message, ec.ECDSA(digest))
    elif isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, message, padding.PKCS1v15(), digest)
    else:
        raise ValueError("the answer is signed with a key of an unknown kind")
