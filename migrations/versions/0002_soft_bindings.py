"""An index from soft bindings and manifest ids to entries, filled from the entries that are there.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None

_PAGE = 1000


def upgrade() -> None:
    big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    table = op.create_table(
        "soft_bindings",
        sa.Column("entry", big, primary_key=True, autoincrement=False),
        sa.Column("alg", sa.String(128), nullable=False),
        sa.Column("value", sa.String(128), nullable=False),
        sa.Column("manifest_id", sa.String(255), nullable=False),
    )
    _fill(table)
    op.create_index("ix_soft_bindings_value", "soft_bindings", ["value"])
    op.create_index("ix_soft_bindings_manifest_id", "soft_bindings", ["manifest_id"])


def _fill(table: sa.Table) -> None:
    connection, last = op.get_bind(), -1
    query = sa.text(
        "SELECT idx, content_id, leaf FROM entries WHERE idx > :last AND kind = 'generated'"
        " AND content_id IS NOT NULL ORDER BY idx LIMIT :page"
    )
    while rows := connection.execute(query, {"last": last, "page": _PAGE}).all():
        found = [row for row in map(_binding, rows) if row is not None]
        if found:
            connection.execute(sa.insert(table), found)
        last = rows[-1].idx


def _binding(row: Any) -> dict[str, object] | None:
    """What safegen.ledger.bindings.binding_of says, as it was when this revision was written."""
    try:
        body = json.loads(row.leaf)["body"]
        scheme, manifest_id = body["mark"]["scheme"], body["manifest_id"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None  # an entry of something else, or a damaged one: `safegen ledger fsck` says so
    texts = isinstance(scheme, str) and isinstance(manifest_id, str)
    if not texts or not 0 < len(scheme) <= 100 or not 0 < len(manifest_id) <= 255:
        return None
    return {
        "entry": row.idx, "alg": f"org.safegen.{scheme}.1", "value": row.content_id, "manifest_id": manifest_id,
    }  # fmt: skip


def downgrade() -> None:
    op.drop_table("soft_bindings")
