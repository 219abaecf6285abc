"""``verify`` of several files: a line each, the worst exit code; and what is said where the verdict is not all."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from safegen.settings import Home
from tests.e2e.conftest import Made, Shell
from tests.unit.in_process import InProcess


def picture(path: Path) -> Path:
    Image.fromarray(np.random.default_rng(7).integers(0, 255, (96, 96, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A picture of somebody else, a clip that is none, and a text, in a folder."""
    place = tmp_path / "archive" / "2026"
    place.mkdir(parents=True)
    picture(place / "b.png")
    (place / "a.mp4").write_bytes(b"no clip")
    (place / "c.txt").write_text("a list")
    return place.parent


def test_of_several_files_only_the_first_was_looked_at(fresh_home: Home, folder: Path, tmp_path: Path) -> None:
    shell, own = InProcess(fresh_home), picture(tmp_path / "own.png")
    done = shell("verify", own, folder, "--no-neural", code=4)  # without the mark nothing can be told of pictures
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["INCONCLUSIVE", "UNREADABLE", "INCONCLUSIVE"]
    assert [name in line for name, line in zip(("own.png", "a.mp4", "b.png"), lines, strict=False)] == [True] * 3
    assert lines[3] == "3 files: 2 inconclusive, 1 unreadable"
    assert "Left out: 1 file in these folders" in done.stderr
    printed = [json.loads(line) for line in shell("verify", own, folder, "--no-neural", "--json").stdout.splitlines()]
    assert [one["schema"] for one in printed] == ["safegen.verify/1", "safegen.error/1", "safegen.verify/1"]
    assert [Path(one["file"]).name for one in printed] == ["own.png", "a.mp4", "b.png"]
    shell("verify", own, folder, "--crjson", code=2)
    shell("verify", folder / "2026" / "a.mp4", "--no-neural", code=2)


@pytest.mark.slow
def test_the_exit_code_is_the_highest_and_jobs_change_nothing(
    shell: Shell, made: Made, folder: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.mp4", tmp_path / "second.mp4"
    shutil.copy(made.path, first)
    changed = bytearray(made.path.read_bytes())
    changed[changed.rindex(b"mdat") + 3000] ^= 1
    second.write_bytes(changed)
    own = InProcess(shell.home)
    assert own("verify", first, made.path, code=0).stdout.endswith("2 files: 2 verified\n")
    assert own("verify", first, second, code=1).stdout.endswith("2 files: 1 verified, 1 tampered\n")
    told = own("verify", first, second, folder, "--no-neural", code=4).stdout
    assert shell("verify", first, second, folder, "--no-neural", "--jobs", "2", code=4).stdout == told
    (folder / "2026" / "b.png").unlink()
    assert own("verify", second, folder, "--no-neural", code=2).stdout.endswith("2 files: 1 tampered, 1 unreadable\n")


@pytest.mark.slow
def test_an_interrupted_run_ends_at_once_and_says_so(shell: Shell, made: Made, tmp_path: Path) -> None:
    copies = [Path(shutil.copy(made.path, tmp_path / f"{number}.mp4")) for number in range(40)]
    with shell.start("verify", *copies, "--jobs", "2", "--json") as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGINT)
        out, complaints = child.communicate(timeout=300)
    assert child.returncode == 4
    assert json.loads(out.splitlines()[-1])["error"]["type"] == "CancelledError"
    assert "Traceback" not in complaints


@pytest.mark.slow
def test_a_check_that_left_the_mark_out_by_wish_said_that_something_could_not_run(shell: Shell, made: Made) -> None:
    own = InProcess(shell.home)
    told = own("verify", made.path, "--no-neural", code=4).stdout
    assert told.startswith("CHECKED IN PART  ")
    assert "credential and ledger hold; the mark was not looked for (--no-neural)" in told.splitlines()[0]
    assert own.json("verify", made.path, "--no-neural", code=4)["verdict"] == "inconclusive"


@pytest.mark.slow
def test_strict_said_verified_and_exited_with_1_without_a_word_why(shell: Shell, made: Made) -> None:
    told = InProcess(shell.home)("verify", made.path, "--strict", code=1).stdout
    assert told.startswith("VERIFIED")
    assert "STRICT  1 of 35 requirements does not hold: exit code 1, though the file is verified" in told
