"""Which mark of this home a file carries, if any: the blind extractors in turn, and a finding from what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safegen.calibration.vaes import VaeRecord, known_vaes
from safegen.errors import LedgerError, SafegenError
from safegen.generators import load, resolve, vae_folder
from safegen.media import decode
from safegen.release.marking import NOISE_SCHEME, PIXEL_SCHEME, STILL_FRAMES, STILL_SCHEME
from safegen.settings import ISSUED_IDS, MARK_FRAMES, Home
from safegen.types import Basis, ContentId, Finding, Json, Progress, Status
from safegen.watermark.base import MarkStatus

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from safegen.keys import KeyStore
    from safegen.verification.beginning import Beginning
    from safegen.watermark.base import Extraction, Extractor

# Imported where they are used: what loads cv2 or sqlalchemy.


@dataclass(frozen=True, slots=True)
class Mark:
    """What was found. ``content_id`` is what a mark that could be read names, ``extraction`` how it was read."""

    finding: Finding
    content_id: ContentId | None = None
    extraction: Extraction | None = None


def not_run(basis: Basis, summary: str) -> Finding:
    """A finding that leaves its question open, and says why."""
    return Finding(basis, Status.NOT_RUN, summary.replace("..", "."))


class MarkReader:
    """Looks for this home's marks. ``progress`` is told about every extractor."""

    def __init__(self, home: Home, progress: Progress) -> None:
        self._home = home
        self._progress = progress

    def read(
        self, path: Path, clip: Beginning | None, keys: Sequence[KeyStore], key_problem: str, unseen: str = ""
    ) -> Mark:
        """Look under the watermark keys of ``keys``. ``clip``: the file's beginning, None to leave the mark alone.

        Whatever hinders is in the finding; ``key_problem`` says why there are no keys where there should be, ``unseen``
        why there is no clip, if not because nobody wanted it read.
        """
        if not keys:
            if self._home.keys.exists():
                return Mark(not_run(Basis.WATERMARK, f"The mark was not looked for: {key_problem}."))
            summary = "This home has no watermark key, so no file can carry its mark."
            return Mark(Finding(Basis.WATERMARK, Status.ABSENT, summary))
        if clip is None:
            why = unseen or "the neural parts were switched off"
            return Mark(not_run(Basis.WATERMARK, f"The mark was not looked for: {why}."))
        try:
            return self._extract(path, clip, keys)
        except ImportError as error:
            return Mark(not_run(Basis.WATERMARK, f"The mark could not be looked for: {error.name} is not installed."))
        except SafegenError as error:
            return Mark(not_run(Basis.WATERMARK, f"The mark could not be looked for: {error}"))

    def _extract(self, path: Path, clip: Beginning, keys: Sequence[KeyStore]) -> Mark:
        """Look for a mark of any of ``keys``: the clip mark in the whole file, then the others in its beginning."""
        marks = list(dict.fromkeys(k.watermark_key for k in keys))  # stores set aside by `renew` share theirs
        best: Extraction | None = None
        unread: list[str] = []
        for name, read in self._readers(path, clip, marks, unread):
            self._progress(f"reading the mark ({name})", 0, 1)
            found = read()
            self._progress(f"reading the mark ({name})", 1, 1)
            if best is None or _rank(found) > _rank(best):
                best = found
            if found.status is MarkStatus.VERIFIED:
                break
        evidence: dict[str, Json] = {"unread": list(unread), **({} if best is None else best.to_json())}
        if best is not None and best.status is MarkStatus.VERIFIED and best.payload is not None:
            content_id = best.payload.content_id
            summary = f"The {best.scheme} mark names content id {content_id} (p <= {best.p_value:.1e})."
            return Mark(Finding(Basis.WATERMARK, Status.PASS, summary, evidence), content_id, best)
        if best is not None and best.status is MarkStatus.PRESENT:
            summary = "A mark of this home is there, but too damaged to name a clip."
            return Mark(Finding(Basis.WATERMARK, Status.INCONCLUSIVE, summary, evidence))
        if unread:
            summary = f"No mark was found, but not every kind could be looked for: {' '.join(unread)}"
            return Mark(Finding(Basis.WATERMARK, Status.INCONCLUSIVE, summary, evidence))
        return Mark(Finding(Basis.WATERMARK, Status.ABSENT, "No mark of this home was found.", evidence))

    def _readers(
        self, path: Path, clip: Beginning, marks: Sequence[bytes], unread: list[str]
    ) -> Iterator[tuple[str, Callable[[], Extraction]]]:
        """Yield the ways to read a mark, cheapest first; what cannot be loaded is named in ``unread``."""
        from safegen.watermark.clip.extraction import extract_stream
        from safegen.watermark.schemes import make_extractor

        def under_all(extractor: Extractor) -> Callable[[], Extraction]:
            return lambda: max((extractor.extract_frames(clip.frames, key) for key in marks), key=_rank)

        still = clip.info.frames <= STILL_FRAMES
        once = _Pass(path, clip.info.frames)
        if not still:
            yield "clip", lambda: extract_stream(once.frames(), marks, issued=self._issued())
            still = once.count <= STILL_FRAMES  # more were announced than could be decoded
        if still and clip.is_cut:
            unread.append(f"all frames but the first {len(clip.frames)}, which are too large to be held together.")
        for record in self._records(still):
            try:
                source = _reading_source(record)
                yield record.model, under_all(make_extractor(record.scheme, vae=source, shapes=record.shapes))
            except SafegenError as error:
                unread.append(f"{record.model}: {error}.")
        if still:
            yield PIXEL_SCHEME, under_all(make_extractor(PIXEL_SCHEME))
        else:
            yield PIXEL_SCHEME, lambda: max((once.pixels.extraction(key) for key in marks), key=_rank)

    def _records(self, still: bool) -> list[VaeRecord]:
        """The models through which this home's other marks are read: stills' for stills, keyed noise for clips."""
        wanted = STILL_SCHEME if still else NOISE_SCHEME
        records = [r for r in known_vaes(self._home) if r.scheme == wanted]
        if still and not any(r.model == "tiny" for r in records):
            records.append(VaeRecord("", "tiny", STILL_SCHEME, ()))
        return records

    def _issued(self) -> list[ContentId]:
        """Content ids that this home has marked lately: a damaged mark can be recognised as one of them."""
        from safegen.ledger import Ledger

        try:
            with Ledger.open(self._home.ledger_url, create=False, read_only=True) as ledger:
                return ledger.content_ids(ISSUED_IDS)
        except LedgerError:
            return []  # step (4) says so


class _Pass:
    """One decoding for the two readers of clips: while the frames go by, some are summed up for the pixel mark."""

    def __init__(self, path: Path, expected: int) -> None:
        from safegen.watermark.pixel import PixelSums, frame_step

        self._path = path
        self._step = frame_step(min(expected, MARK_FRAMES))
        self.pixels = PixelSums()
        self.count = 0

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Yield all frames, uint8 [H, W, 3] each."""
        for frame in decode(self._path, tolerant=True):
            if self.count < MARK_FRAMES and self.count % self._step == 0:
                self.pixels.add(frame)
            self.count += 1
            yield frame
            del frame  # so that a large one is not held while the next is read


def _reading_source(record: VaeRecord) -> Any:
    """What the scheme's extractor needs: the VAE's folder, or for keyed noise the whole pipeline."""
    ref = resolve(record.model)
    return load(ref) if record.scheme == NOISE_SCHEME else vae_folder(ref)


def _rank(found: Extraction) -> tuple[int, float]:
    """Order extractions: payload before presence before nothing, then the smaller p-value."""
    return (("none", "present", "verified").index(found.status), -found.p_value)
