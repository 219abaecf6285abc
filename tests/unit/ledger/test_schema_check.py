"""fsck sees an index that lies, a table that was altered, and personal rows that went without an erasure."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safegen.ledger import Event, Ledger, LedgerReport
from safegen.privacy import fields
from safegen.settings import Home
from tests.postgres import DATABASES, database
from tests.unit.privacy.privacy_samples import ADA, make_home, opened, rows, write

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.db"
    with Ledger.open(f"sqlite:///{path}", key=KEY) as ledger:
        ledger.append_many(Event("generated", f"{n:016x}", {}, f"{n:064x}") for n in range(5))
    return path


def verify(url: str) -> LedgerReport:
    with Ledger.open(url, create=False, read_only=True) as ledger:
        return ledger.verify(KEY.public_key())


def rewrite_schema(path: Path, statement: str) -> None:
    """Change what SQLite believes of its tables, and make it read that again."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA writable_schema=ON")
    assert connection.execute(statement).rowcount == 1
    (version,) = connection.execute("PRAGMA schema_version").fetchone()
    connection.execute(f"PRAGMA schema_version={version + 1}")
    connection.close()


def test_a_sound_ledger_has_the_schema_of_a_fresh_one(path: Path) -> None:
    assert verify(f"sqlite:///{path}").ok


def test_an_index_that_hides_an_entry_is_named(path: Path) -> None:
    """Redefined as a partial one and made anew, it is sound in SQLite's eyes and finds less."""
    hide = "CREATE INDEX ix_entries_content_id ON entries (content_id) WHERE idx <> 3"
    connection = sqlite3.connect(path)
    connection.execute("DROP INDEX ix_entries_content_id")
    connection.execute(hide)
    connection.commit()
    connection.close()
    rewrite_schema(
        path,
        "UPDATE sqlite_master SET sql = 'CREATE INDEX ix_entries_content_id ON entries (content_id)'"
        " WHERE name = 'ix_entries_content_id'",
    )
    problems = verify(f"sqlite:///{path}").problems
    assert any("integrity check" in p.summary and "ix_entries_content_id" in p.summary for p in problems), problems


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("DROP INDEX ix_entries_kind", "ix_entries_kind is missing"),
        ("CREATE TABLE more (x)", "more is none of the ledger's"),
        ("ALTER TABLE entries ADD COLUMN more", "entries is not as the migrations make it"),
    ],
)
def test_a_changed_schema_is_named(path: Path, statement: str, named: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()
    assert any(named in p.summary for p in verify(f"sqlite:///{path}").problems)


def test_a_partial_index_is_named_on_both_databases(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for kind in DATABASES:
        with subtests.test(kind), database(kind, tmp_path) as url:
            with Ledger.open(url, key=KEY) as ledger:
                ledger.append_many(Event("generated", f"{n:016x}", {}, f"{n:064x}") for n in range(5))
            assert verify(url).ok
            engine = sqlalchemy.create_engine(url)
            with engine.begin() as connection:
                connection.exec_driver_sql("DROP INDEX ix_entries_content_id")
                connection.exec_driver_sql("CREATE INDEX ix_entries_content_id ON entries (content_id) WHERE idx <> 3")
            engine.dispose()
            assert any("ix_entries_content_id" in p.summary for p in verify(url).problems)


@pytest.fixture(params=DATABASES)
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    with database(request.param, tmp_path) as url:
        yield make_home(tmp_path, url)


def problems(home: Home) -> list[str]:
    with opened(home) as (ledger, _):
        return [p.summary for p in ledger.verify().problems]


def test_personal_rows_that_were_deleted_are_missed(home: Home) -> None:
    write(home, count=3)
    assert problems(home) == []
    rows(home, "DELETE FROM personal_fields WHERE entry = 1 AND field = 'texts'")
    (said,) = problems(home)
    assert "'texts' is gone, and no erasure says so" in said


def test_an_erasure_is_no_loss_and_one_that_nobody_recorded_is(home: Home) -> None:
    write(home, count=2)
    fields.erase(home, ADA, ground="request")
    assert problems(home) == []
    rows(home, "UPDATE personal_fields SET erasure = 'feedfacefeedface' WHERE field = 'texts' AND entry = 0")
    (said,) = problems(home)
    assert "feedfacefeedface, which no entry records" in said
