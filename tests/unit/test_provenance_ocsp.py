"""OCSP answers: which are believed, and that a revoked certificate signs nothing. The responder runs on loopback."""

from __future__ import annotations

import datetime as dt
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import c2pa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID as Eku
from native_pki import Identity, issue, make_pki
from pki_samples import TimeStampAuthority
from provenance_samples import make_clip, make_spec

from safegen.errors import ConfigError, ProvenanceError
from safegen.keys import KeyStore
from safegen.provenance.backends import BACKENDS, Signing
from safegen.provenance.credential import CredentialState
from safegen.provenance.engine import make_context
from safegen.provenance.ocsp import MAX_BYTES, OcspMode, check_revocation, parse_mode
from safegen.provenance.read import read_credential
from safegen.provenance.seal import Seal
from safegen.provenance.sign import SignedAsset, sign_file
from safegen.provenance.signers import CallbackSigner, Signer
from safegen.provenance.updating import update_file
from safegen.settings import Home

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
Status = ocsp.OCSPCertStatus


class Responder:
    """An OCSP responder for one leaf. ``mood`` says what is wrong with its answers."""

    def __init__(self, kind: str = "es384") -> None:
        self.mood, self.asked = "good", 0
        handler = type("Handler", (_Handler,), {"responder": self})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/ocsp/"
        self.pki = make_pki(responder=self.url, issuer=kind)
        self.delegate = issue("OCSP", "es256", self.pki.issuing, Eku.OCSP_SIGNING, extra=x509.OCSPNoCheck())
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def signer(self) -> Signer:
        return CallbackSigner(self.pki.chain_pem, lambda data: self.pki.leaf.key.sign(data, ec.ECDSA(hashes.SHA256())))

    def answer(self) -> bytes:
        if self.mood == "garbage":
            return b"\x30\x03\x0a\x01"
        if self.mood == "too long":
            return bytes(MAX_BYTES + 1)
        if self.mood == "refused":
            refused = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER)
            return refused.public_bytes(serialization.Encoding.DER)
        content = self._signed(self._single())
        if self.mood == "tampered":
            at = content.index(self.delegate.certificate.public_bytes(serialization.Encoding.DER)) - 12
            content = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        return content

    def _single(self) -> dict[str, Any]:
        status = {"revoked": Status.REVOKED, "unknown": Status.UNKNOWN}.get(self.mood, Status.GOOD)
        start, end = {
            "old": (NOW - 3 * DAY, NOW - DAY), "future": (NOW + DAY, NOW + 2 * DAY), "endless": (NOW - DAY, None),
        }.get(self.mood, (NOW - DAY / 24, NOW + DAY))  # fmt: skip
        revoked = NOW - DAY / 2 if self.mood == "revoked" else None
        about = issue("Other", "es256", self.pki.issuing) if self.mood == "other" else self.pki.leaf
        return {
            "cert": about.certificate, "issuer": self.pki.issuing.certificate, "algorithm": hashes.SHA1(),
            "cert_status": status, "this_update": start, "next_update": end, "revocation_time": revoked,
            "revocation_reason": None,
        }  # fmt: skip

    def _signed(self, single: dict[str, Any]) -> bytes:
        by: Identity = {
            "stranger": make_pki().leaf,
            "undelegated": issue("OCSP", "es256", self.pki.issuing, Eku.EMAIL_PROTECTION),
            "other CA's delegate": issue("OCSP", "es256", make_pki().issuing, Eku.OCSP_SIGNING),
            "issuer": self.pki.issuing,
        }.get(self.mood, self.delegate)
        place = ocsp.OCSPResponderEncoding.NAME if self.mood == "named" else ocsp.OCSPResponderEncoding.HASH
        builder = ocsp.OCSPResponseBuilder().add_response(**single).responder_id(place, by.certificate)
        if self.mood != "issuer":
            builder = builder.certificates([by.certificate])
        return builder.sign(by.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


class _Handler(http.server.BaseHTTPRequestHandler):
    responder: Responder

    def do_POST(self) -> None:
        query = ocsp.load_der_ocsp_request(self.rfile.read(int(self.headers["content-length"])))
        assert query.serial_number == self.responder.pki.leaf.certificate.serial_number
        self.responder.asked += 1
        if self.responder.mood == "error":
            self.send_error(500)
            return
        content = self.responder.answer()
        self.send_response(200)
        self.send_header("content-type", "application/ocsp-response")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def responder() -> Iterator[Responder]:
    made = Responder()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ocsp")


@pytest.fixture(scope="module")
def clip(folder: Path) -> Path:
    return make_clip(folder / "clip.mp4")


@pytest.fixture(scope="module")
def keys(folder: Path) -> KeyStore:
    return KeyStore.init(Home(folder / "home"))


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
        responder.server.shutdown()
        responder.server.server_close()


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
