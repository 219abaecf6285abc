"""How often the content fingerprint is wrong: edited clips called copies, and other clips' pictures not noticed.

    python -m benchmarks.watermark.fingerprint [--clips 24] [--found 6] [--first-seed 7000] [--frames FILE.npy]

Clips are drawn by the embedded model (or taken from an array [N, T, H, W, 3] of uint8), encoded as H.264 CRF 18, and
their fingerprints taken. Then:

* ``edits``: every clip under every edit, compared at the place where the edit really put it. That place is measured by
  editing a clip whose colours are coordinates.
* ``found``: some clips with the clip mark's pattern added to their pixels, under the edits that move the picture or put
  others beside it, compared as verification does: only where and when the mark was found.
* ``misses``: every clip against every other one, against itself mirrored or upside down, and against drawn footage.

Writes results/fingerprint.json and .md beside this file.
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.watermark import nulls
from benchmarks.watermark.attacks import ATTACKS, Attack, Context
from benchmarks.watermark.codecs import Frames, transcode
from safegen.types import Clip
from safegen.watermark.clip.search import Matrix
from safegen.watermark.fingerprint.fingerprint import (
    CHROMA_LIMIT,
    LUMA_LIMIT,
    Fingerprint,
    Match,
    compare,
    fingerprint,
    matrix_of,
)

HERE = Path(__file__).parent
KEY = hashlib.sha256(b"safegen fingerprint benchmark").digest()
FPS = 16.0
RMS = 2.0
"""Strength of the pattern in YUV levels, about that of the product's own mark."""

IN_PLACE = (
    "identity", "brightness_0.5", "brightness_1.5", "contrast_0.5", "contrast_1.5", "saturation_0.5", "saturation_1.5",
    "hue_0.25", "grayscale", "gamma_0.5", "gamma_1.5", "sharpness_2", "jpeg_20", "gaussian_blur_9", "median_9",
    "noise_0.1", "salt_and_pepper_0.05", "h264_crf30", "h264_crf40", "h264_crf50", "h265_crf40", "vp9",
    "window_average_5", "drop_0.5", "trim_25", "trim_50", "trim_75", "fps_16_24_blended", "reverse", "speed_0.8",
    "logo_and_subtitle",
)  # fmt: skip
MOVED = (
    "hflip", "rotate_5", "rotate_10", "rotate_90", "rotate_180", "resize_0.55", "crop_0.55", "crop_0.71",
    "crop_and_resize_0.90", "crop_centre_area_0.3", "perspective_0.5", "upscale_1.5", "squeeze_4_3", "letterbox",
    "pillarbox_16_9", "picture_in_picture_0.5", "filmed_screen", "h264_crf30+crop_0.71+brightness_0.5",
)  # fmt: skip
FOUND = (
    "identity", "h264_crf30", "h264_crf40", "hflip", "rotate_5", "rotate_180", "crop_0.71", "crop_centre_area_0.5",
    "letterbox", "pillarbox_16_9", "squeeze_4_3", "picture_in_picture_0.71", "filmed_screen", "logo_and_subtitle",
    "speed_1.25", "trim_50", "brightness_0.5", "splice_other_after", "splice_halves_with_other",
    "splice_halves_with_unmarked", "splice_amid_unmarked", "split_screen_unmarked",
)  # fmt: skip
FOREIGN_CLIPS = 40


def true_place(attack: Attack, shape: tuple[int, ...], seed: int) -> list[list[float]] | None:
    """Where ``attack`` puts clips of ``shape``: the corners of its picture in the old one, in short sides of that."""
    _, height, width, _ = shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    colours = np.stack([255 * (x + 0.5) / width, 255 * (y + 0.5) / height, np.full_like(x, 255)], axis=-1)
    frames = np.repeat(np.rint(colours).astype(np.uint8)[None], shape[0], axis=0)
    seen = attack(Clip(frames, FPS), seed).frames.astype(np.float32).mean(axis=0)
    tall, wide = seen.shape[:2]
    rows, columns = np.nonzero(seen[..., 2] > 60)
    there = seen[rows, columns, :2] / seen[rows, columns, 2:] * (width, height)
    here = np.stack([columns + 0.5, rows + 0.5], axis=-1)
    step = max(1, len(here) // 4000)
    place, _ = cv2.findHomography(here[::step], there[::step], cv2.RANSAC, 3.0)
    if place is None:
        return None
    corners = np.array([[[0, 0], [wide, 0], [wide, tall], [0, tall]]], np.float64)
    at: NDArray[np.float64] = cv2.perspectiveTransform(corners, place)[0] / min(height, width)
    return at.tolist()


def row_of(name: str, clip: int, match: Match) -> dict[str, Any]:
    return {
        "edit": name, "clip": clip, "luma": round(match.luma, 4), "chroma": round(match.chroma, 4),
        "seen": round(match.seen, 3), "distance": round(match.distance, 4), "same": match.same,
    }  # fmt: skip


def edited(kept: Sequence[Fingerprint], clips: Sequence[Frames]) -> list[dict[str, Any]]:
    """Every clip under every edit, at its true place."""
    rows = []
    for n, (known, frames) in enumerate(zip(kept, clips, strict=True)):
        for name in (*IN_PLACE, *MOVED):
            changed = ATTACKS[name](Clip(frames, FPS), n).frames
            matrix: Matrix | None = None
            if name in MOVED:
                corners = true_place(ATTACKS[name], frames.shape, n)
                if corners is None:
                    raise SystemExit(f"{name}: the true place could not be measured")
                matrix = matrix_of(corners, *changed.shape[1:3])
            rows.append(row_of(name, n, compare(known, changed, matrix=matrix)))
    return rows


def paint(frames: Frames, number: int) -> tuple[Frames, str]:
    """``frames`` with a clip mark of their own in the pixels, and its content id."""
    from safegen.types import ContentId
    from safegen.watermark.clip.latent_residual import pattern_pictures
    from safegen.watermark.payload import Payload

    count, height, width = frames.shape[:3]
    content_id = ContentId(hashlib.sha256(b"%d" % number).hexdigest()[:16])
    spans = [(0, 1), *((start, min(start + 4, count)) for start in range(1, count, 4))]
    pictures = pattern_pictures(Payload(content_id), KEY, spans, height, width)
    to_rgb = np.array([[1.0, 0.0, 1.402], [1.0, -0.344136, -0.714136], [1.0, 1.772, 0.0]], np.float32)
    rgb = np.repeat(np.einsum("rc,tchw->thwr", to_rgb, pictures), [stop - start for start, stop in spans], axis=0)
    return np.clip(np.rint(frames + RMS * rgb), 0, 255).astype(np.uint8), content_id


def found(clips: Sequence[Frames], count: int) -> list[dict[str, Any]]:
    """The first ``count`` clips, marked and edited, compared where and when their mark was found."""
    from safegen.watermark.clip.extraction import extract_frames

    painted = [paint(frames, n) for n, frames in enumerate(clips[:count])]
    marked = [(transcode(frames, FPS, "h264", 18), content_id) for frames, content_id in painted]
    rows: list[dict[str, Any]] = []
    for n, (frames, content_id) in enumerate(marked):
        known = fingerprint(frames)
        context = Context(other=marked[(n + 1) % count][0], unmarked=clips[(n + 1) % len(clips)])
        for name in FOUND:
            changed = ATTACKS[name](Clip(frames, FPS), n, context).frames
            reading = extract_frames(changed, KEY)
            payload, segments = reading.payload, reading.evidence.get("segments", [])
            if payload is None or payload.content_id != content_id:
                rows.append({"edit": name, "clip": n, "read": False, "other": payload is not None})
                continue
            own: list[int] = [
                t for s in segments if s["content_id"] == content_id for t in range(s["first"], s["last"] + 1)
            ]
            if not own:
                rows.append({"edit": name, "clip": n, "read": True, "same": None})
                continue
            matrix = matrix_of(reading.evidence["corners"], *changed.shape[1:3])
            rows.append({"read": True, **row_of(name, n, compare(known, changed[own], matrix=matrix))})
    return rows


def missed(kept: Sequence[Fingerprint], clips: Sequence[Frames]) -> dict[str, list[dict[str, Any]]]:
    """Each fingerprint against pictures that are not its clip's."""
    out: dict[str, list[dict[str, Any]]] = {"other clips": [], "itself mirrored": [], "itself upside down": []}
    for n, known in enumerate(kept):
        for m, frames in enumerate(clips):
            if m != n:
                out["other clips"].append({"pictures": m, **row_of("none", n, compare(known, frames))})
        turned = {"itself mirrored": clips[n][:, :, ::-1], "itself upside down": clips[n][:, ::-1]}
        for name, frames in turned.items():
            out[name].append(row_of("none", n, compare(known, np.ascontiguousarray(frames))))
    for number in range(FOREIGN_CLIPS):
        kind, frames = nulls.foreign(number)
        rows = out.setdefault(f"drawn {kind}", [])
        rows += [{"pictures": number, **row_of("none", n, compare(known, frames))} for n, known in enumerate(kept)]
    return out


def by_edit(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    out: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(r["edit"] for r in rows):
        mine = [r for r in rows if r["edit"] == name]
        compared = [r for r in mine if r.get("read", True)]
        out[name] = {
            "clips": len(mine),
            "compared": sum(r["same"] is not None for r in compared),
            "called_copied": sum(r["same"] is False for r in compared),
            "largest_distance": max((r.get("distance", 0.0) for r in compared), default=None),
        }
    return out


def by_kind(rows: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "pairs": len(mine),
            "taken_for_the_clip": sum(r["same"] is True for r in mine),
            "no_answer": sum(r["same"] is None for r in mine),
            "smallest_distance": min((r["distance"] for r in mine if r["same"] is not None), default=None),
        }
        for name, mine in rows.items()
    }


def table(summary: dict[str, Any]) -> str:
    lines = [
        "# Content fingerprint: error rates", "",
        f"{summary['date']}, {summary['machine']}: `{summary['command']}` ({summary['seconds']:.0f} s). "
        f"{summary['clips']} clips of {summary['shape']}. A distance above 1 is called another clip.", "",
    ]  # fmt: skip
    for title, part in (
        ("Edits, at the true place", "edits"),
        ("Edits of marked clips, where the mark was found", "found"),
    ):
        head = ["edit", "clips", "compared", "called copied", "largest distance"]
        rows = [[name, *r.values()] for name, r in summary[part].items()]
        compared, wrong = (sum(r[k] for r in summary[part].values()) for k in ("compared", "called_copied"))
        lines += [f"## {title}", "", f"Called copied: {wrong} of {compared}.", "", *_table(head, rows), ""]
    head, rows = ["pictures", "pairs", "taken for the clip", "no answer", "smallest distance"], [
        [name, *r.values()] for name, r in summary["misses"].items()
    ]  # fmt: skip
    lines += ["## Pictures that are not the clip's", "", *_table(head, rows), ""]
    return "\n".join(lines)


def _table(head: list[str], rows: list[list[Any]]) -> list[str]:
    cells = [[f"{c:.2f}" if isinstance(c, float) else "–" if c is None else str(c) for c in row] for row in rows]
    return ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *cells]]


def load_clips(path: Path | None, count: int, first_seed: int) -> list[Frames]:
    if path is not None:
        return [np.array(frames) for frames in np.load(path, mmap_mode="r")[:count]]
    from benchmarks.watermark.schemes import Studio

    studio = Studio()
    return [studio.draw(first_seed + n)[0] for n in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--found", type=int, default=6, help="clips that are marked, edited and read")
    parser.add_argument("--first-seed", type=int, default=7000)
    parser.add_argument("--frames", type=Path, help="an .npy of uint8 [N, T, H, W, 3] instead of the model's clips")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "fingerprint.json")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    start = time.perf_counter()
    clips = [transcode(c, FPS, "h264", 18) for c in load_clips(arguments.frames, arguments.clips, arguments.first_seed)]
    kept = [fingerprint(frames) for frames in clips]
    edits, moved = edited(kept, clips), found(clips, min(arguments.found, len(clips)))
    misses = missed(kept, clips)
    given = sys.argv[1:] if arguments.frames is None else ["--clips", str(arguments.clips), "--frames", "FILE.npy"]
    summary: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "benchmarks.watermark.fingerprint", *given]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, OpenCV {cv2.__version__}",
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "seconds": round(time.perf_counter() - start, 1),
        "clips": len(clips), "shape": "x".join(map(str, clips[0].shape[:3])),
        "limits": {"luma": LUMA_LIMIT, "chroma": CHROMA_LIMIT},
        "edits": by_edit(edits), "found": by_edit(moved), "misses": by_kind(misses),
    }  # fmt: skip
    wrong = [r for r in (*edits, *moved) if r.get("same") is False]
    wrong += [{"kind": kind, **r} for kind, rows in misses.items() for r in rows if r["same"] is not False]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(summary | {"wrong": wrong}, indent=1) + "\n")
    arguments.out.with_suffix(".md").write_text(table(summary))
    print(table(summary))


if __name__ == "__main__":
    main()
