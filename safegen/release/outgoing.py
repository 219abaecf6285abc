"""One clip or still on its way out: labelled, marked, encoded, read back, signed, recorded, placed, in this order.

Whatever writes a picture file for a user goes through here. The caller says what the file is (its manifest, its entry)
and judges the frames that will leave; everything that must not be forgotten on the way happens here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safegen.errors import WatermarkError
from safegen.files import Scratch, Target
from safegen.likeness import recorded_look
from safegen.media import decode, encode_png, encode_video, read_clip
from safegen.release.labelling import Labelling
from safegen.release.marking import Marking, comfortable
from safegen.release.recording import Append, record_and_place
from safegen.release.stopwatch import Stopwatch
from safegen.settings import MARK_FRAMES, Home
from safegen.types import ContentId, Json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from safegen.keys import KeyStore
    from safegen.ledger import Receipt
    from safegen.media.labels import Overlay
    from safegen.provenance.file_signing import SignedAsset
    from safegen.provenance.manifest import ManifestSpec
    from safegen.provenance.signing_identity import Seal

# Imported where they are used: what loads c2pa or cv2.


@dataclass(frozen=True, slots=True)
class Marked:
    """Frames uint8 [T, H, W, 3] whose mark was read back from the encoded file, and what the reading said of it."""

    mark: Mapping[str, Json]
    frames: NDArray[np.uint8]


class Outgoing:
    """What leaves, from frames to a file in its place. ``has_inputs``: ingredients will make its manifest larger."""

    def __init__(
        self,
        content_id: ContentId,
        home: Home,
        keys: KeyStore,
        seal: Seal,
        *,
        target: Target,
        scratch: Scratch,
        labelling: Labelling,
        fps: float,
        has_inputs: bool,
        watch: Stopwatch,
    ) -> None:
        self._content_id = content_id
        self._home = home
        self._keys = keys
        self._seal = seal
        self._target = target
        self._scratch = scratch
        self._labelling = labelling
        self._fps = fps
        self._has_inputs = has_inputs
        self._watch = watch
        self._overlay: Overlay | None = None
        self._pictures = b""

    @property
    def visible_labels(self) -> tuple[str, ...]:
        """The texts drawn into the pictures."""
        return () if self._overlay is None else tuple(label.text for label in self._overlay.labels)

    @property
    def metadata_labels(self) -> tuple[str, ...]:
        """The labels written into the file's metadata."""
        return () if self._labelling.record is None else ("AIGC (GB 45438-2025)",)

    def mark(
        self,
        marking: Marking,
        sampled: NDArray[np.uint8],
        judge: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
    ) -> Marked:
        """Encode ``sampled`` with mark and labels, so strong that the blind reader finds the mark in the encoded file.

        ``judge`` gets the frames that would leave, and returns them, repaired perhaps, or raises. WatermarkError where
        no strength can be read back, MediaError where encoding fails.
        """
        strengths = marking.strengths(sampled)
        for strength in (*strengths, *marking.last_resort):
            frames = judge(marking.frames(sampled, strength))
            with self._watch.stage("encode"):
                self._encode(frames)
            with self._watch.stage("read_mark"):
                encoded = self._read_encoded()
                found = marking.read(encoded)
            self._watch.milliseconds["mark"] = 1000 * marking.seconds
            ours = found.payload is not None and found.payload.content_id == self._content_id
            weak = not comfortable(found, marking.headroom)
            if ours and (not weak or strength >= strengths[-1]):
                self._pictures, sha256 = self._look()
                look: dict[str, Json] = {"pictures": sha256, "video_hash": recorded_look(encoded, self._fps)}
                how: dict[str, Json] = {"drawn_as": marking.scheme, "strength": strength, "weak": weak}
                return Marked(found.to_json() | how | look, frames)
        raise WatermarkError(
            "The mark could not be read back from the encoded clip, so the clip was not released.",
            remedy="Use another seed, more frames or a larger size: very small or flat clips cannot carry a mark.",
        )

    def sign(self, spec: ManifestSpec) -> SignedAsset:
        """Write the AIGC record, where one is due, and sign; raises as ``file_signing.sign_own_file`` does."""
        from safegen.provenance.file_signing import sign_own_file

        with self._watch.stage("sign"):
            self._labelling.write_metadata(self._scratch.encoded, spec.source_type)
            return sign_own_file(self._scratch.encoded, self._scratch.signed, spec, self._keys, seal=self._seal)

    def release(
        self, signed: SignedAsset, append: Append, kind: str, body: Mapping[str, Json], **columns: Any
    ) -> Receipt:
        """Keep manifest and pictures, record the file, and only then let it take its name; raises as
        ``record_and_place``.
        """
        with self._watch.stage("record"):
            return record_and_place(
                signed,
                lambda: self._target.place(signed.path),
                append,
                kind,
                {**body, **self._labels()},
                keep=(self._home, self._content_id),
                pictures=self._pictures,
                **columns,
            )

    def _encode(self, frames: NDArray[np.uint8]) -> None:
        self._overlay = self._labelling.overlay(*frames.shape[1:3])
        draw = self._overlay.draw if self._overlay is not None else None
        path, total = self._scratch.encoded, len(frames)
        if self._target.still:
            encode_png(frames[0] if draw is None else draw(frames[0]), path)
            return
        encode_video(
            frames if draw is None else map(draw, frames), self._fps, path, room=self._seal.room(self._has_inputs),
            count=total, progress=lambda done: self._watch.progress("encoding", done, total),
        )  # fmt: skip

    def _read_encoded(self) -> NDArray[np.uint8]:
        return read_clip(self._scratch.encoded, max_frames=MARK_FRAMES).frames

    def _look(self) -> tuple[bytes, str | None]:
        """What is kept of the encoded pictures, all of them, and its hash; nothing where they are too long and
        narrow.
        """
        from safegen.watermark.fingerprint.kept_pictures import KeptPictures, sha256
        from safegen.watermark.fingerprint.shown import watch

        try:
            kept = KeptPictures.of(watch(decode(self._scratch.encoded), self._fps)).to_bytes()
        except WatermarkError:
            return b"", None
        return kept, sha256(kept)

    def _labels(self) -> dict[str, Json]:
        """What the entry says about labels; nothing where there are none."""
        record = self._labelling.record
        said: dict[str, Json] = {} if record is None else {"aigc": record.to_json()}
        if self._overlay is not None:
            said["labels"] = [label.to_json() for label in self._overlay.labels]
        return said
