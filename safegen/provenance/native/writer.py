"""Signing natively: into a stream, into a new file, or in place where the muxer reserved room."""

from __future__ import annotations

import datetime as dt
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Final

from safegen.errors import MediaError, ProvenanceError, SafegenError
from safegen.files import fsync_folder
from safegen.provenance.manifest import MediaFormat, Statement
from safegen.provenance.native import jumbf, streaming
from safegen.provenance.native.bmff import Bmff, ReservedRoom
from safegen.provenance.native.claim import Draft, Ingredients
from safegen.provenance.native.cose import ClaimSigner, Evidence
from safegen.provenance.native.jpeg import Jpeg
from safegen.provenance.native.png import Png
from safegen.provenance.native.streaming import Container
from safegen.provenance.native.updating import UPDATED, Updated

_HASH: Final = bytes(32)
_CONTAINERS: Final[dict[MediaFormat, Callable[[BinaryIO], Container]]] = {
    MediaFormat.MP4: Bmff,
    MediaFormat.MOV: Bmff,
    MediaFormat.PNG: Png,
    MediaFormat.JPEG: Jpeg,
}


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: all of the file's manifests as one store (JUMBF bytes), and the URN of the active one."""

    manifest_bytes: bytes
    manifest_id: str


@dataclass(frozen=True, slots=True)
class Request:
    """What to say and who signs it. ``ingredients`` comes from ``native.ingredients.collect``."""

    spec: Statement
    signer: ClaimSigner
    ingredients: Ingredients = field(default_factory=Ingredients)
    evidence: Evidence = field(default_factory=Evidence)

    def draft(self) -> Draft:
        """Return the manifest without its hard binding; ProvenanceError if the certificate is not valid now."""
        self.signer.check_validity(dt.datetime.now(dt.UTC))
        return Draft(self.spec.manifest(), self.signer, self.ingredients, self.evidence)

    def open(self, file: BinaryIO) -> Container:
        """Return the container that the manifest goes into; ProvenanceError if its format is not known here."""
        manifest = self.spec.manifest()
        try:
            media_format = MediaFormat(manifest.media_format)
        except ValueError as error:
            raise ProvenanceError(
                f"the native writer knows no {manifest.media_format}", remedy="Use the backend c2pa-python."
            ) from error
        return (UPDATED if manifest.update else _CONTAINERS)[media_format](file)

    def updating(self, container: Container) -> Request:
        """Return the request with the manifests that already stand where an update goes, byte for byte."""
        if not isinstance(container, Updated):
            return self
        return replace(self, ingredients=Ingredients(self.ingredients.assertions, container.earlier))


def write(source: Path, target: BinaryIO, request: Request) -> Written:
    """Write ``source`` with a signed manifest to ``target`` (seekable, empty, writable), reading it once.

    Memory stays at one buffer of 1 MiB and the file's index. An update manifest goes into a file that has one already;
    everything in it stays. Raises UnreadableMediaError if ``source`` is not a whole
    file of the format that the manifest names, ProvenanceError if it carries a manifest already or signing fails.
    """
    try:
        with source.open("rb", buffering=0) as file:
            container = request.open(file)
            draft = request.updating(container).draft()
            size = _settled_size(draft, container)
            hole = container.wrapped_size(size)
            at, digest = streaming.copy(file, target, container, hole)
            manifest = draft.finish(container.binding(hole, digest), size)
            target.seek(at)
            target.write(container.wrap(manifest))
            target.seek(0, os.SEEK_END)
            if isinstance(container, Updated) and container.original:
                manifest = jumbf.superbox(
                    jumbf.STORE, "c2pa", *(m.raw for m in (*container.original, *jumbf.manifests(manifest)))
                )
    except OSError as error:
        raise ProvenanceError(
            f"signing {source} failed: {error}", remedy="Check that the file can be read, and the free space."
        ) from error
    return Written(manifest, draft.urn)


def write_file(source: Path, destination: Path, request: Request) -> Written:
    """Sign ``source`` into ``destination``, which must not exist and appears at once and whole, or not at all.

    A temporary file beside it is written, flushed to the disk and linked into place; ``source`` is only read, so a
    process that is killed at any moment leaves it as it was. Raises as ``write`` does.
    """
    temporary: Path | None = None
    try:
        if destination.exists() or destination.is_symlink():
            raise _exists(destination)
        # Not mkstemp, whose files only their owner may read: the result has the mode that any new file has.
        temporary = destination.with_name(f".{destination.name}.{secrets.token_hex(8)}.part")
        with temporary.open("xb") as file:
            written = write(source, file, request)
            file.flush()
            os.fsync(file.fileno())
        _publish(temporary, destination)
        fsync_folder(destination.parent)
    except OSError as error:
        raise ProvenanceError(f"cannot write {destination}: {error}", remedy="Check folder and free space.") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return written


def write_in_place(path: Path, request: Request, *, flush: bool = True) -> Written:
    """Sign an MP4 or MOV whose muxer left a ``free`` box before the media; nothing is copied, the media is read once.

    All reading, hashing and signing comes first, one write last, so every error leaves the file as it was. Where the
    room follows ``ftyp`` at once, so does a crash: until the last eight bytes are written the room stays a ``free``
    box. Where ``moov`` must move (ffmpeg's ``-moov_size``), a crash within that write can damage the file: sign a
    file in place only while it is your own temporary one. Without ``flush`` nothing is forced to the disk, and
    all this holds where the process dies, not where the machine does. Raises MediaError if there is not enough room,
    UnreadableMediaError if the file is damaged, ProvenanceError if it carries a manifest or signing fails.
    """
    if request.spec.manifest().media_format not in (MediaFormat.MP4, MediaFormat.MOV):
        raise MediaError("only MP4 and MOV are signed in place", remedy="Sign into a new file.")
    try:
        with path.open("r+b", buffering=0) as file:
            room = ReservedRoom(file)
            draft = request.draft()
            size = _settled_size(draft, room.container)
            hole = room.hole(room.container.wrapped_size(size))
            size += hole - room.container.wrapped_size(size)
            digest = streaming.digest(file, room.pieces(hole))
            manifest = draft.finish(room.container.binding(hole, digest), size)
            _replace(file, room.start, room.region(room.container.wrap(manifest)), flush)
    except OSError as error:
        raise ProvenanceError(
            f"signing {path} in place failed: {error}", remedy="Check that the file can be written."
        ) from error
    return Written(manifest, draft.urn)


def _settled_size(draft: Draft, container: Container) -> int:
    """Return the manifest's size. The binding names it, and its digits take room: grows until it stays the same."""
    size = draft.size(container.binding(0, _HASH))
    while (needed := draft.size(container.binding(container.wrapped_size(size), _HASH))) != size:
        size = needed
    return size


def _replace(file: BinaryIO, start: int, region: bytes, flush: bool) -> None:
    """Write ``region``, its first box header last: until then the old box there stays in force."""
    for at, part in ((start + 8, memoryview(region)[8:]), (start, memoryview(region)[:8])):
        file.seek(at)
        while part:
            part = part[file.write(part) :]
        if flush:
            os.fsync(file.fileno())


def _publish(temporary: Path, destination: Path) -> None:
    try:
        os.link(temporary, destination)  # unlike a rename, a link never replaces what is there
    except FileExistsError as error:
        raise _exists(destination) from error
    except OSError:  # a file system without hard links
        if destination.exists():
            raise _exists(destination) from None
        temporary.rename(destination)


def _exists(destination: Path) -> SafegenError:
    return ProvenanceError(
        f"{destination} exists already", remedy="Sign to a fresh path; safegen never signs over a file."
    )
