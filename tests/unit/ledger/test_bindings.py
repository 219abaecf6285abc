"""The indexes from marks and looks to entries: filled by appends and by migrations, never believed over an entry."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safegen.errors import LedgerDamagedError, MigrationRequiredError
from safegen.ledger import Binding, Event, Ledger, current_revision, downgrade, upgrade
from safegen.ledger.likeness_index import BANDS, INDEXED, PER_KEY, keys_of, rows_of
from tests.postgres import DATABASES, database

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


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with database(request.param, tmp_path) as url:
        make(url)
        yield url


def execute(url: str, *statements: str) -> None:
    """Change the tables behind the ledger's back."""
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            if not statement.startswith("DROP TRIGGER") or engine.dialect.name == "sqlite":
                connection.exec_driver_sql(statement)
    engine.dispose()


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


def test_a_damaged_leaf_does_not_stop_the_migration(url: str) -> None:
    downgrade(url, "0001")
    execute(url, "DROP TRIGGER entries_no_update", "UPDATE entries SET leaf = '{' WHERE idx = 2")
    upgrade(url)
    with Ledger.open(url, create=False, read_only=True) as ledger:
        assert ledger.find_binding(ALG, f"{1:016x}", limit=10) == []
        assert len(ledger.find_binding(ALG, f"{2:016x}", limit=10)) == 1


@pytest.mark.parametrize(("column", "value"), [("manifest_id", "urn:c2pa:other"), ("alg", "org.example.other.1")])
def test_a_row_that_its_entry_contradicts_is_not_believed(url: str, column: str, value: str) -> None:
    execute(url, f"UPDATE soft_bindings SET {column} = '{value}' WHERE entry = 2")
    alg = value if column == "alg" else ALG
    with (
        Ledger.open(url, create=False, read_only=True) as ledger,
        pytest.raises(LedgerDamagedError, match="entry 2"),
    ):
        ledger.find_binding(alg, f"{1:016x}", limit=10)


def test_an_id_that_no_database_can_hold_is_not_found(url: str) -> None:
    with Ledger.open(url, create=False, read_only=True) as ledger:
        assert ledger.find_manifest("urn:c2pa:\0") is None
        assert ledger.find_binding(ALG, "\0", limit=1) == []


# -- looks -----------------------------------------------------------------------------------------------------------


def digest(number: int) -> bytes:
    return random.Random(number).randbytes(32)


def looking(number: int, *digests: bytes | str) -> Event:
    hashes = [d if isinstance(d, str) else d.hex() for d in digests]
    mark = {"scheme": "latent-residual", "video_hash": hashes}
    return Event("generated", f"{number:016x}", {"mark": mark, "manifest_id": f"urn:c2pa:{number}"})


@pytest.fixture
def looks(url: str) -> str:
    with Ledger.open(url, key=KEY) as ledger:
        for number in range(100, 110):
            ledger.append(looking(number, digest(number), digest(number + 1000)))
        ledger.append(Event("failed", f"{110:016x}", looking(110, digest(110)).body))
        ledger.append(looking(111))
        ledger.append(looking(112, "no hash", "\0", "ab", digest(112)))
    return url


def alike(url: str, wanted: bytes, most: int = 5) -> list[str]:
    with Ledger.open(url, create=False, read_only=True) as ledger:
        return [str(entry.content_id) for entry in ledger.find_alike(keys_of(wanted), most)]


def test_what_shares_pieces_of_a_hash_is_found(looks: str) -> None:
    assert alike(looks, digest(103)) == [f"{103:016x}"]
    assert alike(looks, digest(1103)) == [f"{103:016x}"]
    assert alike(looks, bytes(b ^ 1 for b in digest(103))[:16] + digest(103)[16:]) == [f"{103:016x}"]
    assert alike(looks, digest(112)) == [f"{112:016x}"]
    assert alike(looks, digest(110)) == alike(looks, digest(7)) == []


def test_what_shares_most_comes_first(looks: str) -> None:
    with Ledger.open(looks, key=KEY) as ledger:
        half = int.from_bytes(digest(105)) ^ sum(1 << (255 - place) for place in range(0, BANDS * 24, 5))
        ledger.append(looking(300, half.to_bytes(32)))
    assert alike(looks, digest(105)) == [f"{105:016x}", f"{300:016x}"]
    assert alike(looks, digest(105), 1) == [f"{105:016x}"]


def test_what_half_the_world_shares_finds_the_newest(url: str) -> None:
    with Ledger.open(url, key=KEY) as ledger:
        for number in range(PER_KEY + 6):
            ledger.append(looking(1000 + number, digest(0)))
    found = alike(url, digest(0), 1000)
    assert (len(found), f"{1005:016x}" in found, f"{1006:016x}" in found) == (PER_KEY, False, True)


def test_the_rows_of_one_clip_are_bounded() -> None:
    rows = rows_of(7, looking(1, *map(digest, range(20))))
    assert len(rows) == INDEXED * BANDS
    assert {key for n in (0, 19) for key in keys_of(digest(n))} < {key for key, _ in rows}


def test_the_migration_fills_the_looks_of_older_entries(looks: str) -> None:
    def rows() -> list[tuple[int, int]]:
        engine = sqlalchemy.create_engine(looks)
        with engine.connect() as connection:
            found = connection.exec_driver_sql("SELECT key, entry FROM hash_bands ORDER BY key, entry").all()
        engine.dispose()
        return [(key, entry) for key, entry in found]

    before = rows()
    downgrade(looks, "0002")
    upgrade(looks)
    assert rows() == before
    assert len(before) == 21 * BANDS


def test_a_row_of_another_clip_leads_to_a_candidate_and_no_further(looks: str) -> None:
    """What counts is the hash in the entry, which the caller compares; a row of no entry leads nowhere."""
    [key, *_] = keys_of(digest(7))
    execute(looks, f"INSERT INTO hash_bands VALUES ({key}, 11)", f"INSERT INTO hash_bands VALUES ({key}, 999)")
    assert len(alike(looks, digest(7))) == 1
