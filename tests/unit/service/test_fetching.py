"""Fetching what a caller names: only what the settings allow, only from public addresses, only as announced."""

from __future__ import annotations

import asyncio
import datetime as dt
import http.server
import io
import ipaddress
import ssl
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.testclient import TestClient

from safegen.errors import ConfigError, ResolutionError, SafegenError
from safegen.service.app import make_app
from safegen.service.fetching import Fetcher, ForbiddenReferenceError, is_public
from safegen.service.limits import ServiceSettings
from safegen.settings import Home
from tests.unit.recovery.recovery_samples import Recorded, record

NAME = "media.example"


def self_signed(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for NAME with its key in one PEM file, and a context that trusts it alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "both.pem").write_bytes(pem + secret)
    return folder / "both.pem", ssl.create_default_context(cadata=pem.decode())


@dataclass
class Site:
    """An https server on this machine. ``asked`` are the (Host, path) of the requests that reached it."""

    port: int
    tls: ssl.SSLContext
    content: dict[str, bytes]
    asked: list[tuple[str, str]]

    def url(self, path: str) -> str:
        return f"https://{NAME}:{self.port}{path}"

    def fetcher(self, *addresses: str, permit: bool = True) -> Fetcher:
        async def resolve(host: str, port: int) -> Sequence[str]:
            assert (host, port) == (NAME, self.port)
            return addresses or ["127.0.0.1"]

        hosts = (f"{NAME}:{self.port}",)
        return Fetcher(hosts, resolve, (lambda _: True) if permit else is_public, self.tls)

    def fetch(self, path: str, length: int, *addresses: str, permit: bool = True) -> bytes:
        into = io.BytesIO()
        asyncio.run(self.fetcher(*addresses, permit=permit).fetch(self.url(path), into, length=length))
        return into.getvalue()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    pem, trusted = self_signed(tmp_path_factory.mktemp("tls"))
    asked: list[tuple[str, str]] = []
    content = {"/asset?x=1": b"twelve bytes"}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.headers["Host"], self.path))
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "https://127.0.0.1/")
                self.end_headers()
                return
            body = content.get(self.path)
            self.send_response(404 if body is None else 200)
            if self.path == "/zipped":
                self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    content["/zipped"] = b"zipped"
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Site(server.server_address[1], trusted, content, asked)
    server.shutdown()
    server.server_close()


def test_what_is_allowed_is_fetched_from_the_address_that_was_checked(site: Site) -> None:
    assert site.fetch("/asset?x=1", 12) == b"twelve bytes"
    assert site.asked[-1] == (f"{NAME}:{site.port}", "/asset?x=1")


@pytest.mark.parametrize(
    ("path", "length", "why"),
    [
        ("/asset?x=1", 11, "longer"),
        ("/asset?x=1", 13, "shorter"),
        ("/moved", 12, "302"),
        ("/missing", 12, "404"),
        ("/zipped", 6, "compressed"),
    ],
)
def test_answers_that_are_not_taken(site: Site, path: str, length: int, why: str) -> None:
    with pytest.raises(ResolutionError, match=why):
        site.fetch(path, length)


def test_a_certificate_for_another_name_is_refused(site: Site) -> None:
    async def resolve(_: str, __: int) -> Sequence[str]:
        return ["127.0.0.1"]

    fetcher = Fetcher((f"other.example:{site.port}",), resolve, lambda _: True, site.tls)
    with pytest.raises(ResolutionError, match="cannot be fetched"):
        asyncio.run(fetcher.fetch(f"https://other.example:{site.port}/asset?x=1", io.BytesIO(), length=12))


@pytest.mark.parametrize("addresses", [("127.0.0.1",), ("93.184.215.14", "10.0.0.1"), ("::1",), ("169.254.169.254",)])
def test_a_name_that_leads_inside_is_refused_before_anything_is_sent(site: Site, addresses: tuple[str, ...]) -> None:
    before = list(site.asked)
    with pytest.raises(ForbiddenReferenceError, match="not public"):
        site.fetch("/asset?x=1", 12, *addresses, permit=False)
    assert site.asked == before


@pytest.mark.parametrize(
    "url",
    [
        "http://media.example/a",
        "https://other.example/a",
        "https://media.example:8443/a",
        "https://media.example.evil.test/a",
        "https://evil.test/?https://media.example",
        "https://media.example@evil.test/",
        "https://user:secret@media.example/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://0x7f000001/",
        "https://media.example\\@evil.test/",
        "https://media.example /a",
        "https://media.example/\r\nX: y",
        "https://:443/",
        "https://media.example:99999/",
        "https://[::1/",
        "file:///etc/passwd",
        "gopher://media.example/",
        "",
        "https://media.example/" + "a" * 5000,
    ],
)
def test_references_that_are_ruled_out(url: str) -> None:
    async def resolve(_: str, __: int) -> Sequence[str]:
        raise AssertionError("nothing may be looked up")

    with pytest.raises(ForbiddenReferenceError):
        asyncio.run(Fetcher((NAME,), resolve).fetch(url, io.BytesIO(), length=1))


@pytest.mark.parametrize(
    ("allowed", "host", "ok"),
    [
        ("*.media.example", "a.media.example", True),
        ("*.media.example", "a.b.media.example", True),
        ("*.media.example", "media.example", False),
        ("*.media.example", "amedia.example", False),
        ("media.example", "MEDIA.example.", True),
        ("media.example", "a.media.example", False),
    ],
)
def test_names_and_patterns(allowed: str, host: str, ok: bool) -> None:
    reached = []

    async def resolve(name: str, _: int) -> Sequence[str]:
        reached.append(name)
        raise OSError

    with pytest.raises(SafegenError):
        asyncio.run(Fetcher((allowed,), resolve).fetch(f"https://{host}/", io.BytesIO(), length=1))
    assert bool(reached) is ok


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:1::", "192.0.2.1", "198.18.0.1", "no address",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


def test_addresses_that_are_public() -> None:
    assert all(map(is_public, ("93.184.215.14", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8")))
    assert str(ipaddress.ip_address("8.8.8.8")) == "8.8.8.8"


# -- through the API ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("recorded")
    return record(Home(folder / "home"), folder)


def test_by_reference_is_off_by_default(made: Recorded) -> None:
    with TestClient(make_app(made.home)) as service:
        answer = service.post("/v1/matches/byReference", json={"referenceUrl": "https://x/", "assetLength": 1})
    assert (answer.status_code, set(answer.json())) == (403, {"error"})


@pytest.mark.slow
def test_by_reference(made: Recorded, site: Site, tmp_path: Path) -> None:
    content = made.stripped(tmp_path / "stripped.mp4").read_bytes()
    site.content["/clip.mp4"] = content
    settings = ServiceSettings(max_asset_bytes=1 << 20)
    with TestClient(make_app(made.home, settings, fetcher=site.fetcher())) as service:

        def ask(**changes: object) -> tuple[int, dict[str, object]]:
            body = {"referenceUrl": site.url("/clip.mp4"), "assetLength": len(content), "assetType": "video/mp4"}
            answer = service.post("/v1/matches/byReference", json=body | changes)
            return answer.status_code, answer.json()

        status, said = ask()
        assert (status, len(said["matches"])) == (200, 1)  # type: ignore[arg-type]
        assert said["matches"][0]["manifestId"] == made.signed.manifest_id  # type: ignore[index]
        assert ask(referenceUrl="https://other.example/")[0] == 403
        assert ask(referenceUrl=site.url("/missing"))[0] == 502
        assert ask(assetLength=len(content) + 1)[0] == 502
        assert ask(assetLength=2 << 20)[0] == 413
        assert ask(assetLength=True)[0] == ask(assetLength=0)[0] == ask(referenceUrl=None)[0] == 400


# -- settings ----------------------------------------------------------------------------------------------------------


def test_settings_from_the_environment(tmp_path: Path) -> None:
    assert ServiceSettings.from_environment({}) == ServiceSettings()
    (tmp_path / "token").write_text("secret\n")
    found = ServiceSettings.from_environment(
        {
            "SAFEGEN_RESOLUTION_TOKEN_FILE": str(tmp_path / "token"),
            "SAFEGEN_RESOLUTION_MAX_ASSET_MIB": "8",
            "SAFEGEN_RESOLUTION_SECONDS": "5",
            "SAFEGEN_RESOLUTION_CONCURRENT": "3",
            "SAFEGEN_RESOLUTION_REFERENCE_HOSTS": "Media.example, *.cdn.example",
        }
    )
    assert found == ServiceSettings("secret", 8 << 20, 5.0, 3, ("media.example", "*.cdn.example"))
    assert "secret" not in repr(found)


@pytest.mark.parametrize(
    "given",
    [
        {"SAFEGEN_RESOLUTION_SECONDS": "soon"},
        {"SAFEGEN_RESOLUTION_SECONDS": "0"},
        {"SAFEGEN_RESOLUTION_SECONDS": "nan"},
        {"SAFEGEN_RESOLUTION_MAX_ASSET_MIB": "-1"},
        {"SAFEGEN_RESOLUTION_TOKEN": "two words"},
        {"SAFEGEN_RESOLUTION_TOKEN_FILE": "/nowhere/at/all"},
    ],
)
def test_settings_that_say_nothing_sensible(given: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        ServiceSettings.from_environment(given)
