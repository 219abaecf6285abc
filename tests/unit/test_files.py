"""Targets, temporary files, and the moment that signals must not split."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
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


def test_what_runs_that_were_killed_left_is_removed_and_what_is_in_use_stays(tmp_path: Path) -> None:
    """A marked clip that nobody signed or recorded must not lie about under a hidden name."""
    abandoned = tmp_path / ".old.0a1b2c3d.encoded.mp4"
    signed = tmp_path / ".old.0a1b2c3d.signed.mp4"
    unrelated = tmp_path / ".old.encoded.mp4"
    for path in (abandoned, signed, unrelated):
        path.write_text("frames")
    first = Target.check(tmp_path / "first.mp4", suffix=".mp4", force=False)
    second = Target.check(tmp_path / "second.mp4", suffix=".mp4", force=False)
    with first.scratch() as busy:
        busy.encoded.write_text("in use")
        with second.scratch():
            assert busy.encoded.exists()
            assert not abandoned.exists()
            assert not signed.exists()
    assert list(tmp_path.iterdir()) == [unrelated]


KILLED = """
import os, signal, sys
from pathlib import Path
from safegen.files import Target
with Target.check(Path(sys.argv[1]), suffix=".mp4", force=False).scratch() as scratch:
    scratch.encoded.write_text("frames")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_the_next_run_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    child = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "clip.mp4")], cwd=root)
    assert child.returncode == -signal.SIGKILL
    assert any(path.name.endswith(".encoded.mp4") for path in tmp_path.iterdir())
    with Target.check(tmp_path / "other.mp4", suffix=".mp4", force=False).scratch():
        assert not [path for path in tmp_path.iterdir() if "clip" in path.name]


@pytest.mark.parametrize("force", [False, True])
def test_a_link_as_output_is_refused_and_left(tmp_path: Path, force: bool) -> None:
    (tmp_path / "real.mp4").write_text("kept")
    for name, leads_to in (("link.mp4", "real.mp4"), ("dangling.mp4", "nowhere.mp4")):
        (tmp_path / name).symlink_to(tmp_path / leads_to)
        with pytest.raises(InputError, match="is a link"):
            Target.check(tmp_path / name, suffix=".mp4", force=force)
        assert (tmp_path / name).is_symlink()
    assert (tmp_path / "real.mp4").read_text() == "kept"


@pytest.mark.parametrize("links", [True, False], ids=["hard_links", "no_hard_links"])
def test_a_name_taken_at_the_last_moment_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    target = Target.check(tmp_path / "clip.mp4", suffix=".mp4", force=False)
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no links here")))
    with target.scratch() as scratch:
        scratch.signed.write_text("signed")
        target.path.symlink_to(tmp_path / "nowhere.mp4")  # exists() says that nothing is there
        with pytest.raises(MediaError):
            target.place(scratch.signed)
        target.path.unlink()
        target.place(scratch.signed)
    assert target.path.read_text() == "signed"
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


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
