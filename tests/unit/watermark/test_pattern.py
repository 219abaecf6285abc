"""The pattern of a clip's mark: its slots, who owns them, and how they look."""

from __future__ import annotations

import hashlib
import hmac

import numpy as np
import pytest
from numpy.typing import NDArray

from safegen.errors import PayloadError
from safegen.types import ContentId
from safegen.watermark.clip import pattern
from safegen.watermark.clip.latent_residual import pattern_pictures
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


def by_phase(slots: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which slots are among the flat indices, bool [PHASES, 3, ORDER, ORDER]."""
    out = np.zeros(pattern.signpost().shape, bool)
    out.reshape(-1)[slots] = True
    return out


def test_signpost_and_payload_share_the_slots_out_between_them() -> None:
    slots, posts = pattern.place(KEY).slots, pattern.signpost() != 0
    assert len(set(slots.tolist())) == len(slots)
    assert not (by_phase(slots) & posts).any()
    for mine, theirs in zip(by_phase(slots), posts, strict=True):
        assert np.array_equal(mine | theirs, pattern.used())


def test_every_coded_bit_stands_in_every_phase_and_equally_often_under_every_nonce() -> None:
    placement = pattern.place(KEY)
    phases = placement.slots // pattern.used().size
    for bits in placement.bits:
        for phase in range(pattern.PHASES):
            often = np.bincount(bits[phases == phase], minlength=pattern.CODED_BITS)
            assert often.min() >= 1
            assert often.max() <= 2
        total = np.bincount(bits, minlength=pattern.CODED_BITS)
        assert total.max() - total.min() <= 1


def test_placement_depends_on_key_and_nonce_alone() -> None:
    pattern.place.cache_clear()
    first, other = pattern.place(KEY, (3, 5)), pattern.place(OTHER_KEY, (3,))
    pattern.place.cache_clear()
    again = pattern.place(KEY, (5,))
    assert np.array_equal(first.signs[1:], again.signs)
    assert np.array_equal(first.bits[1:], again.bits)
    assert np.array_equal(first.slots, other.slots)  # which slots there are is public
    for signs, bits in ((other.signs[0], other.bits[0]), (first.signs[1], first.bits[1])):
        assert abs(float((first.signs[0] * signs).mean())) < 0.07  # 5 standard deviations of chance
        assert float((first.bits[0] == bits).mean()) < 0.01


def test_the_nonces_of_a_key_are_its_first_64_placements() -> None:
    whole = pattern.place(KEY)
    assert whole.signs.shape == whole.bits.shape == (pattern.NONCES, len(whole.slots))
    one = pattern.place(KEY, (41,))
    assert np.array_equal(whole.signs[41], one.signs[0])
    assert np.array_equal(whole.bits[41], one.bits[0])


def test_no_two_nonces_of_a_key_are_alike() -> None:
    placement = pattern.place(KEY)
    alike = (placement.signs @ placement.signs.T / len(placement.slots))[np.triu_indices(pattern.NONCES, 1)]
    assert np.abs(alike).max() < 0.07
    assert len({bits.tobytes() for bits in placement.bits}) == pattern.NONCES


def test_signs_of_many_keys_are_fair_in_every_slot() -> None:
    signs = [pattern.place(key_of(n), (n % pattern.NONCES,)).signs[0] for n in range(200)]
    mean = np.mean(signs, axis=0)
    assert np.abs(mean).max() < 5.5 / np.sqrt(200)
    assert abs(float(mean.std()) - 1 / np.sqrt(200)) < 0.003


def test_nonce_is_a_function_of_content_id_and_key() -> None:
    ids = [payload_of(n).content_id for n in range(200)]
    here = [pattern.nonce_of(i, KEY) for i in ids]
    assert here == [pattern.nonce_of(i, KEY) for i in ids]
    elsewhere = [pattern.nonce_of(i, OTHER_KEY) for i in ids]
    assert np.mean(np.array(here) == elsewhere) < 0.08  # one in 64 by chance


def test_nonce_is_what_the_written_rule_says() -> None:
    for number in range(20):
        content_id = payload_of(number).content_id
        subkey = hmac.digest(KEY, b"safegen/watermark/v1/stream/latent-residual/nonce", "sha256")
        first = hashlib.shake_256(subkey + bytes.fromhex(content_id)).digest(1)[0]
        assert pattern.nonce_of(content_id, KEY) == first % 64


@pytest.mark.parametrize("ids", ["random", "counted"])
def test_nonces_are_spread_evenly_over_content_ids(ids: str) -> None:
    """Chi-squared over 6400 ids; with 63 degrees of freedom 120 is exceeded once in 50,000."""
    drawn = [payload_of(n).content_id if ids == "random" else ContentId(f"{n:016x}") for n in range(6400)]
    often = np.bincount([pattern.nonce_of(i, KEY) for i in drawn], minlength=pattern.NONCES)
    assert len(often) == pattern.NONCES
    assert float(((often - 100) ** 2 / 100).sum()) < 120


def test_a_whole_mark_is_the_signpost_and_the_payload_under_its_nonce() -> None:
    placement, nonce = pattern.place(KEY), pattern.nonce_of(PAYLOAD.content_id, KEY)
    mark = pattern.coefficients(PAYLOAD, KEY)
    assert np.array_equal(np.abs(mark), np.broadcast_to(pattern.used(), mark.shape))
    assert np.array_equal(mark[pattern.signpost() != 0], pattern.signpost()[pattern.signpost() != 0])
    word = pattern.codeword(PAYLOAD, KEY)
    fits = placement.sums(mark) @ word / placement.norm(mark) ** 2
    assert fits[nonce] == pytest.approx(1.0)
    assert np.abs(np.delete(fits, nonce)).max() < 0.07


@pytest.mark.parametrize("key", [b"", b"short", bytes(33), "k" * 32, None])
def test_placement_wants_a_key_of_32_bytes(key: bytes) -> None:
    with pytest.raises(PayloadError, match="32 bytes"):
        pattern.place(key)


def test_sums_gather_what_coefficients_scatter() -> None:
    placement = pattern.place(KEY)
    word = np.random.default_rng(0).normal(size=pattern.CODED_BITS)
    for row in (0, 63):
        often = np.bincount(placement.bits[row], minlength=pattern.CODED_BITS)
        sums = placement.sums(placement.coefficients(word, row))
        np.testing.assert_allclose(sums[row], word * often, rtol=1e-5)
        assert float((sums**2).sum(axis=1).argmax()) == row


def test_norm_leaves_the_signpost_out() -> None:
    placement = pattern.place(KEY)
    assert placement.norm(pattern.signpost()) == 0
    assert placement.norm(np.ones_like(pattern.signpost())) == pytest.approx(np.sqrt(len(placement.slots)))


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
