"""Reading credentials: stripped, tampered, recovered, foreign and hostile files."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from safegen.errors import UnreadableMediaError
from safegen.keys import KeyStore
from safegen.provenance import report as report_module
from safegen.provenance.credential import Credential, CredentialState, Origin
from safegen.provenance.file_signing import SignedAsset, sign_file
from safegen.provenance.manifest import MediaFormat
from safegen.provenance.read import read_credential, read_manifest_store
from safegen.provenance.report import clean, to_credential
from safegen.settings import Home
from tests.unit.provenance.expiry import made_before_expiry
from tests.unit.provenance.provenance_samples import CONTENT_ID, ffmpeg, flip, make_spec, make_still

ACCEPTED = {CredentialState.VALID, CredentialState.TRUSTED}


@pytest.fixture(scope="module")
def signed(folder: Path, clip: Path, keys: KeyStore) -> SignedAsset:
    return sign_file(clip, folder / "signed.mp4", make_spec(keys), keys)


@pytest.fixture(scope="module")
def signed_still(folder: Path, keys: KeyStore) -> SignedAsset:
    spec = make_spec(keys, media_format=MediaFormat.PNG)
    return sign_file(make_still(folder / "still.png"), folder / "signed.png", spec, keys)


def read(path: Path, keys: KeyStore) -> Credential:
    return read_credential(path, trust_anchors_pem=keys.root_pem)


# --- absent, stripped, recovered --------------------------------------------------------------------------------------


def test_unsigned_file(clip: Path) -> None:
    assert read_credential(clip) == Credential(CredentialState.ABSENT)


@pytest.mark.parametrize("name", ["copy.mp4", "copy.mkv", "smaller.mp4", "other.webm", "frame.png"])
def test_stripped_file_is_recovered_from_the_kept_manifest(
    tmp_path: Path, signed: SignedAsset, keys: KeyStore, name: str
) -> None:
    how = {
        "copy.mp4": ["-c", "copy"],
        "copy.mkv": ["-c", "copy"],
        "smaller.mp4": ["-vf", "scale=64:64"],
        "other.webm": ["-c:v", "libvpx"],
        "frame.png": ["-frames:v", "1"],
    }
    stripped = tmp_path / name
    ffmpeg("-i", signed.path, *how[name], stripped)
    assert read(stripped, keys).state is CredentialState.ABSENT
    found = read_manifest_store(signed.manifest_bytes, stripped, trust_anchors_pem=keys.root_pem)
    assert found.state is CredentialState.INVALID
    assert found.origin is Origin.GIVEN
    assert (found.signature_valid, found.signer_trusted, found.content_matches) == (True, True, False)
    assert (found.content_id, found.manifest_id) == (CONTENT_ID, signed.manifest_id)
    assert found.failure_codes == ("assertion.bmffHash.mismatch",)


def test_kept_manifest_of_someone_else_is_not_ours(tmp_path: Path, clip: Path, keys: KeyStore) -> None:
    stranger = KeyStore.init(Home(tmp_path))
    forged = sign_file(clip, tmp_path / "forged.mp4", make_spec(), stranger)
    found = read_manifest_store(forged.manifest_bytes, clip, trust_anchors_pem=keys.root_pem)
    assert (found.signature_valid, found.signer_trusted) == (True, False)


@pytest.mark.slow
def test_kept_manifest_that_was_changed(clip: Path, signed: SignedAsset, keys: KeyStore) -> None:
    """C2PA leaves box labels and the signature's padding unprotected: a change there passes, and changes no word."""
    original = read_manifest_store(signed.manifest_bytes, clip, trust_anchors_pem=keys.root_pem)
    chance, refused = random.Random(7), 0
    for _ in range(150):
        content = bytearray(signed.manifest_bytes)
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        found = read_manifest_store(bytes(content), clip, trust_anchors_pem=keys.root_pem)
        refused += not found.signature_valid
        assert found == original or not found.signature_valid
    assert refused > 75


@pytest.mark.parametrize("name", ["beside.mp4", "beside.webm"])
def test_sidecar(tmp_path: Path, signed: SignedAsset, clip: Path, keys: KeyStore, name: str) -> None:
    media = tmp_path / name
    if name.endswith("mp4"):  # the same bytes at the same place, as the manifest's own box is not hashed
        shutil.copy(signed.path, media)
    else:
        ffmpeg("-i", clip, "-c:v", "libvpx", media)
    (tmp_path / "beside.c2pa").write_bytes(signed.manifest_bytes)
    found = read(media, keys)
    if name.endswith("mp4"):
        assert (found.state, found.origin) == (CredentialState.TRUSTED, Origin.EMBEDDED)
    else:
        assert (found.state, found.origin) == (CredentialState.ABSENT, Origin.NONE)
        assert found.problem.startswith("beside.c2pa beside it belongs to another file")


@pytest.mark.parametrize("content", [b"", b"junk", bytes(1000)])
def test_broken_sidecar(tmp_path: Path, clip: Path, content: bytes) -> None:
    media = tmp_path / "beside.mp4"
    shutil.copy(clip, media)
    (tmp_path / "beside.c2pa").write_bytes(content)
    found = read_credential(media)
    assert (found.state, found.origin) == (CredentialState.ABSENT, Origin.NONE)
    assert found.problem == "beside.c2pa beside it holds no manifest"


def test_file_signed_before_the_keys_were_replaced(tmp_path: Path, clip: Path) -> None:
    home = Home(tmp_path / "home")
    old = sign_file(clip, tmp_path / "old.mp4", make_spec(), KeyStore.init(home))
    new = KeyStore.init(home, force=True)
    assert read(old.path, new).state is CredentialState.VALID
    anchors = "".join(k.root_pem for k in (new, *KeyStore.retired(home)))
    assert read_credential(old.path, trust_anchors_pem=anchors).state is CredentialState.TRUSTED


# --- tampered ---------------------------------------------------------------------------------------------------------


def test_one_flipped_bit_in_the_video_data(tmp_path: Path, signed: SignedAsset, keys: KeyStore) -> None:
    content = signed.path.read_bytes()
    start = content.index(b"mdat") + 4
    for offset in range(start, len(content), max(1, (len(content) - start) // 20)):
        found = read(flip(signed.path, tmp_path / "flipped.mp4", offset), keys)
        assert found.state is CredentialState.INVALID
        assert found.content_matches is False
        assert found.signature_valid
        assert found.failure_codes == ("assertion.bmffHash.mismatch",)


def test_changed_words_in_the_manifest(tmp_path: Path, signed: SignedAsset, keys: KeyStore) -> None:
    content = signed.path.read_bytes()
    changed = tmp_path / "changed.mp4"
    changed.write_bytes(content.replace(CONTENT_ID.encode(), b"fedcba9876543210"))
    found = read(changed, keys)
    assert found.state is CredentialState.INVALID
    assert not found.signature_valid
    assert "assertion.hashedURI.mismatch" in found.failure_codes


def test_manifest_transplanted_to_another_clip(tmp_path: Path, signed: SignedAsset, keys: KeyStore) -> None:
    other = tmp_path / "other.mp4"
    ffmpeg("-f", "lavfi", "-i", "mandelbrot=size=96x96:rate=16", "-frames:v", "8", "-pix_fmt", "yuv420p", other)
    content, host = signed.path.read_bytes(), other.read_bytes()
    at = content.index(b"uuid") - 4
    box = content[at : at + int.from_bytes(content[at : at + 4], "big")]
    end = int.from_bytes(host[:4], "big")
    other.write_bytes(host[:end] + box + host[end:])
    found = read(other, keys)
    assert found.state is CredentialState.INVALID
    assert (found.signature_valid, found.content_matches) == (True, False)


def test_expired_certificate(tmp_path: Path, clip: Path) -> None:
    """Signed while valid, read after expiry, no time-stamp: invalid by C2PA, but told apart from tampering."""

    def sign(keys: KeyStore) -> SignedAsset:
        signed = sign_file(clip, tmp_path / "out.mp4", make_spec(), keys)
        assert not read(signed.path, keys).only_expired
        return signed

    keys, signed = made_before_expiry(Home(tmp_path / "home"), sign)
    found = read(signed.path, keys)
    assert found.state is CredentialState.INVALID
    assert "signingCredential.expired" in found.failure_codes
    assert found.only_expired
    content = signed.path.read_bytes()
    broken = read(flip(signed.path, tmp_path / "broken.mp4", content.index(b"mdat") + 20), keys)
    assert not broken.only_expired


# --- malformed --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "pipe", "device"])
def test_no_file_at_all(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "clip.mp4"
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to(os.devnull)
    with pytest.raises(UnreadableMediaError) as caught:
        read_credential(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["junk.mp4", "junk.png", "junk.jpg"])
def test_junk_with_a_media_name_is_unreadable(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"hello world " * 100)
    assert read_credential(path).state in {CredentialState.UNREADABLE, CredentialState.ABSENT}


def test_boxes_nested_a_thousand_deep(tmp_path: Path) -> None:
    box = b""
    for _ in range(1000):
        box = (len(box) + 8).to_bytes(4, "big") + b"moov" + box
    path = tmp_path / "nested.mp4"
    path.write_bytes(b"\x00\x00\x00\x14ftypisom\x00\x00\x02\x00isom" + box)
    assert read_credential(path).state is CredentialState.UNREADABLE


@pytest.mark.parametrize("given", [b"", b"junk", bytes(5000), b"\xff" * 100])
def test_junk_as_manifest(clip: Path, given: bytes) -> None:
    found = read_credential(clip, manifest_bytes=given)
    assert (found.state, found.origin) == (CredentialState.UNREADABLE, Origin.GIVEN)


@pytest.mark.parametrize("kind", ["mp4", "png"])
def test_truncations(tmp_path: Path, signed: SignedAsset, signed_still: SignedAsset, keys: KeyStore, kind: str) -> None:
    source = (signed if kind == "mp4" else signed_still).path
    content = source.read_bytes()
    path = tmp_path / f"cut.{kind}"
    for length in range(1, len(content), max(1, len(content) // 150)):
        path.write_bytes(content[:length])
        assert read(path, keys).state not in ACCEPTED


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mp4", "png"])
def test_bit_flips(tmp_path: Path, signed: SignedAsset, signed_still: SignedAsset, keys: KeyStore, kind: str) -> None:
    """What passes lies before the media data (ftyp, box labels, padding: unprotected by C2PA) and changes no word."""
    source = (signed if kind == "mp4" else signed_still).path
    content, original, chance = source.read_bytes(), read(source, keys), random.Random(20260701)
    media_starts = content.index(b"moov" if kind == "mp4" else b"IDAT") - 4
    path = tmp_path / f"flipped.{kind}"
    for _ in range(300):
        offset = chance.randrange(len(content))
        found = read(flip(source, path, offset, 1 << chance.randrange(8)), keys)
        if found.state in ACCEPTED:
            assert offset < media_starts
            assert found == original


def test_odd_values_in_a_report() -> None:
    """Whatever JSON types a manifest holds, reading ends in a Credential."""
    odd = [None, 0, "", "x", [], [None], {}, {"a": 1}, [[]], [{"data": []}], True, 1.5, [{"label": 5}], [{"code": {}}]]
    manifest_keys = ("assertions", "ingredients", "signature_info", "claim_generator_info", "claim_generator")
    for value in odd:
        assert to_credential(value, Origin.EMBEDDED).content_id is None
        for key in manifest_keys:
            store = {"active_manifest": "m", "manifests": {"m": {key: value}}, "validation_state": value}
            assert to_credential(store, Origin.EMBEDDED).state is CredentialState.UNREADABLE
        for data in ({"actions": value}, {"contentId": value}, {"blocks": value}, value):
            for label in ("c2pa.actions.v2", "org.safegen.generation", "c2pa.soft-binding"):
                manifest = {"assertions": [{"label": label, "data": data}]}
                store = {"active_manifest": "m", "manifests": {"m": manifest}, "validation_results": value}
                to_credential(store, Origin.EMBEDDED)


def test_texts_for_terminals_carry_no_control_characters() -> None:
    text = clean("a\x1b[31m\u202eb\x00" + "x" * 10_000)
    assert text.isascii() is False
    assert not any(c in text for c in "\x1b\u202e\x00")
    assert len(text) <= 500


def test_ancestors_that_name_each_other_end() -> None:
    loop = {
        n: {"ingredients": [{"relationship": "parentOf", "active_manifest": other}]}
        for n, other in (("a", "b"), ("b", "a"))
    }
    assert report_module._ai_generated("a", loop) is False


# --- imports ----------------------------------------------------------------------------------------------------------


def test_reading_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'cv2', 'sqlalchemy', 'diffusers', 'cryptography', 'numpy'}"
    code = f"import sys, safegen.provenance.read; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
