"""A generated clip loses its credential and gets it back, through the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import Made, Shell, ffmpeg


@pytest.mark.parametrize("how", [("-c", "copy"), ("-crf", "28", "-vf", "crop=160:160:20:12", "-pix_fmt", "yuv420p")])
def test_a_stripped_clip_gets_its_credential_back(
    shell: Shell, made: Made, how: tuple[str, ...], tmp_path: Path
) -> None:
    stripped, restored = tmp_path / "stripped.mp4", tmp_path / "restored.mp4"
    ffmpeg("-i", made.path, *how, stripped)
    printed = shell.json("recover", stripped, "-o", restored, code=0)
    assert (printed["outcome"], printed["content_id"]) == ("restored", made.printed["content_id"])
    assert printed["recovered_manifest_id"] == made.printed["manifest_id"]
    verdict = shell.json("verify", restored, code=0)
    assert (verdict["verdict"], verdict["entry"]) == ("recovered", made.printed["entry"])
    assert verdict["findings"][0]["evidence"]["ai_generated"] is True
    assert shell.json("verify", made.path, code=0)["verdict"] == "verified"
    assert shell.json("ledger", "fsck", code=0)["problems"] == []


def test_a_clip_whose_mark_is_gone_is_found_by_its_looks(shell: Shell, made: Made, tmp_path: Path) -> None:
    """Half a second in one picture, shown for as long: what changes from frame to frame is gone, as the mark does."""
    still, restored = tmp_path / "still.mp4", tmp_path / "restored.mp4"
    mean = "tmix=frames=8,trim=start_frame=7:end_frame=8,loop=loop=12:size=1,setpts=N/16/TB"
    ffmpeg("-i", made.path, "-vf", mean, "-crf", "28", "-pix_fmt", "yuv420p", still)
    printed = shell.json("recover", still, "-o", restored, code=4)
    assert (printed["outcome"], printed["content_id"]) == ("unproven", made.printed["content_id"])
    assert printed["alg"] == "org.safegen.video-hash.1"
    assert not restored.exists(), "likeness signs nothing"
    assert Path(printed["sidecar"]).name == "restored.mp4.kept.c2pa"
