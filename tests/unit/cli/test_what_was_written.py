"""Commands that write a file say so, and what people read is no JSON."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from safegen.keys import KeyStore
from safegen.ledger import Event, Ledger, VerifierKey
from safegen.settings import Home
from tests.unit.in_process import InProcess

CONTENT_ID = "0123456789abcdef"


@pytest.fixture
def shell(tmp_path: Path) -> InProcess:
    shell = InProcess(Home(tmp_path / "home"))
    keys = KeyStore.init(shell.home)
    with Ledger.open(shell.home.ledger_url, key=keys.ledger_key, origin=keys.ledger_name) as ledger:
        body = {"seed": 7, "note": "a\x1b[2Jb", "decision": {"action": "flag"}}
        ledger.append(Event("generated", CONTENT_ID, body, "a" * 64, action="flag"))
    return shell


def test_prove_and_checkpoint_wrote_files_without_a_word(shell: InProcess, tmp_path: Path) -> None:
    proof, kept = tmp_path / "p", tmp_path / "c"
    assert shell("ledger", "prove", 0, "-o", proof, code=0).stdout == f"Wrote {proof}: entry 0 of 1.\n"
    assert shell("ledger", "checkpoint", "-o", kept, code=0).stdout.startswith(f"Wrote {kept}: 1 entry, signed by ")
    assert shell.json("ledger", "prove", 0, "-o", proof, code=0)["output"] == str(proof)
    assert shell.json("ledger", "checkpoint", "-o", kept, code=0)["output"] == str(kept)
    assert shell.json("ledger", "checkpoint", code=0)["output"] is None
    assert shell("ledger", "prove", 0, code=0).stdout == proof.read_text()


def test_show_printed_json_to_people(shell: InProcess) -> None:
    told = shell("ledger", "show", 0, code=0).stdout
    assert told.startswith("entry 0")
    assert "\x1b" not in told
    rows = dict(line.split(maxsplit=1) for line in told.splitlines()[1:])
    assert (rows["content_id"], rows["decision"], rows["body.seed"]) == (CONTENT_ID, "flag", "7")
    assert shell.json("ledger", "show", 0, code=0)["body"]["seed"] == 7


def test_the_key_that_auditors_ask_for_was_printed_by_no_command(shell: InProcess, tmp_path: Path) -> None:
    keys = KeyStore.load(shell.home)
    vkey = str(VerifierKey.of(keys.ledger_name, keys.ledger_public_key))
    assert shell.json("keys", "show", code=0)["vkey"] == vkey
    assert vkey in shell("keys", "show", code=0).stdout.split()
    proved = shell.json("ledger", "prove", 0, "-o", tmp_path / "p", code=0)
    (tmp_path / "leaf").write_text(proved["leaf"])
    shell("ledger", "check", tmp_path / "p", "--leaf", tmp_path / "leaf", "--key", vkey, code=0)


def test_a_shell_asks_for_completions_and_gets_them() -> None:
    asked = {"_SAFEGEN_COMPLETE": "complete_bash", "COMP_WORDS": "safegen ver", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "safegen"],
        env=os.environ | asked,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["verify"]
