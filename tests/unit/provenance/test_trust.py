"""Trust lists: whose signatures count, under which date, and what vouches for what."""

from __future__ import annotations

import datetime as dt
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509

from safegen.errors import ConfigError, InputError
from safegen.keys import KeyStore
from safegen.provenance import trust as trust_module
from safegen.provenance.credential import CredentialState
from safegen.provenance.file_signing import sign_file
from safegen.provenance.read import read_credential
from safegen.provenance.signer_sources import open_signer
from safegen.provenance.signers import CallbackSigner
from safegen.provenance.signing_identity import Seal
from safegen.provenance.trust import OFFICIAL, Trust, add_list, trust_lists, update
from safegen.settings import Home
from safegen.types import Status
from safegen.verification.credential_judging import judge_credential
from tests.unit.provenance.pki_samples import Authority
from tests.unit.provenance.provenance_samples import flip, make_clip, make_spec

NOW = dt.datetime(2026, 9, 1, tzinfo=dt.UTC)
AUTHORITY = Authority.make("Elsewhere")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip that somebody else signed."""
    folder = tmp_path_factory.mktemp("foreign")
    keys = KeyStore.init(Home(folder / "home"))
    leaf = AUTHORITY.leaf()
    (folder / "signer.pem").write_text(leaf.key_pem() + AUTHORITY.chain(leaf))
    signer = open_signer(f"file:{folder}/signer.pem")
    clip = make_clip(folder / "clip.mp4")
    return sign_file(clip, folder / "signed.mp4", make_spec(), keys, seal=Seal(signer)).path


def test_official_lists_ship_with_their_date(home: Home) -> None:
    signers, stamps = trust_lists(home)
    assert (signers.name, signers.kind, signers.shipped) == ("c2pa", "signer", True)
    assert (stamps.name, stamps.kind, stamps.shipped) == ("c2pa-tsa", "tsa", True)
    for entry, at_least in ((signers, 25), (stamps, 18)):
        assert len(x509.load_pem_x509_certificates(entry.anchors_pem.encode())) >= at_least
        assert dt.date.fromisoformat(entry.date) > dt.date(2026, 1, 1)
        assert entry.source == OFFICIAL[entry.name]
    assert not (home.root / "trust").exists()


def test_unknown_signer_becomes_a_listed_one(home: Home, foreign: Path) -> None:
    found = read_credential(foreign, trust=Trust.of(home, ()))
    assert (found.state, found.listed_by) == (CredentialState.VALID, "")
    assert "an unknown signer; not by this home" in judge_credential(found).finding.summary
    add_list(home, "house", "signer", AUTHORITY.root.pem.encode(), source="test", now=NOW)
    found = read_credential(foreign, trust=Trust.of(home, ()))
    assert (found.state, found.listed_by) == (CredentialState.VALID, "house (2026-09-01)")
    judged = judge_credential(found)
    assert judged.finding.status is Status.PASS
    assert not judged.ours
    assert judged.finding.evidence["listed_by"] == "house (2026-09-01)"
    assert "whom the trust list house (2026-09-01) vouches for" in judged.finding.summary


def test_an_issuing_ca_may_be_an_anchor(home: Home, foreign: Path) -> None:
    """As many of the official list are."""
    add_list(home, "house", "signer", AUTHORITY.issuing.pem.encode(), source="test", now=NOW)
    assert read_credential(foreign, trust=Trust.of(home, ())).listed_by.startswith("house")


def test_who_vouches_for_time_vouches_for_nothing_else(home: Home, foreign: Path) -> None:
    add_list(home, "house-tsa", "tsa", AUTHORITY.root.pem.encode(), source="test", now=NOW)
    found = read_credential(foreign, trust=Trust.of(home, ()))
    assert (found.state, found.signer_trusted, found.listed_by) == (CredentialState.VALID, False, "")
    assert not judge_credential(found).ours


def test_a_listed_signer_does_not_heal_a_changed_file(home: Home, foreign: Path, tmp_path: Path) -> None:
    add_list(home, "house", "signer", AUTHORITY.root.pem.encode(), source="test", now=NOW)
    changed = flip(foreign, tmp_path / "changed.mp4", foreign.stat().st_size - 9)
    found = read_credential(changed, trust=Trust.of(home, ()))
    assert (found.state, found.content_matches) == (CredentialState.INVALID, False)
    assert judge_credential(found).finding.status is Status.FAIL


def test_a_signer_without_lists_is_unknown(foreign: Path) -> None:
    assert read_credential(foreign, trust=Trust()).listed_by == ""


@pytest.mark.parametrize("name", ["rs-CACA.jpg", "pyr-CA.jpg", "pyr-sample1_signed.wav", "adobe-20220124-CA.jpg"])
def test_public_files(home: Home, shared_data: Path, name: str) -> None:
    path = shared_data / "c2pa" / name
    found = read_credential(path, trust=Trust.of(home, ()))
    assert (found.state, found.listed_by) == (CredentialState.VALID, "")
    roots = (shared_data / "c2pa" / "trust" / "c2pa-rs-test-roots.pem").read_bytes()
    add_list(home, "tests", "signer", roots, source="test", now=NOW)
    found = read_credential(path, trust=Trust.of(home, ()))
    assert (found.state, found.listed_by) == (CredentialState.VALID, "tests (2026-09-01)")


def test_public_time_stamp_of_a_commercial_authority(home: Home, shared_data: Path) -> None:
    found = read_credential(shared_data / "c2pa" / "rs-CACA.jpg", trust=Trust.of(home, ()))
    assert found.timestamp is not None
    assert not found.timestamp_trusted  # DigiCert's root for it is not on the C2PA list


# -- keeping lists -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(OFFICIAL))
def test_an_official_list_is_not_replaced_by_adding_one(home: Home, name: str) -> None:
    before = trust_lists(home)
    with pytest.raises(InputError, match="official list"):
        add_list(home, name, "signer", AUTHORITY.root.pem.encode(), source="test", now=NOW, force=True)
    assert trust_lists(home) == before


def test_an_official_list_fetched_elsewhere_is_named_as_a_file(home: Home, tmp_path: Path) -> None:
    (tmp_path / "list.pem").write_text(AUTHORITY.root.pem)
    made = update(home, "c2pa", file=tmp_path / "list.pem", now=NOW)
    assert made in trust_lists(home)
    with pytest.raises(InputError, match="cannot read"):
        update(home, "c2pa", file=tmp_path / "absent.pem", now=NOW)


def test_a_list_is_not_replaced_silently_nor_by_another_kind(home: Home) -> None:
    first = add_list(home, "house", "signer", AUTHORITY.root.pem.encode(), source="old", now=NOW)
    with pytest.raises(InputError, match="already"):
        add_list(home, "house", "signer", AUTHORITY.issuing.pem.encode(), source="new", now=NOW)
    with pytest.raises(InputError, match="kind signer"):
        add_list(home, "house", "tsa", AUTHORITY.root.pem.encode(), source="new", now=NOW, force=True)
    assert first in trust_lists(home)


def test_a_list_replaces_one_of_its_name_where_that_is_asked_for(home: Home) -> None:
    add_list(home, "house", "signer", AUTHORITY.root.pem.encode(), source="old", now=NOW)
    add_list(home, "house", "signer", AUTHORITY.issuing.pem.encode(), source="new", now=NOW, force=True)
    (found,) = (entry for entry in trust_lists(home) if entry.name == "house")
    assert (found.source, found.anchors_pem) == ("new", AUTHORITY.issuing.pem)
    assert not list((home.root / "trust").glob(".*"))


@pytest.mark.parametrize(
    ("name", "kind", "content"),
    [
        ("../evil", "signer", AUTHORITY.root.pem),
        ("", "signer", AUTHORITY.root.pem),
        ("Upper", "signer", AUTHORITY.root.pem),
        ("house", "anything", AUTHORITY.root.pem),
        ("house", "signer", ""),
        ("house", "signer", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ("house", "signer", AUTHORITY.leaf().pem),
        ("house", "signer", "<html>Not found</html>"),
    ],
)
def test_what_is_no_list_is_refused(home: Home, name: str, kind: str, content: str) -> None:
    with pytest.raises(InputError):
        add_list(home, name, kind, content.encode(), source="test", now=NOW)
    assert not (home.root / "trust").exists()


@pytest.mark.parametrize("damage", ["", "{}", '{"name": 1}', "[]", "truncated"])
def test_damaged_list_is_no_silent_absence(home: Home, damage: str) -> None:
    add_list(home, "house", "signer", AUTHORITY.root.pem.encode(), source="test", now=NOW)
    path = home.root / "trust" / "house.json"
    path.write_text(path.read_text()[:200] if damage == "truncated" else damage)
    with pytest.raises(ConfigError, match=r"house\.json is damaged"):
        Trust.of(home, ())


def test_a_list_under_another_name_is_refused(home: Home) -> None:
    add_list(home, "house", "signer", AUTHORITY.root.pem.encode(), source="test", now=NOW)
    (home.root / "trust" / "house.json").rename(home.root / "trust" / "c2pa.json")
    with pytest.raises(ConfigError, match="damaged"):
        trust_lists(home)


@contextmanager
def serving(content: bytes, status: int = 200) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/list.pem"
        finally:
            server.shutdown()


def test_update_replaces_the_shipped_list(home: Home) -> None:
    with serving(b"Subject: a comment\n" + AUTHORITY.root.pem.encode()) as url:
        made = update(home, "c2pa", url=url, now=NOW)
    found = {entry.name: entry for entry in trust_lists(home)}
    assert found["c2pa"] == made
    assert (made.shipped, made.date[:10], made.source) == (False, "2026-09-01", url)
    assert found["c2pa-tsa"].shipped


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"", 200), (b"<html>", 200), (AUTHORITY.leaf().pem.encode(), 200), (AUTHORITY.root.pem.encode(), 404)],
)
def test_failed_update_leaves_the_list_in_use(home: Home, content: bytes, status: int) -> None:
    before = trust_lists(home)
    with serving(content, status) as url, pytest.raises(ConfigError, match=r"list in use stays|cannot fetch|no trust"):
        update(home, "c2pa", url=url, now=NOW)
    assert trust_lists(home) == before


def test_update_is_bounded(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust_module, "MAX_BYTES", 100)
    with serving(b"x" * 101) as url, pytest.raises(ConfigError, match="longer"):
        update(home, "c2pa", url=url, now=NOW)


@pytest.mark.parametrize("url", ["http://example.org/list.pem", "file:///etc/passwd", "ftp://example.org/",
                                 "http://127.0.0.1.example.org/x", "http://localhost.example.org/"])  # fmt: skip
def test_update_takes_https_alone(home: Home, url: str) -> None:
    with pytest.raises(InputError, match="https"):
        update(home, "c2pa", url=url, now=NOW)


def test_update_of_an_unknown_list(home: Home) -> None:
    with pytest.raises(InputError, match="no official list"):
        update(home, "house", now=NOW)


def test_description_is_json(home: Home) -> None:
    for entry in trust_lists(home):
        said = json.loads(json.dumps(entry.describe()))
        assert said["anchors"][0]["subject"]
        assert len(said["sha256"]) == 64


def test_recording_needs_no_key(home: Home) -> None:
    leaf = AUTHORITY.leaf()
    trust_module.record_signer(home, CallbackSigner(AUTHORITY.chain(leaf), lambda _: b""))
    (kept,) = (home.root / "signers").iterdir()
    assert kept.read_text() == leaf.pem + AUTHORITY.issuing.pem
    assert f"{leaf.certificate.serial_number:x}" in Trust.of(home, ()).own_serials
