"""Passive detection: does a clip look generated, by its pixels alone? The weakest evidence, and labelled as such."""

from typing import TYPE_CHECKING

if not __name__.startswith("safegen."):
    raise ImportError("import safegen.detectors, not detectors: the folder's import name lies under safegen")

if TYPE_CHECKING:
    from safegen.detectors.forensic import ForensicScore, Label, score

__all__ = ["ForensicScore", "Label", "score"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from safegen.detectors import forensic

        return getattr(forensic, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
