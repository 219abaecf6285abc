"""Which labels one clip gets: those of the policy and those that the call adds, seen and unseen.

The visible ones are drawn after the mark is in the frames and before they are encoded; the AIGC record of ``cn`` is
written into the encoded file before it is signed. docs/labels.md says why, and what each law asks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safegen.errors import InputError, MediaError
from safegen.media.aigc import AigcRecord, write_aigc
from safegen.media.labels import Overlay, check_laws
from safegen.types import ContentId

if TYPE_CHECKING:
    from safegen.policies.pack.loading import Pack


@dataclass(frozen=True, slots=True)
class Labelling:
    """The labels of one clip. ``modified``: it was made from another clip."""

    laws: tuple[str, ...]
    record: AigcRecord | None
    modified: bool

    @classmethod
    def plan(
        cls, pack: Pack, added: Sequence[str], content_id: ContentId, *, producer: str, call: Mapping[str, Any],
        modified: bool,
    ) -> Labelling:  # fmt: skip
        """Lay down the labels before any work is done.

        ``producer`` names the maker in AIGC records where the policy does not. Raises InputError for an unknown label,
        for a frame size in ``call`` that is too small for the labels, and for a producer that is no AIGC code.
        """
        if not pack.labels and not added:
            return cls((), None, modified)
        laws = check_laws((*pack.labels, *added))
        height, width = call.get("height"), call.get("width")
        if isinstance(height, int) and isinstance(width, int):
            Overlay(laws, height, width, modified=modified)
        record = None
        if "cn" in laws:
            record = AigcRecord(pack.content_producer or producer, content_id)
            record.check()
        return cls(laws, record, modified)

    def overlay(self, height: int, width: int) -> Overlay | None:
        """Return the labels to draw, None if there are none; MediaError where they do not fit after all."""
        if not self.laws:
            return None
        try:
            return Overlay(self.laws, height, width, modified=self.modified)
        except InputError as error:  # the call did not say the size, and by now the model has run
            raise MediaError(str(error), remedy=error.remedy) from error

    def write_metadata(self, path: Path, source_type: str) -> None:
        """Write the AIGC record, if one is due, into the encoded file; MediaError if that fails."""
        if self.record is not None:
            try:
                write_aigc(path, self.record, source_type=source_type)
            except InputError as error:  # the file is our own, so the fault is not the caller's
                raise MediaError(f"The AIGC record could not be written: {error}", remedy=error.remedy) from error
