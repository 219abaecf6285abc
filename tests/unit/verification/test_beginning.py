"""The beginning of a clip that is held in memory: fewer frames of large ones, and it says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.bombs import clips
from safegen.media import probe
from safegen.verification import beginning
from safegen.verification.beginning import Beginning


@pytest.mark.parametrize(("side", "held"), [(32, 5), (64, 2)])
def test_large_frames_that_are_not_held_together_are_told_of(
    side: int, held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clip.mp4"
    clips.encoded(path, f"testsrc2=s={side}x{side}:r=5:d=1", "-pix_fmt", "yuv420p")
    monkeypatch.setattr(beginning, "WHOLE_PIXELS", 32 * 32)
    monkeypatch.setattr(beginning, "LARGE_PIXELS", 2 * 64 * 64)
    clip = Beginning(path, probe(path))
    assert len(clip.frames) == held
    assert clip.is_cut is (held < 5)
