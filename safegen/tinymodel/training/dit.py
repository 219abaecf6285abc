"""The denoiser's stage: it learns to say what the clean clip is, stills first and then clips.

Flow matching (arXiv:2210.02747) with a timestep for each frame, as Wan 2.2 TI2V has it, so that a first frame can be
kept clean. The network predicts the clean latents and not the velocity: a token is four cells of 48 channels, and noise
of 192 dimensions would have to pass through a network 256 wide (arXiv:2511.13720). The loss is that of the velocity,
and cells that a solid covers weigh more.

    python -m safegen.tinymodel.training.dit OUT --latents LATENTS --text TEXT --seconds 3600
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from safegen.tinymodel.training import fastdit, muon, text
from safegen.tinymodel.training.latents import Shards
from safegen.tinymodel.training.parts import SHIFT, TEXT_TOKENS, make_dit
from safegen.tinymodel.training.run import Run, halved, restore
from safegen.tinymodel.training.world import Named, caption
from safegen.watermark import fastvae

_RATE, _REST_RATE, _WARMUP = 5e-3, 0.3, 50
_UNPROMPTED = 0.1  # share of captions left out: guidance needs it
_UNIFORM = 0.1  # share of noise levels drawn evenly
_FIRST_FRAME_KEPT = 0.15  # share of clips whose first frame stays clean: image to video
_SOLID_WEIGHT = 4.0
_LEAST_NOISE = 0.15  # below this the loss of the velocity is that of the clean latents, scaled
_STILL_BATCH, _CLIP_BATCH = 64, 10
_STILLS_BETWEEN = 4  # with clips: every how many steps one of stills
_AVERAGE = 0.9985
_WORDS = 32  # text states are padded to so many: a compiled pass is made once for each shape


@dataclass(slots=True)
class Learner:
    """The denoiser, its running average and its optimisers. Their state is not kept: few steps find it again."""

    model: Any
    parameters: list[torch.nn.Parameter]
    average: list[Tensor]
    muon: muon.Muon
    rest: torch.optim.AdamW

    @classmethod
    def start(cls) -> Learner:
        """Return an untrained one."""
        torch.manual_seed(0)
        model = make_dit()
        torch.nn.init.zeros_(model.proj_out.weight)
        matrices, rest = muon.split(model, 64)
        parameters = list(model.parameters())
        return cls(
            model,
            parameters,
            [p.detach().clone() for p in parameters],
            muon.Muon(matrices, weight_decay=0.01),
            torch.optim.AdamW(rest, betas=(0.9, 0.99), weight_decay=0.01),
        )

    def update(self, loss: Tensor, rate: float, step: int) -> None:
        """Take one step down ``loss`` and move the average after it."""
        self.muon.param_groups[0]["lr"], self.rest.param_groups[0]["lr"] = rate, rate * _REST_RATE
        for optimiser in (self.muon, self.rest):
            optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimiser in (self.muon, self.rest):
            optimiser.step()
        weight = 1 - min(_AVERAGE, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], weight)


def loss_of(
    model: Any, clean: Tensor, cover: Tensor, states: Tensor, forward: Callable[..., Tensor] = fastdit.forward
) -> Tensor:
    """Return the loss for normalised latents ``clean`` [N, 48, T, H, W], ``cover`` [N, T, H, W] and text ``states``.

    ``forward``: ``fastdit.forward``, or that compiled.
    """
    n, _, frames = clean.shape[:3]
    u = torch.sigmoid(torch.randn(n))
    u = torch.where(torch.rand(n) < _UNIFORM, torch.rand_like(u), u)
    sigma = (SHIFT * u / (1 + (SHIFT - 1) * u)).view(-1, 1, 1, 1, 1).expand(-1, 1, frames, 1, 1).clone()
    if frames > 1:
        sigma[torch.rand(n) < _FIRST_FRAME_KEPT, :, 0] = 0
    mixed = (1 - sigma) * clean + sigma * torch.randn_like(clean)
    guess = forward(model, mixed, sigma[:, 0, :, 0, 0], states, TEXT_TOKENS, _dtype())
    error = (guess - clean).square().mean(1, keepdim=True) / sigma.clamp_min(_LEAST_NOISE).square()
    weight = (sigma > 0) * (1 + _SOLID_WEIGHT * cover.unsqueeze(1).float() / 255)
    result: Tensor = (error * weight).sum() / weight.sum()
    return result


def _dtype() -> torch.dtype:
    return torch.bfloat16 if fastvae.fast_cpu() else torch.float32


def train_dit(
    out: Path, latents: Path, words: Path, seconds: float, *, stills_only: float, cool: float, compiled: bool = False
) -> None:
    """Train for processor ``seconds`` in all, the first ``stills_only`` of them on stills alone, and keep the state in
    ``out``. The rate falls over the last ``cool`` seconds and is even before: a longer training goes on from any state.
    ``compiled``: by torch.compile, which needs a C++ compiler and a minute or two, and then takes 0.6 of the time.
    """
    learner = Learner.start()
    encoder, tokenizer = text.load(words)
    forward = torch.compile(fastdit.forward, dynamic=False) if compiled else fastdit.forward
    run = Run(out)
    kept = run.load("dit.pt")
    if kept:
        restore(learner.parameters, kept["weights"])
        restore(learner.average, kept["average"])
        run.spent, run.step = kept["seconds"], kept["step"]
    dice = random.Random(run.step)  # noqa: S311  # captions are drawn by lot, keys are not
    torch.manual_seed(run.step)
    stills, clips = Shards.empty(1), Shards.empty(7)
    recent: dict[str, list[float]] = {"stills": [], "clips": []}
    looked, first = 0.0, run.step
    while run.seconds < seconds:
        if time.monotonic() - looked > 60:
            stills.refresh(latents, "stills")
            clips.refresh(latents, "clips")
            looked = time.monotonic()
        moving = run.seconds > stills_only and len(clips.latents) > 0 and run.step % _STILLS_BETWEEN != 0
        data, count = (clips, _CLIP_BATCH) if moving else (stills, _STILL_BATCH)
        if len(data.latents) == 0:
            raise SystemExit(f"no latents of {'clips' if moving else 'stills'} in {latents}")
        pick = torch.randint(len(data.latents), (count,))
        named = [Named.of(row) for row in data.numbers[pick].tolist()]
        lines = ["" if dice.random() < _UNPROMPTED else caption(dice, n).text for n in named]
        states = text.encode(encoder, tokenizer, lines)
        states = functional.pad(states, (0, 0, 0, max(0, _WORDS - states.shape[1])))
        loss = loss_of(learner.model, data.latents[pick].float(), data.cover[pick], states, forward)
        left = (seconds - run.seconds) / cool if cool else 1.0
        learner.update(loss, _RATE * min(1, (run.step - first + 1) / _WARMUP, max(left, 0.01)), run.step)
        run.step += 1
        recent["clips" if moving else "stills"].append(loss.item())
        if run.step % 50 == 0:
            said = " ".join(f"{k} {sum(v) / len(v):.4f}" for k, v in recent.items() if v)
            run.log(f"dit {run.step} {said} of {len(stills.latents)} stills, {len(clips.latents)} clips")
            recent = {"stills": [], "clips": []}
        if run.due():
            _keep(run, learner)
    _keep(run, learner)
    run.log(f"dit done, {run.step} steps")


def _keep(run: Run, learner: Learner) -> None:
    state = {
        "weights": halved(learner.parameters),
        "average": [a.half() for a in learner.average],
        "seconds": run.seconds,
        "step": run.step,
    }
    run.save(state, "dit.pt")


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--latents", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=3600, help="processor seconds, those already spent included")
    parser.add_argument("--stills-only", type=float, default=1200, help="of them, before clips come")
    parser.add_argument("--cool", type=float, default=0, help="of them, the last, in which the rate falls")
    parser.add_argument("--compile", action="store_true", help="quicker steps, after a minute or two")
    given = parser.parse_args()
    torch.set_num_threads(1)
    train_dit(
        given.out, given.latents, given.text, given.seconds,
        stills_only=given.stills_only, cool=given.cool, compiled=given.compile,
    )  # fmt: skip


if __name__ == "__main__":
    main()
