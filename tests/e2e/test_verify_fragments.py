"""``safegen verify`` on the segments of a stream."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from safegen.cli.app import app
from safegen.keys import KeyStore
from safegen.settings import Home


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFEGEN_HOME", str(tmp_path / "home"))
    KeyStore.init(Home(tmp_path / "home"))


def verify(*arguments: object, code: int) -> dict[str, object]:
    done = CliRunner().invoke(app, ["verify", *map(str, arguments), "--json", "--no-neural"])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_segments_are_validated_with_their_initialisation_segment(shared_data: Path, tmp_path: Path) -> None:
    first, segment = shared_data / "c2pa" / "py-dashinit.mp4", shared_data / "c2pa" / "py-dash1.m4s"
    metadata = verify(first, "--fragment", segment, code=4)["findings"][0]  # type: ignore[index]
    assert (metadata["status"], metadata["evidence"]["state"]) == ("pass", "valid")
    spoilt = bytearray(segment.read_bytes())
    spoilt[-100] ^= 1
    (tmp_path / "spoilt.m4s").write_bytes(spoilt)
    answer = verify(first, "--fragment", tmp_path / "spoilt.m4s", code=1)
    assert answer["verdict"] == "tampered"
    assert "bmffHash.mismatch" in answer["findings"][0]["summary"]  # type: ignore[index]


def test_a_segment_that_is_missing_is_named(shared_data: Path, tmp_path: Path) -> None:
    answer = verify(shared_data / "c2pa" / "py-dashinit.mp4", "--fragment", tmp_path / "none.m4s", code=2)
    assert "none.m4s" in answer["error"]["message"]  # type: ignore[index]
