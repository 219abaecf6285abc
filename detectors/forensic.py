"""``forensic-v1``: judge a clip by its pixel statistics, and abstain wherever they do not bear a judgement."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from safegen.detectors.features import features
from safegen.detectors.model import MODEL_ID, Model, load
from safegen.detectors.normalise import MIN_FRAMES, WINDOW_FPS, check_frames, windows
from safegen.errors import DetectorError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_SIDE = 160
"""Pixels. Smaller pictures are mostly interpolation once brought to 224."""

MIN_FPS = 6.0
"""The training clips are sampled at 8 frames per second; slower ones move further between frames than any of them."""

MIN_CHANGE = 0.3
"""Mean absolute difference between sampled frames, in grey levels of 255: below it there is no motion to judge by."""

MAX_PROBABILITY = 0.95
"""Never claim more: a passive detector meets generators that nobody has measured it on."""

_TOP_REASONS = 3


class Label(StrEnum):
    """What the pixels suggest."""

    SIGNS_OF_AI = "signs_of_ai"
    NO_STATEMENT = "no_statement"


@dataclass(frozen=True, slots=True)
class ForensicScore:
    """The passive detector's answer: a suspicion, never proof.

    ``probability`` is the calibrated probability of "generated" for equal shares of both kinds, within 0.05 to 0.95,
    and 0.5 where a rule forced ``no_statement``. ``raw`` is the uncalibrated log-odds. ``reasons`` are sentences: why
    it abstained, or which statistics weighed most.
    """

    label: Label
    probability: float
    raw: float
    reasons: tuple[str, ...]
    model_id: str
    weights_sha256: str


def score(frames: NDArray[np.uint8], fps: float) -> ForensicScore:
    """Judge decoded frames, uint8 RGB [T, H, W, 3] at ``fps`` frames per second (0 for stills).

    Raises:
        DetectorError: wrong shape, dtype or fps, or the weights are missing or altered.
    """
    check_frames(frames)
    if not (math.isfinite(fps) and fps >= 0):
        raise DetectorError(f"fps must be a number of 0 or more, not {fps}")
    model = load()
    parts = windows(frames, fps)
    vectors = [features(part) for part in parts]
    x = np.array([[vector[name] for name in model.names] for vector in vectors])
    raw = float(model.logit(x).mean())
    abstentions = _abstentions(frames.shape, fps, parts, float(model.outside(x).mean()), model)
    if abstentions:
        return ForensicScore(Label.NO_STATEMENT, 0.5, raw, abstentions, MODEL_ID, model.sha256)
    probability = min(MAX_PROBABILITY, max(1.0 - MAX_PROBABILITY, model.calibrate(raw)))
    label, reasons = _judge(probability, x.mean(axis=0), model)
    return ForensicScore(label, probability, raw, reasons, MODEL_ID, model.sha256)


def _abstentions(
    shape: tuple[int, ...], fps: float, parts: list[NDArray[np.uint8]], outside: float, model: Model
) -> tuple[str, ...]:
    """Return why this clip cannot be judged; empty where it can."""
    reasons = []
    if len(parts[0]) < MIN_FRAMES:
        reasons.append(f"only {len(parts[0])} frames at {WINDOW_FPS:.0f} per second; {MIN_FRAMES} are needed")
    elif fps < MIN_FPS:
        reasons.append(f"the frame rate is {fps:g}; below {MIN_FPS:g} motion cannot be compared")
    if min(shape[1:3]) < MIN_SIDE:
        reasons.append(f"the shorter side has {min(shape[1:3])} pixels; {MIN_SIDE} are needed")
    changes = [np.abs(np.diff(part.astype(np.int16), axis=0)).mean() for part in parts if len(part) > 1]
    if changes and float(np.mean(changes)) < MIN_CHANGE:
        reasons.append("the clip hardly moves")
    if outside > model.outside_limit:
        reasons.append(f"{outside:.0%} of its statistics lie outside what the detector was trained on")
    return tuple(reasons)


def _judge(probability: float, x: NDArray[np.float64], model: Model) -> tuple[Label, tuple[str, ...]]:
    share = model.standardise(x) * model.coef
    if probability < model.ai_above:  # a low score says as little: on other sources it fits both kinds alike
        return Label.NO_STATEMENT, (f"the score {probability:.2f} lies below {model.ai_above:.2f}",)
    top = np.argsort(share)[::-1][:_TOP_REASONS]
    return Label.SIGNS_OF_AI, tuple(f"{model.names[i]} weighs {share[i]:.2f} towards this" for i in top if share[i] > 0)
