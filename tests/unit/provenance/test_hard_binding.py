"""Large MP4 and MOV files: our own hash pass gives what the library gives, code for code."""

from __future__ import annotations

import hashlib
import io
import random
import shutil
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safegen.keys import KeyStore
from safegen.provenance import hard_binding
from safegen.provenance.backends import BACKENDS, Signing
from safegen.provenance.credential import CredentialState
from safegen.provenance.examining import _examine_file
from safegen.provenance.file_signing import sign_file
from safegen.provenance.hard_binding import LargeFile, Thinned
from safegen.provenance.manifest import InputFile, Mode, Relationship
from safegen.provenance.native.bmff import Bmff
from safegen.provenance.native.boxes import Box, top_level
from safegen.provenance.native.claim import HardBinding
from safegen.provenance.read import read_credential
from safegen.provenance.sandbox import ReadLimits, Task
from safegen.provenance.updating import update_file
from safegen.settings import Home
from tests.unit.provenance.provenance_samples import ffmpeg, make_clip, make_spec
from tests.unit.provenance.reading_samples import C2PA_UUID, make_seeds, mutate, reference

PLAIN = [
    {"xpath": "/uuid", "data": [{"offset": 8, "value": C2PA_UUID}]},
    {"xpath": "/ftyp"},
    {"xpath": "/mfra"},
]
STCO = "/moov/trak/mdia/minf/stbl/stco"


@pytest.fixture(scope="module")
def seeds(folder: Path, keys: KeyStore) -> list[Path]:
    made = make_seeds(folder / "seeds", keys, ("mp4", "mov"))
    fragments = folder / "fragments.mp4"
    ffmpeg("-i", made[0], "-c", "copy", "-movflags", "frag_every_frame+empty_moov", fragments)
    made.append(folder / "signed-fragments.mp4")
    sign_file(fragments, made[-1], make_spec(), keys, signing=Signing(BACKENDS["native"]))
    return made


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[bool]]:
    """Every file counts as large. What is counted: answers of our own, and files left to the library."""
    monkeypatch.setattr(hard_binding, "LARGE", 0)
    counted: Counter[bool] = Counter()
    settle = LargeFile.settle

    def counting(self: LargeFile, store: Any, details: Any) -> bool:
        answer = settle(self, store, details)
        counted[answer] += 1
        return answer

    monkeypatch.setattr(LargeFile, "settle", counting)
    return counted


# --- the same as the library ------------------------------------------------------------------------------------------


def test_intact_files_are_settled_without_the_library(
    seeds: list[Path], keys: KeyStore, settled: Counter[bool]
) -> None:
    for path in seeds:
        found = read_credential(path, trust_anchors_pem=keys.root_pem)
        assert found == reference(path, keys.root_pem)
        assert (found.state, found.content_matches) == (CredentialState.TRUSTED, True)
        assert read_credential(path) == reference(path, "")
    assert settled == {True: 2 * len(seeds)}


@pytest.mark.slow
def test_mutants_get_the_same_credential(
    tmp_path: Path, seeds: list[Path], keys: KeyStore, settled: Counter[bool]
) -> None:
    chance, states = random.Random(5), Counter[str]()
    path = tmp_path / "mutant.mp4"
    for _ in range(250):
        mutant = mutate(chance.choice(seeds).read_bytes(), chance)
        path.write_bytes(mutant.content)
        found = read_credential(path, trust_anchors_pem=keys.root_pem)
        assert found == reference(path, keys.root_pem), mutant.how
        states[found.state] += 1
    assert settled[True] > 30, "this tests nothing where all is left to the library"
    assert set(states) >= {"invalid", "unreadable"}


def test_public_files_get_the_same_credential(shared_data: Path, settled: Counter[bool]) -> None:
    anchors = (shared_data / "c2pa" / "trust" / "c2pa-rs-test-roots.pem").read_text()
    paths = [p for p in (shared_data / "c2pa").rglob("*") if p.suffix in (".mp4", ".mov", ".m4s", ".heic", ".avif")]
    assert len(paths) > 8
    for path in paths:
        assert read_credential(path, trust_anchors_pem=anchors) == reference(path, anchors), path.name
    assert settled[True] >= 4  # exclusions within moov, hashes with and without offsets


@pytest.mark.parametrize("backend", BACKENDS)
def test_update_manifest(
    tmp_path: Path, seeds: list[Path], keys: KeyStore, settled: Counter[bool], backend: str
) -> None:
    """The hard binding then lies in the manifest before the active one."""
    updated = tmp_path / "updated.mp4"
    update_file(seeds[0], updated, keys, anchors_pem=keys.root_pem, signing=Signing(BACKENDS[backend]))
    settled.clear()
    found = read_credential(updated, trust_anchors_pem=keys.root_pem)
    assert found == reference(updated, keys.root_pem)
    assert found.state is CredentialState.TRUSTED
    assert settled == {True: 1}
    content = bytearray(updated.read_bytes())
    content[content.rindex(b"mdat") + 30] ^= 1
    updated.write_bytes(content)
    found = read_credential(updated, trust_anchors_pem=keys.root_pem)
    assert found == reference(updated, keys.root_pem)
    assert found.content_matches is False


@pytest.mark.parametrize("relationship", [Relationship.PARENT, Relationship.INPUT])
@pytest.mark.parametrize("ours", [True, False])
def test_ingredient_of_a_stranger(
    tmp_path: Path, seeds: list[Path], keys: KeyStore, settled: Counter[bool], relationship: Relationship, ours: bool
) -> None:
    stranger = KeyStore.init(Home(tmp_path / "home"))
    plain, middle = seeds[0].parent / "plain.mp4", tmp_path / "middle.mp4"
    sign_file(plain, middle, make_spec(), stranger)
    mode = Mode.VIDEO if relationship is Relationship.PARENT else Mode.IMAGE
    spec = make_spec(mode=mode, ingredients=(InputFile(middle, relationship),))
    signed = tmp_path / "signed.mp4"
    sign_file(plain, signed, spec, keys if ours else stranger)
    settled.clear()
    for anchors in (keys.root_pem, stranger.root_pem, keys.root_pem + stranger.root_pem, ""):
        assert read_credential(signed, trust_anchors_pem=anchors) == reference(signed, anchors)
    assert settled == {True: 4}


def test_given_manifest(tmp_path: Path, seeds: list[Path], keys: KeyStore, settled: Counter[bool]) -> None:
    content = seeds[0].read_bytes()
    box = next(b for b in top_level(io.BytesIO(content)) if b.extended == C2PA_UUID)
    manifest = content[box.start : box.end][45:]
    for source in seeds:
        found = read_credential(source, trust_anchors_pem=keys.root_pem, manifest_bytes=manifest)
        assert found == reference(source, keys.root_pem, manifest)
        assert found.content_matches is (source == seeds[0])
    assert settled[True] == len(seeds)


# --- exclusions -------------------------------------------------------------------------------------------------------


VARIANTS: dict[str, list[dict[str, Any]]] = {
    "all fields empty": [e | {"length": None, "subset": None, "flags": None, "exact": None} for e in PLAIN],
    "of boxes that are not there": [*PLAIN, {"xpath": "/meta/iloc"}, {"xpath": "/moof/traf/tfhd", "flags": b"\1\0\0"}],
    "free": [*PLAIN, {"xpath": "/free"}, {"xpath": "/skip"}],
    "twice": [*PLAIN, *PLAIN],
    "length that differs": [*PLAIN, {"xpath": "/moov", "length": 5}],
    "moov": [*PLAIN, {"xpath": "/moov"}],
    "data that differs": [*PLAIN, {"xpath": "/moov", "data": [{"offset": 4, "value": b"xxxx"}]}],
    "data that fits": [*PLAIN, {"xpath": "/moov", "data": [{"offset": 4, "value": b"moov"}]}],
    "chunk offsets": [*PLAIN, {"xpath": STCO}],
    "part of the chunk offsets": [*PLAIN, {"xpath": STCO, "subset": [{"offset": 16, "length": 0}]}],
    "two parts": [*PLAIN, {"xpath": STCO, "subset": [{"offset": 9, "length": 2}, {"offset": 16, "length": 99}]}],
    "a part beyond the end": [*PLAIN, {"xpath": STCO, "subset": [{"offset": 9999, "length": 2}]}],
    "tracks": [*PLAIN, {"xpath": "/moov/trak"}],
    "a part of the media": [*PLAIN, {"xpath": "/mdat", "subset": [{"offset": 16, "length": 5}]}],
    "version": [*PLAIN, {"xpath": "/moov/mvhd", "version": 0}],
    "exact flags": [*PLAIN, {"xpath": "/moov/mvhd", "flags": b"\0\0\0", "exact": True}],
}
LEFT = {"a part of the media", "version", "exact flags"}


@pytest.mark.parametrize(
    ("name", "alg", "label"),
    [(name, "sha256", "c2pa.hash.bmff.v3") for name in VARIANTS]
    + [("part of the chunk offsets", alg, "c2pa.hash.bmff.v2") for alg in ("sha256", "sha384", "sha512")],
)
def test_exclusions(
    tmp_path: Path, seeds: list[Path], keys: KeyStore, settled: Counter[bool], monkeypatch: pytest.MonkeyPatch,
    name: str, alg: str, label: str,
) -> None:  # fmt: skip
    """Signed with our digest under unusual exclusions: the library confirms it, or both find that it does not match."""
    plain, signed = seeds[0].parent / "plain.mp4", tmp_path / "signed.mp4"
    exclusions, digest = VARIANTS[name], bytes(hashlib.new(alg).digest_size)

    def binding(*_: object) -> HardBinding:
        return HardBinding(label, {"exclusions": exclusions, "alg": alg, "hash": digest, "name": "jumbf manifest"})

    monkeypatch.setattr(Bmff, "binding", binding)
    signing = Signing(BACKENDS["native"], read_back=False)
    sign_file(plain, signed, make_spec(), keys, signing=signing)
    seen: list[bytes] = []
    compute = LargeFile._hash

    def noting(self: LargeFile, *arguments: Any) -> bytes:
        seen.append(compute(self, *arguments))
        return seen[-1]

    monkeypatch.setattr(LargeFile, "_hash", noting)
    found = read_credential(signed, trust_anchors_pem=keys.root_pem)
    assert found == reference(signed, keys.root_pem)
    assert found.content_matches is False
    assert bool(seen) is (name not in LEFT)
    if not seen:
        return
    (digest,) = seen
    settled.clear()
    signed.unlink()
    sign_file(plain, signed, make_spec(), keys, signing=signing)
    found = read_credential(signed, trust_anchors_pem=keys.root_pem)
    assert found == reference(signed, keys.root_pem)
    assert found.state is CredentialState.TRUSTED
    assert settled == {True: 1}


@pytest.mark.parametrize(
    "change",
    [
        {"alg": "md5"},
        {"alg": None},
        {"merkle": []},
        {"url": "http://127.0.0.1/"},
        {"exclusions": None},
        {"exclusions": [{"xpath": 5}]},
        {"exclusions": [{"xpath": "/moov", "data": [{"offset": -(1 << 40), "value": b"x"}]}]},
        {"exclusions": [{"xpath": "/moov", "new": 1}]},
        {"exclusions": [{"xpath": STCO, "subset": [{"offset": -9, "length": 4}]}]},
        {"hash": b""},
        {"hash": "no digest"},
    ],
    ids=str,
)
def test_odd_assertions(
    tmp_path: Path, seeds: list[Path], keys: KeyStore, settled: Counter[bool], monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
) -> None:  # fmt: skip
    data = {"exclusions": PLAIN, "alg": "sha256", "hash": bytes(32), "name": "jumbf manifest"} | change
    data = {k: v for k, v in data.items() if v is not None}
    monkeypatch.setattr(Bmff, "binding", lambda *_: HardBinding("c2pa.hash.bmff.v3", data))
    signed = tmp_path / "signed.mp4"
    plain = seeds[0].parent / "plain.mp4"
    sign_file(plain, signed, make_spec(), keys, signing=Signing(BACKENDS["native"], read_back=False))
    assert read_credential(signed, trust_anchors_pem=keys.root_pem) == reference(signed, keys.root_pem)


def test_reports_of_unknown_form_are_left_to_the_library(seeds: list[Path]) -> None:
    odd: list[Any] = [None, 0, "", [], {}, {"validation_results": None}, {"validation_results": {"activeManifest": []}}]
    with seeds[0].open("rb") as file:
        large = LargeFile(file, top_level(file), time.monotonic() + 60)
        for store in odd:
            assert large.settle(store, {}) is False


# --- the file without its media ---------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([b"ftyp", b"moov", b"mdat", b"free"]), st.binary(max_size=90)), min_size=1),
    st.lists(st.tuples(st.integers(0, 900), st.integers(0, 900)), max_size=20),
)
def test_thinned_file(parts: list[tuple[bytes, bytes]], reads: list[tuple[int, int]]) -> None:
    content = b"".join(struct.pack(">I4s", len(data) + 8, kind) + data for kind, data in parts)
    boxes, at = [], 0
    for kind, data in parts:
        boxes.append(Box(at, len(data) + 8, kind))
        at += len(data) + 8
    expected = b"".join(
        struct.pack(">I4s", 32, b"mdat") + bytes(24)
        if kind == b"mdat" and len(data) > 24
        else struct.pack(">I4s", len(data) + 8, kind) + data
        for kind, data in parts
    )
    thinned = Thinned(io.BytesIO(content), boxes)
    assert thinned.size == len(expected)
    for position, length in reads:
        thinned.seek(position)
        assert io.BufferedReader(thinned).read(length) == expected[position : position + length]
        thinned = Thinned(io.BytesIO(content), boxes)
    assert thinned.seek(0, 2) == len(expected)


# --- large files ------------------------------------------------------------------------------------------------------


def make_large(path: Path, source: Path, size: int) -> Path:
    """Lengthen the last box of an MP4, its media, to about ``size`` bytes."""
    shutil.copyfile(source, path)
    with path.open("r+b") as file:
        last = top_level(file)[-1]
        assert last.kind == b"mdat"
        file.seek(last.start)
        file.write(struct.pack(">I", size))
        file.truncate(last.start + size)
    return path


@pytest.mark.slow
def test_large_file_takes_one_pass_and_little_memory(tmp_path: Path, folder: Path, keys: KeyStore) -> None:
    """In a process of its own: what it uses beyond what it used for a small file."""
    plain = make_large(tmp_path / "plain.mp4", make_clip(tmp_path / "small.mp4"), 200_000_000)
    large, small = tmp_path / "large.mp4", tmp_path / "signed.mp4"
    sign_file(plain, large, make_spec(), keys, signing=Signing(BACKENDS["native"], read_back=False))
    sign_file(tmp_path / "small.mp4", small, make_spec(), keys)
    code = (
        "import resource, sys; from pathlib import Path; from safegen.provenance.read import read_credential\n"
        "def read(name):\n"
        "    found = read_credential(Path(name), trust_anchors_pem=open(sys.argv[3]).read())\n"
        "    assert found.state == 'trusted', found\n"
        "read(sys.argv[1]); base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "read(sys.argv[2]); print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1024)"
    )
    (tmp_path / "root.pem").write_text(keys.root_pem)
    command = [sys.executable, "-c", code, small, large, tmp_path / "root.pem"]
    grown = float(subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True).stdout)
    assert grown <= 16, f"{grown} MB more"
    with large.open("rb") as file:
        hashed = sum(b.size for b in top_level(file) if b.kind != b"ftyp" and b.extended != C2PA_UUID)
    read_bytes = 0

    class Counting(io.FileIO):
        def readinto(self, buffer: Any) -> int:
            nonlocal read_bytes
            count = super().readinto(buffer) or 0
            read_bytes += count
            return count

    with Counting(large) as file:
        boxes = top_level(file)
        own = LargeFile(file, boxes, time.monotonic() + 600)  # type: ignore[arg-type]
        for _ in range(3):  # as for three trust lists
            found = _examine_file(file, own, Task(large, keys.root_pem, None, ()), time.monotonic() + 60)  # type: ignore[arg-type]
            assert found.store["validation_state"] == "Trusted"
    assert hashed <= read_bytes < hashed + 2_000_000


def test_file_that_takes_too_long_to_hash(
    tmp_path: Path, seeds: list[Path], keys: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = make_large(tmp_path / "large.mp4", seeds[0], 60_000_000)
    limits = ReadLimits(seconds=1e-9)
    slow = read_credential(large, trust_anchors_pem=keys.root_pem, limits=limits)
    assert slow.state is CredentialState.INVALID  # three seconds are allowed for its size
    monkeypatch.setattr("safegen.provenance.sandbox.BYTES_PER_SECOND", 1e12)
    slow = read_credential(large, trust_anchors_pem=keys.root_pem, limits=limits)
    assert slow.state is CredentialState.UNREADABLE
    assert "longer than" in slow.problem
