"""The ledger on PostgreSQL: what every database must do alike, and what is PostgreSQL's own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safegen.errors import LedgerBusyError, LedgerDamagedError, LedgerError
from safegen.ledger import Event, Ledger, Receipt, current_revision, downgrade, upgrade, verify_inclusion
from safegen.ledger.schema import REVISIONS
from tests.processes import in_fork

KEY = Ed25519PrivateKey.generate()


def generated(number: int) -> Event:
    body = {"mark": {"scheme": "latent-residual"}, "manifest_id": f"urn:c2pa:{number}", "text": "Grüße, 你好, \0"}
    return Event("generated", f"{number:016x}", body, asset_sha256=f"{number:064x}")


def fill(url: str, count: int = 5) -> None:
    with Ledger.open(url, key=KEY) as ledger:
        for number in range(count):
            assert ledger.append(generated(number)).index == number


def execute(url: str, statement: str) -> None:
    engine = sqlalchemy.create_engine(url)
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(statement)
    finally:
        engine.dispose()


def test_entries_are_appended_found_and_proved(url: str) -> None:
    fill(url)
    with Ledger.open(url, create=False, read_only=True) as ledger:
        assert ledger.count() == 5
        entry = ledger.get(3)
        assert (entry.content_id, entry.body["text"]) == (f"{3:016x}", "Grüße, 你好, \0")
        assert [e.index for e in ledger.find_content(f"{3:016x}")] == [3]
        assert [e.index for e in ledger.find_asset(f"{2:064x}")] == [2]
        assert [e.index for e in ledger.entries(3, newest_first=True)] == [4, 3, 2]
        assert ledger.content_ids(2) == [f"{4:016x}", f"{3:016x}"]
        assert verify_inclusion(ledger.prove(1), ledger.get(1).leaf, KEY.public_key())
        report = ledger.verify(KEY.public_key())
    assert (report.ok, report.size, report.problems) == (True, 5, ())


def test_a_clip_is_generated_once(url: str) -> None:
    fill(url, 1)
    with Ledger.open(url, key=KEY) as ledger, pytest.raises(LedgerError, match="generated before"):
        ledger.append(replace(generated(0), body={}))


def test_an_edited_entry_is_not_believed(url: str) -> None:
    fill(url, 3)
    if url.startswith("sqlite"):
        execute(url, "DROP TRIGGER entries_no_update")
    else:
        execute(url, "ALTER TABLE entries DISABLE TRIGGER entries_only_append")
    execute(url, "UPDATE entries SET asset_sha256 = 'ff' WHERE idx = 1")
    with Ledger.open(url, create=False, read_only=True) as ledger:
        with pytest.raises(LedgerDamagedError, match="entry 1"):
            ledger.get(1)
        problems = ledger.verify(KEY.public_key()).problems
    assert any((p.index, p.column) == (1, "asset_sha256") for p in problems)


def test_the_migrations_go_up_and_down(url: str) -> None:
    upgrade(url, REVISIONS[0])
    assert current_revision(url) == REVISIONS[0]
    for revision in (*REVISIONS[1:], *reversed(REVISIONS[:-1])):
        (upgrade if revision > (current_revision(url) or "") else downgrade)(url, revision)
        assert current_revision(url) == revision
    upgrade(url)
    fill(url, 2)
    downgrade(url, "base")
    assert current_revision(url) is None
    with pytest.raises(LedgerError, match="no ledger"):
        Ledger.open(url, create=False)


def test_migrated_tables_are_the_declared_ones(postgres: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from safegen.ledger.models import metadata

    upgrade(postgres)
    engine = sqlalchemy.create_engine(postgres)
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()
    assert {d[0] for d in differences} == {"remove_index"}
    partial = {"uq_entries_generated", "ix_entry_facts_parent", "ix_entry_facts_input"}
    assert {d[1].name for d in differences} == partial, "partial indexes stand in the migrations alone"


def test_writers_take_turns(url: str) -> None:
    fill(url, 1)

    def write(first: int) -> None:
        with Ledger.open(url, key=KEY) as ledger:
            for number in range(first, first + 8):
                ledger.append(generated(number))

    writers = [threading.Thread(target=write, args=(100 * n,)) for n in range(1, 4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    with Ledger.open(url, create=False, read_only=True) as ledger:
        assert ledger.count() == 25
        assert ledger.verify(KEY.public_key()).ok


def test_a_writer_that_waits_too_long_is_told_so(postgres: str) -> None:
    fill(postgres, 1)
    engine = sqlalchemy.create_engine(postgres)
    with engine.begin() as connection, Ledger.open(postgres, key=KEY, busy_seconds=0.2) as ledger:
        connection.exec_driver_sql("SELECT * FROM head FOR UPDATE")
        with pytest.raises(LedgerBusyError):
            ledger.append(generated(1))
    engine.dispose()
    fill_one = Ledger.open(postgres, key=KEY)
    assert fill_one.append(generated(1)).index == 1
    fill_one.close()


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(LedgerError, match="could not be used"):
        Ledger.open(f"postgresql+psycopg://nobody:secret@/none?host={tmp_path}", create=False)


def test_a_shared_database_holds_tables_of_others(postgres: str) -> None:
    execute(postgres, "CREATE TABLE others (id integer)")
    fill(postgres, 1)
    downgrade(postgres, "base")
    execute(postgres, "INSERT INTO others VALUES (1)")


def test_a_writer_and_its_fork_have_connections_of_their_own(postgres: str) -> None:
    with Ledger.open(postgres, key=KEY) as ledger:
        assert ledger.append(generated(0)).index == 0

        def act() -> None:
            assert ledger.append(generated(1)).index == 1
            assert ledger.get(0).content_id == f"{0:016x}"

        assert in_fork(act) == 0
        assert ledger.append(generated(2)).index == 2
        assert ledger.verify().ok


def held(url: str, act: Callable[[], list[Receipt]], meanwhile: str) -> list[Receipt] | LedgerError:
    """What becomes of an append while another writer integrates, and runs a statement on its row before it ends."""
    found: list[list[Receipt] | LedgerError] = []

    def run() -> None:
        try:
            found.append(act())
        except LedgerError as error:
            found.append(error)

    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    thread = threading.Thread(target=run)
    with engine.connect() as other:
        other.exec_driver_sql("SELECT pg_advisory_lock(%s)", (0x5AFE_6E0E,))
        thread.start()
        while not other.exec_driver_sql("SELECT count(*) FROM pending WHERE outcome IS NULL").scalar():
            time.sleep(0.002)
        other.exec_driver_sql(meanwhile)
    engine.dispose()
    thread.join()
    return found[0]


def test_an_answer_takes_the_ledgers_key(postgres: str) -> None:
    with Ledger.open(postgres, key=KEY) as ledger:
        forged = """UPDATE pending SET outcome = repeat('0', 64) || '[{"notes": ["x"], "receipts": [[7, "ab", 0]]}]'"""
        found = held(postgres, lambda: ledger.append_many([generated(1)]), forged)
        assert isinstance(found, LedgerError)
        assert "holder of the ledger's key" in str(found)
        assert ledger.append(generated(1)).index == 0


def test_an_old_answer_is_none_to_a_new_request(postgres: str) -> None:
    with Ledger.open(postgres, key=KEY) as ledger, Ledger.open(postgres, key=KEY) as integrator:
        engine = sqlalchemy.create_engine(postgres, isolation_level="AUTOCOMMIT")
        with engine.connect() as other:
            other.exec_driver_sql("SELECT pg_advisory_lock(%s)", (0x5AFE_6E0E,))
            writers = [
                threading.Thread(target=one.append, args=(generated(n),)) for n, one in enumerate((ledger, integrator))
            ]
            for writer in writers:
                writer.start()
            while other.exec_driver_sql("SELECT count(*) FROM pending").scalar() != 2:
                time.sleep(0.002)
            other.exec_driver_sql("SELECT pg_advisory_unlock_all()")
        for writer in writers:
            writer.join()
        with engine.connect() as other:
            old = other.exec_driver_sql("SELECT id, outcome FROM pending WHERE outcome <> ''").one()
        engine.dispose()
        mine = ledger if ledger._writer._way._name == old.id else integrator  # type: ignore[union-attr]
        again = f"UPDATE pending SET outcome = '{old.outcome}'"
        found = held(postgres, lambda: mine.append_many([generated(5)]), again)
        assert isinstance(found, LedgerError)
        assert "holder of the ledger's key" in str(found)
        assert ledger.count() == 2


@pytest.mark.parametrize("count", [1, 49, 400])
def test_text_that_a_table_cannot_hold_is_refused_alone(postgres: str, count: int) -> None:
    events = [generated(number) for number in range(count)]
    with Ledger.open(postgres, key=KEY) as ledger:
        with pytest.raises(LedgerError):
            ledger.append_many([*events[:-1], replace(events[-1], model="a\0b")])
        assert ledger.append_many(events)[-1].index == count - 1
        entry = ledger.get(count - 1)
        assert entry.body["text"] == "Grüße, 你好, \0"
        assert ledger.verify().ok
