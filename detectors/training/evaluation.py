"""Honest figures for a small, lopsided data set: pairs of origins held out, bootstrap by origin, a floor beside them.

In each fold one origin of camera clips and one of generated clips are held out together and the rest is trained on.
Holding out one origin alone would shift the class means against it, and bias a pooled AUROC downwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from safegen.detectors.training.dataset import VARIANTS, Features
from safegen.errors import DetectorError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]
    Scorer = Callable[[Vector], Vector]
    Figure = Callable[[NDArray[np.int64]], float]
    Fit = Callable[[Vector, NDArray[np.bool_], Vector], Scorer]

# Imported where they are used: sklearn.

TARGET_RATE = 0.05
SMALL_GROUP = 8  # clips; smaller origins of one class are held out together, since nothing can be said of 2 clips
_BOOTSTRAPS = 2000


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Scores of clips [N, variants] by models that never saw their origin, averaged over folds."""

    scores: Vector
    fake: NDArray[np.bool_]
    group: NDArray[np.str_]
    source: NDArray[np.str_]
    pairs: dict[tuple[str, str], list[float]]  # AUROC per (camera origin, generated origin) and variant


def merged_groups(data: Features) -> NDArray[np.str_]:
    """Return each window's origin, small ones of a class put together."""
    group = data.group.astype(object)
    for fake in (False, True):
        for name in np.unique(data.group[data.fake == fake]):
            chosen = data.group == name
            if len(np.unique(data.clip[chosen])) < SMALL_GROUP:
                group[chosen] = "small-generated" if fake else "small-camera"
    return group.astype(str)


def weights(clip: NDArray[np.int64], fake: NDArray[np.bool_], group: NDArray[np.str_]) -> Vector:
    """Weigh windows: clips alike, origins by the square root of their size, both classes alike; mean 1."""
    _, inverse, count = np.unique(clip, return_inverse=True, return_counts=True)
    w = 1.0 / count[inverse]
    for value in (False, True):
        of_class = fake == value
        for name in np.unique(group[of_class]):
            chosen = of_class & (group == name)
            w[chosen] /= np.sqrt(w[chosen].sum())
        w[of_class] /= w[of_class].sum()
    return np.asarray(w * len(w) / 2)


def hold_out_pairs(x: Vector, data: Features, fit: Fit) -> HeldOut:
    """Cross-validate on features ``x`` [N, variants, F]; all variants of the rest are trained on."""
    from sklearn.metrics import roc_auc_score

    group = merged_groups(data)
    camera, generated = np.unique(group[~data.fake]), np.unique(group[data.fake])
    if len(camera) < 2 or len(generated) < 2:
        raise DetectorError("cross-validation needs at least two origins of camera clips and two of generated ones")
    total, times = np.zeros(x.shape[:2]), np.zeros(len(x))
    pairs = {}
    for a in camera:
        for b in generated:
            test = (group == a) | (group == b)
            w = weights(data.clip[~test], data.fake[~test], group[~test])
            scorer = fit(stack(x[~test]), np.tile(data.fake[~test], x.shape[1]), np.tile(w, x.shape[1]))
            scores = np.stack([scorer(x[test, v]) for v in range(x.shape[1])], axis=1)
            total[test] += scores
            times[test] += 1
            pairs[str(a), str(b)] = [
                float(roc_auc_score(data.fake[test], scores[:, v])) for v in range(scores.shape[1])
            ]
    mean = total / times[:, None]
    members = [np.flatnonzero(data.clip == c) for c in np.unique(data.clip)]
    first = np.array([m[0] for m in members])
    return HeldOut(
        np.stack([mean[m].mean(axis=0) for m in members]), data.fake[first], group[first], data.source[first], pairs
    )


def stack(x: Vector) -> Vector:
    """Put the variants [N, variants, F] one below the other: [variants * N, F]."""
    return np.concatenate([x[:, v] for v in range(x.shape[1])])


def summary(ours: HeldOut, floor: HeldOut) -> dict[str, Any]:
    """AUROC by variant with 95 % bootstrap intervals over origins, the floor's, their difference, TPR at 5 % FPR."""
    from sklearn.metrics import roc_auc_score

    def area(of: HeldOut, v: int) -> Figure:
        return lambda index: float(roc_auc_score(of.fake[index], of.scores[index, v]))

    def gain(v: int) -> Figure:
        return lambda index: area(ours, v)(index) - area(floor, v)(index)

    out: dict[str, Any] = {}
    for v, name in enumerate(VARIANTS):
        out[name] = {
            "auroc": _with_interval(area(ours, v), ours),
            "auroc_bitrate_floor": _with_interval(area(floor, v), ours),
            "auroc_minus_floor": _with_interval(gain(v), ours),
            "auroc_mean_over_pairs": round(float(np.mean([p[v] for p in ours.pairs.values()])), 3),
            "auroc_worst_pair": round(min(p[v] for p in ours.pairs.values()), 3),
            "floor_mean_over_pairs": round(float(np.mean([p[v] for p in floor.pairs.values()])), 3),
            "tpr_at_5_percent_fpr": round(tpr_at(ours.scores[:, v], ours.fake), 3),
        }
    return out


def tpr_at(scores: Vector, fake: NDArray[np.bool_], rate: float = TARGET_RATE) -> float:
    """Share of generated clips above the camera clips' (1 - rate) quantile."""
    return float((scores[fake] > np.quantile(scores[~fake], 1 - rate)).mean())


def _with_interval(figure: Figure, of: HeldOut) -> dict[str, float]:
    """The figure on all clips, and its 2.5 and 97.5 % quantiles when origins are drawn anew within each class."""
    rng = np.random.default_rng(0)
    by_class = [
        [np.flatnonzero((of.fake == value) & (of.group == name)) for name in np.unique(of.group[of.fake == value])]
        for value in (False, True)
    ]
    draws = []
    for _ in range(_BOOTSTRAPS):
        chosen = [groups[k] for groups in by_class for k in rng.integers(0, len(groups), len(groups))]
        draws.append(figure(np.concatenate(chosen)))
    low, high = np.quantile(draws, [0.025, 0.975])
    return {
        "value": round(figure(np.arange(len(of.fake))), 3), "low": round(float(low), 3), "high": round(float(high), 3)
    }  # fmt: skip
