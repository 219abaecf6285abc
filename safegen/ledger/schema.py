"""Schema revisions: which one a database has, and moving it. Alembic is imported only when something must be moved."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, inspect, text

from safegen.errors import LedgerError, MigrationRequiredError
from safegen.ledger.database import connect, parse_url, reading, use_wal, writing
from safegen.ledger.models import metadata
from safegen.settings import LEDGER_BUSY_SECONDS

if TYPE_CHECKING:
    from alembic.config import Config

# Imported where they are used: alembic.

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008")
"""All revisions, oldest first. A constant, so that opening a ledger need not load Alembic; a test compares."""

HEAD = REVISIONS[-1]
_MIGRATION_LOCK = 0x5AFE_6E0D  # PostgreSQL advisory lock: one migration at a time


def read_revision(connection: Connection) -> str | None:
    """Return the revision of an open database; None if it has no ledger in it."""
    if connection.dialect.name == "sqlite":
        query = "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'"
        found = connection.exec_driver_sql(query).first() is not None
    else:
        found = inspect(connection).has_table("alembic_version")
    if not found:
        return None
    row = connection.execute(text("SELECT version_num FROM alembic_version")).first()
    return None if row is None else str(row[0])


def check(engine: Engine, *, create: bool) -> None:
    """Make sure that the database has this version's schema; an empty one is set up if ``create``.

    Raises MigrationRequiredError if the schema is older or newer, LedgerError if there is no ledger in the database.
    """
    with reading(engine) as connection:
        revision = read_revision(connection)
        foreign = revision is None and _holds_something_else(connection)
    if revision == HEAD:
        return
    if foreign:
        raise LedgerError("the database holds something other than a ledger", remedy="choose another file or database")
    if revision is None:
        if not create:
            raise LedgerError("the database holds no ledger", remedy="check the URL, or generate something first")
        migrate(engine)
    elif revision in REVISIONS:
        raise MigrationRequiredError(
            f"the ledger's schema is {revision}; this version of safegen needs {HEAD}",
            remedy="back the ledger up, then run: safegen ledger upgrade",
        )
    else:
        raise MigrationRequiredError(
            f"the ledger's schema {revision} is newer than this version of safegen knows ({HEAD})",
            remedy="upgrade safegen: pip install --upgrade safegen",
        )


def current_revision(url: str) -> str | None:
    """Return the schema revision of the database at ``url``; None if it holds no ledger."""
    engine = connect(parse_url(url), create=False, read_only=True, busy_seconds=LEDGER_BUSY_SECONDS)
    try:
        with reading(engine) as connection:
            return read_revision(connection)
    finally:
        engine.dispose()


def upgrade(url: str, revision: str = "head", *, busy_seconds: float = LEDGER_BUSY_SECONDS) -> None:
    """Move the database at ``url`` up to ``revision``, created if need be; all or nothing."""
    _move(url, "upgrade", revision, create=True, busy_seconds=busy_seconds)


def downgrade(url: str, revision: str, *, busy_seconds: float = LEDGER_BUSY_SECONDS) -> None:
    """Move the database at ``url`` down to ``revision``; ``base`` removes the ledger with all its entries."""
    _move(url, "downgrade", revision, create=False, busy_seconds=busy_seconds)


def alembic_config() -> Config:
    """Return an Alembic configuration that finds the migrations inside the installed package."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(files("safegen.migrations")).replace("%", "%%"))
    return config


def migrate(engine: Engine) -> None:
    """Bring an open database to this version's schema."""
    _migrate(engine, "upgrade", "head")


def _move(url: str, direction: str, revision: str, *, create: bool, busy_seconds: float) -> None:
    engine = connect(parse_url(url), create=create, read_only=False, busy_seconds=busy_seconds)
    try:
        _migrate(engine, direction, revision)
    finally:
        engine.dispose()


def _migrate(engine: Engine, direction: str, revision: str) -> None:
    """Run Alembic under the writers' lock; whoever comes second finds the work done."""
    from alembic import command
    from alembic.util import CommandError

    step: Callable[..., Any] = command.upgrade if direction == "upgrade" else command.downgrade
    config = alembic_config()
    if engine.dialect.name == "sqlite":
        use_wal(engine)
    with writing(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        config.attributes["connection"] = connection
        try:
            step(config, revision)
        except CommandError as exc:
            raise MigrationRequiredError(
                f"the ledger's schema cannot be moved to {revision}: {exc}",
                remedy="upgrade safegen if the ledger was made by a newer version",
            ) from exc


def _holds_something_else(connection: Connection) -> bool:
    """Whether tables lie there without our revision mark: any in a SQLite file, ours alone in a shared database."""
    tables = set(inspect(connection).get_table_names()) - {"alembic_version"}
    return bool(tables) if connection.dialect.name == "sqlite" else bool(tables & metadata.tables.keys())
