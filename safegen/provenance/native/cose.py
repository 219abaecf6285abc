"""The claim's signature: COSE_Sign1 (RFC 9052) with certificates, OCSP staple, time-stamp (C2PA 2.4 §13.2, §10.3)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import cbor2
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from safegen.errors import ProvenanceError, SafegenError

_CHAIN_HEADER: Final = 33  # x5chain, RFC 9360
_ALG_HEADER: Final = 1
_SIGN1_TAG: Final = 18

_CURVES: Final[dict[int, tuple[int, hashes.HashAlgorithm]]] = {
    256: (-7, hashes.SHA256()),
    384: (-35, hashes.SHA384()),
    521: (-36, hashes.SHA512()),
}
_PS256: Final = -37
_PSS: Final = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size)
_EDDSA: Final = -8


@dataclass(frozen=True, slots=True, repr=False)
class ClaimSigner:
    """What signs a claim. ``sign(message)`` returns the raw COSE signature (ECDSA: r and s, or DER) of whole bytes.

    ``algorithm`` is a COSE algorithm number, ``chain`` the DER certificates, leaf first and without the root,
    ``signature_size`` the raw signature's length in bytes.
    """

    algorithm: int
    chain: tuple[bytes, ...]
    signature_size: int
    sign: Callable[[bytes], bytes]

    @classmethod
    def from_pem(cls, chain_pem: str, key_pem: bytes) -> ClaimSigner:
        """Return the signer of an unencrypted PKCS#8 key: ES256, ES384, ES512, PS256 or Ed25519."""
        try:
            certificates = x509.load_pem_x509_certificates(chain_pem.encode())
            key = serialization.load_pem_private_key(key_pem, None)
        except (ValueError, TypeError) as error:
            raise ProvenanceError(
                f"the signing key cannot be read: {error}", remedy="See `safegen keys show`."
            ) from error
        encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        if certificates[0].public_key().public_bytes(encoding, form) != key.public_key().public_bytes(encoding, form):
            raise ProvenanceError(
                "the signing key does not belong to the certificate", remedy="See `safegen keys show`."
            )
        chain = tuple(c.public_bytes(encoding) for c in certificates)
        if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size in _CURVES:
            number, digest = _CURVES[key.curve.key_size]
            elliptic = key
            size = 2 * ((key.curve.key_size + 7) // 8)
            return cls(number, chain, size, lambda message: elliptic.sign(message, ec.ECDSA(digest)))
        if isinstance(key, rsa.RSAPrivateKey):
            big, size = key, key.key_size // 8
            return cls(_PS256, chain, size, lambda message: big.sign(message, _PSS, hashes.SHA256()))
        if isinstance(key, ed25519.Ed25519PrivateKey):
            return cls(_EDDSA, chain, 64, key.sign)
        raise ProvenanceError("a claim is signed with P-256, P-384, P-521, RSA or Ed25519", remedy="Use such a key.")

    def check_validity(self, now: dt.datetime) -> None:
        """Raise ProvenanceError if the leaf certificate is not valid at ``now`` (aware datetime)."""
        leaf = x509.load_der_x509_certificate(self.chain[0])
        start, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
        if not start <= now <= end:
            raise ProvenanceError(
                f"signing with this certificate failed: it is valid from {start} to {end}",
                remedy="Run `safegen keys renew`, and check this machine's clock.",
            )


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is attached to a signature. All of it is fetched by the caller: the writer uses no network.

    ``ocsp`` is a DER OCSPResponse for the leaf. ``timestamp(message)`` returns the DER TimeStampToken (RFC 3161, not
    the whole response) of the SHA-256 of ``message``; ``timestamp_room`` bytes are kept for it, since the size of the
    manifest must be known before the file is hashed.
    """

    ocsp: bytes = b""
    timestamp: Callable[[bytes], bytes] | None = None
    timestamp_room: int = 8192


def protected_header(signer: ClaimSigner) -> bytes:
    """Return the serialised protected header: algorithm and certificates."""
    chain: Any = list(signer.chain) if len(signer.chain) > 1 else signer.chain[0]
    return cbor2.dumps({_ALG_HEADER: signer.algorithm, _CHAIN_HEADER: chain})


def raw_signature(signer: ClaimSigner, protected: bytes, claim: bytes) -> bytes:
    """Sign ``claim`` (serialised CBOR) and return the raw signature; ProvenanceError if the signer's is unusable."""
    message = cbor2.dumps(["Signature1", protected, b"", claim])
    signature = _ask("the signer", signer.sign, message)
    if len(signature) != signer.signature_size and signer.algorithm in {number for number, _ in _CURVES.values()}:
        half = signer.signature_size // 2
        try:
            r, s = decode_dss_signature(signature)
            signature = r.to_bytes(half, "big") + s.to_bytes(half, "big")
        except (ValueError, OverflowError) as error:
            raise ProvenanceError(f"the signer's ECDSA signature is neither raw nor DER: {error}") from error
    if len(signature) != signer.signature_size:
        raise ProvenanceError(f"the signature has {len(signature)} bytes instead of {signer.signature_size}")
    _verify(signer, signature, message)
    return signature


def _ask(who: str, answer: Callable[[bytes], bytes], message: bytes) -> bytes:
    """Call the caller's code, a key in hardware or a service perhaps, whatever it may raise."""
    try:
        return answer(message)
    except SafegenError:
        raise
    except Exception as error:
        raise ProvenanceError(f"{who} failed: {error or type(error).__name__}") from error


def _verify(signer: ClaimSigner, signature: bytes, message: bytes) -> None:
    """Hold the signature against the certificate: a signer with another key is found before a manifest is made."""
    key = x509.load_der_x509_certificate(signer.chain[0]).public_key()
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            half = len(signature) // 2
            r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
            key.verify(encode_dss_signature(r, s), message, ec.ECDSA(_CURVES[key.curve.key_size][1]))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, message, _PSS, hashes.SHA256())
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, message)
        else:
            raise ProvenanceError("the certificate's key is of a kind that C2PA does not allow")
    except (InvalidSignature, KeyError) as error:
        raise ProvenanceError(
            "the signature does not belong to the certificate", remedy="Give the certificate of the key that signs."
        ) from error


def unprotected_header(evidence: Evidence, protected: bytes, signature: bytes | None) -> dict[str, Any]:
    """Return staple and time-stamp; without a ``signature``, zeros of the same size as the time-stamp may take."""
    header: dict[str, Any] = {}
    if evidence.timestamp is not None:
        if signature is None:
            token = bytes(evidence.timestamp_room)
        else:
            # C2PA 2.4 §10.3.2.5: version 2 stamps the signature, as a CBOR byte string, in a COSE countersignature.
            message = cbor2.dumps(["CounterSignature", protected, b"", cbor2.dumps(signature)])
            token = _ask("the time-stamp authority", evidence.timestamp, message)
        header["sigTst2"] = {"tstTokens": [{"val": token}]}
    if evidence.ocsp:
        header["rVals"] = {"ocspVals": [evidence.ocsp]}
    return header


def sign1(protected: bytes, unprotected: dict[str, Any], signature: bytes, size: int = 0) -> bytes:
    """Return the tagged COSE_Sign1 with a detached payload, padded to ``size`` bytes where one is given."""
    bare = _sign1(protected, {**unprotected, "pad": b""}, signature)
    missing = size - len(bare)
    if not size or missing == 0:
        return bare
    if missing < 0:
        raise ProvenanceError(
            f"the signature needs {-missing} bytes more than were kept for it", remedy="Raise timestamp_room."
        )
    # A byte string's own header grows with it, so some sizes cannot be met by one; a second one moves past the gap.
    for spare in ({}, {"pad2": b""}):
        for header in (0, 1, 2, 4):
            length = missing - header - (len(cbor2.dumps("pad2")) + 1 if spare else 0)
            if length >= 0:
                padded = _sign1(protected, {**unprotected, "pad": bytes(length), **spare}, signature)
                if len(padded) == size:
                    return padded
    raise ProvenanceError(f"cannot pad a signature by {missing} bytes")


def _sign1(protected: bytes, unprotected: dict[str, Any], signature: bytes) -> bytes:
    return cbor2.dumps(cbor2.CBORTag(_SIGN1_TAG, [protected, unprotected, None, signature]))
