"""The text encoder's stage: it learns what captions state before any picture is drawn, and is frozen then.

Every token has to tell every aspect of the scene, whatever else the caption says and with foreign words in between; so
the denoiser finds what it is asked wherever it looks.

    python -m safegen.tinymodel.training.text OUT --seconds 200
"""

from __future__ import annotations

import argparse
import random
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from safegen.tinymodel.training import muon
from safegen.tinymodel.training.parts import TEXT_TOKENS, make_text_encoder, make_tokenizer
from safegen.tinymodel.training.run import Run
from safegen.tinymodel.training.world import ASPECTS, KINDS, Caption, caption, draw_scene
from safegen.watermark import fastvae

# Imported where they are used: transformers.

_LINES = 20_000
_BATCH, _RATE, _REST_RATE = 64, 4e-3, 0.5
_FOREIGN = 0.2  # share of captions with a word in them that means nothing here


def tokens(tokenizer: Any, lines: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return ids and mask [N, L] of ``lines``, L the longest of them and at most ``TEXT_TOKENS``."""
    found = tokenizer(list(lines), padding="longest", max_length=TEXT_TOKENS, truncation=True, return_tensors="pt")
    return found.input_ids, found.attention_mask


@torch.no_grad()
def encode(encoder: Any, tokenizer: Any, lines: Sequence[str]) -> Tensor:
    """Return the states [N, L, width] of ``lines``, L the longest of them, zero past their ends as in the pipeline."""
    ids, mask = tokens(tokenizer, lines)
    states: Tensor = encoder(ids, attention_mask=mask).last_hidden_state * mask.unsqueeze(-1)
    return states


def foreign(rng: random.Random, line: str) -> str:
    """Put a word of random letters somewhere into ``line``."""
    words = line.split(" ")
    word = "".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 8)))
    words.insert(rng.randint(0, len(words)), word)
    return " ".join(words)


def _drawn(rng: random.Random, count: int) -> tuple[list[str], Tensor]:
    """Return captions and what they state: [count, aspects], 0 for nothing, else 1 + the place in ``KINDS``."""
    lines, states = [], []
    for _ in range(count):
        made: Caption = caption(rng, draw_scene(rng).named)
        lines.append(foreign(rng, made.text) if rng.random() < _FOREIGN else made.text)
        states.append([1 + KINDS[a].index(s) if s else 0 for a, s in zip(ASPECTS, made.states, strict=True)])
    return lines, torch.tensor(states)


def train_text(out: Path, seconds: float) -> Path:
    """Learn the tokenizer and the encoder and write both into ``out`` as transformers' folders; return ``out``."""
    dice = random.Random(1)  # noqa: S311  # scenes are drawn by lot, keys are not
    torch.manual_seed(0)
    tokenizer = make_tokenizer([caption(dice, draw_scene(dice).named).text for _ in range(_LINES)])
    encoder = make_text_encoder(len(tokenizer))
    heads = torch.nn.ModuleList([torch.nn.Linear(encoder.config.d_model, 1 + len(KINDS[a])) for a in ASPECTS])
    matrices, rest = muon.split(encoder, 64)
    run = Run(out)
    optimisers = (muon.Muon(matrices), torch.optim.AdamW([*rest, *heads.parameters()], betas=(0.9, 0.98)))
    while (done := run.seconds / seconds) < 1:
        rate = _RATE * min(1, (run.step + 1) / 50) * (1 - done) + 1e-5
        for optimiser, factor in zip(optimisers, (1, _REST_RATE), strict=True):
            optimiser.param_groups[0]["lr"] = rate * factor
            optimiser.zero_grad(set_to_none=True)
        lines, stated = _drawn(dice, _BATCH)
        ids, mask = tokens(tokenizer, lines)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=fastvae.fast_cpu()):
            states = encoder(ids, attention_mask=mask).last_hidden_state
        states, here = states.float(), mask.bool()
        owners = torch.arange(len(lines)).unsqueeze(1).expand_as(mask)[here]
        losses = [functional.cross_entropy(h(states[here]), stated[owners, i]) for i, h in enumerate(heads)]
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([*matrices, *rest], 1.0)
        for optimiser in optimisers:
            optimiser.step()
        run.step += 1
        if run.step % 50 == 0:
            run.log(f"text {run.step} " + " ".join(f"{a} {v.item():.3f}" for a, v in zip(ASPECTS, losses, strict=True)))
    tokenizer.save_pretrained(out / "tokenizer")
    encoder.half().save_pretrained(out / "text_encoder")
    run.log(f"text done, {run.step} steps")
    return out


def load(folder: Path) -> tuple[Any, Any]:
    """Return (encoder, tokenizer) of a pipeline's or a stage's folder, frozen."""
    from transformers import AutoTokenizer, UMT5EncoderModel

    encoder = (
        UMT5EncoderModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval().requires_grad_(False)
    )
    return encoder, AutoTokenizer.from_pretrained(folder / "tokenizer")


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=200, help="processor seconds")
    given = parser.parse_args()
    torch.set_num_threads(1)
    train_text(given.out, given.seconds)


if __name__ == "__main__":
    main()
