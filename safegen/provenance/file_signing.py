"""Signing one clip, into a new file or in place where it is the caller's own; read back before it is returned."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safegen.errors import ProvenanceError, SafegenError
from safegen.keys import KeyStore
from safegen.provenance.backends import Backend, Order, Signing
from safegen.provenance.credential import Credential, CredentialState
from safegen.provenance.manifest import ManifestSpec
from safegen.provenance.native.jumbf import manifests
from safegen.provenance.read import read_credential
from safegen.provenance.signer_sources import store_signer
from safegen.provenance.signing_identity import Seal, Sealing, use_seal
from safegen.types import ContentId, Json


@dataclass(frozen=True, slots=True)
class SignedAsset:
    """A signed file: its manifest store (JUMBF bytes), the manifest's URN, and the SHA-256 of the whole file in hex.

    ``signature`` is what the ledger records of the signing: signer, algorithm, SHA-256 of the leaf, time-stamp and OCSP
    answer, that none was configured included.
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

    ``seal`` names another signer than the key store's, time-stamp authorities, and whether OCSP is asked. The result is
    flushed to disk, read back and found trusted under the signer's own issuer, with its time-stamp, before it is
    returned. Give a temporary path and rename it yourself once everything else is in place. ``signing`` chooses the
    writer and whether to read back; by default the environment does (``Signing.from_environment``). Raises
    ProvenanceError if anything fails, and leaves nothing at ``destination``; KeyStoreError if ``keys`` can only verify.
    """
    signing = signing or Signing.from_environment()
    _check_source(source, spec)
    # Keys that only verify are refused before anything is written.
    seal = seal or Seal(store_signer(keys))
    manifest, sealing = use_seal(
        seal,
        signing.backend,
        spec,
        keys.root_pem,
        lambda order: write_new(source, destination, signing.backend, order),
    )
    try:
        return _finished(destination, manifest, spec, keys, sealing, signing)
    except BaseException:
        destination.unlink(missing_ok=True)
        raise


def sign_own_file(
    path: Path,
    spare: Path,
    spec: ManifestSpec,
    keys: KeyStore,
    *,
    signing: Signing | None = None,
    seal: Seal | None = None,
) -> SignedAsset:
    """Sign the temporary file ``path`` itself where it has room for the manifest, or else into ``spare``.

    ``path`` must be the caller's own and not the only copy of anything: should the machine stop within the one write,
    it is lost. The result's ``path`` says where the signed file is. Otherwise as ``sign_file``.
    """
    signing = signing or Signing.from_environment()
    _check_source(path, spec)
    seal = seal or Seal(store_signer(keys))

    def write(order: Order) -> tuple[Path, bytes]:
        manifest = signing.backend.sign_in_place(path, order)
        return (path, manifest) if manifest is not None else (spare, write_new(path, spare, signing.backend, order))

    (signed, manifest), sealing = use_seal(seal, signing.backend, spec, keys.root_pem, write)
    return _finished(signed, manifest, spec, keys, sealing, signing)


def write_new(source: Path, destination: Path, backend: Backend, order: Order) -> bytes:
    """Write ``source`` with a manifest to ``destination``, which must not exist, and flush it to the disk.

    Returns the manifest store; nothing is read back. Nothing is left at ``destination`` if anything fails.
    """
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
            manifest = backend.write(source, target, order)
            target.flush()
            os.fsync(target.fileno())
    except BaseException as error:
        destination.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ProvenanceError(f"signing {source} failed: {error}", remedy="Check the free space.") from error
        raise
    return manifest


def read_back(path: Path, content_id: ContentId, anchors_pem: str, sealing: Sealing) -> Credential:
    """Return the credential of a file that was signed just now; ProvenanceError unless it is what was written."""
    anchors = anchors_pem + sealing.seal.signer.issuer_pem
    try:
        found = read_credential(path, trust_anchors_pem=anchors)
    except SafegenError as error:
        raise ProvenanceError(f"the signed file cannot be read back: {error}") from error
    good = (
        found.own_manifest_holds  # what its ingredients' manifests lack is no fault of this file
        and found.signer_trusted
        and found.content_id == content_id
        and found.leaf_serial == f"{sealing.leaf.serial_number:x}"
        and (sealing.stamping.stamp is None or found.timestamp is not None)
    )
    if not good or found.manifest_id is None:
        why = ", ".join(found.failure_codes) or found.problem or _other_problem(found, content_id)
        raise ProvenanceError(
            f"the signed file does not verify: {found.state} ({why})",
            remedy="If an input file carries a damaged credential, use a copy without it.",
        )
    return found


def signed_asset(path: Path, manifest_bytes: bytes, manifest_id: str, sealing: Sealing) -> SignedAsset:
    """Return what is known of a file that was signed just now."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return SignedAsset(path, manifest_bytes, manifest_id, digest, sealing.to_json())


def _finished(
    path: Path, manifest_bytes: bytes, spec: ManifestSpec, keys: KeyStore, sealing: Sealing, signing: Signing
) -> SignedAsset:
    try:
        manifest_id: str | None = manifests(manifest_bytes)[-1].label
        if signing.read_back:
            manifest_id = read_back(path, spec.content_id, keys.root_pem, sealing).manifest_id
        assert manifest_id is not None  # noqa: S101 - read_back has seen to it
        return signed_asset(path, manifest_bytes, manifest_id, sealing)
    except OSError as error:
        raise ProvenanceError(f"reading {path} back failed: {error}", remedy="Check the disk.") from error


def _check_source(source: Path, spec: ManifestSpec) -> None:
    """Refuse a source that already has a manifest: signing it afresh would silently drop its history."""
    found = read_credential(source)
    if found.state is not CredentialState.ABSENT:
        raise ProvenanceError(
            f"{source} cannot be signed as a new {spec.media_format} file: its credential is {found.state}"
            + (f" ({found.problem})" if found.problem else ""),
            remedy="Sign the freshly encoded clip, name earlier files as ingredients, or update it (`safegen resign`).",
        )


def _other_problem(found: Credential, content_id: ContentId) -> str:
    if found.content_id != content_id:
        return "it names other content"
    return "its time-stamp does not hold" if found.timestamp is None else "it names another signer"
