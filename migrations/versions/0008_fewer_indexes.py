"""One index over facts, no table of idempotency keys (the index on assets leads to them), a lighter queue.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

from importlib import import_module

import sqlalchemy as sa
from alembic import op

from safegen.ledger import triggers, views

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | None = None
depends_on: str | None = None

_ORIGINS = ("parent", "input")  # facts that are looked up by their entries too


def upgrade() -> None:
    op.drop_table("submissions")
    op.drop_index("ix_entry_facts_value", "entry_facts")
    _key_facts_by("name", "value", "entry")
    for name in _ORIGINS:
        op.execute(f"CREATE INDEX ix_entry_facts_{name} ON entry_facts (entry) WHERE name = '{name}'")
    _alter_pending("UNLOGGED", "SET (fillfactor = 50)", "EXTERNAL")


def downgrade() -> None:
    _alter_pending("LOGGED", "RESET (fillfactor)", "EXTENDED")
    for name in _ORIGINS:
        op.drop_index(f"ix_entry_facts_{name}", "entry_facts")
    _key_facts_by("entry", "name", "value")
    op.create_index("ix_entry_facts_value", "entry_facts", ["name", "value", "entry"])
    table = op.create_table(
        "submissions",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("entry", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sqlite_with_rowid=False,
    )
    import_module("safegen.migrations.versions.0007_writers").fill(table)
    for name, text in triggers.definitions(op.get_bind().dialect.name, ("submissions",)).items():
        if name.startswith("submissions_"):
            op.get_bind().exec_driver_sql(text)


def _alter_pending(logged: str, filled: str, storage: str) -> None:
    """PostgreSQL: no row of the queue need survive a crash, each lives for milliseconds and is updated in place."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("TRUNCATE pending")
        op.execute(f"ALTER TABLE pending SET {logged}")
        op.execute(f"ALTER TABLE pending {filled}")
        for column in ("events", "outcome"):
            op.execute(f"ALTER TABLE pending ALTER COLUMN {column} SET STORAGE {storage}")


def _key_facts_by(*columns: str) -> None:
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        op.drop_constraint("entry_facts_pkey", "entry_facts")
        op.create_primary_key("entry_facts_pkey", "entry_facts", list(columns))
        return
    # SQLite's tables without row ids are their key: the rows move to a new one, and views do not follow.
    texts = views.definitions("sqlite")
    for name in reversed(texts):
        connection.exec_driver_sql(f"DROP VIEW {name}")
    op.rename_table("entry_facts", "facts_before")
    op.create_table(
        "entry_facts",
        sa.Column("entry", sa.Integer, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("value", sa.String(512), nullable=False),
        sa.PrimaryKeyConstraint(*columns),
        sqlite_with_rowid=False,
    )
    connection.exec_driver_sql("INSERT INTO entry_facts SELECT entry, name, value FROM facts_before")
    op.drop_table("facts_before")
    for name, text in texts.items():
        connection.exec_driver_sql(views.create(name, text))
