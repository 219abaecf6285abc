"""What the denoiser learns from: scenes drawn, encoded once and kept by shards, without end.

    python -m safegen.tinymodel.training.latents OUT --vae VAE --kind stills --count 20000

A shard is a file of ``latents`` [N, 48, T, H, W] in float16, normalised; ``cover`` [N, T, H, W] in uint8, 255 where the
solid covers all that a latent cell sees; ``numbers`` [N, aspects], what the scenes show (``world.Named``).
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from safegen.tinymodel.training import render
from safegen.tinymodel.training.run import Run
from safegen.tinymodel.training.vae import FRAMES, SIZE, to_video
from safegen.watermark import fastvae

Kind = Literal["stills", "clips"]
_SHARD: dict[Kind, int] = {"stills": 128, "clips": 16}
_AT_ONCE: dict[Kind, int] = {"stills": 8, "clips": 1}
_SEEDS: dict[Kind, int] = {"stills": 10**6, "clips": 2 * 10**6}
_CELL = 16  # pixels of a latent cell


@dataclass(slots=True)
class Shards:
    """Latents, coverage and numbers of all shards of a kind so far, in memory."""

    latents: Tensor
    cover: Tensor
    numbers: Tensor
    read: set[str]

    @classmethod
    def empty(cls, frames: int) -> Shards:
        """Return none yet, of so many latent frames."""
        cells = SIZE // _CELL
        return cls(
            torch.empty(0, 48, frames, cells, cells, dtype=torch.float16),
            torch.empty(0, frames, cells, cells, dtype=torch.uint8),
            torch.empty(0, 7, dtype=torch.int8),
            set(),
        )

    def refresh(self, folder: Path, kind: Kind) -> None:
        """Read the shards that have come since."""
        new = sorted(p for p in folder.glob(f"{kind}-*.pt") if p.name not in self.read)
        if new:
            found = [torch.load(p, weights_only=True) for p in new]
            for name in ("latents", "cover", "numbers"):
                setattr(self, name, torch.cat([getattr(self, name), *(f[name] for f in found)]))
            self.read.update(p.name for p in new)


def cell_cover(alpha: Tensor) -> Tensor:
    """Return latent cells' coverage [N, T', H, W] from pixels' [N, T, S, S], both uint8: first frame, then by fours."""
    cells = functional.avg_pool2d(alpha.float(), _CELL)
    first, later = cells[:, :1], cells[:, 1:]
    grouped = later.reshape(len(later), -1, 4, *later.shape[2:]).amax(2) if later.shape[1] else later
    return torch.cat([first, grouped], 1).round().to(torch.uint8)


@torch.inference_mode()
def make(vae: Any, rng: random.Random, kind: Kind, count: int) -> dict[str, Tensor]:
    """Draw and encode ``count`` scenes."""
    latents, cover, numbers = [], [], []
    for _ in range(0, count, _AT_ONCE[kind]):
        if kind == "stills":
            video, scenes, _ = render.draw_stills(rng, _AT_ONCE[kind], SIZE)
        else:
            video, scenes, _ = render.draw(rng, _AT_ONCE[kind], FRAMES, SIZE)
        latents.append(fastvae.encode(vae, to_video(video)).half())
        cover.append(cell_cover(video[..., 3]))
        numbers += [s.named.numbers() for s in scenes]
    return {
        "latents": torch.cat(latents),
        "cover": torch.cat(cover),
        "numbers": torch.tensor(numbers, dtype=torch.int8),
    }


def main() -> None:
    """Parse the command line and write shards until ``count`` scenes are there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--kind", choices=list(_SHARD), required=True)
    parser.add_argument("--count", type=int, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    run, vae = Run(given.out), fastvae.load_vae(given.vae)
    size = _SHARD[given.kind]
    for shard in range((given.count + size - 1) // size):
        name = f"{given.kind}-{shard:05d}.pt"
        if not (given.out / name).exists():
            rng = random.Random(_SEEDS[given.kind] + shard)  # noqa: S311  # scenes are drawn by lot, keys are not
            run.save(make(vae, rng, given.kind, size), name)
            run.log(name)


if __name__ == "__main__":
    main()
