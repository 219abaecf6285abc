"""Engines and transactions: what differs between SQLite and other databases, and how their errors become ours."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import QueuePool, StaticPool

from safegen.errors import LedgerBusyError, LedgerError

_WRITE = "safegen_write"


def parse_url(url: str) -> URL:
    """Read a SQLAlchemy URL; LedgerError if it is none. The path of a SQLite URL is taken as it is written."""
    scheme, slashes, path = url.partition(":///")
    try:
        if slashes and path and scheme in ("sqlite", "sqlite+pysqlite"):
            # SQLAlchemy's versions differ on whether %41 in a path is an A; file names must not depend on that.
            return URL.create("sqlite", database=path)
        return make_url(url)
    except (ArgumentError, ValueError) as exc:
        raise LedgerError(
            f"not a database URL: {url!r}",
            remedy="write sqlite:////absolute/path/ledger.db or postgresql+psycopg://user@host/database",
        ) from exc


def sqlite_path(url: URL) -> Path | None:
    """Return the file of a SQLite URL; None for other databases and for one in memory."""
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    if str(url.database).startswith("file:") or "?" in str(url.database):  # options are ours to set
        raise LedgerError(
            "the ledger's URL must name a plain path without ?", remedy="write sqlite:////absolute/path/ledger.db"
        )
    return Path(str(url.database))


def connect(url: URL, *, create: bool, read_only: bool, busy_seconds: float) -> Engine:
    """Return an engine for ``url``; the file's folder is made if ``create``. Nothing is read from the database yet."""
    try:
        if url.get_backend_name() == "sqlite":
            return _sqlite_engine(url, create=create, read_only=read_only, busy_seconds=busy_seconds)
        engine = create_engine(url, pool_pre_ping=True)
    except ModuleNotFoundError as exc:
        raise LedgerError(
            f"the database driver of {url.render_as_string()} is not installed", remedy=f"pip install {exc.name}"
        ) from exc
    except SQLAlchemyError as exc:
        raise LedgerError(f"not a usable database URL: {url.render_as_string()}") from exc
    if engine.dialect.name == "postgresql":
        milliseconds = max(1, round(busy_seconds * 1000))

        @event.listens_for(engine, "connect")
        def _limit_waiting(connection: DBAPIConnection, _: object) -> None:
            connection.cursor().execute(f"SET lock_timeout = {milliseconds}")
            connection.commit()

    return engine


def _sqlite_engine(url: URL, *, create: bool, read_only: bool, busy_seconds: float) -> Engine:
    path = sqlite_path(url)
    if path is not None:
        _check_file(path, create=create and not read_only, read_only=read_only)
    mode = "ro" if read_only else "rwc" if create else "rw"
    engine = create_engine(
        "sqlite://",
        creator=_sqlite_connector(path, mode, busy_seconds),
        poolclass=StaticPool if path is None else QueuePool,
    )

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # sqlite3 starts no transaction on its own here: a writer takes the lock before it reads what it builds upon.
        write = connection.get_execution_options().get(_WRITE, False)
        connection.connection.cursor().execute("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _sqlite_connector(path: Path | None, mode: str, busy_seconds: float) -> Callable[[], sqlite3.Connection]:
    def open_uri(uri: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            uri, uri=True, timeout=busy_seconds, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        # A hand-edited row may hold bytes that are no UTF-8; verification must be able to read and name it.
        connection.text_factory = _lenient_text
        try:
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA cache_size=-32000")  # KiB: appends touch pages all over the indexes on digests
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    def open_file() -> sqlite3.Connection:
        if path is None:
            return open_uri("file::memory:")
        uri = f"file:{quote(str(path.absolute()))}?mode={mode}"
        try:
            return open_uri(uri)
        except sqlite3.OperationalError as exc:
            # A cleanly closed WAL file on a read-only medium has no -shm file and none can be made: read it as it lies.
            stuck = mode == "ro" and exc.sqlite_errorcode in (
                sqlite3.SQLITE_CANTOPEN,
                sqlite3.SQLITE_READONLY_DIRECTORY,
            )
            if not stuck or path.with_name(path.name + "-wal").exists():
                raise
            return open_uri(uri + "&immutable=1")

    return open_file


def _lenient_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _check_file(path: Path, *, create: bool, read_only: bool) -> None:
    """Refuse early, in words, what SQLite would only call 'unable to open database file'."""
    try:
        if path.is_dir():
            raise LedgerError(f"the ledger {path} is a folder", remedy="name a file inside it, such as ledger.db")
        if not path.exists():
            if not create:
                raise LedgerError(f"there is no ledger at {path}", remedy="check the path, or generate something first")
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(path.parent, os.W_OK | os.X_OK):
                raise LedgerError(f"cannot create the ledger {path}: its folder is not writable")
            with suppress(FileExistsError):  # SQLite gives its journals the mode of the file
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        elif not os.access(path, os.R_OK):
            raise LedgerError(f"the ledger {path} is not readable", remedy="check its owner and permissions")
        elif not read_only and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK | os.X_OK)):
            # SQLite writes its journal beside the file, so the folder counts too.
            raise LedgerError(
                f"the ledger {path} is not writable", remedy="check the permissions of the file and its folder"
            )
    except OSError as exc:
        raise LedgerError(f"cannot open the ledger {path}: {exc.strerror}") from exc


def use_wal(engine: Engine) -> None:
    """Switch a new SQLite file to write-ahead logging, so that readers and the writer do not wait for each other."""
    with _translated(engine):
        raw = engine.raw_connection()
        try:
            raw.cursor().execute("PRAGMA journal_mode=WAL")
        finally:
            raw.close()


@contextmanager
def reading(engine: Engine, *, snapshot: bool = False) -> Iterator[Connection]:
    """A read transaction; with ``snapshot`` all its statements see one state (on SQLite they always do)."""
    options = {"isolation_level": "REPEATABLE READ"} if snapshot and engine.dialect.name == "postgresql" else {}
    with _translated(engine), engine.connect() as plain:
        connection = plain.execution_options(**options)
        with connection.begin():
            yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A write transaction, committed at the end and rolled back on any error; on SQLite it locks out other writers."""
    with _translated(engine), engine.connect() as plain:
        connection = plain.execution_options(**{_WRITE: True})
        with connection.begin():
            yield connection


class KeptConnection:
    """A connection to SQLite for many write transactions, which opening one for each would make a tenth slower."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None

    @contextmanager
    def writing(self, busy_seconds: float) -> Iterator[Connection]:
        """As ``writing``; SQLite waits for its lock as long as ``busy_seconds``. One thread at a time."""
        with _translated(self._engine):
            if self._connection is None:
                self._connection = self._engine.connect().execution_options(**{_WRITE: True})
            try:
                milliseconds = max(1, round(busy_seconds * 1000))
                self._connection.connection.cursor().execute(f"PRAGMA busy_timeout = {milliseconds}")
                with self._connection.begin():
                    yield self._connection
            except BaseException:
                # A query that was not read to its end keeps its view of the database after a rollback, and whoever
                # gets the connection next would see that.
                if self._connection is not None and not isinstance(self._engine.pool, StaticPool):
                    self._connection.invalidate()
                self.close()
                raise

    def close(self) -> None:
        """Give the connection back; the next transaction opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


@contextmanager
def _translated(engine: Engine) -> Iterator[None]:
    try:
        yield
    except errors_of(engine) as exc:
        raise translate(exc) from exc


def errors_of(engine: Engine) -> tuple[type[Exception], ...]:
    """Return what its database raises: SQLAlchemy's errors, and the driver's, whose cursor our own statements use."""
    dialect: Any = engine.dialect
    return (SQLAlchemyError, dialect.loaded_dbapi.Error)


_SQLITE_WORDS = {
    sqlite3.SQLITE_BUSY: "",
    sqlite3.SQLITE_LOCKED: "",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "it is read-only",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened",
    sqlite3.SQLITE_NOTADB: "the file is not a SQLite database",
    sqlite3.SQLITE_CORRUPT: "the file is damaged",
    sqlite3.SQLITE_IOERR: "the disk reported an error",
}


def translate(exc: Exception) -> LedgerError:
    """Return our error for a database error; busy ones become LedgerBusyError."""
    original = getattr(exc, "orig", None) or exc
    code = getattr(original, "sqlite_errorcode", None)
    if isinstance(code, int):
        code &= 0xFF  # extended codes keep the primary one in the low byte
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return _busy()
        if code in _SQLITE_WORDS:
            return LedgerError(f"the ledger could not be used: {_SQLITE_WORDS[code]}")
    if getattr(original, "sqlstate", None) == "55P03":  # PostgreSQL: lock_not_available
        return _busy()
    return LedgerError(f"the ledger could not be used: {str(original).strip() or type(original).__name__}")


def _busy() -> LedgerBusyError:
    return LedgerBusyError("another process is writing to the ledger and did not finish in time", remedy="try again")
