"""A home with one recorded clip whose mark is painted on its pixels: all that a generated one has, without a model."""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from safegen.keys import KeyStore
from safegen.ledger import Event, Ledger, Receipt
from safegen.likeness import binding_of_look, recorded_look
from safegen.media import encode_video, read_clip
from safegen.provenance.file_signing import SignedAsset, sign_file
from safegen.provenance.kept_manifests import store_manifest, store_pictures
from safegen.provenance.manifest import GeneratorModel, ManifestSpec, MediaFormat, Mode, SoftBinding
from safegen.settings import Home
from safegen.types import ContentId, new_content_id, soft_binding_alg
from safegen.watermark.clip.in_pixels import embed_frames
from safegen.watermark.fingerprint.kept_pictures import KeptPictures, sha256
from safegen.watermark.fingerprint.shown import watch
from safegen.watermark.payload import Payload
from tests.marked_clips import clip
from tests.unit.provenance.provenance_samples import ffmpeg

ALG = soft_binding_alg("latent-residual")
STRENGTH = 1.5


@dataclass(frozen=True, slots=True)
class Recorded:
    """One clip of ``home``: its signed file, what the ledger said, and its unsigned twin's frames."""

    home: Home
    content_id: ContentId
    signed: SignedAsset
    receipt: Receipt
    frames: NDArray[np.uint8]

    def stripped(self, path: Path, *arguments: str) -> Path:
        """The clip as a platform leaves it: encoded once more, without its metadata."""
        ffmpeg("-i", self.signed.path, *arguments, "-crf", "26", "-pix_fmt", "yuv420p", path)
        return path


def record(home: Home, folder: Path, *, seed: int = 3, keep: bool = True) -> Recorded:
    """Make a clip, mark, sign and record it in ``home`` (made if need be); ``keep``: its manifest and pictures too."""
    if not home.keys.exists():
        KeyStore.init(home)
    keys, content_id = KeyStore.load(home), new_content_id()
    plain = clip(seed, 33, 96, 128)
    frames = embed_frames(plain, Payload(content_id), keys.watermark_key, strength=STRENGTH)
    encoded, final = folder / f"{content_id}.encoded.mp4", folder / f"{content_id}.mp4"
    encode_video(frames, 16, encoded)
    shown = read_clip(encoded).frames
    look = recorded_look(shown, 16)
    spec = ManifestSpec(
        title=f"safegen {content_id}", media_format=MediaFormat.MP4, mode=Mode.TEXT,
        model=GeneratorModel("painted", "tests/painted", "1"), content_id=content_id,
        when=dt.datetime.now(dt.UTC), soft_binding=SoftBinding(ALG, content_id),
        fingerprint=binding_of_look(look),
    )  # fmt: skip
    signed = sign_file(encoded, final, spec, keys)
    kept = hashlib.sha256(signed.manifest_bytes).hexdigest()
    pictures = KeptPictures.of(watch(shown, 16)).to_bytes()
    if keep:
        assert store_manifest(home, content_id, signed.manifest_bytes) == kept
        assert store_pictures(home, content_id, pictures) == sha256(pictures)
    mark = {"scheme": "latent-residual", "pictures": sha256(pictures), "video_hash": look}
    event = Event(
        "generated", content_id, {"mark": mark, "manifest_id": signed.manifest_id},
        asset_sha256=signed.sha256, manifest_sha256=kept,
    )  # fmt: skip
    with Ledger.open(home.ledger_url, key=keys.ledger_key, origin=keys.ledger_name) as ledger:
        receipt = ledger.append(event)
    return Recorded(home, content_id, signed, receipt, frames)
