"""A home that signs with another key than its own, and asks for time-stamps: from prompt to verdict."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from safegen.settings import Home
from tests.e2e.conftest import PROMPT, SMALL, Shell


def test_a_clip_signed_with_a_key_from_a_file_is_verified_as_the_homes_own(
    fresh_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell, clip = Shell(fresh_home), tmp_path / "clip.mp4"
    monkeypatch.setenv("SAFEGEN_PASSPHRASE", "a passphrase")
    signer = shell.json("cert", "init", tmp_path / "pki", "--encrypt", "--organisation", "A studio", code=0)["signer"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}/"
    monkeypatch.setenv("SAFEGEN_TSA", f"{nobody}, none")
    size = ("--frames", str(SMALL["frames"]), "--steps", str(SMALL["steps"]))
    made = shell.json("generate", PROMPT, "-o", clip, "--seed", "7", *size, "--signer", signer, code=0)
    monkeypatch.delenv("SAFEGEN_PASSPHRASE")  # verification needs no key

    recorded = shell.json("ledger", "show", str(made["entry"]), code=0)
    signature = recorded["body"]["signature"]
    assert (signature["signer"], signature["algorithm"]) == ("file:signing.key", "es256")
    assert signature["timestamp"]["status"] == "unavailable"
    assert nobody in signature["timestamp"]["failures"][0]

    verdict = shell.json("verify", clip, code=0)
    assert verdict["verdict"] == "verified"
    metadata = verdict["findings"][0]
    assert metadata["evidence"]["signer"] == "safegen development Claim Signer"
    assert "signed by this home" in metadata["summary"]

    other = Shell(Home(tmp_path / "other"))
    other("keys", "init", code=0)
    assert "an unknown signer; not by this home" in other.json("verify", clip, "--no-neural")["findings"][0]["summary"]
    other("trust", "add", tmp_path / "pki" / "root.pem", "--name", "studio", code=0)
    told = other.json("verify", clip, "--no-neural")["findings"][0]
    assert told["evidence"]["listed_by"].startswith("studio (")
    assert "whom the trust list studio" in told["summary"]
