"""Real small files for the provenance tests."""

from __future__ import annotations

import datetime as dt
import subprocess
from pathlib import Path
from typing import Any

import imageio_ffmpeg

from safegen.keys import KeyStore, commit_text
from safegen.provenance.manifest import GeneratorModel, ManifestSpec, MediaFormat, Mode, SoftBinding
from safegen.types import ContentId

CANARY = "canary prompt: a paper boat on a blue lake"
CONTENT_ID = ContentId("0123456789abcdef")
ALG = "org.safegen.latent-residual.1"
WHEN = dt.datetime(2026, 7, 1, 12, 0, tzinfo=dt.UTC)


def ffmpeg(*arguments: str | Path) -> None:
    executable = imageio_ffmpeg.get_ffmpeg_exe()
    subprocess.run([executable, "-v", "error", "-y", *map(str, arguments)], check=True, stdin=subprocess.DEVNULL)


def make_clip(path: Path) -> Path:
    source = "testsrc=size=96x96:rate=16:duration=0.5"
    ffmpeg("-f", "lavfi", "-i", source, "-c:v", "libx264", "-pix_fmt", "yuv420p", "-movflags", "+faststart", path)
    return path


def make_still(path: Path) -> Path:
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=96x96:rate=1:duration=1", "-frames:v", "1", path)
    return path


def make_spec(keys: KeyStore | None = None, **changes: Any) -> ManifestSpec:
    """A text-to-video spec; with ``keys`` it carries a commitment to CANARY."""
    fields: dict[str, Any] = {
        "title": "clip.mp4",
        "media_format": MediaFormat.MP4,
        "mode": Mode.TEXT,
        "model": GeneratorModel("tiny video model", "example/tiny-video", "1.2.3"),
        "content_id": CONTENT_ID,
        "when": WHEN,
        "run_id": "run-7",
        "soft_binding": SoftBinding(ALG, "00ff10"),
        "prompt_commitment": None if keys is None else commit_text(CANARY, keys.commitment_key),
    }
    return ManifestSpec(**(fields | changes))


def flip(path: Path, target: Path, offset: int, mask: int = 1) -> Path:
    content = bytearray(path.read_bytes())
    content[offset] ^= mask
    target.write_bytes(content)
    return target
