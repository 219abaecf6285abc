"""Batches, threads that commit together, events that are recorded once, and what the clock may do."""

from __future__ import annotations

import datetime as dt
import hashlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safegen.errors import LedgerBusyError, LedgerError
from safegen.ledger import Event, Ledger, Receipt, downgrade, upgrade, verify_inclusion, writing
from safegen.ledger.entry import draft
from safegen.ledger.writing import look_ups
from tests.postgres import database

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    with Ledger.open(url, key=KEY) as ledger:
        yield ledger


def generated(number: int, **body: int) -> Event:
    return Event("generated", f"{number:016x}", dict(body), asset_sha256=f"{number:064x}")


def test_a_batch_lies_under_one_checkpoint(ledger: Ledger) -> None:
    first = ledger.append_many(generated(n) for n in range(300))
    second = ledger.append_many([Event("failed"), Event("failed")])
    assert [r.index for r in first + second] == list(range(302))
    assert len({r.checkpoint for r in first}) == 1
    times = [e.time for e in ledger.entries()]
    assert len(set(times[:300])) == len(set(times[300:])) == 1
    assert times[0] != times[-1]
    assert ledger.checkpoint(300) == first[0].checkpoint
    assert ledger.checkpoint(299) is None
    assert verify_inclusion(ledger.prove(123), ledger.get(123).leaf, KEY.public_key())
    assert ledger.verify().ok


def test_a_batch_is_recorded_whole_or_not_at_all(ledger: Ledger) -> None:
    ledger.append(generated(1))
    with pytest.raises(LedgerError, match="generated before"):
        ledger.append_many([generated(5), generated(1, other=1), generated(6)])
    with pytest.raises(LedgerError, match="generated before"):
        ledger.append_many([generated(5), generated(5, other=1)])
    with pytest.raises(LedgerError, match="event kind"):
        ledger.append_many([generated(5), Event("No Kind")])
    with pytest.raises(LedgerError, match="too many"):
        ledger.append_many([Event("failed")] * 10_001)
    assert ledger.append_many([]) == []
    assert ledger.count() == 1
    assert ledger.append(generated(5)).index == 1
    assert ledger.verify().ok


def test_an_event_about_an_asset_is_recorded_once(ledger: Ledger, url: str) -> None:
    receipt = ledger.append(generated(1))
    others = ledger.append_many([generated(2), generated(3)])
    assert ledger.append(generated(1)) == receipt
    assert ledger.append_many([generated(3), generated(4), generated(4)])[0] == others[1]
    with Ledger.open(url, key=KEY) as again:  # another process, after a crash
        assert again.append(generated(2)) == others[0]
    assert ledger.append(Event("withdrawn", f"{1:016x}", asset_sha256=f"{1:064x}")).index == 4
    assert ledger.count() == 5
    assert ledger.verify().ok


def test_events_without_an_asset_may_happen_twice(ledger: Ledger) -> None:
    assert [ledger.append(Event("blocked", body={"n": 1})).index for _ in range(2)] == [0, 1]


def test_older_versions_find_what_they_knew_events_by(url: str) -> None:
    events = [generated(1), Event("failed"), Event("reviewed", asset_sha256="a" * 64)]
    with Ledger.open(url, key=KEY) as ledger:
        receipts = ledger.append_many(events)
    downgrade(url, "0007")
    drafts = [draft(event) for event in events]
    keys = [hashlib.sha256(made.before + made.between).hexdigest() for made in drafts]
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT key, entry FROM submissions ORDER BY entry").all()
        assert [tuple(row) for row in found] == [(keys[0], 0), (keys[2], 2)]
    with engine.connect() as connection, pytest.raises(sqlalchemy.exc.DBAPIError, match="append-only"):
        connection.exec_driver_sql("UPDATE submissions SET entry = 1")
    engine.dispose()
    downgrade(url, "0006")
    upgrade(url)
    receipts = [receipts[0], receipts[2]]
    with Ledger.open(url, key=KEY) as ledger:
        assert ledger.append(generated(1)) == receipts[0]
        assert ledger.append(Event("reviewed", asset_sha256="a" * 64)) == receipts[1]
        assert ledger.verify().ok


def held(ledger: Ledger, jobs: list[Callable[[], list[Receipt]]]) -> list[list[Receipt] | LedgerError]:
    """Run the jobs in threads that all wait for the first one, which cannot write yet; return what became of each."""
    found: dict[int, list[Receipt] | LedgerError] = {}

    def run(n: int) -> None:
        try:
            found[n] = jobs[n]()
        except LedgerError as error:
            found[n] = error

    group = ledger._writer._group  # type: ignore[union-attr]
    threads = [threading.Thread(target=run, args=(n,)) for n in range(len(jobs))]
    with group._turn:  # as if a transaction were under way
        for n, thread in enumerate(threads):
            thread.start()
            while len(group._queue) <= n:
                time.sleep(0.001)
    for thread in threads:
        thread.join()
    return [found[n] for n in range(len(jobs))]


def test_threads_commit_together(ledger: Ledger) -> None:
    found = held(ledger, [lambda n=n: [ledger.append(generated(n))] for n in range(8)])  # type: ignore[misc]
    assert sorted(r[0].index for r in found if isinstance(r, list)) == list(range(8))
    assert len({r[0].checkpoint for r in found if isinstance(r, list)}) == 1
    assert ledger.verify().ok


def test_one_threads_refusal_is_its_own(ledger: Ledger) -> None:
    ledger.append(generated(0))
    jobs = [generated(1), generated(0, other=1), generated(2)]
    found = held(ledger, [lambda e=e: [ledger.append(e)] for e in jobs])  # type: ignore[misc]
    assert isinstance(found[1], LedgerError)
    assert "generated before" in str(found[1])
    assert [r[0].index for r in (found[0], found[2]) if isinstance(r, list)] == [1, 2]
    assert ledger.verify().ok


def test_a_thread_that_waits_too_long_takes_its_events_back(url: str) -> None:
    with Ledger.open(url, key=KEY, busy_seconds=0.1) as ledger:
        with ledger._writer._group._turn, pytest.raises(LedgerBusyError, match="threads"):  # type: ignore[union-attr]
            ledger.append(generated(1))
        assert ledger.append(generated(2)).index == 0
        assert ledger.count() == 1


class Clock(dt.datetime):
    """A clock that the test sets."""

    instant = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:  # type: ignore[override]
        return cls.instant


def test_an_origin_may_be_a_whole_float(ledger: Ledger) -> None:
    """Its leaf says 0, which is read back as an integer."""
    ledger.append_many([Event("failed"), Event("recovered", body={"recovered_entry": 0.0, "resigned_entry": 0.5})])
    assert ledger.verify().ok


def test_a_clock_that_goes_backward_is_written_down_as_it_is(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "datetime", Clock)
    for hours in (0, 0, -3, 5):
        monkeypatch.setattr(Clock, "instant", dt.datetime(2026, 5, 1, 12 + hours, tzinfo=dt.UTC))
        ledger.append(Event("failed"))
    assert [e.time[11:] for e in ledger.entries()] == [
        "12:00:00.000000Z", "12:00:00.000001Z", "09:00:00.000000Z", "17:00:00.000000Z",
    ]  # fmt: skip
    assert ledger.verify().ok


def test_a_mode_that_a_database_lacks_is_refused(tmp_path: Path) -> None:
    for mode, match in (("sequenced", "PostgreSQL"), ("other", "not a mode")):
        with pytest.raises(LedgerError, match=match):
            Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}", key=KEY, mode=mode)


# -- the sequenced mode -----------------------------------------------------------------------------------------------


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[str]:
    with database("postgresql", tmp_path) as url:
        Ledger.open(url).close()
        yield url


def pending(url: str) -> int:
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        count = connection.exec_driver_sql("SELECT count(*) FROM pending").scalar()
    engine.dispose()
    return int(count or 0)


def test_both_modes_write_one_ledger(postgres: str) -> None:
    def write(mode: str, first: int) -> None:
        with Ledger.open(postgres, key=KEY, mode=mode) as ledger:
            for number in range(first, first + 15):
                ledger.append(generated(number))

    modes = ["inline", "sequenced", "sequenced", "sequenced"]
    threads = [threading.Thread(target=write, args=(mode, 100 * n)) for n, mode in enumerate(modes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Ledger.open(postgres, read_only=True) as ledger:
        report = ledger.verify(KEY.public_key())
    assert (report.ok, report.size, pending(postgres)) == (True, 60, 0)


def test_what_was_not_left_by_a_holder_of_the_key_is_refused(postgres: str) -> None:
    with Ledger.open(postgres, key=KEY) as ledger:
        ledger.append(generated(1))
        with ledger._engine.begin() as connection:
            row = '[["{\\"x\\":", ""]]'
            connection.exec_driver_sql("INSERT INTO pending (id, events, mac) VALUES ('x', %s, 'ab')", (row,))
        assert ledger.append(generated(2)).index == 1
        with ledger._engine.begin() as connection:
            told = connection.exec_driver_sql("SELECT outcome FROM pending").scalar()
        assert ledger.verify().ok
    assert "holder of the ledger's key" in str(told)


def test_another_writer_takes_over_from_an_integrator_that_died(postgres: str) -> None:
    engine = sqlalchemy.create_engine(postgres)
    dead = engine.connect()
    dead.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (0x5AFE_6E0E,))
    process = dead.exec_driver_sql("SELECT pg_backend_pid()").scalar()
    found: list[Receipt] = []
    with Ledger.open(postgres, key=KEY) as ledger:
        thread = threading.Thread(target=lambda: found.append(ledger.append(generated(1))))
        thread.start()
        while pending(postgres) == 0:
            time.sleep(0.005)
        with engine.connect() as other:
            assert ledger.count() == 0
            other.exec_driver_sql("SELECT pg_terminate_backend(%s)", (process,))
        thread.join()
        assert [r.index for r in found] == [0]
        assert ledger.verify().ok
    dead.invalidate()
    dead.close()
    engine.dispose()


def test_what_nobody_records_in_time_is_taken_back(postgres: str) -> None:
    engine = sqlalchemy.create_engine(postgres)
    with engine.begin() as other, Ledger.open(postgres, key=KEY, busy_seconds=0.2) as ledger:
        other.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (0x5AFE_6E0E,))
        with pytest.raises(LedgerBusyError):
            ledger.append(generated(1))
        assert pending(postgres) == 0
    with Ledger.open(postgres, key=KEY) as ledger:
        assert ledger.append(generated(2)).index == 0
    engine.dispose()


def test_the_answers_of_writers_that_died_are_swept_away(postgres: str) -> None:
    with Ledger.open(postgres, key=KEY) as ledger:
        with ledger._engine.begin() as connection:
            connection.exec_driver_sql(
                "INSERT INTO pending (id, events, mac, outcome, asked) VALUES ('x', '', '', '', now() - interval '2 h')"
            )
        ledger.append(replace(generated(1), body={}))
    assert pending(postgres) == 0


def test_what_was_recorded_before_is_sought_by_its_own_index(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with Ledger.open(f"sqlite:///{path}", key=KEY) as ledger:
        statements = look_ups(ledger._engine.dialect)
    with sqlite3.connect(path) as db:
        for statement, indexes in zip(statements, ({"ix_entries_asset_sha256"}, {"uq_entries_generated"}), strict=True):
            plan = [row[-1] for row in db.execute(f"EXPLAIN QUERY PLAN {statement.text}", ("[]",))]
            assert {line.split()[4] for line in plan if line.startswith("SEARCH e USING INDEX")} == indexes, plan
