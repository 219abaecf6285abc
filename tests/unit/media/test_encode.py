"""Encoding: what comes back out, and that a failed encoding leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from safegen import media
from safegen.errors import InputError, MediaError
from safegen.media import ffmpeg_process

Frames = NDArray[np.uint8]


def moving_clip(frames: int = 12, height: int = 64, width: int = 96) -> Frames:
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    clip = [
        np.stack([128 + 90 * np.sin((x + 2 * t) / 19), 128 + 80 * np.cos((y - t) / 23), 60 + x / width * 120], -1)
        for t in range(frames)
    ]
    return np.stack(clip).astype(np.uint8)


def psnr(a: Frames, b: Frames) -> float:
    return float(10 * np.log10(255.0**2 / np.mean((a.astype(float) - b.astype(float)) ** 2)))


@pytest.mark.parametrize("fps", [8, 16, 23.976, 24000 / 1001, 29.97, 30000 / 1001, 0.5, 60])
def test_frame_count_and_rate_come_back_exactly(tmp_path: Path, fps: float) -> None:
    media.encode_video(moving_clip(), fps, tmp_path / "clip.mp4")
    info = media.probe(tmp_path / "clip.mp4")
    assert (info.kind, info.width, info.height, info.frames, info.codec) == ("video", 96, 64, 12, "h264")
    assert info.fps == fps
    assert info.duration_s == pytest.approx(12 / fps)


def test_round_trip_keeps_the_picture(tmp_path: Path) -> None:
    clip = moving_clip()
    media.encode_video(iter(clip), 16, tmp_path / "clip.mp4")
    back = media.read_clip(tmp_path / "clip.mp4")
    assert back.frames.dtype == np.uint8
    assert back.frames.shape == clip.shape
    assert back.fps == 16
    assert psnr(clip, back.frames) > 38
    # Each frame is nearest to its own original: none was doubled, dropped or swapped.
    for i, frame in enumerate(back.frames):
        assert np.argmin([np.mean((frame.astype(float) - f) ** 2) for f in clip]) == i


def test_lower_crf_is_closer(tmp_path: Path) -> None:
    clip = moving_clip()
    quality = []
    for crf in (10, 40):
        media.encode_video(clip, 16, tmp_path / "clip.mp4", crf=crf)
        quality.append(psnr(clip, media.read_clip(tmp_path / "clip.mp4").frames))
    assert quality[0] > quality[1] + 3


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 100, 50), (255, 255, 255)])
def test_colours_survive(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    media.encode_video(np.full((2, 32, 32, 3), colour, np.uint8), 16, tmp_path / "clip.mp4")
    assert np.abs(media.read_clip(tmp_path / "clip.mp4").frames.astype(int) - colour).max() <= 3


def test_one_frame(tmp_path: Path) -> None:
    media.encode_video(moving_clip(1), 16, tmp_path / "one.mp4")
    info = media.probe(tmp_path / "one.mp4")
    assert (info.frames, info.fps, info.duration_s) == (1, 16.0, 1 / 16)


def test_same_frames_same_bytes_and_no_tool_named(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        media.encode_video(moving_clip(), 16, tmp_path / name)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data == (tmp_path / "b.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # +faststart
    for name in (b"Lavf", b"Lavc", b"x264", b"ffmpeg"):
        assert name not in data
    box = data.index(b"colrnclx")
    assert data[box + 8 : box + 14] == bytes([0, 1, 0, 1, 0, 1])  # primaries, transfer, matrix: BT.709


def boxes(path: Path) -> list[tuple[bytes, int]]:
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        found.append((data[at + 4 : at + 8], size))
        at += size
    return found


@pytest.mark.parametrize("count", [1, 12, 300])
def test_room_is_kept_between_index_and_media(tmp_path: Path, count: int) -> None:
    """Whatever the index takes; frames and their order are what they are without."""
    clip = moving_clip(count, 32, 32)
    media.encode_video(clip, 16, tmp_path / "plain.mp4")
    media.encode_video(iter(clip), 16, tmp_path / "room.mp4", room=6000, count=count)
    media.encode_video(clip, 16, tmp_path / "again.mp4", room=6000)
    found = boxes(tmp_path / "room.mp4")
    assert [kind for kind, _ in found] == [b"ftyp", b"moov", b"free", b"free", b"mdat"]
    assert found[2][1] >= 6000
    assert found[-1] == boxes(tmp_path / "plain.mp4")[-1]
    assert (tmp_path / "room.mp4").read_bytes() == (tmp_path / "again.mp4").read_bytes()
    read = [media.read_clip(tmp_path / name).frames for name in ("plain.mp4", "room.mp4")]
    assert np.array_equal(*read)


def test_room_needs_the_number_of_frames(tmp_path: Path) -> None:
    media.encode_video(iter(moving_clip()), 16, tmp_path / "clip.mp4", room=6000)
    assert [kind for kind, _ in boxes(tmp_path / "clip.mp4")] == [b"ftyp", b"moov", b"free", b"mdat"]
    with pytest.raises(InputError, match="more than the 11 frames"):
        media.encode_video(iter(moving_clip()), 16, tmp_path / "more.mp4", room=6000, count=11)
    assert not (tmp_path / "more.mp4").exists()


def test_progress_counts_frames(tmp_path: Path) -> None:
    seen: list[int] = []
    media.encode_video(moving_clip(5), 16, tmp_path / "clip.mp4", progress=seen.append)
    assert seen == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param(np.zeros((2, 63, 64, 3), np.uint8), id="odd_height"),
        pytest.param(np.zeros((2, 64, 63, 3), np.uint8), id="odd_width"),
        pytest.param(np.zeros((0, 64, 64, 3), np.uint8), id="no_frames"),
        pytest.param(np.zeros((2, 64, 64, 3), np.float32), id="float_frames"),
        pytest.param(np.zeros((2, 64, 64), np.uint8), id="grey_frames"),
        pytest.param(np.zeros((2, 64, 64, 4), np.uint8), id="alpha_frames"),
        pytest.param([np.zeros((64, 64, 3), np.uint8), np.zeros((32, 32, 3), np.uint8)], id="changing_size"),
        pytest.param([b"not an array"], id="no_array"),
    ],
)
def test_bad_frames_are_refused_and_leave_no_file(tmp_path: Path, frames: Frames) -> None:
    with pytest.raises(InputError):
        media.encode_video(frames, 16, tmp_path / "clip.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("fps", "crf"), [(0, 18), (-1, 18), (float("nan"), 18), (1e9, 18), (16, -1), (16, 52)])
def test_bad_settings_are_refused(tmp_path: Path, fps: float, crf: int) -> None:
    with pytest.raises(InputError):
        media.encode_video(moving_clip(1), fps, tmp_path / "clip.mp4", crf=crf)


def test_full_device_is_an_error_that_says_so() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(MediaError, match="No space left"):
        media.encode_video(moving_clip(), 16, "/dev/full")
    assert Path("/dev/full").exists()  # only regular files are cleaned away


def test_disk_that_fills_up_midway_leaves_no_file(tmp_path: Path) -> None:
    # A file size limit stands in for the full disk. It binds ffmpeg, our child's child; SIGXFSZ is ignored as EFBIG.
    script = (
        "import resource, signal, sys, numpy as np\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "from safegen import media\nfrom safegen.errors import MediaError\n"
        "noise = np.random.default_rng(0).integers(0, 256, (40, 128, 128, 3), dtype=np.uint8)\n"
        "try:\n    media.encode_video(noise, 16, sys.argv[1], crf=0)\n"
        "except MediaError as error:\n    print('refused:', error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "clip.mp4")], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.startswith("refused: encoding failed"), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="No such file"):
        media.encode_video(moving_clip(), 16, tmp_path / "absent" / "clip.mp4")


def test_failing_source_of_frames_leaves_no_file_and_no_child(tmp_path: Path) -> None:
    class BrokenModelError(Exception):
        pass

    def frames() -> Iterator[Frames]:
        yield from moving_clip(5)
        raise BrokenModelError

    before = children()
    with pytest.raises(BrokenModelError):
        media.encode_video(frames(), 16, tmp_path / "clip.mp4")
    assert list(tmp_path.iterdir()) == []
    assert children() <= before


def children() -> set[str]:
    """The process ids of this process's children (Linux)."""
    listed = Path(f"/proc/self/task/{os.getpid()}/children")
    return set(listed.read_text().split()) if listed.exists() else set()


def test_ffmpeg_killed_midway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[ffmpeg_process.FfmpegProcess] = []
    original = ffmpeg_process.FfmpegProcess.__init__

    def remember(self: ffmpeg_process.FfmpegProcess, args: list[str]) -> None:
        original(self, args)
        started.append(self)

    monkeypatch.setattr(ffmpeg_process.FfmpegProcess, "__init__", remember)

    def frames() -> Iterator[Frames]:
        for i, frame in enumerate(moving_clip(200)):
            if i == 50:
                started[0].child.kill()
                started[0].child.wait()
            yield frame

    with pytest.raises(MediaError, match="encoding failed"):
        media.encode_video(frames(), 16, tmp_path / "clip.mp4")
    assert list(tmp_path.iterdir()) == []


def test_interrupt_kills_ffmpeg_and_removes_the_file(tmp_path: Path) -> None:
    def frames() -> Iterator[Frames]:
        for i, frame in enumerate(moving_clip(200)):
            if i == 20:
                signal.raise_signal(signal.SIGINT)
            yield frame

    before = children()  # such as a database server that other tests share
    with pytest.raises(KeyboardInterrupt):
        media.encode_video(frames(), 16, tmp_path / "clip.mp4")
    assert list(tmp_path.iterdir()) == []
    assert children() <= before


def test_stalled_ffmpeg_is_stopped() -> None:
    with ffmpeg_process.FfmpegProcess([sys.executable, "-c", "import time; time.sleep(600)"], stall_seconds=0.3) as p:
        with p.waiting():
            assert p.stdout.read() == b""
        assert p.finish() != 0
        assert p.stalled
        assert "no progress" in p.last_words()


def test_slow_caller_is_not_a_stall() -> None:
    with ffmpeg_process.FfmpegProcess([sys.executable, "-c", "input()"], stall_seconds=5) as p:
        time.sleep(0.5)
        assert p.child.poll() is None
        p.stdin.write(b"\n")
        assert p.finish() == 0


def test_frames_are_streamed_not_collected(tmp_path: Path) -> None:
    alive, most, lock = 0, 0, threading.Lock()

    class Counted(np.ndarray):  # type: ignore[type-arg]
        def __del__(self) -> None:
            nonlocal alive
            with lock:
                alive -= 1

    def frames() -> Iterator[Frames]:
        nonlocal alive, most
        for frame in moving_clip(100, 32, 32):
            counted = np.array(frame).view(Counted)
            with lock:
                alive += 1
                most = max(most, alive)
            yield counted
            del counted

    media.encode_video(frames(), 16, tmp_path / "clip.mp4")
    assert media.probe(tmp_path / "clip.mp4").frames == 100
    assert most <= 8


WORKER = """
import subprocess, sys, time
from safegen.media.ffmpeg_process import FfmpegProcess
with FfmpegProcess([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
    print(process.child.pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX process groups")
def test_children_of_a_worker_end_with_its_group() -> None:
    """A service that kills a worker kills what the worker has started."""
    root = Path(__file__).resolve().parents[3]
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER], stdout=subprocess.PIPE, text=True, cwd=root, start_new_session=True
    )
    assert worker.stdout is not None
    child = int(worker.stdout.readline())
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    worker.stdout.close()
    for _ in range(500):
        try:
            state = Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return
        if state == "Z":  # whoever inherited it has not asked yet
            return
        time.sleep(0.02)
    pytest.fail("the child outlived its worker")
