"""Whole files that keep their parts in unusual ways are read and signed, and show what they showed."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from safegen.errors import MediaError, ProvenanceError, UnreadableMediaError
from safegen.keys import KeyStore
from safegen.media import decode
from safegen.provenance.backends import BACKENDS, Signing
from safegen.provenance.credential import CredentialState
from safegen.provenance.file_signing import sign_file
from safegen.provenance.manifest import MediaFormat
from safegen.provenance.native.boxes import top_level
from safegen.provenance.native.cose import ClaimSigner
from safegen.provenance.native.writer import Request, write_in_place
from safegen.provenance.read import read_credential
from safegen.settings import Home
from tests.unit.provenance.provenance_samples import ffmpeg, make_clip, make_spec, make_still

FORMATS = {"mp4": MediaFormat.MP4, "mov": MediaFormat.MOV, "png": MediaFormat.PNG, "jpg": MediaFormat.JPEG}
JUNK = b"\1\2\3written by a camera behind the film"


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyStore:
    return KeyStore.init(Home(tmp_path_factory.mktemp("odd") / "home"))


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("odd")
    mp4, jpg = make_clip(folder / "plain.mp4").read_bytes(), make_still(folder / "plain.jpg").read_bytes()
    ffmpeg("-i", folder / "plain.mp4", "-c", "copy", folder / "plain.mov")
    mov = (folder / "plain.mov").read_bytes()
    head = int.from_bytes(mov[:4], "big")  # of ftyp: a box of its size in its place moves no offset
    other = box(b"jumb", box(b"jumd", bytes(range(16)) + b"\3other\0") + box(b"json", b"{}"))
    segment = struct.pack(">BBH2sHI", 0xFF, 0xEB, 10 + len(other), b"JP", 7, 1) + other
    made = {
        "trailing.mp4": mp4 + JUNK,
        "two-bytes.mp4": mp4 + b"\0\1",
        "old.mov": box(b"wide", bytes(head - 8)) + mov[head:],
        "old-trailing.mov": box(b"free", bytes(head - 8)) + mov[head:] + JUNK,
        "trailing.png": make_still(folder / "plain.png").read_bytes() + JUNK,
        "trailing.jpg": jpg + JUNK,
        "other-jumbf.jpg": jpg[:20] + segment + jpg[20:],
    }
    for name, content in made.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in made}


NAMES = (
    "trailing.mp4", "two-bytes.mp4", "old.mov", "old-trailing.mov", "trailing.png", "trailing.jpg", "other-jumbf.jpg",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_an_odd_file_was_called_unreadable_or_could_not_be_signed(
    name: str, odd: dict[str, Path], keys: KeyStore, tmp_path: Path
) -> None:
    source, target = odd[name], tmp_path / name
    assert read_credential(source).state is CredentialState.ABSENT
    sign_file(source, target, make_spec(keys, media_format=FORMATS[source.suffix[1:]]), keys)
    assert read_credential(target, trust_anchors_pem=keys.root_pem).state is CredentialState.TRUSTED
    assert all(np.array_equal(a, b) for a, b in zip(decode(source), decode(target), strict=True))


@pytest.mark.parametrize("name", ["trailing.mp4", "old-trailing.mov", "trailing.png", "other-jumbf.jpg"])
def test_what_else_the_file_holds_stays_in_it_and_is_bound(
    name: str, odd: dict[str, Path], keys: KeyStore, tmp_path: Path
) -> None:
    target = tmp_path / name
    sign_file(odd[name], target, make_spec(keys, media_format=FORMATS[target.suffix[1:]]), keys)
    content = bytearray(target.read_bytes())
    kept = JUNK if "trailing" in name else b"other\0"
    content[content.index(kept)] ^= 1
    target.write_bytes(content)
    found = read_credential(target, trust_anchors_pem=keys.root_pem)
    assert found.state in (CredentialState.INVALID, CredentialState.UNREADABLE)


@pytest.mark.parametrize("name", ["trailing.mp4", "old.mov"])
def test_an_odd_film_is_not_signed_in_place(
    name: str, odd: dict[str, Path], signer: ClaimSigner, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(odd[name].read_bytes())
    with pytest.raises(MediaError):
        write_in_place(path, Request(make_spec(media_format=FORMATS[path.suffix[1:]]), signer))
    assert path.read_bytes() == odd[name].read_bytes()


@pytest.mark.parametrize("kind", [b"mdat", b"moov", b"moof", b"uuid", b"free"])
def test_a_box_that_is_cut_off_is_damage_and_no_trailing_bytes(
    kind: bytes, odd: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "cut.mp4"
    path.write_bytes(odd["trailing.mp4"].read_bytes().removesuffix(JUNK) + struct.pack(">I4s", 999, kind) + bytes(40))
    with path.open("rb") as file, pytest.raises(UnreadableMediaError):
        top_level(file, lenient=True)


def test_bytes_behind_a_signed_film_are_damage_to_it(odd: dict[str, Path], keys: KeyStore, tmp_path: Path) -> None:
    target = tmp_path / "signed.mp4"
    sign_file(odd["trailing.mp4"], target, make_spec(keys), keys)
    target.write_bytes(target.read_bytes() + JUNK)
    assert read_credential(target, trust_anchors_pem=keys.root_pem).state is CredentialState.INVALID


def test_a_film_that_names_a_store_which_cannot_be_parsed_stays_unreadable_or_damaged(
    odd: dict[str, Path], tmp_path: Path
) -> None:
    for trace in (b"urn:c2pa:0", b"c2pa.assertions", bytes.fromhex("d8fec3d61b0e483c92975828877ec481")):
        path = tmp_path / "a.mp4"
        path.write_bytes(odd["trailing.mp4"].read_bytes() + trace)
        assert read_credential(path).state in (CredentialState.UNREADABLE, CredentialState.INVALID)


def test_a_jpeg_with_a_manifest_is_still_refused(odd: dict[str, Path], keys: KeyStore, tmp_path: Path) -> None:
    spec = make_spec(keys, media_format=MediaFormat.JPEG)
    sign_file(odd["other-jumbf.jpg"], tmp_path / "one.jpg", spec, keys)
    for backend in BACKENDS.values():
        with pytest.raises(ProvenanceError):
            sign_file(tmp_path / "one.jpg", tmp_path / "two.jpg", spec, keys, signing=Signing(backend))
