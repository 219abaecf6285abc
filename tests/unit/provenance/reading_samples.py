"""Seeds for the tests that read hostile files, and ways to spoil them."""

from __future__ import annotations

import hashlib
import json
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import c2pa

from safegen.keys import KeyStore
from safegen.provenance.backends import BACKENDS, Signing
from safegen.provenance.credential import Credential, Origin
from safegen.provenance.engine import EXTENDED_KEY_USAGES, guess_format
from safegen.provenance.examining import Report, _failed
from safegen.provenance.file_signing import sign_file
from safegen.provenance.manifest import MediaFormat
from safegen.provenance.native import jumbf
from safegen.provenance.read import _seen_or_gone, _understood
from tests.unit.provenance.provenance_samples import ffmpeg, make_clip, make_spec, make_still

FORMATS = {"mp4": MediaFormat.MP4, "mov": MediaFormat.MOV, "png": MediaFormat.PNG, "jpg": MediaFormat.JPEG}
C2PA_UUID = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
BITS = ("ftyp", "uuid", "jumb", "jumd", "cbor", "moov", "mdat", "free", "caBX", "IDAT", "IHDR", "JP")


def make_seeds(folder: Path, keys: KeyStore, formats: tuple[str, ...] = tuple(FORMATS)) -> list[Path]:
    """A small file of each format, signed by each backend."""
    folder.mkdir(exist_ok=True)
    made = []
    for suffix in formats:
        plain = folder / f"plain.{suffix}"
        if suffix in ("png", "jpg"):
            make_still(plain)
        elif suffix == "mp4":
            make_clip(plain)
        else:
            ffmpeg("-i", make_clip(folder / "plain-source.mp4"), "-c", "copy", plain)
        for name, backend in BACKENDS.items():
            path = folder / f"{name}.{suffix}"
            path.unlink(missing_ok=True)
            sign_file(plain, path, make_spec(keys, media_format=FORMATS[suffix]), keys, signing=Signing(backend))
            made.append(path)
    return made


def reference(path: Path, anchors: str, manifest: bytes | None = None) -> Credential:
    """What the library alone makes of a file: its own defaults, but for trust and the network."""
    settings: dict[str, Any] = {"version": 1, "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
    if anchors:
        settings["trust"] = {"trust_anchors": anchors, "trust_config": "\n".join(EXTENDED_KEY_USAGES) + "\n"}
    origin = Origin.EMBEDDED if manifest is None else Origin.GIVEN
    try:
        with (
            path.open("rb") as file,
            c2pa.Reader(guess_format(path), file, manifest, c2pa.Context.from_dict(settings)) as reader,
        ):
            found = _understood(Report(json.loads(reader.json())), origin)
    except (c2pa.C2paError, ValueError, RecursionError) as error:
        found = _understood(_failed(error), origin)
    if manifest is not None:
        return found
    with path.open("rb") as file:  # what is ours: a store that it does not find, or cannot parse, is damage
        return _seen_or_gone(found, file)


def manifest_store(content: bytes) -> bytes:
    """The store in the first C2PA box of an MP4."""
    box = content.index(C2PA_UUID) - 8
    start = content.index(b"jumb", box) - 4
    return content[start : box + int.from_bytes(content[box : box + 4], "big")]


def embed(content: bytes, store: bytes) -> bytes:
    """Put another store in the place of an MP4's own."""
    at = content.index(C2PA_UUID) - 8
    old = int.from_bytes(content[at : at + 4], "big")
    head = content[at + 4 : content.index(b"jumb", at) - 4]
    return content[:at] + struct.pack(">I", len(head) + len(store) + 4) + head + store + content[at + old :]


def swollen_store(store: bytes, *, assertions: int = 0, repeats: int = 1, manifests: int = 1) -> bytes:
    """A store with more assertions, all named in the claim; with every name repeated; with copies of the manifest.

    Nothing in it is signed any more, as nothing need be in what is sent to make a reader work.
    """
    (outer,) = jumbf.parse(store)
    active = outer.children()[-1]
    extra = [jumbf.cbor_box(jumbf.CBOR, f"org.example.{i}", {}) for i in range(assertions)]
    parts = []
    for part in active.children():
        if part.kind == jumbf.CLAIM:
            claim = part.cbor()
            claim["created_assertions"] = claim["created_assertions"] * repeats + [
                {"url": f"self#jumbf=c2pa.assertions/{e.label}", "hash": hashlib.sha256(e.hashed).digest()}
                for e in extra
            ]
            parts.append(jumbf.cbor_box(jumbf.CLAIM, part.label, claim).raw)
        elif part.kind == jumbf.ASSERTIONS:
            parts.append(_rebuilt(part, [c.raw for c in part.children()] + [e.raw for e in extra]))
        else:
            parts.append(part.raw)
    copies = [jumbf.superbox(jumbf.MANIFEST, f"urn:c2pa:{i:08x}-5dc1-491b-94a8-fb64ae1512c0", *parts)
              for i in range(manifests - 1)]  # fmt: skip
    return _rebuilt(outer, [*copies, _rebuilt(active, parts)])


def _rebuilt(parent: jumbf.Superbox, children: list[bytes]) -> bytes:
    return jumbf.box(b"jumb", parent.raw[8 : parent.content_at] + b"".join(children))


def nested(depth: int, kind: bytes, inside: bytes = b"") -> bytes:
    """Boxes of one kind in each other; ``inside`` stands at the head of each."""
    own = 8 + len(inside)
    heads = (struct.pack(">I4s", own * (depth - i), kind) + inside for i in range(depth))
    return b"".join(heads)


def box_edges(content: bytes) -> list[int]:
    """Where boxes, chunks or segments begin, as far as they can be told by their names."""
    return sorted({at - 4 for name in BITS for at in _all(content, name.encode()) if at >= 4})


def _all(content: bytes, name: bytes) -> Iterator[int]:
    at = content.find(name)
    while at >= 0:
        yield at
        at = content.find(name, at + 1)


@dataclass(frozen=True)
class Mutant:
    """A spoilt file and how it came about."""

    how: str
    content: bytes


def mutate(content: bytes, chance: random.Random) -> Mutant:
    """Spoil a file in one of the ways that files are spoilt, or that attackers spoil them."""
    how = chance.choice(list(_WAYS))
    return Mutant(how, _WAYS[how](bytearray(content), chance))


def _flip(content: bytearray, chance: random.Random) -> bytes:
    at = chance.randrange(len(content))
    content[at] ^= 1 << chance.randrange(8)
    return bytes(content)


def _flip_in_class(content: bytearray, chance: random.Random) -> bytes:
    """One bit near the head of a box of a kind drawn first, so that rare kinds have their turn."""
    kinds = [name for name in BITS if name.encode() in content]
    if not kinds:
        return _flip(content, chance)
    at = chance.choice(list(_all(bytes(content), chance.choice(kinds).encode())))
    content[min(max(at + chance.randrange(-4, 40), 0), len(content) - 1)] ^= 1 << chance.randrange(8)
    return bytes(content)


def _truncate(content: bytearray, chance: random.Random) -> bytes:
    return bytes(content[: chance.randrange(1, len(content))])


def _truncate_at_edge(content: bytearray, chance: random.Random) -> bytes:
    edge = chance.choice(box_edges(bytes(content)) or [1])
    return bytes(content[: max(1, edge + chance.randrange(-2, 9))])


def _size(content: bytearray, chance: random.Random) -> bytes:
    edge = chance.choice(box_edges(bytes(content)) or [0])
    value = chance.choice([0, 1, 2, 7, 8, 9, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, chance.randrange(1 << 32)])
    content[edge : edge + 4] = struct.pack(">I", value)
    return bytes(content)


def _wide_size(content: bytearray, chance: random.Random) -> bytes:
    """Give a box a 64-bit size, true or not."""
    edge = chance.choice(box_edges(bytes(content)) or [0])
    size = int.from_bytes(content[edge : edge + 4], "big")
    wide = chance.choice([size + 8, size, 0, 8, 1 << 40, (1 << 63) - 1, (1 << 64) - 1])
    return bytes(content[:edge] + struct.pack(">I", 1) + content[edge + 4 : edge + 8] + struct.pack(">Q", wide)
                 + content[edge + 8 :])  # fmt: skip


def _delete(content: bytearray, chance: random.Random) -> bytes:
    at = chance.randrange(len(content))
    del content[at : at + chance.choice([1, 4, 8, 100, 5000])]
    return bytes(content) or b"\0"


def _double(content: bytearray, chance: random.Random) -> bytes:
    edges = [*box_edges(bytes(content)), len(content)]
    start = chance.choice(edges[:-1] or [0])
    part = content[start : start + (int.from_bytes(content[start : start + 4], "big") or 64)]
    at = chance.choice(edges)
    return bytes(content[:at] + part + content[at:])


def _zero(content: bytearray, chance: random.Random) -> bytes:
    at = chance.randrange(len(content))
    length = min(chance.choice([1, 16, 256, 4096]), len(content) - at)
    content[at : at + length] = bytes(length)
    return bytes(content)


def _append(content: bytearray, chance: random.Random) -> bytes:
    size = chance.choice([1, 7, 8, 100])
    extra = chance.choice([bytes(size), chance.randbytes(size), struct.pack(">I4s", size + 8, b"free") + bytes(size)])
    return bytes(content) + extra


_WAYS = {
    "flip": _flip,
    "flip in class": _flip_in_class,
    "truncate": _truncate,
    "truncate at edge": _truncate_at_edge,
    "size": _size,
    "wide size": _wide_size,
    "delete": _delete,
    "double": _double,
    "zero": _zero,
    "append": _append,
}
