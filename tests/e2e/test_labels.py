"""``safegen generate --label``: the label is seen, the record is read by others, and mark and credential still hold."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from safegen.ledger import Ledger
from safegen.media import decode
from safegen.media.labels import Overlay
from safegen.provenance.read import read_credential
from safegen.settings import Home

from .conftest import PROMPT, Shell


def drawn(frame: np.ndarray, law: str, others: tuple[str, ...]) -> float:
    """How well the label's plate agrees with what lies at its place in a decoded frame."""
    overlay = Overlay(others, *frame.shape[:2])
    picture = overlay.draw(np.zeros_like(frame))
    (label,) = (found for found in overlay.labels if found.law == law)
    place = np.s_[label.top : label.top + label.height, label.left : label.left + label.width, 0]
    return float(np.corrcoef(picture[place].ravel(), frame[place].ravel())[0, 1])


def entry_body(home: Home, index: int) -> dict[str, object]:
    with Ledger.open(home.ledger_url) as ledger:
        return dict(ledger.get(index).body)


def test_clip_with_labels(shell: Shell, home: Home, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    options = ("--seed", "7", "--frames", "13", "--steps", "2", "--label", "eu", "--label", "cn")
    printed = shell.json("generate", PROMPT, "-o", path, *options, code=0)
    frames = list(decode(path))
    assert len(frames) == 13
    assert min(drawn(frame, law, ("eu", "cn")) for frame in frames for law in ("eu", "cn")) > 0.95

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-f", "ffmetadata", "-"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.replace("\\", "")
    (line,) = (line for line in said.splitlines() if line.startswith("AIGC="))
    record = json.loads(line.removeprefix("AIGC="))
    assert (record["Label"], record["ProduceID"]) == ("1", printed["content_id"])

    assert shell.json("verify", path, code=0)["verdict"] == "verified"  # credential, mark and ledger
    body = entry_body(home, printed["entry"])
    assert body["aigc"] == record
    assert [label["text"] for label in body["labels"]] == ["AI GENERATED", "AI生成"]  # type: ignore[attr-defined,index]
    assert read_credential(path).ai_generated


def test_still_with_a_label(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "still.png"
    printed = shell.json(
        "generate", PROMPT, "-o", path, "--seed", "1", "--frames", "1", "--steps", "2", "--policy", "cn", code=0
    )
    (frame,) = decode(path)
    assert drawn(frame, "cn", ("cn",)) == pytest.approx(1.0)
    with Image.open(path) as image:
        packet = image.info["XML:com.adobe.xmp"]
    assert f'"ProduceID":"{printed["content_id"]}"' in packet
    assert "trainedAlgorithmicMedia" in packet
    assert shell.json("verify", path, code=0)["verdict"] == "verified"


def test_bad_labels(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    said = shell("generate", PROMPT, "-o", path, "--label", "us", code=2)
    assert "eu, cn, in" in said.stderr
    assert not path.exists()
