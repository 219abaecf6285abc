"""Statistics of noise, texture and motion: the 24 numbers that ``forensic-v1`` judges by.

Hand-made statistics and not a network's, since every number has a name and a meaning that an explanation can quote.
They were kept out of 104 (spectrum, chroma, further residual filters, frame differences, coarse trajectories), which
told our training sources apart and carried worse to sources held out; docs/detector.md has the figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Plane = NDArray[np.float32]

# Imported where they are used: what loads cv2.

_EPS = 1e-3
_BLOCK = 16
_LIMIT = 50.0
_MIN_FRAMES = 4

_HIGH_PASS = [[-0.25, 0.5, -0.25], [0.5, -1.0, 0.5], [-0.25, 0.5, -0.25]]
"""The 3x3 kernel of Ker & Boehme (2008), which SRM uses too: flat areas and straight edges vanish, noise stays."""


def features(window: NDArray[np.uint8]) -> dict[str, float]:
    """Return the named statistics of one normalised window, uint8 RGB [T, S, S, 3], T >= 1; all finite.

    Statistics over time are 0 where the window has fewer than 4 frames.
    """
    from safegen.opencv import cv2

    luma = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2YCrCb)[..., 0] for frame in window]).astype(np.float32)
    kernel = np.array(_HIGH_PASS, np.float32)
    residual = np.stack([cv2.filter2D(f, cv2.CV_32F, kernel, borderType=cv2.BORDER_REFLECT) for f in luma])
    out = _median_residual(luma, residual)
    out["even_odd"] = _log(residual[:, ::2, ::2].std()) - _log(residual[:, 1::2, 1::2].std())
    out |= _noise_by_brightness(luma, residual)
    out |= _texture_over_time(residual)
    out |= _motion(luma)
    return {name: float(np.clip(np.nan_to_num(value), -_LIMIT, _LIMIT)) for name, value in out.items()}


def _log(value: float | np.floating) -> float:
    return float(np.log(np.maximum(value, 0.0) + _EPS))


def _kurtosis(values: Plane) -> float:
    """Log kurtosis, 0 for a Gaussian's 3: heavy tails otherwise swamp a linear model."""
    centred = values - values.mean()
    squared = centred * centred  # twice: a float power is fifty times slower
    variance = float(np.mean(squared))
    if variance < 1e-9:
        return 0.0
    return float(np.log(np.mean(squared * squared) / variance**2 / 3.0 + 1e-6))


def _correlation(a: Plane, b: Plane) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt(np.mean(a * a) * np.mean(b * b)))
    return float(np.mean(a * b)) / norm if norm > 1e-6 else 0.0


def _blocks(values: Plane) -> Plane:
    """Mean of |values| in 16x16 blocks: [T, S, S] to [T, S/16, S/16]."""
    t, side = values.shape[0], values.shape[1] // _BLOCK * _BLOCK
    cut = np.abs(values[:, :side, :side]).reshape(t, side // _BLOCK, _BLOCK, side // _BLOCK, _BLOCK)
    return np.asarray(cut.mean(axis=(2, 4)))


def _median_residual(luma: Plane, residual: Plane) -> dict[str, float]:
    """What a 3x3 median takes away: single-pixel detail that differs from its surroundings."""
    from safegen.opencv import cv2

    r = np.stack([f - cv2.medianBlur(f, 3) for f in luma])
    return {
        "median_level": _log(r.std()) - _log(residual.std()),
        "median_kurtosis": _kurtosis(r),
        "median_small": float(np.mean(np.abs(r) < 1.0)),
        "median_right": _correlation(r[:, :, :-1], r[:, :, 1:]),
        "median_down": _correlation(r[:, :-1], r[:, 1:]),
    }


def _noise_by_brightness(luma: Plane, residual: Plane) -> dict[str, float]:
    """Noise level in each quarter of brightness: a sensor's noise grows with light, a decoder's need not (Foi 2008)."""
    quarter = np.digitize(luma, np.quantile(luma, [0.25, 0.5, 0.75]))
    overall = _log(np.median(np.abs(residual)))
    out = {}
    for k in range(4):
        part = np.abs(residual[quarter == k])
        out[f"noise_q{k + 1}"] = (_log(np.median(part)) - overall) if part.size else 0.0
    return out


_TEXTURE_NAMES = ("lag1", "lag3", "quiet_lag1", "unsteady", "mean_share")


def _texture_over_time(residual: Plane) -> dict[str, float]:
    """How long fine texture lasts, and how evenly its strength is kept: sensor noise is new in every frame."""
    if len(residual) < _MIN_FRAMES:
        return {f"texture_{name}": 0.0 for name in _TEXTURE_NAMES}
    energy = np.log(np.abs(residual).mean(axis=(1, 2)) + _EPS)
    blocks = _blocks(np.diff(residual, axis=0)).mean(axis=0)
    mask = np.kron(blocks <= np.quantile(blocks, 0.25), np.ones((_BLOCK, _BLOCK))).astype(bool)
    still = residual[:, : mask.shape[0], : mask.shape[1]][:, mask]
    values = (
        _correlation(residual[:-1], residual[1:]),
        _correlation(residual[:-3], residual[3:]),
        _correlation(still[:-1], still[1:]),
        float(energy.std()),
        _log(residual.mean(axis=0).std()) - _log(residual.std()),
    )
    return {f"texture_{name}": value for name, value in zip(_TEXTURE_NAMES, values, strict=True)}


_MOTION_NAMES = (
    "speed", "roughness", "divergence", "change", "unexplained", "unexplained_kurtosis", "unexplained_unsteady",
    "unexplained_block95", "stretch",
)  # fmt: skip


def _motion(luma: Plane) -> dict[str, float]:
    """Optical flow (DIS, Kroeger et al. 2016): how smooth it is, and what it leaves unexplained of the next frame."""
    from safegen.opencv import cv2

    if len(luma) < _MIN_FRAMES:
        return {f"flow_{name}": 0.0 for name in _MOTION_NAMES}
    small = np.stack([cv2.resize(f, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for f in luma])
    flow, rest = _flow_and_rest(small)
    length = np.linalg.norm(flow, axis=3)
    du_dx, dv_dy = np.diff(flow[..., 0], axis=2)[:, :-1], np.diff(flow[..., 1], axis=1)[:, :, :-1]
    du_dy, dv_dx = np.diff(flow[..., 0], axis=1)[:, :, :-1], np.diff(flow[..., 1], axis=2)[:, :-1]
    gradient = np.sqrt(du_dx**2 + dv_dy**2 + du_dy**2 + dv_dx**2)
    per_frame = np.log(np.abs(rest).mean(axis=(1, 2)) + _EPS)
    blocks = _blocks(rest)
    speed = float(length.mean())
    values = (
        _log(speed),
        _log(gradient.mean() / (speed + 0.05)),
        _log(np.abs(du_dx + dv_dy).mean() / (gradient.mean() + _EPS)),
        _log(np.linalg.norm(np.diff(flow, axis=0), axis=3).mean() / (speed + 0.05)),
        _log(np.abs(rest).mean()) - _log(np.abs(np.diff(small, axis=0)).mean()),
        _kurtosis(rest),
        float(per_frame.std()),
        _log(np.quantile(blocks, 0.95)) - _log(blocks.mean()),
        _log(np.quantile(length, 0.95)) - _log(speed),
    )
    return {f"flow_{name}": value for name, value in zip(_MOTION_NAMES, values, strict=True)}


def _flow_and_rest(small: Plane) -> tuple[Plane, Plane]:
    """Return flow between neighbours [T-1, S, S, 2] in pixels, and what is left after moving back by it [T-1, S, S]."""
    from safegen.opencv import cv2

    grey = np.clip(small, 0, 255).astype(np.uint8)
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    side = small.shape[1]
    gy, gx = np.mgrid[0:side, 0:side].astype(np.float32)
    flows, left = [], []
    for i in range(len(small) - 1):
        flow = estimator.calc(grey[i], grey[i + 1], None)
        moved = cv2.remap(
            small[i + 1], gx + flow[..., 0], gy + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
        flows.append(flow)
        left.append(small[i] - moved)
    return np.stack(flows), np.stack(left)
