"""The views for auditors, as SQL: ``docs/audit.md`` says how to read them. Revision 0005 creates them.

What they show of a leaf is read from the leaf itself; only what entries are looked up by comes from ``entry_facts``.
A later revision that changes a view brings its own text, and drops this one's first.
"""
# ruff: noqa: S608 - no text from elsewhere comes into these statements

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, inspect

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


def missing_views(connection: Connection) -> list[str]:
    """Return the views that an open ledger lacks; on SQLite also those whose text is not ours."""
    wanted = definitions(connection.dialect.name)
    if connection.dialect.name != "sqlite":
        return sorted(wanted.keys() - {*inspect(connection).get_view_names()})
    query = "SELECT name, sql FROM sqlite_master WHERE type = 'view'"
    present = {str(name): str(sql) for name, sql in connection.exec_driver_sql(query)}
    return sorted(name for name, text in wanted.items() if present.get(name) != create(name, text))


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
