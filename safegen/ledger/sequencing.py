"""The sequenced mode (PostgreSQL): writers leave what they want recorded in a table, and one of them records it all.

To leave a row there nobody waits for anybody. Whoever gets the advisory lock integrates: it appends what waits, in one
transaction with one checkpoint, and writes each writer's receipt into its row. There is no process for this: a writer
whose row waits tries the lock itself, so that when an integrator dies the next writer takes over. Rows carry a MAC that
only holders of the ledger's key can make; what others put there is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, Engine

from safegen.errors import LedgerBusyError, LedgerError
from safegen.ledger.database import translate, writing
from safegen.ledger.entry import Draft, decode_leaf, event_of
from safegen.ledger.group_commit import Outcome, each_alone
from safegen.ledger.writing import MOST_AT_ONCE, Appender, Receipt

_INTEGRATOR: Final = 0x5AFE_6E0E  # the advisory lock
_CHANNEL: Final = "safegen_ledger"
_ROUND: Final = 1000  # rows of one round at most
_NAP: Final = 0.05  # seconds without a notification after which a writer looks for itself
_ABANDONED: Final = "1 hour"  # answers that nobody fetched are swept away after so long
_SECRET: Final = b"safegen: the secret that rows of pending are authenticated with"


class Sequencer:
    """Commits jobs by way of the table ``pending``."""

    def __init__(self, engine: Engine, appender: Appender, key: Ed25519PrivateKey, busy_seconds: float) -> None:
        self._engine = engine
        self._appender = appender
        self._secret = hashlib.sha256(key.sign(_SECRET)).digest()  # Ed25519 signatures are the same every time
        self._seconds = busy_seconds
        self._driver: Any = None  # a connection of its own, that commits every statement and listens
        self._lock = threading.Lock()

    def close(self) -> None:
        """Give the listening connection back."""
        with self._lock:
            if self._driver is not None:
                with contextlib.suppress(Exception):  # it may be broken; it is not needed any more
                    self._driver.close()
                self._driver = None

    def commit(self, jobs: Sequence[Sequence[Draft]]) -> list[Outcome]:
        """Leave the jobs in the table and wait for the answers; LedgerBusyError if they do not come in time."""
        with self._lock:
            driver = self._listening()
            try:
                return self._commit(driver, jobs)
            except self._errors() as exc:
                with contextlib.suppress(Exception):
                    driver.close()
                self._driver = None
                raise translate(exc) from exc

    def _commit(self, driver: Any, jobs: Sequence[Sequence[Draft]]) -> list[Outcome]:
        names = [f"{place:08x}{secrets.token_hex(12)}" for place in range(len(jobs))]  # their order, at one time
        rows = [(name, text := _write(job), self._mac(name, text)) for name, job in zip(names, jobs, strict=True)]
        with driver.cursor() as cursor:
            insert = "INSERT INTO pending (id, events, mac) VALUES (%s, %s, %s)"
            if len(rows) == 1:
                cursor.execute(insert, rows[0])
            else:
                cursor.executemany(insert, rows)
        answers: dict[str, Outcome] = {}
        until = time.monotonic() + self._seconds
        while True:
            try:
                answers |= self._integrate(set(names) - answers.keys())
            except LedgerError as exc:
                answers |= self._withdraw(driver, [name for name in names if name not in answers], exc)
            answers |= _fetch(driver, [name for name in names if name not in answers])
            if len(answers) == len(names):
                return [answers[name] for name in names]
            left = until - time.monotonic()
            if left <= 0:
                busy = LedgerBusyError("other writers kept the ledger and did not finish in time", remedy="try again")
                answers |= self._withdraw(driver, [name for name in names if name not in answers], busy)
                return [answers[name] for name in names]
            list(driver.notifies(timeout=min(_NAP, left), stop_after=1))  # to its end: it holds the connection
            answers |= _fetch(driver, [name for name in names if name not in answers])

    def _withdraw(self, driver: Any, names: list[str], why: LedgerError) -> dict[str, Outcome]:
        """Take back what nobody recorded; what is being recorded just now is waited for.

        A row that is gone was in a round of ours whose end we did not see: that is not known either.
        """
        query = "DELETE FROM pending WHERE id = ANY(%s) RETURNING id, outcome"
        with driver.cursor() as cursor:
            there = cursor.execute(query, [names]).fetchall()
        return dict.fromkeys(names, why) | {name: _read(text) if text else why for name, text in there}

    # -- integrating --------------------------------------------------------------------------------------------------

    def _integrate(self, mine: set[str]) -> dict[str, Outcome]:
        """Record what waits, if nobody else is at it; return the answers to ``mine``."""
        if not mine:
            return {}
        try:
            with writing(self._engine) as connection:
                cursor = connection.connection.cursor()
                cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_INTEGRATOR])
                if not cursor.fetchone()[0]:  # type: ignore[index]
                    return {}
                return self._round(connection, cursor, mine)
        except LedgerBusyError:
            return {}  # somebody writes without the table, or holds a row of it: it is tried again

    def _round(self, connection: Connection, cursor: Any, mine: set[str]) -> dict[str, Outcome]:
        query = "SELECT id, events, mac FROM pending WHERE outcome IS NULL ORDER BY asked, id LIMIT %s FOR UPDATE"
        cursor.execute(query, [_ROUND])
        waiting = cursor.fetchall()
        answers: dict[str, Outcome] = {}
        jobs: dict[str, Sequence[Draft]] = {}
        events = 0
        for name, text, mac in waiting:
            read = self._job(name, text, mac)
            if isinstance(read, LedgerError):
                answers[name] = read
            elif events and events + len(read) > MOST_AT_ONCE:
                break
            else:
                jobs[name] = read
                events += len(read)
        if jobs:
            outcomes = each_alone(lambda drafts: self._append(connection, drafts), list(jobs.values()))
            answers |= dict(zip(jobs, outcomes, strict=True))
        told = [(name, _answer(outcome)) for name, outcome in answers.items() if name not in mine]
        if told:
            cursor.execute(
                "UPDATE pending SET outcome = told.outcome FROM unnest(%s::text[], %s::text[]) AS told(id, outcome)"
                " WHERE pending.id = told.id",
                [[name for name, _ in told], [text for _, text in told]],
            )
            cursor.execute(f"NOTIFY {_CHANNEL}")
        done = [name for name in answers if name in mine]
        cursor.execute(
            "DELETE FROM pending WHERE id = ANY(%s) OR (outcome IS NOT NULL AND asked < now() - %s::interval)",
            [done, _ABANDONED],
        )
        return {name: answers[name] for name in done}

    def _append(self, connection: Connection, drafts: Sequence[Draft]) -> list[Receipt]:
        """Append, or leave no trace: the transaction goes on to the next job."""
        with connection.begin_nested():
            return self._appender.append(connection, drafts)

    def _job(self, name: str, text: str, mac: str) -> Sequence[Draft] | LedgerError:
        if not hmac.compare_digest(self._mac(name, text).encode(), str(mac).encode()):
            return LedgerError("what waited to be recorded was not written by a holder of the ledger's key")
        return [_draft(before, between) for before, between in json.loads(text)]

    def _mac(self, name: str, text: str) -> str:
        return hmac.new(self._secret, f"{name}\n{text}".encode(), hashlib.sha256).hexdigest()

    # -- the connection that listens ----------------------------------------------------------------------------------

    def _listening(self) -> Any:
        if self._driver is None or self._driver.closed:
            try:
                pooled = self._engine.raw_connection()
                self._driver = pooled.driver_connection
                pooled.detach()  # from the pool: it stays open and listens
                self._driver.rollback()
                self._driver.autocommit = True
                self._driver.execute(f"LISTEN {_CHANNEL}")
            except self._errors() as exc:
                self._driver = None
                raise translate(exc) from exc
        return self._driver

    def _errors(self) -> tuple[type[Exception], ...]:
        from sqlalchemy.exc import SQLAlchemyError

        return (self._engine.dialect.loaded_dbapi.Error, SQLAlchemyError)


def _fetch(driver: Any, names: list[str]) -> dict[str, Outcome]:
    """Return the answers that have come, and delete them."""
    if not names:
        return {}
    query = "DELETE FROM pending WHERE id = ANY(%s) AND outcome IS NOT NULL RETURNING id, outcome"
    with driver.cursor() as cursor:
        return {name: _read(text) for name, text in cursor.execute(query, [names])}


def _write(drafts: Sequence[Draft]) -> str:
    return json.dumps([(draft.before.decode(), draft.between.decode()) for draft in drafts])


def _draft(before: str, between: str) -> Draft:
    return Draft(event_of(decode_leaf(f'{before}0{between}"}}')), before.encode(), between.encode())


def _answer(outcome: Outcome) -> str:
    if isinstance(outcome, LedgerError):
        return json.dumps({"error": str(outcome), "remedy": outcome.remedy})
    notes = list(dict.fromkeys(receipt.checkpoint for receipt in outcome))
    return json.dumps(
        {"notes": notes, "receipts": [(r.index, r.leaf_hash, notes.index(r.checkpoint)) for r in outcome]}
    )


def _read(text: str) -> Outcome:
    told = json.loads(text)
    if "error" in told:
        return LedgerError(told["error"], remedy=told["remedy"])
    return [Receipt(index, leaf_hash, told["notes"][note]) for index, leaf_hash, note in told["receipts"]]
