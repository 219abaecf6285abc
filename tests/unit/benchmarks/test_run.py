"""The benchmark's run: it continues where it stopped, counts what it should, and names what it could not do."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.watermark import edits, plots, report, run
from benchmarks.watermark.schemes import Reading, content_id, to_bits
from benchmarks.watermark.store import Lines
from safegen.errors import WatermarkError

SHAPE = (4, 160, 160, 3)


class Studio:
    """Draws textures instead of loading a model."""

    fps = 16.0

    def __init__(self, model: str) -> None:
        self.model = model
        self.twins: Callable[[int], np.ndarray] = lambda seed: self.draw(seed)[0]
        self.drawn: list[int] = []

    def draw(self, seed: int) -> tuple[np.ndarray, dict[str, float]]:
        self.drawn.append(seed)
        return edits.background(SHAPE, np.random.default_rng(seed)), {"wall_s": 2.0, "cpu_s": 2.0, "peak_mb": 8.0}

    def encode_costs(self, frames: np.ndarray) -> dict[str, float]:
        return {"wall_s": 0.5, "cpu_s": 0.5, "peak_mb": 4.0}


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    monkeypatch.setattr(run, "Studio", Studio)
    given = {"work": tmp_path, "out": tmp_path, "clips": 3, "peer_clips": 3, "first_seed": 5, "null": 2}
    chosen = {"schemes": ["pixel", "dwtDct"], "lists": ["temporal"], "model": "drawn", "redraw": False}
    return argparse.Namespace(**given, **chosen, other_vae=None, minutes=10.0, accept_older=False)


@pytest.mark.slow
def test_a_run_continues_and_reports(options: argparse.Namespace, tmp_path: Path) -> None:
    options.minutes = 0.0
    assert not run.Bench(options).work()
    options.minutes = 10.0
    bench = run.Bench(options)
    assert bench.work()
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert len(lines) == 20 * (3 + 3)
    results = bench.results()
    pixel = results["schemes"]["pixel"]
    assert pixel["attacks"]["identity"]["exact"] == 1
    assert pixel["attacks"]["reverse"] | {"exact": 1.0, "tpr": 1.0, "n": 3} == pixel["attacks"]["reverse"]
    assert pixel["null"]["unmarked"]["verified"] == pixel["null"]["wrong_key"]["verified"] == 0
    assert pixel["null"]["foreign"]["trials"] == 2
    assert set(results["schemes"]["dwtDct"]["null"]) == {"unmarked", "foreign"}
    assert 30 < pixel["quality"]["psnr_db"] < 60
    assert 0 < pixel["costs"]["embed_to_generation"]["wall_s"] < 1
    text = report.markdown(results)
    assert "| identity | identity | 100.0 / 100.0 / 100.0 |" in text
    plots.write(results, tmp_path)
    assert (tmp_path / "benchmark-families.png").stat().st_size > 1000

    again = run.Bench(options)
    assert again.work()
    assert (tmp_path / "rows.jsonl").read_text().splitlines() == lines, "nothing is done twice"
    assert again.studio.drawn == []


@pytest.mark.slow
def test_results_of_another_reader_are_made_again(options: argparse.Namespace, tmp_path: Path) -> None:
    options.clips, options.null, options.schemes = 1, 0, ["pixel"]
    assert run.Bench(options).work()
    bench = run.Bench(options)
    bench.code = {"pixel": "another reader"}
    assert bench.results()["schemes"]["pixel"]["attacks"] == {}
    assert bench.work()
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 40
    assert len(bench.store.rows.rows) == 20
    options.accept_older = True
    older = run.Bench(options)
    older.code = {"pixel": "a third reader"}
    assert len(older.results()["schemes"]["pixel"]["attacks"]) == 20


def test_what_cannot_run_is_named(options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_name: str, _studio: object) -> None:
        raise FileNotFoundError("the installed library brings no weights")

    options.clips, options.null, options.lists, options.schemes = 1, 0, ["ours"], ["pixel"]
    bench = run.Bench(options)
    bench.attacks = tuple(a for a in bench.attacks if a.name in ("identity", "other_vae", "averaged_2"))
    assert bench.work()
    assert set(bench.missing) == {"other_vae", "averaged_2"}
    assert "- other_vae: needs another VAE" in report.markdown(bench.results())
    monkeypatch.setattr(run, "make_scheme", missing)
    assert "no weights" in run.Bench(options).missing["pixel"]


def test_a_reader_that_fails_has_found_nothing(options: argparse.Namespace) -> None:
    class Failing:
        def read(self, frames: np.ndarray, key: bytes) -> Reading:
            raise WatermarkError("the frames are too small")

    found, notes = run.read(Failing(), np.zeros(SHAPE, np.uint8))  # type: ignore[arg-type]
    assert "too small" in notes["error"]
    judged = found.judged(content_id(1))
    assert (judged["exact"], judged["verified"], judged["bit_accuracy"]) == (False, False, 0.5)


def test_judging() -> None:
    truth, other = content_id(1), content_id(2)
    assert Reading(truth, "verified").judged(truth)["exact"]
    assert not Reading(other, "verified").judged(truth)["exact"]
    assert Reading(other, "verified", segments=(other, truth)).judged(truth)["exact"]
    short = truth[:8]
    bits = to_bits(short)
    bits[[0, 9]] ^= 1
    two_wrong = Reading(np.packbits(bits).tobytes().hex(), "").judged(short)
    assert (two_wrong["exact"], two_wrong["verified"], two_wrong["bit_accuracy"]) == (False, True, 30 / 32)
    bits[20] ^= 1
    assert not Reading(np.packbits(bits).tobytes().hex(), "").judged(short)["verified"]


def test_a_line_cut_short_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"seed": 1, "code": "a"}) + '\n{"seed": 2, "co')
    lines = Lines(path, ("seed",))
    assert lines.has(1, code="a")
    assert not lines.has(1, code="b")
    lines.add({"seed": 2, "code": "a"})
    assert [r["seed"] for r in map(json.loads, path.read_text().splitlines())] == [1, 2]


def test_wilson_interval() -> None:
    assert report.interval(0, 100) == [0.0, 0.037]
    low, high = report.interval(95, 100)
    assert 0.88 < low < 0.95 < high < 0.98
