"""Whatever carries a credential is examined; what was not looked at is said, and never passes."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import c2pa
import pytest
from PIL import Image

from safegen.errors import UnreadableMediaError
from safegen.keys import KeyStore
from safegen.media import read_clip
from safegen.provenance.library import Remembering, library_signer
from safegen.provenance.signer_sources import store_signer
from safegen.settings import Home
from safegen.types import Basis, Finding, Status, Verdict
from safegen.verification.unseen import carrier
from safegen.verification.verifier import verify
from tests.unit.provenance.provenance_samples import ffmpeg

CREATED = {
    "claim_generator_info": [{"name": "another tool", "version": "1"}],
    "assertions": [
        {
            "label": "c2pa.actions",
            "data": {
                "actions": [
                    {
                        "action": "c2pa.created",
                        "digitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
                    }
                ]
            },
        }
    ],
}
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><g/></svg>'
JXL = ((b"JXL ", b"\r\n\x87\n"), (b"ftyp", b"jxl \0\0\0\0jxl "), (b"jxlc", b"\xff\x0a" + bytes(60)))
SOUNDS = ("wav", "mp3", "flac", "m4a")
NOT_READ = ("tiff", "dng", "svg", "jxl", *SOUNDS)


def make_plain(path: Path) -> Path:
    match path.suffix[1:]:
        case "svg":
            path.write_text(
                '<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><g/></svg>'
            )
        case "jxl":  # the container alone: nobody here decodes what is in it
            path.write_bytes(b"".join(_box(*parts) for parts in JXL))
        case "dng":
            Image.effect_noise((32, 32), 50).convert("RGB").save(path, "TIFF", tiffinfo={50706: b"\1\4\0\0"})
        case suffix if suffix in SOUNDS:
            ffmpeg("-f", "lavfi", "-i", "sine=duration=0.2", path)
        case _:
            Image.effect_noise((32, 32), 50).convert("RGB").save(path)
    return path


def sign(plain: Path, target: Path, keys: KeyStore) -> Path:
    signer = store_signer(keys)
    with (
        library_signer(signer, Remembering(signer), None) as library,
        c2pa.Builder(json.dumps(CREATED)) as builder,
        plain.open("rb") as source,
        target.open("w+b") as out,
    ):
        builder.sign(library, plain.suffix[1:], source, out)
    return target


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> KeyStore:
    return KeyStore.init(Home(tmp_path_factory.mktemp("others") / "home"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("ours") / "home")
    KeyStore.init(home)
    return home


def finding(verdict: Verdict, basis: Basis) -> Finding:
    return next(f for f in verdict.findings if f.basis is basis)


@pytest.mark.parametrize("suffix", NOT_READ)
def test_a_credential_in_a_format_without_pictures_was_refused_as_no_media(
    suffix: str, home: Home, others: KeyStore, tmp_path: Path
) -> None:
    signed = sign(make_plain(tmp_path / f"plain.{suffix}"), tmp_path / f"signed.{suffix}", others)
    verdict = verify(signed, home=home)
    credential, mark = finding(verdict, Basis.METADATA), finding(verdict, Basis.WATERMARK)
    assert credential.status is Status.PASS
    assert credential.evidence["ai_generated"] is True
    assert mark.status is Status.NOT_RUN
    assert "are not read" in mark.summary
    assert verdict.verdict == "inconclusive"


@pytest.mark.parametrize("suffix", NOT_READ)
def test_its_name_does_not_matter(suffix: str, home: Home, others: KeyStore, tmp_path: Path) -> None:
    signed = sign(make_plain(tmp_path / f"plain.{suffix}"), tmp_path / "signed.bin", others)
    assert finding(verify(signed, home=home), Basis.METADATA).status is Status.PASS


@pytest.mark.parametrize("suffix", ["tiff", "svg", "flac", "wav"])
def test_a_broken_one_is_damage(suffix: str, home: Home, others: KeyStore, tmp_path: Path) -> None:
    signed = sign(make_plain(tmp_path / f"plain.{suffix}"), tmp_path / f"signed.{suffix}", others)
    content = signed.read_bytes()
    at = content.index(b"9") if suffix == "svg" else 60
    signed.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    verdict = verify(signed, home=home)
    assert verdict.verdict in ("tampered", "inconclusive")
    assert finding(verdict, Basis.METADATA).status is not Status.PASS


def test_film_beyond_4k_took_gigabytes(
    home: Home, others: KeyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoders hold dozens of frames. Its credential is examined all the same, and nothing passes."""
    plain = tmp_path / "plain.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=64x48:duration=0.4", "-pix_fmt", "yuv420p", plain)
    for module in ("safegen.media.decoding", "safegen.verification.unseen"):
        monkeypatch.setattr(f"{module}.MAX_VIDEO_PIXELS", 64 * 48 - 1)
    verdict = verify(sign(plain, tmp_path / "signed.mp4", others), home=home)
    assert finding(verdict, Basis.METADATA).status is Status.PASS
    assert "film of 64x48 pixels is not read" in finding(verdict, Basis.WATERMARK).summary
    assert verdict.verdict == "inconclusive"


def test_a_file_signed_by_this_home_whose_pictures_are_not_read_never_passes(home: Home, tmp_path: Path) -> None:
    keys = KeyStore.load(home, purpose="sign")
    signed = sign(make_plain(tmp_path / "plain.tiff"), tmp_path / "signed.tiff", keys)
    assert verify(signed, home=home).verdict not in ("verified", "recovered")


@pytest.mark.parametrize("suffix", ["pdf", "wav"])
def test_a_file_without_a_credential_of_which_nothing_else_is_read_stays_open(
    suffix: str, home: Home, tmp_path: Path
) -> None:
    plain = tmp_path / f"plain.{suffix}"
    make_plain(plain) if suffix == "wav" else plain.write_bytes(b"%PDF-1.4\n1 0 obj <<>> endobj\ntrailer <<>>\n%%EOF\n")
    verdict = verify(plain, home=home)
    assert finding(verdict, Basis.METADATA).status is not Status.PASS
    assert verdict.verdict == "inconclusive"


@pytest.mark.slow
def test_avif_was_refused_though_its_pictures_can_be_read(home: Home, others: KeyStore, tmp_path: Path) -> None:
    signed = sign(make_plain(tmp_path / "plain.avif"), tmp_path / "signed.avif", others)
    verdict = verify(signed, home=home)
    assert finding(verdict, Basis.METADATA).status is Status.PASS
    assert finding(verdict, Basis.WATERMARK).status is not Status.NOT_RUN


def test_without_a_decoder_the_credential_is_examined_all_the_same(
    home: Home, others: KeyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = sign(make_plain(tmp_path / "plain.avif"), tmp_path / "signed.avif", others)
    monkeypatch.setattr("safegen.media.images.features.check", lambda _: False)
    verdict = verify(signed, home=home)
    assert finding(verdict, Basis.METADATA).status is Status.PASS
    assert "cannot decode AVIF" in finding(verdict, Basis.WATERMARK).summary
    assert verdict.verdict == "inconclusive"


def test_a_heic_picture_without_its_package_is_refused_with_what_to_install(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photo.heic"
    path.write_bytes(_box(b"ftyp", b"heic\0\0\0\0mif1heic") + bytes(40))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UnreadableMediaError, match="pillow-heif") as caught:
        read_clip(path, max_frames=1)
    assert "safegen[heic]" in caught.value.remedy
    assert "pillow-heif" in finding(verify(path, home=home), Basis.WATERMARK).summary


@pytest.mark.parametrize("content", [b"\0", b"plain words", b"II+\0 no TIFF", b"\0\0\0\x10ftypisom\0\0\0\0", b"<html>"])
def test_what_carries_nothing_stays_bad_input(content: bytes, home: Home, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert carrier(path) is None
    with pytest.raises(UnreadableMediaError):
        verify(path, home=home)
