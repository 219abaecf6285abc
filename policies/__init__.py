"""safegen.policies."""

if not __name__.startswith("safegen."):
    raise ImportError("import safegen.policies, not policies: the folder's import name lies under safegen")

__all__ = ["Engine", "Pack", "Request", "list_packs", "load_pack"]


def __getattr__(name: str) -> object:
    """Load the engine only when it is asked for."""
    if name in ("Engine", "Request"):
        from safegen.policies.engine import engine

        return getattr(engine, name)
    if name in ("Pack", "list_packs", "load_pack"):
        from safegen.policies.pack import loading

        return getattr(loading, name)
    raise AttributeError(name)
