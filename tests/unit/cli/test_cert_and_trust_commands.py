"""``safegen cert``, ``safegen trust`` and the settings that choose a signer and time-stamps, as the shell sees them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from safegen.cli import app
from safegen.errors import ConfigError, KeyStoreError
from safegen.keys import KeyStore
from safegen.provenance.signer_sources import open_signer
from safegen.provenance.signing_identity import Seal
from safegen.settings import Home
from tests.unit.provenance.pki_samples import Authority

AUTHORITY = Authority.make()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("SAFEGEN_HOME", str(tmp_path / "home"))
    for name in ("SAFEGEN_SIGNER", "SAFEGEN_TSA", "SAFEGEN_PASSPHRASE"):
        monkeypatch.delenv(name, raising=False)
    return Home.default()


def run(*arguments: str | Path, code: int = 0) -> Any:
    """Run with --json and return the one object that was printed."""
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def text(*arguments: str | Path, code: int = 0) -> str:
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert done.exit_code == code, done.output
    return done.output


@pytest.mark.parametrize("algorithm", ["es256", "ps256"])
def test_cert_init_makes_a_signer_without_defects(tmp_path: Path, algorithm: str) -> None:
    made = run("cert", "init", tmp_path / "pki", "--organisation", "Someone", "--algorithm", algorithm)
    assert [c["subject"].split(",")[0] for c in made["certificates"]] == [
        f"CN=safegen development {part}" for part in ("Claim Signer", "Issuing CA", "Root CA")
    ]
    assert (tmp_path / "pki" / "signing.key").stat().st_mode & 0o777 == 0o600
    assert open_signer(made["signer"]).algorithm == algorithm
    assert run("cert", "lint", tmp_path / "pki" / "chain.pem") == {
        "schema": "safegen.cert.lint/1", "file": str(tmp_path / "pki" / "chain.pem"), "ok": True, "defects": [],
    }  # fmt: skip


def test_cert_init_never_writes_over_files(tmp_path: Path) -> None:
    (tmp_path / "pki").mkdir()
    (tmp_path / "pki" / "signing.key").write_text("mine")
    run("cert", "init", tmp_path / "pki", code=4)
    assert (tmp_path / "pki" / "signing.key").read_text() == "mine"


@pytest.mark.parametrize("wrong", [("--country", "France"), ("--algorithm", "md5"), ("--ocsp-url", "http://o/x"),
                                   ("--organisation", "")])  # fmt: skip
def test_cert_init_refuses_impossible_values(tmp_path: Path, wrong: tuple[str, str]) -> None:
    assert run("cert", "init", tmp_path / "pki", *wrong, code=4)["error"]["remedy"]
    assert not (tmp_path / "pki").exists()


def test_cert_init_encrypts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFEGEN_PASSPHRASE", "a passphrase")
    made = run("cert", "init", tmp_path / "pki", "--encrypt")
    assert made["encrypted"]
    assert b"ENCRYPTED" in (tmp_path / "pki" / "signing.key").read_bytes()
    assert "a passphrase" not in json.dumps(made)
    assert open_signer(made["signer"]).sign(b"data")
    monkeypatch.setenv("SAFEGEN_PASSPHRASE", "another")
    with pytest.raises(KeyStoreError):
        open_signer(made["signer"])


def test_cert_lint_names_defects_with_exit_1(tmp_path: Path) -> None:
    file = tmp_path / "chain.pem"
    file.write_text(AUTHORITY.chain(AUTHORITY.leaf(ski=False, profile=False)))
    found = run("cert", "lint", file, code=1)
    assert not found["ok"]
    assert found["defects"][0]["rule"] == "no-subject-key-identifier"
    assert {d["level"] for d in found["defects"]} == {"error", "profile"}
    assert len(run("cert", "lint", file, "--no-profile", code=1)["defects"]) == 1
    assert "no-subject-key-identifier (leaf): It has no subject key identifier." in text("cert", "lint", file, code=1)


def test_cert_lint_of_what_is_no_certificate_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("hello")
    for path in (tmp_path / "x.pem", tmp_path / "absent.pem", tmp_path):
        assert run("cert", "lint", path, code=2)["error"]["type"] == "InputError"


def test_cert_of_the_home(home: Home) -> None:
    run("cert", "show", code=4)
    keys = KeyStore.init(home)
    shown = run("cert", "show")["certificates"]
    assert shown[0]["sha256"] == keys.leaf_fingerprint
    assert run("cert", "lint", home.keys / "chain.pem")["ok"]
    rotated = run("cert", "rotate")["certificates"]
    assert rotated[0]["sha256"] != keys.leaf_fingerprint
    assert KeyStore.load(home).ledger_name == keys.ledger_name
    assert len(KeyStore.retired(home)) == 1


def test_cert_show_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_text(AUTHORITY.root.pem)
    (shown,) = run("cert", "show", tmp_path / "root.pem")["certificates"]
    assert shown["subject"] == "CN=Test Root,O=Test,C=ZZ"
    assert "Test Root" in text("cert", "show", tmp_path / "root.pem")


@pytest.mark.slow
def test_trust_commands(tmp_path: Path) -> None:
    assert [entry["name"] for entry in run("trust", "show")["lists"]] == ["c2pa", "c2pa-tsa"]
    (tmp_path / "House.pem").write_text(AUTHORITY.root.pem)
    (added,) = run("trust", "add", tmp_path / "House.pem")["lists"]
    assert (added["name"], added["kind"]) == ("house", "signer")
    assert added["anchors"][0]["subject"] == "CN=Test Root,O=Test,C=ZZ"
    assert "house: 1 anchors (signer)" in text("trust", "show")
    assert "Test Root" in text("trust", "show", "house")
    run("trust", "show", "nobody", code=2)
    run("trust", "add", tmp_path / "absent.pem", code=2)
    run("trust", "add", tmp_path / "House.pem", "--kind", "odd", code=2)
    run("trust", "update", "--url", "https://example.org/", code=2)
    run("trust", "update", "house", code=2)


def test_settings_choose_signer_and_time_stamps(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = KeyStore.init(Home.default())
    seal = Seal.of(Home.default(), keys)
    assert (seal.signer.uri, seal.authorities) == ("home", ())
    leaf = AUTHORITY.leaf()
    monkeypatch.setenv("CLAIM_KEY", leaf.key_pem() + AUTHORITY.chain(leaf))
    monkeypatch.setenv("SAFEGEN_SIGNER", "env:CLAIM_KEY")
    monkeypatch.setenv("SAFEGEN_TSA", "https://a.example/tsa, none")
    seal = Seal.of(Home.default(), keys)
    assert (seal.signer.uri, seal.authorities) == ("env:CLAIM_KEY", ("https://a.example/tsa", "none"))
    monkeypatch.setenv("SAFEGEN_TSA", "somewhere")
    with pytest.raises(ConfigError, match="no time-stamp authority"):
        Seal.of(Home.default(), keys)


def test_generate_with_a_signer_that_does_not_exist_stops_at_once(tmp_path: Path, home: Home) -> None:
    KeyStore.init(home)
    out = tmp_path / "clip.mp4"
    error = run("generate", "a red ball", "-o", out, "--signer", "file:/no/such.pem", code=4)["error"]
    assert error["type"] == "KeyStoreError"
    assert not out.exists()
