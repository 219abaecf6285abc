"""Which models this home's marks need to be read again: stills' marks and keyed noise are read through the VAE.

Kept as ``vaes.json`` in the home, one record per VAE and scheme, keyed by the digest of the VAE's weights.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safegen.errors import ConfigError
from safegen.files import replace_file
from safegen.settings import Home
from safegen.types import Json

MAX_SHAPES = 4
"""Clip shapes remembered per VAE, newest first: each is one more hypothesis for a reader whose clip was resized."""


@dataclass(frozen=True, slots=True)
class VaeRecord:
    """One VAE: the model name that ``safegen.generators.resolve`` understands, and the clip shapes it drew."""

    digest: str
    model: str
    scheme: str
    shapes: tuple[tuple[int, int, int], ...]  # (frames, height, width) in pixels, newest first


def known_vaes(home: Home) -> tuple[VaeRecord, ...]:
    """Return the home's records, most recently used first; ConfigError if the file is damaged."""
    path = _path(home)
    try:
        data = json.loads(path.read_text("utf-8"))
        return tuple(
            VaeRecord(
                str(r["digest"]),
                str(r["model"]),
                str(r["scheme"]),
                tuple((int(t), int(h), int(w)) for t, h, w in r["shapes"]),
            )
            for r in data["vaes"]
        )
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"Cannot read {path}: {error}",
            remedy="Delete it; generating with a model writes its record again.",
        ) from error


def remember_vae(home: Home, digest: str, model: str, scheme: str, shape: tuple[int, int, int]) -> None:
    """Put a VAE and a clip shape first in the home's records; ConfigError if they cannot be written.

    Two processes that write at once may lose one *shape* of the two, never the file: it is replaced in one step.
    """
    known = known_vaes(home)
    if known and known[0] == VaeRecord(digest, model, scheme, (shape, *known[0].shapes[1:])):
        return
    records = {(r.digest, r.scheme): r for r in known}
    old = records.pop((digest, scheme), None)
    shapes = (shape, *(s for s in (old.shapes if old else ()) if s != shape))[:MAX_SHAPES]
    fresh = [VaeRecord(digest, model, scheme, shapes), *records.values()]
    body: Json = {
        "vaes": [{"digest": r.digest, "model": r.model, "scheme": r.scheme, "shapes": r.shapes} for r in fresh]
    }
    path = _path(home)
    try:
        replace_file(path, json.dumps(body, indent=1).encode())
    except OSError as error:
        raise ConfigError(f"Cannot write {path}: {error.strerror}", remedy="Check the home's folder.") from error


def _path(home: Home) -> Path:
    return home.root / "vaes.json"
