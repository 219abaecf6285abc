"""Visible labels, measured on the pixels: size, place, contrast, wording, and what is left of the picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from safegen.errors import InputError
from safegen.media import decode, encode_video
from safegen.media.labels import WORDINGS, Overlay

SIZES = ((192, 192), (360, 640), (640, 360), (480, 832), (1080, 1920))  # height, width
GROUNDS = {"black": 0, "grey": 128, "white": 255}


def glyphs(plate: np.ndarray) -> Iterator[np.ndarray]:
    """The inked columns of a plate, character by character where a gap parts them."""
    ink = plate[..., 0] >= 128
    columns = np.flatnonzero(ink.any(axis=0))
    for run in np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1):
        yield ink[:, run[0] : run[-1] + 1]


def heights(plate: np.ndarray) -> list[int]:
    rows = [np.flatnonzero(glyph.any(axis=1)) for glyph in glyphs(plate)]
    return [int(r[-1] - r[0] + 1) for r in rows]


def drawn_on(ground: np.ndarray, *laws: str) -> tuple[np.ndarray, Overlay]:
    overlay = Overlay(laws, *ground.shape[:2])
    return overlay.draw(ground), overlay


@pytest.mark.parametrize("law", WORDINGS)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_letters_are_high_enough(law: str, height: int, width: int) -> None:
    """Found on the picture itself, on grey ground: the label is where it is neither grey nor outside the plate."""
    ground = np.full((height, width, 3), 128, np.uint8)
    picture, _ = drawn_on(ground, law)
    changed = np.argwhere((picture != ground).any(axis=2))
    (top, left), (bottom, right) = changed.min(axis=0), changed.max(axis=0) + 1
    plate = picture[top:bottom, left:right]
    found = heights(plate)
    letters = [h for h in found if h > 0.3 * max(found)]  # a hyphen is no letter
    assert min(letters) >= 0.06 * min(height, width)
    text = WORDINGS[law].generated
    assert len(letters) >= len(text.replace(" ", "").replace("-", "")) - 1  # two letters may touch
    corner = {
        "top right": top < height / 4 and right > width * 3 / 4,
        "bottom left": bottom > height * 3 / 4 and left < width / 4,
    }
    assert corner[WORDINGS[law].corner]


@pytest.mark.parametrize("ground", GROUNDS)
def test_it_is_legible_on_any_ground(ground: str) -> None:
    picture, overlay = drawn_on(np.full((192, 192, 3), GROUNDS[ground], np.uint8), *WORDINGS)
    for label in overlay.labels:
        plate = picture[label.top : label.top + label.height, label.left : label.left + label.width].astype(int)
        border = np.concatenate([plate[0], plate[-1], plate[:, 0], plate[:, -1]])
        assert border.max() == 0  # a ring of the plate around the text
        assert plate.max() == 255
        assert 0.1 < (plate >= 128).mean() < 0.5


def test_the_rest_of_the_picture_stays_as_it_was() -> None:
    frame = np.random.default_rng(1).integers(0, 255, (192, 192, 3), dtype=np.uint8)
    kept = frame.copy()
    picture, overlay = drawn_on(frame, *WORDINGS)
    assert np.array_equal(frame, kept)
    outside = np.ones((192, 192), bool)
    for label in overlay.labels:
        plate = outside[label.top : label.top + label.height, label.left : label.left + label.width]
        assert plate.all()  # no label lies on another, or outside
        assert plate.shape == (label.height, label.width)
        plate[:] = False
    assert np.array_equal(picture[outside], frame[outside])
    assert outside.mean() > 0.75


def test_same_labels_same_pixels() -> None:
    ground = np.zeros((192, 192, 3), np.uint8)
    assert np.array_equal(drawn_on(ground, "cn", "eu")[0], drawn_on(ground, "cn", "eu", "cn")[0])


def test_wordings() -> None:
    """GB 45438 wants an AI element (人工智能 or AI) and a generation element (生成 or 合成)."""
    assert all("AI" in w.generated and "AI" in w.modified for w in WORDINGS.values())
    assert "生成" in WORDINGS["cn"].generated
    modified = Overlay(["eu", "cn"], 192, 192, modified=True)
    assert [label.text for label in modified.labels] == ["AI MODIFIED", "AI生成"]
    assert modified.labels[0].to_json()["letters"] == 12


def test_every_character_has_a_glyph_of_its_own() -> None:
    """A character that the font lacks would be drawn as an empty box, the same one for each."""
    from safegen.media.labels import _font

    font = _font(40)
    characters = sorted({c for w in WORDINGS.values() for c in w.generated + w.modified if c != " "})
    pictures = [bytes(font.getmask(c)) for c in (*characters, "\u2603")]  # the last is not in the font
    assert len(set(pictures)) == len(pictures)


def test_label_survives_the_encoder(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    overlay = Overlay(["cn"], 192, 192)
    frames = [overlay.draw(rng.integers(0, 255, (192, 192, 3), dtype=np.uint8)) for _ in range(5)]
    encode_video(frames, 16, tmp_path / "a.mp4", crf=28)
    (label,) = overlay.labels
    for before, after in zip(frames, decode(tmp_path / "a.mp4"), strict=True):
        a, b = (
            f[label.top : label.top + label.height, label.left : label.left + label.width, 0] for f in (before, after)
        )
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.97


@pytest.mark.parametrize(("laws", "height", "width"), [(["eu"], 64, 64), (["cn"], 32, 32), (["in"], 512, 64)])
def test_too_small_frames(laws: list[str], height: int, width: int) -> None:
    with pytest.raises(InputError, match="too small"):
        Overlay(laws, height, width)


def test_unknown_label_and_wrong_frame() -> None:
    with pytest.raises(InputError, match="no label 'us'"):
        Overlay(["us"], 192, 192)
    with pytest.raises(InputError, match="must be uint8"):
        Overlay(["cn"], 192, 192).draw(np.zeros((96, 192, 3), np.uint8))
