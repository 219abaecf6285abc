"""Clips for the benchmark of verdicts: ours, other models' footage with the mark painted on, and foreign footage."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from benchmarks.watermark.codecs import Frames, transcode
from benchmarks.watermark.prompts import prompt

FPS = 16.0
FRAMES = 25
SHORT = 192
KEY = hashlib.sha256(b"safegen verdict benchmark").digest()
RMS = 1.4
"""Strength of a painted pattern in YUV levels, about that of the product's own mark."""


@dataclass(frozen=True)
class Marked:
    """A marked clip as it was released: uint8 RGB [T, H, W, 3], and the key that its mark is read under."""

    name: str
    frames: Frames
    key: bytes


def drawn(work: Path, count: int, first_seed: int) -> Iterator[Marked]:
    """Clips of the embedded model, made as users make them; they stay in ``work`` for the next run."""
    from safegen import generate
    from safegen.keys import KeyStore
    from safegen.media import read_clip
    from safegen.settings import Home

    home = Home(work / "home")
    if not home.keys.exists():
        KeyStore.init(home)
    key = KeyStore.load(home, purpose="verify").watermark_key
    for seed in range(first_seed, first_seed + count):
        path = work / f"{seed}.mp4"
        if not path.exists():
            generate(prompt(seed), output=path, seed=seed, home=home)
        yield Marked(f"drawn {seed}", read_clip(path).frames, key)


def painted(footage: Path, count: int) -> Iterator[Marked]:
    """Footage of other models, files ``fake-*``, with the mark's pattern in its pixels: richer pictures than ours."""
    for path, frames in _footage(footage, "fake-*", count):
        yield Marked(f"painted {path.stem}", transcode(_paint(frames, path.stem), FPS, "h264", 18), KEY)


def camera(footage: Path, count: int) -> list[Frames]:
    """Footage of cameras, files ``real-*``."""
    return [frames for _, frames in _footage(footage, "real-*", count)]


def _footage(folder: Path, pattern: str, count: int) -> Iterator[tuple[Path, Frames]]:
    """Files in an order by hash of their names, FRAMES frames each at FPS, SHORT pixels along the short side."""
    from safegen.errors import SafegenError

    found = sorted(folder.rglob(f"{pattern}.mp4"), key=lambda p: hashlib.sha256(p.name.encode()).digest())
    for path in found:
        try:
            frames = _read(path)
        except SafegenError:
            continue
        if len(frames) == FRAMES and count > 0:
            count -= 1
            yield path, frames
        if count == 0:
            return
    raise SystemExit(f"{folder} has too few files {pattern}.mp4")


def _read(path: Path) -> Frames:
    from safegen.media import decode, probe

    fps, out = probe(path).fps or 25.0, []
    wanted = [round(n * fps / FPS) for n in range(FRAMES)]
    for number, frame in enumerate(decode(path, tolerant=True)):
        if number in wanted:
            scale = SHORT / min(frame.shape[:2])
            size = tuple(2 * round(n * scale / 2) for n in frame.shape[1::-1])
            way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            out += [cv2.resize(frame, size, interpolation=way)] * wanted.count(number)
        if number >= wanted[-1]:
            break
    return np.stack(out).astype(np.uint8) if out else np.zeros((0, SHORT, SHORT, 3), np.uint8)


def _paint(frames: Frames, name: str) -> Frames:
    """``frames`` with a clip mark of their own in the pixels."""
    from safegen.types import ContentId
    from safegen.watermark.clip.latent_residual import pattern_pictures
    from safegen.watermark.clip.pattern import TO_RGB
    from safegen.watermark.payload import Payload

    count, height, width = frames.shape[:3]
    content_id = ContentId(hashlib.sha256(name.encode()).hexdigest()[:16])
    spans = [(0, 1), *((start, min(start + 4, count)) for start in range(1, count, 4))]
    pictures = pattern_pictures(Payload(content_id), KEY, spans, height, width)
    rgb = np.repeat(np.einsum("rc,tchw->thwr", TO_RGB, pictures), [stop - start for start, stop in spans], axis=0)
    return np.clip(np.rint(frames + RMS * rgb), 0, 255).astype(np.uint8)
