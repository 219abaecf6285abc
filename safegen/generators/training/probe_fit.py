"""Fitting a probe: one regularised logistic regression per step, calibrated on folds that a fit did not see.

Needs scikit-learn (the ``train`` extra); asking a probe does not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safegen.errors import InputError
from safegen.policies.probes.probe_set import FLAG_SCORE, STOP_SCORE

# Imported where they are used: sklearn.

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
"""Inverse regularisation strengths (scikit-learn's C) that are tried; the best cross-validated AUROC wins."""

FOLDS = 5
FLAG_RATIO = 5.0
"""A flag may be wrong this many times as often as a stop."""

LEAST_OF_A_KIND = 2 * FOLDS


@dataclass(frozen=True, slots=True)
class Fit:
    """One step's row of a probe, calibrated; ``auroc`` is cross-validated on the rows that it was fitted on."""

    weight: NDArray[np.float32]  # [F]
    bias: float
    auroc: float
    strength: float


def is_held_out(prompt: str, share: float) -> bool:
    """Whether a prompt belongs to the held-out part: decided by its words alone, so equal prompts lie on one side."""
    words = " ".join(prompt.lower().split())
    return int(hashlib.sha256(words.encode()).hexdigest()[:8], 16) < share * (1 << 32)


def check_labels(labels: Sequence[bool], part: str) -> None:
    """Raise InputError unless there are enough prompts of both kinds."""
    least = min(sum(labels), len(labels) - sum(labels))
    if least < LEAST_OF_A_KIND:
        raise InputError(
            f"the {part} prompts are too few: {least} of one kind",
            remedy=f"Give at least {LEAST_OF_A_KIND} with label 1 and as many with label 0; some hundred are better.",
        )


def fit(features: NDArray[np.float32], labels: NDArray[np.bool_], false_stops: float) -> Fit:
    """Fit float32 [N, F] features to labels [N]; STOP_SCORE is reached by ``false_stops`` of the label-0 rows.

    Of rows that a fold did not see, that is; FLAG_SCORE by FLAG_RATIO times as many.
    """
    from sklearn.metrics import roc_auc_score

    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 1e-6, scale, np.inf)  # what never changes says nothing
    scaled = ((features - mean) / scale).astype(np.float64)
    tried = [(strength, _unseen(scaled, labels, strength)) for strength in STRENGTHS]
    strength, unseen = max(tried, key=lambda t: float(roc_auc_score(labels, t[1])))
    slope, shift = _calibrate(unseen[~labels], false_stops)
    model = _logistic(strength).fit(scaled, labels)
    weight = slope * model.coef_[0] / scale
    bias = slope * float(model.intercept_[0]) + shift - float(weight @ mean)
    return Fit(weight.astype(np.float32), bias, float(roc_auc_score(labels, unseen)), strength)


def _logistic(strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, class_weight="balanced", max_iter=2000)


def _unseen(scaled: NDArray[np.float64], labels: NDArray[np.bool_], strength: float) -> NDArray[np.float64]:
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    found = cross_val_predict(_logistic(strength), scaled, labels, cv=folds, method="decision_function")
    return np.asarray(found, dtype=np.float64)


def _calibrate(benign: NDArray[np.float64], false_stops: float) -> tuple[float, float]:
    """Return (slope, shift) so that sigmoid(slope z + shift) meets the rates above on unseen rows of label 0."""
    high = float(np.quantile(benign, 1 - false_stops))
    low = min(float(np.quantile(benign, 1 - min(FLAG_RATIO * false_stops, 0.5))), high - 0.1)
    logit_low, logit_high = (float(np.log(p / (1 - p))) for p in (FLAG_SCORE, STOP_SCORE))
    slope = (logit_high - logit_low) / (high - low)
    return slope, logit_high - slope * high


def figures(scores: NDArray[np.float64], labels: NDArray[np.bool_], threshold: float) -> dict[str, float | int]:
    """Return AUROC, the share of label-1 rows that are stopped, and of label-0 rows, at ``threshold``."""
    from sklearn.metrics import roc_auc_score

    return {
        "prompts": len(labels),
        "with_concept": int(labels.sum()),
        "auroc": round(float(roc_auc_score(labels, scores)), 4),
        "stopped": round(float((scores[labels] >= threshold).mean()), 4),
        "false_stops": round(float((scores[~labels] >= threshold).mean()), 4),
    }
