"""Statements that PostgreSQL is sent one after the other, without waiting for each one's answer, through psycopg.

psycopg's own cursors and pipelines do the same and much else: they take five times as long as a short statement. This
uses ``psycopg.pq``, its wrapper of libpq: statements are prepared where they are first used, and values go as text.
"""

from __future__ import annotations

import select
import struct
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from typing import Any, Final

from sqlalchemy import Connection, Dialect

# Imported where they are used: psycopg.

_TEXT_OID: Final = 25
_INTEGERS: Final = frozenset({20, 21, 23})  # the OIDs of bigint, smallint and integer
_HEADER: Final = struct.Struct(">5i")  # of an array: dimensions, whether it holds nulls, type, length, lower bound
_LENGTH: Final = struct.Struct(">i")
_NULL: Final = _LENGTH.pack(-1)


def possible(dialect: Dialect) -> bool:
    """Whether statements can be sent in this way."""
    return dialect.name == "postgresql" and dialect.driver == "psycopg"


def pipeline_of(connection: Connection) -> Pipeline:
    """The pipeline of a connection; the same one for as long as the driver's connection lives."""
    fairy = connection.connection
    found = fairy.info.get(__name__)
    if found is None:
        found = fairy.info[__name__] = Pipeline(fairy.driver_connection)
    return found


class Reply:
    """What the server answers to one statement; whoever asks for it waits for it."""

    __slots__ = ("_pipeline", "result")

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.result: Any = None  # a psycopg.pq.PGresult

    @property
    def rowcount(self) -> int:
        """Rows that were inserted, changed or deleted."""
        return int(self._settled().command_tuples or 0)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows: whole numbers, text and null."""
        result = self._settled()
        integers = [result.ftype(column) in _INTEGERS for column in range(result.nfields)]
        return [
            tuple(_loaded(result.get_value(row, column), is_integer) for column, is_integer in enumerate(integers))
            for row in range(result.ntuples)
        ]

    def fetchone(self) -> tuple[Any, ...] | None:
        """The first row."""
        rows = self.fetchall()
        return rows[0] if rows else None

    def _settled(self) -> Any:
        if self.result is None:
            self._pipeline.settle()
        return self.result


class Pipeline:
    """What is under way on one connection of psycopg's. Statements are sent, and their answers read in one go."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._libpq = driver.pgconn
        self._names: dict[str, bytes] = {}  # of what is prepared
        self._numbers = count()
        self._coming: deque[Reply | str | None] = deque()  # answers: to statements, to PREPARE, and None to a sync
        self.together = 0  # blocks that are open whose statements are not waited for

    def run(self, text: str, values: Sequence[object] = ()) -> Reply:
        """Send a statement, and wait for it unless a block ``together`` is open."""
        reply = self.send(text, values)
        if not self.together:
            self.settle()
        return reply

    def run_many(self, text: str, rows: Sequence[Sequence[object]]) -> None:
        """Send a statement for each row; nothing where there is none."""
        for row in rows:
            self.send(text, row)
        if not self.together:
            self.settle()

    @property
    def is_open(self) -> bool:
        """Whether answers are still to come: then the driver's own cursors cannot be used."""
        return bool(self._coming)

    def send(self, text: str, values: Sequence[object] = ()) -> Reply:
        """Send a statement with ``$1``, ``$2`` ... in it; a transaction is begun first, as psycopg does."""
        if not self._coming:
            self._libpq.enter_pipeline_mode()
            if not self._driver.autocommit and self._libpq.transaction_status == 0:
                self._send("BEGIN", ())
        return self._send(text, values)

    def sync(self) -> None:
        """End what would be rolled back together where no transaction was begun."""
        self._libpq.pipeline_sync()
        self._coming.append(None)

    def settle(self) -> None:
        """Wait until all is answered; raises the first error of psycopg's among the answers."""
        if not self._coming:
            return
        self.sync()
        try:
            self._libpq.flush()
            errors = self._take_answers()
        except BaseException:  # an interrupt, say
            self._abandon()
            raise
        if errors:
            raise errors[0]

    def _send(self, text: str, values: Sequence[object]) -> Reply:
        name = self._names.get(text)
        if name is None:
            name = self._names[text] = b"safegen%d" % next(self._numbers)
            self._libpq.send_prepare(name, text.encode())
            self._coming.append(text)
        given, forms = zip(*map(_dumped, values), strict=True) if values else ((), ())
        self._libpq.send_query_prepared(name, given, forms)
        self._coming.append(reply := Reply(self))
        return reply

    def _take_answers(self) -> list[Exception]:
        from psycopg import errors, pq

        failed: list[Exception] = []
        while self._coming:
            result = self._next()
            status = result.status
            what = self._coming.popleft()
            if what is None:
                if status != pq.ExecStatus.PIPELINE_SYNC:
                    raise errors.OperationalError(f"the server answered out of turn ({status})")
                continue
            if status == pq.ExecStatus.FATAL_ERROR:
                state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
                kind: type[errors.Error] = errors.OperationalError
                with suppress(KeyError):
                    kind = errors.lookup(state)
                failed.append(kind(result.get_error_message()))
            if isinstance(what, Reply):
                what.result = result
            elif status != pq.ExecStatus.COMMAND_OK:
                self._names.pop(what, None)
            self._next()  # None ends each answer but a sync's
        self._libpq.exit_pipeline_mode()
        return failed

    def _next(self) -> Any:
        """The next answer; None ends one."""
        libpq = self._libpq
        while libpq.is_busy():  # select, and not libpq's own waiting: an interrupt ends it
            unsent = libpq.flush()
            poll = select.poll()
            poll.register(libpq.socket, select.POLLIN | (select.POLLOUT if unsent else 0))
            poll.poll()
            libpq.consume_input()
        return libpq.get_result()

    def _abandon(self) -> None:
        """Give the connection up: what was under way on it is not known. The server ends it, and its locks with it."""
        self._coming.clear()
        self._driver.close()


def array(values: Sequence[str | int | None]) -> bytes:
    """One value of the type ``text[]``, as PostgreSQL's binary format has it."""
    parts = [_HEADER.pack(1, 1, _TEXT_OID, len(values), 1)] if values else [_HEADER.pack(0, 0, _TEXT_OID, 0, 0)[:12]]
    for value in values:
        if value is None:
            parts.append(_NULL)
        else:
            data = value.encode() if isinstance(value, str) else b"%d" % value
            parts += (_LENGTH.pack(len(data)), data)
    return b"".join(parts)


def _dumped(value: Any) -> tuple[bytes | None, int]:
    """A value and its format: 0 is text, which must hold no NUL, and 1 binary."""
    kind = type(value)
    if kind is str:
        return value.encode(), 1  # of a text the same bytes, with their length
    if kind is int:
        return b"%d" % value, 0
    if value is None:
        return None, 0
    if kind is list:
        return array(value), 1
    raise TypeError(f"not a value for PostgreSQL: {kind.__name__}")


def _loaded(data: bytes | None, is_integer: bool) -> str | int | None:
    if data is None:
        return None
    return int(data) if is_integer else data.decode("utf-8", "surrogateescape")
