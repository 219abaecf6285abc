"""``safegen ledger upgrade``, ``downgrade`` and ``current``, with data, on both databases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from safegen.cli.ledger import app
from safegen.errors import MigrationRequiredError
from safegen.ledger import Event, Ledger
from safegen.ledger.schema import HEAD, REVISIONS
from tests.postgres import DATABASES, database

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("SAFEGEN_HOME", str(tmp_path / "home"))
    with database(request.param, tmp_path) as url:
        monkeypatch.setenv("SAFEGEN_LEDGER_URL", url)
        yield url


def run(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == code, done.output
    return done.output


@pytest.mark.slow
def test_the_schema_goes_down_and_up_with_its_entries(url: str) -> None:
    with Ledger.open(url, key=KEY) as ledger:
        ledger.append_many(Event("generated", f"{n:016x}", asset_sha256=f"{n:064x}") for n in range(5))
        note = ledger.append(Event("failed")).checkpoint
    assert json.loads(run("current", "--json"))["revision"] == HEAD
    for revision in reversed(REVISIONS[:-1]):
        assert f"to {revision}." in run("downgrade", revision)
        assert f"needs {HEAD}: safegen ledger upgrade" in run("current")
        with pytest.raises(MigrationRequiredError) as refused:
            Ledger.open(url, key=KEY)
        assert "safegen ledger upgrade" in refused.value.remedy
    moved = json.loads(run("upgrade", "--json"))
    assert (moved["before"], moved["after"]) == (REVISIONS[0], HEAD)
    assert run("upgrade") == f"Already at {HEAD}.\n"
    assert run("current") == f"{HEAD}\n"
    with Ledger.open(url, key=KEY) as ledger:
        report = ledger.verify(outside=[note])
        assert (report.ok, report.size) == (True, 6), report.problems
        assert ledger.append(Event("failed")).index == 6


def test_a_revision_that_would_remove_the_ledger_is_not_taken(url: str) -> None:
    Ledger.open(url, key=KEY).close()
    assert "no schema revision base" in run("downgrade", "base", code=2)
    run("downgrade", "9999", code=2)
    assert run("current") == f"{HEAD}\n"
