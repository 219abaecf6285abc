"""safegen.migrations."""

if not __name__.startswith("safegen."):
    raise ImportError("import safegen.migrations, not migrations: the folder's import name lies under safegen")
