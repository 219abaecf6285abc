"""Signing a signed file again, without touching what it shows or what was said of it: an update manifest (C2PA 2.4).

For a certificate that was rotated or will expire, and for a time-stamp or an OCSP answer that is missing. The manifest
that was active becomes the one parent of the new one, which has no hard binding of its own: that of the first manifest
goes on to hold.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from safegen.errors import ProvenanceError
from safegen.keys import KeyStore
from safegen.provenance.assertions import SAFEGEN, ActionName, Actions, Generation, ManifestAction
from safegen.provenance.backends import Signing
from safegen.provenance.credential import CredentialState, Origin
from safegen.provenance.file_signing import SignedAsset, read_back, signed_asset, write_new
from safegen.provenance.library import manifest_ids, media_type
from safegen.provenance.manifest import InputFile, Manifest, Relationship
from safegen.provenance.native.jumbf import manifests
from safegen.provenance.read import read_credential
from safegen.provenance.signer_sources import store_signer
from safegen.provenance.signing_identity import Seal, use_seal
from safegen.types import ContentId

MODE: Final = "resigned"
"""``mode`` of the generation assertion, where a generated clip has text-to-video and the like."""


@dataclass(frozen=True, slots=True)
class Update:
    """What an update manifest says: which clip it is about, what it updates, and when (an aware datetime)."""

    content_id: ContentId
    media_format: str
    parent: InputFile
    when: dt.datetime

    def manifest(self) -> Manifest:
        """Return the manifest."""
        description = "Signed again; the content is as it was"
        opened = ManifestAction(
            ActionName.OPENED, description, SAFEGEN, self.when, ingredients=(self.parent.instance_id,)
        )
        said = (Actions((opened,)), Generation(self.content_id, MODE))
        return Manifest(f"safegen {self.content_id}", self.media_format, said, (self.parent,), update=True)


def update_file(
    source: Path,
    destination: Path,
    keys: KeyStore,
    *,
    anchors_pem: str,
    seal: Seal | None = None,
    signing: Signing | None = None,
) -> SignedAsset:
    """Write ``source``, which carries a credential, with an update manifest to ``destination``, which must not exist.

    ``anchors_pem``: the roots under which the present credential may be signed, or has been while it was valid. The
    result is flushed, read back and found trusted, with every earlier manifest in it; ``manifest_bytes`` holds all.
    Raises ProvenanceError, and leaves nothing, if anything fails; KeyStoreError if ``keys`` can only verify.
    """
    earlier = read_credential(source, trust_anchors_pem=anchors_pem)
    intact = earlier.state is CredentialState.TRUSTED or earlier.only_expired
    if not intact or earlier.content_id is None or earlier.origin is not Origin.EMBEDDED:
        why = ", ".join(earlier.failure_codes) or earlier.problem or f"it is {earlier.origin}"
        raise ProvenanceError(
            f"the credential of {source} cannot be updated: {earlier.state} ({why})",
            remedy="Only an intact credential of this home, embedded in the file, is signed again.",
        )
    seal = seal or Seal(store_signer(keys))  # keys that only verify are refused before anything is written
    parent = InputFile(source, Relationship.PARENT, "earlier credential")
    statement = Update(earlier.content_id, media_type(source), parent, dt.datetime.now(dt.UTC))
    backend = (signing or Signing.from_environment()).backend_for(statement.media_format)
    manifest, sealing = use_seal(
        seal, backend, statement, anchors_pem, lambda order: write_new(source, destination, backend, order)
    )
    try:
        found = read_back(destination, earlier.content_id, anchors_pem, sealing)
        kept = {*manifest_ids(source)}
        parents = [i.manifest_id for i in found.ingredients if i.relationship == Relationship.PARENT]
        if parents != [earlier.manifest_id] or not kept < {*manifest_ids(destination)}:
            raise ProvenanceError("the updated file does not hold all earlier manifests")
        if not kept < {m.label for m in manifests(manifest)}:
            raise ProvenanceError("the updated manifest store does not hold all earlier manifests")
        assert found.manifest_id is not None  # noqa: S101 - read_back has seen to it
        return signed_asset(destination, manifest, found.manifest_id, sealing)
    except BaseException as error:
        destination.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ProvenanceError(f"reading {destination} back failed: {error}", remedy="Check the disk.") from error
        raise
