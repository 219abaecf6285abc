"""forensic-v1: abstention, limits of what it claims, integrity of its weights, training from features."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from safegen import detectors
from safegen.detectors import forensic, model
from safegen.detectors.training.dataset import Features
from safegen.errors import DetectorError

Frames = NDArray[np.uint8]


@pytest.fixture
def moving() -> Frames:
    """A drifting, softly noisy scene, 24 frames of 192x192: nothing about it forces an abstention but its look."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[0:192, 0:192]
    base = [128 + 50 * np.sin((x + 2 * t) / 21) + 40 * np.cos((y + t) / 13) for t in range(24)]
    return np.stack([np.clip(b[..., None] + rng.normal(0, 2, (192, 192, 3)), 0, 255) for b in base]).astype(np.uint8)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    for file in model.WEIGHTS.glob("forensic-v1.*"):
        shutil.copy(file, tmp_path)
    return tmp_path


def lenient(monkeypatch: pytest.MonkeyPatch, **changes: float) -> None:
    changed = dataclasses.replace(model.load(), outside_limit=1.0, **changes)
    monkeypatch.setattr(forensic, "load", lambda: changed)


def test_score_is_deterministic_and_names_its_weights(moving: Frames) -> None:
    first = detectors.score(moving, 16)
    assert first == detectors.score(moving.copy(), 16)
    card = json.loads((model.WEIGHTS / "forensic-v1.json").read_text())
    assert (first.model_id, first.weights_sha256) == ("forensic-v1", card["weights_sha256"])
    assert first.reasons


@pytest.mark.parametrize("offset", [-100.0, 100.0])
def test_probability_is_never_extreme(moving: Frames, monkeypatch: pytest.MonkeyPatch, offset: float) -> None:
    lenient(monkeypatch, calibration_offset=offset)
    result = detectors.score(moving, 16)
    assert result.probability == pytest.approx(0.95 if offset > 0 else 0.05)
    assert result.label == ("signs_of_ai" if offset > 0 else "no_statement")


def test_below_the_threshold_it_says_nothing(moving: Frames, monkeypatch: pytest.MonkeyPatch) -> None:
    lenient(monkeypatch, calibration_slope=0.0, calibration_offset=0.0)
    result = detectors.score(moving, 16)
    assert (result.label, result.probability) == ("no_statement", 0.5)
    assert "below" in result.reasons[0]


def test_judgement_follows_the_evidence(moving: Frames, monkeypatch: pytest.MonkeyPatch) -> None:
    lenient(monkeypatch, ai_above=0.0)
    result = detectors.score(moving, 16)
    assert result.label == "signs_of_ai"
    assert "weighs" in result.reasons[0]


@pytest.mark.parametrize(
    ("change", "fps", "why"),
    [
        pytest.param(lambda f: f[:1], 0, "only 1 frames", id="still"),
        pytest.param(lambda f: f[:7], 8, "only 7 frames", id="seven_frames"),
        pytest.param(lambda f: f[:12], 60, "only 2 frames", id="too_short_in_time"),
        pytest.param(lambda f: f, 4, "frame rate", id="slow"),
        pytest.param(lambda f: f[:, :150], 16, "150 pixels", id="small"),
        pytest.param(lambda f: np.repeat(f[:1], 24, axis=0), 16, "hardly moves", id="frozen"),
        pytest.param(lambda f: np.zeros_like(f), 16, "hardly moves", id="black"),
    ],
)
def test_what_cannot_be_judged_is_not(moving: Frames, monkeypatch: pytest.MonkeyPatch, change, fps, why) -> None:  # type: ignore[no-untyped-def]
    lenient(monkeypatch, calibration_offset=100.0)  # would otherwise call everything generated
    result = detectors.score(change(moving), fps)
    assert (result.label, result.probability) == ("no_statement", 0.5)
    assert any(why in reason for reason in result.reasons)


def test_clip_unlike_training_is_not_judged() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (24, 224, 224, 3), dtype=np.uint8)
    result = detectors.score(noise, 16)
    assert (result.label, result.probability) == ("no_statement", 0.5)
    assert "outside" in result.reasons[0]


@pytest.mark.parametrize("fps", [-1.0, float("nan"), float("inf")])
def test_bad_rate_is_refused(moving: Frames, fps: float) -> None:
    with pytest.raises(DetectorError):
        detectors.score(moving, fps)


def test_altered_weights_are_refused(weights: Path) -> None:
    path = weights / "forensic-v1.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DetectorError, match="digest"):
        model.load(weights)


def test_missing_weights_are_refused(weights: Path) -> None:
    (weights / "forensic-v1.safetensors").unlink()
    with pytest.raises(DetectorError, match="cannot be read"):
        model.load(weights)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"weights_sha256": 1}'])
def test_malformed_card_is_refused(weights: Path, text: str) -> None:
    (weights / "forensic-v1.json").write_text(text)
    with pytest.raises(DetectorError):
        model.load(weights)


def test_malformed_tensors_with_matching_digest_are_refused(weights: Path) -> None:
    import hashlib

    (weights / "forensic-v1.safetensors").write_bytes(b"not tensors")
    card = json.loads((weights / "forensic-v1.json").read_text())
    card["weights_sha256"] = hashlib.sha256(b"not tensors").hexdigest()
    (weights / "forensic-v1.json").write_text(json.dumps(card))
    with pytest.raises(DetectorError, match="cannot be read"):
        model.load(weights)


def separable(shift: float) -> Features:
    """Features of made-up clips from 4 origins per class; ``shift`` apart in one feature, origins apart in another."""
    rng = np.random.default_rng(0)
    fake = np.repeat([False, True], 80)
    group = np.array([f"{'g' if f else 'c'}{i % 4}" for i, f in enumerate(fake)])
    x = rng.normal(size=(160, 3, 3))
    x[:, :, 0] += shift * fake[:, None]
    x[:, :, 1] += 0.3 * (np.arange(160) % 4)[:, None]
    size = np.exp(rng.normal(size=(160, 2)))
    return Features(("a", "b", "c"), x, size, np.arange(160), fake, group, group)


@pytest.mark.slow
def test_training_finds_a_real_difference_and_saves_what_it_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn")
    from safegen.detectors.training import evaluation, train

    monkeypatch.setattr(evaluation, "_BOOTSTRAPS", 20)
    trained, report = train.train(separable(4.0))
    assert report["by_variant"]["plain"]["auroc"]["value"] > 0.95
    assert report["by_variant"]["plain"]["auroc_bitrate_floor"]["value"] < 0.75
    assert np.argmax(np.abs(trained.coef)) == 0
    assert report["band"]["camera_called_ai"] <= 0.06
    digest = model.save(trained, tmp_path, {})
    back = model.load(tmp_path)
    assert back.sha256 == digest
    assert np.array_equal(back.coef, trained.coef)
    assert back.ai_above == trained.ai_above


@pytest.mark.slow
def test_training_reports_chance_where_there_is_nothing() -> None:
    pytest.importorskip("sklearn")
    from safegen.detectors.training.evaluation import hold_out_pairs
    from safegen.detectors.training.train import fit

    data = separable(0.0)
    held = hold_out_pairs(data.x, data, lambda x, y, w: fit(x, y, w).logit)
    assert 0.3 < np.mean([areas[0] for areas in held.pairs.values()]) < 0.7


def test_training_command_on_a_bad_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safegen.detectors.training import train

    assert train.main(["--data", str(tmp_path)]) == 4
    assert "DEV.tsv" in capsys.readouterr().err


def test_shipped_report_and_weights_belong_together() -> None:
    report = Path(__file__).parents[3] / "benchmarks" / "detector" / "results" / "forensic-v1.json"
    assert json.loads(report.read_text())["weights_sha256"] == model.load().sha256


@pytest.mark.slow
def test_shared_clips_are_ordered(shared_data: Path) -> None:
    """On clips that it was trained on, generated ones score higher: a check of the wiring, not of its worth."""
    from safegen.detectors.training.dataset import read_video

    with (shared_data / "detector" / "DEV.tsv").open() as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["kind"] == "video"]
    raw = {
        label: [
            detectors.score(*read_video(shared_data / "detector" / row["path"])).raw
            for row in [r for r in rows if r["label"] == label][::28]
        ]
        for label in ("real", "fake")
    }
    assert np.median(raw["fake"]) > np.median(raw["real"])
