"""The triggers that refuse changes, as SQL; revisions 0001 (SQLite) and 0007 (both databases) create them.

They stop mistakes, not whoever owns the tables: that is what checkpoints are for. A later revision that changes one
brings its own text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection

KEPT: Final = ("entries", "checkpoints", "nodes")
"""Tables that only grow. What follows from entries alone and may be derived again (indexes, counts) is not guarded."""

_AT_THE_END: Final = {  # INSERT OR REPLACE deletes without firing DELETE triggers, so inserts must come at the end
    "entries": "NEW.idx IS NOT coalesce((SELECT idx FROM entries ORDER BY idx DESC LIMIT 1), -1) + 1"
    " OR (NEW.kind = 'generated' AND"
    " EXISTS (SELECT 1 FROM entries WHERE content_id = NEW.content_id AND kind = 'generated'))",
    "checkpoints": "NEW.size <= (SELECT size FROM checkpoints ORDER BY size DESC LIMIT 1)",
    "nodes": "EXISTS (SELECT 1 FROM nodes WHERE level = NEW.level AND position = NEW.position)",
    "submissions": "EXISTS (SELECT 1 FROM submissions WHERE key = NEW.key)",  # from revision 0007 to 0008
}
_SHRINKS: Final = "NEW.id <> OLD.id OR NEW.size < OLD.size"

FUNCTION: Final = """
CREATE FUNCTION safegen_refuse() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only: % on % refused', TG_OP, TG_TABLE_NAME;
END $body$
"""
"""PostgreSQL: what its triggers call."""


def definitions(dialect: str, more: Sequence[str] = ()) -> dict[str, str]:
    """Return the statement that makes each trigger of ``sqlite`` or ``postgresql``, by its name.

    ``more`` are tables that an earlier revision had as well.
    """
    make = {"sqlite": _sqlite, "postgresql": _postgresql}.get(dialect)
    return {} if make is None else make((*KEPT, *more))


def _sqlite(kept: Sequence[str]) -> dict[str, str]:
    made = {
        f"{table}_no_{what.lower()}": f"CREATE TRIGGER {table}_no_{what.lower()} BEFORE {what} ON {table}"
        f" BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: {what} on {table} refused'); END"
        for table in kept
        for what in ("UPDATE", "DELETE")
    }
    made |= {
        f"{table}_only_append": f"CREATE TRIGGER {table}_only_append BEFORE INSERT ON {table} WHEN {wrong}"
        f" BEGIN SELECT RAISE(ROLLBACK, 'the ledger is append-only: INSERT into {table} refused'); END"
        for table, wrong in _AT_THE_END.items()
        if table in kept
    }
    for name, when in {
        "head_no_delete": "BEFORE DELETE ON head",
        "head_no_insert": "BEFORE INSERT ON head",
        "head_only_grows": f"BEFORE UPDATE ON head WHEN {_SHRINKS}",
    }.items():
        refuse = "SELECT RAISE(ABORT, 'the ledger is append-only: head may only grow');"
        made[name] = f"CREATE TRIGGER {name} {when} BEGIN {refuse} END"
    return made


def _postgresql(kept: Sequence[str]) -> dict[str, str]:
    call = "EXECUTE FUNCTION safegen_refuse()"
    made = {
        f"{table}_only_append": f"CREATE TRIGGER {table}_only_append BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
        f" FOR EACH STATEMENT {call}"
        for table in kept
    }
    made["head_no_delete"] = (
        f"CREATE TRIGGER head_no_delete BEFORE DELETE OR TRUNCATE ON head FOR EACH STATEMENT {call}"
    )
    made["head_only_grows"] = (
        f"CREATE TRIGGER head_only_grows BEFORE UPDATE ON head FOR EACH ROW WHEN ({_SHRINKS}) {call}"
    )
    return made


def body_of(function: str) -> str:
    """Return what PostgreSQL keeps of a function's text: what stands between its $body$ marks."""
    return function.split("$body$")[1]


def faults(connection: Connection) -> list[str]:
    """Return what is wrong with the guards of an open ledger, a sentence each: missing, switched off, or changed."""
    wanted = definitions(connection.dialect.name)
    if connection.dialect.name == "sqlite":
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        present = {str(name): str(sql) == wanted.get(name) for name, sql in connection.exec_driver_sql(query)}
    elif connection.dialect.name == "postgresql":
        present = _postgresql_state(connection)
    else:
        return []
    missing = [f"the trigger {name} that refuses changes is missing" for name in sorted(wanted.keys() - present.keys())]
    changed = [f"the trigger {n} was changed" for n in sorted(wanted.keys() & present.keys()) if not present[n]]
    others = [f"the trigger {n} is none of the ledger's" for n in sorted(present.keys() - wanted.keys())]
    return missing + changed + others


def _postgresql_state(connection: Connection) -> dict[str, bool]:
    """Whether each trigger on our tables is switched on and calls our function, whose text is ours."""
    query = (
        "SELECT t.tgname, t.tgenabled IN ('O', 'A') AND p.proname = 'safegen_refuse' AND p.prosrc = %(body)s,"
        " pg_get_triggerdef(t.oid) FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid WHERE NOT t.tgisinternal"
        " AND t.tgrelid IN (SELECT to_regclass(n) FROM unnest(%(tables)s::text[]) AS n)"
    )
    rows = connection.exec_driver_sql(query, {"body": body_of(FUNCTION), "tables": [*KEPT, "head"]})
    wanted = definitions("postgresql")
    return {name: ok and _same(text, wanted.get(name, "")) for name, ok, text in rows}


def _same(told: str, made: str) -> bool:
    """Whether PostgreSQL's words for a trigger mean the statement that made it: same events, level and condition."""

    def words(text: str) -> list[str]:
        plain = re.sub(r"\bON \S+\.", "ON ", text).replace("(", " ").replace(")", " ")
        return sorted(plain.lower().replace(" or ", " ").split())

    return words(told) == words(made)
