"""Targets, temporary files, and the moment that signals must not split."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from safegen.errors import InputError, MediaError
from safegen.files import Target, uninterrupted


def test_a_finished_file_takes_its_name_and_scratch_goes_away(tmp_path: Path) -> None:
    target = Target.check(tmp_path / "clip.mp4", suffix=".mp4", force=False)
    with target.scratch() as scratch:
        scratch.encoded.write_text("encoded")
        scratch.signed.write_text("signed")
        assert scratch.encoded.name.startswith(".")
        target.place(scratch.signed)
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]
    assert target.path.read_text() == "signed"


def test_a_file_that_came_into_being_meanwhile_is_kept(tmp_path: Path) -> None:
    target = Target.check(tmp_path / "clip.mp4", suffix=".mp4", force=False)
    with target.scratch() as scratch:
        scratch.signed.write_text("signed")
        target.path.write_text("someone else's")
        with pytest.raises(MediaError):
            target.place(scratch.signed)
    assert target.path.read_text() == "someone else's"


def test_force_replaces(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_text("old")
    target = Target.check(tmp_path / "clip.mp4", suffix=".mp4", force=True)
    with target.scratch() as scratch:
        scratch.signed.write_text("new")
        target.place(scratch.signed)
    assert target.path.read_text() == "new"


@pytest.mark.parametrize("name", ["clip.avi", "no/folder/clip.mp4", "folder.mp4"])
def test_targets_that_cannot_be(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(InputError) as caught:
        Target.check(tmp_path / name, suffix=".mp4", force=True)
    assert caught.value.remedy


def test_signals_are_ignored_inside_and_heeded_after() -> None:
    with uninterrupted():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_handlers_are_restored_after_a_failure() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError, match="x"), uninterrupted():
        raise ValueError("x")
    assert signal.getsignal(signal.SIGINT) is before
