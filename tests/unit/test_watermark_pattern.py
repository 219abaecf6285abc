"""The pattern of a clip's mark: its slots, who owns them, and how they look."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from safegen.errors import PayloadError
from safegen.watermark import pattern
from safegen.watermark.latent_residual import pattern_pictures
from tests.marked_clips import KEY, OTHER_KEY, OTHER_PAYLOAD, PAYLOAD, key_of, payload_of, spans


def test_every_slot_lies_in_the_band_of_its_channel() -> None:
    assert pattern.used().sum(axis=(1, 2)).tolist() == [462, 210, 210]
    for channel, (low, high) in enumerate((pattern.LUMA_BAND, pattern.CHROMA_BAND, pattern.CHROMA_BAND)):
        for v in range(pattern.ORDER):
            for u in range(pattern.ORDER):
                assert pattern.used()[channel, v, u] == (low**2 <= u * u + v * v < high**2)


def test_signpost_has_its_share_of_the_slots_in_every_phase_and_no_other() -> None:
    posts = pattern.signpost()
    assert np.count_nonzero(posts, axis=(1, 2, 3)).tolist() == [882 // pattern.SIGNPOST_SHARE] * pattern.PHASES
    assert not posts[:, ~pattern.used()].any()
    assert set(np.unique(posts)) == {-1.0, 0.0, 1.0}


def test_signpost_is_what_the_written_rule_says() -> None:
    """Worked out again in plain integers: marks in the world stay readable only while this holds."""
    slots = [int(i) for i in np.flatnonzero(pattern.used())]
    for phase in range(pattern.PHASES):
        label = b"safegen/watermark/v1/signpost" + phase.to_bytes(4, "big")
        data = hashlib.shake_256(label).digest(8 * len(slots))
        words = [int.from_bytes(data[8 * i : 8 * i + 8], "big") for i in range(len(slots))]
        mine = sorted(range(len(slots)), key=lambda i: words[i] >> 1)[: len(slots) // 5]
        wanted = {slots[i]: 1.0 - 2.0 * (words[i] & 1) for i in mine}
        flat = pattern.signpost()[phase].reshape(-1)
        assert {int(i): float(flat[i]) for i in np.flatnonzero(flat)} == wanted


def test_signpost_and_payload_share_the_slots_out_between_them() -> None:
    placement, posts = pattern.place(KEY), pattern.signpost()
    assert not ((placement.signs != 0) & (posts != 0)).any()
    for phase in range(pattern.PHASES):
        assert np.array_equal((placement.signs[phase] != 0) | (posts[phase] != 0), pattern.used())


def test_every_coded_bit_stands_in_every_phase_and_equally_often() -> None:
    placement = pattern.place(KEY)
    mine = placement.signs != 0
    for phase in range(pattern.PHASES):
        often = np.bincount(placement.bits[phase][mine[phase]], minlength=pattern.CODED_BITS)
        assert often.min() >= 1
        assert often.max() <= 2
    total = np.bincount(placement.bits[mine], minlength=pattern.CODED_BITS)
    assert total.max() - total.min() <= 1


def test_placement_depends_on_the_key_alone() -> None:
    pattern.place.cache_clear()
    first, other = pattern.place(KEY), pattern.place(OTHER_KEY)
    pattern.place.cache_clear()
    again = pattern.place(KEY)
    assert np.array_equal(first.signs, again.signs)
    assert np.array_equal(first.bits, again.bits)
    mine = first.signs != 0
    assert np.array_equal(mine, other.signs != 0)  # which slots there are is public
    assert abs(float((first.signs * other.signs)[mine].mean())) < 0.07  # 5 standard deviations of chance
    assert float((first.bits == other.bits)[mine].mean()) < 0.01


def test_signs_of_many_keys_are_fair_in_every_slot() -> None:
    mean = np.mean([pattern.place(key_of(n)).signs for n in range(200)], axis=0)
    mine = pattern.place(KEY).signs != 0
    assert np.abs(mean[mine]).max() < 5.5 / np.sqrt(200)
    assert abs(float(mean[mine].std()) - 1 / np.sqrt(200)) < 0.003


@pytest.mark.parametrize("key", [b"", b"short", bytes(33), "k" * 32, None])
def test_placement_wants_a_key_of_32_bytes(key: bytes) -> None:
    with pytest.raises(PayloadError, match="32 bytes"):
        pattern.place(key)


def test_sums_gather_what_coefficients_scatter() -> None:
    placement = pattern.place(KEY)
    word = np.random.default_rng(0).normal(size=pattern.CODED_BITS)
    often = np.bincount(placement.bits[placement.signs != 0], minlength=pattern.CODED_BITS)
    np.testing.assert_allclose(placement.sums(placement.coefficients(word)), word * often, rtol=1e-5)


def test_codewords_of_unrelated_payloads_are_unrelated() -> None:
    words = np.stack([pattern.codeword(payload_of(n), KEY) for n in range(200)]).astype(np.float64)
    assert words.shape == (200, pattern.CODED_BITS)
    alike = (words @ words.T / pattern.CODED_BITS)[np.triu_indices(200, 1)]
    assert alike.max() < 0.35
    assert abs(float(alike.mean())) < 0.01
    # No coded bit is the same for every clip of a key: averaging clips would leave it standing.
    assert np.abs(words.mean(axis=0)).max() < 5 / np.sqrt(200)


@pytest.mark.parametrize("length", [24, 48, 65])
def test_cosines_are_orthonormal_over_the_short_side(length: int) -> None:
    rows = pattern.cosines(length, length).astype(np.float64)
    np.testing.assert_allclose(rows @ rows.T, np.eye(pattern.ORDER), atol=1e-5)


def test_cosines_from_an_offset_are_a_window_on_the_same_cosines() -> None:
    np.testing.assert_allclose(pattern.cosines(17, 48, 5), pattern.cosines(48, 48)[:, 5:22], atol=1e-6)
    np.testing.assert_allclose(pattern.cosines(17, 48, -17), pattern.cosines(17, 48)[:, ::-1], atol=1e-5)


@pytest.mark.parametrize("short", [32, 48, 96])
def test_one_short_side_further_on_the_pattern_is_mirrored(short: int) -> None:
    here = pattern.cosines(short, short)
    np.testing.assert_allclose(pattern.cosines(short, short, short), here[:, ::-1], atol=1e-5)
    np.testing.assert_allclose(pattern.cosines(short, short, 2 * short), here, atol=1e-5)


def test_first_frame_has_a_phase_of_its_own_and_then_every_four() -> None:
    phases = [pattern.phase_of(t) for t in range(34)]
    assert phases[:10] == [0, 1, 1, 1, 1, 2, 2, 2, 2, 3]
    assert phases[28:] == [7, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(("frames", "height", "width"), [(9, 48, 48), (25, 32, 56), (49, 56, 32)])
def test_pictures_have_unit_power_and_no_mean_over_time(frames: int, height: int, width: int) -> None:
    lengths = np.array([stop - start for start, stop in spans(frames)], np.float64)
    pictures = pattern_pictures(PAYLOAD, KEY, spans(frames), height, width)
    assert pictures.shape == (len(lengths), 3, height, width)
    assert pictures.dtype == np.float32
    np.testing.assert_allclose(np.einsum("t,tcyx->cyx", lengths, pictures), 0, atol=1e-3)
    power = (lengths / lengths.sum()) @ (pictures.astype(np.float64) ** 2).mean(axis=(1, 2, 3))
    assert power == pytest.approx(1.0, rel=1e-4)


def test_pictures_of_two_payloads_differ_where_the_payload_is() -> None:
    one, two = (pattern_pictures(p, KEY, spans(25), 48, 48) for p in (PAYLOAD, OTHER_PAYLOAD))
    alike = float((one * two).sum() / np.sqrt((one**2).sum() * (two**2).sum()))
    assert 0.05 < alike < 0.45  # the signpost, a fifth, is shared
