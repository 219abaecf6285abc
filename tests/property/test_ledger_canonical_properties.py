"""The fast way to canonical JSON writes, byte for byte, what RFC 8785's own implementation writes."""

from __future__ import annotations

from typing import Any

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from safegen.ledger.entry import Event, canonical, draft, encode_leaf, split_leaf

TIME = "2026-01-02T03:04:05.678901Z"
numbers = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)
bodies = st.dictionaries(texts, values, max_size=6)


@pytest.mark.slow
@given(bodies)
@example({"i": 2.0**53, "j": 2.0**53 - 0.5, "k": -(2.0**53)})
@example({"a": -0.0, "b": 1e16, "c": 1e15, "d": 1e-4, "e": 9.999e-5, "f": 0.1, "g": 16.0, "h": 5e-324})
@example({"\x7f\x1f\u2028": '\x00\b\t\n\f\r"\\/\u2028\U0001f600', "\ufb33": 1, "\U0001f600": 2})
def test_canonical_json_is_that_of_rfc_8785(body: dict[str, Any]) -> None:
    assert canonical(body) == rfc8785.dumps(body)


@given(bodies, st.integers(0, 10**9), texts.filter(bool))
def test_leaves_are_canonical_and_come_apart_again(body: dict[str, Any], index: int, model: str) -> None:
    event = Event("generated", "0" * 16, body, "a" * 64, model=model, action="x")
    leaf = encode_leaf(event, index, TIME)
    parts = split_leaf(leaf.decode(), index, TIME)
    assert parts is not None
    made = draft(event)
    assert parts == (made.before.decode(), made.between.decode())
