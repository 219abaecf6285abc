"""SQL statements that are compiled once for a database and run on its driver's own cursor.

SQLAlchemy writes them, so that each database gets its own dialect; what it does around every execution would cost an
append more than the database does.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Dialect, Table, bindparam, select, tuple_
from sqlalchemy.sql.elements import ClauseElement

from safegen.ledger import postgres_pipeline

Values = Mapping[str, object]
_PAGE: Final = 1000  # rows


@contextmanager
def together(connection: Connection) -> Iterator[None]:
    """Have the block's statements sent without waiting for each one's answer, where that can be done (psycopg).

    What fails is raised at the end of the outermost block, or where an answer is asked for.
    """
    if not postgres_pipeline.possible(connection.dialect):
        yield
        return
    pipeline = postgres_pipeline.pipeline_of(connection)
    pipeline.together += 1
    try:
        yield
    finally:
        pipeline.together -= 1
        if not pipeline.together:
            pipeline.settle()


def settle(connection: Connection) -> None:
    """Wait for what was sent in a block ``together`` that is open: SQLAlchemy and the driver can be used again."""
    if postgres_pipeline.possible(connection.dialect):
        postgres_pipeline.pipeline_of(connection).settle()


def pages(connection: Connection, table: Table, *keys: str) -> Iterator[list[tuple[Any, ...]]]:
    """Yield all rows of a table in the order of its key, by pages: some drivers cannot stream."""
    columns = [table.c[key] for key in keys]
    query = select(table).order_by(*columns).limit(_PAGE)
    first = Statement(query, connection.dialect)
    after = Statement(query.where(tuple_(*columns) > tuple_(*map(bindparam, keys))), connection.dialect)
    places = [list(table.c.keys()).index(key) for key in keys]
    rows = first.fetch_all(connection)
    while rows:
        yield rows
        rows = after.fetch_all(connection, {key: rows[-1][place] for key, place in zip(keys, places, strict=True)})


class Statement:
    """One statement with named values, for one kind of database."""

    def __init__(self, clause: ClauseElement, dialect: Dialect) -> None:
        compiled: Any = clause.compile(dialect=dialect)
        self.text: Final = str(compiled)
        self._order: Final[Sequence[str] | None] = compiled.positiontup
        self._given: Final[Values] = {k: v for k, v in compiled.params.items() if v is not None}  # literals
        self.numbered = ""  # with $1, $2 ... for a pipeline
        if postgres_pipeline.possible(dialect):
            kind: Any = type(dialect)
            numbered: Any = clause.compile(dialect=kind(paramstyle="numeric_dollar"))
            self.numbered, self._places = str(numbered), numbered.positiontup

    def run(self, connection: Connection, values: Values | None = None) -> Any:
        """Execute it once, in the transaction that is open; return what holds the rows, such as the driver's cursor."""
        if self.numbered:
            return postgres_pipeline.pipeline_of(connection).run(self.numbered, self._numbered_values(values or {}))
        cursor: Any = connection.connection.cursor()
        cursor.execute(self.text, self._values(values or {}))
        return cursor

    def fetch_all(self, connection: Connection, values: Values | None = None) -> list[tuple[Any, ...]]:
        """Execute it and return all rows. Text that is no UTF-8 comes with surrogates, as everywhere in the ledger.

        SQLite's driver decodes by itself first: a function of ours that it calls for every text takes longer than all
        else. Where it cannot, the file is damaged, and the rows are read once more with that function.
        """
        if (
            self.numbered and not postgres_pipeline.pipeline_of(connection).is_open
        ):  # the driver reads many rows quicker
            cursor: Any = connection.connection.cursor()
            with cursor:
                cursor.execute(self.text, self._values(values or {}))
                return list(cursor.fetchall())
        driver: Any = connection.connection.driver_connection
        lenient = getattr(driver, "text_factory", None)
        if lenient in (None, str):
            return list(self.run(connection, values).fetchall())
        driver.text_factory = str
        try:
            return list(self.run(connection, values).fetchall())
        except sqlite3.OperationalError:
            driver.text_factory = lenient
            return list(self.run(connection, values).fetchall())
        finally:
            driver.text_factory = lenient

    def run_many(self, connection: Connection, rows: Sequence[Values]) -> None:
        """Execute it for each row; nothing is done where there is none."""
        if self.numbered:
            postgres_pipeline.pipeline_of(connection).run_many(
                self.numbered, [self._numbered_values(row) for row in rows]
            )
        elif len(rows) == 1:
            self.run(connection, rows[0])
        elif rows:
            connection.connection.cursor().executemany(self.text, list(map(self._values, rows)))

    def _values(self, values: Values) -> Any:
        if self._order is None:
            return {**self._given, **values}
        given = self._given
        return tuple([values[name] if name in values else given[name] for name in self._order])

    def _numbered_values(self, values: Values) -> list[object]:
        given = self._given
        return [values[name] if name in values else given[name] for name in self._places]
