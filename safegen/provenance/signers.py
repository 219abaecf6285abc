"""Who signs claims: the home's own key, a file, an environment variable, a hardware token, a cloud's key service.

    signer = open_signer("file:signer.pem")
    signer = open_signer("pkcs11:token=prod;object=c2pa?module-path=/usr/lib/softhsm/libsofthsm2.so&x-chain=chain.pem")

| URI | what it names |
|---|---|
| ``file:KEY.pem[?chain=CHAIN.pem]`` | private key (PKCS#8, SEC 1 or PKCS#1; may be encrypted) and chain |
| ``env:NAME`` | an environment variable that holds both as PEM |
| ``pkcs11:...`` | a key in a PKCS#11 token (RFC 7512); the certificates in the file that ``x-chain`` names |
| ``awskms:KEY?chain=CHAIN.pem[&region=R]`` | a key of AWS KMS |
| ``gcpkms:projects/.../cryptoKeyVersions/1?chain=CHAIN.pem`` | a key of Google Cloud KMS |
| ``callback:MODULE:FUNCTION`` | a function of yours that returns a Signer |

A passphrase or PIN never stands in a URI: it comes from ``$SAFEGEN_PASSPHRASE`` or, on a terminal, from a prompt.
"""

from __future__ import annotations

import getpass
import importlib
import os
import sys
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from safegen.errors import ConfigError, InputError, KeyStoreError, ProvenanceError, SafegenError
from safegen.keys import KeyStore
from safegen.keys.pki import PrivateKey, private_pem, public_id
from safegen.provenance.certificates import lint, read_certificates

PASSPHRASE: Final = "SAFEGEN_PASSPHRASE"  # noqa: S105 - the variable's name
_KINDS: Final = ("file", "env", "pkcs11", "awskms", "gcpkms", "callback")
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
        object.__setattr__(self, "issuer_pem", _pem(issuer))
        object.__setattr__(self, "chain_pem", "".join(map(_pem, chain)))
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


def open_signer(uri: str, *, ask: Callable[[str], str] | None = None) -> CallbackSigner | Signer:
    """Return the signer that ``uri`` names; the module's docstring lists the forms.

    ``ask(question)`` is asked for a passphrase or PIN that is needed and not in the environment. Raises ConfigError
    for a URI that names nothing or a package that is missing, KeyStoreError for a key or certificate that cannot be
    used, naming each defect.
    """
    kind, _, rest = uri.partition(":")
    if kind not in _KINDS or not rest:
        raise ConfigError(
            f"there is no signer {_shown(uri)!r}",
            remedy="Use file:KEY.pem, env:NAME, pkcs11:..., awskms:..., gcpkms:... or callback:MODULE:FUNCTION.",
        )
    ask = ask or _ask_terminal
    if kind == "callback":
        return _usable(_from_callback(rest))
    if kind == "env":
        content = os.environ.get(rest, "").encode()
        if not content:
            raise KeyStoreError(f"the environment variable {rest} is empty", remedy="Put key and chain in it, as PEM.")
        return _usable(_from_pem(content, content, uri, ask))
    path, query = _split(rest)
    if kind == "file":
        content = _read(Path(path))
        chain = _read(Path(query["chain"])) if "chain" in query else content
        return _usable(_from_pem(content, chain, f"file:{Path(path).name}", ask))
    from safegen.provenance import key_services

    opener = {"pkcs11": key_services.pkcs11, "awskms": key_services.awskms, "gcpkms": key_services.gcpkms}[kind]
    return _usable(opener(path, query, ask))


def store_signer(keys: KeyStore) -> CallbackSigner:
    """Return the signer of a home's own key store; KeyStoreError if it can only verify."""
    return _local(_load(keys.signing_key, _no_question), keys.certificate_chain_pem, "home")


def _usable(signer: CallbackSigner | Signer) -> CallbackSigner | Signer:
    """Refuse a certificate that verifiers would refuse, before anything is made that needs it."""
    chain = signer.chain_pem
    if signer.issuer_pem not in chain:
        chain += signer.issuer_pem  # the root itself is the issuer: allowed, and no broken chain
    defects = [d for d in lint(chain.encode(), profile=False) if d.rule != "root-in-chain"]
    if defects:
        raise KeyStoreError(
            f"the certificate of {signer.uri} cannot be used: " + " ".join(f"[{d.rule}] {d.message}" for d in defects),
            remedy=defects[0].remedy,
        )
    return signer


# -- keys in PEM -------------------------------------------------------------------------------------------------------


def _from_pem(key_pem: bytes, chain_pem: bytes, uri: str, ask: Callable[[str], str]) -> CallbackSigner:
    key = _load(key_pem, ask)
    chain = "".join(map(_pem, read_certificates(chain_pem, f"the chain of {uri}")))
    signer = _local(key, chain, uri)
    if public_id(key.public_key()) != public_id(x509.load_pem_x509_certificate(chain.encode()).public_key()):
        raise KeyStoreError(
            f"the private key of {uri} is not the one that its leaf certifies",
            remedy="Give the key that the certificate was requested with.",
        )
    return signer


def _load(pem: bytes, ask: Callable[[str], str]) -> PrivateKey:
    passphrase = ask("Passphrase of the signing key: ").encode() if b"ENCRYPTED" in pem else None
    try:
        key = serialization.load_pem_private_key(pem, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyStoreError(
            f"the private key cannot be read: {error}",
            remedy=f"Give PKCS#8 PEM, and the passphrase of an encrypted key in ${PASSPHRASE}.",
        ) from error
    if not isinstance(key, PrivateKey):
        raise KeyStoreError(f"C2PA has no signatures with a {type(key).__name__}", remedy="Use an EC P-256 key.")
    return key


def _local(key: PrivateKey, chain_pem: str, uri: str) -> CallbackSigner:
    return CallbackSigner(chain_pem, _key_callback(key), uri, private_pem(key))


def _key_callback(key: PrivateKey) -> Callable[[bytes], bytes]:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        scheme = ec.ECDSA(_EC.get(key.key_size, _EC[256])[1])
        return lambda data: key.sign(data, scheme)
    if isinstance(key, rsa.RSAPrivateKey):
        return lambda data: key.sign(data, _pss(), hashes.SHA256())
    return key.sign


def _from_callback(name: str) -> Signer:
    """Import ``MODULE:FUNCTION`` and call it."""
    module, _, function = name.partition(":")
    try:
        made = getattr(importlib.import_module(module), function)()
    except Exception as error:
        raise ConfigError(
            f"callback:{name} gave no signer: {type(error).__name__}: {error}",
            remedy="Name a function without arguments that returns a safegen.provenance.signers.Signer.",
        ) from error
    if not isinstance(made, Signer):
        raise ConfigError(f"callback:{name} returned a {type(made).__name__}", remedy="Return a CallbackSigner.")
    return made


# -- signatures --------------------------------------------------------------------------------------------------------


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


# -- reading -----------------------------------------------------------------------------------------------------------


def _split(text: str) -> tuple[str, dict[str, str]]:
    path, _, query = text.partition("?")
    return path, {name: values[-1] for name, values in urllib.parse.parse_qs(query, keep_blank_values=True).items()}


def _read(path: Path) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        raise KeyStoreError(f"cannot read {path}: {error}", remedy="Name a readable PEM file.") from error


def _ask_terminal(question: str) -> str:
    given = os.environ.get(PASSPHRASE)
    if given is not None:
        return given
    if not sys.stdin.isatty():
        raise KeyStoreError("the signing key needs a passphrase", remedy=f"Put it into ${PASSPHRASE}.")
    return getpass.getpass(question)


def _no_question(_question: str) -> str:
    raise KeyStoreError("the home's signing key is encrypted", remedy="Use `--signer file:KEY.pem` for such a key.")


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _shown(uri: str) -> str:
    """The URI without its query and shortened: what looks like a typing error may be a pasted secret."""
    return uri.partition("?")[0][:60]
