"""One plain change of colour is no other picture; many at once are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from safegen.watermark.fingerprint.recolouring import distance

Picture = NDArray[np.float32]
WHOLE = np.ones((64, 64), np.float32)
Y, X = (axis.astype(np.float32) / 63 for axis in np.mgrid[0:64, 0:64])


def scene(sky: tuple[int, int, int], ground: tuple[int, int, int], horizon: float) -> Picture:
    """A sky over a ground, both a little uneven."""
    above = (horizon > Y)[..., None]
    made = np.where(above, np.array(sky) * (1 - 0.3 * Y[..., None]), np.array(ground) * (0.7 + 0.3 * X[..., None]))
    return made.astype(np.float32)


DAY = scene((120, 170, 230), (70, 140, 60), 0.5)
DUSK = scene((230, 120, 60), (90, 80, 40), 0.3)
SNOW = scene((60, 70, 120), (220, 225, 235), 0.6)


def vignette(picture: Picture) -> Picture:
    shade = 1 - 0.25 * ((2 * X - 1) ** 2 + (2 * Y - 1) ** 2)
    return picture * shade[..., None]


EDITS = {
    "unchanged": lambda p: p,
    "darker": lambda p: 0.5 * p,
    "paler": lambda p: 0.4 * p + 0.6 * p.mean(axis=-1, keepdims=True),
    "grey": lambda p: np.repeat(p.mean(axis=-1, keepdims=True), 3, axis=-1),
    "negative": lambda p: 255 - p,
    "vignette": vignette,
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("picture", [DAY, DUSK, SNOW], ids=["day", "dusk", "snow"])
def test_plain_edits_are_plausible(edit: str, picture: Picture) -> None:
    assert distance(picture, np.asarray(EDITS[edit](picture), np.float32), WHOLE) <= 1


@pytest.mark.parametrize(("kept", "found"), [(DAY, DUSK), (DUSK, DAY), (DAY, SNOW), (SNOW, DUSK)])
def test_another_scene_of_few_forms_is_not(kept: Picture, found: Picture) -> None:
    assert distance(kept, found, WHOLE) > 1


def test_a_small_caption_is_no_other_picture() -> None:
    captioned = DAY.copy()
    captioned[52:60, 8:56] = 255
    assert distance(DAY, captioned, WHOLE) <= 1


def test_where_too_little_is_seen_nothing_is_plausible() -> None:
    weight = np.zeros((64, 64), np.float32)
    weight[:16, :16] = 1
    assert math.isinf(distance(DAY, DAY, weight))
