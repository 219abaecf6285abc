"""Storage that fails: each step of an append, before and after it took effect; full disks; locks that stay."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safegen.errors import LedgerBusyError, LedgerError
from safegen.ledger import Event, Ledger
from safegen.ledger.fair_lock import Turns, possible
from safegen.ledger.postgres_pipeline import Pipeline
from safegen.ledger.statements import Statement
from tests.postgres import database
from tests.processes import in_fork

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
HASH = "0123456789abcdef" * 4  # of a clip's looks
BODY: dict[str, Any] = {
    "mark": {"scheme": "latent-residual", "video_hash": [HASH]}, "manifest_id": "urn:c2pa:x",
    "decision": {"policy_id": "default"},
}  # fmt: skip
needs_turns = pytest.mark.skipif(not possible(), reason="no locks of open files on this system")


def generated(number: int) -> Event:
    return Event("generated", f"{number:016x}", BODY, asset_sha256=f"{number:064x}")


class Steps:
    """Counts what is done to the database, and lets one step fail, before it or after it took effect."""

    def __init__(self, fail_at: int | None, after: bool, act: Callable[[], object]) -> None:
        self.done: list[str] = []
        self._fail_at, self._after, self._act = fail_at, after, act

    def wrap(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            place = len(self.done)
            self.done.append(name)
            if place == self._fail_at and not self._after:
                self._act()
            result = step(*args, **kwargs)
            if place == self._fail_at:
                self._act()
            return result

        return wrapped


def watch(steps: Steps, ledger: Ledger, patch: pytest.MonkeyPatch) -> None:
    """Put the steps under watch: every statement and the commit."""
    dialect = ledger._engine.dialect
    patch.setattr(dialect, "do_commit", steps.wrap("commit", dialect.do_commit))
    if dialect.name == "sqlite":
        patch.setattr(Statement, "run", steps.wrap("run", Statement.run))
        patch.setattr(Statement, "run_many", steps.wrap("run_many", Statement.run_many))
    else:
        import psycopg

        patch.setattr(psycopg.Cursor, "execute", steps.wrap("execute", psycopg.Cursor.execute))
        patch.setattr(Pipeline, "send", steps.wrap("send", Pipeline.send))
        patch.setattr(Pipeline, "settle", steps.wrap("settle", Pipeline.settle))


def raise_fault(kind: str) -> Callable[[], None]:
    def act() -> None:
        if kind == "sqlite":
            raise sqlite3.OperationalError("disk I/O error")
        import psycopg

        raise psycopg.OperationalError("the connection is lost")

    return act


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("kind", "mode"), [("sqlite", "inline"), ("postgresql", "inline"), ("postgresql", "sequenced")]
)
def test_each_step_of_an_append_may_fail(
    kind: str, mode: str, after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever fails, the event stands there once when it is appended again, and the ledger is sound."""
    with database(kind, tmp_path) as url, Ledger.open(url, key=KEY, mode=mode) as ledger:
        for number in range(255):  # the next one completes a node
            ledger.append_many([generated(1000 + number)]) if number % 50 == 0 else ledger.append_many(
                [Event("failed", body={"n": number})]
            )
        with monkeypatch.context() as patch:
            counted = Steps(None, False, lambda: None)
            watch(counted, ledger, patch)
            ledger.append(generated(0))
        assert len(counted.done) >= 8
        for place in range(len(counted.done)):
            number = place + 1
            steps = Steps(place, after, raise_fault(kind))
            with monkeypatch.context() as patch:
                watch(steps, ledger, patch)
                try:
                    told = ledger.append(generated(number)).index
                except LedgerError:
                    told = None  # nothing was promised
            receipt = ledger.append(generated(number))
            assert told in (None, receipt.index)
            assert [e.index for e in ledger.find_content(f"{number:016x}")] == [receipt.index]
        assert ledger.count() == 256 + len(counted.done)
        report = ledger.verify()
        assert report.ok, report.problems


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_process_may_be_killed_at_each_step(after: bool, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    with Ledger.open(url, key=KEY) as ledger:
        ledger.append(Event("failed"))

    def act(place: int) -> Callable[[], None]:
        def run() -> None:
            with pytest.MonkeyPatch.context() as patch, Ledger.open(url, key=KEY) as mine:
                watch(Steps(place, after, lambda: os.kill(os.getpid(), signal.SIGKILL)), mine, patch)
                mine.append(generated(place))

        return run

    killed = 0
    while in_fork(act(killed)) == -signal.SIGKILL:
        with Ledger.open(url, key=KEY) as ledger:
            index = ledger.append(generated(killed)).index
            assert [e.index for e in ledger.find_content(f"{killed:016x}")] == [index]
        killed += 1
    assert killed >= 8
    with Ledger.open(url, key=KEY) as ledger:
        report = ledger.verify()
        assert (report.ok, report.size) == (True, killed + 2)


def test_a_full_disk_is_told_and_leaves_the_ledger_sound(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    with Ledger.open(url, key=KEY) as ledger:
        ledger.append(Event("failed"))

    def act() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with Ledger.open(url, key=KEY) as ledger:
            ledger.append(Event("failed"))
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
            with pytest.raises(LedgerError, match="disk"):
                ledger.append_many([Event("failed", body={"x": "y" * 50_000})] * 20)
            assert ledger.verify().ok
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            ledger.append(Event("failed"))

    assert in_fork(act) == 0
    with Ledger.open(url, key=KEY) as ledger:
        assert ledger.append(Event("failed")).index == 3
        assert ledger.verify().ok


@pytest.mark.parametrize("room", [0, 8_000, 60_000])
def test_a_full_disk_is_told_when_the_ledger_is_made(tmp_path: Path, room: int) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"

    def act() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        with pytest.raises(LedgerError, match="disk"):
            Ledger.open(url, key=KEY)

    assert in_fork(act) == 0
    with Ledger.open(url, key=KEY) as ledger:  # what was begun is no obstacle
        assert ledger.append(Event("failed")).index == 0


@pytest.mark.parametrize("what", ["removed", "replaced"])
def test_a_ledger_that_is_not_there_any_more_records_nothing(tmp_path: Path, what: str) -> None:
    """SQLite goes on writing to a file that nobody will find again."""
    path = tmp_path / "ledger.db"
    with Ledger.open(f"sqlite:///{path}", key=KEY) as ledger:
        ledger.append(Event("failed"))
        for file in tmp_path.glob("ledger.db*"):
            file.rename(tmp_path / f"aside-{file.name}")
        if what == "replaced":
            with Ledger.open(f"sqlite:///{path}", key=KEY) as other:
                other.append(Event("failed"))
        with pytest.raises(LedgerError, match="removed or replaced"):
            ledger.append(Event("generated", f"{1:016x}"))


def test_a_new_ledger_and_its_journals_are_private(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'home' / 'ledger.db'}", key=KEY) as ledger:
        ledger.append(Event("failed"))
        found = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "home").glob("ledger.db*")}
    assert found["ledger.db"] == 0o600
    assert {mode for name, mode in found.items() if name.endswith(("-wal", "-shm"))} == {0o600}
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700


def test_a_ledger_that_becomes_read_only_is_told(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}", key=KEY) as ledger:
        ledger.append(Event("failed"))
        writer: Any = ledger._writer
        writer._way._held._connection.connection.cursor().execute("PRAGMA query_only = ON")
        with pytest.raises(LedgerError, match="read-only"):
            ledger.append(Event("failed"))
        assert ledger.verify().ok


def test_a_copy_that_is_written_on_shows_against_a_checkpoint_of_the_other(tmp_path: Path) -> None:
    """Each copy is sound in itself: only what was kept elsewhere tells them apart."""
    first, second = tmp_path / "ledger.db", tmp_path / "copy.db"
    with Ledger.open(f"sqlite:///{first}", key=KEY, origin="example.com/log") as ledger:
        shared = ledger.append(generated(1)).checkpoint
    shutil.copy(first, second)
    notes = []
    for path, number in ((first, 2), (second, 3)):
        with Ledger.open(f"sqlite:///{path}", key=KEY) as ledger:
            notes.append(ledger.append(generated(number)).checkpoint)
    for path, own, other in ((first, 0, 1), (second, 1, 0)):
        with Ledger.open(f"sqlite:///{path}", read_only=True) as ledger:
            assert ledger.verify(KEY.public_key(), outside=[shared, notes[own]]).ok
            problems = ledger.verify(KEY.public_key(), outside=[shared, notes[other]]).problems
            assert [(p.index, p.column) for p in problems] == [(1, "outside")]


# -- turns ------------------------------------------------------------------------------------------------------------


@needs_turns
def test_writers_go_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    path, went, started = tmp_path / "ledger.db", list[int](), list[threading.Thread]()

    def wait(number: int) -> None:
        with Turns(path).turn(30):
            went.append(number)

    with Turns(path).turn(1):
        for number in range(6):
            before = (tmp_path / "ledger.db-turns").read_bytes()
            started.append(threading.Thread(target=wait, args=(number,)))
            started[-1].start()
            while (tmp_path / "ledger.db-turns").read_bytes() == before:
                time.sleep(0.001)
        assert went == []
    for thread in started:
        thread.join()
    assert went == list(range(6))


@needs_turns
def test_whoever_keeps_its_turn_too_long_is_waited_for_no_longer(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with Ledger.open(f"sqlite:///{path}", key=KEY, busy_seconds=0.2) as ledger:
        with Turns(path).turn(1), pytest.raises(LedgerBusyError, match="other processes"):
            ledger.append(generated(1))
        assert ledger.append(generated(1)).index == 0


@needs_turns
def test_a_turn_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"

    def act() -> None:
        with Turns(path).turn(1):
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_fork(act) == -signal.SIGKILL
    with Turns(path).turn(0.5):
        pass


def test_without_a_place_for_turns_the_databases_own_lock_is_enough(tmp_path: Path) -> None:
    (tmp_path / "ledger.db-turns").mkdir()
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}", key=KEY) as ledger:
        assert ledger.append(generated(1)).index == 0


def test_triggers_refuse_changes_in_postgresql(tmp_path: Path) -> None:
    columns = {"entries": "kind", "checkpoints": "note", "nodes": "hash"}
    refused = [f"UPDATE {table} SET {column} = {column}" for table, column in columns.items()]
    refused += [f"{what} {table}" for table in (*columns, "head") for what in ("DELETE FROM", "TRUNCATE")]
    refused += ["UPDATE head SET size = size - 1", "UPDATE head SET id = 1, size = 0"]
    with database("postgresql", tmp_path) as url:
        with Ledger.open(url, key=KEY) as ledger:
            ledger.append(generated(1))
        engine = sqlalchemy.create_engine(url)
        for statement in refused:
            with engine.connect() as connection, pytest.raises(sqlalchemy.exc.DBAPIError, match="append-only"):
                connection.exec_driver_sql(statement)
        engine.dispose()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM head", "UPDATE head SET size = size - 1", "INSERT OR REPLACE INTO head SELECT * FROM head",
        "INSERT OR REPLACE INTO checkpoints VALUES (1, '')",
    ],
)  # fmt: skip
def test_triggers_refuse_changes_in_sqlite(statement: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with Ledger.open(f"sqlite:///{path}", key=KEY) as ledger:
        ledger.append_many([generated(1), generated(2)])
    with sqlite3.connect(path) as db, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        db.execute(statement)


def drop_guard(url: str) -> str:
    """The statement that takes one guard away, and what verification calls it."""
    return "DROP TRIGGER entries_only_append" + ("" if url.startswith("sqlite") else " ON entries")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_guard_that_is_gone_or_off_is_named(kind: str, tmp_path: Path) -> None:
    with database(kind, tmp_path) as url:
        with Ledger.open(url, key=KEY) as ledger:
            ledger.append(generated(1))
            assert ledger.verify().ok
        engine = sqlalchemy.create_engine(url)
        with engine.begin() as connection:
            connection.exec_driver_sql(drop_guard(url))
            if kind == "postgresql":
                connection.exec_driver_sql("ALTER TABLE nodes DISABLE TRIGGER nodes_only_append")
        engine.dispose()
        with Ledger.open(url, read_only=True) as ledger:
            said = [p.summary for p in ledger.verify(KEY.public_key()).problems]
        assert said[0] == "the trigger entries_only_append that refuses changes is missing"
        assert said[1:] == (["the trigger nodes_only_append was changed"] if kind == "postgresql" else [])
