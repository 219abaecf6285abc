"""``verify --strict`` and ``--crjson`` on generated clips: what is asked for, named, and where it is all there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from safegen.keys import KeyStore
from safegen.settings import Home
from tests.e2e.conftest import PROMPT, SMALL, Made, Shell
from tests.unit.provenance.pki_samples import TimeStampAuthority


def failed(printed: dict[str, Any]) -> dict[str, str]:
    requirements = printed["strict"]["requirements"]
    assert len({r["id"] for r in requirements}) == len(requirements) == 4 + 31
    assert printed["strict"]["passed"] is all(r["passed"] for r in requirements)
    return {r["id"]: r["detail"] for r in requirements if not r["passed"]}


def test_a_clip_without_a_time_stamp_is_verified_but_not_strictly(shell: Shell, made: Made, tmp_path: Path) -> None:
    printed = shell.json("verify", made.path, "--strict", code=1)
    assert printed["verdict"] == "verified"
    assert failed(printed) == {"strict:time-stamp": "there is no time-stamp"}
    changed = tmp_path / "changed.mp4"
    content = bytearray(made.path.read_bytes())
    content[content.rindex(b"mdat") + 3000] ^= 1
    changed.write_bytes(content)
    told = shell("verify", changed, "--strict", "--no-neural", code=1).stdout
    assert "TAMPERED" in told
    for name in ("strict:verdict", "strict:credential", "strict:time-stamp", "validation:valid_success"):
        assert name in told
    assert "assertion.bmffHash.mismatch" in told
    assert "STRICT  4 of 35 requirements do not hold" in told


def test_crjson_is_all_that_is_printed(shell: Shell, made: Made) -> None:
    done = shell("verify", made.path, "--crjson", code=0)
    (manifest,) = json.loads(done.stdout)["manifests"]
    assert (manifest["label"], done.stderr) == (made.printed["manifest_id"], "")
    codes = {entry["code"] for entry in manifest["validationResults"]["success"]}
    assert {"signingCredential.trusted", "assertion.bmffHash.match"} <= codes


def test_a_stamped_clip_is_verified_strictly_at_home_and_where_its_signer_is_listed(
    fresh_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, clip, shell = tmp_path / "authority", tmp_path / "clip.mp4", Shell(fresh_home)
    folder.mkdir()
    with TimeStampAuthority(folder).serve() as authority:
        monkeypatch.setenv("SAFEGEN_TSA", authority.url)
        size = ("--frames", str(SMALL["frames"]), "--steps", str(SMALL["steps"]))
        shell.json("generate", PROMPT, "-o", clip, "--seed", "7", *size, code=0)
        monkeypatch.delenv("SAFEGEN_TSA")
    printed = shell.json("verify", clip, "--strict", code=1)
    assert printed["verdict"] == "verified"
    assert "is of an authority on no list" in failed(printed)["strict:time-stamp"]

    anchor, root = tmp_path / "tsa.pem", tmp_path / "root.pem"
    anchor.write_text(authority.authority.root.pem)
    shell("trust", "add", anchor, "--name", "house-tsa", "--kind", "tsa", code=0)
    told = shell("verify", clip, "--strict", code=0).stdout
    assert told.startswith("VERIFIED")
    assert "STRICT  all 35 requirements hold" in told

    other = Shell(Home(tmp_path / "other"))
    root.write_text(KeyStore.load(fresh_home, purpose="verify").root_pem)
    other("trust", "add", anchor, "--name", "house-tsa", "--kind", "tsa", code=0)
    other("trust", "add", root, "--name", "studio", code=0)
    printed = other.json("verify", clip, "--strict", code=1)
    assert printed["verdict"] == "unverified"
    assert set(failed(printed)) == {"strict:verdict", "strict:signer"}
    printed = other.json("verify", clip, "--strict", "--accept-listed", code=0)
    assert (printed["verdict"], failed(printed)) == ("unverified", {})


@pytest.mark.slow
def test_a_listed_signers_file_of_an_older_version_failed_like_a_forged_one(tmp_path: Path, shared_data: Path) -> None:
    folder, shell = shared_data / "c2pa", Shell(Home(tmp_path / "home"))
    older = folder / "adobe-20220124-CA.jpg"
    shell("keys", "init", code=0)
    shell("trust", "add", folder / "trust" / "c2pa-rs-test-roots.pem", "--name", "test-roots", code=0)
    told = shell("verify", older, "--strict", "--accept-listed", code=5).stdout
    assert "OLDER VERSION" in told
    assert "follows C2PA 1," in told
    printed = shell.json("verify", older, "--strict", "--accept-listed", code=5)
    assert (printed["verdict"], printed["strict"]["passed"]) == ("unverified", False)
    assert printed["strict"]["older_version"] == "1"
    shell("verify", older, "--strict", code=1)  # whose list nobody has asked to accept
    changed = folder / "adobe-20220124-XCA.jpg"
    shell("verify", changed, "--strict", "--accept-listed", code=1)
    told = shell("verify", older, changed, "--strict", "--accept-listed", code=1).stdout
    assert "sound, of C2PA 1: " in told
