"""Clips found by what they look like, where no mark names them: what is found, what it is worth, what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from safegen.keys import KeyStore
from safegen.ledger import Ledger, downgrade
from safegen.likeness import LIMIT, find_by_hash, find_by_pictures
from safegen.media import encode_video, read_clip
from safegen.media.video_hash import VideoHash
from safegen.provenance.backends import BACKENDS, Signing
from safegen.provenance.file_signing import sign_file
from safegen.provenance.manifest import SoftBinding
from safegen.provenance.read import read_credential
from safegen.recovery.recover import Found, Outcome, find, recover
from safegen.settings import Home
from safegen.types import LOOKS_ALG as ALG
from safegen.types import Clip
from tests.marked_clips import clip
from tests.quick import quick
from tests.unit.provenance.provenance_samples import ffmpeg, make_spec
from tests.unit.recovery.recovery_samples import Recorded, record

OTHERS = range(20, 32)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """A home that has made clip 3 and some others, which the index knows as well."""
    folder = tmp_path_factory.mktemp("recorded")
    return record(Home(folder / "home"), folder)


def unmarked(path: Path, seed: int = 3, *arguments: str, frames: NDArray[np.uint8] | None = None) -> Path:
    """The clip as it was before the mark, compressed: nothing but its looks can lead to the entry."""
    whole = path.with_suffix(".whole.mp4")
    encode_video(clip(seed, 33, 96, 128) if frames is None else frames, 16, whole)
    ffmpeg("-i", whole, *arguments, "-crf", "28", "-pix_fmt", "yuv420p", path)
    whole.unlink()
    return path


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unmarked(tmp_path_factory.mktemp("bare") / "bare.mp4")


@pytest.fixture(scope="module")
def found(made: Recorded, bare: Path) -> Found:
    return find(bare, home=made.home)


@pytest.fixture
def known(found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for the mark takes longest, and that there is none in the bare copy is known by now."""
    monkeypatch.setattr("safegen.recovery.recover.verify", lambda *_, **__: found.verdict)


@pytest.fixture
def home(made: Recorded, tmp_path: Path) -> Home:
    """A copy to change."""
    shutil.copytree(made.home.root, tmp_path / "home")
    return Home(tmp_path / "home")


def change(home: Home, **mark: Any) -> None:
    """Begin the copy's ledger anew, with the entry of the clip changed."""
    with Ledger.open(home.ledger_url, create=False, read_only=True) as ledger:
        entry = ledger.get(0)
    for path in home.root.glob("ledger.db*"):
        path.unlink()
    keys, event = KeyStore.load(home), entry.event
    body = dict(event.body) | {"mark": dict(event.body["mark"]) | mark}  # type: ignore[arg-type]
    with Ledger.open(home.ledger_url, key=keys.ledger_key, origin=keys.ledger_name) as ledger:
        again = replace(event, body=body)
        ledger.append(again)


EDITS: dict[str, tuple[str, ...]] = {
    "compressed": (),
    "smaller": ("-vf", "scale=64:48"),
    "larger": ("-vf", "scale=320:240"),
    "brighter": ("-vf", "eq=brightness=0.08"),
    "grey": ("-vf", "hue=s=0"),
    "mirrored": ("-vf", "hflip"),
    "trimmed": ("-ss", "0.5", "-t", "1"),
    "faster": ("-r", "24"),
}


@pytest.mark.parametrize("edit", quick(EDITS, "compressed", "smaller", "faster"))
def test_edited_copies_look_like_the_clip(made: Recorded, edit: str, tmp_path: Path) -> None:
    copy = read_clip(unmarked(tmp_path / "copy.mp4", 3, *EDITS[edit]))
    with Ledger.open(made.home.ledger_url, create=False, read_only=True) as ledger:
        [only] = find_by_pictures(copy, ledger, made.home)
    assert (only.entry, only.content_id, only.manifest_id) == (0, made.content_id, made.signed.manifest_id)
    assert 0 < only.distance <= LIMIT


@pytest.mark.slow
def test_an_unmarked_copy_is_found_by_its_looks(made: Recorded, found: Found) -> None:
    assert (found.outcome, found.content_id, found.entry, found.alg) == (Outcome.UNPROVEN, made.content_id, 0, ALG)
    assert (found.manifest, found.manifest_id) == (made.signed.manifest_bytes, made.signed.manifest_id)
    [only] = found.alike
    assert 0 <= only.distance <= LIMIT
    assert found.similarity == only.similarity >= 50
    assert "no proof of origin" in found.summary
    assert found.verdict.verdict == "unverified", "looks do not change it"


def test_other_clips_are_not_found(made: Recorded) -> None:
    with Ledger.open(made.home.ledger_url, create=False, read_only=True) as ledger:
        for seed in OTHERS:
            assert find_by_pictures(Clip(clip(seed, 33, 96, 128), 16), ledger, made.home) == ()
        assert find_by_pictures(Clip(np.zeros((9, 64, 64, 3), np.uint8), 16), ledger, made.home) == ()


def test_a_mark_goes_before_looks(made: Recorded, tmp_path: Path) -> None:
    found = find(made.stripped(tmp_path / "stripped.mp4"), home=made.home)
    assert (found.outcome, found.alike) == (Outcome.FOUND, ())
    assert found.alg != ALG


@pytest.mark.usefixtures("known")
def test_likeness_alone_signs_nothing(made: Recorded, bare: Path, tmp_path: Path) -> None:
    done = recover(bare, tmp_path / "out.mp4", home=made.home)
    assert (done.outcome, done.recovered, done.alg) == (Outcome.UNPROVEN, made.signed.manifest_id, ALG)
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4.kept.c2pa"]
    assert (tmp_path / "out.mp4.kept.c2pa").read_bytes() == made.signed.manifest_bytes


@pytest.mark.slow
@pytest.mark.usefixtures("known")
def test_two_clips_that_look_alike_settle_nothing(home: Home, bare: Path, tmp_path: Path) -> None:
    record(home, tmp_path)
    done = recover(bare, tmp_path / "out.mp4", home=home)
    assert (done.outcome, (tmp_path / "out.mp4").exists()) == (Outcome.UNDECIDED, False)
    assert "Several recorded clips look like it" in done.summary


def looked_up(home: Home, bare: Path) -> int:
    with Ledger.open(home.ledger_url, create=False, read_only=True) as ledger:
        return len(find_by_pictures(read_clip(bare), ledger, home))


@pytest.mark.parametrize("hashes", [None, [], ["zz"], ["00" * 32], "00" * 32, 7])
def test_entries_without_a_sound_hash_are_not_found(home: Home, bare: Path, hashes: Any) -> None:
    assert looked_up(home, bare) == 1
    change(home, video_hash=hashes)
    assert looked_up(home, bare) == 0


@pytest.mark.parametrize("kept", [None, "00" * 32, 7])
def test_both_measures_must_agree(home: Home, bare: Path, kept: Any) -> None:
    """Without kept pictures there is nobody to confirm what the hash says."""
    change(home, pictures=kept)
    assert looked_up(home, bare) == 0


def test_a_hash_that_another_clips_pictures_contradict(home: Home, bare: Path, made: Recorded) -> None:
    from safegen.watermark.fingerprint.kept_pictures import KeptPictures, sha256
    from safegen.watermark.fingerprint.shown import watch

    other = KeptPictures.of(watch(clip(40, 33, 96, 128), 16)).to_bytes()
    (home.manifests / f"{made.content_id}.pictures").write_bytes(other)
    change(home, pictures=sha256(other))
    assert looked_up(home, bare) == 0


def test_a_hash_alone_finds_what_its_pictures_do(made: Recorded, bare: Path) -> None:
    from safegen.media.video_hash import video_hash

    seen = read_clip(bare)
    wanted = video_hash(seen.frames, seen.fps)
    assert wanted is not None
    with Ledger.open(made.home.ledger_url, create=False, read_only=True) as ledger:
        [only] = find_by_hash(wanted, ledger)
        assert (only.entry, only.content_id, only.manifest_id) == (0, made.content_id, made.signed.manifest_id)
        assert find_by_hash(VideoHash((bytes(32),)), ledger) == ()


@pytest.mark.usefixtures("known")
def test_a_manifest_that_is_gone_or_changed(home: Home, made: Recorded, bare: Path) -> None:
    kept = home.manifests / f"{made.content_id}.c2pa"
    kept.write_bytes(kept.read_bytes() + b"\0")
    assert find(bare, home=home).outcome is Outcome.DAMAGED
    kept.unlink()
    assert find(bare, home=home).outcome is Outcome.NOT_KEPT


@pytest.mark.usefixtures("known")
def test_a_ledger_that_cannot_be_searched_is_no_answer(home: Home, bare: Path) -> None:
    downgrade(home.ledger_url, "0002")
    found = find(bare, home=home)
    assert (found.outcome, "0002" in found.summary) == (Outcome.UNDECIDED, True)


def test_a_home_that_made_nothing(bare: Path, tmp_path: Path) -> None:
    assert find(bare, home=Home(tmp_path / "empty")).outcome is Outcome.NO_MARK


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_manifest_states_mark_and_looks(made: Recorded, backend: str, tmp_path: Path) -> None:
    assert [b.alg for b in read_credential(made.signed.path).soft_bindings] == ["org.safegen.latent-residual.1", ALG]
    second = SoftBinding(ALG, "ab" * 128, "safegen video hash")
    keys = KeyStore.load(made.home)
    encode_video(clip(1, 9, 64, 64), 16, tmp_path / "plain.mp4")
    spec = make_spec(fingerprint=second)
    signed = sign_file(tmp_path / "plain.mp4", tmp_path / "out.mp4", spec, keys, signing=Signing(BACKENDS[backend]))
    found = read_credential(signed.path, trust_anchors_pem=keys.root_pem)
    assert (found.state, [(b.alg, b.value) for b in found.soft_bindings][1]) == ("trusted", (ALG, "ab" * 128))
