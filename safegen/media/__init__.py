"""safegen.media."""
