"""Which phase of the pattern each frame shows: found from the signpost, so that cut, doubled, dropped, slowed or
reordered frames read as well as untouched ones (spec section 7)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from safegen.watermark.clip.pattern import PHASES, phase_of

STEP_COST = 1.0
BACK_COST = 2.5
JUMP_COST = 4.0


def untouched(frames: int) -> NDArray[np.int64]:
    """The phases of a clip as it was generated: int64 [frames]."""
    return np.array([phase_of(t) for t in range(frames)], np.int64)


def follow(scores: NDArray[np.float64]) -> tuple[NDArray[np.int64], float]:
    """The likeliest phase of every frame, int64 [T], and its score, given ``scores`` [T, PHASES] (about N(0, 1)).

    Viterbi's algorithm: staying in a phase is free, going on to the next one costs STEP_COST, back BACK_COST, anywhere
    else (a cut) JUMP_COST, in units of the scores.
    """
    step = (np.arange(PHASES)[:, None] - np.arange(PHASES)[None, :]) % PHASES  # [to, from]
    cost = np.select([step == 0, step == 1, step == PHASES - 1], [0.0, STEP_COST, BACK_COST], JUMP_COST)
    best = scores[0].copy()
    came = np.zeros(scores.shape, np.int64)
    for t in range(1, len(scores)):
        options = best[None, :] - cost
        came[t] = options.argmax(axis=1)
        best = options.max(axis=1) + scores[t]
    path = np.empty(len(scores), np.int64)
    path[-1] = best.argmax()
    for t in range(len(scores) - 1, 0, -1):
        path[t - 1] = came[t, path[t]]
    return path, float(best.max())


def path_score(scores: NDArray[np.float64], path: NDArray[np.int64]) -> float:
    """The score of one path, its costs left out, scaled to about N(0, 1) for a path chosen beforehand."""
    return float(scores[np.arange(len(path)), path].sum() / np.sqrt(len(path)))
