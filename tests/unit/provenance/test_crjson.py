"""crJSON as a conformance test asks for it: a file, two trust lists, and what they vouch for kept apart."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from safegen.cli import app
from safegen.errors import InputError, UnreadableMediaError, VerificationError
from safegen.keys import KeyStore
from safegen.provenance import sandbox
from safegen.provenance.crjson import read_anchors, read_crjson
from safegen.provenance.file_signing import sign_file
from safegen.provenance.native.cose import ClaimSigner, Evidence
from safegen.provenance.native.writer import Request, write_file
from safegen.provenance.sandbox import ReadLimits, Task
from safegen.settings import Home
from safegen.verification.strict import crjson
from tests.unit.provenance.native_pki import Pki, TimestampAuthority, make_pki, ocsp_response
from tests.unit.provenance.provenance_samples import ffmpeg, make_clip, make_spec

SIGNER = {"signingCredential.trusted": True, "signingCredential.untrusted": False}
STAMP = {"timeStamp.trusted": True, "timeStamp.untrusted": False}


@pytest.fixture(scope="module")
def pki() -> Pki:
    return make_pki()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> TimestampAuthority:
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command as time-stamp authority")
    return TimestampAuthority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stamped(tmp_path_factory: pytest.TempPathFactory, pki: Pki, authority: TimestampAuthority) -> Path:
    folder = tmp_path_factory.mktemp("stamped")
    signer = ClaimSigner.from_pem(pki.chain_pem, pki.leaf.key_pem)
    request = Request(make_spec(), signer, evidence=Evidence(ocsp_response(pki), authority))
    write_file(make_clip(folder / "clip.mp4"), folder / "signed.mp4", request)
    return folder / "signed.mp4"


def found(document: dict[str, Any]) -> tuple[bool, bool]:
    """Whether the signer and the time-stamp are trusted; each is said exactly once."""
    results = document["manifests"][0]["validationResults"]
    codes = [entry["code"] for group in ("success", "informational", "failure") for entry in results[group]]
    (signer,) = [SIGNER[code] for code in codes if code in SIGNER]
    (stamp,) = [STAMP[code] for code in codes if code in STAMP]
    assert ("signingCredential.trusted" in {e["code"] for e in results["success"]}) is signer
    assert ("signingCredential.untrusted" in {e["code"] for e in results["failure"]}) is not signer
    return signer, stamp


@pytest.mark.parametrize("signers", ["", "signer", "authority", "signer authority"])
@pytest.mark.parametrize("authorities", ["", "signer", "authority", "signer authority"])
def test_each_list_vouches_for_its_own_kind_alone(
    stamped: Path, pki: Pki, authority: TimestampAuthority, signers: str, authorities: str
) -> None:
    roots = {"signer": pki.root.pem, "authority": authority.root.pem}
    lists = {kind: "".join(roots[name] for name in text.split()) for kind, text in
             (("signers_pem", signers), ("authorities_pem", authorities))}  # fmt: skip
    assert found(read_crjson(stamped, **lists)) == ("signer" in signers, "authority" in authorities)


def test_document(stamped: Path, pki: Pki) -> None:
    document = read_crjson(stamped, signers_pem=pki.root.pem)
    assert {"@context", "manifests", "jsonGenerator"} <= set(document)
    (manifest,) = document["manifests"]
    assert {"label", "claim.v2", "assertions", "signature", "validationResults"} <= set(manifest)
    assert manifest["validationResults"]["validationTime"]


def test_files_without_manifests(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4")
    ffmpeg("-i", clip, "-c", "copy", tmp_path / "clip.mkv")
    for path in (clip, tmp_path / "clip.mkv"):
        document = read_crjson(path)
        assert document["manifests"] == []
        assert document["jsonGenerator"]["name"] == "safegen"


def test_sidecar(stamped: Path, tmp_path: Path) -> None:
    keys = KeyStore.init(Home(tmp_path / "home"))
    clip = make_clip(tmp_path / "clip.mp4")
    kept = sign_file(clip, tmp_path / "signed.mp4", make_spec(), keys)
    (tmp_path / "clip.c2pa").write_bytes(kept.manifest_bytes)
    (manifest,) = read_crjson(clip, signers_pem=keys.root_pem)["manifests"]
    assert manifest["label"] == kept.manifest_id


def test_bad_files(tmp_path: Path, stamped: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    for path in (tmp_path / "none.mp4", tmp_path / "empty.mp4", tmp_path):
        with pytest.raises(UnreadableMediaError):
            read_crjson(path)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(stamped.read_bytes()[:3000])
    with pytest.raises(VerificationError, match="cannot be read"):
        read_crjson(cut)
    (tmp_path / "anchors.pem").write_text("no certificate")
    for path in (tmp_path / "anchors.pem", tmp_path / "none.pem"):
        with pytest.raises(InputError):
            read_anchors(path)
        with pytest.raises(InputError):
            crjson(stamped, trust_anchors=path, home=Home(tmp_path / "home"))


def test_a_home_without_keys_reads_crjson(tmp_path: Path, stamped: Path) -> None:
    assert found(crjson(stamped, home=Home(tmp_path / "home"))) == (False, False)


def test_the_process_that_can_be_killed_answers_the_same(stamped: Path, pki: Pki) -> None:
    answer = sandbox.run(Task(stamped, pki.root.pem, None, (), crjson=True), ReadLimits(), 60.0)
    assert not answer["error"]
    other, here = answer["store"], read_crjson(stamped, signers_pem=pki.root.pem)
    for document in (other, here):
        del document["manifests"][0]["validationResults"]["validationTime"]
    assert other == here


def test_command(stamped: Path, tmp_path: Path, pki: Pki, authority: TimestampAuthority) -> None:
    (tmp_path / "signers.pem").write_text(f"# a comment\n{pki.root.pem}")
    (tmp_path / "authorities.pem").write_text(authority.root.pem)
    run, options = CliRunner(), ["--trust-anchors", str(tmp_path / "signers.pem")]
    environment = {"SAFEGEN_HOME": str(tmp_path / "home")}
    done = run.invoke(app, ["verify", str(stamped), "--crjson", *options], env=environment)
    assert (done.exit_code, found(json.loads(done.stdout))) == (0, (True, False))
    options += ["--tsa-anchors", str(tmp_path / "authorities.pem")]
    done = run.invoke(app, ["verify", str(stamped), "--crjson", *options], env=environment)
    assert (done.exit_code, found(json.loads(done.stdout))) == (0, (True, True))
    done = run.invoke(app, ["verify", str(tmp_path / "none.mp4"), "--crjson"], env=environment)
    assert (done.exit_code, json.loads(done.stdout)["error"]["type"]) == (2, "UnreadableMediaError")


@pytest.mark.skipif(shutil.which("faketime") is None, reason="needs the faketime command")
def test_another_time_of_validation_by_faketime(stamped: Path, tmp_path: Path, pki: Pki) -> None:
    """The way in which docs/conformance.md says that a test harness sets it: the library has none."""
    (tmp_path / "signers.pem").write_text(pki.root.pem)
    command = ["faketime", "-f", "@2099-01-02 03:04:05", sys.executable, "-m", "safegen", "verify", str(stamped)]
    command += ["--crjson", "--trust-anchors", str(tmp_path / "signers.pem")]
    environment = os.environ | {"SAFEGEN_HOME": str(tmp_path / "home"), "TZ": "UTC"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    results = json.loads(done.stdout)["manifests"][0]["validationResults"]
    assert results["validationTime"].startswith("2099-01-02T03:04:")
    assert "signingCredential.expired" in {entry["code"] for entry in results["failure"]}


@pytest.mark.parametrize(
    "options",
    [("--crjson", "--strict"), ("--trust-anchors", "x.pem"), ("--tsa-anchors", "x.pem"), ("--accept-listed",)],
)
def test_options_that_do_not_go_together(options: tuple[str, ...]) -> None:
    assert CliRunner().invoke(app, ["verify", "clip.mp4", *options]).exit_code == 2
