"""safegen.provenance."""
