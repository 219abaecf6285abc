"""Attacks on the mark of a clip, each with what holds and what does not (docs/threat-model.md).

A test that asserts a success of the attacker is no mistake: what the mark cannot do must be known just as surely.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from safegen.watermark import base
from safegen.watermark.base import Extraction, MarkStatus
from safegen.watermark.clip import alignment, pattern
from safegen.watermark.clip.extraction import NONCE_TRIES, extract_frames
from safegen.watermark.clip.visibility import amplitudes
from tests.marked_clips import (
    KEY,
    OTHER_KEY,
    OTHER_PAYLOAD,
    PAYLOAD,
    RGB,
    Frames,
    clip,
    drawn,
    key_of,
    keyed_sums,
    levels,
    paint,
    payload_of,
)

SHAPE = (25, 64, 64)
RMS = 2.0


@pytest.fixture(scope="module")
def marked() -> Frames:
    return paint(clip(1, *SHAPE), PAYLOAD, KEY, RMS)


@pytest.fixture(scope="module")
def average() -> NDArray[np.float64]:
    """What 64 other clips of the key have in common: the mean of what changes in each, without their originals."""
    return average_of(64)


def average_of(count: int) -> NDArray[np.float64]:
    total = np.zeros((*SHAPE, 3))
    for n in range(count):
        total += moving_part(paint(clip(100 + n, *SHAPE), payload_of(n), KEY, RMS))
    return total / count


def moving_part(frames: Frames) -> NDArray[np.float64]:
    return np.asarray(frames - frames.mean(axis=0))


def read(frames: Frames, key: bytes = KEY, *, look: bool = False) -> Extraction:
    return extract_frames(frames, key, look=look)


def psnr(one: Frames, two: Frames) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - two) ** 2)))


def signpost_drawn(frames: int, height: int, width: int) -> NDArray[np.float32]:
    """What anybody can draw: the public part alone, root mean square 1."""
    path = alignment.untouched(frames)
    posts = (pattern.signpost() * amplitudes())[path]
    rows, columns = (pattern.cosines(n, min(height, width)) for n in (height, width))
    yuv = np.einsum("vy,tcvu,ux->tcyx", rows, posts - posts.mean(axis=0), columns, optimize=True)
    drawn_: NDArray[np.float32] = np.einsum("rc,tcyx->tyxr", RGB, yuv / np.sqrt((yuv**2).mean())).astype(np.float32)
    return drawn_


# Passing something off as marked


def test_copy_attack_the_difference_of_a_pair_reads_on_other_content(marked: Frames) -> None:
    """NOT prevented by the mark: it says which clip it was made for. The verifier compares what is seen with the
    pictures kept of that clip (safegen/verification/picture_check.py; tests/e2e/test_copied_marks.py)."""
    residual = marked.astype(float) - clip(1, *SHAPE)
    found = read(levels(clip(7, *SHAPE) + residual))
    assert found.status is MarkStatus.VERIFIED
    assert found.payload == PAYLOAD


def test_copy_attack_works_from_one_marked_clip_without_its_original(marked: Frames) -> None:
    """NOT prevented: what moves in the clip is enough of a residual; it brings the old clip's movement along."""
    found = read(levels(clip(7, *SHAPE) + moving_part(marked)))
    assert found.status is MarkStatus.VERIFIED
    assert found.payload == PAYLOAD


@pytest.mark.slow
def test_a_signpost_drawn_by_anybody_is_never_taken_for_a_mark() -> None:
    """Holds: the public part says "look here" and nothing more, under any key."""
    frames = levels(clip(2, *SHAPE) + RMS * signpost_drawn(*SHAPE))
    for key in (KEY, OTHER_KEY):
        found = read(frames, key)
        assert found.status is MarkStatus.NONE
        assert float(str(found.evidence["signpost"])) > 15
    assert read(frames, look=True).status is MarkStatus.NONE


@pytest.mark.slow
def test_a_pattern_under_a_guessed_key_reads_under_that_key_alone() -> None:
    """Holds: without the key, a forger's pattern is noise to the owner; 16 guesses, payload and all."""
    for n in range(16):
        assert read(paint(clip(2, *SHAPE), PAYLOAD, key_of(n), 4.0)).status is MarkStatus.NONE


@pytest.mark.slow
@pytest.mark.parametrize("level", [1.0, 3.0])
def test_forgery_from_an_average_of_64_clips_reads_as_nothing(level: float, average: NDArray[np.float64]) -> None:
    """Holds, for VERIFIED and for PRESENT: ids differ, and so does how their bits lie over the slots."""
    forged = levels(clip(9, *SHAPE) + average * level * RMS / average.std())
    found = read(forged)
    assert found.status is MarkStatus.NONE
    assert found.payload is None
    issued = [payload_of(n).content_id for n in range(64)]  # not even one of those averaged is singled out
    assert extract_frames(forged, KEY, look=False, issued=issued).status is MarkStatus.NONE


@pytest.mark.slow
def test_forgery_from_an_average_of_very_many_clips_stays_below_the_threshold() -> None:
    """Holds at best: no content, no noise, an average word left under each nonce. T rises by a tenth, no further."""
    random = np.random.default_rng(0)
    for n in range(4):
        placement = pattern.place(key_of(n))
        rows = [placement.coefficients(random.normal(size=pattern.CODED_BITS), row) for row in range(pattern.NONCES)]
        sums, norm = keyed_sums(np.sum(rows, axis=0).astype(np.float32), key_of(n))
        for nonce in np.argsort(-(sums**2).sum(axis=1))[:NONCE_TRIES]:
            statistic, payload, _ = base.decide(sums[nonce], norm, key_of(n), base.LIST_SIZE)
            assert payload is None
            assert 12 < statistic < base.threshold(1, 118) - 0.3


def test_forgery_from_an_average_of_clips_of_one_nonce_reads_present() -> None:
    """NOT prevented, and why there are nonces: such clips share how their bits lie. The owner alone knows which they
    are; a collector with hundreds of clips and their unmarked twins may sort them by likeness."""
    same = [p for p in map(payload_of, range(2000)) if pattern.nonce_of(p.content_id, KEY) == 7][:16]
    assert len(same) == 16
    total = sum(moving_part(paint(clip(100 + n, *SHAPE), p, KEY, RMS)) for n, p in enumerate(same))
    found = read(levels(clip(9, *SHAPE) + total * RMS / np.std(total)))
    assert found.status is MarkStatus.PRESENT
    assert found.payload is None


@pytest.mark.slow
def test_forgery_from_averages_fades_with_their_number_but_the_signpost_stays(average: NDArray[np.float64]) -> None:
    """NOT prevented for a few clips, whose average reads as one of them: a copy, as from that clip alone. Holds from
    16 on."""
    found = {}
    for count, residual in ((2, average_of(2)), (4, average_of(4)), (16, average_of(16)), (64, average)):
        found[count] = read(levels(clip(9, *SHAPE) + residual * RMS / residual.std()))
    for count in (2, 4):
        assert found[count].status is MarkStatus.VERIFIED
        assert found[count].payload in [payload_of(n) for n in range(count)]
    for count in (16, 64):
        assert found[count].status is MarkStatus.NONE
    assert found[2].statistic > found[4].statistic + 4 > found[16].statistic + 8
    assert min(float(str(f.evidence["signpost"])) for f in found.values()) > 15


def test_forgery_from_an_average_says_nothing_under_another_key(average: NDArray[np.float64]) -> None:
    assert read(levels(clip(9, *SHAPE) + average * RMS / average.std()), OTHER_KEY).status is MarkStatus.NONE


# Marking again


def test_marking_again_under_a_second_key_leaves_both_readable(marked: Frames) -> None:
    """Holds: two owners' marks live side by side; which came first is for the ledger's time to say, not the mark's."""
    twice = paint(marked, OTHER_PAYLOAD, OTHER_KEY, RMS)
    assert read(twice).payload == PAYLOAD
    assert read(twice, OTHER_KEY).payload == OTHER_PAYLOAD


def test_marking_again_six_times_as_strong_silences_the_first_payload(marked: Frames) -> None:
    """NOT prevented, but it shows: such a second mark is 16 dB above the first. One of 12 dB leaves both readable."""
    assert read(paint(marked, OTHER_PAYLOAD, OTHER_KEY, 4 * RMS)).payload == PAYLOAD
    twice = paint(marked, OTHER_PAYLOAD, OTHER_KEY, 6 * RMS)
    assert read(twice, OTHER_KEY).payload == OTHER_PAYLOAD
    assert read(twice).payload is None
    assert psnr(twice, clip(1, *SHAPE)) < 23


def test_marking_again_under_the_same_key_keeps_exactly_one_of_the_two(marked: Frames) -> None:
    """With equal strengths either may win; the stronger does. They lie under two nonces and hardly damage each other,
    but the reader stops at the first. Owners should not mark what already reads as theirs."""
    assert read(paint(marked, OTHER_PAYLOAD, KEY, RMS)).payload in (PAYLOAD, OTHER_PAYLOAD)
    assert read(paint(marked, OTHER_PAYLOAD, KEY, 2 * RMS)).payload == OTHER_PAYLOAD


# Taking the mark away


def test_removal_of_the_public_signpost_leaves_the_payload(marked: Frames, average: NDArray[np.float64]) -> None:
    """Holds for clips that are not moved: the first reading needs no signpost. Both what the rule says and what the
    average of 64 clips shows of it are subtracted as well as can be."""
    public = signpost_drawn(*SHAPE)
    amount = float((public * moving_part(marked)).sum() / (public**2).sum())
    for without in (levels(marked - amount * public), levels(marked - average)):
        found = read(without)
        assert abs(float(str(found.evidence["signpost"]))) < 6
        assert found.payload == PAYLOAD


@pytest.mark.slow
def test_removal_of_the_public_signpost_and_a_mirroring_defeat_the_search(marked: Frames) -> None:
    """NOT prevented: without the signpost nothing says where a moved picture lies."""
    public = signpost_drawn(*SHAPE)
    amount = float((public * moving_part(marked)).sum() / (public**2).sum())
    found = read(np.ascontiguousarray(levels(marked - amount * public)[:, :, ::-1]), look=True)
    assert found.status is MarkStatus.NONE


def test_a_decoy_signpost_at_another_place_does_not_hide_an_unmoved_mark(marked: Frames) -> None:
    """Holds: the unmoved place is always read first."""
    turn = cv2.getRotationMatrix2D((32, 32), 7, 1.3)
    decoy = np.stack([cv2.warpAffine(f, turn, (64, 64)) for f in signpost_drawn(*SHAPE)])
    assert read(levels(marked + 2 * RMS * decoy)).payload == PAYLOAD


def test_removal_by_whoever_holds_the_key_is_complete(marked: Frames) -> None:
    """NOT prevented, by design: the key draws the pattern. 50 dB to the unmarked clip."""
    clean = levels(marked - RMS * drawn(PAYLOAD, KEY, *SHAPE))
    found = read(clean)
    assert found.status is MarkStatus.NONE
    assert psnr(clean, clip(1, *SHAPE)) > 48


def test_removal_by_subtracting_other_clips_of_the_key_does_not_touch_the_payload(
    marked: Frames, average: NDArray[np.float64]
) -> None:
    """Holds: the average of 64 holds next to nothing of this clip's own payload. (One that knows which bits lie
    where, a subspace estimated from very many clips, is another matter and not defended against.)"""
    assert read(levels(marked - 4 * average)).payload == PAYLOAD


@pytest.mark.parametrize("width", [5, 9])
def test_removal_by_a_running_median_over_time_fails(width: int, marked: Frames) -> None:
    """Holds for windows of up to nine frames: the pattern stays for four, so narrow ones pass it."""
    half = width // 2
    smooth = [np.median(marked[max(0, t - half) : t + half + 1], axis=0) for t in range(len(marked))]
    assert read(np.stack(smooth).astype(np.uint8)).payload == PAYLOAD


def test_removal_by_freezing_the_picture_works(marked: Frames) -> None:
    """NOT prevented: a clip in which nothing moves any more carries no mark."""
    frozen = np.repeat(np.median(marked, axis=0)[None], len(marked), axis=0).astype(np.uint8)
    assert read(frozen).status is MarkStatus.NONE


def by_period(frames: Frames) -> Frames:
    """Estimate every phase's picture as what its frames, 32 apart, have in common, and take it away. Needs no key."""
    path, out = alignment.untouched(len(frames)), frames.astype(np.float64)
    middle = np.median(frames, axis=0)
    for phase in np.unique(path):
        out[path == phase] -= np.median(frames[path == phase], axis=0) - middle
    return levels(out)


@pytest.mark.slow
def test_removal_by_estimating_the_period_works_on_long_quiet_clips() -> None:
    """NOT prevented: in 129 frames of a scene that mostly stands still the pattern comes round four times, and its
    median over the rounds is a better estimate of it than needed: what is left is nearer to the original than before.
    """
    plain = clip(1, 129, 64, 64)
    frames = paint(plain, PAYLOAD, KEY, RMS)
    assert read(frames).payload == PAYLOAD
    clean = by_period(frames)
    assert read(clean).status is MarkStatus.NONE
    assert psnr(clean, plain) > psnr(frames, plain) + 3


def test_removal_by_estimating_the_period_costs_a_short_clip_its_movement(marked: Frames) -> None:
    """In 25 frames every phase is seen once: the estimate takes the clip's own movement away as well."""
    assert psnr(by_period(marked), clip(1, *SHAPE)) < psnr(marked, clip(1, *SHAPE)) - 3


@pytest.mark.slow
def test_regeneration_by_noise_and_mild_blur_fails(marked: Frames) -> None:
    """Holds up to noise of 40 levels and a blur of a sixteenth of the short side."""
    random = np.random.default_rng(0)
    for deviation in (10, 40):
        assert read(levels(marked + random.normal(0, deviation, marked.shape))).payload == PAYLOAD
    assert read(np.stack([cv2.GaussianBlur(f, (0, 0), 4) for f in marked])).payload == PAYLOAD
    assert read(np.stack([cv2.fastNlMeansDenoisingColored(f, None, 10, 10) for f in marked])).payload == PAYLOAD


def test_regeneration_by_a_blur_of_an_eighth_of_the_picture_works(marked: Frames) -> None:
    """NOT prevented: where nothing finer than the pattern's coarsest cosines is left, the pattern is not either."""
    assert read(np.stack([cv2.GaussianBlur(f, (0, 0), 8) for f in marked])).status is MarkStatus.NONE


@pytest.mark.parametrize(("amount", "reads"), [(1.0, True), (2.0, True), (6.0, False)])
def test_desynchronisation_by_a_rubber_sheet(amount: float, reads: bool, marked: Frames) -> None:
    """Holds up to bends of about 2 in 64 pixels; NOT beyond: the search knows straight lines only."""
    random = np.random.default_rng(1)
    bend = [cv2.resize(random.normal(0, amount, (5, 5)), (64, 64), interpolation=cv2.INTER_CUBIC) for _ in range(2)]
    y, x = np.mgrid[:64, :64]
    maps = ((x + bend[0]).astype(np.float32), (y + bend[1]).astype(np.float32))
    bent = np.stack([cv2.remap(f, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT) for f in marked])
    assert (read(bent).payload == PAYLOAD) is reads


@pytest.mark.parametrize(("amount", "reads"), [(2, True), (8, False)])
def test_desynchronisation_by_moving_every_frame_otherwise(amount: int, reads: bool, marked: Frames) -> None:
    """Holds up to 2 in 64 pixels; NOT beyond: one place is sought for the whole clip."""
    random = np.random.default_rng(1)
    shaken = [np.roll(f, tuple(random.integers(-amount, amount + 1, 2)), (0, 1)) for f in marked]
    assert (read(np.stack(shaken)).payload == PAYLOAD) is reads


def test_desynchronisation_by_shuffling_the_frames_fails(marked: Frames) -> None:
    """Holds: every frame says itself which phase it shows."""
    assert read(marked[np.random.default_rng(0).permutation(len(marked))]).payload == PAYLOAD


# Asking the reader


def test_oracle_the_statistic_tells_an_attacker_how_far_he_has_come() -> None:
    """NOT safe to publish: ``to_json`` shows statistic and p-value, which fall with every step of an attack that the
    status does not notice. A public service should answer with the status alone."""
    told = [read(paint(clip(1, *SHAPE), PAYLOAD, KEY, rms)).to_json() for rms in (2.0, 1.0, 0.5, 0.25)]
    assert {t["status"] for t in told} == {"verified"}
    statistics = [float(str(t["statistic"])) for t in told]
    assert statistics == sorted(statistics, reverse=True)
    assert len(set(statistics)) == 4
    assert {"statistic", "p_value", "evidence"} <= set(told[0])
