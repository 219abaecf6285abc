"""What has to be known of a VAE to write the pattern into its latents, measured once and kept as a small file.

Decoders answer to small changes of their latents almost linearly, and nearly in the same way everywhere
(docs/watermark-calibration.md). So one linear filter is enough that turns a pattern of pixels into the latents that
draw it: no gradient, no further decoding, whatever the clip. ``calibration.py`` measures it.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as nnf
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from safegen.errors import WatermarkError
from safegen.types import Json

if TYPE_CHECKING:
    from collections.abc import Mapping

SUBCELLS = 4
"""Samples of the pattern per latent cell side."""

PATTERN_CHANNELS = 3 * SUBCELLS * SUBCELLS
LEAST_SHARE = 0.1
"""Energy in the pattern, of all that changes, below which a VAE is out of the mark's reach."""

SHIPPED = Path(__file__).parents[1] / "profiles"
_FORMAT = "safegen-vae-profile-1"


@dataclass(frozen=True, slots=True)
class Profile:
    """A VAE's filters. ``digest`` names the VAE's weights (``weights_digest``).

    ``body`` [C, 48, 3, 3, 3] turns the pattern (Y, Cb, Cr levels at 4x4 samples per cell) of three latent frames and
    3x3 cells into one cell's change of the normalised latents; ``first`` [C, 48, 2, 3, 3] does so for the first latent
    frame, which causal VAEs code apart. ``gain`` is the root mean square of the change of the decoded video's RGB
    levels for a pattern of root mean square 1, and ``frame_gains`` what share of it the first latent frames get, the
    last one standing for all that follow: VAEs draw the beginning of a clip louder. ``preview`` [C + 1] gives a cell's
    mean luma in 8-bit levels from its normalised latents (coefficients, then an offset). ``notes`` say how it was
    measured.
    """

    digest: str
    body: Tensor
    first: Tensor
    gain: float
    preview: Tensor
    notes: Mapping[str, Json] = field(default_factory=dict)
    frame_gains: tuple[float, ...] = (1.0,)

    def even(self, frames: int) -> Tensor:
        """What the pattern of each of so many latent frames is multiplied by, that all show alike: [frames]."""
        gains = [*self.frame_gains[:frames], *[self.frame_gains[-1]] * (frames - len(self.frame_gains))]
        return 1 / torch.tensor(gains)

    @property
    def draws(self) -> bool:
        """Whether the VAE draws the pattern at all: LEAST_SHARE of what changes, as far as that was measured."""
        share = self.notes.get("energy_in_the_pattern", 1.0)
        return isinstance(share, int | float) and share >= LEAST_SHARE

    def shape_latents(self, pattern: Tensor) -> Tensor:
        """Turn a pattern [B, T, 3, 4h, 4w] (one picture per latent frame) into latents' change [B, C, T, h, w]."""
        b, t, _, height, width = pattern.shape
        h, w = height // SUBCELLS, width // SUBCELLS
        cells = pattern.reshape(b, t, 3, h, SUBCELLS, w, SUBCELLS).permute(0, 2, 4, 6, 1, 3, 5)
        x = nnf.pad(cells.reshape(b, PATTERN_CHANNELS, t, h, w), (1, 1, 1, 1, 0, 0), mode="replicate")
        body, first = self.body.to(x), self.first.to(x)
        if t == 1:
            return nnf.conv3d(x, first[:, :, :1])
        padded = torch.cat([x, x[:, :, -1:]], dim=2)
        return torch.cat([nnf.conv3d(x[:, :, :2], first), nnf.conv3d(padded, body)], dim=2)

    def save(self, path: Path) -> None:
        """Write the profile to ``path`` (safetensors, half precision); OSError passes through."""
        about = {"format": _FORMAT, "digest": self.digest, "gain": self.gain, "notes": dict(self.notes),
                 "frame_gains": list(self.frame_gains)}  # fmt: skip
        tensors = {
            "body": self.body.half().contiguous(),
            "first": self.first.half().contiguous(),
            "preview": self.preview.float().contiguous(),
        }
        path.write_bytes(save_tensors(tensors, metadata={"profile": json.dumps(about)}))

    @classmethod
    def load(cls, path: Path) -> Profile:
        """Read a profile; WatermarkError if the file is damaged or of another format."""
        try:
            with safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {})["profile"])
                body, first, preview = (file.get_tensor(name).float() for name in ("body", "first", "preview"))
            if about["format"] != _FORMAT:
                raise ValueError(f"format {about['format']}")
            gain, gains = float(about["gain"]), tuple(map(float, about.get("frame_gains", (1.0,))))
            _check(body, first, preview, (gain, *gains))
            return cls(str(about["digest"]), body, first, gain, preview, dict(about["notes"]), gains)
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as exc:
            raise WatermarkError(
                f"the VAE profile {path} is damaged: {exc}", remedy="Delete it and run `safegen watermark calibrate`."
            ) from exc


def _check(body: Tensor, first: Tensor, preview: Tensor, gains: tuple[float, ...]) -> None:
    c = len(body)
    wanted = [(c, PATTERN_CHANNELS, 3, 3, 3), (c, PATTERN_CHANNELS, 2, 3, 3), (c + 1,)]
    shapes = [tuple(t.shape) for t in (body, first, preview)]
    if shapes != wanted:
        raise ValueError(f"tensors of shapes {shapes}")
    if not all(torch.isfinite(t).all() for t in (body, first, preview)):
        raise ValueError("filters that are not finite")
    if len(gains) < 2 or not all(math.isfinite(gain) and gain > 0 for gain in gains):
        raise ValueError(f"gains {gains}")


def find(digest: str, *folders: Path) -> Profile | None:
    """Return the profile of the VAE with this digest from ``folders`` or from those that come with safegen."""
    for folder in (*folders, SHIPPED):
        path = folder / f"{digest[:16]}.safetensors"
        if path.is_file():
            profile = Profile.load(path)
            if profile.digest == digest:
                return profile
    return None


def file_name(digest: str) -> str:
    """The name that ``find`` looks for."""
    return f"{digest[:16]}.safetensors"


def weights_digest(vae: Any) -> str:
    """SHA-256 (hex) over the names, shapes and values of a loaded VAE's parameters, wherever they came from."""
    digest = hashlib.sha256()
    for name, value in sorted(vae.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} ".encode())
        digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()
