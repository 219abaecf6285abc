"""Consent through the real path: a named person waits for review, a record that holds lets the clip be made."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import safegen
from safegen.consent.record import read_consent
from safegen.consent.trust import revoke, trust_signer
from safegen.errors import BlockedError, InputError
from safegen.keys import KeyStore
from safegen.ledger import Ledger
from safegen.ledger.subjects import Personal
from safegen.settings import Home
from tests.e2e.conftest import SMALL
from tests.unit.consent.consent_samples import DAY, NOW, SUBJECT, altered, write, write_key
from tests.unit.in_process import InProcess

PROMPT = f"{SUBJECT} walks along a beach at sunset"
KEY = Ed25519PrivateKey.generate()


@pytest.fixture
def agency(fresh_home: Home, tmp_path: Path) -> Home:
    """A home that trusts one signer."""
    trust_signer(fresh_home, write_key(tmp_path, KEY)[1], "agency")
    return fresh_home


def test_the_whole_way_by_the_commands(fresh_home: Home, tmp_path: Path) -> None:
    shell, clip, record = InProcess(fresh_home), tmp_path / "clip.mp4", tmp_path / "ada.consent"
    call = ("generate", PROMPT, "-o", clip, "--policy", "eu", "--frames", "13", "--steps", "2", "--seed", "3")
    until = (dt.datetime.now(dt.UTC) + dt.timedelta(days=9)).date().isoformat()
    signed = shell.json("consent", "sign", SUBJECT, "-o", record, "--granted-by", SUBJECT, "--expires", until, code=0)
    shell("consent", "sign", SUBJECT, "-o", record, "--granted-by", SUBJECT, "--expires", until, code=2)
    assert shell.json("consent", "check", record, code=1)["state"] == "unknown_signer"
    refused = shell.json(*call, "--consent", record, code=3)["error"]
    assert "consent_unknown_signer" in refused["message"]
    assert not clip.exists()
    assert shell.json("consent", "trust", "--own", code=0)["signer"] == signed["signer"]
    assert shell.json("consent", "check", record, code=0)["state"] == "valid"

    made = shell.json(*call, "--consent", record, code=0)
    assert made["consents"] == [signed["consent"]]
    assert made["decision"]["action"] == "allow"
    entry = shell.json("ledger", "show", str(made["entry"]), code=0)
    assert entry["body"]["consents"] == [
        {"id": signed["consent"], "sha256": signed["sha256"], "signer": signed["signer"], "state": "valid"}
    ]
    (generation,) = [a["data"] for a in assertions(clip) if a["label"] == "org.safegen.generation"]
    assert generation["consents"] == [{"id": signed["consent"], "alg": "sha256", "hash": signed["sha256"]}]
    assert shell.json("verify", clip, code=0)["verdict"] == "verified"
    for path in [clip, *(p for p in fresh_home.root.rglob("*") if p.is_file())]:
        assert SUBJECT.encode() not in path.read_bytes(), path

    revoked = shell.json("consent", "revoke", record, "--by", "ada", "--reason", "enough", code=0)
    assert shell.json("ledger", "show", str(revoked["entry"]), code=0)["kind"] == "consent_revoked"
    shell("consent", "revoke", signed["consent"], code=2)
    clip.unlink()
    assert "consent_revoked" in shell.json(*call, "--consent", record, code=3)["error"]["message"]


def assertions(clip: Path) -> list[dict[str, Any]]:
    """The assertions of a clip's active manifest, as the C2PA library reads them."""
    import c2pa

    with clip.open("rb") as file, c2pa.Reader("video/mp4", file) as reader:
        store = json.loads(reader.json())
    found: list[dict[str, Any]] = store["manifests"][store["active_manifest"]]["assertions"]
    return found


Break = Callable[[Path, Home], Path]


def revoked(path: Path, home: Home) -> Path:
    record = read_consent(write(path, KEY)).consent
    keys = KeyStore.load(home)
    with Ledger.open(home.ledger_url, key=keys.ledger_key, origin=keys.ledger_name) as ledger:
        revoke(Personal(ledger, home), record.id, by="ada", reason="")
    return path


def changed(path: Path, home: Home) -> Path:
    write(path, KEY, "Eve Miller").write_bytes(altered(path.read_bytes(), subject=SUBJECT))
    return path


BROKEN: dict[str, Break] = {
    "expired": lambda path, home: write(path, KEY, expires=NOW - DAY / 2),
    "not_yet_valid": lambda path, home: write(path, KEY, not_before=NOW + DAY / 2),
    "revoked": revoked,
    "other_person": lambda path, home: write(path, KEY, "Eve Miller"),
    "altered": changed,
    "unknown_signer": lambda path, home: write(path, Ed25519PrivateKey.generate()),
    "use_not_allowed": lambda path, home: write(path, KEY, uses=("voice",)),
    "other_project": lambda path, home: write(path, KEY, projects=("film",)),
    "excluded_context": lambda path, home: write(path, KEY, excluded_contexts=("likeness",)),
}


@pytest.mark.parametrize("state", BROKEN)
def test_a_record_that_does_not_hold_leaves_the_review(agency: Home, tmp_path: Path, state: str) -> None:
    record = BROKEN[state](tmp_path / "a.consent", agency)
    with pytest.raises(BlockedError, match=f"review under policy eu: consent_{state}, likeness") as caught:
        safegen.generate(
            PROMPT, output=tmp_path / "clip.mp4", policy="eu", consent=record, home=agency, project="advert", **SMALL
        )
    assert caught.value.decision.action == "review"
    with Ledger.open(agency.ledger_url, create=False, read_only=True) as ledger:
        *_, entry = ledger.entries()
    assert (entry.kind, entry.event.action) == ("blocked", "review")
    assert [c["state"] for c in entry.body["consents"]] == [state]  # type: ignore[union-attr, index, call-overload]
    assert SUBJECT not in entry.leaf
    assert not (tmp_path / "clip.mp4").exists()


def test_a_record_never_lifts_a_block(agency: Home, tmp_path: Path) -> None:
    from safegen.policies.text.lexicon import Lexicon

    record = write(tmp_path / "a.consent", KEY)
    prompt = f"{PROMPT}, {Lexicon.load().lists['undress_tools'][0]}"
    with pytest.raises(BlockedError) as caught:
        safegen.generate(prompt, output=tmp_path / "clip.mp4", policy="eu", consent=record, home=agency, **SMALL)
    assert caught.value.decision.action == "block"


def test_a_file_that_is_no_record_is_bad_input(agency: Home, tmp_path: Path) -> None:
    for content in (b"", b"{}"):
        (tmp_path / "a.consent").write_bytes(content)
        with pytest.raises(InputError):
            safegen.generate(PROMPT, output=tmp_path / "c.mp4", consent=tmp_path / "a.consent", home=agency, **SMALL)
    InProcess(agency)("consent", "show", tmp_path / "a.consent", code=2)
    InProcess(agency)("consent", "check", tmp_path / "none", code=2)
