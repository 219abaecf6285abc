"""The ledger's tables, as SQLAlchemy Core metadata.

Core and not the ORM: importing the ORM costs more than a whole look-up, and rows here are written once and never
changed. Hashes are hex text so that any SQL shell shows them. ``migrations/`` creates these tables; a test compares.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    func,
)

metadata = MetaData()

Big = BigInteger().with_variant(Integer(), "sqlite")  # an INTEGER PRIMARY KEY is SQLite's own row id

entries = Table(
    "entries",
    metadata,
    Column("idx", Big, primary_key=True, autoincrement=False),
    Column("time", String(32), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("content_id", String(16)),
    Column("asset_sha256", String(64)),
    Column("manifest_sha256", String(64)),
    Column("model", String(512)),
    Column("policy_sha256", String(64)),
    Column("action", String(32)),
    Column("leaf", Text, nullable=False),
    Column("leaf_hash", String(64), nullable=False),
    Index("ix_entries_content_id", "content_id"),
    Index("ix_entries_asset_sha256", "asset_sha256"),
)
"""One row per entry. Every column but ``leaf`` follows from ``leaf``; verification derives it again.

The migration adds a unique index on the content ids of generated entries. It is partial, which only some databases
know, and naming those here would load their dialects at every start.
"""

nodes = Table(
    "nodes",
    metadata,
    Column("level", Integer, nullable=False),
    Column("position", Big, nullable=False),
    Column("hash", String(64), nullable=False),
    PrimaryKeyConstraint("level", "position"),
)
"""Roots of complete subtrees at the levels 8, 16, 24 ... (one row per 256 below), so that proofs read few rows."""

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("size", Big, primary_key=True, autoincrement=False),
    Column("note", Text, nullable=False),
)
"""One signed note per transaction; row ``size`` covers the entries 0 to size - 1."""

head = Table(
    "head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("size", Big, nullable=False),
    Column("frontier", Text, nullable=False),
    Column("vkey", Text, nullable=False),
    CheckConstraint("id = 1", name="ck_head_single"),
)
"""One row, the writers' lock: the number of entries, the frontier (hex, space-separated) and the signer's vkey."""

soft_bindings = Table(
    "soft_bindings",
    metadata,
    Column("entry", Big, primary_key=True, autoincrement=False),
    Column("alg", String(128), nullable=False),
    Column("value", String(128), nullable=False),
    Column("manifest_id", String(255), nullable=False),
    Index("ix_soft_bindings_value", "value"),
    Index("ix_soft_bindings_manifest_id", "manifest_id"),
)
"""An index: what a mark says, and which manifest that leads to. It follows from the entries and is no evidence itself.

``value`` is random enough to find a row without the algorithm's name, which would make the index three times as large.
"""

hash_bands = Table(
    "hash_bands",
    metadata,
    Column("key", Integer, nullable=False),
    Column("entry", Big, nullable=False),
    PrimaryKeyConstraint("key", "entry"),
    sqlite_with_rowid=False,
)
"""An index: a piece of a video hash (``safegen.ledger.likeness_index``), and a clip that has it. No evidence either."""

stored_manifests = Table(
    "stored_manifests",
    metadata,
    Column("manifest_id", String(255), primary_key=True),
    Column("entry", Big, nullable=False),
    Column("sha256", String(64), nullable=False),
)
stored_bindings = Table(
    "stored_bindings",
    metadata,
    Column("alg", String(128), nullable=False),
    Column("value", String(64), nullable=False),
    Column("manifest_id", String(255), nullable=False),
    Column("entry", Big, nullable=False),
    PrimaryKeyConstraint("value", "alg", "manifest_id"),
    Index("ix_stored_bindings_manifest_id", "manifest_id"),
)
"""Indexes of what a resolution service keeps for others (``ledger.foreign_manifests``); ``value`` is its SHA-256."""

pending = Table(
    "pending",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("asked", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("events", Text, nullable=False),
    Column("mac", String(64), nullable=False),
    Column("outcome", Text),
)
"""A row per writer of the sequenced mode: what it asks for, and the answer (``safegen.ledger.sequencer``).

No part of the record; unlogged in PostgreSQL.
"""
