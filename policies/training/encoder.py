"""Fine-tunes a small BERT-like encoder with one head per category, and writes it as int8 ONNX.

A head looks at every token: its logit is the sum over tokens of attention times evidence, ``sum_t softmax_t(u.h_t)
(w.h_t) + b``, so that a long prompt is judged by the clause that matters, and the terms of the sum say which words a
score rests on. Needs torch, transformers and onnx (the ``train`` extra); inference does not.
"""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from safegen.policies.training.rows import UNKNOWN, Example

# Imported where they are used: transformers.

_POOL = 16  # batches that are sorted by length together, so that little is padded


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is fitted. ``rate`` is the encoder's peak learning rate, ``head_rate`` that of the heads."""

    steps: int = 1500
    batch: int = 32
    tokens: int = 112
    rate: float = 8e-5
    head_rate: float = 2e-3
    frozen_layers: int = 2
    warm_up: float = 0.06
    decay: float = 0.01
    average: float = 0.998  # of the weights, from step to step
    typos: float = 0.03
    seed: int = 7


class Network(nn.Module):
    """Encoder and heads. ``forward``: int64 [B, T] ids and mask -> logits [B, H] and their parts [B, T, H]."""

    def __init__(self, encoder: nn.Module, width: int, heads: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.evidence = nn.Linear(width, heads)
        self.attention = nn.Linear(width, heads, bias=False)
        nn.init.zeros_(self.attention.weight)
        nn.init.normal_(self.evidence.weight, std=0.02)
        nn.init.constant_(self.evidence.bias, -2.0)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and their parts; see the class."""
        hidden = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        hidden = nn.functional.dropout(hidden, 0.1, self.training)
        weight = self.attention(hidden).float().masked_fill(mask[..., None] == 0, -1e4).softmax(1)
        parts = weight * nn.functional.linear(hidden, self.evidence.weight).float()
        return parts.sum(1) + self.evidence.bias, parts


def load_network(folder: Path, heads: int) -> Network:
    """Read a pre-trained encoder from ``folder`` (transformers' layout); nothing is fetched."""
    from transformers import AutoModel

    encoder = AutoModel.from_pretrained(str(folder), local_files_only=True, add_pooling_layer=False)
    return Network(encoder, int(encoder.config.hidden_size), heads)


def _with_typos(text: str, draw: random.Random, rate: float) -> str:
    """Drop, double or swap a letter here and there: real prompts are not spelled like templates."""
    letters = list(text)
    i = 0
    while i < len(letters) - 1:
        if letters[i].isalpha() and draw.random() < rate:
            kind = draw.randrange(3)
            if kind == 0:
                letters[i] = ""
            elif kind == 1:
                letters[i] *= 2
            else:
                letters[i], letters[i + 1] = letters[i + 1], letters[i]
            i += 6
        i += 1
    return "".join(letters)


def _batches(
    source: Iterator[Example], tokenizer: Any, recipe: Recipe, draw: random.Random
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Yield ids, mask, what is said and weights, in batches of texts of about one length."""
    while True:
        pool = [next(source) for _ in range(_POOL * recipe.batch)]
        # One text in five carries typos; most prompts are spelled well.
        texts = [_with_typos(e.text, draw, recipe.typos) if draw.random() < 0.2 else e.text for e in pool]
        encoded = [item.ids[: recipe.tokens] for item in tokenizer.encode_batch(texts)]
        order = sorted(range(len(pool)), key=lambda i: len(encoded[i]))
        chunks = [order[at : at + recipe.batch] for at in range(0, len(order), recipe.batch)]
        draw.shuffle(chunks)
        for chunk in chunks:
            longest = max(len(encoded[i]) for i in chunk)
            ids = torch.zeros(len(chunk), longest, dtype=torch.int64)
            for k, i in enumerate(chunk):
                ids[k, : len(encoded[i])] = torch.tensor(encoded[i])
            says = torch.tensor(np.stack([pool[i].says for i in chunk]))
            yield ids, (ids != 0).long(), says, torch.tensor([pool[i].weight for i in chunk])


def loss_of(logits: Tensor, says: Tensor, weight: Tensor) -> Tensor:
    """Binary cross entropy over what is known, [B, H]; a head's yeses count twice: they are rare."""
    known = (says != UNKNOWN).float() * weight[:, None]
    yes = (says == 1).float()
    each = nn.functional.binary_cross_entropy_with_logits(logits, yes, reduction="none") * (1.0 + yes)
    return (each * known).sum() / known.sum().clamp(min=1.0)


def fit(
    network: Network,
    tokenizer: Any,
    source: Iterator[Example],
    recipe: Recipe,
    *,
    checkpoint: Callable[[int, Mapping[str, Tensor]], None] | None = None,
) -> Network:
    """Train on an endless stream of examples; return the network with averaged weights."""
    torch.manual_seed(recipe.seed)
    draw = random.Random(recipe.seed)  # noqa: S311 - a stream that can be repeated, no secret
    encoder: Any = network.encoder
    for p in encoder.embeddings.parameters():
        p.requires_grad = False
    for layer in encoder.encoder.layer[: recipe.frozen_layers]:
        for p in layer.parameters():
            p.requires_grad = False
    groups = [
        {
            "params": [p for p in encoder.parameters() if p.requires_grad],
            "lr": recipe.rate,
            "weight_decay": recipe.decay,
        },
        {"params": [*network.evidence.parameters(), *network.attention.parameters()], "lr": recipe.head_rate},
    ]
    optimiser = torch.optim.AdamW(groups)
    warm = max(1, int(recipe.warm_up * recipe.steps))

    def pace(step: int) -> float:
        return min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * max(0, step - warm) / max(1, recipe.steps - warm))))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, pace)
    trained = {n: p for n, p in network.named_parameters() if p.requires_grad}
    average = {n: p.detach().clone() for n, p in trained.items()}
    batches = _batches(source, tokenizer, recipe, draw)
    network.train()
    began, running = time.time(), 0.0
    for step in range(recipe.steps):
        ids, mask, says, weight = next(batches)
        with torch.autocast("cpu", torch.bfloat16):
            logits, _ = network(ids, mask)
        loss = loss_of(logits, says, weight)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
        optimiser.step()
        schedule.step()
        keep = min(recipe.average, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, p in trained.items():
                average[name].lerp_(p.detach(), 1 - keep)
        running += loss.item()
        if (step + 1) % 200 == 0:
            sys.stderr.write(f"step {step + 1}: loss {running / 200:.4f}, {time.time() - began:.0f} s\n")
            running = 0.0
            if checkpoint is not None:
                checkpoint(step + 1, average)
    with torch.no_grad():
        for name, p in trained.items():
            p.copy_(average[name])
    return network.eval()


def logits_of(network: Network, tokenizer: Any, texts: Sequence[str], tokens: int) -> NDArray[np.float32]:
    """Return logits, float32 [texts, heads]."""
    encoded = [item.ids[:tokens] for item in tokenizer.encode_batch(list(texts))]
    order = sorted(range(len(texts)), key=lambda i: len(encoded[i]))
    out = np.zeros((len(texts), network.evidence.out_features), np.float32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for at in range(0, len(order), 64):
            chunk = order[at : at + 64]
            ids = torch.zeros(len(chunk), max(len(encoded[i]) for i in chunk), dtype=torch.int64)
            for k, i in enumerate(chunk):
                ids[k, : len(encoded[i])] = torch.tensor(encoded[i])
            out[chunk] = network(ids, (ids != 0).long())[0].float().numpy()
    return out
