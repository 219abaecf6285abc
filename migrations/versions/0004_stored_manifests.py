"""Indexes of the manifests that a resolution service stores for others, and of the bindings that lead to them.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import hashlib
import json

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    manifests = op.create_table(
        "stored_manifests",
        sa.Column("manifest_id", sa.String(255), primary_key=True),
        sa.Column("entry", big, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
    )
    bindings = op.create_table(
        "stored_bindings",
        sa.Column("alg", sa.String(128), nullable=False),
        sa.Column("value", sa.String(64), nullable=False),
        sa.Column("manifest_id", sa.String(255), nullable=False),
        sa.Column("entry", big, nullable=False),
        sa.PrimaryKeyConstraint("value", "alg", "manifest_id"),
    )
    op.create_index("ix_stored_bindings_manifest_id", "stored_bindings", ["manifest_id"])
    _fill(manifests, bindings)


def _fill(manifests: sa.Table, bindings: sa.Table) -> None:
    """Play the entries that are there once more: what safegen.ledger.foreign_manifests.record did at this revision."""
    connection = op.get_bind()
    query = sa.text(
        "SELECT idx, kind, manifest_sha256, leaf FROM entries"
        " WHERE kind IN ('stored', 'bound', 'unstored') ORDER BY idx"
    )
    held: dict[str, tuple[int, str]] = {}
    bound: dict[tuple[str, str, str], int] = {}
    for row in connection.execute(query).all():
        try:
            body = json.loads(row.leaf)["body"]
            manifest_id = str(body["manifest_id"])
            value = hashlib.sha256(bytes.fromhex(body["value"])).hexdigest() if row.kind == "bound" else ""
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # a damaged one: `safegen ledger fsck` says so
        if row.kind == "stored" and row.manifest_sha256:
            held[manifest_id] = (row.idx, row.manifest_sha256)
        elif row.kind == "unstored":
            held.pop(manifest_id, None)
            bound = {key: entry for key, entry in bound.items() if key[2] != manifest_id}
        elif row.kind == "bound" and manifest_id in held:
            if body.get("replace"):
                bound = {key: entry for key, entry in bound.items() if key[:2] != (body.get("alg"), value)}
            replaced = body.get("replaces")  # what later entries say instead
            for other in replaced if isinstance(replaced, list) else ():
                bound.pop((str(body.get("alg")), value, str(other)), None)
            bound[str(body.get("alg")), value, manifest_id] = row.idx
    if held:
        connection.execute(
            sa.insert(manifests), [{"manifest_id": m, "entry": e, "sha256": s} for m, (e, s) in held.items()]
        )
    if bound:
        connection.execute(
            sa.insert(bindings),
            [{"alg": a, "value": v, "manifest_id": m, "entry": e} for (a, v, m), e in bound.items()],
        )


def downgrade() -> None:
    op.drop_table("stored_bindings")
    op.drop_table("stored_manifests")
