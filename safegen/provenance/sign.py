"""Signing one clip: a new file beside the caller's, read back before it is handed over."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from safegen.errors import ProvenanceError, SafegenError
from safegen.keys import KeyStore
from safegen.provenance.backends import Signing
from safegen.provenance.credential import Credential, CredentialState
from safegen.provenance.manifest import ManifestSpec
from safegen.provenance.native.jumbf import manifests
from safegen.provenance.read import read_credential
from safegen.provenance.seal import Seal
from safegen.provenance.signers import store_signer
from safegen.provenance.timestamps import Stamping
from safegen.types import Json


@dataclass(frozen=True, slots=True)
class SignedAsset:
    """A signed file: its manifest store (JUMBF bytes), the manifest's URN, and the SHA-256 of the whole file in hex.

    ``signature`` is what the ledger records of the signing: signer, algorithm, SHA-256 of the leaf, and the time-stamp,
    that none was configured included.
    """

    path: Path
    manifest_bytes: bytes
    manifest_id: str
    sha256: str
    signature: Mapping[str, Json] = field(default_factory=dict)


def sign_file(
    source: Path,
    destination: Path,
    spec: ManifestSpec,
    keys: KeyStore,
    *,
    signing: Signing | None = None,
    seal: Seal | None = None,
) -> SignedAsset:
    """Write ``source`` with a signed manifest to ``destination``, which must not exist; ``source`` is only read.

    ``seal`` names another signer than the key store's, and time-stamp authorities. The result is flushed to disk, read
    back and found trusted under the signer's own issuer, with its time-stamp, before it is returned. Give a temporary
    path and rename it yourself once everything else is in place. ``signing`` chooses the writer and whether
    to read back; by default the environment does (``Signing.from_environment``). Raises ProvenanceError, and leaves
    nothing at ``destination``, if anything fails; KeyStoreError if ``keys`` can only verify.
    """
    signing = signing or Signing.from_environment()
    _check_source(source, spec)
    # Keys that only verify are refused before anything is written.
    seal = seal or Seal(store_signer(keys))
    stamping = Stamping(seal.authorities)
    try:
        # "x" creates the file or fails: there is no moment at which another file could be overwritten.
        target = destination.open("x+b")
    except FileExistsError as error:
        raise ProvenanceError(
            f"{destination} exists already", remedy="Sign to a fresh path; safegen never signs over a file."
        ) from error
    except OSError as error:
        raise ProvenanceError(f"cannot write {destination}: {error}", remedy="Check the folder.") from error
    try:
        with target:
            try:
                manifest_bytes = signing.backend.write(source, target, spec, keys, seal.signer, stamping)
            except ProvenanceError:
                if not (stamping.unavailable and stamping.may_go_without):
                    raise
                target.seek(0)
                target.truncate()
                manifest_bytes = signing.backend.write(source, target, spec, keys, seal.signer)
            target.flush()
            os.fsync(target.fileno())
        if not signing.read_back:
            return signed_asset(destination, manifest_bytes, manifests(manifest_bytes)[-1].label, seal, stamping)
        manifest_id = _read_back(destination, manifest_bytes, spec, keys, seal, stamping)
        return signed_asset(destination, manifest_bytes, manifest_id, seal, stamping)
    except BaseException as error:
        destination.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ProvenanceError(f"signing {source} failed: {error}", remedy="Check the free space.") from error
        raise


def _check_source(source: Path, spec: ManifestSpec) -> None:
    """Refuse a source that already has a manifest: signing it afresh would silently drop its history."""
    found = read_credential(source)
    if found.state is not CredentialState.ABSENT:
        raise ProvenanceError(
            f"{source} cannot be signed as a new {spec.media_format} file: its credential is {found.state}"
            + (f" ({found.problem})" if found.problem else ""),
            remedy="Sign the freshly encoded clip, and name earlier files as ingredients.",
        )


def _read_back(
    destination: Path, manifest_bytes: bytes, spec: ManifestSpec, keys: KeyStore, seal: Seal, stamping: Stamping
) -> str:
    """Return the manifest's URN once the file verifies."""
    leaf = x509.load_pem_x509_certificate(seal.signer.chain_pem.encode())
    try:
        found = read_credential(destination, trust_anchors_pem=keys.root_pem + seal.signer.issuer_pem)
    except SafegenError as error:
        raise ProvenanceError(f"the signed file cannot be read back: {error}") from error
    good = (
        found.state is CredentialState.TRUSTED
        and found.content_id == spec.content_id
        and found.leaf_serial == f"{leaf.serial_number:x}"
        and (stamping.stamp is None or found.timestamp is not None)
    )
    if not good or found.manifest_id is None or not manifest_bytes:
        why = ", ".join(found.failure_codes) or found.problem or _other_problem(found, spec)
        raise ProvenanceError(
            f"the signed file does not verify: {found.state} ({why})",
            remedy="If an input file carries a damaged credential, use a copy without it.",
        )
    return found.manifest_id


def _other_problem(found: Credential, spec: ManifestSpec) -> str:
    if found.content_id != spec.content_id:
        return "it names other content"
    return "its time-stamp does not hold" if found.timestamp is None else "it names another signer"


def signed_asset(
    destination: Path, manifest_bytes: bytes, manifest_id: str, seal: Seal, stamping: Stamping
) -> SignedAsset:
    """Return what is known of a file that was signed just now."""
    leaf = x509.load_pem_x509_certificate(seal.signer.chain_pem.encode())
    signature: dict[str, Json] = {
        "signer": seal.signer.uri,
        "algorithm": seal.signer.algorithm,
        "leaf_sha256": leaf.fingerprint(hashes.SHA256()).hex(),
        "timestamp": stamping.to_json(),
    }
    with destination.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return SignedAsset(destination, manifest_bytes, manifest_id, digest, signature)
