"""A file takes its name only once its entry stands in the ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from safegen.errors import SafegenError
from safegen.files import uninterrupted
from safegen.provenance.kept_manifests import discard_kept, store_manifest, store_pictures
from safegen.settings import Home
from safegen.types import ContentId, Json

if TYPE_CHECKING:
    from safegen.ledger import Ledger, Receipt
    from safegen.provenance.file_signing import SignedAsset

# Imported where they are used: what loads sqlalchemy.


class Append(Protocol):
    """Appends an entry about one file; ``columns`` are further fields of ``safegen.ledger.Event``."""

    def __call__(self, kind: str, body: Mapping[str, Json], **columns: Any) -> Receipt:
        """Return the entry's receipt; LedgerError where it cannot be recorded."""
        ...


def appender(ledger: Ledger, content_id: ContentId) -> Append:
    """Return what appends to ``ledger`` about the file of ``content_id``, and says no more than it is told."""

    def append(kind: str, body: Mapping[str, Json], **columns: Any) -> Receipt:
        from safegen.ledger import Event

        return ledger.append(Event(kind=kind, content_id=content_id, body=dict(body), **columns))

    return append


def record_and_place(
    signed: SignedAsset,
    place: Callable[[], None],
    append: Append,
    kind: str,
    body: Mapping[str, Json],
    *,
    keep: tuple[Home, ContentId] | None = None,
    pictures: bytes = b"",
    **columns: Any,
) -> Receipt:
    """Append the entry of a signed file, then ``place`` the file; no signal comes between the two.

    ``keep`` names the home that keeps the manifest and ``pictures``, where there are any, and the content id under
    which it does. Where placing fails the entry stands, as all entries do; a second one says that its file never came
    to be. Raises what keeping, appending or placing raises; where nothing is recorded, nothing is kept either.
    """
    if keep is None:
        manifest_sha256 = hashlib.sha256(signed.manifest_bytes).hexdigest()
    else:
        if pictures:
            store_pictures(*keep, pictures)
        manifest_sha256 = store_manifest(*keep, signed.manifest_bytes)
    said: dict[str, Json] = {"manifest_id": signed.manifest_id, "signature": dict(signed.signature), **body}
    with uninterrupted():
        try:
            receipt = append(kind, said, asset_sha256=signed.sha256, manifest_sha256=manifest_sha256, **columns)
        except SafegenError:
            if keep is not None:
                discard_kept(*keep)
            raise
        try:
            place()
        except SafegenError:
            append("withdrawn", {"error": "the file could not be moved into place", f"{kind}_entry": receipt.index})
            raise
    return receipt
