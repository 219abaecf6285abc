"""How often a clip of the embedded model is found by what it looks like, and how often another one is taken for it.

    nice -n 5 python -m benchmarks.resolution.likeness --clips build/watermark/clips

Takes the marked clips that ``benchmarks.watermark.run`` has made (uint8 [T, H, W, 3] in .npy), records the looks of all
in one ledger, as generation does, and looks the first ones up again after edits: ``find_by_pictures``, so index, hashes
and kept pictures. Every entry but the clip's own is a chance to be wrong.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from safegen.ledger import Event, Ledger
from safegen.likeness import LIMIT, find_by_pictures, recorded_look
from safegen.media import encode_video, read_clip
from safegen.media.video_hash import Look, VideoHash
from safegen.provenance.kept_manifests import store_pictures
from safegen.settings import Home
from safegen.types import Clip, ContentId
from safegen.watermark.fingerprint.kept_pictures import KeptPictures
from safegen.watermark.fingerprint.shown import watch

RESULTS = Path(__file__).parent / "results"
FPS = 16
Frames = NDArray[np.uint8]


def recoded(*arguments: str) -> Callable[[Clip, Path], Clip]:
    """An edit that ffmpeg makes."""

    def edit(clip: Clip, folder: Path) -> Clip:
        encode_video(clip.frames, FPS, folder / "in.mp4")
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", "-i", folder / "in.mp4", *arguments]
        subprocess.run([*command, "-pix_fmt", "yuv420p", "-threads", "1", folder / "out.mp4"], check=True)
        return read_clip(folder / "out.mp4")

    return edit


def drawn(change: Callable[[Frames], Frames]) -> Callable[[Clip, Path], Clip]:
    """An edit of the frames, which are compressed afterwards."""
    squeeze = recoded("-crf", "26")
    return lambda clip, folder: squeeze(Clip(np.ascontiguousarray(change(clip.frames)), clip.fps), folder)


def crop(share: float) -> Callable[[Frames], Frames]:
    def change(frames: Frames) -> Frames:
        edges = [round(n * (1 - share) / 2 / 2) * 2 for n in frames.shape[1:3]]
        return frames[:, edges[0] : frames.shape[1] - edges[0], edges[1] : frames.shape[2] - edges[1]]

    return change


def some_frames(frames: Frames) -> Frames:
    kept = np.random.default_rng(len(frames)).choice(len(frames), round(0.8 * len(frames)), replace=False)
    return frames[np.sort(kept)]


def light(gain: float) -> Callable[[Frames], Frames]:
    return lambda frames: np.clip(frames * gain, 0, 255).astype(np.uint8)


X265 = ("-c:v", "libx265", "-x265-params", "log-level=error", "-crf")
EDITS: dict[str, Callable[[Clip, Path], Clip]] = {
    "H.264 CRF 23": recoded("-crf", "23"),
    "H.264 CRF 30": recoded("-crf", "30"),
    "H.264 CRF 40": recoded("-crf", "40"),
    "H.265 CRF 30": recoded(*X265, "30"),
    "H.265 CRF 40": recoded(*X265, "40"),
    "half the size, CRF 26": recoded("-vf", "scale=iw/2:ih/2", "-crf", "26"),
    "twice the size, CRF 26": recoded("-vf", "scale=iw*2:ih*2", "-crf", "26"),
    "mirrored": drawn(lambda frames: frames[:, :, ::-1]),
    "brighter by 25 %": drawn(light(1.25)),
    "half as bright": drawn(light(0.5)),
    "grey": recoded("-vf", "hue=s=0", "-crf", "26"),
    "every fifth frame dropped": drawn(some_frames),
    "the middle 15 frames": drawn(lambda frames: frames[5:20]),
    "24 frames a second": recoded("-r", "24", "-crf", "26"),
    "cropped to 0.95": drawn(crop(0.95)),
    "cropped to 0.90": drawn(crop(0.90)),
    "cropped to 0.71": drawn(crop(0.71)),
}


def record(ledger: Ledger, home: Home, clips: list[Clip]) -> None:
    for number, clip in enumerate(clips):
        look = recorded_look(clip.frames, clip.fps)
        pictures = KeptPictures.of(watch(clip.frames, clip.fps)).to_bytes()
        kept = store_pictures(home, ContentId(f"{number:016x}"), pictures)
        mark = {"scheme": "latent-residual", "pictures": kept, "video_hash": look}
        ledger.append(Event("generated", f"{number:016x}", {"mark": mark, "manifest_id": f"urn:c2pa:{number}"}))


def by_hash_alone(ledger: Ledger, clips: list[Clip]) -> list[int]:
    """The distances of each clip's hash from every other clip's."""
    kept = [VideoHash.from_json(ledger.get(n).body["mark"]["video_hash"]) for n in range(len(clips))]  # type: ignore[index, call-overload]
    looks = [Look.at(clip.frames, clip.fps) for clip in clips]
    return sorted(
        min(look.distance(other), look.mirrored().distance(other))
        for n, look in enumerate(looks)
        for m, other in enumerate(kept)
        if n != m and look is not None
    )


def report(result: dict[str, object]) -> str:
    edits: dict[str, list[int]] = result["edits"]  # type: ignore[assignment]
    lines = [
        "# Finding clips by what they look like",
        "",
        f"`{result['command']}`, {result['date']}, {result['machine']}.",
        f"{result['edited']} clips of the embedded model looked up after each edit among {result['recorded']}."
        " *Another*: an answer that names another clip, beside the right one or instead of it.",
        "",
        "| edit | found | not found | another |",
        "|---|---|---|---|",
    ]
    lines += [f"| {name} | {found} | {missed} | {wrong} |" for name, (found, missed, wrong) in edits.items()]
    lines += [
        "",
        f"The recorded clips themselves, unedited: {result['itself']} of {result['recorded']} found,"
        f" {result['another']} other clips taken for one of them in {result['pairs']:,} pairs.",
        f"The hashes of two different clips differ by {result['nearest']} bits of 256 at least ({result['limit']} are"
        f" allowed), by {result['thousandth']} in one pair of a thousand, by {result['median']} in the median.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--edited", type=int, default=30)
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = []
        for path in sorted(chosen.clips.glob("latent-residual-*.npy")):
            encode_video(np.load(path), FPS, folder / "clip.mp4")
            clips.append(read_clip(folder / "clip.mp4"))
        with Ledger.open(f"sqlite:///{folder / 'ledger.db'}", key=Ed25519PrivateKey.generate()) as ledger:
            record(ledger, Home(folder), clips)
            itself = another = 0
            for number, clip in enumerate(clips):
                entries = [each.entry for each in find_by_pictures(clip, ledger, Home(folder))]
                itself += number in entries
                another += len(set(entries) - {number})
            edits = {}
            for kind, edit in EDITS.items():
                counts = [0, 0, 0]
                for number, clip in enumerate(clips[: chosen.edited]):
                    entries = [each.entry for each in find_by_pictures(edit(clip, folder), ledger, Home(folder))]
                    counts[0] += entries == [number]
                    counts[1] += not entries
                    counts[2] += bool(set(entries) - {number})
                edits[kind] = counts
                sys.stderr.write(f"{kind}: {counts}\n")
            distances = by_hash_alone(ledger, clips)
    result: dict[str, object] = {
        "command": f"python -m benchmarks.resolution.likeness --edited {chosen.edited}",
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "recorded": len(clips), "edited": chosen.edited, "limit": LIMIT, "edits": edits, "itself": itself,
        "another": another, "pairs": len(distances), "nearest": distances[0],
        "thousandth": distances[len(distances) // 1000], "median": distances[len(distances) // 2],
    }  # fmt: skip
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "likeness.json").write_text(json.dumps(result, indent=1) + "\n")
    (chosen.out / "likeness.md").write_text(report(result))
    sys.stdout.write(report(result))


if __name__ == "__main__":
    main()
