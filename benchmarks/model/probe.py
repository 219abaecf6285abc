"""Draw held-back prompts with a model of the little world and have the judge say whether they show what was asked.

    python benchmarks/model/probe.py --judge WEIGHTS [--model PIPE] [--prompts 100] [--sheet FILE.png] [--results FILE]

A line of JSON says, of what each prompt states: the share of clips with the right solid, colour, ground and sky (in the
middle frame), the share of frames in which a solid is seen, and of those whose motion shows in the solid's place the
share that moves as asked. ``--results`` writes it with what the judge itself gets right, on drawn pictures and on those
that went through the model's VAE.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import time
from pathlib import Path
from typing import Any

import judge as judging
import numpy as np
import torch
from numpy.typing import NDArray

from safegen.generators import Card, decode_latents, load, model_facts, resolve, sample
from safegen.tinymodel.training.vae import to_video
from safegen.tinymodel.training.world import ASPECTS, Caption, caption, draw_scene
from safegen.watermark import fastvae
from safegen.watermark.layouts import ClipShape

SEED = 77_000_000  # of the prompts, which training never draws from
_FAR = 0.06  # of the picture: less is no motion


def prompts(count: int) -> list[Caption]:
    rng = random.Random(SEED)
    return [caption(rng, draw_scene(rng).named) for _ in range(count)]


def moved(found: list[dict[str, Any]], motion: str) -> bool | None:
    """Whether the solid moves as asked, or None where that cannot be told by its place."""
    places = np.array([f["place"] for f in found if f["shape"] != "none"])
    if len(places) < 2:
        return False
    quarter = max(1, len(places) // 4)
    (x, y, size) = places[-quarter:].mean(0) - places[:quarter].mean(0)
    match motion:
        case "left":
            return bool(x < -_FAR)
        case "right":
            return bool(x > _FAR)
        case "fall":
            return bool(y > _FAR)
        case "near":
            return bool(size > _FAR)
        case "bounce":
            return bool(np.ptp(places[:, 1]) > _FAR)
        case "still":
            return bool(np.abs([x, y]).max() < _FAR)
    return None


def judged(judge: judging.Judge, clip: NDArray[np.uint8], asked: Caption) -> dict[str, Any]:
    found = judging.seen(judge, torch.from_numpy(clip))
    stated = dict(zip(ASPECTS, asked.states, strict=True))
    middle = found[len(found) // 2]
    row: dict[str, Any] = {a: middle[a] == stated[a] for a in judging.ASPECTS if stated[a]}
    row["present"] = float(np.mean([f["shape"] != "none" for f in found]))
    if len(found) > 1 and stated["motion"] and stated["camera"] in ("", "static"):
        row["motion"] = moved(found, stated["motion"])
    return row | {"seen": " ".join(str(middle[a]) for a in judging.ASPECTS), "asked": asked.text}


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    told = {k: [r[k] for r in rows if r.get(k) is not None] for k in (*judging.ASPECTS, "present", "motion")}
    return {k: round(float(np.mean(v)), 3) for k, v in told.items() if v}


@torch.inference_mode()
def judge_figures(judge: judging.Judge, pipe: Any, count: int = 300) -> dict[str, Any]:
    """What the judge gets right on pictures that it never saw: as drawn, and through the VAE."""
    pictures, numbers, places = judging.drawn(count, 2)
    again = []
    for picture in pictures:
        latents = fastvae.encode(pipe.vae, to_video(picture[None, None]))
        again.append(torch.from_numpy(decode_latents(pipe, latents, ClipShape(1, *picture.shape[:2])))[0])
    return {
        "pictures": len(pictures),
        "drawn": judging.accuracy(judge, pictures, numbers, places),
        "through_vae": judging.accuracy(judge, torch.stack(again), numbers, places),
    }


def sheet(clips: list[NDArray[np.uint8]], path: Path) -> None:
    """Stills eight in a row; of clips five frames each, two clips in a row."""
    from PIL import Image

    tiles = [np.concatenate([c[i] for i in np.linspace(0, len(c) - 1, min(len(c), 5)).astype(int)], 1) for c in clips]
    across = 8 if len(clips[0]) == 1 else 2
    rows = [np.concatenate(tiles[i : i + across], 1) for i in range(0, len(tiles) // across * across, across)]
    Image.fromarray(np.concatenate(rows, 0)).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--judge", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--frames", type=int, default=25)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--out", type=Path, help="a file of lines to add to")
    parser.add_argument("--results", type=Path, help="a file to write")
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--each", action="store_true", help="print what is seen in each clip")
    given = parser.parse_args()
    ref = resolve(given.model)
    pipe, call = load(ref), Card.read(ref).resolve() | {"num_frames": given.frames}
    if given.guidance is not None:
        call["guidance_scale"] = given.guidance
    judge, asked = judging.load(given.judge), prompts(given.prompts)
    clips, began = [], time.process_time()
    for i, prompt in enumerate(asked):
        clips.append(sample(pipe, call, prompt=prompt.text, seed=i))
    rows = [judged(judge, clip, prompt) for clip, prompt in zip(clips, asked, strict=True)]
    if given.each:
        for row in rows:
            print(json.dumps(row))
    card = json.loads((Path(ref.configs) / "card.json").read_text("utf-8"))
    line = summary(rows) | {
        "prompts": len(rows),
        "frames": given.frames,
        "guidance": call["guidance_scale"],
        "trained": card.get("trained"),
        "seconds_each": round((time.process_time() - began) / len(rows), 2),
        "time": time.strftime("%H:%M"),
    }
    print(json.dumps(line))
    if given.out:
        with given.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    if given.results:
        report = {
            "command": "python benchmarks/model/probe.py --judge WEIGHTS --results benchmarks/model/probe.json",
            "date": time.strftime("%Y-%m-%d"),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
            "model": model_facts(ref),
            **{k: v for k, v in line.items() if k != "time"},
            "judge": judge_figures(judge, pipe),
            "each": rows,
        }
        given.results.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    if given.sheet:
        sheet(clips, given.sheet)


if __name__ == "__main__":
    main()
