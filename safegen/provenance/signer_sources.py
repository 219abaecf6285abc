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
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from safegen.errors import ConfigError, KeyStoreError
from safegen.keys import KeyStore
from safegen.keys.pki import PrivateKey, public_id
from safegen.provenance import key_services
from safegen.provenance.certificates import lint, pem_of, read_certificates
from safegen.provenance.signers import CallbackSigner, Signer, local_signer

PASSPHRASE: Final = "SAFEGEN_PASSPHRASE"  # noqa: S105 - the variable's name
_KINDS: Final = ("file", "env", "pkcs11", "awskms", "gcpkms", "callback")


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
        content = _read_pem(Path(path))
        chain = _read_pem(Path(query["chain"])) if "chain" in query else content
        return _usable(_from_pem(content, chain, f"file:{Path(path).name}", ask))
    opener = {"pkcs11": key_services.pkcs11, "awskms": key_services.awskms, "gcpkms": key_services.gcpkms}[kind]
    return _usable(opener(path, query, ask))


def store_signer(keys: KeyStore) -> CallbackSigner:
    """Return the signer of a home's own key store; KeyStoreError if it can only verify."""
    return local_signer(_load_private_key(keys.signing_key, _no_question), keys.certificate_chain_pem, "home")


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
    key = _load_private_key(key_pem, ask)
    chain = "".join(map(pem_of, read_certificates(chain_pem, f"the chain of {uri}")))
    signer = local_signer(key, chain, uri)
    if public_id(key.public_key()) != public_id(x509.load_pem_x509_certificate(chain.encode()).public_key()):
        raise KeyStoreError(
            f"the private key of {uri} is not the one that its leaf certifies",
            remedy="Give the key that the certificate was requested with.",
        )
    return signer


def _load_private_key(pem: bytes, ask: Callable[[str], str]) -> PrivateKey:
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


# -- reading -----------------------------------------------------------------------------------------------------------


def _split(text: str) -> tuple[str, dict[str, str]]:
    path, _, query = text.partition("?")
    return path, {name: values[-1] for name, values in urllib.parse.parse_qs(query, keep_blank_values=True).items()}


def _read_pem(path: Path) -> bytes:
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


def _shown(uri: str) -> str:
    """The URI without its query and shortened: what looks like a typing error may be a pasted secret."""
    return uri.partition("?")[0][:60]
