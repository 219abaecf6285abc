"""Turns between processes that write to one SQLite file: whoever came first goes first.

SQLite's own waiting is a lottery: a waiter sleeps, tries, and may lose to whoever comes along at that moment, for
seconds. So writers draw numbers from a small file beside the database. Each holds a lock on the byte of its number as
long as it waits and writes, and goes when no lower number is held. A process that dies loses its locks, and with them
its place. Only fairness rests on this: what keeps writers apart is SQLite's lock, which they take as well.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from safegen.errors import LedgerBusyError

with contextlib.suppress(ModuleNotFoundError):  # Windows has none: writers wait there as SQLite has them wait
    import fcntl

_FIRST: Final = 8  # bytes 0 to 7 hold the last number drawn; the byte of number n is at _FIRST + n
_FLOCK: Final = "hhqqi4x"  # struct flock of 64-bit Linux: type, whence, start, length, pid
_STEP: Final = 0.0002  # seconds to sleep for each number ahead
_LONGEST: Final = 0.02


def possible() -> bool:
    """Whether this system has locks that belong to an open file, so that threads of one process keep apart as well."""
    linux = sys.platform.startswith("linux")  # others lay the structure out differently
    return linux and struct.calcsize("P") == 8 and hasattr(globals().get("fcntl"), "F_OFD_SETLK")


class Turns:
    """The numbers of one database file. The file beside it is made at the first turn, and stays."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(database.name + "-turns")

    @contextmanager
    def turn(self, seconds: float) -> Iterator[None]:
        """Wait for one's turn, and keep it for the block; LedgerBusyError after ``seconds``.

        Where the file cannot be used, there is no order, and the block runs at once.
        """
        until = time.monotonic() + seconds
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError:
            yield
            return
        try:
            with contextlib.suppress(OSError):  # a file system without such locks
                self._wait(file, self._draw(file, until), until)
            yield
        finally:
            os.close(file)  # which gives all its locks up

    def _draw(self, file: int, until: float) -> int:
        """Take the next number and the lock on its byte."""
        while not _lock(file, 0, _FIRST):  # held for microseconds
            _pause(0.0002, until)
        number = int.from_bytes(os.pread(file, _FIRST, 0), "big") + 1
        os.pwrite(file, number.to_bytes(_FIRST, "big"), 0)
        _lock(file, _FIRST + number, 1)
        _command(file, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, 0, _FIRST)
        return number

    def _wait(self, file: int, number: int, until: float) -> None:
        """Wait until no lower number is held."""
        while (ahead := _lowest(file, number)) is not None:
            _pause(min(_LONGEST, (number - ahead) * _STEP), until)


def _pause(seconds: float, until: float) -> None:
    left = until - time.monotonic()
    if left <= 0:
        raise LedgerBusyError(
            "other processes are writing to the ledger and did not finish in time", remedy="try again"
        )
    time.sleep(min(seconds, left))


def _lock(file: int, start: int, length: int) -> bool:
    try:
        _command(file, fcntl.F_OFD_SETLK, fcntl.F_WRLCK, start, length)
    except OSError as exc:
        if exc.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def _lowest(file: int, number: int) -> int | None:
    """A number below ``number`` that somebody holds; None if there is none."""
    if number == 1:
        return None  # a length of 0 would mean all bytes
    told = _command(file, fcntl.F_OFD_GETLK, fcntl.F_WRLCK, _FIRST + 1, number - 1)
    kind, _, start, _, _ = struct.unpack(_FLOCK, told)
    return None if kind == fcntl.F_UNLCK else max(1, int(start) - _FIRST)


def _command(file: int, what: int, kind: int, start: int, length: int) -> bytes:
    return fcntl.fcntl(file, what, struct.pack(_FLOCK, kind, os.SEEK_SET, start, length, 0))
