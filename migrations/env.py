"""Alembic's entry point: migrates over the connection that safegen.ledger.schema hands over, inside its transaction."""

from __future__ import annotations

from alembic import context

from safegen.errors import ConfigError
from safegen.ledger.models import metadata

connection = context.config.attributes.get("connection")
if connection is None:
    raise ConfigError(
        "the migrations need an open database connection", remedy="call safegen.ledger.upgrade(url) instead of alembic"
    )
context.configure(connection=connection, target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
