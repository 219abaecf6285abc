"""Commitments to prompts."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safegen.errors import KeyStoreError
from safegen.keys import check_commitment, commit_text

KEY, SALT = bytes(range(32)), bytes(range(16))
TEXTS = st.text(st.characters(codec=None))  # lone surrogates too


def test_value_is_hmac_sha256_of_salt_and_text() -> None:
    made = commit_text("a paper boat", KEY, SALT)
    expected = hmac.new(KEY, SALT + b"a paper boat", hashlib.sha256).hexdigest()
    assert made == {"alg": "hmac-sha256", "salt": SALT.hex(), "value": expected}


@given(TEXTS)
def test_opens_to_its_own_text(text: str) -> None:
    made = commit_text(text, KEY)
    assert check_commitment(text, KEY, made)
    assert not check_commitment(text + " ", KEY, made)
    assert not check_commitment(text, KEY[::-1], made)


def test_equal_texts_give_different_values() -> None:
    assert commit_text("x", KEY)["value"] != commit_text("x", KEY)["value"]


@pytest.mark.parametrize(("key", "salt"), [(b"", SALT), (KEY[:31], SALT), (KEY, b""), (KEY, SALT + b"0")])
def test_wrong_lengths(key: bytes, salt: bytes) -> None:
    with pytest.raises(KeyStoreError, match="32-byte key"):
        commit_text("x", key, salt)


@given(st.dictionaries(st.sampled_from(["alg", "salt", "value"]), TEXTS | st.just("hmac-sha256")))
def test_malformed_commitment_is_no_match(commitment: dict[str, str]) -> None:
    assert not check_commitment("x", KEY, commitment)
