"""Whole rows into a table, as tuples in the order of its columns: what an append writes most of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Dialect, Integer, Table, insert

from safegen.ledger.postgres_pipeline import pipeline_of
from safegen.ledger.statements import Statement

_SOME: Final = 4
_MANY: Final = 50
"""Rows from which on PostgreSQL takes them quicker as arrays, and by COPY."""


class Insert:
    """INSERTs into one table, compiled once for a database.

    A failing one takes the whole transaction back in SQLite, and not itself alone: otherwise SQLite keeps a journal for
    each row of a table with triggers, which takes twice as long as the row.
    """

    def __init__(self, table: Table, dialect: Dialect) -> None:
        self._statement = Statement(insert(table).prefix_with("OR ROLLBACK", dialect="sqlite"), dialect)
        self._names: Final = tuple(table.columns.keys())
        self._tuples: Final = dialect.positional
        names = ", ".join(self._names)
        self._copy: Final = f"COPY {table.name} ({names}) FROM STDIN"
        integer = {name for name, column in table.columns.items() if isinstance(column.type, Integer)}
        chosen = ", ".join(f"{name}::bigint" if name in integer else name for name in self._names)
        given = ", ".join(f"${place}::text[]" for place in range(1, len(self._names) + 1))
        into = f"INSERT INTO {table.name} ({names})"
        self._arrays: Final = f"{into} SELECT {chosen} FROM unnest({given}) AS r({names})"  # noqa: S608

    def run(self, connection: Connection, rows: Sequence[tuple[object, ...]]) -> None:
        """Insert the rows; nothing is done where there is none."""
        if self._statement.numbered:
            self._run_numbered(connection, rows)
        elif not self._tuples:
            self._statement.run_many(connection, [dict(zip(self._names, row, strict=True)) for row in rows])
        elif rows:
            cursor: Any = connection.connection.cursor()
            cursor.executemany(self._statement.text, rows)

    def _run_numbered(self, connection: Connection, rows: Sequence[tuple[object, ...]]) -> None:
        pipeline = pipeline_of(connection)
        if len(rows) < _SOME:
            pipeline.run_many(self._statement.numbered, rows)
            return
        if len(rows) < _MANY:
            pipeline.run(self._arrays, [list(column) for column in zip(*rows, strict=True)])
            return
        pipeline.settle()
        cursor: Any = connection.connection.cursor()
        with cursor, cursor.copy(self._copy) as copy:
            for row in rows:
                copy.write_row(row)
