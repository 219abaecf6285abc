"""safegen.policies."""

if not __name__.startswith("safegen."):
    raise ImportError("import safegen.policies, not policies: the folder's import name lies under safegen")

__all__ = ["Engine", "Pack", "Request", "list_packs", "load_pack"]


def __getattr__(name: str) -> object:
    """Load the engine only when it is asked for."""
    if name in ("Engine", "Request"):
        from safegen.policies import engine

        return getattr(engine, name)
    if name in ("Pack", "list_packs", "load_pack"):
        from safegen.policies import pack

        return getattr(pack, name)
    raise AttributeError(name)
