"""Writers on PostgreSQL that are killed (SIGKILL) at each step of an append, their own and that of others' rows.

Whatever the step: nothing that was acknowledged is lost, nothing stands there twice, verification finds nothing, and
the next writer goes on where the dead one was.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.engine.interfaces import Dialect

from safegen.ledger import Event, Ledger, Receipt
from safegen.ledger.postgres_pipeline import Pipeline, Reply
from tests.postgres import database
from tests.processes import in_fork
from tests.unit.ledger.test_faults import KEY, Steps, generated, watch

MODES = ("inline", "sequenced")
FULL = 256  # the entry that makes it so many completes a node
BEFORE = FULL - 6


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def begun(mode: str, folder: Path) -> Iterator[tuple[str, Ledger]]:
    """A ledger, and the writer that goes on after each death."""
    with database("postgresql", folder) as url, Ledger.open(url, key=KEY, mode=mode) as ledger:
        ledger.append_many([Event("failed", body={"number": number}) for number in range(BEFORE)])
        yield url, ledger


def killed(url: str, mode: str, number: int, arrange: Callable[[Ledger, pytest.MonkeyPatch], None]) -> bool:
    """Whether a process that appends event ``number`` dies of what ``arrange`` puts in its way."""

    def act() -> None:
        with pytest.MonkeyPatch.context() as patch, Ledger.open(url, key=KEY, mode=mode) as mine:
            arrange(mine, patch)
            mine.append(generated(number))

    status = in_fork(act)
    assert status in (0, -signal.SIGKILL)
    return status == -signal.SIGKILL


def leave(ledger: Ledger, number: int) -> None:
    """Leave event ``number`` as a writer does that dies once its row is in the table: not recorded, not answered."""
    sync = Pipeline.sync

    def interrupted(self: Pipeline) -> None:
        sync(self)
        raise KeyboardInterrupt  # the row is on its way

    with ledger._engine.connect() as other, pytest.MonkeyPatch.context() as patch:
        rows = other.exec_driver_sql("SELECT count(*) FROM pending").scalar_one()
        other.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (0x5AFE_6E0E,))  # an integrator is at work
        patch.setattr(Pipeline, "sync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ledger.append(generated(number))
        while other.exec_driver_sql("SELECT count(*) FROM pending").scalar_one() == rows:
            pass


def settled(ledger: Ledger, numbers: list[int], receipts: list[Receipt], url: str) -> None:
    """Each event is there once, where its receipt says; nothing waits any more; the ledger is sound."""
    for number in numbers:
        assert len(ledger.find_content(f"{number:016x}")) == 1, number
    for receipt in receipts:
        assert ledger.get(receipt.index).leaf_hash == receipt.leaf_hash
    assert ledger.count() == BEFORE + len(numbers)
    report = ledger.verify(KEY.public_key())
    assert report.ok, report.problems
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        waiting = connection.exec_driver_sql("SELECT count(*) FROM pending WHERE outcome IS NULL")
        assert waiting.scalar() == 0
    engine.dispose()


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("mode", MODES)
def test_a_writer_may_be_killed_at_each_step(mode: str, after: bool, tmp_path: Path) -> None:
    with begun(mode, tmp_path) as (url, ledger):
        numbers, receipts = list[int](), list[Receipt]()
        for place in count():
            mine, other = 2 * place, 2 * place + 1
            if mode == "sequenced":
                leave(ledger, other)  # which the writer that is killed records with its own
            steps = Steps(place, after, kill)
            died = killed(url, mode, mine, partial(watch, steps))
            receipts.append(ledger.append(generated(mine)))
            numbers += [mine, other] if mode == "sequenced" else [mine]
            if not died:
                break
        assert place >= 8
        settled(ledger, numbers, receipts, url)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_writer_may_be_killed_while_its_commit_is_under_way(mode: str, tmp_path: Path) -> None:
    """Nobody knows then whether the entry is there; to append it again settles that."""

    def flush_and_die(connection: Any) -> None:
        while connection.flush():
            pass
        kill()

    def commit(_: Dialect, connection: Any) -> None:
        connection.pgconn.send_query(b"COMMIT")
        flush_and_die(connection.pgconn)

    def send(self: Pipeline, text: str, values: Sequence[object] = ()) -> Reply:
        reply = sent(self, text, values)
        if text == "COMMIT":
            self.sync()
            flush_and_die(self._libpq)
        return reply

    sent = Pipeline.send

    def send_and_die(own: Ledger, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(type(own._engine.dialect), "do_commit", commit)
        patch.setattr(Pipeline, "send", send)

    with begun(mode, tmp_path) as (url, ledger):
        numbers, receipts = list[int](), list[Receipt]()
        for number in range(4):
            assert killed(url, mode, number, send_and_die)
            receipts.append(ledger.append(generated(number)))
            numbers.append(number)
        settled(ledger, numbers, receipts, url)


def test_rows_of_dead_writers_are_recorded_by_whoever_comes_next(tmp_path: Path) -> None:
    with begun("sequenced", tmp_path) as (url, ledger):
        for number in range(5):
            leave(ledger, number)
        leave(ledger, 3)  # the same event once more, by another writer
        receipts = ledger.append_many([generated(5), generated(2)])
        assert [receipt.index for receipt in receipts] == [BEFORE + 5, BEFORE + 2]
        leave(ledger, 1)  # it was recorded before
        leave(ledger, 6)
        receipts.append(ledger.append(generated(7)))
        settled(ledger, list(range(8)), receipts, url)
