"""A small classifier that says what a picture of the little world shows; it judges what the embedded model draws.

    python benchmarks/model/judge.py WEIGHTS [--pictures 4000] [--epochs 12]

It learns from drawn scenes, softened and shaken as a VAE and a denoiser do, and is itself judged on others (probe.py
also judges it after the VAE). It says the kind of solid ("none" where there is none), colour, ground and sky, and where
the solid is.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from safegen.tinymodel.training import render, world

SIDE = 96  # pixels of what it looks at
SIZE = 192
ASPECTS = ("shape", "color", "ground", "sky")
CLASSES = {a: (*world.KINDS[a], "none") if a == "shape" else world.KINDS[a] for a in ASPECTS}
_WEIGHTS = {"shape": 3.0, "color": 1.0, "ground": 0.5, "sky": 0.5}  # of the losses: solids are hardest to tell apart
_BARE = 0.1  # share of pictures without a solid


class Judge(nn.Module):
    """[N, 3, 96, 96] in [-1, 1] to scores by aspect and the solid's (column, row, height) in shares of the picture."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 48, 96, 128, 128)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 9, 256), nn.SiLU())
        self.heads = nn.ModuleDict({a: nn.Linear(256, len(c)) for a, c in CLASSES.items()})
        self.place = nn.Linear(256, 3)

    def forward(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        seen = self.body(x)
        return {a: h(seen) for a, h in self.heads.items()}, self.place(seen)


def prepared(frames: Tensor) -> Tensor:
    """uint8 [N, S, S, 3] to what the judge looks at."""
    x = frames.permute(0, 3, 1, 2).float() / 127.5 - 1
    return functional.interpolate(x, SIDE, mode="area")


def drawn(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures [N, S, S, 3] uint8, class numbers [N, aspects], places [N, 3]."""
    rng = random.Random(seed)
    pictures, numbers, places = [], [], []
    for _ in range(count):
        scene, bare = world.draw_scene(rng), rng.random() < _BARE
        picture = render.render(scene, torch.tensor([rng.random()]), SIZE, bare=bare)[0]
        cover = picture[..., 3] > 127
        if not bare and cover.sum() < 200:  # out of the picture
            continue
        pictures.append(picture[..., :3])
        kinds = [CLASSES[a].index("none" if bare and a == "shape" else getattr(scene.named, a)) for a in ASPECTS]
        numbers.append([-100 if bare and a == "color" else k for a, k in zip(ASPECTS, kinds, strict=True)])
        rows, columns = cover.any(1).nonzero(), cover.any(0).nonzero()
        if bare:
            places.append([-1.0, -1.0, -1.0])
        else:
            ends = [v.float().item() for v in (columns.min(), columns.max(), rows.min(), rows.max())]
            places.append([(ends[0] + ends[1]) / 2 / SIZE, (ends[2] + ends[3]) / 2 / SIZE, (ends[3] - ends[2]) / SIZE])
    return torch.stack(pictures), torch.tensor(numbers), torch.tensor(places)


def shaken(x: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Mirror, shift, blur, change contrast and add noise, by lot."""
    x, places = x.clone(), places.clone()
    mirror = torch.rand(len(x)) < 0.5
    x[mirror] = x[mirror].flip(-1)
    places[mirror, 0] = torch.where(places[mirror, 0] < 0, places[mirror, 0], 1 - places[mirror, 0])
    if torch.rand(()) < 0.7:
        factor = 1 + torch.rand(()).item()
        small = functional.interpolate(x, int(SIDE / factor), mode="area")
        x = functional.interpolate(small, SIDE, mode="bilinear")
    x = x * (1 + 0.1 * torch.randn(len(x), 1, 1, 1)) + 0.04 * torch.randn(len(x), 3, 1, 1)
    rough = torch.randn(len(x), 3, SIDE // 4, SIDE // 4) * 0.1 * torch.rand(len(x), 1, 1, 1)
    return x + functional.interpolate(rough, SIDE, mode="bilinear") + 0.03 * torch.randn_like(x), places


def train(pictures: int, epochs: int) -> Judge:
    frames, numbers, places = drawn(pictures, 1)
    x = prepared(frames)
    torch.manual_seed(0)
    judge, batch = Judge(), 64
    optimiser = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.02)
    steps = epochs * (len(x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    for step in range(steps):
        pick = torch.randint(len(x), (batch,))
        seen, where = shaken(x[pick], places[pick])
        scores, place = judge(seen)
        loss = sum(
            w * functional.cross_entropy(scores[a], numbers[pick, ASPECTS.index(a)]) for a, w in _WEIGHTS.items()
        )
        there = where[:, 0] >= 0
        loss = loss + 10 * functional.smooth_l1_loss(place[there], where[there], beta=0.02)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 50 == 0:
            print(step, steps, round(loss.item(), 3), round(time.process_time()), file=sys.stderr, flush=True)
    return judge.eval()


@torch.inference_mode()
def accuracy(judge: Judge, frames: Tensor, numbers: Tensor, places: Tensor) -> dict[str, float]:
    scores, place = judge(prepared(frames))
    right = {a: (scores[a].argmax(1) == numbers[:, i])[numbers[:, i] >= 0] for i, a in enumerate(ASPECTS)}
    there = places[:, 0] >= 0
    error = (place[there] - places[there])[:, :2].norm(dim=1).median().item()
    return {a: round(r.float().mean().item(), 3) for a, r in right.items()} | {"place_error": round(error, 4)}


def load(weights: Path) -> Judge:
    judge = Judge()
    judge.load_state_dict(torch.load(weights, weights_only=True))
    return judge.eval()


@torch.inference_mode()
def seen(judge: Judge, frames: Tensor) -> list[dict[str, Any]]:
    """What the judge sees in each of ``frames`` uint8 [N, S, S, 3]."""
    scores, place = judge(prepared(frames))
    kinds = {a: [CLASSES[a][k] for k in s.argmax(1).tolist()] for a, s in scores.items()}
    return [{a: kinds[a][i] for a in ASPECTS} | {"place": place[i].tolist()} for i in range(len(frames))]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("--pictures", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=12)
    given = parser.parse_args()
    torch.set_num_threads(1)
    judge = train(given.pictures, given.epochs)
    torch.save(judge.state_dict(), given.weights)
    print(json.dumps(accuracy(judge, *drawn(400, 2))))


if __name__ == "__main__":
    main()
