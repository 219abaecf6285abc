"""What the ledger gives others to check, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from safegen.cli.app import app
from safegen.keys import KeyStore
from safegen.ledger import Event, Ledger, VerifierKey
from safegen.settings import Home

RUN = CliRunner()


@pytest.fixture
def vkey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SAFEGEN_HOME", str(tmp_path / "home"))
    home = Home(tmp_path / "home")
    keys = KeyStore.init(home)
    with Ledger.open(home.ledger_url, key=keys.ledger_key, origin=keys.ledger_name) as ledger:
        for number in range(5):
            ledger.append(Event("generated", content_id=f"{number:016x}", body={"number": number}))
    return str(VerifierKey.of(keys.ledger_name, keys.ledger_public_key))


def run(*arguments: object, code: int = 0) -> str:
    done = RUN.invoke(app, ["ledger", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done.stdout


def test_a_proof_and_a_receipt_hold_elsewhere(vkey: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proof, receipt, leaf = tmp_path / "entry.tlog-proof", tmp_path / "entry.cose", tmp_path / "leaf.json"
    run("prove", "0000000000000003", "-o", proof)
    shown = json.loads(run("receipt", 3, "-o", receipt, "--json"))
    leaf.write_text(shown["leaf"])
    monkeypatch.setenv("SAFEGEN_HOME", str(tmp_path / "elsewhere"))  # no keys, no ledger
    for file in (proof, receipt):
        assert json.loads(run("check", file, "--leaf", leaf, "--key", vkey, "--json"))["entry"] == 3
    leaf.write_text(shown["leaf"].replace('"number":3', '"number":4'))
    for file in (proof, receipt):
        assert json.loads(run("check", file, "--leaf", leaf, "--key", vkey, "--json", code=1))["holds"] is False
    other = vkey.replace(vkey.partition("+")[0], "example.com/other")
    run("check", proof, "--leaf", leaf, "--key", other, code=4)
    proof.write_bytes(b"\xff\x00")
    assert "Does not hold" in run("check", proof, "--leaf", leaf, "--key", vkey, code=1)


def test_checkpoints_and_tiles_are_written(vkey: str, tmp_path: Path) -> None:
    note = run("checkpoint")
    assert note.startswith(vkey.partition("+")[0] + "\n5\n")
    run("checkpoint", "-o", tmp_path / "kept")
    assert (tmp_path / "kept").read_text() == note
    run("fsck", "--checkpoint", tmp_path / "kept")
    assert json.loads(run("export-tiles", tmp_path / "tiles", "--json"))["size"] == 5
    assert (tmp_path / "tiles" / "checkpoint").read_text() == note
    assert "0 files written" in run("export-tiles", tmp_path / "tiles")


def test_a_witness_is_made(vkey: str, tmp_path: Path) -> None:
    made = json.loads(run("witness", "init", tmp_path / "w", "--name", "w.example", "--json"))
    assert made["vkey"].startswith("w.example+")
    assert (tmp_path / "w" / "witness.key").stat().st_mode & 0o777 == 0o600
    run("witness", "add", tmp_path / "w", vkey)
    run("witness", "init", tmp_path / "w", "--name", "w.example", code=4)
    done = RUN.invoke(app, ["ledger", "checkpoint", "--witness", f"http://127.0.0.1:9 {made['vkey']}"])
    assert done.exit_code == 0
    assert "Not cosigned by w.example" in done.stderr
