"""Whose word counts: trusting a signer, approving a run and signing for it are said outright, never by default."""

from __future__ import annotations

import getpass
from pathlib import Path

import pytest

from safegen.keys import KeyStore
from safegen.ledger import Event, Ledger
from safegen.settings import Home
from tests.unit.in_process import InProcess


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    monkeypatch.setattr(getpass, "getuser", lambda: "root")
    shell = InProcess(Home(tmp_path / "home"))
    keys = KeyStore.init(shell.home)
    with Ledger.open(shell.home.ledger_url, key=keys.ledger_key, origin=keys.ledger_name) as ledger:
        ledger.append(Event("blocked", action="review", body={"stage": "request", "decision": {"reasons": []}}))
    return shell


def test_asking_whom_a_home_trusts_made_it_trust_itself(shell: InProcess) -> None:
    assert "Nobody's records count" in shell("consent", "trust", code=0).stdout
    assert shell.json("consent", "trust", code=0)["signers"] == []
    assert not (shell.home.root / "consent").exists()
    made = shell.json("consent", "trust", "--own", code=0)
    assert [one["signer"] for one in shell.json("consent", "trust", code=0)["signers"]] == [made["signer"]]
    assert made["signer"] in shell("consent", "trust", code=0).stdout
    key = shell.home.root / "consent" / "signer.pub"
    for wrong in ((key, "--own"), ("--name", "x"), ("--remove", made["signer"], "--own")):
        shell("consent", "trust", *wrong, code=2)
    assert shell.json("consent", "trust", "--remove", made["signer"], code=0)["trusted"] is False


def test_an_approval_without_a_reason_was_recorded(shell: InProcess) -> None:
    shell("review", "approve", 0, "--by", "eve", code=2)
    assert "says why" in shell.json("review", "approve", 0, "--by", "eve", "--reason", " ", code=2)["error"]["message"]
    assert shell.json("review", "show", 0, code=0)["state"] == "waiting"
    shell("review", "approve", 0, "--by", "eve", "--reason", "agreed", code=0)
    assert shell.json("review", "show", 0, code=0)["words"][0]["by"] == "eve"


def test_root_was_taken_for_a_reviewers_name(shell: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    consent = "urn:uuid:00000000-0000-4000-8000-000000000001"
    for words in (["review", "approve", "0", "--reason", "x"], ["review", "deny", "0"], ["consent", "revoke", consent]):
        assert "--by" in shell.json(*words, code=2)["error"]["remedy"], words
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    shell("review", "deny", 0, code=0)
    assert shell.json("review", "show", 0, code=0)["words"][0]["by"] == "ada"
