"""What is kept of a clip: its manifest, ``<content id>.c2pa``, so that a clip whose credential was stripped gets it
back, and its pictures, small, ``<content id>.pictures``, so that its mark on other pictures is told
(docs/fingerprint.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safegen.errors import ProvenanceError
from safegen.files import create_file, fsync_folder
from safegen.settings import Home
from safegen.types import ContentId, parse_content_id

if TYPE_CHECKING:
    from safegen.watermark.fingerprint.kept_pictures import KeptPictures

# Imported where they are used: what loads cv2.

MANIFEST, PICTURES = ".c2pa", ".pictures"


def store_manifest(home: Home, content_id: ContentId, manifest_bytes: bytes) -> str:
    """Keep a manifest store (JUMBF bytes) under its content id and return its SHA-256 in hex.

    Atomic and flushed to disk. Storing the same bytes again is no error; other bytes under the same content id are
    refused with ProvenanceError, for one content id names one clip for ever.
    """
    return _store(_path(home, content_id, MANIFEST), manifest_bytes)


def store_pictures(home: Home, content_id: ContentId, pictures: bytes) -> str:
    """The same for the clip's kept pictures (``safegen.watermark.fingerprint.kept_pictures``)."""
    return _store(_path(home, content_id, PICTURES), pictures)


def _store(target: Path, kept: bytes) -> str:
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        create_file(target, kept)
    except FileExistsError:
        _check_same(target, kept)
    except OSError as error:
        raise _cannot_keep(target, error) from error
    return hashlib.sha256(kept).hexdigest()


def _check_same(target: Path, kept: bytes) -> None:
    try:
        if target.read_bytes() != kept:
            raise ProvenanceError(
                f"{target} holds what is kept of another clip already",
                remedy="Generate again: a fresh content id is drawn for every clip.",
            )
        fsync_folder(target.parent)  # it may be another process that put it there, a moment ago
    except OSError as error:
        raise _cannot_keep(target, error) from error


def _cannot_keep(target: Path, error: OSError) -> ProvenanceError:
    return ProvenanceError(
        f"cannot keep what belongs in {target}: {error}", remedy="Check the folder's owner and the free space."
    )


def load_manifest(home: Home, content_id: ContentId) -> bytes | None:
    """Return the manifest store kept under ``content_id``, or None. Raises ProvenanceError if it cannot be read."""
    return _load(_path(home, content_id, MANIFEST))


def load_pictures(home: Home, content_id: ContentId) -> bytes | None:
    """Return what is kept of a clip's pictures, or None. Raises ProvenanceError if it cannot be read."""
    return _load(_path(home, content_id, PICTURES))


def kept_pictures(home: Home, content_id: ContentId | None, mark: object) -> tuple[KeptPictures | None, str]:
    """What is kept of a clip's pictures, or None and why there is nothing to compare with.

    ``mark`` is what the clip's ledger entry says of its mark. Raises ProvenanceError if they cannot be read, and
    WatermarkError if they are none.
    """
    from safegen.watermark.fingerprint.kept_pictures import KeptPictures

    wanted = mark.get("pictures") if isinstance(mark, Mapping) else None
    if not isinstance(wanted, str) or content_id is None:
        return None, "none were kept when it was made"
    data = load_pictures(home, content_id)
    if data is None:
        return None, "they are no longer kept here"
    if hashlib.sha256(data).hexdigest() != wanted:
        return None, "what is kept is not what the ledger recorded"
    return KeptPictures.from_bytes(data), ""


def _load(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ProvenanceError(f"cannot read {path}: {error}", remedy="Check the file's owner and mode.") from error


def discard_kept(home: Home, content_id: ContentId) -> None:
    """Delete manifest and pictures of a clip that was not released after all, or is erased; nothing happens if they are
    gone.
    """
    for suffix in (PICTURES, MANIFEST):
        _path(home, content_id, suffix).unlink(missing_ok=True)


def _path(home: Home, content_id: ContentId, suffix: str) -> Path:
    try:
        checked = parse_content_id(content_id)  # never let a string from a file become a path
    except (TypeError, ValueError) as error:
        raise ProvenanceError(str(error)) from error
    return home.manifests / f"{checked}{suffix}"
