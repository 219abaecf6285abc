"""Whatever bytes a certificate holds, lint answers or refuses: nothing else ever comes out."""

from __future__ import annotations

import datetime as dt
import itertools

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from safegen.errors import InputError, SafegenError
from safegen.keys.pki import issue_pki
from safegen.provenance.certificates import describe, lint, read_certificates
from safegen.provenance.signers import CallbackSigner

PKI = issue_pki("Test", dt.datetime.now(dt.UTC))
LEAF, ISSUER = (c.public_bytes(Encoding.DER) for c in x509.load_pem_x509_certificates(PKI.chain))


def changed(der: bytes, changes: list[tuple[int, int]]) -> bytes:
    content = bytearray(der)
    for at, value in changes:
        content[at % len(content)] = value
    return bytes(content)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=4))
def test_changed_leaf(changes: list[tuple[int, int]]) -> None:
    der = changed(LEAF, changes)
    for use in (lint, lambda content: [describe(c) for c in read_certificates(content)]):
        try:
            use(der)
        except InputError as error:
            assert error.remedy  # noqa: PT017 - either outcome is right


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes(content: bytes) -> None:
    for prefix in (b"", b"-----BEGIN CERTIFICATE-----\n", b"-----BEGIN PRIVATE KEY-----\n", PKI.chain):
        try:
            lint(prefix + content)
        except InputError:
            continue


def test_every_byte_of_the_key_and_its_kind() -> None:
    """Where an unknown curve or key type would come from."""
    for at, mask in itertools.product(range(150, 420), (1, 0x40)):
        der = changed(LEAF, [(at, LEAF[at] ^ mask)])
        try:
            lint(der)
            pem = read_certificates(der)[0].public_bytes(Encoding.PEM).decode()
            CallbackSigner(pem, lambda _: b"")
        except SafegenError:
            continue
