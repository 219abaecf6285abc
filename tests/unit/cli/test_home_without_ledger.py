"""A home in which nothing was recorded so far: every command that reads the ledger says the same as ``doctor``."""

from __future__ import annotations

from pathlib import Path

import pytest

from safegen.keys import KeyStore
from safegen.ledger import Event, Ledger
from safegen.settings import Home
from tests.unit.in_process import InProcess

CONTENT_ID = "0123456789abcdef"


@pytest.fixture
def shell(tmp_path: Path) -> InProcess:
    shell = InProcess(Home(tmp_path / "home"))
    KeyStore.init(shell.home)
    return shell


@pytest.mark.slow
def test_what_doctor_calls_ready_was_an_error_to_fsck_list_and_audit(shell: InProcess) -> None:
    assert shell.json("doctor", code=0)["ledger"]["ok"] is True
    for words in (["ledger", "list"], ["audit", "time"], ["audit", "mark", CONTENT_ID], ["audit", "daily"]):
        done = shell(*words, code=0)
        assert done.stdout == "0 entries\n", words
        assert "No ledger yet" in done.stderr, words
        assert shell(*words, "--json", code=0).stdout == "", words
    assert shell.json("ledger", "fsck", code=0)["size"] == 0
    assert shell("review", "list", code=0).stdout == ""
    shell("ledger", "show", 0, code=2)
    assert not (shell.home.root / "ledger.db").exists()


def test_a_ledger_that_is_gone_is_no_new_home(shell: InProcess, tmp_path: Path) -> None:
    keys = KeyStore.load(shell.home)
    with Ledger.open(shell.home.ledger_url, key=keys.ledger_key, origin=keys.ledger_name) as ledger:
        ledger.append(Event("generated", CONTENT_ID))
    shell("ledger", "checkpoint", "-o", tmp_path / "kept", code=0)
    for path in shell.home.root.glob("ledger.db*"):
        path.unlink()
    assert shell.json("ledger", "fsck", "--checkpoint", tmp_path / "kept", code=1)["ok"] is False
    shell.home.manifests.mkdir()
    (shell.home.manifests / f"{CONTENT_ID}.c2pa").write_bytes(b"")
    for words in (["ledger", "fsck"], ["ledger", "list"], ["audit", "time"]):
        assert "no ledger at" in shell.json(*words, code=4)["error"]["message"]
    assert shell.json("doctor", code=0)["ledger"]["ok"] is False


def test_doctor_check_exits_with_4_where_something_is_not_ready(tmp_path: Path, shell: InProcess) -> None:
    shell("doctor", "--check", code=0)
    empty = InProcess(Home(tmp_path / "empty"))
    assert empty.json("doctor", "--check", code=4)["ready"] is False
    assert "keys init" in empty("doctor", "--check", code=4).stdout


def test_a_policy_that_does_not_exist_is_bad_input_as_a_model_is(shell: InProcess, tmp_path: Path) -> None:
    for words in (["policy", "check", "a house"], ["generate", "a house", "-o", str(tmp_path / "a.mp4")]):
        error = shell.json(*words, "--policy", "nosuch", code=2)["error"]
        assert (error["type"], "nosuch" in error["message"]) == ("InputError", True)
    shell("generate", "a house", "-o", tmp_path / "a.mp4", "--model", "nosuch", code=2)
