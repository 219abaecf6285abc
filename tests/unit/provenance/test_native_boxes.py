"""The native writer's parts: offsets moved, signatures padded, boxes and segments packed."""

from __future__ import annotations

import io
import struct
from contextlib import suppress

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safegen.errors import ProvenanceError, SafegenError, UnreadableMediaError
from safegen.provenance.assertions import SoftBinding
from safegen.provenance.native import cose, jumbf
from safegen.provenance.native.boxes import move_offsets, top_level
from safegen.provenance.native.jpeg import Jpeg
from safegen.provenance.native.png import Png


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, kind) + content


def wide_box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4sQ", 1, kind, len(content) + 16) + content


def nested(*kinds: bytes, content: bytes) -> bytes:
    for kind in reversed(kinds):
        content = box(kind, content)
    return content


STBL = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
MOVED = 1000 + 77
OFFSETS = {
    "stco": (nested(*STBL, b"stco", content=struct.pack(">IIIII", 0, 3, 99, 1000, 100)), [99, MOVED, 177]),
    "co64": (nested(*STBL, b"co64", content=struct.pack(">IIQQ", 0, 2, 2**40, 1000)), [2**40 + 77, MOVED]),
    "saio": (nested(*STBL, b"saio", content=struct.pack(">III", 0, 1, 1000)), [MOVED]),
    "saio with a type, version 1": (
        nested(*STBL, b"saio", content=struct.pack(">I4sIIQ", 1 << 24 | 1, b"cenc", 0, 1, 1000)),
        [MOVED],
    ),
    "tfhd with a base": (nested(b"moof", b"traf", b"tfhd", content=struct.pack(">IIQ", 1, 1, 1000)), [MOVED]),
    "tfhd without": (nested(b"moof", b"traf", b"tfhd", content=struct.pack(">III", 0x20000, 1, 1000)), [1000]),
    "tfra": (
        nested(
            b"mfra", b"tfra",
            content=struct.pack(">IIIIIIBHBIIBHB", 0, 1, 0b000100, 2, 5, 1000, 1, 1, 1, 6, 1000, 1, 1, 1),
        ),
        [MOVED, MOVED],
    ),
    "tfra, version 1": (
        nested(b"mfra", b"tfra", content=struct.pack(">IIIIQQBBB", 1 << 24, 1, 0, 1, 5, 1000, 1, 1, 1)),
        [MOVED],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OFFSETS)
def test_offsets_are_moved_and_nothing_else(name: str) -> None:
    before, expected = OFFSETS[name]
    raw = bytearray(before)
    move_offsets(raw, 100, 77)
    changed = bytes(raw)
    width = ">Q" if any(word in name for word in ("co64", "version 1", "with a base")) else ">I"
    for value in expected:
        assert struct.pack(width, value) in changed
    move_offsets(raw, 100 + 77, -77)
    assert bytes(raw) == before
    assert (changed == before) == (name == "tfhd without")


def test_wide_boxes_inside() -> None:
    table = wide_box(b"stco", struct.pack(">III", 0, 1, 1000))
    raw = bytearray(wide_box(b"moov", nested(*STBL[1:], content=table)))
    move_offsets(raw, 0, 77)
    assert raw[-4:] == struct.pack(">I", MOVED)


def test_quicktime_metadata_is_left_alone() -> None:
    raw = bytearray(nested(b"moov", b"udta", b"meta", content=box(b"hdlr", bytes(25)) + box(b"ilst", bytes(9))))
    before = bytes(raw)
    move_offsets(raw, 0, 77)
    assert raw == before


@given(st.binary(max_size=300), st.sampled_from([b"moov", b"moof", b"mfra"]))
def test_any_index_is_moved_or_refused(content: bytes, kind: bytes) -> None:
    with suppress(UnreadableMediaError):
        move_offsets(bytearray(box(kind, content)), 0, 77)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_file_or_refused(content: bytes) -> None:
    for reader in (top_level, Png, Jpeg):
        with suppress(SafegenError):
            reader(io.BytesIO(content))


def test_last_box_reaches_to_the_end() -> None:
    boxes = top_level(io.BytesIO(box(b"ftyp", b"") + struct.pack(">I4s", 0, b"mdat") + bytes(99)))
    assert [(b.kind, b.start, b.size) for b in boxes] == [(b"ftyp", 0, 8), (b"mdat", 8, 107)]


# -- JUMBF -------------------------------------------------------------------------------------------------------------


def test_jumbf_round_trip() -> None:
    inner = jumbf.cbor_box(jumbf.CBOR, "a.label", {"value": b"\0\1"}, salt=bytes(16))
    store = jumbf.superbox(jumbf.STORE, "c2pa", jumbf.superbox(jumbf.MANIFEST, "urn:c2pa:x", inner.raw))
    (manifest,) = jumbf.manifests(store)
    (found,) = manifest.children()
    assert (manifest.kind, manifest.label) == (b"c2ma", "urn:c2pa:x")
    assert (found.label, found.raw, found.cbor(), found.hashed) == (
        "a.label",
        inner.raw,
        {"value": b"\0\1"},
        inner.raw[8:],
    )


def test_boxes_as_the_standard_spells_them() -> None:
    """ISO/IEC 19566-5: size, ``jumb``; size, ``jumd``, type, toggles, label and its zero; then the content."""
    expected = "0000002e 6a756d62 0000001d 6a756d64 63326d61 00110010800000aa00389b71 03 61626300 00000009 63626f72 f6"
    raw = jumbf.superbox(b"c2ma", "abc", jumbf.box(b"cbor", cbor2.dumps(None)))
    assert raw == bytes.fromhex(expected)


@given(st.binary(max_size=200), st.integers(0, 80))
def test_any_store_is_parsed_or_refused(noise: bytes, at: int) -> None:
    good = jumbf.superbox(jumbf.STORE, "c2pa", jumbf.superbox(jumbf.MANIFEST, "urn", jumbf.superbox(b"cbor", "x")))
    for store in (noise, good[:at], good[:at] + noise, good[:at] + noise + good[at + len(noise) :]):
        with suppress(ProvenanceError):
            for manifest in jumbf.manifests(store):
                for child in manifest.children():
                    child.cbor()


# -- COSE --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [*range(60), *range(250, 290), 65_530, 65_536, 65_541, 65_545, 70_000])
def test_padding_meets_every_size(more: int) -> None:
    """A CBOR byte string's header grows at 24, 256 and 65,536 bytes, so that one string alone skips some sizes."""
    bare = cose.sign1(b"p", {}, bytes(64))
    padded = cose.sign1(b"p", {}, bytes(64), len(bare) + more)
    assert len(padded) == len(bare) + more
    found = cbor2.loads(padded)
    assert found.value[3] == bytes(64)
    assert set(found.value[1]) <= {"pad", "pad2"}


def test_signature_without_room() -> None:
    with pytest.raises(ProvenanceError, match="3 bytes more"):
        cose.sign1(b"p", {}, bytes(64), len(cose.sign1(b"p", {}, bytes(64))) - 3)


@pytest.mark.parametrize(("text", "value"), [("00ff", b"\x00\xff"), ("", b""), ("zz", b"zz"), ("é", "é".encode())])
def test_soft_bindings_become_bytes(text: str, value: bytes) -> None:
    assert SoftBinding("alg", text).to_cbor({})["blocks"][0]["value"] == value


# -- JPEG segments -----------------------------------------------------------------------------------------------------

SMALL_JPEG = b"\xff\xd8\xff\xda\x00\x02\x00\xff\xd9"


@pytest.mark.parametrize("size", [9, 64_999, 65_007, 65_008, 65_009, 200_000])
def test_segments_join_to_the_box(size: int) -> None:
    container = Jpeg(io.BytesIO(SMALL_JPEG))
    manifest = struct.pack(">I4s", size, b"jumb") + bytes(i % 251 for i in range(size - 8))
    segments, joined, number = container.wrap(manifest), b"", 0
    assert len(segments) == container.wrapped_size(size)
    at = 0
    while at < len(segments):
        marker, length, common, instance, sequence = struct.unpack_from(">HH2sHI", segments, at)
        number += 1
        assert (marker, common, instance, sequence) == (0xFFEB, b"JP", 1, number)
        assert segments[at + 12 : at + 20] == manifest[:8]
        joined += segments[at + 20 : at + 2 + length]
        at += 2 + length
    assert manifest[:8] + joined == manifest
