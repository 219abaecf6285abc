"""The error-correcting code: rate 1/3, memory 11, terminated convolutional code with soft list-Viterbi decoding.

Generators 4767, 5723, 6265 (octal; Larsen, "Short convolutional codes with maximal free distance for rates 1/2, 1/3,
and 1/4", IEEE Trans. IT 19(3), 1973), free distance 24. The decoder is the parallel list Viterbi algorithm (Seshadri
and Sundberg, IEEE Trans. Comm. 42, 1994): it returns the few codewords that correlate best, the caller's MAC picks.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from safegen.errors import PayloadError

GENERATORS = (0o4767, 0o5723, 0o6265)
MEMORY = 11
_STATES = 1 << MEMORY


def coded_length(bits: int) -> int:
    """How many coded bits carry ``bits`` information bits (369 for 112)."""
    return len(GENERATORS) * (bits + MEMORY)


@lru_cache(maxsize=1)
def _outputs() -> NDArray[np.float64]:
    """±1 outputs [4096, 3] for every register content: newest bit highest, output +1 for a coded 0."""
    register = np.arange(2 * _STATES)
    parity = [np.bitwise_count(register & g) & 1 for g in GENERATORS]
    return 1.0 - 2.0 * np.stack(parity, axis=1).astype(np.float64)


def encode(bits: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Code information bits (0/1) [k] into ±1 [3 * (k + 11)]; +1 stands for a coded 0."""
    register, out = 0, []
    for bit in [*(int(b) & 1 for b in bits), *([0] * MEMORY)]:
        register = (bit << MEMORY) | (register >> 1)
        out.append(_outputs()[register])
    return np.concatenate(out).astype(np.int8)


def encode_many(words: NDArray[np.uint8]) -> NDArray[np.int8]:
    """``encode`` for many words at once: [N, k] bits to ±1 [N, 3 * (k + 11)]."""
    count, length = words.shape
    padded = np.concatenate([np.zeros((count, MEMORY), np.uint8), words & 1, np.zeros((count, MEMORY), np.uint8)], 1)
    steps = length + MEMORY
    out = np.zeros((count, steps, len(GENERATORS)), np.uint8)
    for tap in range(MEMORY + 1):  # bit MEMORY of a generator taps the newest bit
        window = padded[:, MEMORY - tap : MEMORY - tap + steps]
        for n, generator in enumerate(GENERATORS):
            if generator >> (MEMORY - tap) & 1:
                out[:, :, n] ^= window
    return (1 - 2 * out.astype(np.int8)).reshape(count, -1)


def decode(soft: NDArray[np.floating], *, list_size: int = 8) -> list[NDArray[np.uint8]]:
    """Return the ``list_size`` words [k] whose codewords correlate best with ``soft`` [3 * (k + 11)], best first.

    ``soft`` is any multiple of the log-likelihood ratios: positive speaks for +1 (a coded 0). Cost: k * 4096 *
    list_size comparisons. Raises PayloadError for a length that no codeword has or values that are not finite.
    """
    soft = np.asarray(soft, np.float64)
    steps, rest = divmod(len(soft), len(GENERATORS))
    if rest or steps <= MEMORY or soft.ndim != 1 or not np.isfinite(soft).all():
        raise PayloadError(f"no codeword has this length or these values (length {len(soft)})")
    gains = soft.reshape(steps, -1) @ _outputs().T  # [steps, registers]
    # A state holds the 11 latest bits, newest highest; its two predecessors differ in the bit that just fell out.
    state = np.arange(_STATES)
    previous = ((state << 1) & (_STATES - 1))[:, None] | np.arange(2)
    registers = (state << 1)[:, None] | np.arange(2)
    score = np.full((_STATES, list_size), -np.inf)
    score[0, 0] = 0.0
    came_from = np.empty((steps, _STATES, list_size), np.int16)
    for step in range(steps):
        candidates = (score[previous] + gains[step][registers][:, :, None]).reshape(_STATES, -1)
        if step >= steps - MEMORY:
            candidates[_STATES // 2 :] = -np.inf  # the tail is all zeros
        best = np.argsort(-candidates, axis=1, kind="stable")[:, :list_size]
        came_from[step] = best
        score = np.take_along_axis(candidates, best, axis=1)
    return [_trace(came_from, rank, list_size) for rank in range(list_size) if np.isfinite(score[0, rank])]


def _trace(came_from: NDArray[np.int16], rank: int, list_size: int) -> NDArray[np.uint8]:
    """Follow one survivor back from state 0 and return its information bits."""
    state, bits = 0, []
    for choices in came_from[::-1]:
        bits.append(state >> (MEMORY - 1))
        dropped, rank = divmod(int(choices[state, rank]), list_size)
        state = ((state << 1) & (_STATES - 1)) | dropped
    return np.array(bits[::-1][:-MEMORY], np.uint8)
