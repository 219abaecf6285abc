"""safegen.policies."""

if not __name__.startswith("safegen."):
    raise ImportError("import safegen.policies, not policies: the folder's import name lies under safegen")
