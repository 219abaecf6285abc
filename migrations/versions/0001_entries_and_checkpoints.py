"""Entries, tree nodes, checkpoints and the head, with triggers that refuse changes.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None

_KEPT = ("entries", "checkpoints", "nodes")
_REPLACED = {  # INSERT OR REPLACE deletes without firing DELETE triggers, so inserts must come at the end
    "entries": "NEW.idx IS NOT (SELECT coalesce(max(idx) + 1, 0) FROM entries) OR (NEW.kind = 'generated' AND"
    " EXISTS (SELECT 1 FROM entries WHERE content_id = NEW.content_id AND kind = 'generated'))",
    "checkpoints": "NEW.size IS NOT (SELECT coalesce(max(size), 0) + 1 FROM checkpoints)",
    "nodes": "EXISTS (SELECT 1 FROM nodes WHERE level = NEW.level AND position = NEW.position)",
}


def upgrade() -> None:
    big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "entries",
        sa.Column("idx", big, primary_key=True, autoincrement=False),
        sa.Column("time", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("content_id", sa.String(16)),
        sa.Column("asset_sha256", sa.String(64)),
        sa.Column("manifest_sha256", sa.String(64)),
        sa.Column("model", sa.String(512)),
        sa.Column("policy_sha256", sa.String(64)),
        sa.Column("action", sa.String(32)),
        sa.Column("leaf", sa.Text, nullable=False),
        sa.Column("leaf_hash", sa.String(64), nullable=False),
    )
    op.create_index("ix_entries_content_id", "entries", ["content_id"])
    op.create_index("ix_entries_asset_sha256", "entries", ["asset_sha256"])
    if op.get_bind().dialect.name in (
        "sqlite",
        "postgresql",
    ):  # partial indexes; elsewhere the writer's check stands alone
        generated = sa.text("kind = 'generated'")
        op.create_index(
            "uq_entries_generated",
            "entries",
            ["content_id"],
            unique=True,
            sqlite_where=generated,
            postgresql_where=generated,
        )
    op.create_table(
        "nodes",
        sa.Column("level", sa.Integer, nullable=False),
        sa.Column("position", big, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("level", "position"),
    )
    op.create_table(
        "checkpoints",
        sa.Column("size", big, primary_key=True, autoincrement=False),
        sa.Column("note", sa.Text, nullable=False),
    )
    head = op.create_table(
        "head",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("size", big, nullable=False),
        sa.Column("frontier", sa.Text, nullable=False),
        sa.Column("vkey", sa.Text, nullable=False),
        sa.CheckConstraint("id = 1", name="ck_head_single"),
    )
    op.bulk_insert(head, [{"id": 1, "size": 0, "frontier": "", "vkey": ""}])
    if op.get_bind().dialect.name == "sqlite":
        _sqlite_triggers()


def _sqlite_triggers() -> None:
    for table in _KEPT:
        for what in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{what.lower()} BEFORE {what} ON {table}"
                f" BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: {what} on {table} refused'); END"
            )
    for table, wrong in _REPLACED.items():
        op.execute(
            f"CREATE TRIGGER {table}_only_append BEFORE INSERT ON {table} WHEN {wrong}"
            f" BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: INSERT into {table} refused'); END"
        )


def downgrade() -> None:
    for table in ("head", "checkpoints", "nodes", "entries"):
        op.drop_table(table)
