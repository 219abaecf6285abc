"""Homes, ledgers and raw files for tests of personal fields."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy

from safegen.keys import KeyStore
from safegen.ledger import Event, Ledger
from safegen.ledger.subject_encryption import subject_keys, unwrap
from safegen.ledger.subjects import Personal
from safegen.settings import Home

ADA = "account:ada"
WORDS = "a lighthouse in the fog at four o'clock"
FIELDS = {"requester": ADA, "texts": {"prompt": WORDS}, "salts": {"prompt": "00" * 16}}


def make_home(folder: Path, url: str = "") -> Home:
    home = Home(folder / "home", ledger_url_override=url, ledger_busy_seconds=10.0)
    KeyStore.init(home)
    return home


@contextmanager
def opened(home: Home) -> Iterator[tuple[Ledger, Personal]]:
    keys = KeyStore.load(home)
    with Ledger.open(home.ledger_url, key=keys.ledger_key, origin=keys.ledger_name, busy_seconds=10.0) as ledger:
        yield ledger, Personal(ledger, home)


def blocked(number: int = 1) -> Event:
    return Event("blocked", f"{number:016x}", {"stage": "request"})


def write(home: Home, subject: str = ADA, count: int = 1, **fields: object) -> list[int]:
    """Record runs for a subject; their entries."""
    with opened(home) as (_, personal):
        said = {**FIELDS, "requester": subject, **fields}
        return [personal.append(blocked(n), subject, said).index for n in range(1, count + 1)]  # type: ignore[arg-type]


def rows(home: Home, statement: str) -> list[tuple[object, ...]]:
    engine = sqlalchemy.create_engine(home.ledger_url)
    try:
        with engine.begin() as connection:
            done = connection.exec_driver_sql(statement)
            return [tuple(row) for row in done] if done.returns_rows else []
    finally:
        engine.dispose()


def subject_key(home: Home, ref: str = "") -> tuple[bytes, str]:
    """The one subject's key, and how it stands wrapped in the table."""
    from safegen.keys.wrapping import read_wrapping_key

    engine = sqlalchemy.create_engine(home.ledger_url)
    with engine.connect() as connection:
        query = sqlalchemy.select(subject_keys)
        row = connection.execute(query.where(subject_keys.c.ref == ref) if ref else query).one()
    engine.dispose()
    wrapping_key = read_wrapping_key(home)
    assert wrapping_key is not None
    return unwrap(wrapping_key, row), row.wrapped


def raw(home: Home) -> bytes:
    """Every byte of a SQLite ledger: its file, its write-ahead log, its shared memory."""
    return b"".join(path.read_bytes() for path in sorted(home.root.glob("ledger.db*")))
