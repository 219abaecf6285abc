"""Writing results so that nothing half-done is ever seen: temporary file, fsync, rename."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safegen.errors import InputError, MediaError

# Imported where they are used: filelock. The command line loads this module at every start.


def fsync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename in it survives a power cut."""
    if os.name == "nt":  # folders cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes, *, private: bool = True) -> None:
    """Put ``content`` at ``path`` in one step, durably: a reader sees what was there or all of the new; OSError.

    ``private``: readable by the owner alone, and not as the process's umask has it.
    """
    with _written_beside(path, content, 0o600 if private else 0o666) as scratch:
        scratch.replace(path)
        fsync_folder(path.parent)


def create_file(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path`` in one step, durably, readable by its owner alone; FileExistsError if it is there.

    Unlike a rename, the link that this takes never replaces what somebody else was quicker to put there.
    """
    with _written_beside(path, content, 0o600) as scratch:
        os.link(scratch, path)
        fsync_folder(path.parent)


@contextmanager
def _written_beside(path: Path, content: bytes, mode: int) -> Iterator[Path]:
    """Yield a temporary file beside ``path`` that holds ``content``, flushed; it is deleted if it is still there."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield scratch
    finally:
        scratch.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a result goes, checked before any work is done."""

    path: Path
    force: bool

    @classmethod
    def check(cls, path: Path, *, suffix: str, force: bool) -> Target:
        """Return the target; InputError if it exists (without ``force``), or its folder is missing or not writable."""
        path = Path(path).expanduser()
        if path.suffix.lower() != suffix:
            raise InputError(
                f"The output {path.name} does not end in {suffix}.",
                remedy="Clips are written as .mp4, single frames as .png.",
            )
        if path.is_dir():
            raise InputError(f"The output {path} is a folder.", remedy="Name a file.")
        if path.is_symlink():
            raise InputError(f"{path} is a link.", remedy="Name the file itself: neither link nor target is touched.")
        if path.exists() and not force:
            raise InputError(f"{path} exists already.", remedy="Choose another name, or replace it with --force.")
        if not path.parent.is_dir():
            raise InputError(f"The folder {path.parent} does not exist.", remedy="Make it, or choose another one.")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise InputError(f"The folder {path.parent} is not writable.", remedy="Choose another one.")
        return cls(path, force)

    @property
    def still(self) -> bool:
        """Whether one frame is written, not a clip."""
        return self.path.suffix.lower() == ".png"

    @contextmanager
    def scratch(self) -> Iterator[Scratch]:
        """Yield names for temporary files beside the target; whatever still lies there at the end is deleted.

        So are those that runs which were killed have left in this folder: marked clips that nobody signed or recorded.
        """
        _remove_abandoned(self.path.parent)
        scratch = Scratch(self.path, secrets.token_hex(4))
        with _held(scratch.lock):
            try:
                yield scratch
            finally:
                for name in scratch.names():
                    name.unlink(missing_ok=True)

    def place(self, finished: Path) -> None:
        """Move ``finished`` (same folder) to the target in one step and make the move durable.

        MediaError if that fails, or if without ``force`` something has come to lie there; it then stays as it is.
        """
        try:
            if self.force and not self.path.is_symlink():
                finished.replace(self.path)
            else:
                _move_to_free_name(finished, self.path)
            fsync_folder(self.path.parent)
        except OSError as error:
            raise MediaError(f"Cannot write {self.path}: {error.strerror}", remedy="Choose another folder.") from error


@dataclass(frozen=True, slots=True)
class Scratch:
    """Names of temporary files in the target's folder (a rename does not cross file systems)."""

    target: Path
    token: str

    @property
    def encoded(self) -> Path:
        """The encoded clip, before it is signed."""
        return self.target.with_name(f".{self.target.stem}.{self.token}.encoded{self.target.suffix}")

    @property
    def signed(self) -> Path:
        """The signed clip, before it is moved into place."""
        return self.target.with_name(f".{self.target.stem}.{self.token}.signed{self.target.suffix}")

    @property
    def lock(self) -> Path:
        """Locked as long as the run lives: what it leaves behind is known by the lock that nobody holds."""
        return self.target.with_name(f".{self.target.stem}.{self.token}.lock")

    def names(self) -> tuple[Path, ...]:
        """The files that may hold pictures."""
        return (self.encoded, self.signed)


_SCRATCH = re.compile(r"(\..+\.[0-9a-f]{8})\.(?:encoded|signed)\.[a-z0-9]+")


def _remove_abandoned(folder: Path) -> None:
    """Delete scratch files in ``folder`` whose run is over; those that cannot be deleted stay."""
    from filelock import FileLock, Timeout

    runs: dict[str, list[Path]] = {}
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if (found := _SCRATCH.fullmatch(path.name)) is not None:
                runs.setdefault(found[1], []).append(path)
    for name, left in runs.items():
        lock = FileLock(folder / f"{name}.lock", timeout=0)
        with contextlib.suppress(OSError, Timeout), lock:
            for path in (*left, folder / f"{name}.lock"):
                path.unlink(missing_ok=True)


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold a lock file while the block runs, and delete it at the end."""
    from filelock import FileLock, Timeout

    try:
        lock = FileLock(path, timeout=0)
        lock.acquire()
    except (OSError, Timeout) as error:
        raise MediaError(f"Cannot write beside {path}: {error}", remedy="Choose another folder.") from error
    try:
        yield
    finally:
        lock.release()
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _move_to_free_name(finished: Path, path: Path) -> None:
    """Move a file to a name that nobody has; FileExistsError, with nothing moved, where somebody was quicker."""
    try:
        os.link(finished, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: claim the name, then replace our own claim
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        finished.replace(path)
    else:
        finished.unlink()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore SIGINT and SIGTERM for the few milliseconds in which a result is recorded and moved into place.

    Stopping between the two would leave a record without a file; stopping after them would report a finished clip as
    cancelled. In threads other than the main one signals never arrive, so nothing is to be done there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
