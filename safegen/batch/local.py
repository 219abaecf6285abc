"""Many files on this machine: what a list of paths stands for, and work on each in processes of one thread."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Final, TypeVar

from safegen.bounds.process import READER_MEMORY, limit_this_process
from safegen.errors import InputError, SafegenError, UnreadableMediaError
from safegen.media.formats import identify

T = TypeVar("T")
R = TypeVar("R")

SUFFIXES: Final = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .gif .png .jpg .jpeg .webp .avif .heic .heif".split()  # noqa: SIM905
)
_THREADS: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")


def gather(paths: Sequence[Path]) -> tuple[list[Path], int]:
    """Return the files that paths stand for, each once, and how many in folders were left out as no media.

    What is named itself stays, whatever it is. Folders are searched through, in order of names: what is media by its
    first bytes or says so by its name is in, so that a damaged clip is not passed over; hidden files and links to
    folders are not. InputError for a folder without media.
    """
    found: dict[Path, None] = {}
    others = 0
    for path in paths:
        if not path.is_dir():
            found[path] = None
            continue
        inside = list(_files_in(path))
        media = [file for file in inside if _is_media(file)]
        if not media:
            raise InputError(f"{path} holds no video or image.", remedy="Name a folder with clips, or files.")
        others += len(inside) - len(media)
        found |= dict.fromkeys(media)
    return list(found), others


def _files_in(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise InputError(f"Cannot read {error.filename}: {error.strerror}.", remedy="Check the folder.") from error

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


def _is_media(path: Path) -> bool:
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        identify(path)
    except UnreadableMediaError:
        return False
    except InputError:  # gone, or not to be read: whoever looks at it says so
        return True
    return True


def run_each(work: Callable[[T], R], items: Sequence[T], jobs: int) -> Iterator[R]:
    """Yield ``work(item)`` for each item, in order; ``jobs`` of them run at a time, each in a process of one thread.

    With one job all runs in this process. ``work`` must be a function of a module, and what it takes and returns must
    pickle. Ends the processes when the caller stops asking, Ctrl-C included; they leave what they were at. SafegenError
    where a process dies (killed for memory, say): no result is made up.
    """
    if jobs == 1 or len(items) < 2:
        yield from map(work, items)
        return
    before = set(multiprocessing.active_children())
    waiting: deque[Future[R]] = deque()
    left = iter(items)
    with _one_thread_each():
        pool = ProcessPoolExecutor(
            min(jobs, len(items)), mp_context=multiprocessing.get_context("spawn"), initializer=_begin
        )
        done = False
        try:
            for item in left:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 2 * jobs:  # enough that nobody waits, and no list of a million futures
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
            done = True
        except BrokenProcessPool as error:
            raise SafegenError(
                "A worker process died before it had answered.", remedy="Memory may be short: give a smaller --jobs."
            ) from error
        finally:
            workers = () if done else set(multiprocessing.active_children()) - before
            for process in workers:
                process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us
    limit_this_process(memory=READER_MEMORY)


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let processes that are started now count one core; libraries read that when they are loaded."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
