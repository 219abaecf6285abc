"""The views for auditors, as SQL: ``docs/audit.md`` says how to read them. Revision 0005 creates them.

What they show of a leaf is read from the leaf itself; only what entries are looked up by comes from ``entry_facts``.
A later revision that changes a view brings its own text, and drops this one's first.
"""
# ruff: noqa: S608 - no text from elsewhere comes into these statements

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection, inspect
from sqlalchemy.exc import DBAPIError

from safegen.ledger.triggers import body_of

FROM_ENTRY: Final = {
    "time": "time", "kind": "kind", "content_id": "content_id", "asset_sha256": "asset_sha256",
    "manifest_sha256": "manifest_sha256", "model": "model", "policy_sha256": "policy_sha256", "decision": "action",
    "leaf_hash": "leaf_hash",
}  # fmt: skip
"""Columns of ``audit_entries`` that are columns of ``entries``."""

FROM_LEAF: Final = {
    "manifest_id": ("body", "manifest_id"),
    "model_version": ("body", "model", "version"),
    "mode": ("body", "mode"),
    "policy": ("body", "decision", "policy_id"),
    "frames_decision": ("body", "frames_decision", "action"),
    "mark": ("body", "mark", "scheme"),
    "signer": ("body", "signature", "signer"),
    "certificate": ("body", "signature", "leaf_sha256"),
}
"""Columns of ``audit_entries`` that are read from the leaf, and where they stand in it."""

_TABLES: Final = ("entries", "entry_facts", "daily_counts")

COLUMNS: Final = ("entry", *FROM_ENTRY, *FROM_LEAF)

LEAF_FUNCTION: Final = r"""
CREATE FUNCTION safegen_leaf(leaf text) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $body$
BEGIN
    RETURN replace(leaf, '\u0000', '\ufffd')::jsonb;  -- which jsonb cannot hold
EXCEPTION WHEN others THEN
    RETURN NULL;  -- a damaged leaf: safegen ledger fsck names it
END $body$
"""
"""PostgreSQL: a leaf as jsonb, null where it is no JSON. SQLite's functions are asked whether it is."""

_CONSENT_STATE: Final = {
    "sqlite": "SELECT json_extract(o.value, '$.state') FROM json_each(CASE WHEN json_valid(e.leaf) THEN e.leaf END,"
    " '$.body.consents') o WHERE o.type = 'object' AND json_extract(o.value, '$.id') = f.value LIMIT 1",
    "postgresql": "SELECT o ->> 'state' FROM jsonb_array_elements(CASE jsonb_typeof(j.leaf #> '{body,consents}')"
    " WHEN 'array' THEN j.leaf #> '{body,consents}' ELSE '[]' END) o WHERE o ->> 'id' = f.value LIMIT 1",
}
_NUMBER: Final = {
    "sqlite": "CAST(f.value AS integer)",
    "postgresql": "CASE WHEN f.value ~ '^[0-9]{1,18}$' THEN CAST(f.value AS bigint) END",
}


def definitions(dialect: str) -> dict[str, str]:
    """Return the text of each view after ``CREATE VIEW name AS`` for ``sqlite`` or ``postgresql``, in order."""
    postgresql = dialect == "postgresql"
    columns, own = _columns(postgresql, "f.entry"), _columns(postgresql, "e.idx")
    # Each leaf is parsed once a row: OFFSET 0 keeps the planner from writing the call into every column.
    leaf = " CROSS JOIN LATERAL (SELECT safegen_leaf(e.leaf) AS leaf OFFSET 0) j" if postgresql else ""
    facts = "entry_facts f JOIN entries e ON e.idx = f.entry"
    later = "entry_facts f JOIN entries u ON u.idx = f.entry JOIN entries e ON e.content_id = u.content_id"
    state = _CONSENT_STATE["postgresql" if postgresql else "sqlite"]
    number = _NUMBER["postgresql" if postgresql else "sqlite"]
    return {
        "audit_entries": f"SELECT {own} FROM entries e{leaf}",
        "audit_facts": f"SELECT f.name, f.value, {columns} FROM {facts}{leaf}",
        "audit_consents": f"SELECT f.value AS consent, CASE WHEN e.kind = 'consent_revoked' THEN 'revoked'"
        f" ELSE ({state}) END AS consent_state, {columns} FROM {facts}{leaf} WHERE f.name = 'consent'",
        "audit_unmarked": f"SELECT {columns} FROM {facts}{leaf}"
        " WHERE f.name = 'unmarked' AND f.value = 'generated'",  # both named: so rows come in the order of the index
        "audit_unmarked_copies": f"SELECT {own} FROM {later}{leaf}"
        " WHERE f.name = 'unmarked' AND e.idx > u.idx AND e.asset_sha256 IS NOT NULL",
        "audit_derivations": "SELECT f.entry, e.kind, e.content_id, e.asset_sha256, f.name AS relation,"
        f" f.value AS parent, p.idx AS parent_entry, p.asset_sha256 AS parent_sha256 FROM {facts}"
        f" LEFT JOIN entries p ON p.idx = {number} WHERE f.name = 'parent'"
        " UNION ALL SELECT f.entry, e.kind, e.content_id, e.asset_sha256, f.name, f.value, p.idx, f.value"
        f" FROM {facts} LEFT JOIN entries p ON p.asset_sha256 = f.value WHERE f.name = 'input'",
        "audit_daily": "SELECT day, kind, model, policy_sha256, action AS decision, entries FROM daily_counts",
    }


def faults(connection: Connection) -> list[str]:
    """Return what is wrong with the views of an open ledger, a sentence each: missing, changed, or not comparable."""
    wanted, others = definitions(connection.dialect.name), list[str]()
    if connection.dialect.name == "sqlite":
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'view'"
        present = {
            str(name): str(sql) == create(str(name), wanted.get(str(name), ""))
            for name, sql in connection.exec_driver_sql(query)
        }
    elif connection.dialect.name == "postgresql":
        try:
            present, others = _postgresql_state(connection, wanted)
        except DBAPIError as error:
            return [
                f"the views for auditors could not be compared with what they should be: {str(error.orig).strip()};"
                " verify as a user who may create temporary views"
            ]
    else:
        present = dict.fromkeys(inspect(connection).get_view_names(), True)
    missing = [f"the view {name} is missing" for name in sorted(wanted.keys() - present.keys())]
    changed = [f"the view {name} was changed" for name in sorted(wanted.keys() & present.keys()) if not present[name]]
    return missing + changed + others


_SHADOW: Final = "safegen_shadow_"
_COMPARED: Final = f"""
SELECT n, pg_get_viewdef(v.oid) = pg_get_viewdef(('pg_temp.{_SHADOW}' || n)::regclass) AND v.reloptions IS NULL
    AND NOT EXISTS (SELECT 1 FROM pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass
        AND d.objid = r.oid WHERE r.ev_class = v.oid AND d.refclassid <> 'pg_class'::regclass
        AND d.refobjid IS DISTINCT FROM to_regprocedure('safegen_leaf(text)'))
FROM unnest(%(names)s::text[]) AS n JOIN pg_class v ON v.oid = to_regclass(n) AND v.relkind = 'v'"""
"""PostgreSQL: whether it tells of each view what it tells of one that was made just now, and whether the view rests on
tables and our function alone: the same words could mean an operator that somebody else made."""

_READS_LEAVES: Final = """
SELECT count(*) FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
WHERE p.oid = to_regprocedure('safegen_leaf(text)') AND p.prosrc = %(body)s
    AND l.lanname = 'plpgsql' AND NOT p.prosecdef AND p.proconfig IS NULL"""
_ROW_SECURITY: Final = """
SELECT n FROM unnest(%(tables)s::text[]) AS n JOIN pg_class t ON t.oid = to_regclass(n) AND t.relrowsecurity
ORDER BY n"""


def _postgresql_state(connection: Connection, wanted: Mapping[str, str]) -> tuple[dict[str, bool], list[str]]:
    """Whether each view that is there is ours, and what else decides what the views show.

    PostgreSQL keeps no text of a view. What it makes of ours it tells of temporary views, which are gone at the end.
    """
    savepoint = connection.begin_nested()
    try:
        for name, text in wanted.items():
            connection.exec_driver_sql(f"CREATE TEMPORARY VIEW {_SHADOW}{name} AS {text}")
        told = connection.exec_driver_sql(_COMPARED, {"names": [*wanted]})
        present = {str(name): bool(same) for name, same in told}
    finally:
        savepoint.rollback()
    others = []
    if not connection.exec_driver_sql(_READS_LEAVES, {"body": body_of(LEAF_FUNCTION)}).scalar():
        others.append("the function safegen_leaf that the views read leaves with was changed")
    for name in connection.exec_driver_sql(_ROW_SECURITY, {"tables": [*_TABLES]}).scalars():
        others.append(f"row security is on for the table {name}: not everybody sees all of it")
    return present, others


def create(name: str, text: str) -> str:
    """Return the statement that makes a view."""
    return f"CREATE VIEW {name} AS {text}"


def _columns(postgresql: bool, entry: str) -> str:
    """``entry`` is the column by whose index the rows of a page come in order."""
    leaf = "CASE WHEN json_valid(e.leaf) THEN e.leaf END"
    columns = [f"{entry} AS entry", *(f"e.{column} AS {name}" for name, column in FROM_ENTRY.items())]
    for name, path in FROM_LEAF.items():
        read = f"j.leaf #>> '{{{','.join(path)}}}'" if postgresql else f"json_extract({leaf}, '$.{'.'.join(path)}')"
        columns.append(f"{read} AS {name}")
    return ", ".join(columns)
