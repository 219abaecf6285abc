"""How often the comparison with the kept pictures is wrong: forgeries accepted, and honest edits called copied.

    python -m benchmarks.verdict.pictures --work FOLDER --footage FOLDER [--clips 16] [--found 6]

Half of the clips are drawn by the embedded model (they are kept in the work folder), half are other models' footage
with the mark painted on; the footage folder holds files ``fake-*.mp4`` for those and ``real-*.mp4``, of cameras, for
the forgeries. Each clip is kept as a release keeps it. Then

* ``forged``: every construction of forgeries.py, with another camera clip each time. The comparison gets the forger's
  best case: that the mark reads, in every frame, at its true place. A forgery counts if something foreign is to be
  seen: if in a twentieth of the middle frame the local structure is not the marked clip's (SSIM below 0.6), or the
  light is more than 8 levels off. What is left out is counted.
* ``edited``: the edits that leave the picture in its place, and the filters of filters.py, read and compared as
  verification does it; where no mark is read, compared all the same.
* ``moved``: crops, turns, borders, splices: read by a full search, for the first clips of each kind, and compared where
  and when the mark was found.

Writes results/pictures.json and .md beside this file.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.verdict.clips import FPS, Marked, camera, drawn, painted
from benchmarks.verdict.filters import FILTERS
from benchmarks.verdict.forgeries import FORGERIES, fitted
from benchmarks.watermark.attacks import ATTACKS, Context
from benchmarks.watermark.codecs import Frames
from safegen.types import Clip
from safegen.verification.picture_check import stretches
from safegen.watermark.base import Extraction
from safegen.watermark.clip.extraction import extract_frames
from safegen.watermark.fingerprint import comparing, explaining
from safegen.watermark.fingerprint.comparing import Comparison, compare
from safegen.watermark.fingerprint.kept_pictures import KeptPictures
from safegen.watermark.fingerprint.shown import watch

HERE = Path(__file__).parent
FIRST_SEED = 9000
SEEN, DIFFERENT, OFF = 0.05, 0.6, 8.0

IN_PLACE = (
    "identity", "brightness_0.5", "brightness_1.5", "contrast_0.5", "contrast_1.5", "saturation_0.5", "saturation_1.5",
    "hue_0.25", "grayscale", "gamma_0.5", "gamma_1.5", "sharpness_2", "jpeg_20", "gaussian_blur_9", "median_9",
    "noise_0.1", "salt_and_pepper_0.05", "h264_crf30", "h264_crf40", "h264_crf50", "h265_crf30", "h265_crf40", "vp9",
    "av1_crf35", "window_average_5", "drop_0.5", "trim_25", "trim_50", "trim_75", "fps_16_24_blended", "fps_24_16_24",
    "reverse", "speed_0.8", "speed_1.25", "reorder_4_0.7", "sigmark_drop_groups", "insert_copy", "logo_and_subtitle",
)  # fmt: skip
MOVED = (
    "hflip", "rotate_2", "rotate_5", "rotate_10", "rotate_90", "rotate_180", "resize_0.55", "crop_0.55", "crop_0.71",
    "crop_and_resize_0.90", "crop_centre_area_0.3", "crop_centre_area_0.5", "perspective_0.5", "upscale_1.5",
    "squeeze_4_3", "letterbox", "pillarbox_16_9", "picture_in_picture_0.5", "picture_in_picture_0.71", "filmed_screen",
    "filmed_screen+h264_28", "h264_crf30+crop_0.71+brightness_0.5", "crop_0.71+drop_0.2+h264_crf30", "social_media",
    "splice_other_after", "splice_halves_with_other", "splice_halves_with_unmarked", "splice_amid_unmarked",
    "split_screen_unmarked",
)  # fmt: skip

Row = dict[str, Any]


def kept(frames: Frames) -> KeptPictures:
    """What is kept of a released clip, as it is read again."""
    return KeptPictures.from_bytes(KeptPictures.of(watch(frames, FPS)).to_bytes())


def row_of(name: str, clip: Marked, found: Comparison, **more: Any) -> Row:
    """One comparison."""
    return {
        "name": name, "clip": clip.name, "same": found.same, "unexplained": round(found.unexplained, 4),
        "seen": round(found.seen, 3), "why": found.why, **more,
    }  # fmt: skip


@dataclass(frozen=True)
class Job:
    """The clips with what is kept of them, and foreign footage: what every process works on."""

    clips: Sequence[tuple[Marked, KeptPictures]]
    foreign: Sequence[Frames]

    def forged(self, n: int) -> list[Row]:
        """A clip under every construction."""
        clip, known = self.clips[n]
        width, height = known.size
        rows = []
        for m, (name, make) in enumerate(FORGERIES.items()):
            other = self.foreign[(7 * n + 3 * m) % len(self.foreign)]
            frames = make(clip.frames, other, np.random.default_rng([n, m]))
            share = changed(clip.frames[len(frames) // 2], frames[len(frames) // 2])
            found = compare(known, watch(frames, FPS), [[0, 0], [width, 0], [width, height], [0, height]])
            rows.append(row_of(name, clip, found, changed=round(share, 3)))
        return rows

    def edited(self, n: int) -> list[Row]:
        """A clip under every edit that leaves it in place."""
        clip, known = self.clips[n]
        edits: dict[str, Callable[[], Frames]] = {
            name: partial(lambda attack: attack(Clip(clip.frames, FPS), n).frames, ATTACKS[name]) for name in IN_PLACE
        }
        edits |= {f"filter: {name}": partial(FILTERS[name], clip.frames) for name in FILTERS}
        own = extract_frames(clip.frames, clip.key, look=False)
        return [read_and_compared(name, clip, known, own, edit(), look=False) for name, edit in edits.items()]

    def moved(self, n: int) -> list[Row]:
        """A clip under every edit that moves it, or puts others beside it; where no mark is found it says nothing."""
        clip, known = self.clips[n]
        own = extract_frames(clip.frames, clip.key, look=False)
        other = fitted(self.clips[(n + 2) % len(self.clips)][0].frames, clip.frames.shape)
        context = Context(other=other, unmarked=self.foreign[n])
        rows = []
        for name in MOVED:
            frames = ATTACKS[name](Clip(clip.frames, FPS), n, context).frames
            rows.append(read_and_compared(name, clip, known, own, frames, look=True))
        return [row for row in rows if row["read"]]


def changed(one: Frames, other: Frames) -> float:
    """The share of a frame, [H, W, 3], in which the other's structure or light is not its own."""
    x, y = (cv2.cvtColor(f, cv2.COLOR_RGB2GRAY).astype(np.float64) for f in (one, other))
    mean = [cv2.GaussianBlur(p, (11, 11), 1.5) for p in (x, y)]
    square = [cv2.GaussianBlur(p, (11, 11), 1.5) for p in (x * x, y * y, x * y)]
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    vx, vy, vxy = square[0] - mean[0] ** 2, square[1] - mean[1] ** 2, square[2] - mean[0] * mean[1]
    light = (2 * mean[0] * mean[1] + c1) / (mean[0] ** 2 + mean[1] ** 2 + c1)
    off = np.abs(cv2.GaussianBlur(x - y, (0, 0), 2.0)) > OFF
    return float(((light * (2 * vxy + c2) / (vx + vy + c2) < DIFFERENT) | off).mean())


def read_and_compared(
    name: str, clip: Marked, known: KeptPictures, own: Extraction, frames: Frames, *, look: bool
) -> Row:
    """As verification does it; without the ``own`` mark, at the place where such an edit leaves the picture."""
    reading = extract_frames(frames, clip.key, look=look)
    if reading.payload is None or reading.payload != own.payload:
        return row_of(name, clip, compare(known, watch(frames, FPS)), read=False)
    where = stretches(reading, reading.payload.content_id)
    marked = [(first, last) for first, last, is_marked in where if is_marked] or None
    found = compare(known, watch(frames, FPS, stretches=marked), reading.evidence["corners"])
    return row_of(name, clip, found, read=True)


def by_name(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Counts by edit or construction."""
    out: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(r["name"] for r in rows):
        mine = [r for r in rows if r["name"] == name]
        out[name] = {
            "compared": len(mine),
            "the same": sum(r["same"] is True for r in mine),
            "left open": sum(r["same"] is None for r in mine),
            "called copied": sum(r["same"] is False for r in mine),
            "unexplained, least": min(r["unexplained"] for r in mine),
            "unexplained, most": max(r["unexplained"] for r in mine),
        }
    return out


def totals(rows: dict[str, list[Row]]) -> dict[str, Any]:
    """The figures that documents name."""
    seen = [r for r in rows["forged"] if r["changed"] >= SEEN]
    honest = [r for r in (*rows["edited"], *rows["moved"]) if r["read"]]
    unread = [r for r in rows["edited"] if not r["read"]]
    return {
        "forgeries": len(seen), "constructions": len({r["name"] for r in seen}),
        "accepted": sum(r["same"] is True for r in seen), "called_copied": sum(r["same"] is False for r in seen),
        "left_open": sum(r["same"] is None for r in seen), "not_to_be_seen": len(rows["forged"]) - len(seen),
        "not_to_be_seen_accepted": sum(r["same"] is True for r in rows["forged"] if r["changed"] < SEEN),
        "honest": len(honest), "honest_same": sum(r["same"] is True for r in honest),
        "honest_left_open": sum(r["same"] is None for r in honest),
        "honest_called_copied": sum(r["same"] is False for r in honest),
        "unread": len(unread), "unread_same": sum(r["same"] is True for r in unread),
        "unread_called_copied": sum(r["same"] is False for r in unread),
    }  # fmt: skip


def table(summary: dict[str, Any]) -> str:
    """All as markdown."""
    t = summary["totals"]
    lines = [
        "# Kept pictures: error rates", "",
        f"{summary['date']}, {summary['machine']}: `{summary['command']}` ({summary['seconds']:.0f} s). "
        f"{summary['clips']} clips; {summary['kept_bytes'][0]} to {summary['kept_bytes'][1]} bytes are kept of each; "
        f"a comparison takes {summary['milliseconds']:.0f} ms of processor time in the mean.", "",
        f"Forgeries accepted: {t['accepted']} of {t['forgeries']} ({t['constructions']} constructions; "
        f"{t['called_copied']} called copied, {t['left_open']} left open). {t['not_to_be_seen']} more show something "
        f"foreign in less than a twentieth of the picture; {t['not_to_be_seen_accepted']} of them were accepted.", "",
        f"Honest edits whose mark was read: {t['honest']}; the same {t['honest_same']}, left open "
        f"{t['honest_left_open']}, called copied {t['honest_called_copied']}. Edits whose mark was not read, which no "
        f"verdict rests on: {t['unread']}; the same {t['unread_same']}, called copied {t['unread_called_copied']}.", "",
    ]  # fmt: skip
    for title, part in (
        ("Forgeries that are to be seen", "forged"),
        ("Edits in place", "edited"),
        ("Edits that move the picture, where the mark was found", "moved"),
    ):
        names = next(iter(summary[part].values()), {})
        body = [[name, *row.values()] for name, row in summary[part].items()]
        cells = [[f"{c:.2f}" if isinstance(c, float) else str(c) for c in row] for row in body]
        head = [["", *names], ["---"] * (1 + len(names))]
        lines += [f"## {title}", "", *("| " + " | ".join(row) + " |" for row in [*head, *cells]), ""]
    return "\n".join(lines)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="where drawn clips are kept")
    parser.add_argument("--footage", type=Path, required=True, help="a folder of fake-*.mp4 and real-*.mp4")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--found", type=int, default=6, help="clips that are moved and searched for")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    start = time.perf_counter()
    arguments.work.mkdir(parents=True, exist_ok=True)
    half = arguments.clips // 2
    pairs = zip(drawn(arguments.work, half, FIRST_SEED), painted(arguments.footage, half), strict=True)
    clips = [(clip, kept(clip.frames)) for pair in pairs for clip in pair]
    foreign = camera(arguments.footage, 48)
    rows: dict[str, list[Row]] = {}
    job = Job(clips, foreign)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        parts = (("forged", len(clips)), ("edited", len(clips)), ("moved", arguments.found))
        running = {part: [pool.submit(getattr(job, part), n) for n in range(count)] for part, count in parts}
        for part, futures in running.items():
            rows[part] = [row for future in futures for row in future.result()]
            print(f"{part}: {len(rows[part])} ({time.perf_counter() - start:.0f} s)", flush=True)
    sizes = [len(known.to_bytes()) for _, known in clips]
    summary: dict[str, Any] = {
        "command": f"python -m benchmarks.verdict.pictures --work FOLDER --footage FOLDER --clips {arguments.clips}"
        f" --found {arguments.found}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, OpenCV {cv2.__version__}",
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "seconds": round(time.perf_counter() - start, 1), "clips": len(clips),
        "kept_bytes": [min(sizes), max(sizes)], "milliseconds": cost(clips),
        "limits": {n: getattr(comparing, n) for n in ("UNEXPLAINED", "DIFFERENT", "SEEN", "CONTRAST", "LOUD", "SHARE")}
        | {n: getattr(explaining, n) for n in ("NOISE", "SHIFT", "LOST", "FINE_NOISE", "FINE_GAIN")},
        "totals": totals(rows),
        "forged": by_name([r for r in rows["forged"] if r["changed"] >= SEEN]),
        "edited": by_name(rows["edited"]), "moved": by_name(rows["moved"]),
    }  # fmt: skip
    accepted = [{"part": "forged", **r} for r in rows["forged"] if r["same"] is True]
    odd = [{"part": p, **r} for p in ("edited", "moved") for r in rows[p] if r["same"] is not True]
    out = HERE / "results" / "pictures.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(summary | {"wrong": [*accepted, *odd]}, indent=1) + "\n")
    out.with_suffix(".md").write_text(table(summary))
    print(table(summary))


def cost(clips: Sequence[tuple[Marked, KeptPictures]]) -> float:
    """Milliseconds of processor time to compare an unchanged clip of this length, frames at hand."""
    start = time.process_time()
    for clip, known in clips:
        compare(known, watch(clip.frames, FPS))
    return round(1000 * (time.process_time() - start) / len(clips), 1)


if __name__ == "__main__":
    main()
