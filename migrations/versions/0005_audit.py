"""What auditors ask by: indexes, facts, the counts of each day, and views; filled from the entries that are there.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

from safegen.ledger import views

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | None = None
depends_on: str | None = None

_PAGE = 1000
_DAY = ("kind", "model", "policy_sha256", "action")
_INDEXES = {
    "ix_entries_time": ["time", "idx"],
    "ix_entries_kind": ["kind", "idx"],
    "ix_entries_model": ["model", "idx"],
    "ix_entries_policy": ["policy_sha256", "idx"],
    "ix_entries_decision": ["policy_sha256", "action", "idx"],
}


def upgrade() -> None:
    big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    facts = op.create_table(
        "entry_facts",
        sa.Column("entry", big, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("value", sa.String(512), nullable=False),
        sa.PrimaryKeyConstraint("entry", "name", "value"),
        sqlite_with_rowid=False,
    )
    daily = op.create_table(
        "daily_counts",
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("model", sa.String(512), nullable=False),
        sa.Column("policy_sha256", sa.String(64), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("entries", big, nullable=False),
        sa.PrimaryKeyConstraint("day", *_DAY),
        sqlite_with_rowid=False,
    )
    _fill(facts, daily)
    op.create_index("ix_entry_facts_value", "entry_facts", ["name", "value", "entry"])
    for name, columns in _INDEXES.items():
        op.create_index(name, "entries", columns)
    dialect = op.get_bind().dialect.name
    if dialect == "postgresql":
        op.get_bind().exec_driver_sql(views.LEAF_FUNCTION)
    for name, text in views.definitions(dialect).items():
        op.get_bind().exec_driver_sql(views.create(name, text))


def _fill(facts: sa.Table, daily: sa.Table) -> None:
    connection, last = op.get_bind(), -1
    query = sa.text("SELECT idx, leaf FROM entries WHERE idx > :last ORDER BY idx LIMIT :page")
    counts: Counter[tuple[str, ...]] = Counter()
    while rows := connection.execute(query, {"last": last, "page": _PAGE}).all():
        found: list[dict[str, object]] = []
        for row in rows:
            try:
                leaf = json.loads(row.leaf)
                key = (leaf["time"][:10], *(str(leaf[name] or "") for name in _DAY))
                said = sorted(set(_facts(leaf)))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue  # a damaged one: `safegen ledger fsck` says so
            counts[key] += 1
            found += [{"entry": row.idx, "name": name, "value": value} for name, value in said]
        if found:
            connection.execute(sa.insert(facts), found)
        last = rows[-1].idx
    if counts:
        names = ("day", *_DAY)
        rows_ = [dict(zip(names, key, strict=True)) | {"entries": n} for key, n in counts.items()]
        connection.execute(sa.insert(daily), rows_)


def _facts(leaf: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What safegen.ledger.facts.facts_of says, as it was when this revision was written."""
    for name, value in _said(leaf):
        if isinstance(value, str) and value and "\0" not in name + value:
            yield name, value[:512]


def _said(leaf: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    body = leaf["body"]
    signature, decision, mark = (_object(body.get(name)) for name in ("signature", "decision", "mark"))
    yield "certificate", signature.get("leaf_sha256")
    yield "signer", signature.get("signer")
    yield "policy", decision.get("policy_id")
    if leaf["action"]:
        yield f"policy.{leaf['action']}", decision.get("policy_id")
    yield "consent", body.get("consent_id")
    for kind, member, key in (("consent", "consents", "id"), ("input", "inputs", "sha256")):
        for one in body.get(member) if isinstance(body.get(member), list) else ():
            yield kind, _object(one).get(key)
    for member in ("recovered_entry", "previous_entry", "resigned_entry"):
        if type(body.get(member)) is int:
            yield "parent", str(body[member])
    marked = isinstance(mark.get("content_id"), str) and mark.get("content_id") == leaf["content_id"]
    if leaf["kind"] == "generated" and leaf["asset_sha256"] is not None and not marked:
        yield "unmarked", leaf["kind"]


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def downgrade() -> None:
    connection = op.get_bind()
    for name in reversed(views.definitions(connection.dialect.name)):
        connection.exec_driver_sql(f"DROP VIEW {name}")
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("DROP FUNCTION safegen_leaf(text)")
    for name in reversed(_INDEXES):
        op.drop_index(name, "entries")
    op.drop_table("daily_counts")
    op.drop_table("entry_facts")
