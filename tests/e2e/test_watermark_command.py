"""``safegen watermark``: read a clip's mark, measure a model's VAE, list what was measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safegen.settings import Home
from tests.e2e.conftest import SMALL, Made, Shell, ffmpeg


@pytest.fixture
def unmarked(tmp_path: Path) -> Path:
    path = tmp_path / "unmarked.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x96:r=16:d=1", "-pix_fmt", "yuv420p", path)
    return path


# -- read -------------------------------------------------------------------------------------------------------------


def test_the_mark_of_a_made_clip_is_read_with_its_time_and_place(shell: Shell, made: Made) -> None:
    told = shell.json("watermark", "read", made.path, code=0)
    assert told["status"] == "verified"
    assert told["content_id"] == made.printed["content_id"]
    assert told["evidence"]["frames"] == SMALL["frames"]
    segments = told["evidence"]["segments"]
    assert segments[0]["first"] == 0
    assert segments[-1]["last"] == SMALL["frames"] - 1
    assert {s["content_id"] for s in segments if s["marked"]} == {made.printed["content_id"]}
    assert np.allclose(told["evidence"]["corners"], [[0, 0], [1, 0], [1, 1], [0, 1]], atol=0.02)
    assert told["ledger_problem"] is None
    text = shell("watermark", "read", made.path, code=0).stdout
    assert text.startswith(("VERIFIED", "RECOGNISED"))
    assert made.printed["content_id"] in text
    assert "[" + "A" * SMALL["frames"] + "]" in text
    assert "at most 10^" in text or "at most " in text


def test_a_clip_on_a_larger_picture_is_found_and_drawn(shell: Shell, made: Made, tmp_path: Path) -> None:
    from PIL import Image

    larger, picture = tmp_path / "larger.mp4", tmp_path / "map.png"
    ffmpeg("-i", made.path, "-vf", "pad=320:240:80:20:gray", "-crf", "15", larger)
    told = shell.json("watermark", "read", larger, "--picture", picture, code=0)
    assert told["content_id"] == made.printed["content_id"]
    assert told["picture"] == str(picture)
    drawn = np.asarray(Image.open(picture)).astype(int)
    assert drawn.shape[1] == 640
    red = (abs(drawn - (255, 64, 0)).sum(axis=2) < 60).nonzero()
    scale = 640 / 320
    bounds = [red[1].min(), red[0].min(), red[1].max(), red[0].max()]
    assert np.allclose(bounds, np.array([80, 20, 80 + 192, 20 + 192]) * scale, atol=12 * scale)


def test_an_existing_picture_is_kept_unless_forced(shell: Shell, made: Made, tmp_path: Path) -> None:
    picture = tmp_path / "map.png"
    picture.write_text("precious")
    error = shell.json("watermark", "read", made.path, "--picture", picture, code=2)["error"]
    assert "--force" in error["remedy"]
    assert picture.read_text() == "precious"
    shell("watermark", "read", made.path, "--picture", picture, "--force", code=0)
    assert picture.read_bytes().startswith(b"\x89PNG")
    shell("watermark", "read", made.path, "--picture", tmp_path / "map.jpg", code=2)


def test_no_mark_is_an_answer(shell: Shell, unmarked: Path, tmp_path: Path) -> None:
    told = shell.json("watermark", "read", unmarked, "--picture", tmp_path / "map.png", code=1)
    assert told["status"] == "none"
    assert told["content_id"] is None
    assert "segments" not in told["evidence"]
    assert (tmp_path / "map.png").exists()


def test_another_home_reads_nothing(fresh_home: Home, made: Made) -> None:
    text = Shell(fresh_home)("watermark", "read", made.path, code=1).stdout
    assert text.startswith("NONE")
    assert made.printed["content_id"] not in text
    assert "not compared with the ids issued" in text  # it has no ledger yet


def test_keys_that_were_replaced_still_read(home: Home, made: Made, tmp_path: Path) -> None:
    shutil.copytree(home.root, tmp_path / "home")
    later = Shell(Home(tmp_path / "home"))
    later("keys", "init", "--force", code=0)
    assert later.json("watermark", "read", made.path, code=0)["content_id"] == made.printed["content_id"]


def test_a_home_without_keys_cannot_read(made: Made, tmp_path: Path) -> None:
    error = Shell(Home(tmp_path / "none")).json("watermark", "read", made.path, code=4)["error"]
    assert error["type"] == "KeyStoreError"


def test_what_is_no_clip_is_bad_input(shell: Shell, unreadable: Path) -> None:
    error = shell.json("watermark", "read", unreadable, code=2)["error"]
    assert error["type"] in {"InputError", "UnreadableMediaError"}
    assert error["message"]
    assert error["remedy"]


def test_a_still_is_no_clip(shell: Shell, tmp_path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x96:r=1:d=1", "-frames:v", "1", tmp_path / "still.png")
    error = shell.json("watermark", "read", tmp_path / "still.png", code=2)["error"]
    assert error["type"] in {"InputError", "UnreadableMediaError"}
    assert error["remedy"]


# -- calibrate and show -----------------------------------------------------------------------------------------------


def test_calibrating_keeps_the_profile_and_show_lists_it(tmp_path: Path, pipeline_folder: Path) -> None:
    home = Home(tmp_path / "home")  # needs no keys
    shell = Shell(home)
    before = shell.json("watermark", "show", code=0)["profiles"]
    assert [p["shipped"] for p in before] == [True]
    told = shell.json("watermark", "calibrate", "--model", pipeline_folder, code=0)
    assert told["latent_channels"] == 16
    assert told["gain"] > 0
    assert Path(told["output"]).parent == home.root / "profiles"
    listed = {p["digest"]: p for p in shell.json("watermark", "show", code=0)["profiles"]}
    assert listed[told["digest"]]["file"] == told["output"]
    assert listed[told["digest"]]["notes"] == told["notes"]
    broken = home.root / "profiles" / "broken.safetensors"
    broken.write_bytes(b"broken")
    text = shell("watermark", "show", code=0).stdout
    assert f"DAMAGED {broken}" in text
    assert told["digest"] in text


def test_models_that_cannot_be_measured(shell: Shell, tmp_path: Path, pipeline_folder: Path) -> None:
    error = shell.json("watermark", "calibrate", "--model", "no-such-model", code=2)["error"]
    assert error["type"] == "InputError"
    shell("watermark", "calibrate", code=2)
    shell("watermark", "calibrate", "--model", "tiny", "--refine", "-1", code=2)
    unknown = tmp_path / "unknown_family"
    shutil.copytree(pipeline_folder, unknown)
    config = unknown / "vae" / "config.json"
    config.write_text(json.dumps({"_class_name": "AutoencoderTiny"}))
    for path in (unknown / "vae").glob("*.safetensors"):
        path.unlink()
    _save_tiny(unknown / "vae")
    error = shell.json("watermark", "calibrate", "--model", unknown, code=4)["error"]
    assert "pixel" in error["remedy"]


def _save_tiny(folder: Path) -> Any:
    from diffusers import AutoencoderTiny

    AutoencoderTiny(
        encoder_block_out_channels=(4, 4),
        decoder_block_out_channels=(4, 4),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).save_pretrained(folder)
