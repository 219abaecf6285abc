"""Calibrates the heads of a trained network and measures it on rows that it never saw.

A score is ``sigmoid(slope * logit + shift)`` and means the same in every head, so that packs set one threshold for word
rules and heads: all heads together reach 0.5 on one benign video prompt in a hundred and on one harmless look-alike in
twenty, whichever is stricter, and 0.8 on a tenth of those; nor does a text reach 0.5 that is rather a no than a yes.
Beside it stands Platt's (1999) calibration, fitted on held-out rows with yes and no weighted alike: the probability at
even odds. Intervals are 95 % percentile bootstraps over rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safegen.policies.text.encoder import FLAG, Card
from safegen.policies.training.rows import CEILINGS, HEADS, NO, UNKNOWN, YES, Row

# Imported where they are used: sklearn.

FLAG_SHARES = {"video": 0.01, "lookalike": 0.05}
"""Shares of benign video prompts, and of harmless look-alikes, that may reach a flag, all heads together."""
FURTHER = {"flag": 1.0, "review": 0.3, "block": 0.1}
"""How many of those that reach a flag may reach the further thresholds."""
_TAIL = 0.05  # share of the rows to which the tail is fitted
_RESAMPLES = 500
_MIN_YES = 8  # fewer held-out yeses fit nothing
_BLOCK_SCORE = 0.8
_SLOPES = 0.2, 2.0


def level_of(logits: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """Return the logits that a share of the rows exceeds, one a head.

    Shares beyond the rows at hand come from an exponential tail fitted to the highest rows (peaks over a threshold).
    """
    start = np.quantile(logits, 1 - _TAIL, axis=0)
    excess = np.where(logits > start, logits - start, 0.0).sum(0) / np.maximum((logits > start).sum(0), 1)
    far = start + np.maximum(excess, 1e-3) * np.log(_TAIL / min(share, _TAIL))
    near = np.quantile(logits, 1 - share, axis=0)
    return (far if share * len(logits) < 10 else near).astype(np.float32)


def share_a_head(logits: NDArray[np.float32], together: float) -> float:
    """Return the share that each head may let through so that all together let through no more than asked."""
    low, high = 0.0, together
    for _ in range(30):
        each = (low + high) / 2
        exceeded = (logits > level_of(logits, each)).any(1).mean()
        low, high = (each, high) if exceeded <= together else (low, each)
    return float(max(low, together / (20 * logits.shape[1])))


def platt(logit: NDArray[np.float32], yes: NDArray[np.bool_]) -> tuple[float, float] | None:
    """Return Platt's slope and shift, yes and no weighted alike; None where there are too few of either."""
    from sklearn.linear_model import LogisticRegression

    if min(int(yes.sum()), int((~yes).sum())) < _MIN_YES:
        return None
    model = LogisticRegression(C=1.0, class_weight="balanced").fit(logit[:, None], yes)
    return round(float(model.coef_[0, 0]), 5), round(float(model.intercept_[0]), 5)


def card_of(heads: Mapping[str, Mapping[str, Any]]) -> Card:
    """Return the description of heads, of no weights yet."""
    slope, shift, ceiling = (np.array([heads[h][k] for h in HEADS], np.float32) for k in ("slope", "shift", "ceiling"))
    return Card("", HEADS, slope, shift, ceiling, "", "", "")


def calibrate(
    benign: Mapping[str, NDArray[np.float32]], logits: NDArray[np.float32], says: NDArray[np.int8]
) -> dict[str, dict[str, Any]]:
    """Return slope, shift and recommended thresholds of each head, and Platt's calibration as ``probability``.

    ``benign``: logits [N, heads] of the kinds in ``FLAG_SHARES``, those that there are rows of; ``logits`` and ``says``
    [M, heads]: held-out rows of all kinds.
    """
    shares = {kind: share_a_head(rows, FLAG_SHARES[kind]) for kind, rows in benign.items()}
    by_kind = [[level_of(rows, shares[kind] * part) for part in FURTHER.values()] for kind, rows in benign.items()]
    flag = np.max([levels[0] for levels in by_kind], axis=0)
    # How far beyond the flag the further thresholds lie: where the tails are longest.
    beyond = np.max([[level - levels[0] for level in levels] for levels in by_kind], axis=0)
    heads: dict[str, dict[str, Any]] = {}
    for at, head in enumerate(HEADS):
        known = says[:, at] != UNKNOWN
        probability = platt(logits[known, at], says[known, at] == YES)
        if probability is not None:  # nor is anything flagged that is rather a no than a yes
            flag[at] = max(flag[at], -probability[1] / max(probability[0], 1e-3))
        slope = float(np.clip(np.log(_BLOCK_SCORE / (1 - _BLOCK_SCORE)) / max(beyond[-1, at], 1e-3), *_SLOPES))
        shift = -slope * float(flag[at])
        heads[head] = {
            "slope": round(slope, 5),
            "shift": round(shift, 5),
            "ceiling": CEILINGS.get(head, 1.0),
            "probability": probability,
        }
    card = card_of(heads)
    for name, further in zip(FURTHER, beyond, strict=True):
        for head, score in zip(HEADS, card.scores(flag + further), strict=True):
            heads[head][f"{name}_at"] = round(float(score), 3)
    return heads


def interval(statistic: Callable[[NDArray[np.int64]], float], count: int) -> list[float]:
    """Return the statistic of all rows, then the ends of its bootstrap interval; it is given the rows' indices."""
    draw = np.random.default_rng(0)
    values = [statistic(draw.integers(0, count, count)) for _ in range(_RESAMPLES)]
    low, high = np.nanquantile(values, [0.025, 0.975])
    return [round(float(v), 4) for v in (statistic(np.arange(count)), low, high)]


def auroc(yes: NDArray[np.float32], no: NDArray[np.float32]) -> list[float] | None:
    """Return AUROC with its interval, or None where one side is empty."""
    if not len(yes) or not len(no):
        return None
    scores, label = np.concatenate([yes, no]), np.r_[np.ones(len(yes), bool), np.zeros(len(no), bool)]

    def statistic(rows: NDArray[np.int64]) -> float:
        s, y = scores[rows], label[rows]
        ranks = _ranks(s)
        n = int(y.sum())
        return float((ranks[y].sum() - n * (n + 1) / 2) / max(n * (len(y) - n), 1)) if 0 < n < len(y) else float("nan")

    return interval(statistic, len(scores))


def _ranks(values: NDArray[np.float32]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]


def share(reached: NDArray[np.bool_]) -> list[float] | None:
    """Return a share with its interval, or None of nothing."""
    return interval(lambda rows: float(reached[rows].mean()), len(reached)) if len(reached) else None


def figures(
    rows: Sequence[Row], scores: NDArray[np.float32], heads: Mapping[str, Mapping[str, Any]], origin: Sequence[str]
) -> dict[str, Any]:
    """Return figures per source and category: ``scores`` [rows, heads] are calibrated, ``origin`` names collections."""
    top = scores.max(1)
    level = np.array([heads[h]["review_at"] for h in HEADS]), np.array([heads[h]["block_at"] for h in HEADS])
    reached = {"flag": top >= FLAG, "review": (scores >= level[0]).any(1), "block": (scores >= level[1]).any(1)}
    unsafe, lookalike = np.array([r.unsafe for r in rows]), np.array([r.lookalike for r in rows])
    source = np.array(origin)
    video = top[(source == "VBench") & ~unsafe]
    general = scores[:, HEADS.index("general")]
    report: dict[str, Any] = {"benign": {}, "unsafe": {}, "categories": {}}
    for name in sorted(set(origin)):
        harmless = (source == name) & ~unsafe
        for kind, these in (("", harmless & ~lookalike), (" look-alikes", harmless & lookalike)):
            if these.any():
                report["benign"][name + kind] = {
                    "n": int(these.sum()),
                    **{f"reach_{k}": share(v[these]) for k, v in reached.items()},
                }
        these = (source == name) & unsafe
        if these.any():
            report["unsafe"][name] = {
                "n": int(these.sum()),
                "auroc_against_benign_video": auroc(top[these], video),
                "auroc_of_general_against_benign_video": auroc(general[these], general[(source == "VBench") & ~unsafe]),
                **{f"reach_{k}": share(v[these]) for k, v in reached.items()},
            }
            for category in sorted({r.category for r, here in zip(rows, these, strict=True) if here}):
                mine = these & np.array([r.category == category for r in rows])
                report["categories"][f"{name}/{category}"] = {
                    "n": int(mine.sum()),
                    **{f"reach_{k}": share(v[mine]) for k, v in reached.items()},
                }
    report["auroc_unsafe_against_benign_video"] = auroc(top[unsafe], video)
    overt = source == "OVERT"
    report["auroc_overt_unsafe_against_lookalikes"] = auroc(top[overt & unsafe], top[overt & lookalike])
    report["auroc_of_general_overt_unsafe_against_lookalikes"] = auroc(
        general[overt & unsafe], general[overt & lookalike]
    )
    recalls = [c["reach_flag"][0] for c in report["categories"].values()]
    report["macro_recall_at_flag"] = round(float(np.mean(recalls)), 4) if recalls else None
    return report


def by_head(scores: NDArray[np.float32], says: NDArray[np.int8]) -> dict[str, Any]:
    """Return each head's own AUROC and share of yeses at 0.5, where there are yeses to look at."""
    out: dict[str, Any] = {}
    for at, head in enumerate(HEADS):
        yes, no = scores[says[:, at] == YES, at], scores[says[:, at] == NO, at]
        if len(yes):
            out[head] = {"n": len(yes), "auroc": auroc(yes, no), "reach_0.5": share(yes >= 0.5)}
    return out
