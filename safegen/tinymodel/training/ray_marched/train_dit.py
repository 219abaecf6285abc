"""The denoiser's and text encoder's stage: flow matching with a timestep per token, stills first and then clips."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from safegen.tinymodel.training import muon
from safegen.tinymodel.training.parts import SHIFT, TEXT_TOKENS, Z
from safegen.tinymodel.training.ray_marched.presets import Run

# Imported where they are used: diffusers, transformers.

_REST_LR = 0.4  # AdamW's rate over Muon's
_SAVE_SECONDS = 300.0
_UNPROMPTED = 0.1  # share of captions left out: guidance needs it
_UNIFORM = 0.15  # share of noise levels drawn evenly
_FIRST_FRAME_KEPT = 0.15  # share of clips whose first frame stays clean: image to video


@dataclass(frozen=True, slots=True)
class Captioned:
    """Normalised latents [N, 48, T, H, W] in float16, and their captions' tokens and masks [N, 64]."""

    latents: Tensor
    ids: Tensor
    mask: Tensor


def tokens(tokenizer: Any, lines: list[str], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return ids and mask [N, 64] of ``lines``."""
    found = tokenizer(lines, padding="max_length", max_length=TEXT_TOKENS, truncation=True, return_tensors="pt")
    return found.input_ids.to(device), found.attention_mask.to(device)


def train_dit(
    run: Run,
    dit: Any,
    text: Any,
    nothing: tuple[Tensor, Tensor],
    clips: Captioned,
    stills: Captioned,
    start_from: str = "",
    spent_share: float = 0.0,
) -> None:
    """Train ``dit`` and ``text`` in place, and leave the average over the last steps in them.

    ``nothing`` is the tokens of the empty prompt. ``start_from`` is a pipeline folder to go on from, with
    ``spent_share`` of the budget counted as spent (rates fall with it).
    """
    state = _State.start(run, dit, text, start_from, spent_share)
    model = torch.compile(dit, dynamic=False) if run.preset.compile else dit
    before, losses = state.spent, []
    began = saved = time.monotonic()
    while (done := (before + time.monotonic() - began) / run.preset.dit_seconds) < 1:
        rate = _rate(run, done, state.step)
        still = done < run.preset.stills_share or state.step % 4 == 0
        data, count = (stills, run.preset.still_batch) if still else (clips, run.preset.clip_batch)
        pick = torch.randint(len(data.latents), (count,), device=run.device)
        words = (data.ids[pick], data.mask[pick])
        loss = _loss(run, model, text, data.latents[pick].float(), words, nothing)
        state.update(loss, rate)
        losses.append(loss.detach())
        if state.step % run.preset.log_every == 0:
            recent = torch.stack(losses[-20:]).mean().item()
            run.log(f"dit {state.step} {'stills' if still else 'clips'} loss {recent:.4f} rate {rate:.1e}")
        if time.monotonic() - saved > _SAVE_SECONDS:
            state.spent = before + time.monotonic() - began
            state.save(run)
            saved = time.monotonic()
    state.settle()
    run.log(f"dit done, {state.step} steps")


def _rate(run: Run, done: float, step: int) -> float:
    warm = min(1, (step + 1) / run.preset.warmup)
    return float(run.preset.dit_lr * warm * (1 - max(0, done - 0.1) / 0.9) ** 0.8 + 1e-5)


@dataclass(slots=True)
class _State:
    """Parameters, their running average, their optimisers, and how far the training is."""

    parameters: list[torch.nn.Parameter]
    average: list[Tensor]
    optimisers: tuple[torch.optim.Optimizer, ...]
    spent: float = 0.0  # seconds
    step: int = 0

    @classmethod
    def start(cls, run: Run, dit: Any, text: Any, start_from: str, spent_share: float) -> _State:
        kept = run.kept("dit.pt")
        if start_from and not kept.exists():
            _load(dit, text, start_from)
        pairs = [muon.split(dit, 64), muon.split(text, 64)]
        parameters = [p for pair in pairs for group in pair for p in group]
        optimisers = (
            muon.Muon([p for big, _ in pairs for p in big], weight_decay=0.01),
            torch.optim.AdamW([p for _, rest in pairs for p in rest], betas=(0.9, 0.99), weight_decay=0.01),
        )
        state = cls(parameters, [p.detach().clone() for p in parameters], optimisers)
        if kept.exists():
            now, state.average, state.spent, state.step = torch.load(kept, map_location=run.device)
            state.put(now)
        elif start_from:
            state.spent = spent_share * run.preset.dit_seconds
        return state

    def update(self, loss: Tensor, rate: float) -> None:
        for optimiser, factor in zip(self.optimisers, (1, _REST_LR), strict=True):
            optimiser.param_groups[0]["lr"] = rate * factor
            optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        weight = 1 - min(0.998, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], weight)

    def put(self, values: list[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self.parameters, values, strict=True):
                parameter.copy_(value)

    def save(self, run: Run) -> None:
        run.save(([p.detach() for p in self.parameters], self.average, self.spent, self.step), "dit.pt")

    def settle(self) -> None:
        self.put(self.average)


def _load(dit: Any, text: Any, folder: str) -> None:
    from diffusers import WanTransformer3DModel
    from transformers import UMT5EncoderModel

    dit.load_state_dict(WanTransformer3DModel.from_pretrained(Path(folder) / "transformer").state_dict())
    text.load_state_dict(UMT5EncoderModel.from_pretrained(Path(folder) / "text_encoder").state_dict())


def _loss(
    run: Run,
    model: Any,
    text: Any,
    clean: Tensor,
    words: tuple[Tensor, Tensor],
    nothing: tuple[Tensor, Tensor],
) -> Tensor:
    """Flow matching (arXiv:2210.02747) with a timestep per token, as Wan 2.2 TI2V does it."""
    n, _, frames, h, w = clean.shape
    drop = (torch.rand(n, device=run.device) < _UNPROMPTED)[:, None]
    ids, mask = (torch.where(drop, empty, given) for empty, given in zip(nothing, words, strict=True))
    u = torch.sigmoid(torch.randn(n, device=run.device))
    u = torch.where(torch.rand(n, device=run.device) < _UNIFORM, torch.rand_like(u), u)
    sigma = (SHIFT * u / (1 + (SHIFT - 1) * u)).view(-1, 1, 1, 1, 1).expand(-1, 1, frames, 1, 1).clone()
    if frames > 1:
        sigma[torch.rand(n, device=run.device) < _FIRST_FRAME_KEPT, :, 0] = 0
    noise = torch.randn_like(clean)
    timestep = (sigma[:, 0, :, 0, 0] * 1000).repeat_interleave((h // 2) * (w // 2), dim=1)
    with run.amp():
        states = text(ids, attention_mask=mask).last_hidden_state * mask.unsqueeze(-1)
        # Wan attends to the padding: its length must be the pipeline's
        states = functional.pad(states, (0, 0, 0, run.preset.text_length - states.shape[1]))
        mixed = (1 - sigma) * clean + sigma * noise
        velocity = model(hidden_states=mixed, timestep=timestep, encoder_hidden_states=states, return_dict=False)[0]
    counts = (sigma > 0).float()
    error: Tensor = ((velocity.float() - (noise - clean)) ** 2 * counts).sum()
    return error / (counts.sum() * Z * h * w)
