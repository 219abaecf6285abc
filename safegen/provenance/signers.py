"""What signs claims, and the signatures that C2PA allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol, runtime_checkable

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from safegen.errors import InputError, ProvenanceError, SafegenError
from safegen.keys.pki import PrivateKey, private_pem
from safegen.provenance.certificates import pem_of, read_certificates

_EC: Final = {256: ("es256", hashes.SHA256()), 384: ("es384", hashes.SHA384()), 521: ("es512", hashes.SHA512())}


@runtime_checkable
class Signer(Protocol):
    """What signing a claim needs."""

    @property
    def uri(self) -> str:
        """Where the key is, for the record: public, without any secret."""

    @property
    def algorithm(self) -> str:
        """The C2PA algorithm: es256, es384, es512, ps256 or ed25519."""

    @property
    def chain_pem(self) -> str:
        """Certificates, leaf first, without the root."""

    @property
    def issuer_pem(self) -> str:
        """The certificate that issued the leaf; the leaf itself where nobody did."""

    def sign(self, data: bytes) -> bytes:
        """Return the signature over ``data`` as COSE wants it (ECDSA: r and s in fixed length). Raises SafegenError."""


@dataclass(frozen=True, slots=True, repr=False)
class CallbackSigner:
    """A signer around any function from bytes to a signature, such as a call to a key service.

    ``chain_pem`` has the leaf first; a root at its end is left out of the manifest. ``callback`` gets the data itself,
    not its hash. ECDSA signatures may come in DER or as r and s; RSA ones are PSS with SHA-256 and a salt of 32 bytes.
    """

    chain_pem: str
    callback: Callable[[bytes], bytes]
    uri: str = "callback"
    key_pem: bytes = b""  # PKCS#8, where the key is in this process anyway
    issuer_pem: str = field(init=False)
    algorithm: str = field(init=False)

    def __post_init__(self) -> None:
        chain = read_certificates(self.chain_pem.encode(), f"the chain of {self.uri}")
        issuer = chain[1] if len(chain) > 1 else chain[0]
        if len(chain) > 1 and chain[-1].subject == chain[-1].issuer:
            chain = chain[:-1]
        object.__setattr__(self, "issuer_pem", pem_of(issuer))
        object.__setattr__(self, "chain_pem", "".join(map(pem_of, chain)))
        object.__setattr__(self, "algorithm", _algorithm(chain[0]))

    def sign(self, data: bytes) -> bytes:
        """Call the function and hold what it returns against the leaf's public key."""
        try:
            signature = self.callback(data)
        except SafegenError:
            raise
        except Exception as error:
            raise ProvenanceError(
                f"the signer {self.uri} failed: {type(error).__name__}: {error}",
                remedy="See what the key's provider says, and try again.",
            ) from error
        key = x509.load_pem_x509_certificate(self.chain_pem.encode()).public_key()
        if isinstance(key, ec.EllipticCurvePublicKey):
            signature = _fixed_length(signature, (key.key_size + 7) // 8)
        try:
            _check_signature(key, signature, data)
        except (InvalidSignature, ValueError) as error:
            raise ProvenanceError(
                f"the signature that {self.uri} returned is not one of the key that its certificate names",
                remedy="Give the chain of this very key; an RSA key must sign PSS with SHA-256.",
            ) from error
        return signature

    def __repr__(self) -> str:
        return f"CallbackSigner({self.uri!r}, {self.algorithm!r})"


def local_signer(key: PrivateKey, chain_pem: str, uri: str) -> CallbackSigner:
    """Return a signer with a private key that is in this process."""
    return CallbackSigner(chain_pem, _signing(key), uri, private_pem(key))


def _signing(key: PrivateKey) -> Callable[[bytes], bytes]:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        scheme = ec.ECDSA(_EC.get(key.key_size, _EC[256])[1])
        return lambda data: key.sign(data, scheme)
    if isinstance(key, rsa.RSAPrivateKey):
        return lambda data: key.sign(data, _pss(), hashes.SHA256())
    return key.sign


def _algorithm(leaf: x509.Certificate) -> str:
    key = leaf.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey) and key.key_size in _EC:
        return _EC[key.key_size][0]
    if isinstance(key, rsa.RSAPublicKey):
        return "ps256"
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "ed25519"
    raise InputError("C2PA has no signatures with this kind of key", remedy="Use an EC P-256 key.")


def _pss() -> padding.PSS:
    return padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)


def _fixed_length(signature: bytes, size: int) -> bytes:
    """Turn a DER ECDSA signature into r and s of ``size`` bytes each; anything else is returned as it is."""
    if len(signature) == 2 * size:
        return signature
    try:
        r, s = decode_dss_signature(signature)
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")
    except (ValueError, OverflowError):
        return signature


def _check_signature(key: object, signature: bytes, data: bytes) -> None:
    if isinstance(key, ec.EllipticCurvePublicKey):
        half = len(signature) // 2
        r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
        key.verify(encode_dss_signature(r, s), data, ec.ECDSA(_EC[key.key_size][1]))
    elif isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, data, _pss(), hashes.SHA256())
    elif isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, data)
    else:
        raise InvalidSignature
