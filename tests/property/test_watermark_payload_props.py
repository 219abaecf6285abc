"""Round trips of payload and code for any content, key and noise within reach."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from safegen.types import ContentId
from safegen.watermark import ecc
from safegen.watermark.payload import PAYLOAD_BYTES, Payload, from_bits, pack, to_bits, unpack

ids = st.binary(min_size=8, max_size=8).map(lambda b: ContentId(b.hex()))
keys = st.binary(min_size=32, max_size=32)


@given(ids, keys)
def test_pack_then_unpack_is_identity(content_id: ContentId, key: bytes) -> None:
    data = pack(Payload(content_id), key)
    assert len(data) == PAYLOAD_BYTES
    assert unpack(data, key) == Payload(content_id)
    assert from_bits(to_bits(data)) == data


@given(ids, keys, keys)
def test_other_key_never_reads(content_id: ContentId, key: bytes, other: bytes) -> None:
    if key != other:
        assert unpack(pack(Payload(content_id), key), other) is None


@given(st.binary(min_size=PAYLOAD_BYTES, max_size=PAYLOAD_BYTES), keys)
def test_arbitrary_bytes_are_no_payload(data: bytes, key: bytes) -> None:
    found = unpack(data, key)
    assert found is None or pack(found, key) == data


@settings(max_examples=12, deadline=None)
@given(st.binary(min_size=14, max_size=14), st.integers(0, 2**32 - 1), st.floats(0.01, 100))
def test_code_corrects_noise_at_any_scale(data: bytes, seed: int, scale: float) -> None:
    """At a mean of 1.5 standard deviations about 7 % of the hard decisions are wrong."""
    word = ecc.encode(to_bits(data))
    soft = scale * (1.5 * word + np.random.default_rng(seed).standard_normal(len(word)))
    assert from_bits(ecc.decode(soft, list_size=2)[0]) == data


@settings(max_examples=10, deadline=None)
@given(st.binary(min_size=2, max_size=6), st.integers(0, 2**32 - 1))
def test_list_is_distinct_and_sorted_by_correlation(data: bytes, seed: int) -> None:
    word = ecc.encode(to_bits(data))
    soft = 0.7 * word + np.random.default_rng(seed).standard_normal(len(word))
    candidates = ecc.decode(soft, list_size=6)
    scores = [float(soft @ ecc.encode(c)) for c in candidates]
    assert scores == sorted(scores, reverse=True)
    assert len({c.tobytes() for c in candidates}) == len(candidates) == 6
    assert scores[0] >= float(soft @ word) - 1e-9
