"""Any JSON body survives writing and reading; any Python body gives a leaf or a LedgerError."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from safegen.errors import LedgerError
from safegen.ledger.checkpoint import VerifierKey, open_note
from safegen.ledger.entry import Event, decode_leaf, encode_leaf

TIME = "2026-01-02T03:04:05.678901Z"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
ANY = st.recursive(
    st.none() | st.binary(max_size=3) | st.integers() | st.floats() | st.text(max_size=5) | st.complex_numbers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    max_leaves=8,
)
VKEY = VerifierKey.parse("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k")


@pytest.mark.slow
@given(st.dictionaries(TEXT, JSON, max_size=5))
@settings(max_examples=150, deadline=None)
def test_json_bodies_round_trip(body: dict[str, Any]) -> None:
    leaf = encode_leaf(Event("generated", body=body), 1, TIME)
    read: Any = decode_leaf(leaf.decode())
    assert read["body"] == body
    assert rfc8785.dumps(read) == leaf


@pytest.mark.slow
@given(st.dictionaries(st.text(max_size=3), ANY, max_size=4) | ANY)
@settings(max_examples=150, deadline=None)
def test_any_body_is_written_or_refused(body: Any) -> None:
    with contextlib.suppress(LedgerError):
        encode_leaf(Event("generated", body=body), 1, TIME)


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda b: b.decode("utf-8", "surrogateescape")))
@settings(max_examples=150, deadline=None)
def test_any_text_is_a_note_or_refused(text: str) -> None:
    for note in (text, text + "\n\n— example.com/foo " + text + "\n"):
        with contextlib.suppress(LedgerError):
            open_note(note, VKEY)
    with contextlib.suppress(LedgerError):
        VerifierKey.parse(text)
    with contextlib.suppress(LedgerError):
        decode_leaf(text)
