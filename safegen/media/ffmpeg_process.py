"""Run imageio-ffmpeg's ffmpeg as a child: arguments from ffmpeg-python, drained output, a time limit, no orphans."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import IO, Any

import ffmpeg
import imageio_ffmpeg

from safegen.bounds.process import RESERVED, limit_child, resident
from safegen.bounds.timelimit import current_limit
from safegen.errors import MediaError
from safegen.media.formats import Source

STALL_SECONDS = 60.0
"""How long one read from, or write to, ffmpeg may take before the child is killed. A 4K frame takes under a second."""

_ERROR_LINES = 4
_MAX_LINE = 4096
_ADDRESS = re.compile(r"^(\[[^\]]*\] ?)+")  # "[libx264 @ 0x5620be78d300] "
_BOUNDS = {
    b"exceeds specified max pixel count": "a picture is too large, or larger than those before it",
    b"Cannot allocate memory": "decoding it takes too much memory",
}
"""What ffmpeg writes where it runs into a bound that we set, and what that means."""

_ECHOES = ("Task finished", "Terminating thread", "Last message repeated", "Error sending frames")


def executable() -> str:
    """Path of the ffmpeg binary that imageio-ffmpeg brings (or ``$IMAGEIO_FFMPEG_EXE``)."""
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise MediaError(
            "no ffmpeg binary was found",
            remedy="Reinstall imageio-ffmpeg (its wheel brings one), or set IMAGEIO_FFMPEG_EXE.",
        ) from error


def executable_version() -> tuple[str, str]:
    """Return the binary's path and the first line that ``ffmpeg -version`` prints; MediaError if it does not run."""
    path = executable()
    try:
        said = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=STALL_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise MediaError(f"{path} does not run: {error}", remedy="Reinstall imageio-ffmpeg.") from error
    return path, said.stdout.partition("\n")[0].partition(" Copyright")[0]


def open_input(source: Source, *, tolerant: bool, max_pixels: int, **more: str) -> Any:
    """Return ffmpeg-python's input node for a local file: demuxer named, no network, no further files.

    One thread decodes: more hold a frame each, and whoever reads the frames is slower than one.

    ``more``: further options of the input.
    """
    strictness = {} if tolerant else {"xerror": None}
    return ffmpeg.input(
        source.url,
        format=source.format,
        protocol_whitelist="file,pipe",
        max_pixels=max_pixels,
        threads=1,
        **strictness,
        **more,
    )


def arguments(output: Any) -> list[str]:
    """Compile an ffmpeg-python output node to the child's argument list."""
    quiet = output.global_args("-nostdin", "-hide_banner", "-loglevel", "error", "-filter_threads", "1")
    return [str(a) for a in ffmpeg.compile(quiet, cmd=executable())]


def _leads_session() -> bool:
    return hasattr(os, "getsid") and os.getsid(0) == os.getpid()


class FfmpegProcess:
    """A running ffmpeg. Leaving the ``with`` block by an exception kills it; leaving normally waits for it."""

    def __init__(self, args: list[str], *, stall_seconds: float = STALL_SECONDS, memory: int | None = None) -> None:
        """Start it. ``memory``: bytes that it may use at most, no limit of ours by default.

        It is stopped beyond that rather than refused more: a decoder that gets no memory leaves out frames and goes on.
        """
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - a file, because an unread pipe would block the child
        self._stall_seconds = stall_seconds
        self._waiting_since: float | None = None
        self._limit = current_limit()
        self._done = threading.Event()
        self.stalled = False
        self._memory = memory
        self._too_large = False
        try:
            # A session of its own: Ctrl-C reaches us alone, and we decide what becomes of the child and its file. A
            # worker leads a session already, that no terminal reaches: its children stay in it and end with it.
            self.child = subprocess.Popen(
                args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
                start_new_session=not _leads_session(),
            )  # fmt: skip
        except OSError as error:
            self._log.close()
            raise MediaError(f"ffmpeg could not be started: {error}", remedy="Reinstall imageio-ffmpeg.") from error
        if memory is not None:
            limit_child(self.child.pid, memory=memory + RESERVED)
        self._watchdog = threading.Thread(target=self._watch, name="ffmpeg-watchdog", daemon=True)
        self._watchdog.start()

    def __enter__(self) -> FfmpegProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self.child.poll() is None:
            self.child.kill()
        self._done.set()
        for pipe in (self.child.stdin, self.child.stdout):
            if pipe is not None and not pipe.closed:
                with contextlib.suppress(OSError):  # the child has gone, and unwritten bytes with it
                    pipe.close()
        self.child.wait()
        self._log.close()

    @property
    def stdin(self) -> IO[bytes]:
        """The pipe that ffmpeg reads from."""
        assert self.child.stdin is not None  # noqa: S101 - opened as a pipe above
        return self.child.stdin

    @property
    def stdout(self) -> IO[bytes]:
        """The pipe that ffmpeg writes to."""
        assert self.child.stdout is not None  # noqa: S101 - opened as a pipe above
        return self.child.stdout

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Mark a wait for ffmpeg: the watchdog counts only these, never the time that our caller takes.

        TimeLimitError where a time limit (``safegen.bounds.timelimit``) is over.
        """
        self._waiting_since = time.monotonic()
        try:
            yield
        finally:
            self._waiting_since = None
        if self._limit is not None:
            self._limit.check()

    def lines(self) -> Iterator[str]:
        """Yield the lines of text that ffmpeg writes, each as soon as it is there; longer ones come in parts."""
        while True:
            with self.waiting():
                line = self.stdout.readline(_MAX_LINE)
            if not line:
                return
            yield line.decode("ascii", "replace").rstrip("\n")

    def finish(self) -> int:
        """Close ffmpeg's input, wait for its end and return its exit status."""
        with self.waiting():
            if not self.stdin.closed:
                with contextlib.suppress(OSError):  # the exit status below tells why the child went away
                    self.stdin.close()
            return self.child.wait()

    def last_words(self) -> str:
        """Return ffmpeg's last error lines as one, without addresses and without the echoes that follow each error."""
        if self.stalled:
            return f"ffmpeg made no progress for {self._stall_seconds:.0f} s and was stopped"
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").splitlines()
        telling = [_ADDRESS.sub("", line).strip() for line in lines if not any(echo in line for echo in _ECHOES)]
        return "; ".join(list(dict.fromkeys(telling))[-_ERROR_LINES:]) or "ffmpeg gave no reason"

    def refusal(self) -> str:
        """Say which of our bounds kept ffmpeg, which has ended, from decoding something; "" where none did."""
        if self._too_large:
            return f"decoding it takes more than {(self._memory or 0) >> 20} MiB of memory"
        if (self.child.returncode or 0) < 0:
            return f"ffmpeg was ended by signal {-self.child.returncode}"
        self._log.seek(0)
        for line in self._log:
            for words, why in _BOUNDS.items():
                if words in line:
                    return why
        return ""

    def _watch(self) -> None:
        while not self._done.wait(0.2 if self._memory is None else 0.02):
            if self._memory is not None and self.child.returncode is None and resident(self.child.pid) > self._memory:
                self._too_large = True
                self.child.kill()
                return
            since = self._waiting_since
            waited = 0.0 if since is None else time.monotonic() - since
            if self._limit is not None and self._limit.left() <= 0:
                self.child.kill()  # whoever waits for it is told so by `waiting`
                return
            if waited > self._stall_seconds:
                self.stalled = True
                self.child.kill()
                return
