"""A mark carried from one clip to another one, and edits that must not be taken for that."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import safegen
from safegen.generation.request import Generated
from safegen.generators import load, resolve, sample
from safegen.keys import KeyStore
from safegen.ledger import Ledger
from safegen.media import encode_video, read_clip
from safegen.settings import Home
from safegen.types import Finding, Verdict
from tests.e2e.conftest import ffmpeg

CALL = {
    "height": 192,
    "width": 192,
    "num_frames": 25,
    "num_inference_steps": 6,
    "guidance_scale": 3.0,
    "max_sequence_length": 64,
}
ONE, OTHER = "a red cube standing on snow under a clear blue sky", "a yellow ball bouncing on green grass at night"


@pytest.fixture(scope="module")
def pipe() -> Any:
    return load(resolve("tiny"))


@pytest.fixture(scope="module")
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    KeyStore.init(home)
    return home


@pytest.fixture(scope="module")
def one(pipe: Any, own_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Generated:
    safe = safegen.protect(pipe, home=own_home)
    return safe(ONE, output=tmp_path_factory.mktemp("clips") / "one.mp4", seed=5, **CALL)


@pytest.fixture(scope="module")
def foreign(pipe: Any) -> NDArray[np.uint8]:
    """What somebody else made with the same model, unmarked."""
    return sample(pipe, dict(CALL), prompt=OTHER, seed=11)


def mark_of(verdict: Verdict) -> Finding:
    return next(f for f in verdict.findings if f.basis == "watermark")


def assert_copied(verdict: Verdict, one: Generated) -> None:
    finding = mark_of(verdict)
    assert (verdict.verdict, verdict.content_id) == ("tampered", one.content_id)
    assert (finding.status, finding.evidence["status"]) == ("fail", "copied")
    assert one.content_id in finding.summary
    pictures: Any = finding.evidence["pictures"]
    assert pictures["same"] is False
    assert {"luma", "chroma", "seen"} <= pictures.keys()


def test_the_ledger_holds_the_fingerprint_of_what_was_released(one: Generated, own_home: Home) -> None:
    from safegen.watermark.fingerprint.fingerprint import Fingerprint, fingerprint

    with Ledger.open(own_home.ledger_url, create=False, read_only=True) as ledger:
        body = ledger.get(one.entry).body
    assert Fingerprint.from_hex(body["mark"]["fingerprint"]) == fingerprint(read_clip(one.output).frames)


def test_a_mark_copied_by_the_difference_to_the_unmarked_twin_is_found_out(
    pipe: Any, one: Generated, foreign: NDArray[np.uint8], own_home: Home, tmp_path: Path
) -> None:
    twin = sample(pipe, dict(CALL), prompt=ONE, seed=5)
    mark = read_clip(one.output).frames.astype(float) - twin
    forged = tmp_path / "forged.mp4"
    encode_video(np.clip(np.rint(foreign + mark), 0, 255).astype(np.uint8), 16, forged)
    assert_copied(safegen.verify(forged, home=own_home), one)


def test_a_mark_copied_without_the_twin_is_found_out(
    one: Generated, foreign: NDArray[np.uint8], own_home: Home, tmp_path: Path
) -> None:
    frames = read_clip(one.output).frames.astype(float)
    still = np.repeat(np.median(foreign, axis=0)[None], len(foreign), axis=0)
    forged = tmp_path / "forged.mp4"
    encode_video(np.clip(np.rint(still + frames - frames.mean(axis=0)), 0, 255).astype(np.uint8), 16, forged)
    assert_copied(safegen.verify(forged, home=own_home), one)


EDITS = {
    "reencoded_crf30": ("-crf", "30"),
    "cropped": ("-vf", "crop=160:160:20:12"),
    "letterboxed": ("-vf", "pad=192:256:0:32"),
    "mirrored": ("-vf", "hflip"),
    "darker_and_paler": ("-vf", "eq=brightness=-0.15:saturation=0.6"),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_clip_is_recovered(name: str, one: Generated, own_home: Home, tmp_path: Path) -> None:
    edited = tmp_path / "edited.mp4"
    ffmpeg("-i", one.output, *EDITS[name], "-pix_fmt", "yuv420p", edited)
    verdict = safegen.verify(edited, home=own_home)
    assert (verdict.verdict, verdict.content_id) == ("recovered", one.content_id)
    pictures: Any = mark_of(verdict).evidence["pictures"]
    assert pictures["same"] is True


def test_a_clip_spliced_with_other_footage_is_recovered(
    one: Generated, foreign: NDArray[np.uint8], own_home: Home, tmp_path: Path
) -> None:
    spliced = tmp_path / "spliced.mp4"
    own = read_clip(one.output).frames
    encode_video(np.concatenate([foreign[:16], own, foreign]), 16, spliced)
    verdict = safegen.verify(spliced, home=own_home)
    assert (verdict.verdict, verdict.content_id) == ("recovered", one.content_id)


def test_an_entry_without_a_fingerprint_verifies_as_before(one: Generated, own_home: Home, tmp_path: Path) -> None:
    """As ledgers hold them that are older than the fingerprint."""
    with Ledger.open(own_home.ledger_url, create=False, read_only=True) as ledger:
        entry = ledger.get(one.entry)
    home = Home(tmp_path / "home")
    shutil.copytree(own_home.keys, home.keys)
    keys, event = KeyStore.load(home), entry.event
    mark = {k: v for k, v in event.body["mark"].items() if k != "fingerprint"}
    with Ledger.open(home.ledger_url, key=keys.ledger_key, origin=keys.ledger_name) as ledger:
        ledger.append(replace(event, body=dict(event.body) | {"mark": mark}))
    verdict = safegen.verify(one.output, home=home)
    assert verdict.verdict == "verified"
    assert mark_of(verdict).evidence["pictures"]["same"] is None
