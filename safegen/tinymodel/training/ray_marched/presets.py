"""How much of everything a training run takes, and the run's own bookkeeping."""

from __future__ import annotations

import contextlib
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from safegen.watermark import fastvae


@dataclass(frozen=True, slots=True)
class Preset:
    """One budget. Seconds count from the stage's start, compilation included."""

    device: str
    size: int  # pixels, both sides
    frames: int  # 4 k + 1
    plain: bool  # a smaller world for a smaller budget: few textures, no weather
    clips: int  # rendered and kept: the VAE learns from these
    more_clips: int  # rendered for the DiT alone
    stills: int
    render_batch: int
    still_scenes: int  # scenes drawn at once for stills
    vae_seconds: float
    vae_batch: int
    space_first: bool  # the VAE sees mostly stills at first: much cheaper
    dit_seconds: float
    layers: int
    dit_lr: float
    warmup: int  # steps
    stills_share: float  # of the DiT's budget: stills alone, before clips
    still_batch: int
    clip_batch: int
    text_length: int  # tokens; Wan attends to the padding, so it must be the call's
    compile: bool
    keep_clips: bool  # on disk: where drawing them takes long
    log_every: int  # steps


PRESETS = {
    "gpu": Preset(
        device="cuda",
        size=256,
        frames=33,
        plain=False,
        clips=3500,
        more_clips=6500,
        stills=12000,
        render_batch=8,
        still_scenes=32,
        vae_seconds=400,
        vae_batch=16,
        space_first=False,
        dit_seconds=600,
        layers=8,
        dit_lr=4e-3,
        warmup=100,
        stills_share=0.2,
        still_batch=512,
        clip_batch=192,
        text_length=512,
        compile=True,
        keep_clips=False,
        log_every=100,
    ),
    "cpu": Preset(
        device="cpu",
        size=192,
        frames=25,
        plain=True,
        clips=700,
        more_clips=2000,
        stills=4000,
        render_batch=1,
        still_scenes=4,
        vae_seconds=2700,
        vae_batch=4,
        space_first=True,
        dit_seconds=7200,
        layers=6,
        dit_lr=8e-3,
        warmup=20,
        stills_share=0.3,
        still_batch=48,
        clip_batch=12,
        text_length=64,
        compile=False,
        keep_clips=True,
        log_every=20,
    ),
}


@dataclass(frozen=True, slots=True)
class Run:
    """One training run: its preset, its folder, its dice. What a stage keeps lies in ``out`` and is found again."""

    preset: Preset
    out: Path
    device: torch.device
    dice: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311  # crops, not keys
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def start(cls, preset: Preset, out: Path) -> Run:
        """Make the folder and seed torch."""
        out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        if preset.device == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
            torch.backends.cudnn.benchmark = True
        return cls(preset, out, torch.device(preset.device))

    def kept(self, name: str) -> Path:
        """Return where a stage keeps its result."""
        return self.out / name

    def save(self, value: object, name: str) -> None:
        """Keep a stage's result, whole or not at all: a stopped run must not find half a file."""
        partial = self.kept(name + ".tmp")
        torch.save(value, partial)
        partial.replace(self.kept(name))

    def log(self, text: str) -> None:
        """Write one line with the seconds since the start."""
        sys.stdout.write(f"[{time.monotonic() - self.began:7.1f}] {text}\n")
        sys.stdout.flush()

    def amp(self) -> contextlib.AbstractContextManager[object]:
        """Return bfloat16 autocast where the hardware multiplies it itself."""
        if self.device.type == "cpu" and not fastvae.fast_cpu():
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)
