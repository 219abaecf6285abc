"""Whether tables and indices are those that the migrations make, and say the same (fsck's part).

An index that was redefined answers look-ups with less than the table holds, and nothing in the entries shows it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from sqlalchemy import Connection, Index, Table, create_engine
from sqlalchemy.pool import StaticPool

from safegen.ledger import subject_encryption  # noqa: F401 - its tables join the metadata
from safegen.ledger.facts import entry_facts  # noqa: F401 - as above
from safegen.ledger.models import metadata
from safegen.ledger.schema import migrate

_LISTED: Final = "SELECT type, name, coalesce(sql, '') FROM sqlite_master WHERE type IN ('table', 'index')"
_MOST_FAULTS: Final = 20


def faults(connection: Connection) -> list[str]:
    """Return what is wrong with tables and indices, a sentence each."""
    if connection.dialect.name == "sqlite":
        return [*_sqlite_text(connection), *_sqlite_content(connection)]
    return _postgresql_indices(connection) if connection.dialect.name == "postgresql" else []


def _sqlite_text(connection: Connection) -> list[str]:
    found = {(str(k), str(n)): str(sql) for k, n, sql in connection.exec_driver_sql(_LISTED)}
    wanted = _fresh()
    missing = [f"the {kind} {name} is missing" for kind, name in sorted(wanted.keys() - found.keys())]
    changed = [
        f"the {kind} {name} is not as the migrations make it"
        for kind, name in sorted(wanted.keys() & found.keys())
        if found[kind, name] != wanted[kind, name]
    ]
    others = [
        f"the {kind} {name} is none of the ledger's"
        for kind, name in sorted(found.keys() - wanted.keys())
        if not name.startswith("sqlite_stat")
    ]
    return missing + changed + others


@lru_cache(maxsize=1)
def _fresh() -> dict[tuple[str, str], str]:
    """The schema of a ledger that was made just now: migrated in memory, once a process."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    try:
        migrate(engine)
        with engine.connect() as connection:
            return {(str(k), str(n)): str(sql) for k, n, sql in connection.exec_driver_sql(_LISTED)}
    finally:
        engine.dispose()


def _sqlite_content(connection: Connection) -> list[str]:
    """Every index held against its table, by SQLite itself."""
    said = [str(row[0]) for row in connection.exec_driver_sql(f"PRAGMA integrity_check({_MOST_FAULTS})")]
    return [] if said == ["ok"] else [f"SQLite's integrity check says: {line}" for line in said]


def _postgresql_indices(connection: Connection) -> list[str]:
    query = (
        "SELECT c.relname, i.indpred IS NULL AND i.indisvalid AND i.indisready AND i.indislive, i.indisunique,"
        " ARRAY(SELECT pg_get_indexdef(i.indexrelid, n, true) FROM generate_series(1, i.indnkeyatts) AS n)"
        " FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid"
        " JOIN pg_namespace s ON s.oid = t.relnamespace WHERE s.nspname = current_schema()"
    )
    found = {
        str(name): (bool(whole), bool(unique), [str(column).strip('"') for column in of])
        for name, whole, unique, of in connection.exec_driver_sql(query)
    }
    problems = []
    for name, index in _declared():
        if name not in found:
            problems.append(f"the index {name} is missing")
            continue
        whole, unique, columns = found[name]
        if not whole:
            problems.append(f"the index {name} is partial or not valid")
        elif unique != bool(index.unique) or columns != [column.name for column in index.columns]:
            problems.append(f"the index {name} is not as the migrations make it")
    return problems


def _declared() -> list[tuple[str, Index]]:
    tables: list[Table] = list(metadata.tables.values())
    return sorted((str(index.name), index) for table in tables for index in table.indexes)
