"""Signed notes and checkpoints against the specification's vectors, and malformed ones."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safegen.errors import LedgerError
from safegen.ledger.checkpoint import Checkpoint, VerifierKey, open_checkpoint, open_note, sign_checkpoint, sign_note

VECTORS: list[dict[str, str]] = json.loads((Path(__file__).parents[2] / "vectors/ledger/signed_note.json").read_text())
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
POINT = Checkpoint("example.com/log", 3, bytes(range(32)))
VKEY = VerifierKey.of(POINT.origin, KEY)
NOTE = sign_checkpoint(POINT, KEY)


@pytest.mark.parametrize("case", VECTORS, ids=lambda c: c["source"])
def test_published_notes_verify(case: dict[str, str]) -> None:
    vkey = VerifierKey.parse(case["vkey"])
    assert str(vkey) == case["vkey"]
    assert open_note(case["note"], vkey) == case["text"]
    with pytest.raises(LedgerError):
        open_note(case["note"].replace("e", "a", 1), vkey)
    with pytest.raises(LedgerError, match="known key"):
        open_note(case["note"], VKEY)


def test_signing_gives_the_published_bytes() -> None:
    case = VECTORS[1]
    seed = base64.b64decode(case["skey"].split("+", 4)[4])[1:]
    assert sign_note(case["text"], "PeterNeumann", Ed25519PrivateKey.from_private_bytes(seed)) == case["note"]


def test_checkpoint_round_trip() -> None:
    assert NOTE.startswith("example.com/log\n3\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n\n— example.com/log ")
    assert open_checkpoint(NOTE, VKEY) == POINT


def test_signatures_of_unknown_keys_are_ignored() -> None:
    stranger = sign_note(POINT.text, "example.org/witness", Ed25519PrivateKey.generate()).rpartition("\n\n")[2]
    assert open_checkpoint(NOTE + stranger, VKEY) == POINT


def test_a_second_wrong_signature_of_the_known_key_spoils_the_note() -> None:
    wrong = base64.b64encode(VKEY.key_id + bytes(64)).decode()
    with pytest.raises(LedgerError, match="wrong"):
        open_note(f"{NOTE}— {VKEY.name} {wrong}\n", VKEY)


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n",
        "text\n",
        POINT.text,
        POINT.text + "\n",
        NOTE[:-1],
        NOTE[:-5] + "\n",
        NOTE.replace("\n3\n", "\n03\n"),
        NOTE.replace("\n3\n", "\n4\n"),
        NOTE.replace("—", "-"),
        NOTE.replace("— ", "—  "),
        NOTE.replace("\n", "\r\n"),
        NOTE + "\x00\n",
        NOTE + "x" * 70_000 + "\n",
        NOTE.replace("log\n3", "l\udcff\n3"),
        f"{POINT.text}\n— {VKEY.name} {base64.b64encode(VKEY.key_id + bytes(10)).decode()}\n",
        f"{POINT.text}\n— {VKEY.name} %%%\n",
        sign_note("example.com/log\n3\nAAAA\n", VKEY.name, KEY),
        sign_note(POINT.text + "extension\n", VKEY.name, KEY),
        sign_note(POINT.text.replace("/log", "/other"), VKEY.name, KEY),
        sign_note(POINT.text.replace("\n3\n", "\n-3\n"), VKEY.name, KEY),
    ],
)
def test_malformed_checkpoints_raise_our_error(note: str) -> None:
    with pytest.raises(LedgerError):
        open_checkpoint(note, VKEY)


@pytest.mark.parametrize(
    "vkey",
    ["", "a+b", "a+00000000+AAAA", str(VKEY)[:-1], str(VKEY).replace("+", "+0", 1), " " + str(VKEY), str(VKEY) + "\n"],
)
def test_malformed_verifier_keys_raise_our_error(vkey: str) -> None:
    with pytest.raises(LedgerError):
        VerifierKey.parse(vkey)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u2003b", "a\nb", "a\x7fb"])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(LedgerError):
        VerifierKey.of(name, KEY)


def test_control_characters_are_not_signed() -> None:
    for text in ("no newline", "tab\there\n"):
        with pytest.raises(LedgerError):
            sign_note(text, VKEY.name, KEY)
