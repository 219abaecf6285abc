"""Finding a clip of this home by what it looks like, where no mark names it.

Two measures must agree: the video hash (``safegen.media.video_hash``, which the index is made of) and the kept pictures
that marks are checked against (``safegen.watermark.fingerprint``). Whatever they say, likeness is no
origin: anyone can film a clip anew, and two clips of one prompt may look the same. docs/likeness.md has the rates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from safegen.errors import SafegenError
from safegen.ledger.likeness_index import BANDS, INDEXED, POSITIONS, WIDTH, keys_of
from safegen.provenance.kept_manifests import kept_pictures
from safegen.provenance.manifest import SoftBinding
from safegen.settings import Home
from safegen.types import LOOKS_ALG, Clip, ContentId, Json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from safegen.ledger import Entry, Ledger
    from safegen.media.video_hash import Look, VideoHash

# Imported where they are used: what loads cv2.

LIMIT: Final = 64
"""Bits of 256 by which the hashes of one clip may differ. Other clips of the embedded model differ by 84 and more."""

CANDIDATES: Final = 64
"""Entries whose hashes are compared, those first that share most pieces with what is looked for."""

_UNSURE, _UNSURE_OF_LONG = 3, 2  # of a piece's 24 bits, how many are tried both ways
_LONG: Final = 20  # half seconds: among so many, some are found with fewer trials


@dataclass(frozen=True, slots=True)
class Likeness:
    """A recorded clip that looks like what was looked for. ``distance`` in bits of 256; ``similarity``: 0 to 100."""

    entry: int
    content_id: ContentId
    manifest_id: str
    distance: int

    @property
    def similarity(self) -> int:
        """100 for the same hashes, 0 where chance does as well."""
        return max(0, round(100 * (1 - self.distance / 128)))


def recorded_look(frames: NDArray[np.uint8], fps: float) -> Json:
    """What the ledger keeps of a clip's looks, ``mark.video_hash``; None where the pictures are too even."""
    from safegen.media.video_hash import video_hash

    found = video_hash(frames, fps)
    return None if found is None else found.to_json()


def binding_of_look(kept: Json) -> SoftBinding | None:
    """What the manifest says of ``recorded_look``: the parts that the ledger's index leads from."""
    from safegen.media.video_hash import VideoHash

    if kept is None:
        return None
    few = VideoHash.from_json(kept).few(INDEXED)
    return SoftBinding(LOOKS_ALG, b"".join(few.windows).hex(), "safegen video hash")


def find_by_pictures(clip: Clip, ledger: Ledger, home: Home) -> tuple[Likeness, ...]:
    """The clips of ``home``'s ``ledger`` that ``clip`` looks like, or its mirror image does; nearest first."""
    from safegen.media.video_hash import Look

    look = Look.at(clip.frames, clip.fps)
    if look is None:
        return ()
    found: dict[int, Likeness] = {}
    for seen, frames in ((look, clip.frames), (look.mirrored(), clip.frames[:, :, ::-1])):
        for likeness, entry in near(seen, ledger):
            if entry.index not in found and _same_pictures(entry, frames, clip.fps, home):
                found[entry.index] = likeness
    return tuple(sorted(found.values(), key=lambda each: (each.distance, each.entry)))


def near(look: Look, ledger: Ledger) -> list[tuple[Likeness, Entry]]:
    """The clips whose hashes are near to ``look``, with their entries: one search of the index."""
    compared = ((_compared(entry, look), entry) for entry in ledger.find_alike(_pieces(look), CANDIDATES))
    return [(likeness, entry) for likeness, entry in compared if likeness is not None]


def find_by_hash(wanted: VideoHash, ledger: Ledger) -> tuple[Likeness, ...]:
    """The same by a hash alone: the pictures are not at hand, so nothing confirms what it says."""
    exact = [key for digest in wanted.few(INDEXED).windows for key in keys_of(digest)]
    # Which bits are least sure is not known here, so each of a piece's bits is tried both ways.
    keys = [key ^ flipped for key in exact for flipped in (0, *(1 << bit for bit in range(WIDTH)))]
    found = (_compared(entry, wanted) for entry in ledger.find_alike(keys, CANDIDATES))
    return tuple(sorted((each for each in found if each is not None), key=lambda each: (each.distance, each.entry)))


def _pieces(look: Look) -> list[int]:
    """The keys to look for: those of every piece, and of its neighbours in the bits that are least sure."""
    unsure = _UNSURE if len(look.cosines) <= _LONG else _UNSURE_OF_LONG
    return [key for margins in look.margins() for key in _probes(margins, unsure)]


def _probes(margins: NDArray[np.float32], unsure: int) -> Iterator[int]:
    places = np.array(POSITIONS)
    weights = 1 << np.arange(WIDTH - 1, -1, -1, dtype=np.int64)
    values = ((margins[places] > 0) * weights).sum(axis=1) + (np.arange(BANDS, dtype=np.int64) << WIDTH)
    weak = weights[np.argsort(np.abs(margins[places]), axis=1)[:, :unsure]]
    for chosen in range(1 << unsure):
        flipped = sum(weak[:, n] for n in range(unsure) if chosen >> n & 1)
        yield from (values ^ flipped).tolist()


def _compared(entry: Entry, look: Look | VideoHash) -> Likeness | None:
    """The likeness of an entry's clip, if it is near enough."""
    from safegen.media.video_hash import VideoHash

    mark, manifest_id = entry.body.get("mark"), entry.body.get("manifest_id")
    if not isinstance(mark, Mapping) or entry.content_id is None or not isinstance(manifest_id, str):
        return None
    try:
        distance = look.distance(VideoHash.from_json(mark.get("video_hash")))
    except SafegenError:
        return None
    return Likeness(entry.index, entry.content_id, manifest_id, distance) if distance <= LIMIT else None


def _same_pictures(entry: Entry, frames: NDArray[np.uint8], fps: float, home: Home) -> bool:
    """Whether the kept pictures say so too; without them there is nobody to ask."""
    from safegen.watermark.fingerprint.comparing import compare
    from safegen.watermark.fingerprint.shown import watch

    try:
        kept, _ = kept_pictures(home, entry.content_id, entry.body.get("mark"))
        return kept is not None and compare(kept, watch(frames, fps)).same is True
    except SafegenError:
        return False
