"""Which frames of a clip carry the payload, and clips of any length, read window by window."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from safegen.errors import PayloadError, WatermarkError
from safegen.watermark import base
from safegen.watermark.base import Extraction, MarkStatus
from safegen.watermark.clip.extraction import WINDOW_FRAMES, extract_frames, extract_stream
from safegen.watermark.clip.segments import SEGMENT_FRAMES, Segment, segment_map
from tests.marked_clips import KEY, OTHER_KEY, OTHER_PAYLOAD, PAYLOAD, Frames, clip, paint


@pytest.fixture(scope="module")
def long() -> Frames:
    return paint(clip(1, 41, 64, 64), PAYLOAD, KEY)


@pytest.fixture(scope="module")
def foreign() -> Frames:
    """300 frames that nobody has marked."""
    return np.concatenate([clip(n, 50, 64, 64) for n in range(30, 36)])


def segments_of(found: Extraction) -> list[dict[str, Any]]:
    segments: Any = found.evidence["segments"]
    assert isinstance(segments, list)
    return segments


def marked_segments(found: Extraction) -> list[bool]:
    return [bool(s["marked"]) for s in segments_of(found)]


# Which part of a clip is marked


def test_segments_cover_the_clip_and_all_are_marked(long: Frames) -> None:
    segments = segments_of(extract_frames(long, KEY))
    assert [(s["first"], s["last"]) for s in segments] == [(0, 7), (8, 15), (16, 23), (24, 31), (32, 39), (40, 40)]
    assert [s["marked"] for s in segments[:-1]] == [True] * 5
    assert SEGMENT_FRAMES == 8


def by_chance(strength: np.ndarray, seed: int) -> tuple[Segment, ...]:
    """Segments of noise in which a payload is so many standard deviations strong, one number for each segment."""
    random, signs = np.random.default_rng(seed), 64
    wanted = random.choice([-1.0, 1.0], (1, signs)).astype(np.float32)
    noise = random.normal(size=(len(strength) * SEGMENT_FRAMES, signs))
    mark = np.repeat(strength / np.sqrt(signs * SEGMENT_FRAMES), SEGMENT_FRAMES)[:, None] * wanted
    path = np.zeros(len(noise), np.int64)
    return segment_map((noise + mark).astype(np.float32), path, wanted, PAYLOAD.content_id)


def test_a_film_without_the_mark_has_no_segment_that_is_marked_by_chance() -> None:
    """20,000 segments are three hours. One in 740 said so by itself, and a foreign scene then counted as copied."""
    found = by_chance(np.zeros(20_000), seed=1)
    assert sum(s.statistic >= 3 for s in found) > 15
    assert sum(s.content_id is not None for s in found) <= 2


def test_foreign_frames_behind_a_marked_stretch_are_seldom_ascribed_to_it() -> None:
    """Nine marked segments, then a cut: the first foreign one may look marked, the mark's mean reaches across."""
    strength = np.tile(np.repeat([20.0, 4.0, 0.0], [9, 1, 10]), 500)
    marked = np.array([s.content_id is not None for s in by_chance(strength, seed=2)]).reshape(-1, 20)
    assert marked[:, :9].all()
    assert marked[:, 10:].sum() <= 3


def test_weak_segments_side_by_side_are_marked_as_before() -> None:
    found = by_chance(np.full(5_000, 3.5), seed=3)
    alone = sum(s.statistic >= 3 for s in found)
    assert 0.95 * alone < sum(s.content_id is not None for s in found) <= alone


def test_a_single_marked_segment_is_found() -> None:
    found = by_chance(np.repeat([0.0, 8.0, 0.0], [20, 1, 20]), seed=4)
    assert [n for n, s in enumerate(found) if s.content_id is not None] == [20]


def test_segments_show_which_half_of_a_splice_is_marked(long: Frames) -> None:
    after = extract_frames(np.concatenate([long[:24], clip(7, 24, 64, 64)]), KEY)
    assert after.payload == PAYLOAD
    assert marked_segments(after)[:2] == [True, True]
    assert not any(marked_segments(after)[4:])
    before = extract_frames(np.concatenate([clip(7, 32, 64, 64), long]), KEY)
    assert before.payload == PAYLOAD
    assert not any(marked_segments(before)[:3])
    assert all(marked_segments(before)[5:-1])


def test_of_two_clips_spliced_one_is_named_and_its_segments_say_where(long: Frames) -> None:
    other = paint(clip(2, 41, 64, 64), OTHER_PAYLOAD, KEY)
    found = extract_frames(np.concatenate([long, other]), KEY)
    assert found.status is MarkStatus.VERIFIED
    assert found.payload in (PAYLOAD, OTHER_PAYLOAD)
    here = marked_segments(found)
    assert len(here) == 11
    mine, theirs = (here[:5], here[6:]) if found.payload == PAYLOAD else (here[6:], here[:5])
    assert all(mine)
    assert not any(theirs)


@pytest.mark.parametrize("who", ["another payload of the key", "another key"])
def test_segments_of_another_mark_in_step_are_not_ascribed_to_this_one(who: str) -> None:
    key = KEY if who == "another payload of the key" else OTHER_KEY
    mine, theirs = paint(clip(1, 65, 64, 64), PAYLOAD, KEY), paint(clip(2, 65, 64, 64), OTHER_PAYLOAD, key)
    found = extract_frames(np.concatenate([mine[:33], theirs[33:]]), KEY, look=False)
    assert found.payload == PAYLOAD
    assert marked_segments(found) == [True] * 4 + [marked_segments(found)[4]] + [False] * 4


def test_segments_after_a_cut_within_the_clip_are_still_marked() -> None:
    """Eight frames taken out: the first reading verifies from what comes before and calls the rest unmarked."""
    frames = np.delete(paint(clip(1, 65, 64, 64), PAYLOAD, KEY), range(28, 36), axis=0)
    found = extract_frames(frames, KEY)
    assert found.payload == PAYLOAD
    assert sum(marked_segments(found)) >= 6


# Clips of any length


@pytest.mark.slow
@pytest.mark.parametrize("start", [20, 100, 118])
def test_a_short_marked_stretch_between_long_unmarked_ones_is_found(start: int, foreign: Frames) -> None:
    """25 of 225 frames; those from 118 on lie across two windows."""
    frames = np.concatenate([foreign[:start], paint(clip(1, 25, 64, 64), PAYLOAD, KEY), foreign[start:200]])
    if start >= 100:  # read at once, or in windows alone, it drowns
        assert extract_frames(frames, KEY, look=False).status is MarkStatus.NONE
    found = extract_stream(frames, [KEY])
    assert found.status is MarkStatus.VERIFIED
    assert found.payload == PAYLOAD
    assert found.evidence["frames"] == 225
    here = [s for s in segments_of(found) if s["marked"]]
    assert {s["content_id"] for s in here} == {PAYLOAD.content_id}
    named = {n for s in here for n in range(s["first"], s["last"] + 1)}
    assert len(named & set(range(start, start + 25))) >= 12
    assert len(named - set(range(start, start + 25))) < 2 * SEGMENT_FRAMES


@pytest.mark.slow
def test_every_try_in_a_long_clip_is_paid_for(foreign: Frames) -> None:
    found = extract_stream(foreign[:200], [KEY, OTHER_KEY], look=False)
    assert found.status is MarkStatus.NONE
    assert found.payload is None
    assert found.hypotheses >= 4  # two windows, two keys
    assert found.threshold == pytest.approx(base.threshold(found.hypotheses, 118))


@pytest.mark.slow
def test_both_payloads_of_a_long_clip_are_named_where_they_are(foreign: Frames) -> None:
    mine, theirs = paint(clip(1, 49, 64, 64), PAYLOAD, KEY), paint(clip(2, 49, 64, 64), OTHER_PAYLOAD, KEY)
    found = extract_stream(np.concatenate([mine, foreign[:60], theirs]), [KEY])
    assert found.status is MarkStatus.VERIFIED
    named = {n: s["content_id"] for s in segments_of(found) for n in range(s["first"], s["last"] + 1)}
    assert [named[n] for n in (4, 20, 36)] == [PAYLOAD.content_id] * 3
    assert [named[n] for n in (60, 75, 90)] == [None] * 3
    assert [named[n] for n in (125, 140, 150)] == [OTHER_PAYLOAD.content_id] * 3


def test_a_long_clip_is_read_under_whichever_key_marked_it() -> None:
    frames = paint(clip(2, 33, 64, 64), OTHER_PAYLOAD, OTHER_KEY)
    found = extract_stream(iter(frames), [KEY, OTHER_KEY])
    assert found.status is MarkStatus.VERIFIED
    assert found.payload == OTHER_PAYLOAD


@pytest.mark.slow
def test_a_marked_clip_of_many_windows_is_marked_throughout() -> None:
    frames = paint(clip(1, 2 * WINDOW_FRAMES + 40, 48, 48), PAYLOAD, KEY)
    found = extract_stream(frames, [KEY])
    segments = segments_of(found)
    assert found.payload == PAYLOAD
    assert segments[0]["first"] == 0
    assert segments[-1]["last"] == len(frames) - 1
    assert all(a["last"] + 1 == b["first"] for a, b in itertools.pairwise(segments))
    assert sum(s["marked"] for s in segments) >= len(segments) - 1


@pytest.mark.slow
def test_a_moved_long_clip_is_searched() -> None:
    frames = paint(clip(1, 150, 64, 64), PAYLOAD, KEY)
    found = extract_stream(np.ascontiguousarray(frames[:, :, ::-1]), [KEY])
    assert found.payload == PAYLOAD
    assert found.evidence["moved"] is True


@pytest.mark.slow
def test_a_moved_clip_in_the_second_window_is_searched_too(foreign: Frames) -> None:
    """Moved, no window's signpost is clear where it is looked for: more than one is searched."""
    frames = np.concatenate([foreign[:130], paint(clip(1, 130, 64, 64), PAYLOAD, KEY)])
    found = extract_stream(np.ascontiguousarray(frames[:, :, ::-1]), [KEY])
    assert found.payload == PAYLOAD


def test_a_stream_of_nothing_is_none_and_one_of_no_frames_is_refused() -> None:
    assert extract_stream([], [KEY]).status is MarkStatus.NONE
    with pytest.raises(WatermarkError):
        extract_stream([np.zeros((8, 8), np.uint8)], [KEY])
    with pytest.raises(PayloadError):
        extract_stream(clip(1, 9, 32, 32), [b"short"])
