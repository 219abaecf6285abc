"""safegen.ledger."""
