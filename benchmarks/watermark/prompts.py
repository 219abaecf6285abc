"""Prompts for the benchmark's clips: solids of the embedded model's little world, in an order drawn by lot."""

from __future__ import annotations

import random
from functools import cache
from itertools import product

SUBJECTS = tuple(
    f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {shape}"
    for colour, shape in product(
        ("red", "blue", "yellow", "green", "orange", "purple", "white", "pink"),
        ("ball", "cube", "cone", "cylinder", "ring", "capsule"),
    )
)
ACTIONS = ("bouncing", "moving to the right", "moving to the left", "spinning", "floating", "falling", "standing still")
PLACES = tuple(
    f"{ground} {sky}"
    for ground, sky in product(
        ("on green grass", "on sand", "on snow", "on a wooden floor", "on grey stone", "on water"),
        ("under a clear blue sky", "at sunset", "at night", "under a cloudy sky"),
    )
)


@cache
def _shuffled() -> tuple[str, ...]:
    every = [" ".join(words) for words in product(SUBJECTS, ACTIONS, PLACES)]
    random.Random(2026).shuffle(every)
    return tuple(every)


def prompt(seed: int) -> str:
    """The prompt of the clip with this seed; the first 8064 seeds have one each."""
    return _shuffled()[seed % len(_shuffled())]
