"""The index from soft bindings to manifests: filled by appends and by the migration, never believed over an entry."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safegen.errors import LedgerDamagedError, MigrationRequiredError
from safegen.ledger import Binding, Event, Ledger, current_revision, downgrade, upgrade

KEY = Ed25519PrivateKey.generate()
ALG = "org.safegen.latent-residual.1"


def generated(number: int, **body: object) -> Event:
    said = {"mark": {"scheme": "latent-residual"}, "manifest_id": f"urn:c2pa:{number}"} | body
    return Event("generated", f"{number:016x}", said)


def make(url: str) -> None:
    with Ledger.open(url, key=KEY) as ledger:
        ledger.append(Event("blocked"))
        for number in range(5):
            ledger.append(generated(number))
        ledger.append(Event("recovered", f"{1:016x}", {"manifest_id": "urn:c2pa:new"}))
        ledger.append(generated(5, mark=None))
        ledger.append(generated(6, manifest_id=7))
        ledger.append(generated(7, mark={"scheme": "x" * 200}))


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    make(url)
    return url


def check(url: str) -> None:
    with Ledger.open(url, create=False, read_only=True) as ledger:
        for number in range(5):
            wanted = Binding(number + 1, ALG, f"{number:016x}", f"urn:c2pa:{number}")
            assert ledger.find_binding(ALG, wanted.value, limit=10) == [wanted]
            assert ledger.find_manifest(wanted.manifest_id) == wanted
            assert ledger.find_binding(ALG, wanted.value, limit=10, after=wanted.entry) == []
            assert ledger.find_binding("org.safegen.pixel.1", wanted.value, limit=10) == []
        for number in (5, 6, 7, 8):
            assert ledger.find_binding(ALG, f"{number:016x}", limit=10) == []
        assert ledger.find_manifest("urn:c2pa:new") is None
        assert ledger.verify().ok


def test_appends_fill_the_index(url: str) -> None:
    check(url)


def test_the_migration_fills_it_for_older_ledgers_and_takes_it_back(url: str) -> None:
    downgrade(url, "0001")
    assert current_revision(url) == "0001"
    with pytest.raises(MigrationRequiredError, match="0001"):
        Ledger.open(url)
    upgrade(url)
    check(url)


def test_a_damaged_leaf_does_not_stop_the_migration(url: str, tmp_path: Path) -> None:
    downgrade(url, "0001")
    with sqlite3.connect(tmp_path / "ledger.db") as db:
        db.execute("DROP TRIGGER entries_no_update")
        db.execute("UPDATE entries SET leaf = '{' WHERE idx = 2")
    upgrade(url)
    with Ledger.open(url, create=False, read_only=True) as ledger:
        assert ledger.find_binding(ALG, f"{1:016x}", limit=10) == []
        assert len(ledger.find_binding(ALG, f"{2:016x}", limit=10)) == 1


@pytest.mark.parametrize(("column", "value"), [("manifest_id", "urn:c2pa:other"), ("alg", "org.example.other.1")])
def test_a_row_that_its_entry_contradicts_is_not_believed(url: str, tmp_path: Path, column: str, value: str) -> None:
    with sqlite3.connect(tmp_path / "ledger.db") as db:
        db.execute(f"UPDATE soft_bindings SET {column} = ? WHERE entry = 2", (value,))
    alg = value if column == "alg" else ALG
    with (
        Ledger.open(url, create=False, read_only=True) as ledger,
        pytest.raises(LedgerDamagedError, match="entry 2"),
    ):
        ledger.find_binding(alg, f"{1:016x}", limit=10)
