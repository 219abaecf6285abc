"""Signing keys that never leave where they are: PKCS#11 tokens, AWS KMS, Google Cloud KMS.

Each needs a package that safegen does not install by itself (extras ``pkcs11``, ``aws``, ``gcp``) and is imported only
when such a key is named.
"""

from __future__ import annotations

import hashlib
import importlib
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from safegen.errors import ConfigError, KeyStoreError
from safegen.provenance.signers import CallbackSigner

Ask = Callable[[str], str]


def pkcs11(path: str, query: Mapping[str, str], ask: Ask) -> CallbackSigner:
    """Open ``pkcs11:token=T;object=LABEL?module-path=M&x-chain=FILE`` (RFC 7512; ``id`` in place of ``object`` too).

    ``pin-source`` names a file with the PIN; without it the PIN is asked for. A session is opened for each signature,
    so that a process that forks, or a token that was taken out, does not leave a dead one behind.
    """
    library = _import("pkcs11", "pkcs11", "python-pkcs11")
    _refuse(query, "pin-value", "Put the PIN in a file and name it as pin-source, or into $SAFEGEN_PASSPHRASE.")
    wanted = dict(part.partition("=")[::2] for part in path.split(";") if part)
    # An id is bytes (RFC 7512 §2.3), which latin-1 keeps one to one.
    coding = {"id": "latin-1"}
    wanted = {name: urllib.parse.unquote(value, coding.get(name, "utf-8")) for name, value in wanted.items()}
    if not wanted.get("token") or not (wanted.get("object") or wanted.get("id")):
        raise ConfigError("a pkcs11: URI names a token and an object", remedy="As in pkcs11:token=T;object=LABEL?...")
    named = f"object={wanted['object']}" if wanted.get("object") else f"id={wanted['id'].encode('latin-1').hex()}"
    uri = f"pkcs11:token={wanted['token']};{named}"
    module, chain = _needed(query, "module-path", uri), _chain(query, "x-chain", uri)
    pin = _pin(query, ask)

    @contextmanager
    def key() -> Iterator[Any]:
        token = library.lib(module).get_token(token_label=wanted["token"])
        search = {"label": wanted["object"]} if wanted.get("object") else {"id": wanted["id"].encode("latin-1")}
        with token.open(user_pin=pin) as session:
            yield session.get_key(object_class=library.ObjectClass.PRIVATE_KEY, **search)

    public = x509.load_pem_x509_certificate(chain.encode()).public_key()
    sign = _token_signature(library, public)

    def callback(data: bytes) -> bytes:
        with key() as private:
            return bytes(sign(private, data))

    try:
        with key():
            pass
    except Exception as error:
        why = str(error) or type(error).__name__
        raise KeyStoreError(
            f"{uri} cannot be opened: {type(error).__name__}: {why}",
            remedy="Check module-path, token label, object label and PIN (pkcs11-tool --list-objects --login).",
        ) from error
    return CallbackSigner(chain, callback, uri)


def _token_signature(library: Any, public: object) -> Callable[[Any, bytes], bytes]:
    mechanism = library.Mechanism
    if isinstance(public, ec.EllipticCurvePublicKey):
        digest = {256: hashlib.sha256, 384: hashlib.sha384}.get(public.key_size, hashlib.sha512)
        # Plain ECDSA over our own hash: not every token has the mechanisms that hash themselves.
        return lambda key, data: key.sign(digest(data).digest(), mechanism=mechanism.ECDSA)
    if isinstance(public, rsa.RSAPublicKey):
        pss = (mechanism.SHA256, library.MGF.SHA256, 32)
        return lambda key, data: key.sign(data, mechanism=mechanism.SHA256_RSA_PKCS_PSS, mechanism_param=pss)
    if isinstance(public, ed25519.Ed25519PublicKey):
        return lambda key, data: key.sign(data, mechanism=mechanism.EDDSA)
    raise KeyStoreError("C2PA has no signatures with this kind of key", remedy="Use an EC P-256 key.")


def _pin(query: Mapping[str, str], ask: Ask) -> str:
    source = query.get("pin-source", "").removeprefix("file:")
    return _read_text_file(Path(source)).strip() if source else ask("PIN of the token: ")


def awskms(path: str, query: Mapping[str, str], _ask: Ask) -> CallbackSigner:
    """Open ``awskms:KEY?chain=FILE[&region=R]``; KEY is an id, an ARN or ``alias/NAME``. Credentials as boto3 finds."""
    boto3 = _import("boto3", "aws", "boto3")
    uri = f"awskms:{path}"
    chain = _chain(query, "chain", uri)
    try:
        client = boto3.client("kms", **({"region_name": query["region"]} if "region" in query else {}))
    except Exception as error:
        raise KeyStoreError(
            f"{uri} cannot be opened: {error}", remedy="Add &region=REGION to the URI, or set AWS_REGION."
        ) from error
    algorithm, digest = _aws_algorithm(x509.load_pem_x509_certificate(chain.encode()).public_key())

    def callback(data: bytes) -> bytes:
        # The hash and not the data: KMS takes 4096 bytes at most.
        answer = client.sign(
            KeyId=path, Message=digest(data).digest(), MessageType="DIGEST", SigningAlgorithm=algorithm
        )
        return bytes(answer["Signature"])

    return CallbackSigner(chain, callback, uri)


def _aws_algorithm(public: object) -> tuple[str, Callable[[bytes], Any]]:
    if isinstance(public, rsa.RSAPublicKey):
        return "RSASSA_PSS_SHA_256", hashlib.sha256
    if isinstance(public, ec.EllipticCurvePublicKey):
        bits = {256: 256, 384: 384}.get(public.key_size, 512)
        return f"ECDSA_SHA_{bits}", getattr(hashlib, f"sha{bits}")
    raise KeyStoreError("AWS KMS signs claims with EC and RSA keys only", remedy="Use an ECC_NIST_P256 key.")


def gcpkms(path: str, query: Mapping[str, str], _ask: Ask) -> CallbackSigner:
    """Open ``gcpkms:projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/V?chain=FILE``."""
    kms = _import("google.cloud.kms", "gcp", "google-cloud-kms")
    uri = f"gcpkms:{path}"
    chain = _chain(query, "chain", uri)
    public = x509.load_pem_x509_certificate(chain.encode()).public_key()
    bits = {384: 384}.get(public.key_size, 256) if isinstance(public, ec.EllipticCurvePublicKey) else 256
    digest = getattr(hashlib, f"sha{bits}")
    try:
        client = kms.KeyManagementServiceClient()
    except Exception as error:
        remedy = "Set up application default credentials (gcloud auth application-default login)."
        raise KeyStoreError(f"{uri} cannot be opened: {error}", remedy=remedy) from error

    def callback(data: bytes) -> bytes:
        request = {"name": path, "digest": {f"sha{bits}": digest(data).digest()}}
        return bytes(client.asymmetric_sign(request=request).signature)

    return CallbackSigner(chain, callback, uri)


def _import(module: str, extra: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"this signer needs the package {package}, which is not installed",
            remedy=f"pip install 'safegen[{extra}]' (or: pip install {package})",
        ) from error


def _needed(query: Mapping[str, str], name: str, uri: str) -> str:
    if not query.get(name):
        raise ConfigError(f"{uri} lacks {name}", remedy=f"Append ?{name}=FILE (or &{name}=FILE) to the URI.")
    return query[name]


def _refuse(query: Mapping[str, str], name: str, remedy: str) -> None:
    if name in query:
        raise ConfigError(f"{name} in a URI would show the secret to every user of this machine", remedy=remedy)


def _chain(query: Mapping[str, str], name: str, uri: str) -> str:
    return _read_text_file(Path(_needed(query, name, uri)))


def _read_text_file(path: Path) -> str:
    try:
        return path.expanduser().read_text("utf-8")
    except (OSError, UnicodeError) as error:
        raise KeyStoreError(f"cannot read {path}: {error}", remedy="Name a readable text file.") from error
