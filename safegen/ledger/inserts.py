"""Whole rows into a table, as tuples in the order of its columns: what an append writes most of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Dialect, Table, insert

from safegen.ledger.pipelines import pipeline_of
from safegen.ledger.statements import Statement

_MANY: Final = 50
"""Rows from which on PostgreSQL's COPY is the quicker way."""


class Insert:
    """INSERTs into one table, compiled once for a database.

    A failing one takes the whole transaction back in SQLite, and not itself alone: otherwise SQLite keeps a journal for
    each row of a table with triggers, which takes twice as long as the row.
    """

    def __init__(self, table: Table, dialect: Dialect) -> None:
        self._statement = Statement(insert(table).prefix_with("OR ROLLBACK", dialect="sqlite"), dialect)
        self._names: Final = tuple(table.columns.keys())
        self._tuples: Final = dialect.positional
        self._copy: Final = f"COPY {table.name} ({', '.join(self._names)}) FROM STDIN"

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
        if len(rows) < _MANY:
            pipeline.run_many(self._statement.numbered, rows)
            return
        pipeline.settle()
        cursor: Any = connection.connection.cursor()
        with cursor, cursor.copy(self._copy) as copy:
            for row in rows:
                copy.write_row(row)
