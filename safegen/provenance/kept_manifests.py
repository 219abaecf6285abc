"""Kept manifests: one ``<content id>.c2pa`` each, so that a clip whose credential was stripped gets it back."""

from __future__ import annotations

import hashlib
from pathlib import Path

from safegen.errors import ProvenanceError
from safegen.files import create_file, fsync_folder
from safegen.settings import Home
from safegen.types import ContentId, parse_content_id


def store_manifest(home: Home, content_id: ContentId, manifest_bytes: bytes) -> str:
    """Keep a manifest store (JUMBF bytes) under its content id and return its SHA-256 in hex.

    Atomic and flushed to disk. Storing the same bytes again is no error; other bytes under the same content id are
    refused with ProvenanceError, for one content id names one clip for ever.
    """
    target = _path(home, content_id)
    digest = hashlib.sha256(manifest_bytes).hexdigest()
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        create_file(target, manifest_bytes)
    except FileExistsError:
        _check_same(target, manifest_bytes)
    except OSError as error:
        raise _cannot_keep(target, error) from error
    return digest


def _check_same(target: Path, manifest_bytes: bytes) -> None:
    try:
        if target.read_bytes() != manifest_bytes:
            raise ProvenanceError(
                f"{target} holds another manifest already",
                remedy="Generate again: a fresh content id is drawn for every clip.",
            )
        fsync_folder(target.parent)  # it may be another process that put it there, a moment ago
    except OSError as error:
        raise _cannot_keep(target, error) from error


def _cannot_keep(target: Path, error: OSError) -> ProvenanceError:
    return ProvenanceError(
        f"cannot keep the manifest in {target}: {error}", remedy="Check the folder's owner and the free space."
    )


def load_manifest(home: Home, content_id: ContentId) -> bytes | None:
    """Return the manifest store kept under ``content_id``, or None. Raises ProvenanceError if it cannot be read."""
    path = _path(home, content_id)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ProvenanceError(f"cannot read {path}: {error}", remedy="Check the file's owner and mode.") from error


def discard_manifest(home: Home, content_id: ContentId) -> None:
    """Delete what ``store_manifest`` kept for a clip that was not released after all; nothing happens if it is gone."""
    _path(home, content_id).unlink(missing_ok=True)


def _path(home: Home, content_id: ContentId) -> Path:
    try:
        checked = parse_content_id(content_id)  # never let a string from a file become a path
    except (TypeError, ValueError) as error:
        raise ProvenanceError(str(error)) from error
    return home.manifests / f"{checked}.c2pa"
