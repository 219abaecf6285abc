"""Hostile and damaged files: every one ends in a state, and in the one that the C2PA library alone would give."""

from __future__ import annotations

import random
import shutil
import struct
import zlib
from collections import Counter
from pathlib import Path

import pytest

from safegen.keys import KeyStore
from safegen.provenance.credential import Credential, CredentialState
from safegen.provenance.native import jumbf
from safegen.provenance.read import read_credential
from tests.quick import quick
from tests.unit.provenance.reading_samples import (
    BITS,
    C2PA_UUID,
    box_edges,
    embed,
    make_seeds,
    manifest_store,
    mutate,
    nested,
    reference,
    swollen_store,
)

DEEP = 5_000
HEAD = b"\x00\x00\x00\x14ftypisom\x00\x00\x02\x00isom"
DESCRIPTION = jumbf.box(b"jumd", jumbf.ASSERTIONS + bytes.fromhex("00110010800000AA00389B71") + b"\x03x\0")
BAD = {CredentialState.INVALID, CredentialState.UNREADABLE, CredentialState.ABSENT}


@pytest.fixture(scope="module")
def seeds(folder: Path, keys: KeyStore) -> list[Path]:
    return make_seeds(folder / "seeds", keys)


def same_as_library(path: Path, content: bytes, keys: KeyStore) -> Credential:
    path.write_bytes(content)
    found = read_credential(path, trust_anchors_pem=keys.root_pem)
    assert found == reference(path, keys.root_pem)
    return found


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_store_that_is_there_and_broken_is_not_gone(tmp_path: Path, seeds: list[Path], keys: KeyStore) -> None:
    """A bit that flips in the name, the purpose or the head of the box hides the store from the library."""
    for seed in seeds:
        content = seed.read_bytes()
        at = content.index(b"jumdc2pa")
        for offset in range(-40, 24):
            for bit in (0, 5):
                changed = bytearray(content)
                changed[at + offset] ^= 1 << bit
                path = tmp_path / seed.name
                path.write_bytes(changed)
                found = read_credential(path, trust_anchors_pem=keys.root_pem)
                assert found.state is not CredentialState.ABSENT, (seed.name, offset, bit)


@pytest.mark.slow
def test_truncations_at_every_box_edge(tmp_path: Path, seeds: list[Path], keys: KeyStore) -> None:
    for seed in seeds:
        content = seed.read_bytes()
        edges = box_edges(content)
        assert len(edges) > 15
        for edge in edges:
            length = edge + (edge % 3) * 4  # before, within and after a head
            if 0 < length < len(content):
                assert same_as_library(tmp_path / seed.name, content[:length], keys).state in BAD


@pytest.mark.parametrize("name", BITS)
def test_bit_flips_by_box_class(tmp_path: Path, seeds: list[Path], keys: KeyStore, name: str) -> None:
    chance, flips = random.Random(name), 0
    for seed in seeds:
        content = seed.read_bytes()
        at = content.find(name.encode())
        while at >= 0 and flips < 120:
            changed = bytearray(content)
            changed[min(max(at + chance.randrange(-4, 30), 0), len(content) - 1)] ^= 1 << chance.randrange(8)
            same_as_library(tmp_path / seed.name, bytes(changed), keys)
            flips += 1
            at = content.find(name.encode(), at + 1)
    assert flips > 1


@pytest.mark.slow
def test_bit_flips_in_the_signature(tmp_path: Path, seeds: list[Path], keys: KeyStore) -> None:
    """From the COSE structure's head to its end, where padding lies: what passes there changes no word."""
    for seed in seeds[:2]:
        content = seed.read_bytes()
        original = read_credential(seed, trust_anchors_pem=keys.root_pem)
        start = content.index(b"c2pa.signature\0")
        for at in range(start, min(start + 3000, len(content)), 61):
            changed = bytearray(content)
            changed[at] ^= 4
            found = same_as_library(tmp_path / seed.name, bytes(changed), keys)
            assert found == original or found.state in BAD


@pytest.mark.slow
def test_mutants(tmp_path: Path, seeds: list[Path], keys: KeyStore) -> None:
    chance, states = random.Random(3), Counter[str]()
    for _ in range(250):
        seed = chance.choice(seeds)
        states[same_as_library(tmp_path / seed.name, mutate(seed.read_bytes(), chance).content, keys).state] += 1
    assert set(states) >= BAD - {CredentialState.ABSENT}


# --- sizes that lie ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", quick((0, 1, 7, 8, 0x7FFFFFFF, 0xFFFFFFFF), 0, 0x7FFFFFFF))
def test_sizes(tmp_path: Path, seeds: list[Path], keys: KeyStore, size: int) -> None:
    for seed in seeds:
        content = seed.read_bytes()
        for edge in box_edges(content)[::3]:
            changed = content[:edge] + struct.pack(">I", size) + content[edge + 4 :]
            same_as_library(tmp_path / seed.name, changed, keys)


@pytest.mark.parametrize("size", [0, 8, 15, 16, 1 << 32, 1 << 62, (1 << 64) - 1])
@pytest.mark.parametrize("kind", [b"uuid", b"moov", b"mdat", b"free"])
def test_wide_sizes(tmp_path: Path, seeds: list[Path], keys: KeyStore, kind: bytes, size: int) -> None:
    content = seeds[0].read_bytes()
    at = content.index(kind) - 4
    changed = content[:at] + struct.pack(">I4sQ", 1, kind, size) + content[at + 8 :]
    same_as_library(tmp_path / "wide.mp4", changed, keys)


def test_true_wide_size_of_the_manifest_box(tmp_path: Path, seeds: list[Path], keys: KeyStore) -> None:
    content = seeds[0].read_bytes()
    at = content.index(C2PA_UUID) - 8
    size = int.from_bytes(content[at : at + 4], "big")
    changed = content[:at] + struct.pack(">I4sQ", 1, b"uuid", size + 8) + content[at + 8 :]
    same_as_library(tmp_path / "wide.mp4", changed, keys)


# --- nesting ----------------------------------------------------------------------------------------------------------


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def app11(store: bytes) -> bytes:
    """A JPEG that carries ``store`` in segments."""
    head, content, segments = store[:8], store[8:], b""
    for number, at in enumerate(range(0, len(content), 60_000), 1):
        body = b"JP\0\1" + struct.pack(">I", number) + head + content[at : at + 60_000]
        segments += b"\xff\xeb" + struct.pack(">H", len(body) + 2) + body
    return b"\xff\xd8" + segments + b"\xff\xd9"


def riff_list(depth: int) -> bytes:
    content = b""
    for _ in range(depth):
        content = b"LIST" + struct.pack("<I", len(content) + 4) + b"INFO" + content
    return b"RIFF" + struct.pack("<I", len(content) + 4) + b"WAVE" + content


def bomb(name: str, store: bytes, png: bytes) -> bytes:
    superboxes = store[: store.index(b"jumb", 4) - 4] + nested(DEEP, b"jumb", DESCRIPTION)
    superboxes = struct.pack(">I", len(superboxes)) + superboxes[4:]
    box = HEAD + struct.pack(">I4s", len(superboxes) + 45, b"uuid") + C2PA_UUID + bytes(4) + b"manifest\0" + bytes(8)
    return {
        "moov.mp4": HEAD + nested(DEEP, b"moov"),
        "trak.mp4": HEAD + nested(DEEP, b"moov")[: 8 * DEEP // 2] + nested(DEEP // 2, b"trak"),
        "meta.heic": HEAD.replace(b"isom", b"heic") + nested(DEEP, b"meta", bytes(4)),
        "jumbf.mp4": box + superboxes + nested(1, b"moov") + nested(1, b"mdat"),
        "jumbf.png": png[:33] + png_chunk(b"caBX", superboxes) + png[33:],
        "jumbf.jpg": app11(superboxes),
        "list.wav": riff_list(DEEP),
        "jumbf.wav": b"RIFF"
        + struct.pack("<I4s4sI", len(superboxes) + 12, b"WAVE", b"C2PA", len(superboxes))
        + superboxes,
    }[name]


NAMES = ["moov.mp4", "trak.mp4", "meta.heic", "jumbf.mp4", "jumbf.png", "jumbf.jpg", "list.wav", "jumbf.wav"]


@pytest.mark.parametrize("name", NAMES)
def test_nested_boxes(tmp_path: Path, seeds: list[Path], keys: KeyStore, name: str) -> None:
    png = (seeds[0].parent / "plain.png").read_bytes()
    content = bomb(name, manifest_store(seeds[0].read_bytes()), png)
    assert same_as_library(tmp_path / name, content, keys).state in BAD


@pytest.mark.parametrize("depth", [100, 20_000])
def test_nested_cbor(tmp_path: Path, seeds: list[Path], keys: KeyStore, depth: int) -> None:
    content = seeds[0].read_bytes()
    store = manifest_store(content)
    (outer,) = jumbf.parse(store)
    claim = next(b for b in outer.children()[-1].children() if b.kind == jumbf.CLAIM)
    deep = jumbf.superbox(jumbf.CLAIM, claim.label, jumbf.box(b"cbor", b"\x81" * depth + b"\0"))
    found = same_as_library(tmp_path / "deep.mp4", embed(content, store.replace(claim.raw, deep)), keys)
    assert found.state in BAD


def test_chain_of_many_manifests(tmp_path: Path, seeds: list[Path], keys: KeyStore) -> None:
    content = seeds[0].read_bytes()
    store = swollen_store(manifest_store(content), manifests=30)
    assert same_as_library(tmp_path / "many.mp4", embed(content, store), keys).state in BAD


# --- names that lie ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "suffix", [".mp4", ".mov", ".png", ".jpg", ".webp", ".wav", ".pdf", ".svg", ".txt", ".c2pa", ""]
)
def test_wrong_extension(tmp_path: Path, seeds: list[Path], keys: KeyStore, suffix: str) -> None:
    for seed in seeds[::2]:
        path = tmp_path / f"file{suffix}"
        shutil.copyfile(seed, path)
        assert read_credential(path, trust_anchors_pem=keys.root_pem) == reference(path, keys.root_pem)


BEGINNINGS = (b"\0", b"GIF89a", b"%PDF-1.7\n", b"<svg/>", b"ID3", b"II*\0", b"PK\3\4", b"fLaC")


@pytest.mark.parametrize("content", quick(BEGINNINGS, b"GIF89a"))
def test_beginnings_of_other_formats(tmp_path: Path, keys: KeyStore, content: bytes) -> None:
    for suffix in (".mp4", ".gif", ".pdf", ".svg"):
        assert same_as_library(tmp_path / f"file{suffix}", content, keys).state in BAD
