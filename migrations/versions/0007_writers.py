"""Idempotency keys, the writers' queue, and triggers that refuse changes in PostgreSQL too.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import hashlib
from typing import Any

import sqlalchemy as sa
from alembic import op

from safegen.ledger import triggers

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | None = None
depends_on: str | None = None

_PAGE = 1000
_REWRITTEN = {  # what revision 0001 made
    "entries": "NEW.idx IS NOT (SELECT coalesce(max(idx) + 1, 0) FROM entries) OR (NEW.kind = 'generated' AND"
    " EXISTS (SELECT 1 FROM entries WHERE content_id = NEW.content_id AND kind = 'generated'))",
    "checkpoints": "NEW.size IS NOT (SELECT coalesce(max(size), 0) + 1 FROM checkpoints)",
    "nodes": "EXISTS (SELECT 1 FROM nodes WHERE level = NEW.level AND position = NEW.position)",
}


def upgrade() -> None:
    big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    submissions = op.create_table(
        "submissions",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("entry", big, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "pending",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("asked", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("events", sa.Text, nullable=False),
        sa.Column("mac", sa.String(64), nullable=False),
        sa.Column("outcome", sa.Text),
    )
    fill(submissions)
    dialect = op.get_bind().dialect.name
    if dialect == "sqlite":
        for table in _REWRITTEN:
            op.execute(f"DROP TRIGGER {table}_only_append")
    elif dialect == "postgresql":
        op.get_bind().exec_driver_sql(triggers.FUNCTION.replace("%", "%%"))
    for name, text in triggers.definitions(dialect, ("submissions",)).items():
        if dialect != "sqlite" or not _is_old(name):
            op.get_bind().exec_driver_sql(text)


def _is_old(name: str) -> bool:
    """Whether revision 0001 made this trigger of SQLite's, and in the same words."""
    table, _, what = name.partition("_")
    return table in _REWRITTEN and what in ("no_update", "no_delete")


def fill(table: sa.Table) -> None:
    connection, last = op.get_bind(), -1
    query = sa.text(
        "SELECT idx, time, leaf FROM entries WHERE idx > :last AND asset_sha256 IS NOT NULL ORDER BY idx LIMIT :page"
    )
    known: set[str] = set()
    while rows := connection.execute(query, {"last": last, "page": _PAGE}).all():
        found = []
        for row in rows:
            key = _key(row)
            if key is not None and key not in known:
                known.add(key)
                found.append({"key": key, "entry": row.idx})
        if found:
            connection.execute(sa.insert(table), found)
        last = rows[-1].idx


def _key(row: Any) -> str | None:
    """What the draft of an entry named its key by, as it was when this revision was written."""
    end, place = f'{row.time}"}}', f',"index":{row.idx}'
    start = row.leaf.rfind(f'{place},"kind":')
    if start < 0 or not row.leaf.endswith(f',"time":"{end}'):
        return None  # a damaged entry: `safegen ledger fsck` says so
    said = row.leaf[:start] + ',"index":' + row.leaf[start + len(place) : -len(end)]
    return hashlib.sha256(said.encode("utf-8", "surrogateescape")).hexdigest()


def downgrade() -> None:
    dialect = op.get_bind().dialect.name
    if dialect == "sqlite":
        for name in ("head_no_delete", "head_no_insert", "head_only_grows", *(f"{t}_only_append" for t in _REWRITTEN)):
            op.execute(f"DROP TRIGGER {name}")
        for table, wrong in _REWRITTEN.items():
            op.execute(
                f"CREATE TRIGGER {table}_only_append BEFORE INSERT ON {table} WHEN {wrong}"
                f" BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: INSERT into {table} refused'); END"
            )
    elif dialect == "postgresql":
        op.execute("DROP FUNCTION safegen_refuse() CASCADE")  # with the triggers that call it
    op.drop_table("pending")
    op.drop_table("submissions")
