"""The classifier's weights: a regularised logistic regression whose every number can be read."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy

from safegen.errors import DetectorError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODEL_ID = "forensic-v1"
WEIGHTS = Path(__file__).parent / "weights"
CLIP = 4.0
"""Standardised features beyond this many deviations count as this many: one wild statistic must not decide alone."""

_VECTORS = ("mean", "scale", "coef", "low", "high")
_SCALARS = ("intercept", "calibration_slope", "calibration_offset", "camera_below", "ai_above", "outside_limit")


@dataclass(frozen=True, slots=True)
class Model:
    """Weights of ``forensic-v1``. Vectors are float64 [F], one value per feature in ``names``."""

    names: tuple[str, ...]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    coef: NDArray[np.float64]
    low: NDArray[np.float64]  # the range of each feature in training, 0.5 to 99.5 %
    high: NDArray[np.float64]
    intercept: float
    calibration_slope: float  # probability = sigmoid(slope * logit + offset)
    calibration_offset: float
    camera_below: float  # probabilities between these two are inconclusive
    ai_above: float
    outside_limit: float  # largest share of features that may lie outside their range
    sha256: str = ""

    def standardise(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return features [..., F] in training deviations, limited to +-CLIP."""
        return np.asarray(np.clip((x - self.mean) / self.scale, -CLIP, CLIP))

    def logit(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the uncalibrated log-odds of "generated" for features [..., F]."""
        return np.asarray(self.standardise(x) @ self.coef + self.intercept)

    def outside(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the share of features [..., F] that lie outside what training saw."""
        return np.asarray(((x < self.low) | (x > self.high)).mean(axis=-1))

    def calibrate(self, logit: float) -> float:
        """Turn a clip's mean logit into a probability, for equal shares of camera and generated clips."""
        return float(1.0 / (1.0 + np.exp(-np.clip(self.calibration_slope * logit + self.calibration_offset, -30, 30))))


def save(model: Model, folder: Path, card: dict[str, Any]) -> str:
    """Write ``forensic-v1.safetensors`` and a JSON file with names, ``card`` and digest; return the digest."""
    tensors = {name: np.asarray(getattr(model, name), dtype=np.float64) for name in (*_VECTORS, *_SCALARS)}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{MODEL_ID}.safetensors"
    path.write_bytes(safetensors.numpy.save(tensors))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    text = {"model_id": MODEL_ID, "weights_sha256": digest, "features": list(model.names), **card}
    (folder / f"{MODEL_ID}.json").write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")
    return digest


@cache
def load(folder: Path = WEIGHTS) -> Model:
    """Read the weights and check them against the digest in the JSON beside them.

    Raises:
        DetectorError: a file is missing or malformed, or the digest differs.
    """
    remedy = "Reinstall safegen: the detector's weights are part of the package."
    try:
        data = (folder / f"{MODEL_ID}.safetensors").read_bytes()
        card = json.loads((folder / f"{MODEL_ID}.json").read_text(encoding="utf-8"))
        digest = hashlib.sha256(data).hexdigest()
        if card["weights_sha256"] != digest:
            raise DetectorError("the detector's weights do not match their digest", remedy=remedy)
        tensors = safetensors.numpy.load(data)
        names = tuple(str(name) for name in card["features"])
        parts: dict[str, Any] = {name: np.asarray(tensors[name], dtype=np.float64) for name in _VECTORS}
        if any(vector.shape != (len(names),) for vector in parts.values()):
            raise DetectorError("the detector's weights do not fit their feature names", remedy=remedy)
        parts |= {name: float(tensors[name]) for name in _SCALARS}
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise DetectorError(f"the detector's weights cannot be read: {error}", remedy=remedy) from error
    return Model(names=names, sha256=digest, **parts)
