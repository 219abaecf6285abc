"""Reading a clip's mark after what happens to clips; and never where there is none."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from safegen.errors import PayloadError, WatermarkError
from safegen.media import read_clip
from safegen.media.encoding import encode_video
from safegen.types import ContentId
from safegen.watermark import base
from safegen.watermark.base import MarkStatus
from safegen.watermark.clip import pattern, reading
from safegen.watermark.clip.extraction import MIN_FRAMES, NONCE_TRIES, ClipExtractor, extract_frames
from safegen.watermark.payload import Payload
from tests.marked_clips import (
    KEY,
    OTHER_KEY,
    OTHER_PAYLOAD,
    PAYLOAD,
    Frames,
    canvas_samples,
    clip,
    key_of,
    keyed_sums,
    levels,
    paint,
    payload_of,
    resize,
    rotate,
    slots_of,
    statistics_of,
    unmarked_samples,
)

T, H, W = 17, 72, 96


@pytest.fixture(scope="module")
def marked() -> Frames:
    return paint(clip(1, T, H, W), PAYLOAD, KEY)


@pytest.fixture(scope="module")
def long() -> Frames:
    return paint(clip(1, 41, 64, 64), PAYLOAD, KEY)


# What is read


def test_an_untouched_clip_verifies_at_the_first_reading(marked: Frames) -> None:
    found = extract_frames(marked, KEY)
    assert found.status is MarkStatus.VERIFIED
    assert found.payload == PAYLOAD
    assert found.hypotheses == 1
    assert found.statistic > found.threshold
    assert found.p_value <= base.PRESENCE_P_VALUE
    assert found.evidence["moved"] is False
    assert found.evidence["resampled"] is False
    assert found.evidence["corners"] == [[0, 0], [1.333, 0], [1.333, 1], [0, 1]]
    assert ClipExtractor().extract_frames(marked, KEY) == found


def test_the_outcome_is_plain_json(marked: Frames) -> None:
    told = json.loads(json.dumps(extract_frames(marked, KEY).to_json(), allow_nan=False))
    assert told["content_id"] == PAYLOAD.content_id
    assert told["evidence"]["frames"] == T


@pytest.mark.parametrize(
    ("seed", "shape"),
    [(2, (25, 40, 40)), (3, (21, 48, 112)), (4, (21, 112, 48)), (5, (17, 67, 101)), (6, (9, 256, 144))],
)
def test_any_size_and_shape_carries_a_payload(seed: int, shape: tuple[int, int, int]) -> None:
    payload, key = payload_of(seed), key_of(seed)
    assert extract_frames(paint(clip(seed, *shape), payload, key), key, look=False).payload == payload


MOVES: dict[str, Callable[[Frames], Frames]] = {
    "mirrored": lambda x: x[:, :, ::-1],
    "turned by 90": lambda x: np.rot90(x, 1, (1, 2)),
    "turned by 180": lambda x: np.rot90(x, 2, (1, 2)),
    "cropped to 0.71 of each side": lambda x: x[:, 12:63, 8:76],
    "squeezed": lambda x: resize(x, H, round(0.8 * W)),
    "rotated by 10": lambda x: rotate(x, 10),
    "letterboxed": lambda x: np.pad(x, ((0, 0), (12, 12), (0, 0), (0, 0))),
}

STILL: dict[str, Callable[[Frames], Frames]] = {
    "twice as large": lambda x: resize(x, 2 * H, 2 * W),
    "half as large": lambda x: resize(x, H // 2, W // 2),
    "darker and flatter": lambda x: levels(0.6 * x + 20.0),
    "grey": lambda x: np.repeat(x.mean(axis=3, keepdims=True), 3, axis=3).astype(np.uint8),
    "a quarter hidden": lambda x: np.concatenate([x[:, : H // 2], np.where(np.arange(W)[:, None] < W // 2, 0, x[:, H // 2 :])], 1).astype(np.uint8),  # noqa: E501
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", list(MOVES))
def test_payload_is_read_from_a_picture_that_was(name: str, marked: Frames) -> None:
    found = extract_frames(np.ascontiguousarray(MOVES[name](marked)), KEY)
    assert found.status is MarkStatus.VERIFIED
    assert found.payload == PAYLOAD
    assert found.evidence["moved"] is True


@pytest.mark.parametrize("name", list(STILL))
def test_payload_is_read_without_a_search_from_a_picture(name: str, marked: Frames) -> None:
    found = extract_frames(STILL[name](marked), KEY, look=False)
    assert found.payload == PAYLOAD
    assert found.hypotheses == 1


def noise_frames(x: Frames) -> Frames:
    random = np.random.default_rng(0)
    return np.insert(x, [6, 13, 13, 29], random.integers(0, 256, (4, *x.shape[1:]), np.uint8), axis=0)


TIMES: dict[str, Callable[[Frames], Frames]] = {
    "trimmed": lambda x: x[7:-5],
    "short of frames": lambda x: np.delete(x, [3, 9, 14, 15, 22, 30], 0),
    "with frames of noise": noise_frames,
    "with frames doubled": lambda x: np.repeat(x, np.where(np.arange(len(x)) % 6 == 0, 2, 1), axis=0),
    "backwards": lambda x: x[::-1],
    "at double speed": lambda x: x[::2],
    "at half speed": lambda x: np.repeat(x, 2, axis=0),
    "cut and put together otherwise": lambda x: np.concatenate([x[21:], x[:21]]),
}


@pytest.mark.parametrize("name", list(TIMES))
def test_payload_is_read_from_a_clip(name: str, long: Frames) -> None:
    found = extract_frames(np.ascontiguousarray(TIMES[name](long)), KEY, look=False)
    assert found.status is MarkStatus.VERIFIED
    assert found.payload == PAYLOAD


@pytest.mark.slow
@pytest.mark.parametrize("speed", ["short of frames", "half", "double", "backwards"])
def test_payload_is_read_from_a_mirrored_clip_that_runs(speed: str, long: Frames) -> None:
    times = {
        "short of frames": np.delete(long, [3, 9, 14, 15, 22, 30], 0),
        "half": np.repeat(long[:24], 2, axis=0),
        "double": long[::2],
        "backwards": long[::-1],
    }
    assert extract_frames(np.ascontiguousarray(times[speed][:, :, ::-1]), KEY).payload == PAYLOAD


@pytest.mark.parametrize("crf", [23, 30])
def test_payload_is_read_from_h264(crf: int, tmp_path: Path) -> None:
    frames = paint(clip(1, 25, 96, 128), PAYLOAD, KEY)
    encode_video(frames, 16, tmp_path / "clip.mp4", crf=crf)
    assert extract_frames(read_clip(tmp_path / "clip.mp4").frames, KEY, look=False).payload == PAYLOAD


@pytest.mark.slow
def test_payload_is_read_from_h264_after_a_crop_and_a_trim(tmp_path: Path) -> None:
    frames = paint(clip(1, 33, 112, 144), PAYLOAD, KEY)[6:, 10:102, 12:132]
    encode_video(frames, 16, tmp_path / "clip.mp4", crf=23)
    assert extract_frames(read_clip(tmp_path / "clip.mp4").frames, KEY).payload == PAYLOAD


# What is not


@pytest.mark.slow
def test_a_hundred_decodings_without_a_mark_find_none() -> None:
    """Under the three nonces of each key that the reader would decode."""
    statistics = []
    for samples in unmarked_samples():
        for key in map(key_of, range(4)):
            sums, norm = keyed_sums(samples, key)
            for nonce in likeliest(sums)[:NONCE_TRIES]:
                statistic, payload, _ = base.decide(sums[nonce], norm, key, base.LIST_SIZE)
                found = base.conclude(pattern.SCHEME, statistic, payload, 1, {}, placements=pattern.NONCES)
                assert found.status is MarkStatus.NONE
                assert payload is None
                statistics.append(statistic)
    assert len(statistics) > 100
    # What the best of 2**118 is expected to reach: if chance came closer, the margin would be an accident.
    assert float(np.mean(statistics)) < base.threshold(1, 118) - 1.5


def likeliest(sums: NDArray[np.float64]) -> list[int]:
    return [int(n) for n in np.argsort(-(sums**2).sum(axis=1), kind="stable")]


def test_the_nonce_of_a_mark_stands_out_by_its_energy(marked: Frames) -> None:
    sums, _ = keyed_sums(canvas_samples(marked), KEY)
    energy = (sums**2).sum(axis=1)
    assert likeliest(sums)[0] == pattern.nonce_of(PAYLOAD.content_id, KEY)
    assert energy.max() > 3 * np.sort(energy)[-2]


@pytest.mark.parametrize("shift", [1, 32])
def test_a_payload_under_another_clip_s_nonce_is_refused(shift: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """MAC and all: whoever learns one nonce's slots and signs must not write any id there."""
    right = pattern.nonce_of
    with monkeypatch.context() as patched:
        patched.setattr(pattern, "nonce_of", lambda content_id, key: (right(content_id, key) + shift) % pattern.NONCES)
        frames = paint(clip(1, T, H, W), PAYLOAD, KEY)
    sums, norm = keyed_sums(canvas_samples(frames), KEY)
    assert base.decide(sums[likeliest(sums)[0]], norm, KEY, base.LIST_SIZE)[1] == PAYLOAD  # it is there
    found = extract_frames(frames, KEY, look=False)
    assert found.status is MarkStatus.PRESENT
    assert found.payload is None
    issued = [PAYLOAD.content_id, OTHER_PAYLOAD.content_id]
    assert extract_frames(frames, KEY, look=False, issued=issued).payload is None


@pytest.mark.slow
def test_a_full_search_of_unmarked_clips_finds_none() -> None:
    for frames in (clip(21, 9, 48, 64), np.random.default_rng(0).integers(0, 256, (7, 40, 40, 3), np.uint8)):
        found = extract_frames(frames, KEY)
        assert found.status is MarkStatus.NONE
        assert found.payload is None
        assert found.statistic < found.threshold


@pytest.mark.slow
def test_a_marked_clip_says_nothing_under_another_key(marked: Frames) -> None:
    found = extract_frames(marked, OTHER_KEY)
    assert found.status is MarkStatus.NONE
    assert found.evidence["signpost"] == pytest.approx(extract_frames(marked, KEY).evidence["signpost"], abs=3)


@pytest.mark.slow
def test_hoeffding_s_bound_holds_for_a_fixed_codeword_over_random_keys_and_nonces() -> None:
    """P(T >= z) <= exp(-z*z/2) whatever the clip; 20,736 draws, over which T also has the variance it is scaled to."""
    word = pattern.codeword(PAYLOAD, KEY).astype(np.float64)
    clips = unmarked_samples()
    found = np.empty((36 * pattern.NONCES, len(clips)))
    for n in range(36):
        for m, samples in enumerate(clips):
            sums, norm = keyed_sums(samples, key_of(n))
            found[n * pattern.NONCES : (n + 1) * pattern.NONCES, m] = sums @ word / norm
    assert found.size > 20_000
    for z in (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0):
        for one in (found, -found):
            assert float((one >= z).mean()) <= math.exp(-z * z / 2)
            assert float((one >= z).mean(axis=0).max()) <= math.exp(-z * z / 2) + 3 / len(found)
    np.testing.assert_allclose(found.std(axis=0), 1.0, atol=0.08)
    np.testing.assert_allclose(found.mean(axis=0), 0.0, atol=0.1)


@pytest.mark.parametrize("frames", range(1, MIN_FRAMES))
def test_too_few_frames_read_as_none(frames: int, marked: Frames) -> None:
    found = extract_frames(marked[:frames], KEY)
    assert found.status is MarkStatus.NONE
    assert found.evidence == {"frames": frames, "log10_p": 0.0}


def test_a_still_repeated_reads_as_none(marked: Frames) -> None:
    found = extract_frames(np.repeat(marked[:1], 20, axis=0), KEY, look=False)
    assert found.status is MarkStatus.NONE
    assert found.statistic == 0


# Recognising a weak mark among those issued


ISSUED = [payload_of(n) for n in range(999)]
ISSUED_IDS = [payload.content_id for payload in ISSUED]


def weak(strength: float, *payloads: Payload) -> NDArray[np.float32]:
    """Samples of an unmarked clip with a trace of payloads: T is about 75 times the strength."""
    out = canvas_samples(clip(4, 33, 48, 64))
    for payload in payloads:
        out = out + strength * slots_of(payload, KEY)
    return out.astype(np.float32)


def recognised(samples: NDArray[np.float32], issued: list[Payload]) -> Payload | None:
    found = base.recognise(statistics_of(samples, issued))
    return None if found is None else issued[found]


def test_a_mark_too_weak_to_decode_is_recognised_among_a_thousand() -> None:
    samples, issued = weak(0.12, PAYLOAD), [*ISSUED, PAYLOAD]
    sums, norm = keyed_sums(samples, KEY)
    nonce = pattern.nonce_of(PAYLOAD.content_id, KEY)
    assert base.decide(sums[nonce], norm, KEY, base.LIST_SIZE)[1] is None
    assert recognised(samples, issued) == PAYLOAD
    statistic = float(statistics_of(samples, [PAYLOAD])[0])
    found = base.conclude(pattern.SCHEME, statistic, PAYLOAD, 1, {}, issued=1000, placements=pattern.NONCES)
    assert found.status is MarkStatus.VERIFIED
    assert found.evidence["recognised_among"] == 1000
    assert found.threshold == pytest.approx(base.threshold(1, math.log2(1000)))


def test_a_weak_mark_is_not_taken_for_another_that_was_issued() -> None:
    for strength in (0.0, 0.08, 0.12, 0.3):
        assert recognised(weak(strength, PAYLOAD), ISSUED) is None


def test_nothing_is_recognised_in_unmarked_clips() -> None:
    for samples in unmarked_samples():
        assert recognised(samples, ISSUED) is None


def test_two_weak_marks_in_one_clip_are_too_close_to_call() -> None:
    issued = [*ISSUED, PAYLOAD, OTHER_PAYLOAD]
    samples = weak(0.12, PAYLOAD, OTHER_PAYLOAD)
    statistics = statistics_of(samples, [PAYLOAD, OTHER_PAYLOAD])
    assert statistics.min() > base.threshold(1, math.log2(len(issued)))  # either alone would do
    assert abs(statistics[0] - statistics[1]) < base.RECOGNITION_MARGIN
    assert recognised(samples, issued) is None


def test_recognition_needs_evidence_that_grows_with_the_number_issued() -> None:
    statistics = statistics_of(weak(0.09, PAYLOAD), [PAYLOAD])
    assert base.threshold(1, 0) < statistics[0] < base.threshold(1, math.log2(1e9))
    assert base.recognise(statistics) == 0
    assert base.recognise(np.concatenate([statistics, np.full(10**6, -1.0)])) is None


@pytest.mark.slow
def test_issued_ids_help_where_a_whole_clip_is_too_weak_to_decode() -> None:
    frames = paint(clip(4, 9, noise=20), PAYLOAD, KEY, 0.15)
    assert extract_frames(frames, KEY, look=False).status is MarkStatus.NONE
    assert extract_frames(frames, KEY, look=False, issued=ISSUED_IDS).status is MarkStatus.NONE
    found = extract_frames(frames, KEY, look=False, issued=[*ISSUED_IDS, PAYLOAD.content_id])
    assert found.status is MarkStatus.VERIFIED
    assert found.payload == PAYLOAD
    assert found.evidence["recognised_among"] == 1000


def test_an_id_that_is_listed_twice_counts_once() -> None:
    frames = paint(clip(4, 9, noise=20), PAYLOAD, KEY, 0.15)
    twice = extract_frames(frames, KEY, look=False, issued=[PAYLOAD.content_id, *ISSUED_IDS, PAYLOAD.content_id])
    assert twice == extract_frames(frames, KEY, look=False, issued=[PAYLOAD.content_id, *ISSUED_IDS])
    assert twice.payload == PAYLOAD
    assert twice.evidence["recognised_among"] == 1000


def test_issued_ids_change_nothing_where_the_payload_decodes(marked: Frames) -> None:
    assert extract_frames(marked, KEY, issued=ISSUED_IDS) == extract_frames(marked, KEY)


# What cannot be read


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((9, 32, 32, 3), np.float32),
        np.zeros((9, 32, 32, 3), bool),
        np.zeros((9, 32, 32), np.uint8),
        np.zeros((9, 32, 32, 4), np.uint8),
        np.zeros((9, 3, 32, 32), np.uint8),
        np.zeros((0, 32, 32, 3), np.uint8),
        np.zeros((9, 32, 0, 3), np.uint8),
    ],
)
def test_what_is_no_clip_is_refused(frames: Frames) -> None:
    with pytest.raises(WatermarkError):
        extract_frames(frames, KEY)


@pytest.mark.parametrize("frames", [[], [np.zeros((32, 32, 3), np.uint8)] * 9, None])
def test_frames_in_a_list_are_refused(frames: Any) -> None:
    with pytest.raises(WatermarkError, match="uint8 array"):
        extract_frames(frames, KEY)


def test_a_picture_of_one_line_is_refused_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its canvas would be 96 x 3840 pixels, and the search's time grows with it."""
    monkeypatch.setattr(reading, "to_canvas", lambda *_: pytest.fail("a canvas was made"))
    with pytest.raises(WatermarkError, match="40x1 pixels are too long and narrow"):
        extract_frames(np.zeros((25, 1, 40, 3), np.uint8), KEY)


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33), "0" * 32, None])
def test_what_is_no_key_is_refused(key: bytes) -> None:
    with pytest.raises(PayloadError, match="32 bytes"):
        extract_frames(np.zeros((9, 32, 32, 3), np.uint8), key)


def test_an_issued_id_that_is_none_is_refused() -> None:
    with pytest.raises(PayloadError):
        extract_frames(clip(1, 9, 32, 32), KEY, look=False, issued=[ContentId("not hex")])


def test_views_and_read_only_arrays_are_read(marked: Frames) -> None:
    double = np.repeat(marked, 2, axis=2)[:, :, ::2]
    double.flags.writeable = False
    assert extract_frames(double, KEY, look=False).payload == PAYLOAD
