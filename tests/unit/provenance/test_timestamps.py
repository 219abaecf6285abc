"""Time-stamps from a local RFC 3161 authority: asked in turn, checked, and recorded either way."""

from __future__ import annotations

import datetime as dt
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from safegen.errors import ConfigError, ProvenanceError
from safegen.keys import KeyStore
from safegen.provenance.backends import BACKENDS, Signing
from safegen.provenance.credential import CredentialState
from safegen.provenance.file_signing import SignedAsset, sign_file
from safegen.provenance.read import read_credential
from safegen.provenance.signer_sources import store_signer
from safegen.provenance.signing_identity import Seal
from safegen.provenance.timestamps import Stamping, parse_authorities, relay
from safegen.provenance.trust import Trust, add_list
from safegen.settings import Home
from tests.unit.provenance.expiry import made_before_expiry
from tests.unit.provenance.pki_samples import TimeStampAuthority
from tests.unit.provenance.provenance_samples import make_spec

NOW = dt.datetime.now(dt.UTC)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[TimeStampAuthority]:
    with TimeStampAuthority(folder).serve() as running:
        yield running


@pytest.fixture
def authority(server: TimeStampAuthority) -> TimeStampAuthority:
    server.mood, server.asked = "well", 0
    return server


@pytest.fixture
def nobody() -> str:
    """An address at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/"


def sign(clip: Path, target: Path, keys: KeyStore, signing: Signing, *authorities: str) -> SignedAsset:
    return sign_file(clip, target, make_spec(), keys, signing=signing, seal=Seal(store_signer(keys), authorities))


def test_stamped(
    tmp_path: Path, clip: Path, home: Home, keys: KeyStore, signing: Signing, authority: TimeStampAuthority
) -> None:
    signed = sign(clip, tmp_path / "out.mp4", keys, signing, authority.url)
    said = signed.signature["timestamp"]
    assert isinstance(said, dict)
    assert (said["status"], said["authority"]) == ("stamped", authority.url)
    assert abs(dt.datetime.fromisoformat(str(said["time"])) - dt.datetime.now(dt.UTC)) < dt.timedelta(hours=1)
    found = read_credential(signed.path, trust=Trust.of(home, (keys,)))
    assert found.state is CredentialState.TRUSTED
    assert found.timestamp is not None
    assert dt.datetime.fromisoformat(found.timestamp) == dt.datetime.fromisoformat(str(said["time"]))
    assert not found.timestamp_trusted


def test_listed_authority_counts(
    tmp_path: Path, clip: Path, keys: KeyStore, signing: Signing, authority: TimeStampAuthority
) -> None:
    signed = sign(clip, tmp_path / "out.mp4", keys, signing, authority.url)
    home = Home(tmp_path / "other-home")
    add_list(home, "house-tsa", "tsa", authority.authority.root.pem.encode(), source="test", now=NOW)
    assert read_credential(signed.path, trust=Trust.of(home, (keys,))).timestamp_trusted
    wrong_kind = Home(tmp_path / "third-home")
    add_list(wrong_kind, "house", "signer", authority.authority.root.pem.encode(), source="test", now=NOW)
    assert not read_credential(signed.path, trust=Trust.of(wrong_kind, (keys,))).timestamp_trusted


@pytest.mark.parametrize("mood", ["error", "garbage", "refuse", "other"])
def test_next_authority_is_asked(
    tmp_path: Path, clip: Path, keys: KeyStore, signing: Signing, authority: TimeStampAuthority, mood: str
) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    with TimeStampAuthority(bad).serve() as first:
        first.mood = mood
        signed = sign(clip, tmp_path / "out.mp4", keys, signing, first.url, authority.url)
        said = signed.signature["timestamp"]
        assert isinstance(said, dict)
        assert said["authority"] == authority.url
        assert first.url in str(said["failures"])
        assert first.asked >= 1
    assert read_credential(signed.path, trust_anchors_pem=keys.root_pem).timestamp is not None


def test_nobody_answers(
    tmp_path: Path, clip: Path, keys: KeyStore, signing: Signing, nobody: str, authority: TimeStampAuthority
) -> None:
    authority.mood = "error"
    with pytest.raises(ProvenanceError, match="no time-stamp authority answered") as told:
        sign(clip, tmp_path / "out.mp4", keys, signing, nobody, authority.url)
    assert nobody in str(told.value)
    assert authority.url in str(told.value)
    assert "none" in told.value.remedy
    assert not (tmp_path / "out.mp4").exists()


def test_without_where_the_list_says_so(
    tmp_path: Path, clip: Path, keys: KeyStore, signing: Signing, nobody: str
) -> None:
    signed = sign(clip, tmp_path / "out.mp4", keys, signing, nobody, "none")
    said = signed.signature["timestamp"]
    assert isinstance(said, dict)
    assert said["status"] == "unavailable"
    assert nobody in str(said["failures"])
    found = read_credential(signed.path, trust_anchors_pem=keys.root_pem)
    assert (found.state, found.timestamp) == (CredentialState.TRUSTED, None)


def test_expired_certificate_with_a_listed_time_stamp(
    tmp_path: Path, clip: Path, signing: Signing, authority: TimeStampAuthority
) -> None:
    """The reason for time-stamps. One that anybody could have made does not help."""
    home = Home(tmp_path / "home")
    target = tmp_path / "out.mp4"
    keys, signed = made_before_expiry(home, lambda keys: sign(clip, target, keys, signing, authority.url))
    found = read_credential(signed.path, trust=Trust.of(home, (keys,)))
    assert (found.state, found.only_expired) == (CredentialState.INVALID, True)
    assert not found.timestamp_trusted
    add_list(home, "house-tsa", "tsa", authority.authority.root.pem.encode(), source="test", now=NOW)
    found = read_credential(signed.path, trust=Trust.of(home, (keys,)))
    assert (found.state, found.timestamp_trusted) == (CredentialState.TRUSTED, True)


def test_a_proxy_does_not_see_the_relay(
    tmp_path: Path,
    clip: Path,
    keys: KeyStore,
    authority: TimeStampAuthority,
    nobody: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, nobody)
    sign(clip, tmp_path / "out.mp4", keys, Signing(BACKENDS["c2pa-python"]), authority.url)
    assert authority.asked == 1


def test_relay_serves_its_own_path_only(authority: TimeStampAuthority) -> None:
    stamping = Stamping((authority.url,))
    with relay(stamping) as url:
        assert url is not None
        for wrong in (url.rpartition("/")[0] + "/", url + "x"):
            with pytest.raises(urllib.request.HTTPError, match="404"):
                urllib.request.urlopen(urllib.request.Request(wrong, data=b"query"))
        with pytest.raises(urllib.request.HTTPError, match="502"):
            urllib.request.urlopen(urllib.request.Request(url, data=b"no query"))
    assert authority.asked == 0
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url)


def test_token_of_a_message(authority: TimeStampAuthority) -> None:
    stamping = Stamping((authority.url,))
    token = stamping.token(b"message")
    assert stamping.stamp is not None
    assert token in stamping.stamp.response
    assert authority.asked == 1


def test_authorities_as_text() -> None:
    assert parse_authorities("") == ()
    assert parse_authorities("none") == ()
    assert parse_authorities("http://a/, https://b none") == ("http://a/", "https://b", "none")
    for wrong in ("none,http://a", "ftp://a", "file:///etc/passwd", "a"):
        with pytest.raises(ConfigError, match="no time-stamp authority"):
            parse_authorities(wrong)
    assert Stamping().to_json() == {"status": "none configured"}


def test_an_independent_engine_finds_the_time_stamp_trusted(
    tmp_path: Path, clip: Path, keys: KeyStore, signing: Signing, authority: TimeStampAuthority
) -> None:
    """What its strict profile still misses is revocation data, which needs an online service."""
    encypher = pytest.importorskip("encypher_c2pa")
    signed = sign(clip, tmp_path / "out.mp4", keys, signing, authority.url)
    report = encypher.verify(
        str(signed.path), trust_pem=keys.root_pem, tsa_trust_pem=authority.authority.root.pem, no_default_trust=True,
        telemetry=False, online=False, strict_conformance=True,
    )  # fmt: skip
    results = report["validation_results"]
    assert "timeStamp.trusted" in {found["code"] for found in results["success"]}
    assert [found["code"].rsplit(".", 1)[-1] for found in results["failure"]] == ["revocationInformationMissing"]
