"""Giving a file whose credential was stripped a new one, whose parent is the credential that was kept for it.

A stripped file is another asset than the one that was signed: its bytes have changed, and who knows what else. So the
kept manifest is not put back as if nothing had happened. The file gets a manifest of its own (C2PA 2.4: ``c2pa.opened``
with the recovered manifest as its ``parentOf`` ingredient), in which the ingredient carries the kept manifest store
whole, together with what validating it against this very file says: a hard binding that does not match.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import c2pa

from safegen.errors import ProvenanceError, SafegenError
from safegen.keys import KeyStore
from safegen.provenance.backends import Remembering, library_signer
from safegen.provenance.credential import CredentialState, Origin
from safegen.provenance.engine import guess_format, make_context
from safegen.provenance.manifest import GENERATION_LABEL, SPEC_VERSION, Relationship
from safegen.provenance.read import read_credential
from safegen.provenance.seal import Seal
from safegen.provenance.sign import SignedAsset, signed_asset
from safegen.provenance.signers import store_signer
from safegen.provenance.timestamps import Stamping, relay
from safegen.types import ContentId, Json
from safegen.version import __version__

MODE: Final = "recovered"
"""``mode`` of the generation assertion, where a generated clip has text-to-video and the like."""

_RESOURCE: Final = "recovered.c2pa"


@dataclass(frozen=True, slots=True)
class Restoration:
    """What the new manifest says: the clip whose mark was read, by which algorithms, and when (an aware datetime)."""

    content_id: ContentId
    algorithms: tuple[str, ...]
    when: dt.datetime

    def definition(self, media_format: str, ingredient: dict[str, Json]) -> dict[str, Json]:
        """Return the manifest definition that the C2PA library reads as JSON."""
        when = self.when.astimezone(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        agent: dict[str, Json] = {"name": "safegen", "version": __version__}
        opened: dict[str, Json] = {
            "action": "c2pa.opened",
            "when": when,
            "softwareAgent": agent,
            "description": "Credential recovered by the file's invisible watermark",
            "parameters": {"ingredientIds": [ingredient["instance_id"]]},
        }
        unknown: dict[str, Json] = {
            "action": "c2pa.unknown",
            "description": "What happened to the file since the recovered credential was signed is not known",
        }
        # allActionsIncluded is false: nobody can list what was done while the credential was missing.
        actions: dict[str, Json] = {"actions": [opened, unknown], "allActionsIncluded": False}
        found: dict[str, Json] = {
            "contentId": self.content_id,
            "mode": MODE,
            # The names that the ingredient assertion (v3) has for this; the library cannot write them there.
            "softBindingsMatched": True,
            "softBindingAlgorithmsMatched": list(self.algorithms),
        }
        return {
            "claim_version": 2,
            "title": f"safegen {self.content_id}",
            "format": media_format,
            "claim_generator_info": [{**agent, "specVersion": SPEC_VERSION}],
            "assertions": [
                {"label": "c2pa.actions.v2", "created": True, "data": actions},
                {"label": GENERATION_LABEL, "created": True, "data": found},
            ],
            "ingredients": [ingredient],
        }


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
    stamping = Stamping(seal.authorities)
    into = None if sidecar else destination
    try:
        try:
            manifest = _sign(source, into, kept, what, seal, stamping, anchors_pem)
        except ProvenanceError:
            if not (stamping.unavailable and stamping.may_go_without):
                raise
            if into is not None:
                into.unlink(missing_ok=True)
            manifest = _sign(source, into, kept, what, seal, Stamping(), anchors_pem)
        if sidecar is not None:
            _write(sidecar, manifest)
            if not in_place:
                _write(destination, source)
        anchors = keys.root_pem + seal.signer.issuer_pem
        manifest_id = _read_back(destination, manifest, what, anchors, stamping, sidecar=sidecar is not None)
        return signed_asset(destination, manifest, manifest_id, seal, stamping)
    except BaseException as error:
        for path in made:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ProvenanceError(f"cannot restore {source}: {error}", remedy="Check the folder and space.") from error
        raise


def _sign(
    source: Path,
    destination: Path | None,
    kept: bytes,
    what: Restoration,
    seal: Seal,
    stamping: Stamping,
    anchors_pem: str,
) -> bytes:
    media_format = guess_format(source)
    call = Remembering(seal.signer)
    try:
        ingredient = _ingredient(source, media_format, kept, anchors_pem)
        definition = what.definition(media_format, ingredient)
        with (
            relay(stamping) as url,
            library_signer(seal.signer, call, url) as signer,
            c2pa.Builder(
                json.dumps(definition), make_context(anchors_pem, hosts=("127.0.0.1",) if url else ())
            ) as builder,
            source.open("rb") as stream,
        ):
            builder.add_resource(_RESOURCE, io.BytesIO(kept))
            if destination is None:
                builder.set_no_embed()
                return bytes(builder.sign(signer, media_format, stream, io.BytesIO()))
            with destination.open("x+b") as target:
                manifest = bytes(builder.sign(signer, media_format, stream, target))
                _flush(target)
            return manifest
    except (c2pa.C2paError, ValueError) as error:
        if call.problem is not None:
            raise call.problem from call.problem.__cause__
        if stamping.unavailable:
            raise stamping.error() from error
        raise ProvenanceError(
            f"restoring {source} failed: {error}",
            remedy="Where the format cannot carry a manifest, write it beside the file with --sidecar.",
        ) from error


def _ingredient(source: Path, media_format: str, kept: bytes, anchors_pem: str) -> dict[str, Json]:
    """The ingredient definition: the kept store, and how it validates against the file as it is now."""
    with source.open("rb") as stream, c2pa.Reader(media_format, stream, kept, make_context(anchors_pem)) as reader:
        report: Any = json.loads(reader.json())
    return {
        "title": "recovered credential",
        "format": media_format,
        "relationship": str(Relationship.PARENT),
        "instance_id": f"xmp:iid:{uuid.uuid4()}",
        "active_manifest": report.get("active_manifest"),
        "validation_results": report.get("validation_results"),
        "manifest_data": {"format": "application/c2pa", "identifier": _RESOURCE},
    }


def _read_back(
    destination: Path, manifest: bytes, what: Restoration, anchors_pem: str, stamping: Stamping, *, sidecar: bool
) -> str:
    """Return the manifest's URN once the file verifies."""
    try:
        found = read_credential(destination, trust_anchors_pem=anchors_pem)
    except SafegenError as error:
        raise ProvenanceError(f"the restored file cannot be read back: {error}") from error
    good = (
        found.state is CredentialState.TRUSTED
        and found.origin is (Origin.SIDECAR if sidecar else Origin.EMBEDDED)
        and found.content_id == what.content_id
        and (stamping.stamp is None or found.timestamp is not None)
        and any(i.content_id == what.content_id and i.manifest_id for i in found.ingredients)
    )
    if not good or found.manifest_id is None or not manifest:
        why = ", ".join(found.failure_codes) or found.problem or "the recovered credential is not in it"
        raise ProvenanceError(f"the restored file does not verify: {found.state} ({why})")
    return found.manifest_id


def _write(path: Path, content: bytes | Path) -> None:
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
