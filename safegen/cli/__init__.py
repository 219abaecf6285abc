"""safegen.cli."""
