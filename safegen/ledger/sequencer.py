"""The sequenced mode (PostgreSQL): one writer at a time records what all have asked for by then.

A writer that finds the advisory lock free takes it and is the integrator: it appends its own events and those that
wait in the table ``pending``, in one transaction with one checkpoint, and writes each writer's answer into its row. A
writer that finds the lock taken leaves a row and waits for the lock, in the order in which they came: once it has it,
its answer is there, or it is the next integrator. All this is one exchange with the server. There is no process for
it: the lock of one that died goes to the next. Rows and answers carry MACs that only holders of the ledger's key make.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, Engine

from safegen.errors import LedgerBusyError, LedgerDamagedError, LedgerError
from safegen.ledger.append_results import Outcome, Receipt
from safegen.ledger.database import errors_of, translate
from safegen.ledger.entry import Draft, EventKind, decode_leaf, event_of
from safegen.ledger.group_commit import each_alone
from safegen.ledger.postgres_pipeline import Pipeline, pipeline_of
from safegen.ledger.statements import together
from safegen.ledger.writing import MOST_AT_ONCE, Appender, Begun, look_ups

_INTEGRATOR: Final = 0x5AFE_6E0E  # the advisory lock
_ROUND: Final = 1000  # rows of one round at most
_SWEEP: Final = 60.0  # seconds between two sweeps of one writer
_IDLE: Final = 1.0  # seconds after which a connection is tried before it is used
_SECRET: Final = b"safegen: the secret that rows of pending are authenticated with"

_ASK: Final = (
    "INSERT INTO pending AS p (id, events, mac) SELECT $1::varchar, $2::text, $3::varchar"
    f" WHERE NOT pg_try_advisory_lock({_INTEGRATOR}) ON CONFLICT (id)"
    " DO UPDATE SET asked = now(), events = excluded.events, mac = excluded.mac, outcome = NULL"
)
_WAIT: Final = f"SELECT pg_advisory_lock({_INTEGRATOR})"
_ANSWER: Final = (
    f"SELECT outcome, pg_advisory_unlock({_INTEGRATOR})::int FROM pending"  # noqa: S608
    " WHERE id = $1::varchar AND mac = $2::varchar AND outcome IS NOT NULL"
)
_WAITING: Final = (
    "SELECT id, mac, events FROM pending WHERE outcome IS NULL AND id <> $1::varchar"  # noqa: S608
    f" ORDER BY asked, id LIMIT {_ROUND} FOR UPDATE"
)
_ASSETS, _IDS = 3, 4  # the lines of pending.events that name assets, and content ids that are generated
_LINE: Final = (
    " UNION ALL SELECT unnest(string_to_array(split_part(events, chr(10), {}), ' ')) FROM pending WHERE outcome IS NULL"
)
_TELL: Final = (
    "UPDATE pending SET outcome = told.outcome, events = ''"
    " FROM unnest($1::text[], $2::text[]) AS told(id, outcome) WHERE pending.id = told.id"
)
_SWEEP_OUT: Final = "DELETE FROM pending WHERE outcome IS NOT NULL AND asked < now() - interval '1 hour'"
"""Answers of writers that are gone."""

_TAKE_BACK: Final = "DELETE FROM pending WHERE id = $1::varchar RETURNING mac, outcome"
_LEAVE: Final = "SELECT pg_advisory_unlock_all()"

_OF_OTHERS: Final[list[Connection]] = []  # what a fork inherited

Jobs = Sequence[Sequence[Draft]]
Row = tuple[str, str, str]  # of pending: id, mac, events
Asked = tuple[str, str, Jobs]


class Sequencer:
    """Commits jobs, its own and those of others, or has others commit them."""

    def __init__(self, engine: Engine, appender: Appender, key: Ed25519PrivateKey, busy_seconds: float) -> None:
        self._engine = engine
        self._errors = errors_of(engine)
        self._appender = appender
        self._look_ups = look_ups(engine.dialect, _LINE.format(_ASSETS), _LINE.format(_IDS))
        secret = hashlib.sha256(key.sign(_SECRET)).digest()  # Ed25519 signatures are the same every time
        self._asking, self._answering = (hashlib.sha256(secret + end).digest() for end in (b"ask", b"answer"))
        self._connection: Connection | None = None  # of its own, and out of any transaction: it waits and integrates
        self._process = 0
        self._used = self._sweep = 0.0
        self._name = ""
        self._lock = threading.Lock()

    def close(self) -> None:
        """Give the connection back, and take the row away that this writer used."""
        with self._lock:
            if self._connection is not None and self._process == os.getpid():
                with suppress(Exception):  # it may be broken; it is not needed any more
                    pipeline_of(self._connection).run(_TAKE_BACK, [self._name])
                self._drop()

    def commit(self, jobs: Jobs) -> list[Outcome]:
        """Have the jobs recorded, each all or nothing; LedgerBusyError if nobody comes to it in time."""
        with self._lock:
            try:
                connection = self._connected()
                outcomes = self._commit(connection, pipeline_of(connection), jobs)
            except BaseException as exc:
                self._drop()  # whatever it holds, the server takes it from it
                if isinstance(exc, self._errors):
                    raise translate(exc) from exc
                raise
            self._used = time.monotonic()
            return outcomes

    def _commit(self, connection: Connection, pipeline: Pipeline, jobs: Jobs) -> list[Outcome]:
        text = _request(jobs)
        mac = self._mac(self._asking, self._name, text)
        pipeline.send("BEGIN")
        asked = pipeline.send(_ASK, [self._name, text, mac])
        pipeline.send(
            "COMMIT"
        )  # others see it from now on; a sync would do that too, and wake this process for nothing
        pipeline.send(_WAIT)
        answer = pipeline.send(_ANSWER, [self._name, mac])
        try:
            pipeline.settle()
        except self._errors as exc:
            if isinstance(error := translate(exc), LedgerBusyError):
                return self._take_back(pipeline, mac, jobs, error)
            raise
        if (told := answer.fetchone()) is not None:
            return self._outcomes(mac, told[0], len(jobs))
        try:
            return self._integrate(connection, jobs, left=asked.rowcount > 0)
        except LedgerError as exc:
            return self._take_back(pipeline, mac, jobs, exc)
        except self._errors as exc:
            if isinstance(error := translate(exc), LedgerBusyError):  # somebody writes without the table
                return self._take_back(pipeline, mac, jobs, error)
            raise

    def _take_back(self, pipeline: Pipeline, mac: str, jobs: Jobs, why: LedgerError) -> list[Outcome]:
        """Take back what nobody recorded; what is being recorded just now is waited for."""
        self._leave(pipeline)
        row = pipeline.run(_TAKE_BACK, [self._name]).fetchone()
        if row is not None and row[0] == mac and row[1] is not None:
            return self._outcomes(mac, row[1], len(jobs))
        return [why] * len(jobs)

    def _leave(self, pipeline: Pipeline) -> None:
        """End the transaction that is open, if one is, and let others be the integrator."""
        pipeline.send("ROLLBACK")
        pipeline.run(_LEAVE)

    # -- integrating --------------------------------------------------------------------------------------------------

    def _integrate(self, connection: Connection, jobs: Jobs, *, left: bool) -> list[Outcome]:
        """Record what waits and the jobs, and answer; ``left`` says that the jobs have a row as well."""
        dbapi: Any = self._engine.dialect.loaded_dbapi
        try:
            return self._round(connection, jobs, left)
        except (LedgerBusyError, LedgerDamagedError):
            raise
        except (LedgerError, dbapi.DataError, dbapi.IntegrityError):  # one job's alone, perhaps
            pipeline_of(connection).run("ROLLBACK")
            return self._round(connection, jobs, left, each=True)

    def _round(self, connection: Connection, jobs: Jobs, left: bool, *, each: bool = False) -> list[Outcome]:
        """One transaction, in two exchanges with the server: who waits and what is there already; what is new.

        ``each``: every job on its own.
        """
        pipeline = pipeline_of(connection)
        with together(connection):
            pipeline.send("BEGIN")
            waiting = pipeline.send(_WAITING, [self._name])  # not before: more have come since we waited
            mine = [draft for job in jobs for draft in job]
            begun = None if each else self._appender.begin(connection, mine, self._look_ups)
            asked, answers = self._asked(waiting.fetchall(), len(mine))
            outcomes = iter(self._append(connection, begun, [*(job for _, _, those in asked for job in those), *jobs]))
            answers |= {name: self._answer(mac, [next(outcomes) for _ in theirs]) for name, mac, theirs in asked}
            if left:
                answers[self._name] = ""  # it needs none
            if answers:
                pipeline.send(_TELL, [list(answers), list(answers.values())])
            if time.monotonic() > self._sweep:
                self._sweep = time.monotonic() + _SWEEP
                pipeline.send(_SWEEP_OUT)
            pipeline.send("COMMIT")
            pipeline.send(_LEAVE)
        return list(outcomes)

    def _append(self, connection: Connection, begun: Begun | None, jobs: Jobs) -> Sequence[Outcome]:
        """Append all jobs as one, or each on its own where nothing was begun."""
        if begun is None:
            alone = partial(self._append_alone, connection)
            return [outcome for job in jobs for outcome in each_alone(alone, [job])]
        receipts = iter(self._appender.append_to(connection, begun, [draft for job in jobs for draft in job]))
        return [[next(receipts) for _ in job] for job in jobs]

    def _append_alone(self, connection: Connection, drafts: Sequence[Draft]) -> list[Receipt]:
        """Append, or leave no trace: the transaction goes on to the next job."""
        pipeline = pipeline_of(connection)
        pipeline.send("SAVEPOINT job")
        try:
            receipts = self._appender.append(connection, drafts)
            pipeline.settle()
            return receipts
        except Exception as exc:
            pipeline.send("ROLLBACK TO SAVEPOINT job")
            pipeline.settle()
            if isinstance(exc, self._errors):
                raise translate(exc) from exc
            raise

    def _asked(self, rows: Sequence[Row], events: int) -> tuple[list[Asked], dict[str, str]]:
        """Read what waits, as much as one round may hold; also the answers to what is refused."""
        found: list[Asked] = []
        refused: dict[str, str] = {}
        for name, mac, text in rows:
            if not hmac.compare_digest(self._mac(self._asking, name, text).encode(), mac.encode()):
                why = LedgerError("what waited to be recorded was not written by a holder of the ledger's key")
                refused[name] = self._answer(mac, [why])
                continue
            jobs = _jobs(text)
            events += sum(map(len, jobs))
            if events > MOST_AT_ONCE:
                break
            found.append((name, mac, jobs))
        return found, refused

    # -- answers ------------------------------------------------------------------------------------------------------

    def _answer(self, mac: str, outcomes: Sequence[Outcome]) -> str:
        text = json.dumps([_outcome_to_json(outcome) for outcome in outcomes])
        return self._mac(self._answering, mac, text) + text

    def _outcomes(self, mac: str, answer: str, count: int) -> list[Outcome]:
        """Read the answer to the request with this MAC; each request has one of its own."""
        if hmac.compare_digest(self._mac(self._answering, mac, answer[64:]).encode(), answer[:64].encode()):
            outcomes = [_outcome_from_json(told) for told in json.loads(answer[64:])]
            if len(outcomes) == count:
                return outcomes
        raise LedgerError(
            "the answer to an append was not written by a holder of the ledger's key; the entry may be there or not",
            remedy="append it again: an event that names its asset is never recorded twice",
        )

    def _mac(self, secret: bytes, name: str, text: str) -> str:
        return hmac.digest(secret, f"{name}\n{text}".encode(), "sha256").hex()

    # -- the connection -----------------------------------------------------------------------------------------------

    def _connected(self) -> Connection:
        if self._connection is not None and self._process != os.getpid():  # a fork: all connections are the parent's
            _OF_OTHERS.append(self._connection)  # never to be closed here
            self._engine.dispose(close=False)
            self._connection = None
        connection = self._connection
        if connection is not None and time.monotonic() > self._used + _IDLE:
            try:
                pipeline_of(connection).run("SELECT 1")
            except self._errors:
                self._drop()
        if self._connection is None:
            self._connection = self._engine.connect()
            driver: Any = self._connection.connection.driver_connection
            driver.rollback()
            driver.autocommit = True
            driver.execute("SET plan_cache_mode = force_generic_plan")  # all it runs is short: planning takes longer
            self._process, self._name, self._used = os.getpid(), secrets.token_hex(16), time.monotonic()
        return self._connection

    def _drop(self) -> None:
        """Close the connection; what it had under way is rolled back, and its locks are released."""
        if self._connection is not None:
            with suppress(Exception):
                self._connection.invalidate()
            with suppress(Exception):
                self._connection.close()
            self._connection = None


def _request(jobs: Jobs) -> str:
    """Lines: a number that was never used, how many events each job has, names to look up, and two of each draft."""
    drafts = [draft for job in jobs for draft in job]
    events = [draft.event for draft in drafts]
    lines = [
        secrets.token_hex(16),
        " ".join(str(len(job)) for job in jobs),
        " ".join(event.asset_sha256 for event in events if event.asset_sha256 is not None),
        " ".join(str(e.content_id) for e in events if e.kind == EventKind.GENERATED and e.content_id is not None),
    ]
    for draft in drafts:  # canonical JSON has no line ends
        lines += (draft.before.decode(), draft.between.decode())
    return "\n".join(lines)


def _jobs(text: str) -> Jobs:
    _, counts, _, _, *lines = text.split("\n")
    drafts = map(_draft, lines[::2], lines[1::2])
    return [list(islice(drafts, int(count))) for count in counts.split()]


def _draft(before: str, between: str) -> Draft:
    return Draft(event_of(decode_leaf(f'{before}0{between}"}}')), before.encode(), between.encode())


def _outcome_to_json(outcome: Outcome) -> dict[str, object]:
    if isinstance(outcome, LedgerError):
        return {"error": str(outcome), "remedy": outcome.remedy}
    notes = list(dict.fromkeys(receipt.checkpoint for receipt in outcome))
    return {"notes": notes, "receipts": [(r.index, r.leaf_hash, notes.index(r.checkpoint)) for r in outcome]}


def _outcome_from_json(told: dict[str, Any]) -> Outcome:
    if "error" in told:
        return LedgerError(told["error"], remedy=told["remedy"])
    return [Receipt(index, leaf_hash, told["notes"][note]) for index, leaf_hash, note in told["receipts"]]
