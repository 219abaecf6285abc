"""``safegen audit`` where there is nothing to tell, and where the question makes no sense."""

from __future__ import annotations

from pathlib import Path

import pytest

from safegen.keys import KeyStore
from safegen.ledger import Event, Ledger
from safegen.settings import Home
from tests.unit.in_process import InProcess


@pytest.fixture
def shell(tmp_path: Path) -> InProcess:
    shell = InProcess(Home(tmp_path / "home"))
    keys = KeyStore.init(shell.home)
    with Ledger.open(shell.home.ledger_url, key=keys.ledger_key, origin=keys.ledger_name) as ledger:
        ledger.append(Event("generated", "0" * 16, {"decision": {"policy_id": "default", "action": "allow"}}, "a" * 64))
    return shell


@pytest.mark.slow
def test_a_question_that_finds_nothing_was_answered_by_silence(shell: InProcess) -> None:
    for words in (["mark", "f" * 16], ["policy", "nosuch"], ["model", "nosuch"], ["daily", "--to", "2001-01-01"]):
        assert shell("audit", *words, code=0).stdout == "0 entries\n", words
        assert shell("audit", *words, "--json", code=0).stdout == "", words
        assert len(shell("audit", *words, "--csv", code=0).stdout.splitlines()) == 1, words
    assert "0 entries" not in shell("audit", "time", code=0).stdout


def test_a_decision_that_does_not_exist_found_nothing(shell: InProcess) -> None:
    for decision in ("blocked", "Allow", ""):
        shell("audit", "policy", "default", "--decision", decision, code=2)
    for decision in ("allow", "flag", "rewrite", "review", "block"):
        shell("audit", "policy", "default", "--decision", decision, code=0)
