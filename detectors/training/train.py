"""Train ``forensic-v1``: ``python -m safegen.detectors.training.train --data <folder>`` (needs the ``train`` extra).

Measures the clips, cross-validates by origin, calibrates on held-out scores, chooses the abstention band, fits the
final model on everything, and writes weights and report. The same features give the same weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from safegen.detectors.forensic import MAX_PROBABILITY
from safegen.detectors.model import MODEL_ID, WEIGHTS, Model, save
from safegen.detectors.training import dataset
from safegen.detectors.training.dataset import Features
from safegen.detectors.training.evaluation import (
    TARGET_RATE,
    HeldOut,
    hold_out_pairs,
    merged_groups,
    stack,
    summary,
    weights,
)
from safegen.errors import SafegenError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from safegen.detectors.training.evaluation import Scorer, Vector

# Imported where they are used: sklearn.

REGULARISATION = 0.03
_FLOOR_REGULARISATION = 1.0  # two numbers need no restraint: the floor is not to look lower than it is
_RANGE = (0.005, 0.995)
_OUTSIDE_QUANTILE = 0.975


def fit(
    x: Vector,
    fake: NDArray[np.bool_],
    weight: Vector,
    names: tuple[str, ...] = (),
    regularisation: float = REGULARISATION,
) -> Model:
    """Fit the uncalibrated model on features [N, F]; ``regularisation`` is scikit-learn's C, smaller is stronger."""
    from sklearn.linear_model import LogisticRegression

    low, high = np.quantile(x, _RANGE, axis=0)
    blank = Model(
        names=names, mean=x.mean(axis=0), scale=x.std(axis=0) + 1e-6, coef=np.zeros(x.shape[1]), low=low, high=high,
        intercept=0.0, calibration_slope=1.0, calibration_offset=0.0, camera_below=0.0, ai_above=1.0,
        outside_limit=1.0,
    )  # fmt: skip
    lr = LogisticRegression(C=regularisation, max_iter=2000).fit(blank.standardise(x), fake, sample_weight=weight)
    return _with(blank, coef=lr.coef_[0].astype(np.float64), intercept=float(lr.intercept_[0]))


def _with(model: Model, **changes: Any) -> Model:
    return dataclasses.replace(model, **changes)


def _scorer(x: Vector, fake: NDArray[np.bool_], weight: Vector) -> Scorer:
    return fit(x, fake, weight).logit


def _floor_scorer(x: Vector, fake: NDArray[np.bool_], weight: Vector) -> Scorer:
    return fit(x, fake, weight, regularisation=_FLOOR_REGULARISATION).logit


def _outside(x: Vector, fake: NDArray[np.bool_], weight: Vector) -> Scorer:
    return fit(x, fake, weight).outside


def calibrate(held: HeldOut) -> tuple[float, float]:
    """Platt's slope and offset on held-out scores of all variants, both classes weighing alike."""
    from sklearn.linear_model import LogisticRegression

    fake = np.tile(held.fake, held.scores.shape[1])
    weight = np.where(fake, 0.5 / fake.mean(), 0.5 / (~fake).mean())
    lr = LogisticRegression(C=1e6).fit(held.scores.T.reshape(-1, 1), fake, sample_weight=weight)
    return float(lr.coef_[0, 0]), float(lr.intercept_[0])


def train(data: Features) -> tuple[Model, dict[str, Any]]:
    """Return the final model and the report of its cross-validation."""
    held = hold_out_pairs(data.x, data, _scorer)
    size = np.repeat(np.log(data.size)[:, None, :], data.x.shape[1], axis=1)
    floor = hold_out_pairs(size, data, _floor_scorer)
    outside = hold_out_pairs(data.x, data, _outside)
    group = merged_groups(data)
    weight = weights(data.clip, data.fake, group)
    copies = data.x.shape[1]
    model = fit(stack(data.x), np.tile(data.fake, copies), np.tile(weight, copies), data.names)
    slope, offset = calibrate(held)
    model = _with(model, calibration_slope=slope, calibration_offset=offset)
    p = np.clip([[model.calibrate(s) for s in row] for row in held.scores], 1 - MAX_PROBABILITY, MAX_PROBABILITY)
    ai_above = float(np.quantile(p[~held.fake], 1 - TARGET_RATE))
    camera_below = float(np.quantile(p[held.fake], TARGET_RATE))
    if camera_below > ai_above:  # so far apart that no band is needed to keep both error rates
        camera_below = ai_above = (camera_below + ai_above) / 2
    model = _with(
        model,
        ai_above=ai_above,
        camera_below=camera_below,
        outside_limit=float(np.quantile(outside.scores, _OUTSIDE_QUANTILE)),
    )
    return model, _report(held, floor, outside, p, model)


def _report(held: HeldOut, floor: HeldOut, outside: HeldOut, p: Vector, model: Model) -> dict[str, Any]:
    judged = (p >= model.ai_above) | (p <= model.camera_below)
    judged &= outside.scores <= model.outside_limit
    right = (p >= model.ai_above) == held.fake[:, None]
    table = {
        f"{'generated' if held.fake[held.source == name][0] else 'camera'}: {name}": {
            "clips": int((held.source == name).sum()),
            "mean_probability": round(float(p[held.source == name, 0].mean()), 3),
            "likely_ai": round(float((judged & (p >= model.ai_above))[held.source == name, 0].mean()), 3),
            "likely_camera": round(float((judged & (p <= model.camera_below))[held.source == name, 0].mean()), 3),
        }
        for name in np.unique(held.source)
    }
    weight = np.where(held.fake, 0.5 / held.fake.mean(), 0.5 / (~held.fake).mean())[:, None] * np.ones_like(p)
    return {
        "clips": {"camera": int((~held.fake).sum()), "generated": int(held.fake.sum())},
        "protocol": "one camera origin and one generated origin held out together, every pair; clip scores averaged",
        "by_variant": summary(held, floor),
        "auroc_by_pair_plain": {f"{a} / {b}": round(areas[0], 3) for (a, b), areas in held.pairs.items()},
        "calibration": {
            "ece_10_bins_balanced": round(_ece(p.ravel(), np.repeat(held.fake, p.shape[1]), weight.ravel()), 3),
            "brier_balanced": round(float(np.average((p - held.fake[:, None]) ** 2, weights=weight)), 3),
        },
        "band": {
            "camera_below": round(model.camera_below, 3),
            "ai_above": round(model.ai_above, 3),
            "coverage_camera": round(float(judged[~held.fake].mean()), 3),
            "coverage_generated": round(float(judged[held.fake].mean()), 3),
            "accuracy_where_judged_balanced": round(float(np.average(right[judged], weights=weight[judged])), 3),
            "camera_called_ai": round(float((judged & (p >= model.ai_above))[~held.fake].mean()), 3),
            "generated_called_camera": round(float((judged & (p <= model.camera_below))[held.fake].mean()), 3),
            "note": "thresholds were chosen on these same held-out scores",
        },
        "by_source_plain": table,
    }


def _ece(p: Vector, fake: NDArray[np.bool_], weight: Vector) -> float:
    bins = np.minimum((p * 10).astype(int), 9)
    gaps = [
        weight[bins == b].sum()
        * abs(
            np.average(p[bins == b], weights=weight[bins == b]) - np.average(fake[bins == b], weights=weight[bins == b])
        )
        for b in np.unique(bins)
    ]
    return float(np.sum(gaps) / weight.sum())


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m safegen.detectors.training.train", description="Train forensic-v1."
    )
    parser.add_argument("--data", type=Path, required=True, help=f"folder with {dataset.TABLE} and the media it names")
    parser.add_argument("--cache", type=Path, help="keep measured features in this .npz, or take them from it")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="where the weights go")
    parser.add_argument("--report", type=Path, help="where the report goes, as JSON")
    args = parser.parse_args(argv)
    try:
        if args.cache and args.cache.exists():
            data = dataset.load(args.cache)
        else:
            data = dataset.collect(dataset.read_table(args.data))
            if args.cache:
                dataset.save(data, args.cache)
        model, report = train(data)
        sources = {key: entry["clips"] for key, entry in report["by_source_plain"].items()}
        digest = save(model, args.out, {"trained_on": sources, "regularisation": REGULARISATION})
    except SafegenError as error:
        sys.stderr.write(f"{error.diagnostics()}\n")
        return error.exit_code
    report = {"model_id": MODEL_ID, "weights_sha256": digest, **report}
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    if args.report:
        args.report.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
