"""The VAE profiles of a home: found, or measured once and kept (``profiles/`` in the home, beside the shipped ones).

A profile is what the clip mark has to know of a VAE (``watermark/clip/profile.py``). The first clip of a new model pays
some seconds for it; every later one reads a file of half a megabyte.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safegen.errors import ConfigError, WatermarkError
from safegen.files import fsync_folder
from safegen.types import Json

if TYPE_CHECKING:
    from safegen.settings import Home
    from safegen.watermark.base import Progress
    from safegen.watermark.clip.profile import Profile

# Imported where they are used: what loads torch.


@dataclass(frozen=True, slots=True)
class Known:
    """One profile file: where it lies, whether it came with safegen, and the profile or what is wrong with it."""

    path: Path
    shipped: bool
    profile: Profile | None
    damage: str = ""

    def to_json(self) -> dict[str, Json]:
        """Return what can be said of it as plain JSON values."""
        about: dict[str, Json] = {"file": str(self.path), "shipped": self.shipped}
        if self.profile is None:
            return {**about, "damage": self.damage}
        return {**about, **describe(self.profile)}


def describe(profile: Profile) -> dict[str, Json]:
    """What people may want to know of a profile, as plain JSON values."""
    return {
        "digest": profile.digest,
        "latent_channels": len(profile.body),
        "gain": round(profile.gain, 4),
        "notes": dict(profile.notes),
    }


def folder(home: Home) -> Path:
    """Where the home keeps its profiles."""
    return home.root / "profiles"


def known(home: Home) -> Iterator[Known]:
    """Yield every profile file of the home and of safegen itself, damaged ones too."""
    from safegen.watermark.clip.profile import SHIPPED, Profile

    for where in (folder(home), SHIPPED):
        for path in sorted(where.glob("*.safetensors")):
            try:
                yield Known(path, where == SHIPPED, Profile.load(path))
            except WatermarkError as error:
                yield Known(path, where == SHIPPED, None, str(error))


def profile_for(vae: Any, home: Home, progress: Progress | None = None) -> Profile:
    """Return the profile of a loaded ``vae``: the home's, a shipped one, or one that is measured now and stored.

    Measuring runs on the VAE's device and reports its steps to ``progress``. WatermarkError if the stored profile is
    damaged or the VAE cannot be measured (unknown family, no answer to the pattern); ConfigError if the home cannot be
    written to.
    """
    from safegen.watermark.calibration import calibrate
    from safegen.watermark.clip.profile import find, weights_digest

    found = find(weights_digest(vae), folder(home))
    if found is None:
        found = calibrate(vae, progress=progress)
        store(found, home)
    return found


def store(profile: Profile, home: Home) -> Path:
    """Put ``profile`` into the home, in place of an older one of the same VAE, and return its file.

    Written in one step (temporary file, fsync, rename): other processes see all of it or nothing. ConfigError if the
    home cannot be written to.
    """
    from safegen.watermark.clip.profile import file_name

    target = folder(home) / file_name(profile.digest)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".profile", dir=target.parent)
        temporary = Path(name)
        os.close(descriptor)
        profile.save(temporary)
        _sync(temporary)
        temporary.replace(target)
        fsync_folder(target.parent)
    except OSError as error:
        raise ConfigError(
            f"Cannot write {target}: {error.strerror}", remedy="Check the home's folder and the free space."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return target


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
