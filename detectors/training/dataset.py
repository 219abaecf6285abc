"""Training data: read a labelled folder, normalise and re-encode its clips, and measure their features.

The folder holds a tab-separated table (``DEV.tsv``) with the columns path, label (real or fake), kind, group (clips of
one origin share it) and source. Nothing of the media is kept: only feature vectors leave this module.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import imageio_ffmpeg
import numpy as np

from safegen.detectors.features import features
from safegen.detectors.normalise import MIN_FRAMES, SIDE, WINDOW_FPS, windows
from safegen.errors import DetectorError

if TYPE_CHECKING:
    from numpy.typing import NDArray

TABLE = "DEV.tsv"
VARIANTS = ("plain", "crf23", "crf35")
"""A window as resampled (what inference sees), and after H.264 at two strengths, so that codec history is no clue."""

_MAX_READ_FRAMES = 600


@dataclass(frozen=True, slots=True)
class Row:
    """One clip of the table."""

    path: Path
    fake: bool
    group: str
    source: str


@dataclass(frozen=True, slots=True)
class Features:
    """Feature vectors of all windows: ``x`` [N, variants, F] float64, ``size`` [N, variants - 1] bytes after H.264."""

    names: tuple[str, ...]
    x: NDArray[np.float64]
    size: NDArray[np.float64]
    clip: NDArray[np.int64]  # which clip a window belongs to
    fake: NDArray[np.bool_]
    group: NDArray[np.str_]
    source: NDArray[np.str_]


def read_table(folder: Path) -> list[Row]:
    """Return the folder's videos. Raises DetectorError where the table or a column is missing."""
    try:
        with (folder / TABLE).open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file, delimiter="\t"))
        return [
            Row(folder / line["path"], line["label"] == "fake", line["group"], line["source"])
            for line in lines
            if line["kind"] == "video"
        ]
    except (OSError, KeyError) as error:
        raise DetectorError(f"{folder / TABLE}: cannot be read: {error}", remedy="Give the labelled folder.") from error


def measure(rows: list[Row]) -> Iterator[tuple[int, list[dict[str, float]], list[float]]]:
    """Yield, for each window of each clip: the clip's index, one feature dict per variant, and H.264 sizes."""
    for index, row in enumerate(rows):
        frames, fps = read_video(row.path)
        if len(frames) < MIN_FRAMES:
            continue
        for window in windows(frames, fps):
            if len(window) < MIN_FRAMES:
                continue
            coded = [_recode(window, crf) for crf in (23, 35)]
            vectors = [features(window), *(features(frames) for frames, _ in coded)]
            yield index, vectors, [float(size) for _, size in coded]


def collect(rows: list[Row]) -> Features:
    """Measure all rows. Takes about a second per window."""
    measured = list(measure(rows))
    if not measured:
        raise DetectorError("no clip in the folder is long enough to train on")
    names = tuple(measured[0][1][0])
    clip = np.array([index for index, _, _ in measured])
    return Features(
        names=names,
        x=np.array([[[vector[name] for name in names] for vector in vectors] for _, vectors, _ in measured]),
        size=np.array([sizes for _, _, sizes in measured]),
        clip=clip,
        fake=np.array([rows[i].fake for i in clip]),
        group=np.array([rows[i].group for i in clip]),
        source=np.array([rows[i].source for i in clip]),
    )


def save(data: Features, path: Path) -> None:
    """Keep measured features, since measuring takes minutes and training seconds."""
    np.savez_compressed(
        path, names=np.array(data.names), x=data.x, size=data.size, clip=data.clip, fake=data.fake, group=data.group,
        source=data.source,
    )  # fmt: skip


def load(path: Path) -> Features:
    """Read what ``save`` wrote."""
    with np.load(path, allow_pickle=False) as file:
        columns = {name: file[name] for name in ("x", "size", "clip", "fake", "group", "source")}
        return Features(names=tuple(str(name) for name in file["names"]), **columns)


def read_video(path: Path) -> tuple[NDArray[np.uint8], float]:
    """Return a trusted training clip's frames [T, H, W, 3] and rate; files of users go through safegen.media."""
    reader = imageio_ffmpeg.read_frames(str(path), pix_fmt="rgb24", output_params=["-fps_mode", "passthrough"])
    meta = next(reader)
    width, height = meta["size"]
    frames = []
    for data in reader:
        frames.append(np.frombuffer(data, np.uint8).reshape(height, width, 3))
        if len(frames) >= _MAX_READ_FRAMES:
            break
    reader.close()
    return np.stack(frames), float(meta["fps"])


def _recode(window: NDArray[np.uint8], crf: int) -> tuple[NDArray[np.uint8], int]:
    """Encode a window as H.264 at ``crf`` and decode it; also return the file's size in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "window.mp4"
        writer = imageio_ffmpeg.write_frames(
            str(path), (SIDE, SIDE), fps=WINDOW_FPS, codec="libx264", quality=None, bitrate=None,
            output_params=["-crf", str(crf)], ffmpeg_log_level="error",
        )  # fmt: skip
        writer.send(None)
        for frame in window:
            writer.send(np.ascontiguousarray(frame))
        writer.close()
        frames, _ = read_video(path)
        return frames, path.stat().st_size
