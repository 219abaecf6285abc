"""Pictures that a clip's maker never made, carrying that clip's mark: what a forger can do who has one marked clip.

All know the marked clip alone, and how it is checked; ``with_kept_details`` even knows the kept picture, down to its
size. Frames are uint8 RGB ``[T, H, W, 3]``; the foreign footage is fitted to the marked clip's shape first. The moving
part of the marked clip, which holds its mark, is laid on the foreign pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
Levels = NDArray[np.float32]
Forgery = Callable[[Frames, Frames, np.random.Generator], Frames]
"""Marked clip, foreign footage, dice."""


def fitted(foreign: Frames, shape: tuple[int, ...]) -> Frames:
    """The foreign footage at the marked clip's length and size, cut to its aspect, not squeezed."""
    count, height, width = shape[:3]
    tall, wide = foreign.shape[1:3]
    scale = max(height / tall, width / wide)
    inner = round(height / scale), round(width / scale)
    top, left = (tall - inner[0]) // 2, (wide - inner[1]) // 2
    cut = foreign[:, top : top + inner[0], left : left + inner[1]]
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    out = [cv2.resize(cut[min(t, len(cut) - 1)], (width, height), interpolation=way) for t in range(count)]
    return np.stack(out).astype(np.uint8)


def transplant(marked: Frames, foreign: Frames, _rng: np.random.Generator, side: int, strength: float) -> Frames:
    """Foreign footage with the layout of the marked clip, ``side`` x ``side`` cells, and what moves in it."""
    real, own = fitted(foreign, marked.shape).astype(np.float32), marked.astype(np.float32)
    layout = _low(np.median(own, axis=0), side) - _low(np.median(real, axis=0), side)
    return _levels(real + layout + strength * (own - own.mean(axis=0)))


def swap(marked: Frames, foreign: Frames, _rng: np.random.Generator, side: int) -> Frames:
    """Every frame's ``side`` x ``side`` layout is the marked clip's, mark and movement with it; the rest is foreign."""
    real, own = fitted(foreign, marked.shape).astype(np.float32), marked.astype(np.float32)
    return _levels(np.stack([r - _low(r, side) + _low(o, side) for r, o in zip(real, own, strict=True)]))


def with_kept_details(
    marked: Frames, foreign: Frames, _rng: np.random.Generator, side: int = 64, gain: float = 1.0
) -> Frames:
    """All that a kept picture of ``side`` pixels can hold is the marked clip's, by a clean cut between the frequencies.

    The foreign footage shows in what is finer, ``gain`` times as strong.
    """
    real, own = fitted(foreign, marked.shape).astype(np.float32), marked.astype(np.float32)
    low = _below(own.shape[1], own.shape[2], side / 2)
    fine = np.stack([r - _filtered(r, low) for r in real])
    return _levels(own + gain * fine - np.stack([o - _filtered(o, low) for o in own]))


def drawn_over(marked: Frames, foreign: Frames, _rng: np.random.Generator, strength: float) -> Frames:
    """The foreign pictures' fine lines alone, added to the marked clip, which stays what it was beneath."""
    real = fitted(foreign, marked.shape).astype(np.float32)
    low = _below(real.shape[1], real.shape[2], 32)
    return _levels(marked + strength * np.stack([r - _filtered(r, low) for r in real]))


def ghost(marked: Frames, foreign: Frames, _rng: np.random.Generator, share: float) -> Frames:
    """Both at once, the foreign pictures showing through."""
    return _levels((1 - share) * marked.astype(np.float32) + share * fitted(foreign, marked.shape))


def cloned(marked: Frames, foreign: Frames, rng: np.random.Generator, area: float) -> Frames:
    """Poisson cloning: a foreign foreground of ``area`` of the picture, its seams dissolved."""
    real = fitted(foreign, marked.shape)
    count, height, width = marked.shape[:3]
    radius = (area * height * width / np.pi) ** 0.5
    at = [round(float(rng.uniform(0.42, 0.58)) * n) for n in (width, height)]
    mask = np.zeros((height, width), np.uint8)
    axes = (min(round(radius), width // 2 - 4), min(round(radius), height // 2 - 4))
    cv2.ellipse(mask, (width // 2, height // 2), axes, 0, 0, 360, 255, -1)
    box = cv2.boundingRect(mask)
    middle = (
        min(max(at[0], box[2] // 2 + 2), width - box[2] // 2 - 3),
        min(max(at[1], box[3] // 2 + 2), height - box[3] // 2 - 3),
    )
    out = [cv2.seamlessClone(real[t], marked[t], mask, middle, cv2.NORMAL_CLONE) for t in range(count)]
    mark = marked.astype(np.float32) - marked.mean(axis=0)
    there = np.zeros((height, width, 1), np.float32)
    left, top = middle[0] - box[2] // 2, middle[1] - box[3] // 2
    there[top : top + box[3], left : left + box[2], 0] = mask[box[1] : box[1] + box[3], box[0] : box[0] + box[2]] / 255
    return _levels(np.stack(out) + there * mark)


def pasted(marked: Frames, foreign: Frames, rng: np.random.Generator, area: float) -> Frames:
    """A foreign rectangle of ``area`` of the picture, with what moves in the marked clip on it."""
    real = fitted(foreign, marked.shape).astype(np.float32)
    height, width = marked.shape[1:3]
    tall, wide = round(height * area**0.5), round(width * area**0.5)
    top, left = int(rng.integers(0, height - tall + 1)), int(rng.integers(0, width - wide + 1))
    out, mark = marked.astype(np.float32), marked.astype(np.float32) - marked.mean(axis=0)
    part = np.s_[:, top : top + tall, left : left + wide]
    out[part] = real[part] + mark[part]
    return _levels(out)


def in_noise(marked: Frames, foreign: Frames, rng: np.random.Generator, sigma: float) -> Frames:
    """``with_kept_details``, and noise all over it, so that what is foreign may pass for noise."""
    forged = with_kept_details(marked, foreign, rng).astype(np.float32)
    return _levels(forged + sigma * rng.standard_normal(forged.shape, np.float32))


def flickering(marked: Frames, foreign: Frames, _rng: np.random.Generator, strength: float) -> Frames:
    """The foreign pictures added and taken away in turn, so that nothing of them is left in any mean over time."""
    real = fitted(foreign, marked.shape).astype(np.float32)
    sign = np.where(np.arange(len(real)) % 2, 1.0, -1.0).astype(np.float32)[:, None, None, None]
    return _levels(marked + strength * sign * (real - real.mean(axis=(1, 2), keepdims=True)))


_WORDS = ("THE MINISTER HAS", "RESIGNED TODAY.", "All banks stay shut", "until further notice,", "officials confirmed.")


def written(
    marked: Frames, _foreign: Frames, rng: np.random.Generator, share: float, ink: float, card: float
) -> Frames:
    """Lines of text over ``share`` of the picture's height, on a card that is ``card`` opaque."""
    height, width = marked.shape[1:3]
    tall = round(share * height)
    top = int(rng.integers(0, height - tall + 1))
    cover = np.zeros((height, width), np.uint8)
    lines = max(2, round(share * 8))
    for n in range(lines):
        words = _WORDS[n % len(_WORDS)]
        base = top + round((n + 0.75) * tall / lines)
        (wide, _), _ = cv2.getTextSize(words, 0, 1.0, 2)
        size = 0.92 * width / wide
        cv2.putText(cover, words, (round(0.04 * width), base), 0, size, (255,), max(1, round(size * 2.4)), cv2.LINE_AA)
    alpha = cover.astype(np.float32)[..., None] / 255
    sheet = np.zeros((height, width, 1), np.float32)
    sheet[top : top + tall] = card
    ground = marked * (1 - sheet) + sheet * (255 - ink)
    return _levels(ground * (1 - alpha) + ink * alpha)


def _low(picture: Levels, side: int) -> Levels:
    """A picture shrunk to ``side`` x ``side`` and enlarged again."""
    height, width = picture.shape[:2]
    small = cv2.resize(picture.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def _below(height: int, width: int, cycles: float) -> Levels:
    """1 where a frequency has fewer than ``cycles`` a short side: for cv2.dct of [height, width]."""
    short = min(height, width)
    v, u = np.arange(height)[:, None] / height, np.arange(width)[None, :] / width
    return (np.maximum(v, u) * short < 2 * cycles).astype(np.float32)


def _filtered(picture: Levels, mask: Levels) -> Levels:
    return np.stack([cv2.idct(cv2.dct(np.ascontiguousarray(picture[..., c])) * mask) for c in range(3)], axis=-1)


def _levels(values: NDArray[np.floating]) -> Frames:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


FORGERIES: dict[str, Forgery] = {
    **{f"transplant_8_x{s}": partial(transplant, side=8, strength=s) for s in (0.7, 1.0, 1.5)},
    **{f"transplant_{n}": partial(transplant, side=n, strength=1.0) for n in (16, 32)},
    **{f"swap_{n}": partial(swap, side=n) for n in (8, 16, 32)},
    **{f"kept_details_{n}": partial(with_kept_details, side=n) for n in (48, 64, 96)},
    "kept_details_64_x1.5": partial(with_kept_details, side=64, gain=1.5),
    "kept_details_64_in_noise": partial(in_noise, sigma=12.0),
    **{f"flickering_{s}": partial(flickering, strength=s) for s in (0.5, 1.0)},
    "lines_drawn_over": partial(drawn_over, strength=1.0),
    **{f"ghost_{s}": partial(ghost, share=s) for s in (0.3, 0.5)},
    **{f"cloned_{a}": partial(cloned, area=a) for a in (0.15, 0.3, 0.5)},
    **{f"pasted_{a}": partial(pasted, area=a) for a in (0.2, 0.39)},
    "written_black": partial(written, share=0.33, ink=0, card=0.0),
    "written_white": partial(written, share=0.33, ink=255, card=0.0),
    "written_on_card": partial(written, share=0.4, ink=20, card=0.85),
}
"""By name."""
