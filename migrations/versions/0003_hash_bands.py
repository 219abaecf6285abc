"""An index from the looks of clips to entries, filled from the entries that are there.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import json
import re
from typing import Any

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None

_PAGE = 1000
_HASH = re.compile(r"[0-9A-Fa-f]{64}")


def upgrade() -> None:
    table = op.create_table(
        "hash_bands",
        sa.Column("key", sa.Integer, nullable=False),
        sa.Column("entry", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.PrimaryKeyConstraint("key", "entry"),
        sqlite_with_rowid=False,
    )
    _fill(table)


def _fill(table: sa.Table) -> None:
    connection, last = op.get_bind(), -1
    query = sa.text(
        "SELECT idx, leaf FROM entries WHERE idx > :last AND kind = 'generated'"
        " AND content_id IS NOT NULL ORDER BY idx LIMIT :page"
    )
    while rows := connection.execute(query, {"last": last, "page": _PAGE}).all():
        found = [{"key": key, "entry": row.idx} for row in rows for key in _keys(row)]
        if found:
            connection.execute(sa.insert(table), found)
        last = rows[-1].idx


def _keys(row: Any) -> list[int]:
    """What safegen.ledger.likeness_index.rows_of says, as it was when this revision was written."""
    try:
        hashes = json.loads(row.leaf)["body"]["mark"]["video_hash"]
        chosen = {hashes[round(n * (len(hashes) - 1) / 3)] for n in range(4)} if hashes else set()
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return []  # an older entry, or a damaged one: `safegen ledger fsck` says so
    texts = [f"{int(h, 16):0256b}" for h in chosen if isinstance(h, str) and _HASH.fullmatch(h)]
    return sorted({band << 24 | int(text[band:240:10], 2) for text in texts for band in range(10)})


def downgrade() -> None:
    op.drop_table("hash_bands")
