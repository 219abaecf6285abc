"""Entries that the ledger does not have, asked for by name: bad input (exit 2) for every command; damage is exit 4."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from safegen.keys import KeyStore
from safegen.ledger import Event, Ledger
from safegen.settings import Home
from tests.unit.in_process import InProcess

SIZE = 3


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    shell = InProcess(Home(tmp_path / "home"))
    monkeypatch.setenv("SAFEGEN_HOME", str(shell.home.root))
    with Ledger.open(shell.home.ledger_url, key=KeyStore.init(shell.home).ledger_key) as ledger:
        for number in range(SIZE):
            ledger.append(Event("generated", f"{number:016x}"))
    return shell


def commands(entry: str, folder: Path) -> dict[str, list[str]]:
    return {
        "show": ["ledger", "show", entry],
        "prove": ["ledger", "prove", entry],
        "prove into a file": ["ledger", "prove", entry, "-o", str(folder / "out.tlog-proof")],
        "receipt": ["ledger", "receipt", entry, "-o", str(folder / "out.cose")],
    }


@pytest.mark.slow
@pytest.mark.parametrize("entry", [str(SIZE), "999999", "000000000000009", "0123456789abcdef", "x", "", "²"])
def test_an_unknown_entry_is_bad_input_whatever_is_asked_of_it(shell: InProcess, entry: str, tmp_path: Path) -> None:
    for name, words in commands(entry, tmp_path).items():
        done = shell(*words, code=2)
        assert f"no entry {entry}" in done.output, name
        said = json.loads(shell(*words, "--json", code=2).stdout)["error"]
        assert (said["type"], said["message"]) == ("InputError", f"The ledger has no entry {entry}."), name
    assert shell("audit", "chain", entry).exit_code == 2
    assert list(tmp_path.glob("out.*")) == []


@pytest.mark.slow
def test_known_entries_are_found_by_either_name(shell: InProcess, tmp_path: Path) -> None:
    for entry in ("1", "01", f"{1:016x}"):
        for words in commands(entry, tmp_path).values():
            shell(*words, code=0)


def test_an_entry_that_was_deleted_is_damage(shell: InProcess, tmp_path: Path) -> None:
    with sqlite3.connect(shell.home.ledger_url.removeprefix("sqlite:///")) as db:
        db.execute("DROP TRIGGER entries_no_delete")
        db.execute("DELETE FROM entries WHERE idx = 1")
    for words in commands("1", tmp_path).values():
        assert "damaged" in shell(*words, code=4).output
