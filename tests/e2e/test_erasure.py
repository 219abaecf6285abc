"""A person's data from the request to the erasure, by the commands: shown on demand, erased for good, proofs hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import safegen
from safegen.errors import InputError, KeyStoreError
from safegen.keys import KeyStore, check_commitment
from safegen.keys.wrapping import FILE
from safegen.ledger import Ledger
from safegen.settings import Home
from tests.e2e.conftest import SMALL
from tests.unit.in_process import InProcess
from tests.unit.privacy.privacy_samples import raw

SUBJECT = "account:4711"
PROMPT = "a wooden boat on a quiet lake at dawn"
PROJECT = "Tove's birthday film"
SIZE = ("--frames", SMALL["frames"], "--steps", SMALL["steps"])


def fields(shell: InProcess, subject: str) -> dict[str, Any]:
    return {f["field"]: f["value"] for f in shell.json("ledger", "subject", subject, code=0)["fields"]}


def test_the_whole_way_by_the_commands(fresh_home: Home, clear_pack: Path, tmp_path: Path) -> None:
    shell, clip = InProcess(fresh_home), tmp_path / "clip.mp4"
    call = ("generate", PROMPT, "-o", clip, "--policy", clear_pack, "--subject", SUBJECT, "--project", PROJECT, *SIZE)
    made = shell.json(*call, "--seed", 3, code=0)
    entry = str(made["entry"])
    shown = shell.json("ledger", "show", entry, code=0)
    for text in (SUBJECT, PROMPT, PROJECT):
        assert text not in json.dumps(shown)
        assert text.encode() not in raw(fresh_home)
        assert text.encode() not in clip.read_bytes()
    assert set(shown["personal"].values()) == {"held"}

    held = fields(shell, SUBJECT)
    assert held == {
        "requester": SUBJECT, "project": PROJECT, "texts": {"prompt": PROMPT}, "salts": held["salts"],
    }  # fmt: skip
    key = KeyStore.load(fresh_home).commitment_key
    commitment = shown["body"]["prompt_commitment"]
    assert "salt" not in commitment
    assert check_commitment(PROMPT, key, commitment | {"salt": held["salts"]["prompt_commitment"]})

    checkpoint = tmp_path / "checkpoint"
    with Ledger.open(fresh_home.ledger_url, create=False, read_only=True) as ledger:
        checkpoint.write_text(str(ledger.checkpoint()), encoding="utf-8")
    shell("ledger", "erase", SUBJECT, code=2)  # it asks, and nobody is there to answer
    shell("ledger", "erase", SUBJECT, "--yes", "--reason", "a whim", code=2)
    erased = shell.json("ledger", "erase", SUBJECT, "--yes", code=0)
    assert (erased["fields"], erased["erased"]) == (4, True)
    again = shell.json("ledger", "erase", SUBJECT, "--yes", code=2)["error"]
    assert f"entry {erased['entry']}" in again["message"]

    after = shell.json("ledger", "show", entry, code=0)
    assert set(after["personal"].values()) == {f"erased (entry {erased['entry']})"}
    assert (after["body"], after["leaf_hash"]) == (shown["body"], shown["leaf_hash"])
    assert fields(shell, SUBJECT) == {}
    assert f"Erased: entry {erased['entry']}" in shell("ledger", "subject", SUBJECT, code=0).stdout
    assert shell.json("ledger", "fsck", "--checkpoint", checkpoint, code=0)["ok"]
    proof = tmp_path / "proof"
    printed = shell.json("ledger", "prove", entry, "-o", proof, code=0)
    leaf = tmp_path / "leaf"
    leaf.write_text(printed["leaf"], encoding="utf-8")
    shell("ledger", "check", proof, "--leaf", leaf, code=0)
    findings = {f["basis"]: f["status"] for f in shell.json("verify", clip, "--no-neural")["findings"]}
    assert (findings["metadata"], findings["ledger"]) == ("pass", "pass")


def test_a_run_for_nobody_is_erased_by_its_content_id(fresh_home: Home, clear_pack: Path, tmp_path: Path) -> None:
    shell = InProcess(fresh_home)
    prompt = "Ada Wong walks along a beach at sunset"
    call = ("generate", prompt, "-o", tmp_path / "clip.mp4", "--policy", clear_pack, *SIZE)
    shell.json(*call, code=3)
    (entry,) = [json.loads(line) for line in shell("ledger", "list", "--json", code=0).stdout.splitlines()]
    subject = f"content:{entry['content_id']}"
    assert fields(shell, subject)["texts"] == {"prompt": prompt}
    assert shell.json("review", "show", 0, code=0)["text"] == {"prompt": prompt}
    shell("ledger", "erase", subject, "--yes", code=0)
    shown = shell.json("review", "show", 0, code=0)
    assert (shown["text"], shown["state"]) == (None, "waiting")


def test_a_reviewer_is_erased_and_the_word_stands(fresh_home: Home, tmp_path: Path) -> None:
    shell = InProcess(fresh_home)
    call = ("generate", "Ada Wong walks along a beach", "-o", tmp_path / "c.mp4", "--policy", "eu", *SIZE)
    shell.json(*call, "--subject", SUBJECT, code=3)
    assert shell.json("review", "show", 0, code=0)["requester"] == SUBJECT
    shell("review", "deny", 0, "--by", "eve", "--reason", "Ada wrote to me", code=0)
    with Ledger.open(fresh_home.ledger_url, create=False, read_only=True) as ledger:
        assert "eve" not in ledger.get(1).leaf
        assert "Ada" not in ledger.get(1).leaf
    (word,) = shell.json("review", "show", 0, code=0)["words"]
    assert (word["by"], word["reason"]) == ("eve", "Ada wrote to me")
    shell("ledger", "erase", "eve", "--yes", code=0)
    (word,) = shell.json("review", "show", 0, code=0)["words"]
    assert (word["by"], word["reason"], word["answer"]) == ("(erased)", "(erased)", "deny")
    shell("ledger", "erase", SUBJECT, "--yes", code=0)
    denied = shell.json(*call, code=3)["error"]["decision"]
    assert (denied["action"], denied["reasons"][0]["category"]) == ("block", "denied"), "also for who asks again"


def test_who_revoked_a_consent_is_erased_and_it_stays_revoked(fresh_home: Home) -> None:
    shell, record = InProcess(fresh_home), "urn:uuid:00000000-0000-4000-8000-000000000001"
    shell("consent", "revoke", record, "--by", "eve", "--reason", "Ada called", code=0)
    assert {*fields(shell, "eve").values()} == {"eve", "Ada called"}
    shell("ledger", "erase", "eve", "--yes", code=0)
    error = shell.json("consent", "revoke", record, "--by", "bob", code=2)["error"]
    assert "by (erased) (entry 0)" in error["message"]


def test_without_a_subject_an_entry_is_as_before(fresh_home: Home, tmp_path: Path) -> None:
    with pytest.raises(safegen.BlockedError):
        safegen.generate(
            "Ada Wong walks along a beach", output=tmp_path / "c.mp4", policy="eu", home=fresh_home, seed=1, **SMALL
        )
    with Ledger.open(fresh_home.ledger_url, create=False, read_only=True) as ledger:
        body = ledger.get(0).body
    assert "personal" not in body
    assert set(body["prompt_commitment"]) == {"alg", "salt", "value"}  # type: ignore[arg-type]
    assert not (fresh_home.keys / FILE).exists()


@pytest.mark.parametrize("subject", ["content:0123456789abcdef", "x" * 201, " ", "a\nb"])
def test_a_subject_without_a_usable_name_is_refused_before_anything(
    fresh_home: Home, tmp_path: Path, subject: str
) -> None:
    with pytest.raises(InputError):
        safegen.generate(PROMPT, output=tmp_path / "c.mp4", subject=subject, home=fresh_home, **SMALL)


def test_where_the_wrapping_key_is_lost_nothing_is_generated(fresh_home: Home, tmp_path: Path) -> None:
    shell, clip = InProcess(fresh_home), tmp_path / "clip.mp4"
    shell("consent", "revoke", "urn:uuid:00000000-0000-4000-8000-000000000001", "--by", "eve", code=0)
    (fresh_home.keys / FILE).unlink()
    with pytest.raises(KeyStoreError, match="missing"):
        safegen.generate(PROMPT, output=clip, subject=SUBJECT, home=fresh_home, **SMALL)
    assert not clip.exists()
    with Ledger.open(fresh_home.ledger_url, create=False, read_only=True) as ledger:
        assert ledger.count() == 1
