"""Personal fields of entries, encrypted, with the keys that they can be erased by; and the erasures.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "subject_keys",
        sa.Column("key_id", sa.String(32), primary_key=True),
        sa.Column("ref", sa.String(64), nullable=False),
        sa.Column("wrapping", sa.String(16), nullable=False),
        sa.Column("wrapped", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
    )
    op.create_index("uq_subject_keys_ref", "subject_keys", ["ref"], unique=True)
    op.create_index("ix_subject_keys_wrapping", "subject_keys", ["wrapping"])
    op.create_table(
        "personal_fields",
        sa.Column("record", sa.String(32), nullable=False),
        sa.Column("field", sa.String(64), nullable=False),
        sa.Column("key_id", sa.String(32)),
        sa.Column("sealed", sa.Text),
        sa.Column("created", sa.String(32), nullable=False),
        sa.Column("entry", big),
        sa.Column("erasure", sa.String(32)),
        sa.PrimaryKeyConstraint("record", "field"),
    )
    op.create_index("ix_personal_fields_key", "personal_fields", ["key_id"])
    op.create_index("ix_personal_fields_age", "personal_fields", ["field", "created"])
    op.create_table(
        "erasures",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("ref", sa.String(64), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("entry", big),
    )


def downgrade() -> None:
    """Takes all personal fields along: without their keys and rows nothing can be read of them again."""
    op.drop_table("erasures")
    op.drop_table("personal_fields")
    op.drop_table("subject_keys")
