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


def assert_not_taken_for(verdict: Verdict, one: Generated, *, copied: bool = False) -> None:
    """``copied``: it is so plain that it must be said. Scenes of few forms may be left open; they never pass."""
    finding = mark_of(verdict)
    pictures: Any = finding.evidence["pictures"]
    assert (pictures["same"] is True, pictures["whole"], verdict.content_id) == (False, False, one.content_id)
    assert one.content_id in finding.summary
    if copied or pictures["same"] is False:
        assert (verdict.verdict, finding.status, finding.evidence["status"]) == ("tampered", "fail", "copied")
        assert pictures["unexplained"] > 0.3
    else:
        assert (verdict.verdict, finding.evidence["status"]) == ("inconclusive", "uncompared")


def test_the_home_keeps_the_pictures_of_what_was_released_and_the_ledger_their_hash(
    one: Generated, own_home: Home
) -> None:
    from safegen.provenance.kept_manifests import load_pictures
    from safegen.watermark.fingerprint.kept_pictures import KeptPictures, sha256
    from safegen.watermark.fingerprint.shown import watch

    kept = KeptPictures.of(watch(read_clip(one.output).frames, 16)).to_bytes()
    with Ledger.open(own_home.ledger_url, create=False, read_only=True) as ledger:
        body = ledger.get(one.entry).body
    assert load_pictures(own_home, one.content_id) == kept
    assert body["mark"]["pictures"] == sha256(kept)
    assert "fingerprint" not in body["mark"], "what is kept of the pictures can be erased; what the leaf holds cannot"


def test_a_mark_copied_by_the_difference_to_the_unmarked_twin_is_found_out(
    pipe: Any, one: Generated, foreign: NDArray[np.uint8], own_home: Home, tmp_path: Path
) -> None:
    twin = sample(pipe, dict(CALL), prompt=ONE, seed=5)
    mark = read_clip(one.output).frames.astype(float) - twin
    forged = tmp_path / "forged.mp4"
    encode_video(np.clip(np.rint(foreign + mark), 0, 255).astype(np.uint8), 16, forged)
    assert_not_taken_for(safegen.verify(forged, home=own_home), one)


def test_a_mark_copied_without_the_twin_is_found_out(
    one: Generated, foreign: NDArray[np.uint8], own_home: Home, tmp_path: Path
) -> None:
    frames = read_clip(one.output).frames.astype(float)
    still = np.repeat(np.median(foreign, axis=0)[None], len(foreign), axis=0)
    forged = tmp_path / "forged.mp4"
    encode_video(np.clip(np.rint(still + frames - frames.mean(axis=0)), 0, 255).astype(np.uint8), 16, forged)
    assert_not_taken_for(safegen.verify(forged, home=own_home), one)


def test_a_mark_transplanted_onto_footage_with_the_clip_s_own_layout_is_found_out(
    one: Generated, foreign: NDArray[np.uint8], own_home: Home, tmp_path: Path
) -> None:
    """The layout of the marked clip, 8 x 8, and what moves in it: all else is another's. Nothing is signed for it."""
    from safegen.recovery.recover import recover

    def layout(frames: NDArray[Any]) -> NDArray[Any]:
        import cv2

        small = cv2.resize(np.median(frames, axis=0).astype(np.float32), (8, 8), interpolation=cv2.INTER_AREA)
        return cv2.resize(small, frames.shape[2:0:-1], interpolation=cv2.INTER_CUBIC)

    own = read_clip(one.output).frames.astype(float)
    ground = np.indices(own.shape[1:3]).sum(axis=0)[None, :, :, None] // 12 % 2 * 60.0  # a pattern that everybody sees
    real = np.clip(foreign * 0.75 + ground, 0, 255)
    mixed = real - layout(real) + layout(own) + own - own.mean(axis=0)
    forged = tmp_path / "forged.mp4"
    encode_video(np.clip(np.rint(mixed), 0, 255).astype(np.uint8), 16, forged)
    assert_not_taken_for(safegen.verify(forged, home=own_home), one, copied=True)
    assert recover(forged, tmp_path / "out.mp4", home=own_home).outcome == "copied"
    assert [path.name for path in tmp_path.iterdir()] == ["forged.mp4"]


EDITS = {
    "reencoded_crf30": ("-crf", "30"),
    "cropped": ("-vf", "crop=160:160:20:12"),
    "letterboxed": ("-vf", "pad=192:256:0:32"),
    "mirrored": ("-vf", "hflip"),
    "darker_and_paler": ("-vf", "eq=brightness=-0.15:saturation=0.6"),
    "negated": ("-vf", "negate"),
}


LEFT_OPEN = {
    "vignette": ("-vf", "vignette=PI/5"),
    "vintage": ("-vf", "curves=vintage"),
}
"""Edits that bend colours so far that, on a scene of few forms, another scene might look like that."""


@pytest.mark.parametrize("name", LEFT_OPEN)
def test_an_honest_edit_that_takes_much_recolouring_is_left_open_and_not_called_copied(
    name: str, one: Generated, own_home: Home, tmp_path: Path
) -> None:
    edited = tmp_path / "edited.mp4"
    ffmpeg("-i", one.output, *LEFT_OPEN[name], "-pix_fmt", "yuv420p", edited)
    verdict = safegen.verify(edited, home=own_home)
    assert verdict.verdict in ("inconclusive", "recovered")
    assert mark_of(verdict).status != "fail"


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_clip_is_recovered(name: str, one: Generated, own_home: Home, tmp_path: Path) -> None:
    edited = tmp_path / "edited.mp4"
    ffmpeg("-i", one.output, *EDITS[name], "-pix_fmt", "yuv420p", edited)
    verdict = safegen.verify(edited, home=own_home)
    assert (verdict.verdict, verdict.content_id) == ("recovered", one.content_id)
    pictures: Any = mark_of(verdict).evidence["pictures"]
    assert pictures["same"] is True


def test_a_clip_spliced_with_other_footage_is_a_part_of_the_file(
    one: Generated, foreign: NDArray[np.uint8], own_home: Home, tmp_path: Path
) -> None:
    spliced = tmp_path / "spliced.mp4"
    own = read_clip(one.output).frames
    encode_video(np.concatenate([foreign[:16], own, foreign]), 16, spliced)
    verdict = safegen.verify(spliced, home=own_home)
    assert (verdict.verdict, verdict.content_id) == ("partial", one.content_id)
    pictures: Any = mark_of(verdict).evidence["pictures"]
    assert (pictures["same"], pictures["whole"]) == (True, False)
    assert pictures["time"] < 0.5
    assert "of 4.1 s carry that mark" in mark_of(verdict).summary


def test_clips_of_this_home_that_were_joined_are_all_named(
    pipe: Any, one: Generated, own_home: Home, tmp_path: Path
) -> None:
    safe = safegen.protect(pipe, home=own_home)
    more = [safe(prompt, output=tmp_path / f"{n}.mp4", seed=n, **CALL) for n, prompt in enumerate((OTHER, ONE))]
    joined = tmp_path / "joined.mp4"
    encode_video(np.concatenate([read_clip(c.output).frames for c in (one, *more)]), 16, joined)
    verdict = safegen.verify(joined, home=own_home)
    assert verdict.verdict == "partial"
    finding = mark_of(verdict)
    found: Any = finding.evidence["marked"]
    assert {s["content_id"] for s in found} == {c.content_id for c in (one, *more)}
    for n, clip in enumerate((one, *more)):
        middle = (25 * n + 12) / 16
        assert any(s["content_id"] == clip.content_id and s["start"] <= middle <= s["end"] for s in found)
        assert clip.content_id in finding.summary


def test_a_clip_from_before_there_were_kept_pictures_is_left_open_once_its_credential_is_gone(
    one: Generated, own_home: Home, tmp_path: Path
) -> None:
    with Ledger.open(own_home.ledger_url, create=False, read_only=True) as ledger:
        entry = ledger.get(one.entry)
    home = Home(tmp_path / "home")
    shutil.copytree(own_home.keys, home.keys)
    keys, event = KeyStore.load(home), entry.event
    mark = {k: v for k, v in event.body["mark"].items() if k != "pictures"}
    with Ledger.open(home.ledger_url, key=keys.ledger_key, origin=keys.ledger_name) as ledger:
        ledger.append(replace(event, body=dict(event.body) | {"mark": mark}))
    assert safegen.verify(one.output, home=home).verdict == "verified", "its credential vouches for every byte"
    stripped = tmp_path / "stripped.mp4"
    ffmpeg("-i", one.output, "-crf", "20", "-pix_fmt", "yuv420p", stripped)
    verdict = safegen.verify(stripped, home=home)
    assert (verdict.verdict, verdict.content_id) == ("inconclusive", one.content_id)
    finding = mark_of(verdict)
    assert (finding.status, finding.evidence["status"]) == ("inconclusive", "uncompared")
    assert "none were kept when it was made" in finding.summary
