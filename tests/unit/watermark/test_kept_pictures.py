"""The pictures kept of a clip: what is the clip, edited, and what is not; where the frames lie; what is kept, and
read.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.verdict.filters import FILTERS
from benchmarks.verdict.forgeries import FORGERIES
from safegen.errors import WatermarkError
from safegen.watermark.fingerprint.comparing import Comparing, compare, conclude
from safegen.watermark.fingerprint.kept_pictures import KeptPictures, grid_of
from safegen.watermark.fingerprint.shown import watch
from tests.marked_clips import PAYLOAD, clip, levels, paint, resize, rotate
from tests.quick import quick

FPS = 16.0
WHOLE = [[0.0, 0.0], [4 / 3, 0.0], [4 / 3, 1.0], [0.0, 1.0]]


@pytest.fixture(scope="module")
def frames() -> NDArray[np.uint8]:
    return paint(clip(3, 25, 144, 192), PAYLOAD, bytes(range(32)))


@pytest.fixture(scope="module")
def kept(frames: NDArray[np.uint8]) -> KeptPictures:
    return KeptPictures.from_bytes(KeptPictures.of(watch(frames, FPS)).to_bytes())


def foreign() -> NDArray[np.uint8]:
    """Footage with forms of all sizes: a board, a disc that moves over it, lines as fine as a pixel."""
    y, x = np.mgrid[0:144, 0:192]
    board = 90 + 70 * ((x // 24 + y // 18) % 2) + 40 * (x % 6 < 2) * (y < 80)
    out = np.repeat(board[None, ..., None], 25, axis=0).repeat(3, axis=3).astype(np.float32)
    for n, frame in enumerate(out):
        cv2.circle(frame, (40 + 4 * n, 70), 26, (30.0, 60.0, 220.0), -1)
    return levels(out)


BENDS_COLOURS = {"gradient_overlay_0.3", "gradient_overlay_0.3_diagonal", "vintage", "warm", "cool"}
"""On a clip of as few forms as this one another scene might look like that: left open, and not called another."""


@pytest.mark.parametrize("name", quick(FILTERS, "vignette_0.5", "sepia", "negation", "clarity"))
def test_a_filtered_clip_is_the_clip(kept: KeptPictures, frames: NDArray[np.uint8], name: str) -> None:
    found = compare(kept, watch(FILTERS[name](frames), FPS), WHOLE)
    assert found.unexplained < 0.05, found
    assert found.same is (None if name in BENDS_COLOURS else True), found


@pytest.mark.parametrize("name", quick(FORGERIES, "transplant_16", "swap_8", "ghost_0.3", "written_white"))
def test_a_forgery_is_not_taken_for_the_clip(kept: KeptPictures, frames: NDArray[np.uint8], name: str) -> None:
    forged = FORGERIES[name](frames, foreign(), np.random.default_rng(1))
    found = compare(kept, watch(forged, FPS), WHOLE)
    assert found.same is not True, found


@pytest.mark.slow
def test_other_clips_are_called_others(kept: KeptPictures) -> None:
    assert compare(kept, watch(foreign(), FPS), WHOLE).same is False
    found = [compare(kept, watch(clip(seed, 25, 144, 192), FPS)).same for seed in range(20, 26)]
    assert (True in found, False in found) == (False, True)


def test_foreign_forms_on_an_even_clip_are_unexplained() -> None:
    """An even picture has nothing to be found again; it explains nothing either."""
    even = levels(np.full((17, 96, 128, 3), 150.0) + np.linspace(-20, 20, 128)[None, None, :, None])
    kept = KeptPictures.of(watch(even, FPS))
    assert compare(kept, watch(even, FPS)).same is True
    small = even.copy()
    small[:, 30:40, 50:62] = 30
    assert compare(kept, watch(small, FPS)).same is None
    assert compare(kept, watch(clip(5, 17, 96, 128), FPS)).same is not True


def test_what_jumps_about_explained_whatever_was_cloned_into_it() -> None:
    dice = np.random.default_rng(0)
    sheet = cv2.GaussianBlur(dice.normal(0, 1, (144, 900)).astype(np.float32), (0, 0), 5)
    sheet = 128 + 45 * sheet / sheet.std()
    jumping = levels(np.stack([sheet[:, (37 * n) % 700 :][:, :192] for n in range(25)])[..., None].repeat(3, axis=3))
    kept = KeptPictures.from_bytes(KeptPictures.of(watch(jumping, FPS)).to_bytes())
    assert compare(kept, watch(jumping, FPS)).same is True
    found = compare(kept, watch(FORGERIES["cloned_0.15"](jumping, foreign(), dice), FPS))
    assert (found.same, found.why) == (None, "it moves too much to tell")


def test_pictures_without_contrast_cannot_be_compared(kept: KeptPictures, frames: NDArray[np.uint8]) -> None:
    found = compare(kept, watch(levels(frames * 0.05 + 120), FPS), WHOLE)
    assert (found.same, found.why) == (None, "too little contrast is left")
    assert compare(kept, watch(np.zeros_like(frames), FPS), WHOLE).same is None


def test_the_place_is_made_exact_by_the_pictures(kept: KeptPictures, frames: NDArray[np.uint8]) -> None:
    """The search for the mark tells it to some percent only."""
    h, w = frames.shape[1:3]
    cut = frames[:, 20 : 20 + 108, 24 : 24 + 144]
    rough = [[(24 + 4) / h, (20 - 3) / h], [(168 + 2) / h, (20 + 3) / h], [(168 - 4) / h, 128 / h], [24 / h, 131 / h]]
    found = compare(kept, watch(cut, FPS), rough)
    assert (found.same, found.unexplained) == (True, pytest.approx(0, abs=0.03))
    place = found.spans[0].place
    assert place is not None
    rows, columns = grid_of(h, w)
    true = np.array([24 * columns / w, 20 * rows / h])
    corner = place @ [0, 0, 1]
    assert corner[:2] / corner[2] == pytest.approx(true, abs=0.3)


@pytest.mark.slow
def test_turned_small_and_mirrored_pictures_are_the_clip(kept: KeptPictures, frames: NDArray[np.uint8]) -> None:
    assert compare(kept, watch(rotate(frames, 2), FPS), WHOLE).same is True
    assert compare(kept, watch(resize(frames, 96, 128), FPS), WHOLE).same is True
    mirrored = [[x - 4 / 3, y] for x, y in WHOLE]  # the pattern is even
    assert compare(kept, watch(np.ascontiguousarray(frames[:, :, ::-1]), FPS), mirrored).same is True


def test_black_writing_at_the_edge_is_no_border(kept: KeptPictures, frames: NDArray[np.uint8]) -> None:
    written = frames.copy()
    for n in range(5):
        written[:, 20 + 24 * n : 30 + 24 * n, :150] = 0
    found = compare(kept, watch(written, FPS), WHOLE)
    assert (found.same is not True, found.unexplained > 0.2) == (True, True)


@pytest.mark.slow
@pytest.mark.parametrize("edit", ["reversed", "slower", "trimmed", "half of the frames"])
def test_what_happens_in_time_does_not_matter(kept: KeptPictures, frames: NDArray[np.uint8], edit: str) -> None:
    edits = {
        "reversed": frames[::-1], "slower": np.repeat(frames, 2, axis=0), "trimmed": frames[7:],
        "half of the frames": frames[::2],
    }  # fmt: skip
    assert compare(kept, watch(edits[edit], FPS), WHOLE).same is True


def test_the_shares_say_how_much_of_a_file_is_the_clip(kept: KeptPictures, frames: NDArray[np.uint8]) -> None:
    beside = np.concatenate([frames, foreign()], axis=2)
    [one, *_] = compare(kept, watch(beside, FPS), [[0, 0], [8 / 3, 0], [8 / 3, 1], [0, 1]]).spans
    assert one.same is True
    assert one.explained == pytest.approx(0.5, abs=0.1)
    barred = np.pad(frames, ((0, 0), (24, 24), (0, 0), (0, 0)))
    tall = [[0, -1 / 6], [4 / 3, -1 / 6], [4 / 3, 7 / 6], [0, 7 / 6]]
    [one, *_] = compare(kept, watch(barred, FPS), tall).spans
    assert (one.same, one.explained) == (True, pytest.approx(1, abs=0.03))


def test_half_seconds_are_judged_each_by_itself(kept: KeptPictures, frames: NDArray[np.uint8]) -> None:
    comparing = Comparing(kept, WHOLE)
    mixed = np.concatenate([frames[:8], foreign()[:8], frames[8:16]])
    spans = [comparing.judge(one) for one in watch(mixed, FPS)]
    assert [(s.first, s.last) for s in spans] == [(0, 7), (8, 15), (16, 23)]
    assert [spans[0].same, spans[1].same is not True, spans[2].same] == [True, True, True]
    assert conclude(spans).same is None
    assert conclude([]).same is None


def test_only_the_stretches_asked_for_are_watched(frames: NDArray[np.uint8]) -> None:
    shown = list(watch(frames, FPS, stretches=[(2, 5), (9, 24)]))
    assert [(s.first, s.last) for s in shown] == [(2, 5), (9, 15), (16, 24)]
    assert shown[0].frames == 4
    assert [(s.first, s.last) for s in watch(frames, FPS)] == [(0, 7), (8, 15), (16, 24)]  # the rest of one goes along


def test_what_is_kept_is_small_and_read_again_as_it_was(frames: NDArray[np.uint8]) -> None:
    made = KeptPictures.of(watch(frames, FPS))
    data = made.to_bytes()
    assert len(data) < 4000 * len(made.looks)
    again = KeptPictures.from_bytes(data)
    assert (again.height, again.width, len(again.looks)) == (144, 192, 3)
    for one, other in zip(made.looks, again.looks, strict=True):
        assert np.abs(one.picture - other.picture).mean() < 3
        assert np.sqrt(one.detail) == pytest.approx(np.sqrt(other.detail), abs=0.6)
        assert np.abs(np.sqrt(one.unrest) - np.sqrt(other.unrest)).mean() < 0.5
        assert made.to_bytes() == data


@pytest.mark.parametrize(
    "change", [lambda d: d[:-9], lambda d: b"x" + d, lambda d: d[:200], lambda d: b"", lambda d: d[:24]]
)
def test_what_cannot_be_read_is_an_error_of_our_own(kept: KeptPictures, change: object) -> None:
    with pytest.raises(WatermarkError, match="cannot be read"):
        KeptPictures.from_bytes(change(kept.to_bytes()))  # type: ignore[operator]


def test_a_head_that_promises_more_than_there_is(kept: KeptPictures) -> None:
    data = kept.to_bytes()
    for old, new in (
        (b'"pictures": 3', b'"pictures": 4'),
        (b'"height": 144', b'"height": 900'),
        (b'"pictures": 3', b'"pictures": x'),
    ):
        with pytest.raises(WatermarkError, match="cannot be read"):
            KeptPictures.from_bytes(data.replace(old, new))


def test_a_clip_of_nothing_keeps_nothing() -> None:
    with pytest.raises(WatermarkError):
        KeptPictures.of(watch([], FPS))
    with pytest.raises(WatermarkError, match="long and narrow"):
        KeptPictures.of(watch(np.zeros((3, 8, 80, 3), np.uint8), FPS))
