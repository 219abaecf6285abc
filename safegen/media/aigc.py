"""The implicit label of GB 45438-2025: a JSON record "AIGC" in a file's metadata, written without re-encoding.

One copy per file, at the place that TC260's practice guides name for the container:

    MP4, MOV   moov/udta/meta: ``keys`` (namespace mdta, key "AIGC") and its value in ``ilst``
    PNG        iTXt chunk "XML:com.adobe.xmp", XMP property TC260:AIGC
    JPEG       APP1 segment "http://ns.adobe.com/xap/1.0/", the same property
    WebP       chunk "XMP ", the same property

Copies at the older places of the standard's Annex B (PNG tEXt "AIGC", EXIF UserComment) are read, never written.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, Final

from safegen.errors import InputError, MediaError, UnreadableMediaError
from safegen.files import fsync_folder
from safegen.media import aigc_jpeg, aigc_mp4, aigc_png, aigc_webp
from safegen.media.encoding import remove_partial
from safegen.media.formats import identify
from safegen.media.pieces import RawLabel, copy_pieces
from safegen.types import Json

NAMES: Final = {
    "label": "Label",
    "content_producer": "ContentProducer",
    "produce_id": "ProduceID",
    "reserved_code1": "ReservedCode1",
    "content_propagator": "ContentPropagator",
    "propagate_id": "PropagateID",
    "reserved_code2": "ReservedCode2",
}
"""Field of ``AigcRecord`` to key in the JSON object, in the standard's order (Annex E)."""

GENERATED: Final = "1"
"""``Label``: the content is AI-generated ("2": may be; "3": suspected)."""

_CONTAINERS: Final[dict[str, ModuleType]] = {
    "mov": aigc_mp4, "PNG": aigc_png, "JPEG": aigc_jpeg, "WEBP": aigc_webp,
}  # fmt: skip
_VALUE: Final = re.compile(r"[\x21-\x7e]{0,1024}")
_MAX_TEXT: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class AigcRecord:
    """The record's seven strings. Who makes a file fills the first three; who passes it on, the propagator's two."""

    content_producer: str
    produce_id: str
    label: str = GENERATED
    reserved_code1: str = ""
    content_propagator: str = ""
    propagate_id: str = ""
    reserved_code2: str = ""

    def check(self) -> None:
        """Raise InputError unless the record may be written: a known label, who and what named, codes of ASCII only."""
        if self.label not in ("1", "2", "3"):
            raise InputError(f"AIGC Label must be 1, 2 or 3, not {self.label!r}")
        for field, name in NAMES.items():
            if not _VALUE.fullmatch(getattr(self, field)):
                raise InputError(
                    f"AIGC {name} holds a space, a character beyond ASCII, or more than 1024 characters",
                    remedy="Give a code instead of a name, such as the one that TC260's coding rules assign.",
                )
        if not self.content_producer or not self.produce_id:
            raise InputError("AIGC ContentProducer and ProduceID must not be empty")

    def to_text(self) -> str:
        """Return the JSON object as it is written: seven keys in the standard's order, no spaces."""
        return json.dumps({name: getattr(self, field) for field, name in NAMES.items()}, separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> AigcRecord:
        """Read a record, bare or wrapped as ``{"AIGC": {...}}``; other keys are passed over.

        UnreadableMediaError unless it is a JSON object of strings with a producer and an id, each key once.
        """
        try:
            if len(text) > _MAX_TEXT:
                raise ValueError("it is too long")
            found = json.loads(text, object_pairs_hook=_each_once)
            if isinstance(found, dict) and isinstance(found.get("AIGC"), dict):
                found = found["AIGC"]
            if not isinstance(found, dict):
                raise ValueError("it is no JSON object")
            values = {field: found[name] for field, name in NAMES.items() if name in found}
            if not all(isinstance(value, str) for value in values.values()):
                raise ValueError("a value is no string")
            if missing := [name for field, name in list(NAMES.items())[:3] if not values.get(field)]:
                raise ValueError(f"{', '.join(missing)} missing")
        except (ValueError, RecursionError) as error:
            raise UnreadableMediaError(f"the file's AIGC label cannot be read: {error}") from error
        return cls(**values)

    def to_json(self) -> dict[str, Json]:
        """Return the record as plain JSON values, under the standard's names."""
        return {NAMES[field.name]: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, slots=True)
class FoundLabel:
    """A label read from a file: where it lies, and what it says."""

    place: str
    record: AigcRecord


def read_aigc(path: Path | str) -> tuple[FoundLabel, ...]:
    """Return every AIGC label in an MP4, MOV, PNG, JPEG or WebP file; the standard allows one.

    Raises InputError where there is no such file or the format is another one, UnreadableMediaError where the file or a
    label in it is damaged.
    """
    source = identify(path)
    container = _container(source.format, source.path)
    try:
        with source.path.open("rb") as file:
            return _found(container, file)
    except UnreadableMediaError as error:
        raise UnreadableMediaError(f"{source.path.name}: {error}", remedy=error.remedy) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}", remedy="Check the path.") from error


def write_aigc(path: Path | str, record: AigcRecord, *, source_type: str = "") -> None:
    """Write the label into the file at ``path``: temporary file, read back, fsync, rename. Pictures stay as they are.

    A label by the same producer under the same id is replaced. ``source_type`` is an IPTC digital source type, which
    images get beside a new label (Iptc4xmpExt:DigitalSourceType).

    Raises:
        InputError: the record is not valid; the format is another one; the file has another's label, or a C2PA
            manifest, which the change would break.
        UnreadableMediaError: the file is damaged.
        MediaError: it could not be written. In all cases the file is what it was before.
    """
    record.check()
    source = identify(path)
    container = _container(source.format, source.path)
    target_path = source.path.resolve()  # a link stays a link
    fresh = target_path.with_name(f".{target_path.name}.{secrets.token_hex(4)}.aigc")
    try:
        with source.path.open("rb") as file:
            _check_replaceable(_found(container, file), record)
            pieces = container.plan(file, record.to_text(), source_type)
            with fresh.open("x+b") as target:
                copy_pieces(file, pieces, target)
                target.flush()
                os.fsync(target.fileno())
                if [found.record for found in _found(container, target)] != [record]:
                    raise MediaError("the AIGC label could not be read back")
        shutil.copymode(source.path, fresh)
        fresh.replace(target_path)
        fsync_folder(target_path.parent)
    except OSError as error:
        raise MediaError(f"{path}: could not be written: {error}", remedy="Check free disk space.") from error
    except (InputError, MediaError) as error:  # the container's words do not name the file
        raise type(error)(f"{source.path.name}: {error}", remedy=error.remedy) from error
    finally:
        remove_partial(fresh)


def _container(name: str, path: Path) -> ModuleType:
    if name not in _CONTAINERS:
        raise InputError(
            f"{path.name}: AIGC labels are not written into this format",
            remedy="Supported are MP4, MOV, PNG, JPEG and WebP.",
        )
    return _CONTAINERS[name]


def _found(container: ModuleType, file: BinaryIO) -> tuple[FoundLabel, ...]:
    raw: list[RawLabel] = container.find(file)
    return tuple(FoundLabel(label.place, AigcRecord.parse(label.text)) for label in raw)


def _check_replaceable(found: tuple[FoundLabel, ...], record: AigcRecord) -> None:
    """A file carries one label, and nobody's label is taken away."""
    if len(found) > 1:
        raise InputError(f"has {len(found)} AIGC labels already", remedy="A file carries one; write to a fresh file.")
    for label in found:
        there = (label.record.content_producer, label.record.produce_id)
        if there != (record.content_producer, record.produce_id):
            raise InputError("has another producer's AIGC label, which stays", remedy="Write to a fresh file.")
        if "Annex B" in label.place:
            raise InputError(
                f"has its AIGC label at {label.place}", remedy="A file carries one; write to a fresh file."
            )


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key occurs twice")
    return dict(pairs)
