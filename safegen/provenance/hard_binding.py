"""The hard binding of a large MP4 or MOV file, checked here in one pass with one buffer.

The C2PA library takes about twice the time of a hash pass for such a file, and half a gigabyte. So it is shown the file
without its media: ``Thinned``. All that it says about manifests, signatures and ingredients is then what it says of the
whole file, but for the hard binding, which cannot match. That one is computed here (C2PA 2.4 §A.5.4, §18.7) and put in.
Only plain bindings are: what is unusual goes to the library, with the whole file.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, cast

from safegen.errors import UnreadableMediaError
from safegen.provenance.native.boxes import MAX_INDEX_BYTES, Box

BUFFER: Final = 1 << 20
LARGE: Final = 4 << 20
"""Below this size nothing is gained."""

IN_MEMORY: Final = 4 << 20
"""What is left of a file without its media is held in memory up to this size."""

MISMATCH: Final = "assertion.bmffHash.mismatch"
MATCH: Final = "assertion.bmffHash.match"
UNTRUSTED: Final = "signingCredential.untrusted"
_OF_BINDINGS: Final = re.compile(r"assertion\.(data|bmff|boxes|collection|multiAsset)Hash\.|hardBindings")
_LABELS: Final = {"c2pa.hash.bmff": False, "c2pa.hash.bmff.v2": True, "c2pa.hash.bmff.v3": True}  # offsets hashed?
_ALGS: Final = frozenset({"sha256", "sha384", "sha512"})
_MAX_OFFSET: Final = 1 << 40
_URL: Final = re.compile(r"self#jumbf=/c2pa/(?P<manifest>[^/]+)/c2pa\.assertions/(?P<label>[^/]+)")
_FIELDS: Final = frozenset({"exclusions", "alg", "hash", "name"})
_CONDITIONS: Final = frozenset({"xpath", "length", "data", "subset", "version", "flags", "exact"})
_XPATH: Final = re.compile(r"(/[ -.0-~]{4})+")
_KEPT: Final = 32  # bytes of a media box in a thinned file
_INDEX: Final = (b"moov", b"trak", b"mdia", b"minf", b"stbl")  # the containers that are looked into


class OutOfTimeError(UnreadableMediaError):
    """Reading took longer than it may."""


class Thinned(io.RawIOBase):
    """A file without its media, to be read only: every ``mdat`` box is cut short, all else is as it was."""

    def __init__(self, file: BinaryIO, boxes: Sequence[Box]) -> None:
        self._file, self._at = file, 0
        self._pieces: list[tuple[int, int, int | bytes]] = []  # where here, how long, where there or what instead
        self.size = 0
        for box in boxes:
            media = box.kind == b"mdat" and box.size > _KEPT
            content: int | bytes = struct.pack(">I4s", _KEPT, b"mdat").ljust(_KEPT, b"\0") if media else box.start
            length = _KEPT if media else box.size
            self._pieces.append((self.size, length, content))
            self.size += length

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move, and return the new position."""
        at = offset + (0, self._at, self.size)[whence]
        if at < 0:
            raise ValueError("before the beginning")
        self._at = at
        return at

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read up to the end of a piece."""
        view = memoryview(buffer)
        low, high = 0, len(self._pieces)
        while low < high:  # the last piece that starts at or before the position
            middle = (low + high) // 2
            if self._pieces[middle][0] <= self._at:
                low = middle + 1
            else:
                high = middle
        if not low or not len(view):
            return 0
        start, length, content = self._pieces[low - 1]
        skip = self._at - start
        count = min(len(view), length - skip)
        if count <= 0:
            return 0
        if isinstance(content, bytes):
            view[:count] = content[skip : skip + count]
        else:
            self._file.seek(content + skip)
            count = self._file.readinto(view[:count])  # type: ignore[attr-defined]
        self._at += count
        return count

    def write(self, _: Any) -> int:
        """Refuse."""
        raise io.UnsupportedOperation("read only")


@dataclass(frozen=True, slots=True)
class _Binding:
    """A plain hard binding: its JUMBF label, and the assertion as the library reports it."""

    offsets: bool
    alg: str
    digest: bytes
    exclusions: tuple[Mapping[str, Any], ...]


class LargeFile:
    """A large file of which the hash is computed at most once, however often its manifests are read."""

    def __init__(self, file: BinaryIO, boxes: Sequence[Box], deadline: float) -> None:
        self._file, self._boxes, self._deadline = file, boxes, deadline
        self._known: dict[str, bool | None] = {}

    @classmethod
    def of(cls, file: BinaryIO, size: int, boxes: Sequence[Box], deadline: float) -> LargeFile | None:
        """Return a file of which ``boxes`` is the top level as a large one, if it is one."""
        return cls(file, boxes, deadline) if boxes and size >= LARGE else None

    def thinned(self) -> BinaryIO:
        """Return the file without its media."""
        thinned = Thinned(self._file, self._boxes)
        return io.BytesIO(thinned.read()) if thinned.size <= IN_MEMORY else cast(BinaryIO, thinned)

    def settle(self, store: Any, details: Any) -> bool:
        """Put the true result into what the library reported of the thinned file.

        ``store`` is its report and is changed, ``details`` its detailed one. False: this is none of the plain cases,
        and the library has to see the whole file. OutOfTimeError after the deadline.
        """
        try:
            matches = self._matches(store, details)
            if matches:
                _set_match(store)
        except (KeyError, TypeError, ValueError, AttributeError):
            return False  # reports of unknown form, or odd values in an assertion
        return matches is not None

    def _matches(self, store: Any, details: Any) -> bool | None:
        """Whether the hard binding matches; None if that cannot be told here."""
        results = store["validation_results"]
        active, deltas = results["activeManifest"], results.get("ingredientDeltas") or ()
        failures = active["failure"]
        about_file = [item for item in failures if item["code"] == MISMATCH]
        others = {item["code"] for item in failures if item["code"] != MISMATCH}
        if any(_OF_BINDINGS.match(item["code"]) for item in active["success"]) or len(about_file) != 1:
            return None
        of_ingredients = {item["code"] for delta in deltas for item in delta["validationDeltas"]["failure"]}
        if not others | of_ingredients <= {UNTRUSTED}:
            return None
        url = about_file[0]["url"]
        place = _URL.fullmatch(url)
        if place is None or place["label"] not in _LABELS:
            return None
        if url not in self._known:  # not of the active manifest where that is an update manifest
            assertions = details["manifests"][place["manifest"]]["assertion_store"]
            binding = _parse(place["label"], assertions[place["label"]])
            self._known[url] = self._check(binding) if binding else None
        return self._known[url]

    def _check(self, binding: _Binding) -> bool | None:
        left_out = _left_out(self._file, self._boxes, binding.exclusions)
        if left_out is None:
            return None
        digest = self._hash(binding, left_out.ranges)
        # Of boxes within boxes the library may see more than is seen here: a mismatch is then for it to state.
        return True if digest == binding.digest else (None if left_out.inner else False)

    def _hash(self, binding: _Binding, ranges: Mapping[int, Sequence[tuple[int, int]]]) -> bytes:
        hasher, buffer = hashlib.new(binding.alg), memoryview(bytearray(BUFFER))
        for box in self._boxes:
            left_out = ranges.get(box.start, ())
            if (box.start, box.end) in left_out:
                continue
            if binding.offsets:
                hasher.update(struct.pack(">Q", box.start))
            for start, end in _rest(box, left_out):
                self._file.seek(start)
                left = end - start
                while left:
                    if time.monotonic() > self._deadline:
                        raise OutOfTimeError("reading the file took too long")
                    count = self._file.readinto(buffer[: min(left, BUFFER)])  # type: ignore[attr-defined]
                    if not count:
                        raise UnreadableMediaError("the file became shorter while it was read")
                    hasher.update(buffer[:count])
                    left -= count
        return hasher.digest()


def _set_match(store: Any) -> None:
    results = store["validation_results"]
    active, deltas = results["activeManifest"], results.get("ingredientDeltas") or ()
    (entry,) = [item for item in active["failure"] if item["code"] == MISMATCH]
    active["failure"].remove(entry)
    active["success"].append({"code": MATCH, "url": entry["url"]})
    strangers = active["failure"] or any(delta["validationDeltas"]["failure"] for delta in deltas)
    trusted = not strangers and any(item["code"] == "signingCredential.trusted" for item in active["success"])
    store["validation_state"] = "Trusted" if trusted else "Valid"


def _parse(label: str, assertion: Mapping[str, Any]) -> _Binding | None:
    """Return a plain binding; None for one with Merkle trees, with another algorithm, or that says more."""
    if not _FIELDS.issuperset(assertion) or assertion.get("alg") not in _ALGS:
        return None
    digest = base64.b64decode(assertion["hash"], validate=True)
    return _Binding(_LABELS[label], assertion["alg"], digest, tuple(assertion["exclusions"]))


@dataclass(slots=True)
class _LeftOut:
    """What is not hashed: ranges by the start of the top-level box around them. ``inner``: boxes were looked into."""

    ranges: dict[int, list[tuple[int, int]]]
    inner: bool = False


def _left_out(file: BinaryIO, boxes: Sequence[Box], exclusions: Iterable[Mapping[str, Any]]) -> _LeftOut | None:
    found = _LeftOut({})
    for exclusion in exclusions:
        if not _CONDITIONS.issuperset(exclusion) or not _XPATH.fullmatch(exclusion["xpath"]):
            return None
        names = [name.encode() for name in exclusion["xpath"].split("/")[1:]]
        conditions = {k: v for k, v in exclusion.items() if v is not None and k != "xpath"}
        for box in boxes:
            if box.kind != names[0]:
                continue
            if len(names) == 1:
                if not conditions.keys() <= {"length", "data"}:
                    return None
                if _meets(file, box, conditions):
                    found.ranges.setdefault(box.start, []).append((box.start, box.end))
            else:
                parts = _parts(file, box, names, conditions)
                if parts is None:
                    return None
                found.ranges.setdefault(box.start, []).extend(parts)
                found.inner = True
    return found


def _meets(file: BinaryIO, box: Box, conditions: Mapping[str, Any]) -> bool:
    if conditions.get("length", box.size) != box.size:
        return False
    for wanted in conditions.get("data", ()):
        value = base64.b64decode(wanted["value"], validate=True)
        if not 0 <= wanted["offset"] < _MAX_OFFSET:
            raise ValueError("it is no offset in a box")
        file.seek(box.start + wanted["offset"])
        if file.read(len(value)) != value:
            return False
    return True


def _parts(
    file: BinaryIO, box: Box, names: Sequence[bytes], conditions: Mapping[str, Any]
) -> list[tuple[int, int]] | None:
    """Return the ranges of an exclusion inside ``moov``; None if it has conditions or leads elsewhere."""
    if not conditions.keys() <= {"subset"} or not set(names[:-1]) <= set(_INDEX) or box.size > MAX_INDEX_BYTES:
        return None
    file.seek(box.start)
    raw = file.read(box.size)
    inside = [(8 if raw[:4] != b"\0\0\0\1" else 16, len(raw))]
    spans: list[tuple[int, int]] = []
    for depth, name in enumerate(names[1:], 2):
        spans = []
        for at, end in inside:
            for kind, start, header, stop in _children(raw, at, end):
                if kind == name:
                    spans.append((start + (header if depth < len(names) else 0), stop))
        inside = spans
    ranges = []
    for start, stop in spans:
        for part in conditions.get("subset") or ({"offset": 0, "length": 0},):
            offset, length = part["offset"], part["length"]
            if 0 <= offset <= stop - start and length >= 0:
                end = min(start + offset + length, stop) if length else stop
                ranges.append((box.start + start + offset, box.start + end))
    return ranges


def _children(raw: bytes, at: int, end: int) -> Iterable[tuple[bytes, int, int, int]]:
    while at < end:
        if at + 8 > end:
            raise ValueError("a box does not fit")
        size, kind = struct.unpack_from(">I4s", raw, at)
        header = 8
        if size == 1 and at + 16 <= end:
            (size,), header = struct.unpack_from(">Q", raw, at + 8), 16
        if size < header or at + size > end:
            raise ValueError("a box does not fit")
        yield kind, at, header, at + size
        at += size


def _rest(box: Box, left_out: Sequence[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    at = box.start
    for start, end in sorted(left_out):
        if start > at:
            yield at, start
        at = max(at, end)
    if at < box.end:
        yield at, box.end
