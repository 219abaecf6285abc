"""safegen: provenance and safety for generative video.

    import safegen

    made = safegen.generate("a red ball bouncing on grass at sunset", output="clip.mp4")
    verdict = safegen.verify("clip.mp4")

    safe = safegen.protect(my_diffusers_pipeline)
    made = safe("a red ball bouncing on grass at sunset", output="clip.mp4")

Names load when they are first used, so that ``import safegen`` stays quick and needs no torch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safegen.version import __version__

if TYPE_CHECKING:
    from safegen.errors import BlockedError, SafegenError
    from safegen.generation.embeddings import embed
    from safegen.generation.pipeline import Generated, ProtectedPipeline, generate, protect
    from safegen.keys import KeyStore
    from safegen.ledger import Ledger
    from safegen.settings import Home
    from safegen.types import Decision, Finding, Verdict
    from safegen.verification.verifier import verify

_WHERE = {
    "BlockedError": "safegen.errors",
    "Decision": "safegen.types",
    "Finding": "safegen.types",
    "Generated": "safegen.generation.pipeline",
    "Home": "safegen.settings",
    "KeyStore": "safegen.keys",
    "Ledger": "safegen.ledger",
    "ProtectedPipeline": "safegen.generation.pipeline",
    "SafegenError": "safegen.errors",
    "Verdict": "safegen.types",
    "embed": "safegen.generation.embeddings",
    "generate": "safegen.generation.pipeline",
    "protect": "safegen.generation.pipeline",
    "verify": "safegen.verification.verifier",
}

__all__ = [
    "BlockedError",
    "Decision",
    "Finding",
    "Generated",
    "Home",
    "KeyStore",
    "Ledger",
    "ProtectedPipeline",
    "SafegenError",
    "Verdict",
    "__version__",
    "embed",
    "generate",
    "protect",
    "verify",
]


class _Beside:
    """Finds what stands beside ``safegen`` in a checkout and is inside it when installed (docs/adr/0001)."""

    names = frozenset({"safegen.detectors", "safegen.migrations", "safegen.policies", "safegen.watermark"})
    root = Path(__file__).resolve().parent.parent

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [str(cls.root)]) if name in cls.names else None


if (_Beside.root / "pyproject.toml").is_file() and not (Path(__file__).parent / "watermark").is_dir():
    # First, so that of two checkouts the one that runs is used, whichever is installed.
    sys.meta_path.insert(0, _Beside)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'safegen' has no attribute {name!r}")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value
