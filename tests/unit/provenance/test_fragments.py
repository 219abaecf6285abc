"""DASH and CMAF: an initialisation segment is read together with its segments."""

from __future__ import annotations

from pathlib import Path

import pytest

from safegen.errors import UnreadableMediaError
from safegen.provenance.credential import CredentialState
from safegen.provenance.read import MAX_FRAGMENTS, read_credential
from safegen.provenance.sandbox import ReadLimits

MISMATCH = "assertion.bmffHash.mismatch"


@pytest.fixture
def init(shared_data: Path) -> Path:
    return shared_data / "c2pa" / "py-dashinit.mp4"


@pytest.fixture
def segment(shared_data: Path) -> Path:
    return shared_data / "c2pa" / "py-dash1.m4s"


def spoil(source: Path, target: Path, at: int) -> Path:
    content = bytearray(source.read_bytes())
    content[at] ^= 1
    target.write_bytes(content)
    return target


def test_segment_that_belongs_to_it(init: Path, segment: Path) -> None:
    alone = read_credential(init)
    assert (alone.state, alone.content_matches) == (CredentialState.INVALID, False)
    found = read_credential(init, fragments=[segment])
    assert (found.state, found.content_matches, found.problem) == (CredentialState.VALID, True, "")
    assert found.manifest_id == alone.manifest_id
    assert read_credential(init, fragments=[segment, segment]).state is CredentialState.VALID


@pytest.mark.parametrize("at", [-100, -60_000])
def test_tampered_segment(tmp_path: Path, init: Path, segment: Path, at: int) -> None:
    bad = spoil(segment, tmp_path / "bad.m4s", at)
    for fragments in ([bad], [segment, bad], [bad, segment]):
        found = read_credential(init, fragments=fragments)
        assert (found.state, found.content_matches) == (CredentialState.INVALID, False)
        assert MISMATCH in found.failure_codes
        assert "bad.m4s" in found.problem


def test_tampered_initialisation_segment(tmp_path: Path, init: Path, segment: Path) -> None:
    bad = spoil(init, tmp_path / "bad.mp4", -100)
    assert read_credential(bad, fragments=[segment]).state is CredentialState.INVALID


def test_segment_of_another_stream(shared_data: Path, init: Path) -> None:
    folder = shared_data / "c2pa" / "bunny"
    other = folder / "BigBuckBunny_2s1.m4s"
    assert read_credential(init, fragments=[other]).state is CredentialState.INVALID
    assert read_credential(folder / "BigBuckBunny_2s_init.mp4", fragments=[other]).state is CredentialState.ABSENT


@pytest.mark.parametrize("content", [b"", b"junk" * 100, b"\0\0\0\1moof" + b"\xff" * 8])
def test_segment_that_is_none(tmp_path: Path, init: Path, content: bytes) -> None:
    path = tmp_path / "segment.m4s"
    path.write_bytes(content)
    assert read_credential(init, fragments=[path]).state is CredentialState.INVALID


def test_segments_that_cannot_be_read(tmp_path: Path, init: Path) -> None:
    with pytest.raises(UnreadableMediaError, match=r"missing\.m4s"):
        read_credential(init, fragments=[tmp_path / "missing.m4s"])
    assert read_credential(init, fragments=[tmp_path]).state is not CredentialState.VALID
    with pytest.raises(UnreadableMediaError, match="too many"):
        read_credential(init, fragments=[init] * (MAX_FRAGMENTS + 1))


def test_too_many_segments_for_the_time(init: Path, segment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safegen.provenance.sandbox.BYTES_PER_SECOND", 1e12)
    found = read_credential(init, fragments=[segment] * 2_000, limits=ReadLimits(seconds=0.3))
    assert found.state is CredentialState.UNREADABLE
    assert "longer than" in found.problem
