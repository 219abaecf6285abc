"""Asking the C2PA library what a file's manifests say, within bounds of time and memory."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import c2pa

from safegen.provenance import sandbox
from safegen.provenance.engine import guess_format, make_context
from safegen.provenance.hard_binding import LARGE, LargeFile, OutOfTimeError
from safegen.provenance.sandbox import ReadLimits, Task
from safegen.provenance.survey import is_ordinary_store, survey

LIMIT: Final = "Limit"
MAX_READS: Final = 10_000
"""Of a damaged MP4, before it is left to a separate process: some hundreds are usual, and one for each box at least."""


@dataclass(frozen=True, slots=True)
class Report:
    """The library's report, or the name and the words of the error that it ended with. ``error`` may be LIMIT."""

    store: Any = None
    error: str = ""
    problem: str = ""


class Reading:
    """One file, read as often as needed with different anchors; its bytes are hashed at most once where they are many.

    ``file`` is ``path``, opened. ``fragments`` are segments that belong to ``path`` as their initialisation segment.
    """

    def __init__(self, file: BinaryIO, path: Path, fragments: Sequence[Path], limits: ReadLimits) -> None:
        self._file, self._path, self._fragments, self._limits = file, path, fragments, limits
        size = file.seek(0, 2) + sum(p.stat().st_size for p in fragments)
        self._seconds = limits.seconds_for(size)
        self._deadline = time.monotonic() + self._seconds
        found = survey(file)
        self._ordinary, self._damaged = found.ordinary and not fragments, found.damaged
        self._large = LargeFile.of(file, size, found.boxes, self._deadline) if self._ordinary else None

    def report(self, anchors: str, manifest: bytes | None, *, crjson: bool = False) -> Report:
        """Read the file's manifests, or ``manifest`` in their place; as crJSON on demand."""
        task = Task(self._path, anchors, manifest, self._fragments, crjson)
        if self._damaged and self._ordinary and (manifest is None or is_ordinary_store(manifest)):
            try:
                return _examine(_Watched(self._file, self._deadline, MAX_READS), task)
            except OutOfTimeError:
                self._ordinary = False
        if not self._ordinary or (manifest is not None and not is_ordinary_store(manifest)):
            left = max(self._deadline - time.monotonic(), 0.01)
            answer = sandbox.run(task, self._limits, left)
            return Report(answer.get("store"), str(answer.get("error", "")), str(answer.get("problem", "")))
        try:
            return _examine_file(self._file, self._large, task, self._deadline)
        except OutOfTimeError:
            answer = sandbox.too_slow(self._seconds)
            return Report(None, answer["error"], answer["problem"])


def examine_whole(task: Task, seconds: float) -> dict[str, Any]:
    """Read whatever it takes, fragments too: what the separate process does. Returns a report's fields."""
    deadline = time.monotonic() + seconds
    with task.path.open("rb") as file:
        if task.fragments:
            found = _examine_fragments(file, task, deadline)
        else:
            size = file.seek(0, 2)
            large = LargeFile.of(file, size, survey(file).boxes, deadline) if size >= LARGE else None
            found = _examine_file(file, large, task, deadline)
    return {"store": found.store, "error": found.error, "problem": found.problem}


def _examine_file(file: BinaryIO, large: LargeFile | None, task: Task, deadline: float) -> Report:
    """Read a file; OutOfTimeError after the deadline. crJSON is the library's alone, with the whole file."""
    if large is not None and not task.crjson:
        found = _examine(_Watched(large.thinned(), deadline), task, detailed=True)
        if found.error or large.settle(found.store["report"], found.store["details"]):
            return Report(found.store and found.store["report"], found.error, found.problem)
    return _examine(_Watched(file, deadline), task)


def _examine(stream: _Watched, task: Task, *, detailed: bool = False) -> Report:
    """Read with the library; ``detailed``: both of its reports."""
    stream.seek(0)
    try:
        with c2pa.Reader(guess_format(task.path), stream, task.manifest, make_context(task.anchors)) as reader:
            store = json.loads(reader.crjson() if task.crjson else reader.json())
            if detailed:
                store = {"report": store, "details": json.loads(reader.detailed_json())}
    except (c2pa.C2paError, ValueError, RecursionError) as error:
        if stream.expired:
            raise OutOfTimeError("the library was stopped") from error
        return _failed(error)
    return Report(store)


def _examine_fragments(file: BinaryIO, task: Task, deadline: float) -> Report:
    """Read an initialisation segment with each fragment: the report is the first bad one, or the last."""
    media_format, store, problem = guess_format(task.path), None, ""
    try:
        with ExitStack() as stack:
            reader = c2pa.Reader(media_format, _Watched(file, deadline), task.manifest, make_context(task.anchors))
            stack.enter_context(reader)
            for path in task.fragments:
                fragment = stack.enter_context(path.open("rb"))
                reader.with_fragment(media_format, _Watched(file, deadline), _Watched(fragment, deadline))
                store = json.loads(reader.json())
                if store.get("validation_state") == "Invalid":
                    problem = f"invalid with the fragment {path.name}"
                    break
    except (c2pa.C2paError, ValueError, RecursionError) as error:
        return _failed(error)
    return Report(store, problem=problem)


def _failed(error: Exception) -> Report:
    """Name the error by its class, ``C2paError.ManifestNotFound`` and so on, and keep its words."""
    name = next(
        (n for n in ("ManifestNotFound", "NotSupported") if isinstance(error, getattr(c2pa.C2paError, n))), "Other"
    )
    return Report(None, name, str(error))


class _Watched(io.RawIOBase):
    """A file that reads until a deadline, or so often: the library, whatever it is at, then gives up."""

    def __init__(self, file: BinaryIO, deadline: float, reads: int = sys.maxsize) -> None:
        self._file, self._deadline, self._reads, self.expired = file, deadline, reads, False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        self._reads -= 1
        if time.monotonic() > self._deadline or self._reads < 0:
            self.expired = True
            raise OutOfTimeError("reading the file took too long")
        return int(self._file.readinto(buffer))  # type: ignore[attr-defined]

    def write(self, _: Any) -> int:
        raise io.UnsupportedOperation("read only")
