"""safegen: provenance and safety for generative video."""

from safegen.version import __version__

__all__ = ["__version__"]
