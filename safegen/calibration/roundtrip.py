"""What decode, attack and encode give back of a small change of the latents: the measurements behind the clip mark.

A change delta is added to a clip's latents z. Both are decoded, attacked in the same way and encoded again. Everything
here compares the two: what was drawn, decode(z + delta) - decode(z), with what had been asked for; what a reader of
pixels gets, the difference of the two canvases (``watermark.reading``); and what a reader of latents gets,
encode(attack(decode(z + delta))) - encode(attack(decode(z))). A *gain* is the slope of such a difference against what
was wanted: 1 if all of it came back, whatever noise came with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safegen.calibration.roundtrip_attacks import Attack, Frames, attacks
from safegen.calibration.roundtrip_result import RoundTrip, Row, mean_row
from safegen.errors import WatermarkError
from safegen.watermark import fastvae
from safegen.watermark.base import Progress
from safegen.watermark.calibration import paint, random_pattern, smooth_clip
from safegen.watermark.clip.profile import SUBCELLS, Profile
from safegen.watermark.clip.reading import to_canvas
from safegen.watermark.layouts import Layout, strides

CHANNELS = ("Y", "Cb", "Cr")
BANDS = ((3, 8), (8, 14), (14, 20), (20, 26), (26, 36))
"""Radii in half-periods per short side, from (inclusive) to (exclusive)."""

DIRECTIONS = (1, 2, 4, 8, 16, 32)
"""Principal directions of the latents' channels that white changes are tried along, from the strongest one on."""

IMPULSE_DIRECTIONS = (1, 4, 16)
LEVEL = 2.0
"""Root mean square of the patterns, in 8-bit levels."""

LEVELS = (1.0, 2.0, 4.0)
WHITE = 0.5
IMPULSE = 1.0
REACH = 2
"""Cells on each side of an impulse that its response is compared in."""


def sample_hosts(vae: Any, count: int = 2, *, cells: int = 12, latent_frames: int = 7, seed: int = 0) -> Tensor:
    """Latents [count, C, T, h, w] of smooth random clips, where none of the model's own are at hand."""
    cell, stride = strides(vae)
    frames = Layout("BCTHW", cell, stride).spans(latent_frames)[-1][1]
    random = np.random.default_rng(seed)
    device = next(vae.parameters()).device
    with torch.no_grad():
        clips = [fastvae.encode(vae, smooth_clip(random, frames, cells * cell).to(device)) for _ in range(count)]
    return torch.cat(clips).cpu()


def measure(
    vae: Any,
    profile: Profile,
    hosts: Tensor,
    *,
    tried: Sequence[Attack] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> RoundTrip:
    """Measure the round trip of ``vae`` on clips whose normalised latents are ``hosts`` [N, C, T, h, w].

    ``profile`` shapes the patterns. Takes some 60 decodes and 100 encodes per clip. WatermarkError for an unknown VAE
    or for hosts that are no latents of it, MediaError where ffmpeg cannot run.
    """
    if hosts.ndim != 5 or hosts.shape[1] != len(profile.body) or not len(hosts):
        raise WatermarkError(f"latents of shape {tuple(hosts.shape)} do not fit the profile's {len(profile.body)}")
    bench = _Bench(vae, profile, hosts, attacks() if tried is None else tuple(tried), seed, progress)
    for host in hosts:
        bench.clip(host[None])
    return bench.result()


def frames_of(video: Tensor) -> Frames:
    """Video [1, 3, T, H, W] in [-1, 1] as uint8 frames [T, H, W, 3]."""
    levels = (video[0].clamp(-1, 1) + 1) * 127.5
    return levels.round().to(torch.uint8).permute(1, 2, 3, 0).cpu().numpy()


class _Bench:
    """Measures clip after clip and adds up."""

    def __init__(
        self, vae: Any, profile: Profile, hosts: Tensor, tried: tuple[Attack, ...], seed: int, progress: Progress | None
    ) -> None:
        self._vae, self._profile, self._attacks = vae, profile, tried
        self._random = np.random.default_rng(seed)
        self._device = next(vae.parameters()).device
        self._layout = Layout("BCTHW", *strides(vae))
        _, _, self._t, self._h, self._w = hosts.shape
        self._size = (self._t, self._h, self._w)
        spectrum = hosts.transpose(0, 1).flatten(1)
        self._directions = torch.linalg.eigh(torch.cov(spectrum.double()))[1].flip(1).T.float()
        self._bands = [b for b in BANDS if b[1] <= SUBCELLS * min(self._h, self._w)]
        self._found: dict[tuple[str, str], list[Row]] = {}
        self._natural: dict[str, list[dict[str, float]]] = {}
        self._gains: dict[float, list[float]] = {}
        self._responses: dict[str, list[Tensor]] = {}
        self._clips, self._done = 0, 0
        self._progress = progress or (lambda _done, _total: None)
        white = sum(d <= len(self._directions) for d in DIRECTIONS)
        impulses = 2 * sum(d <= len(self._directions) for d in IMPULSE_DIRECTIONS) * self._roomy()
        each = 1 + 6 * len(self._bands) + 6 + 1 + white + len(LEVELS) + impulses
        self._total = each * len(hosts)

    def clip(self, host: Tensor) -> None:
        """Measure everything on one clip."""
        self._host = host.to(self._device)
        self._plain = self._decode(self._host)
        frames = frames_of(self._plain)
        self._attacked = [self._after(frames, a) for a in self._attacks]
        for attack, (_, latents) in zip(self._attacks, self._attacked, strict=True):
            self._natural.setdefault(attack.name, []).append(_kept(latents, self._host))
        self._measure_bands()
        self._full(
            "mark",
            "the mark's own pattern",
            random_pattern(self._random, self._layout, self._size, LEVEL),
        )
        self._measure_white()
        self._measure_levels()
        if self._roomy():
            self._measure_impulses()
        self._clips += 1

    def result(self) -> RoundTrip:
        """Means over the clips."""
        smallest = float(np.mean(self._gains[LEVELS[0]]))
        return RoundTrip(
            clips=self._clips,
            rows=tuple(mean_row(rows) for rows in self._found.values()),
            natural={
                a: {n: float(np.mean([f[n] for f in found])) for n in found[0]} for a, found in self._natural.items()
            },
            linearity={f"{level:g}": float(np.mean(gains)) / smallest for level, gains in self._gains.items()},
            invariance={name: common(torch.stack(found)) for name, found in self._responses.items()},
        )

    # -- the kinds of change ------------------------------------------------------------------------------------------

    def _measure_bands(self) -> None:
        """Each band alone for its cost; those of one channel together, for they hardly touch, through the attacks."""
        for channel, still in product(range(3), (True, False)):
            drawn = [self._band(channel, band, still) for band in self._bands]
            costs = [self._cost(d) for d in drawn]
            together = torch.stack(drawn).sum(dim=0) / len(drawn) ** 0.5 if drawn else None
            if together is None:
                continue
            got = self._through(self._shape(together))
            for band, alone, (gain, share, psnr) in zip(self._bands, drawn, costs, strict=True):
                part = alone / len(drawn) ** 0.5
                name = f"{CHANNELS[channel]} {band[0]}-{band[1]} {'static' if still else 'changing'}"
                self._add("band", name, gain, share, psnr, got, self._wanted(part), self._shape(part))

    def _full(self, group: str, name: str, drawn: Tensor) -> None:
        gain, share, psnr = self._cost(drawn)
        delta = self._shape(drawn)
        self._add(group, name, gain, share, psnr, self._through(delta), self._wanted(drawn), delta)

    def _measure_white(self) -> None:
        for direction in (d for d in DIRECTIONS if d <= len(self._directions)):
            signs = self._random.choice([-WHITE, WHITE], size=(1, 1, self._t, self._h, self._w)).astype(np.float32)
            axis = self._directions[direction - 1].view(1, -1, 1, 1, 1)
            delta = (axis * torch.from_numpy(signs)).to(self._device)
            change = (self._decode(self._host + delta) - self._plain) * 127.5
            self._add("white", f"direction {direction}", 1.0, 1.0, _psnr(change), self._through(delta), change, delta)

    def _measure_levels(self) -> None:
        drawn = random_pattern(self._random, self._layout, self._size, 1.0)
        for level in LEVELS:
            self._gains.setdefault(level, []).append(self._cost(level * drawn)[0])

    def _measure_impulses(self) -> None:
        rows, columns = (self._places(n) for n in (self._h, self._w))
        middle = self._t // 2
        spans, cell = self._layout.spans(self._t), self._layout.cell
        for direction, still in product((d for d in IMPULSE_DIRECTIONS if d <= len(self._directions)), (True, False)):
            delta = torch.zeros_like(self._host)
            axis = IMPULSE * self._directions[direction - 1].to(self._device)
            for row, column in product(rows, columns):
                delta[0, :, slice(None) if still else middle, row, column] = axis[:, None] if still else axis
            change = (self._decode(self._host + delta) - self._plain)[0] * 127.5
            if still:
                change = change.mean(dim=1, keepdim=True)
            elif middle:
                change = change[:, spans[middle][0] : spans[min(middle + 1, self._t - 1)][1]]
            name = f"direction {direction} {'static' if still else 'changing'}"
            for row, column in product(rows, columns):
                top, left = cell * (row - REACH), cell * (column - REACH)
                size = cell * (2 * REACH + 1)
                self._responses.setdefault(name, []).append(change[..., top : top + size, left : left + size].cpu())
            self._tick()

    def _roomy(self) -> bool:
        return min(self._h, self._w) >= 2 * (2 * REACH + 1)

    def _places(self, cells: int) -> list[int]:
        apart = 2 * REACH + 1
        slack = int(self._random.integers(cells - 2 * apart + 1))
        return [REACH + slack, REACH + slack + apart]

    # -- there and back -----------------------------------------------------------------------------------------------

    def _band(self, channel: int, band: tuple[int, int], still: bool) -> Tensor:
        return band_pattern(self._random, self._layout, self._size, channel, band, still)

    def _cost(self, drawn: Tensor) -> tuple[float, float, float]:
        """(Gain, share of the drawn energy that was wanted, PSNR in dB) of a pattern in the decoded clip."""
        change = (self._decode(self._host + self._shape(drawn)) - self._plain) * 127.5
        wanted = self._wanted(drawn)
        inner, norm = float((change * wanted).sum()), float(change.square().sum() * wanted.square().sum())
        self._tick()
        return inner / float(wanted.square().sum()), inner**2 / norm if norm > 0 else 0.0, _psnr(change)

    def _through(self, delta: Tensor) -> list[tuple[NDArray[np.float32], Tensor]]:
        """By attack, what changes in the canvas and in the latents that are read back."""
        frames = frames_of(self._decode(self._host + delta))
        pairs = zip((self._after(frames, a) for a in self._attacks), self._attacked, strict=True)
        self._tick()
        return [(canvas - before[0], latents - before[1]) for (canvas, latents), before in pairs]

    def _after(self, frames: Frames, attack: Attack) -> tuple[NDArray[np.float32], Tensor]:
        attacked = attack.change(frames)
        video = torch.from_numpy(attacked).to(self._device).permute(3, 0, 1, 2)[None] / 127.5 - 1
        with torch.no_grad():
            return to_canvas(attacked), fastvae.encode(self._vae, video)

    def _add(
        self, group: str, name: str, gain: float, share: float, psnr: float,
        got: list[tuple[NDArray[np.float32], Tensor]], wanted: Tensor, delta: Tensor,
    ) -> None:  # fmt: skip
        shown, scale = _carry(wanted)
        flat = to_canvas(np.full_like(shown, 128))
        canvas, latents = {}, {}
        for attack, (pixels, returned) in zip(self._attacks, got, strict=True):
            moved = attack.change(shown) if attack.moves else shown
            canvas[attack.name] = _slope(pixels, (to_canvas(moved) - flat) / scale)
            latents[attack.name] = float((returned * delta).sum() / delta.square().sum())
        self._found.setdefault((group, name), []).append(Row(group, name, gain, share, psnr, canvas, latents))

    def _wanted(self, drawn: Tensor) -> Tensor:
        return paint(drawn, self._plain.shape[3:], self._layout).to(self._device)

    def _shape(self, drawn: Tensor) -> Tensor:
        return self._profile.shape_latents(drawn.to(self._device))

    def _decode(self, latents: Tensor) -> Tensor:
        with torch.no_grad():
            return fastvae.decode(self._vae, latents)

    def _tick(self) -> None:
        self._done += 1
        self._progress(min(self._done, self._total), self._total)


def band_pattern(
    random: np.random.Generator,
    layout: Layout,
    shape: tuple[int, int, int],
    channel: int,
    band: tuple[int, int],
    still: bool,
) -> Tensor:
    """A random pattern of one channel and one band of radii, [1, T, 3, 4h, 4w], of root mean square LEVEL.

    ``still``: the same in all latent frames; otherwise each has its own, and the mean over the clip's frames is zero.
    """
    t, height, width = shape[0], SUBCELLS * shape[1], SUBCELLS * shape[2]
    short = min(height, width)
    rows, columns = (_cosines(band[1], n, short) for n in (height, width))
    v, u = np.mgrid[: band[1], : band[1]]
    inside = (np.hypot(u, v) >= band[0]) & (np.hypot(u, v) < band[1])
    numbers = random.normal(size=(1 if still else t, band[1], band[1])) * inside
    pictures = np.broadcast_to(rows.T @ numbers @ columns, (t, height, width)).copy()
    frames = np.array([stop - start for start, stop in layout.spans(t)])
    if not still and t > 1:
        pictures -= np.tensordot(frames / frames.sum(), pictures, 1)
    power = float(frames / frames.sum() @ (pictures**2).mean(axis=(1, 2)))
    out = torch.zeros(1, t, 3, height, width)
    out[0, :, channel] = torch.from_numpy(LEVEL * pictures / np.sqrt(power)).float()
    return out


def common(responses: Tensor) -> float:
    """The share of the energy of ``responses`` [N, ...] that is common to them, from all pairs: unbiased, at most 1."""
    n, each = len(responses), float(responses.square().sum())
    if n < 2 or each == 0:
        return 0.0
    return (float(responses.sum(dim=0).square().sum()) - each) / ((n - 1) * each)


def _cosines(count: int, length: int, short: int) -> NDArray[np.float64]:
    return np.cos(np.pi * np.arange(count)[:, None] * (np.arange(length) + 0.5) / short)


def _carry(change: Tensor) -> tuple[Frames, float]:
    """A change of RGB levels [1, 3, T, H, W] on grey frames, as strong as they can carry: (frames, by how much)."""
    scale = 100 / max(float(change.abs().max()), 1e-6)
    return frames_of((128 + scale * change) / 127.5 - 1), scale


def _kept(latents: Tensor, host: Tensor) -> dict[str, float]:
    """Gain of the host's own latents, each channel around its mean, and the share of their energy that is kept."""
    true = host - host.mean(dim=(2, 3, 4), keepdim=True)
    back = latents - latents.mean(dim=(2, 3, 4), keepdim=True)
    energy = float(true.square().sum())
    return {"gain": float((true * back).sum()) / energy, "kept": 1 - float((back - true).square().sum()) / energy}


def _slope(got: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    energy = float((wanted**2).sum())
    return float((got * wanted).sum()) / energy if energy > 0 else 0.0


def _psnr(change: Tensor) -> float:
    return float(10 * torch.log10(255**2 / change.square().mean().clamp(min=1e-9)))
