"""Giving a file whose credential was stripped a new one, whose parent is the credential that was kept for it.

A stripped file is another asset than the one that was signed: its bytes have changed, and who knows what else. So the
kept manifest is not put back as if nothing had happened. The file gets a manifest of its own (C2PA 2.4: ``c2pa.opened``
with the recovered manifest as its ``parentOf`` ingredient), in which the ingredient carries the kept manifest store
whole, together with what validating it against this very file says: a hard binding that does not match.
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

import c2pa

from safegen.errors import ProvenanceError
from safegen.keys import KeyStore
from safegen.provenance.assertions import PERHAPS_AI, SAFEGEN, ActionName, Actions, Generation, ManifestAction
from safegen.provenance.backends import LIBRARY, Order, Signing
from safegen.provenance.credential import CredentialState, Origin
from safegen.provenance.engine import guess_format
from safegen.provenance.file_signing import SignedAsset, read_back, signed_asset, write_new
from safegen.provenance.library import report_on
from safegen.provenance.manifest import KeptManifest, Manifest
from safegen.provenance.read import read_credential
from safegen.provenance.signer_sources import store_signer
from safegen.provenance.signing_identity import Seal, Sealing, use_seal
from safegen.types import ContentId

MODE: Final = "recovered"
"""``mode`` of the generation assertion, where a generated clip has text-to-video and the like."""


@dataclass(frozen=True, slots=True)
class Restoration:
    """What the new manifest says: the clip whose mark was read, and when (an aware datetime).

    ``algorithms`` are those of the marks by which the kept manifest was found, and ``evidence`` says what was found
    over which frames.
    """

    content_id: ContentId
    algorithms: tuple[str, ...]
    when: dt.datetime
    evidence: str = ""
    ingredients: tuple[KeptManifest, ...] = ()
    media_format: str = ""

    def of(self, source: Path, kept: bytes, anchors_pem: str) -> Restoration:
        """Return the statement about ``source``, whose parent is ``kept``. Raises ProvenanceError."""
        media_format = guess_format(source)
        try:
            report = report_on(source, media_format, kept, anchors_pem)
        except (c2pa.C2paError, ValueError) as error:
            raise ProvenanceError(f"the kept manifest cannot be read: {error}") from error
        parent = KeptManifest(kept, media_format, report, self.algorithms)
        return replace(self, ingredients=(parent,), media_format=media_format)

    def manifest(self) -> Manifest:
        """Return the manifest."""
        parents = tuple(i.instance_id for i in self.ingredients)
        description = "Credential recovered for the file by its invisible watermark"
        if self.evidence:
            description += f", {self.evidence}"
        opened = ManifestAction(ActionName.OPENED, description, SAFEGEN, self.when, "", parents)
        since = "What happened to the file since the recovered credential was signed is not known"
        unknown = ManifestAction(ActionName.UNKNOWN, since, source_type=PERHAPS_AI)
        # Not complete: nobody can list what was done while the credential was missing.
        actions = Actions((opened, unknown), complete=False)
        found = Generation(self.content_id, MODE, matched=self.algorithms)
        return Manifest(f"safegen {self.content_id}", self.media_format, (actions, found), self.ingredients)


def restore_file(
    source: Path,
    destination: Path,
    kept: bytes,
    what: Restoration,
    keys: KeyStore,
    *,
    anchors_pem: str,
    seal: Seal | None = None,
    sidecar: Path | None = None,
    signing: Signing | None = None,
) -> SignedAsset:
    """Write ``source`` with a manifest whose parent is ``kept`` to ``destination``, which must not exist.

    ``source`` must carry no credential. With ``sidecar`` (which must not exist either) ``destination`` is a copy of
    ``source`` byte for byte and the manifest store goes there; where both are one path, nothing is copied.
    ``anchors_pem``: the roots that ``kept`` may be signed under. ``seal`` names another signer than the key store's,
    and time-stamp authorities. The result is flushed, read back and found trusted.
    Raises ProvenanceError, and leaves nothing, if anything fails; KeyStoreError if ``keys`` can only verify.
    """
    if read_credential(source).state is not CredentialState.ABSENT:
        raise ProvenanceError(f"{source} carries a credential", remedy="There is nothing to recover.")
    in_place = sidecar is not None and destination == source
    made = [path for path in (None if in_place else destination, sidecar) if path is not None]
    for path in made:
        if path.exists():
            raise ProvenanceError(f"{path} exists already", remedy="Restore to a fresh path.")
    seal = seal or Seal(store_signer(keys))  # keys that only verify are refused before anything is written
    statement = what.of(source, kept, anchors_pem)
    backend = (signing or Signing.from_environment()).backend_for(statement.media_format)
    if sidecar is not None:
        backend = LIBRARY  # the writer of our own only embeds
    try:
        manifest, sealing = use_seal(
            seal,
            backend,
            statement,
            anchors_pem,
            lambda order: _sidecar(source, order) if sidecar else write_new(source, destination, backend, order),
        )
        if sidecar is not None:
            _write_new_file(sidecar, manifest)
            if not in_place:
                _write_new_file(destination, source)
        manifest_id = _read_back(destination, what, keys.root_pem, sealing, sidecar=sidecar is not None)
        return signed_asset(destination, manifest, manifest_id, sealing)
    except BaseException as error:
        for path in made:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ProvenanceError(f"cannot restore {source}: {error}", remedy="Check the folder and space.") from error
        raise


def _sidecar(source: Path, order: Order) -> bytes:
    """Return a manifest store that binds ``source`` as it is."""
    return LIBRARY.write(source, None, order)


def _read_back(destination: Path, what: Restoration, anchors_pem: str, sealing: Sealing, *, sidecar: bool) -> str:
    """Return the manifest's URN once the file verifies."""
    found = read_back(destination, what.content_id, anchors_pem, sealing)
    good = found.origin is (Origin.SIDECAR if sidecar else Origin.EMBEDDED) and any(
        i.content_id == what.content_id and i.manifest_id for i in found.ingredients
    )
    if not good or found.manifest_id is None:
        raise ProvenanceError(f"the recovered credential is not in {destination}")
    return found.manifest_id


def _write_new_file(path: Path, content: bytes | Path) -> None:
    """Write bytes, or another file's, to a new file and flush it to disk."""
    with path.open("x+b") as target:
        if isinstance(content, bytes):
            target.write(content)
        else:
            with content.open("rb") as stream:
                shutil.copyfileobj(stream, target, 1 << 20)
        _flush(target)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
