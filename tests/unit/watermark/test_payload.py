"""Payload v1, its code, the pattern and its reading against golden vectors and a second reader made from the spec."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from safegen.errors import PayloadError, WatermarkError
from safegen.types import ContentId
from safegen.watermark import base, ecc, schemes
from safegen.watermark.clip import extraction, pattern, reading
from safegen.watermark.payload import Payload, from_bits, pack, to_bits, unpack
from safegen.watermark.still import carrier
from tests.quick import quick
from tests.second_reader import (
    spec_canvas,
    spec_encode,
    spec_golden_clip,
    spec_mac,
    spec_nonce,
    spec_pattern,
    spec_phases,
    spec_read,
    spec_read_clip,
    spec_samples,
    spec_signpost,
    spec_still_placement,
    spec_still_whiten,
)

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "watermark" / "payload-v1.json").read_text())
KEY = bytes(range(32))
GOLDEN = VECTORS["clip"]
TOLERANCE = 0.01
"""Of the golden clip's statistic: the reader here computes in double precision, the product in single."""


# --- payload and code -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS["payloads"])
def test_payload_matches_golden_vectors(vector: dict[str, Any]) -> None:
    key = bytes.fromhex(vector["key"])
    assert pack(Payload(ContentId(vector["content_id"])), key).hex() == vector["payload"]
    body = bytes.fromhex(vector["content_id"]) + bytes([1])
    assert (body + spec_mac(body, key)).hex() == vector["payload"]
    assert pattern.nonce_of(ContentId(vector["content_id"]), key) == spec_nonce(body, key) == vector["nonce"]


def test_golden_codeword() -> None:
    vector = VECTORS["codeword"]
    bits = to_bits(bytes.fromhex(vector["payload"]))
    word = ecc.encode(bits)
    assert "".join("0" if v > 0 else "1" for v in word) == vector["coded_bits"]
    assert spec_encode(bits.tolist()) == word.tolist()


def test_many_words_are_coded_like_one() -> None:
    words = np.random.default_rng(0).integers(0, 2, (5, 112)).astype(np.uint8)
    np.testing.assert_array_equal(ecc.encode_many(words), [ecc.encode(w) for w in words])


def test_no_coded_bit_is_the_same_in_all_clips_of_a_key() -> None:
    """Otherwise the mean of many clips would hold a mark that fits every clip."""
    rng = np.random.default_rng(1)
    words = np.stack([pattern.codeword(Payload(ContentId(rng.bytes(8).hex())), KEY) for _ in range(200)])
    assert np.abs(words.mean(axis=0)).max() < 0.35


@pytest.mark.parametrize("position", [0, 7, 8, 9, 13])
def test_payload_with_one_flipped_bit_is_refused(position: int) -> None:
    data = bytearray(pack(Payload(ContentId("00ff00ff00ff00ff")), KEY))
    data[position] ^= 0x10
    assert unpack(bytes(data), KEY) is None


def test_payload_version_unknown_with_right_mac_is_refused() -> None:
    body = bytes(8) + bytes([2])
    assert unpack(body + spec_mac(body, KEY), KEY) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: pack(Payload(ContentId("xyz")), KEY),
        lambda: pack(Payload(ContentId("0" * 16), version=2), KEY),
        lambda: pack(Payload(ContentId("0" * 16)), KEY[:31]),
        lambda: unpack(b"short", KEY),
        lambda: from_bits(np.zeros(9, np.uint8)),
        lambda: pattern.place(KEY[:31]),
        lambda: ecc.decode(np.zeros(370)),
        lambda: ecc.decode(np.full(369, np.nan)),
        lambda: ecc.decode(np.zeros(0)),
    ],
)
def test_malformed_input_raises_payload_error(make: Any) -> None:
    with pytest.raises(PayloadError):
        make()


# --- the pattern ------------------------------------------------------------------------------------------------------


def digest(values: np.ndarray, dtype: str) -> str:
    return hashlib.sha256(np.ascontiguousarray(values, dtype).tobytes()).hexdigest()


def test_signpost_matches_the_golden_vectors_both_ways() -> None:
    vector = VECTORS["signpost"]
    for post in (pattern.signpost().astype(int), spec_signpost()):
        assert np.abs(post).sum(axis=(1, 2, 3)).tolist() == vector["slots_per_phase"]
        assert post[3, 0, 5].tolist() == vector["phase_3_luma_row_5"]
        assert digest(post, "i1") == vector["int8_sha256"]


def laid(key: bytes, nonces: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The product's key signs and coded-bit numbers as the vectors have them, both [N, 8, 3, 24, 24]."""
    placed = pattern.place(key, nonces)
    signs = np.zeros((len(nonces), 8 * 3 * 24 * 24), int)
    bits = np.full(signs.shape, -1)
    signs[:, placed.slots], bits[:, placed.slots] = placed.signs, placed.bits
    return signs.reshape(-1, 8, 3, 24, 24), bits.reshape(-1, 8, 3, 24, 24)


def test_placement_by_key_and_nonce_matches_the_golden_vectors_both_ways() -> None:
    vector = VECTORS["pattern_placement"]
    key, nonce = bytes.fromhex(vector["key"]), vector["nonce"]
    for signs, bits in ([x[0] for x in laid(key, (nonce,))], spec_pattern(key, nonce)):
        assert np.abs(signs).sum(axis=(1, 2, 3)).tolist() == vector["slots_per_phase"]
        assert signs[3, 2, 5].tolist() == vector["phase_3_cr_row_5_signs"]
        assert bits[3, 2, 5].tolist() == vector["phase_3_cr_row_5_bits"]
        assert digest(signs, "i1") == vector["signs_int8_sha256"]
        assert digest(bits, ">i2") == vector["bits_int16_sha256"]


@pytest.mark.slow
def test_placement_under_every_nonce_matches_the_golden_vectors_both_ways() -> None:
    vector = VECTORS["pattern_placement"]
    key, nonces = bytes.fromhex(vector["key"]), tuple(range(64))
    second = [np.stack(part) for part in zip(*(spec_pattern(key, nonce) for nonce in nonces), strict=True)]
    for signs, bits in (laid(key, nonces), second):
        assert digest(signs, "i1") == vector["all_nonces_signs_int8_sha256"]
        assert digest(bits, ">i2") == vector["all_nonces_bits_int16_sha256"]


def test_signpost_and_payload_share_no_slot_and_fill_them_all() -> None:
    post, (signs, bits) = pattern.signpost() != 0, (x[0] for x in laid(KEY, (11,)))
    assert not (post & (signs != 0)).any()
    assert (post | (signs != 0) == pattern.used()).all()
    counts = np.bincount(bits[signs != 0], minlength=369)
    assert set(counts) <= {15, 16}  # every coded bit gets its share of 8 * 706 slots


# --- the golden clip, read by both readers ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden() -> np.ndarray:
    frames = spec_golden_clip(GOLDEN)
    assert digest(frames, "u1") == GOLDEN["frames_sha256"]
    return frames


@pytest.mark.slow
def test_second_reader_reads_the_golden_clip(golden: np.ndarray) -> None:
    samples = spec_samples(golden, spec_phases(len(golden)))
    key = bytes.fromhex(GOLDEN["key"])
    statistic, data, genuine = spec_read_clip(samples, key)
    assert data.hex() == GOLDEN["payload"]
    assert genuine
    assert statistic == pytest.approx(GOLDEN["statistic"], abs=TOLERANCE)
    wrong = bytes.fromhex(GOLDEN["wrong_key"])
    statistic, _, genuine = spec_read_clip(samples, wrong)
    assert not genuine
    assert statistic == pytest.approx(GOLDEN["wrong_key_statistic"], abs=TOLERANCE)


def test_product_reads_the_golden_clip(golden: np.ndarray) -> None:
    key = bytes.fromhex(GOLDEN["key"])
    found = extraction.extract_frames(golden, key)
    assert (found.status, found.hypotheses) == (base.MarkStatus.VERIFIED, 1)
    assert found.payload is not None
    assert pack(found.payload, key).hex() == GOLDEN["payload"]
    assert found.statistic == pytest.approx(GOLDEN["statistic"], abs=TOLERANCE)
    assert found.p_value == pytest.approx(math.exp(64 * math.log(2) - found.statistic**2 / 2))
    other = extraction.extract_frames(golden, bytes.fromhex(GOLDEN["wrong_key"]), look=False)
    assert (other.status, other.payload) == (base.MarkStatus.NONE, None)
    assert other.statistic == pytest.approx(GOLDEN["wrong_key_statistic"], abs=TOLERANCE)


@pytest.mark.slow
def test_second_reader_finds_where_a_cut_clip_begins_by_the_signpost(golden: np.ndarray) -> None:
    cut = golden[6:]
    post = spec_signpost()

    def fit(first: int) -> float:
        samples = spec_samples(cut, spec_phases(len(cut), first))
        return float((samples * post).sum() / np.sqrt((samples[post != 0] ** 2).sum()))

    first = max(range(0, 32, 2), key=fit)
    assert first == 6
    _, data, genuine = spec_read_clip(spec_samples(cut, spec_phases(len(cut), first)), KEY)
    assert genuine
    assert data.hex() == GOLDEN["payload"]
    found = extraction.extract_frames(cut, KEY, look=False)
    assert found.payload is not None
    assert pack(found.payload, KEY).hex() == GOLDEN["payload"]
    assert found.hypotheses == 2  # as it is, and along the signpost


@pytest.mark.parametrize("size", quick([(270, 481), (150, 101), (96, 171), (72, 128)], (150, 101), (72, 128)))
@pytest.mark.parametrize("count", quick([6, 20], 6))
def test_both_readers_agree_on_unmarked_clips_of_any_size(size: tuple[int, int], count: int) -> None:
    """Sizes whose canvas is cut anew or enlarged, and clips shorter and longer than the window of 17 frames."""
    rng = np.random.default_rng(count)
    blocks = rng.integers(0, 256, (count, 12, 15, 3)).astype(np.uint8)
    frames = blocks[:, np.arange(size[0]) * 12 // size[0]][:, :, np.arange(size[1]) * 15 // size[1]]
    np.testing.assert_allclose(reading.to_canvas(frames, 96), spec_canvas(frames), atol=1e-3)
    statistic, _, genuine = spec_read_clip(spec_samples(frames, spec_phases(count)), KEY)
    found = extraction.extract_frames(frames, KEY, look=False)
    assert not genuine
    assert (found.status, found.hypotheses) == (base.MarkStatus.NONE, 1)
    assert found.statistic == pytest.approx(statistic, abs=TOLERANCE)
    assert statistic > 7  # the best of all codewords fits any noise a little


# --- the still scheme, read by both readers ---------------------------------------------------------------------------


def test_golden_still_placement() -> None:
    placed = VECTORS["still_placement"]
    key, shape, t = bytes.fromhex(placed["key"]), tuple(placed["shape"]), placed["frame"]
    layout = carrier.place(key, shape)
    signs, index = spec_still_placement(key, shape[0], t, *shape[2:])
    for a, b in ((layout.signs[:, t].int().numpy(), layout.bits[:, t].numpy()), (signs, index)):
        assert a.flatten()[:16].tolist() == placed["signs_16"]
        assert b.flatten()[:16].tolist() == placed["index_16"]


def test_second_reader_reads_what_the_still_scheme_places() -> None:
    rng = np.random.default_rng(7)
    shape = (12, 3, 10, 12)
    payload = pack(Payload(ContentId("0123456789abcdef")), KEY)
    layout = carrier.place(KEY, shape)
    word = torch.from_numpy(ecc.encode(to_bits(payload)).astype(np.float32))
    samples = rng.standard_normal(shape) + 0.8 * (word[layout.bits] * layout.signs).numpy()
    # The inverse DCT of samples, in channels of very different scale.
    h, w = shape[2:]
    dct_h, dct_w = (carrier._dct(n, torch.zeros(1, dtype=torch.float64)).numpy() for n in (h, w))
    latents = dct_h.T @ samples @ dct_w * np.geomspace(0.1, 10, 12)[:, None, None, None]

    whitened = spec_still_whiten(latents)
    ours = carrier.whiten(torch.from_numpy(latents))
    np.testing.assert_allclose(ours.numpy(), whitened, atol=1e-5)
    placed = [spec_still_placement(KEY, shape[0], t, h, w) for t in range(shape[1])]
    signs, index = (np.stack([p[i] for p in placed], axis=1) for i in (0, 1))
    z, data, genuine = spec_read(whitened, signs, index, KEY)
    assert genuine
    assert data == payload

    statistic, found, _ = carrier.read(ours, layout, KEY, base.LIST_SIZE)
    assert found == Payload(ContentId("0123456789abcdef"))
    assert statistic == pytest.approx(z, rel=1e-5)


@pytest.mark.slow
def test_unmarked_and_wrong_key_statistics_stay_below_the_threshold() -> None:
    """12 heavy-tailed hosts and 12 keys on one marked host; the best of all codewords never reaches the threshold."""
    rng = np.random.default_rng(3)
    shape = (12, 3, 10, 12)
    layout = carrier.place(KEY, shape)
    word = torch.from_numpy(ecc.encode(to_bits(pack(Payload(ContentId("0" * 16)), KEY))).astype(np.float32))
    marked = torch.from_numpy(rng.standard_normal(shape)).float() + word[layout.bits] * layout.signs
    best = 0.0
    for trial in range(12):
        host = torch.from_numpy(rng.standard_t(2.5, shape)).float()
        statistic, found, _ = carrier.read(carrier.whiten(host), layout, KEY, base.LIST_SIZE)
        other = trial.to_bytes(32, "little")
        wrong, found_wrong, _ = carrier.read(marked, carrier.place(other, shape), other, base.LIST_SIZE)
        assert found is None
        assert found_wrong is None
        best = max(best, statistic, wrong)
    assert 8 < best < base.threshold(1)


def test_latents_too_small_for_a_payload_are_refused() -> None:
    with pytest.raises(WatermarkError, match="too small"):
        carrier.place(KEY, (4, 1, 8, 8))


# --- the accept rule --------------------------------------------------------------------------------------------------


def test_threshold_is_where_the_bound_reaches_one_in_a_million() -> None:
    assert math.exp(base.log_p_value(base.threshold(5), 5)) == pytest.approx(base.PRESENCE_P_VALUE)
    assert base.threshold(5) > base.threshold(1) > 13.5
    for codeword_bits, stated in ((112, 13.524), (118, 13.828), (64, 10.787), (0, 5.257), (math.log2(1000), 6.438)):
        assert base.threshold(1, codeword_bits) == pytest.approx(stated, abs=6e-4)


def test_payload_without_presence_is_no_mark_and_presence_without_payload_is_not_verified() -> None:
    payload = Payload(ContentId("0" * 16))
    assert base.conclude("s", 10.5, payload, 1, {}).status is base.MarkStatus.NONE
    assert base.conclude("s", 10.5, payload, 1, {}).payload is None
    assert base.conclude("s", 12.0, None, 1, {}).status is base.MarkStatus.NONE
    assert base.conclude("s", 12.0, payload, 1, {}).status is base.MarkStatus.VERIFIED
    assert base.conclude("s", 12.0, payload, 2 * 10**6, {}).status is base.MarkStatus.NONE
    assert base.conclude("s", 15.0, None, 1, {}).status is base.MarkStatus.PRESENT
    assert base.conclude("s", 15.0, payload, 1, {}).status is base.MarkStatus.VERIFIED
    assert base.conclude("s", float("nan"), payload, 1, {}).status is base.MarkStatus.NONE


def test_presence_pays_for_every_placement_but_a_known_payload_has_only_one() -> None:
    payload = Payload(ContentId("0" * 16))
    assert base.conclude("s", 13.6, None, 1, {}).status is base.MarkStatus.PRESENT
    assert base.conclude("s", 13.6, None, 1, {}, placements=64).status is base.MarkStatus.NONE
    assert base.conclude("s", 13.9, None, 1, {}, placements=64).status is base.MarkStatus.PRESENT
    assert base.conclude("s", 13.9, None, 1, {}, placements=64).threshold == base.threshold(1, 118)
    assert base.conclude("s", 10.9, payload, 1, {}, placements=64).status is base.MarkStatus.VERIFIED


def test_recognition_names_an_issued_payload_that_is_too_weak_to_decode() -> None:
    statistics = np.random.default_rng(5).standard_normal(300)
    statistics[41] = 8.0
    assert base.recognise(statistics) == 41
    outcome = base.conclude("s", 8.0, Payload(ContentId("0" * 16)), 2, {}, issued=300, placements=64)
    assert outcome.status is base.MarkStatus.VERIFIED
    assert outcome.p_value == pytest.approx(2 * 300 * math.exp(-32))
    assert outcome.evidence["recognised_among"] == 300
    weaker = base.conclude("s", 6.1, Payload(ContentId("0" * 16)), 2, {}, issued=300)
    assert weaker.status is base.MarkStatus.NONE


@pytest.mark.parametrize(
    ("best", "second", "found"),
    [(8.0, 5.9, 7), (8.0, 6.1, None), (6.1, 3.0, None), (6.3, 4.2, 7), (float("-inf"), float("-inf"), None)],
)
def test_recognition_refuses_what_is_weak_and_what_is_not_ahead(best: float, second: float, found: int | None) -> None:
    statistics = np.full(300, min(0.0, second))
    statistics[[7, 130]] = best, second
    assert base.recognise(statistics) == found


def test_recognition_among_one_or_none() -> None:
    assert base.recognise(np.array([5.3])) == 0
    assert base.recognise(np.array([5.2])) is None
    assert base.recognise(np.zeros(0)) is None


def test_unknown_scheme_is_refused() -> None:
    with pytest.raises(WatermarkError, match="unknown watermark scheme"):
        schemes.make_extractor("tree-ring")
    for scheme in ("latent-still", "noise-sign"):
        with pytest.raises(WatermarkError, match="VAE"):
            schemes.make_extractor(scheme)
    assert schemes.make_extractor().scheme == "latent-residual"
