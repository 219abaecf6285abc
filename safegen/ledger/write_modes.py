"""The two ways in which appends reach the tables: at once (inline), or through a queue in the database (sequenced)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine

from safegen.errors import LedgerError
from safegen.ledger import fair_lock
from safegen.ledger.append_results import Outcome, Receipt
from safegen.ledger.database import KeptConnection, writing
from safegen.ledger.entry import Draft
from safegen.ledger.group_commit import GroupCommit, each_alone
from safegen.ledger.sequencer import Sequencer
from safegen.ledger.writing import Appender

INLINE: Final = "inline"
SEQUENCED: Final = "sequenced"


class Writer:
    """What a ledger that was opened with its key appends with."""

    def __init__(
        self, engine: Engine, path: Path | None, key: Ed25519PrivateKey, origin: str, mode: str, busy_seconds: float
    ) -> None:
        """``path`` is the file of a SQLite ledger. LedgerError if this database cannot be written in this mode."""
        able = engine.dialect.name == "postgresql" and engine.dialect.driver == "psycopg"
        if mode not in ("", INLINE, SEQUENCED):
            raise LedgerError(f"not a mode of writing: {mode!r}", remedy=f"use {INLINE} or {SEQUENCED}, or none")
        if mode == SEQUENCED and not able:
            raise LedgerError(
                "only PostgreSQL with psycopg is written in the sequenced mode", remedy="open the ledger without a mode"
            )
        appender = Appender(engine.dialect, key, origin)
        self._way: Sequencer | _Inline
        if mode == SEQUENCED or (able and mode != INLINE):
            self._way = Sequencer(engine, appender, key, busy_seconds)
        else:
            self._way = _Inline(engine, path, appender, busy_seconds)
        self._group = GroupCommit(self._way.commit, busy_seconds)
        self._path = path
        self._file = None if path is None else _identity(path)

    def submit(self, drafts: Sequence[Draft]) -> list[Receipt]:
        """Append the events, all or none; raises what ``Ledger.append_many`` says."""
        receipts = self._group.submit(drafts)
        if self._path is not None and _identity(self._path) != self._file:
            raise LedgerError(
                f"the ledger {self._path} was removed or replaced while it was open: what was recorded went with it",
                remedy="put the ledger back from a backup, then repeat the request",
            )
        return receipts

    def close(self) -> None:
        """Give connections of one's own back."""
        self._way.close()


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file a path leads to: its device and inode; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class _Inline:
    """Commits in a transaction of one's own. Processes take turns: in order on SQLite, by the row lock elsewhere."""

    def __init__(self, engine: Engine, path: Path | None, appender: Appender, busy_seconds: float) -> None:
        self._engine = engine
        self._held = KeptConnection(engine) if engine.dialect.name == "sqlite" else None
        self._appender = appender
        self._seconds = busy_seconds
        self._turns = fair_lock.Turns(path) if path is not None and fair_lock.possible() else None

    def commit(self, jobs: Sequence[Sequence[Draft]]) -> Sequence[Outcome]:
        until = time.monotonic() + self._seconds
        with self._turns.turn(self._seconds) if self._turns is not None else nullcontext():
            return each_alone(lambda drafts: self._transaction(drafts, until), jobs)

    def _transaction(self, drafts: Sequence[Draft], until: float) -> list[Receipt]:
        with (
            writing(self._engine) if self._held is None else self._held.writing(until - time.monotonic()) as connection
        ):
            return self._appender.append(connection, drafts)

    def close(self) -> None:
        if self._held is not None:
            self._held.close()
