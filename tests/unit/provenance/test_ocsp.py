"""OCSP answers: which are believed, and that a revoked certificate signs nothing. The responder runs on loopback."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import c2pa
import pytest

from safegen.errors import ConfigError, ProvenanceError
from safegen.keys import KeyStore
from safegen.provenance.backends import BACKENDS, Signing
from safegen.provenance.credential import CredentialState
from safegen.provenance.engine import make_context
from safegen.provenance.file_signing import SignedAsset, sign_file
from safegen.provenance.ocsp import OcspMode, check_revocation, parse_mode
from safegen.provenance.read import read_credential
from safegen.provenance.signing_identity import Seal
from safegen.provenance.updating import update_file
from safegen.settings import Home
from tests.unit.provenance.native_pki import issue, make_pki
from tests.unit.provenance.ocsp_samples import NOW, Responder
from tests.unit.provenance.pki_samples import TimeStampAuthority
from tests.unit.provenance.provenance_samples import make_spec


@pytest.fixture
def responder() -> Iterator[Responder]:
    made = Responder()
    yield made
    made.close()


def sign(
    clip: Path, target: Path, keys: KeyStore, responder: Responder, mode: OcspMode, backend: str = "native"
) -> SignedAsset:
    seal = Seal(responder.signer, ocsp=mode)
    return sign_file(clip, target, make_spec(), keys, signing=Signing(BACKENDS[backend]), seal=seal)


GOOD = ("good", "issuer", "named")
BAD = {
    "unknown": "does not know",
    "old": "holds from",
    "future": "holds from",
    "endless": "holds from",
    "other": "another certificate",
    "stranger": "not the issuer's delegate",
    "other CA's delegate": "not the issuer's delegate",
    "undelegated": "may not sign",
    "tampered": "signature does not hold",
    "garbage": "",
    "too long": "too long",
    "refused": "TRY_LATER",
    "error": "500",
}


@pytest.mark.parametrize("mode", [OcspMode.STAPLE, OcspMode.REQUIRE])
def test_a_good_answer_is_stapled(
    tmp_path: Path, clip: Path, keys: KeyStore, responder: Responder, mode: OcspMode
) -> None:
    signed = sign(clip, tmp_path / "out.mp4", keys, responder, mode)
    said = signed.signature["ocsp"]
    assert isinstance(said, dict)
    assert (said["status"], said["responder"], responder.asked) == ("stapled", responder.url, 1)
    assert dt.datetime.fromisoformat(str(said["next_update"])) > NOW
    anchors = responder.pki.root.pem
    assert read_credential(signed.path, trust_anchors_pem=anchors).state is CredentialState.TRUSTED
    assert "signingCredential.ocsp.notRevoked" in codes(signed.path, anchors)


def test_with_a_time_stamp_the_strict_profile_is_met(
    tmp_path: Path, clip: Path, keys: KeyStore, responder: Responder
) -> None:
    """As an independent engine reads it; without a time-stamp it does not say when the answer had to hold."""
    encypher = pytest.importorskip("encypher_c2pa")
    with TimeStampAuthority(tmp_path).serve() as authority:
        seal = Seal(responder.signer, (authority.url,), OcspMode.REQUIRE)
        signed = sign_file(clip, tmp_path / "out.mp4", make_spec(), keys, signing=Signing(), seal=seal)
        update = update_file(signed.path, tmp_path / "update.mp4", keys, anchors_pem=responder.pki.root.pem, seal=seal)
    trust = {"trust_pem": responder.pki.root.pem, "tsa_trust_pem": authority.authority.root.pem}
    for path in (signed.path, update.path):
        options = trust | {"no_default_trust": True, "telemetry": False, "online": False}
        strict = encypher.verify(str(path), strict_conformance=True, **options)
        assert (strict["validation_state"], strict["validation_results"]["failure"]) == ("Trusted", [])


def codes(path: Path, anchors: str) -> set[str]:
    with path.open("rb") as file, c2pa.Reader("", file, None, make_context(anchors)) as reader:
        found = json.loads(reader.json())["validation_results"]["activeManifest"]["success"]
    return {c["code"] for c in found}


@pytest.mark.parametrize("mood", GOOD)
@pytest.mark.parametrize("kind", ["es384", "ps256"])
def test_who_may_sign_answers(mood: str, kind: str) -> None:
    responder = Responder(kind)
    responder.mood = mood
    try:
        found = check_revocation(responder.pki.chain_pem, responder.pki.issuing.pem, OcspMode.REQUIRE)
        assert found.staple is not None
        assert found.failures == ()
    finally:
        responder.close()


@pytest.mark.parametrize("mood", BAD)
def test_answers_that_are_not_believed(responder: Responder, mood: str) -> None:
    responder.mood = mood
    chain, issuer = responder.pki.chain_pem, responder.pki.issuing.pem
    found = check_revocation(chain, issuer, OcspMode.STAPLE)
    assert found.staple is None
    (failure,) = found.failures
    assert failure.startswith(responder.url)
    assert BAD[mood] in failure
    assert found.to_json() == {"status": "unavailable", "failures": [failure]}
    with pytest.raises(ProvenanceError, match="vouches for") as caught:
        check_revocation(chain, issuer, OcspMode.REQUIRE)
    assert "SAFEGEN_OCSP=staple" in caught.value.remedy


@pytest.mark.parametrize("mode", [OcspMode.STAPLE, OcspMode.REQUIRE])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_revoked_certificate_signs_nothing(
    tmp_path: Path, clip: Path, keys: KeyStore, responder: Responder, mode: OcspMode, backend: str
) -> None:
    responder.mood = "revoked"
    error = ConfigError if (backend, mode) == ("c2pa-python", OcspMode.REQUIRE) else ProvenanceError
    with pytest.raises(error, match="cannot staple" if error is ConfigError else "was revoked at"):
        sign(clip, tmp_path / "out.mp4", keys, responder, mode, backend)
    assert not list(tmp_path.iterdir())


def test_without_an_answer(tmp_path: Path, clip: Path, keys: KeyStore, responder: Responder) -> None:
    responder.mood = "error"
    signed = sign(clip, tmp_path / "out.mp4", keys, responder, OcspMode.STAPLE)
    assert signed.signature["ocsp"]["status"] == "unavailable"  # type: ignore[call-overload, index]
    with pytest.raises(ProvenanceError, match="vouches for"):
        sign(clip, tmp_path / "required.mp4", keys, responder, OcspMode.REQUIRE)
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]


def test_the_library_cannot_staple(tmp_path: Path, clip: Path, keys: KeyStore, responder: Responder) -> None:
    with pytest.raises(ConfigError, match="c2pa-python cannot staple"):
        sign(clip, tmp_path / "out.mp4", keys, responder, OcspMode.REQUIRE, "c2pa-python")
    assert responder.asked == 0
    signed = sign(clip, tmp_path / "out.mp4", keys, responder, OcspMode.STAPLE, "c2pa-python")
    said = signed.signature["ocsp"]
    assert said == {"status": "unavailable", "failures": ["c2pa-python cannot staple"]}


def test_off_asks_nobody(tmp_path: Path, clip: Path, keys: KeyStore, responder: Responder) -> None:
    signed = sign(clip, tmp_path / "out.mp4", keys, responder, OcspMode.OFF)
    assert (signed.signature["ocsp"], responder.asked) == ({"status": "off"}, 0)


def test_an_update_brings_the_answer_that_was_missing(
    tmp_path: Path, clip: Path, keys: KeyStore, responder: Responder
) -> None:
    first = sign(clip, tmp_path / "first.mp4", keys, responder, OcspMode.OFF)
    anchors, seal = responder.pki.root.pem, Seal(responder.signer, ocsp=OcspMode.REQUIRE)
    done = update_file(first.path, tmp_path / "out.mp4", keys, anchors_pem=anchors, seal=seal)
    assert done.signature["ocsp"]["status"] == "stapled"  # type: ignore[call-overload, index]
    assert "signingCredential.ocsp.notRevoked" in codes(done.path, anchors)


def test_certificates_that_name_no_responder(keys: KeyStore) -> None:
    pki = make_pki()
    leaf = issue("Signer", "es256", pki.issuing)
    found = check_revocation(leaf.pem, pki.issuing.pem, OcspMode.STAPLE)
    assert found.failures == ("the certificate names no OCSP responder",)
    odd = make_pki(responder="ldap://127.0.0.1/")
    assert check_revocation(odd.chain_pem, odd.issuing.pem, OcspMode.STAPLE).failures == found.failures


def test_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [parse_mode(text) for text in ("", "off", "staple", "require")] == ["off", "off", "staple", "require"]
    with pytest.raises(ConfigError, match="SAFEGEN_OCSP is 'yes'"):
        parse_mode("yes")
    monkeypatch.setenv("SAFEGEN_OCSP", "require")
    home = replace(Home.default(), root=tmp_path)
    assert Seal.of(home, KeyStore.init(home)).ocsp is OcspMode.REQUIRE
