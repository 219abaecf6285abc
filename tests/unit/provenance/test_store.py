"""Kept manifests."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from safegen.errors import ProvenanceError
from safegen.provenance.kept_manifests import load_manifest, store_manifest
from safegen.settings import Home
from safegen.types import ContentId, new_content_id


def test_stored_manifest_comes_back(tmp_path: Path) -> None:
    home, content_id, content = Home(tmp_path / "home"), new_content_id(), bytes(range(256)) * 20
    assert load_manifest(home, content_id) is None
    assert store_manifest(home, content_id, content) == hashlib.sha256(content).hexdigest()
    assert load_manifest(home, content_id) == content
    assert [p.name for p in home.manifests.iterdir()] == [f"{content_id}.c2pa"]


def test_storing_again_changes_nothing(tmp_path: Path) -> None:
    home, content_id = Home(tmp_path), new_content_id()
    assert store_manifest(home, content_id, b"one") == store_manifest(home, content_id, b"one")
    with pytest.raises(ProvenanceError, match="of another clip"):
        store_manifest(home, content_id, b"two")
    assert load_manifest(home, content_id) == b"one"
    assert len(list(home.manifests.iterdir())) == 1


@pytest.mark.parametrize("bad", ["", "../../etc/passwd", "0123456789abcdeF", "0123456789abcdef/", "0" * 17, None, 7])
def test_content_id_never_becomes_another_path(tmp_path: Path, bad: object) -> None:
    for act in (
        lambda: load_manifest(Home(tmp_path), ContentId(bad)),  # type: ignore[arg-type]
        lambda: store_manifest(Home(tmp_path), ContentId(bad), b"x"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ProvenanceError):
            act()
    assert not list(tmp_path.iterdir())


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "manifests").write_text("in the way")
    with pytest.raises(ProvenanceError, match="cannot keep"):
        store_manifest(Home(tmp_path), new_content_id(), b"x")
    with pytest.raises(ProvenanceError, match="cannot read"):
        load_manifest(Home(tmp_path), new_content_id())


def test_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    home, content_id = Home(tmp_path), new_content_id()
    with pytest.raises(ProvenanceError, match="No space left"):
        store_manifest(home, content_id, b"x")
    assert not list(home.manifests.iterdir())
