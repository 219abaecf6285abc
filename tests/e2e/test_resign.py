"""A generated clip is signed again after its certificate was rotated, through the command line."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from safegen.settings import Home
from tests.e2e.conftest import Made, Shell, ffmpeg


def test_a_clip_outlives_its_certificate(home: Home, made: Made, tmp_path: Path) -> None:
    shutil.copytree(home.root, tmp_path / "home")
    shell, again = Shell(replace(home, root=tmp_path / "home")), tmp_path / "again.mp4"
    shell("keys", "renew", code=0)
    printed = shell.json("resign", made.path, "-o", again, code=0)
    assert printed["content_id"] == made.printed["content_id"]
    assert printed["previous_manifest_id"] == made.printed["manifest_id"]
    assert printed["signature"]["ocsp"] == {"status": "off"}
    verdict = shell.json("verify", again, code=0)
    assert (verdict["verdict"], verdict["entry"]) == ("verified", made.printed["entry"])
    assert verdict["findings"][0]["evidence"]["manifest_id"] == printed["manifest_id"]
    assert verdict["findings"][0]["evidence"]["ai_generated"] is True
    assert shell.json("ledger", "fsck", code=0)["problems"] == []

    told = shell("resign", again, "-o", tmp_path / "third.mp4", code=0).stdout
    assert f"an update of\n  previous      C2PA manifest {printed['manifest_id']}" in told

    ffmpeg("-i", again, "-c", "copy", tmp_path / "stripped.mp4")
    refused = shell("resign", tmp_path / "stripped.mp4", "-o", tmp_path / "out.mp4", code=2)
    assert "safegen recover" in refused.stderr
    assert not (tmp_path / "out.mp4").exists()


def test_a_clip_of_another_home(made: Made, fresh_home: Home, tmp_path: Path) -> None:
    refused = Shell(fresh_home)("resign", made.path, "-o", tmp_path / "out.mp4", code=2)
    assert "not by this home" in refused.stderr
