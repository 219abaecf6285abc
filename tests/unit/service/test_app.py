"""The Soft Binding Resolution API, asked in process."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient

from safegen.errors import InputError, ResolutionError
from safegen.media import encode_video
from safegen.service.app import make_app
from safegen.service.bindings import ALGORITHMS, BASE64, decode_value, encode_value, is_base64
from safegen.service.client import RemoteMatch, ResolutionClient
from safegen.service.limits import ServiceSettings
from safegen.settings import Home
from safegen.types import LOOKS_ALG, ContentId
from tests.marked_clips import clip
from tests.unit.recovery.recovery_samples import ALG, Recorded, record

V = "/v1"
PATIENCE = 300.0
"""Seconds for what is to be answered: reading a clip takes a process of its own, also on a machine with other work."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("recorded")
    return record(Home(folder / "home"), folder)


@pytest.fixture(scope="module")
def service(made: Recorded) -> Iterator[TestClient]:
    with TestClient(make_app(made.home, ServiceSettings(max_asset_bytes=4 << 20, seconds=PATIENCE))) as client:
        yield client


@pytest.fixture
def stripped(made: Recorded, tmp_path: Path) -> Path:
    return made.stripped(tmp_path / "stripped.mp4")


def value_of(made: Recorded) -> str:
    return encode_value(made.content_id)


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """The service on a port of this machine, as ``safegen serve`` runs it; its base URL."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
    with socket.create_server(("127.0.0.1", 0)) as port:
        thread = threading.Thread(target=server.run, args=([port],), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{port.getsockname()[1]}{V}"
        finally:
            server.should_exit = True
            thread.join(timeout=20)


@pytest.fixture(scope="module")
def url(made: Recorded) -> Iterator[str]:
    with listening(make_app(made.home, ServiceSettings(max_asset_bytes=4 << 20, seconds=PATIENCE))) as url:
        yield url


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("ASNFZ4mrze8=", "0123456789abcdef"),
        ("ASNFZ4mrze8", "0123456789abcdef"),
        ("/////////_8=", "ffffffffffffffff"),
        ("//////////8=", "ffffffffffffffff"),
        ("__________8", "ffffffffffffffff"),
        (base64.b64encode(b"0123456789abcdef").decode(), "0123456789abcdef"),
        (base64.b64encode(b"0123456789ABCDEF").decode(), None),
        ("AAAA", None),
        ("A", None),
        ("\u00e9", None),
    ],
)
def test_values(text: str, meant: str | None) -> None:
    assert decode_value(text) == meant


def test_a_value_round_trips() -> None:
    content_id = ContentId("00ff10fe5a5aa5a5")
    assert decode_value(encode_value(content_id)) == content_id
    assert is_base64(encode_value(content_id))
    assert not any(map(is_base64, ("", "A", "AA=A", "AAAA\n", "A A=", "AAAAA", "é==="))), BASE64


# -- byBinding ---------------------------------------------------------------------------------------------------------


def test_a_binding_leads_to_the_manifest(made: Recorded, service: TestClient) -> None:
    wanted = {"matches": [{"manifestId": made.signed.manifest_id}]}
    query = {"alg": ALG, "value": value_of(made)}
    assert service.get(f"{V}/matches/byBinding", params=query).json() == wanted
    assert service.post(f"{V}/matches/byBinding", json=query).json() == wanted


def test_a_binding_that_leads_nowhere_matches_nothing(made: Recorded, service: TestClient) -> None:
    for alg, value in ((ALG, "AAAAAAAAAAA="), (ALG, "AAAA"), (ALGORITHMS[1], value_of(made))):
        answer = service.get(f"{V}/matches/byBinding", params={"alg": alg, "value": value})
        assert (answer.status_code, answer.json()) == (200, {"matches": []})


def test_pages(made: Recorded, service: TestClient, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No value has two clips in one ledger; the service pages through what look-ups give all the same."""
    from safegen.ledger import Binding, Ledger

    rows = [Binding(10 * n, ALG, made.content_id, f"urn:{n}") for n in range(7)]

    def find(_: Ledger, alg: str, value: str, *, limit: int, after: int = -1) -> list[Binding]:
        assert (alg, value) == (ALG, made.content_id)
        return [row for row in rows if row.entry > after][:limit]

    monkeypatch.setattr(Ledger, "find_binding", find)
    query: dict[str, Any] = {"alg": ALG, "value": value_of(made), "maxResults": 3}
    first = service.get(f"{V}/matches/byBinding", params=query).json()
    assert [m["manifestId"] for m in first["matches"]] == ["urn:0", "urn:1", "urn:2"]
    second = service.get(f"{V}/matches/byBinding", params=query | {"cursor": first["nextCursor"]}).json()
    last = service.get(f"{V}/matches/byBinding", params=query | {"cursor": second["nextCursor"]}).json()
    assert [m["manifestId"] for m in last["matches"]] == ["urn:6"]
    assert "nextCursor" not in last
    with ResolutionClient(url, seconds=PATIENCE) as client:
        assert [m.manifest_id for m in client.by_binding(ALG, made.content_id, limit=5)] == [
            f"urn:{n}" for n in range(5)
        ]
        assert len(client.by_binding(ALG, made.content_id, limit=50)) == 7


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"alg": ALG},
        {"value": "AAAA"},
        {"alg": "org.example.unknown.1", "value": "AAAA"},
        {"alg": ALG, "value": "not base64!"},
        {"alg": ALG, "value": "AAAA", "maxResults": "0"},
        {"alg": ALG, "value": "AAAA", "maxResults": "ten"},
        {"alg": ALG, "value": "AAAA", "cursor": "-1"},
        {"alg": ALG, "value": ["AAAA", "BBBB"]},
    ],
)
def test_malformed_queries(service: TestClient, query: dict[str, Any]) -> None:
    answer = service.get(f"{V}/matches/byBinding", params=query)
    assert (answer.status_code, set(answer.json())) == (400, {"error"})


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"alg": 1, "value": "AAAA"}', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"{}" + b" " * 200_000, "application/json", 413),
        (b"{}", "text/plain", 415),
    ],
)
def test_malformed_bodies(service: TestClient, body: bytes, kind: str, status: int) -> None:
    answer = service.post(f"{V}/matches/byBinding", content=body, headers={"Content-Type": kind})
    assert (answer.status_code, set(answer.json())) == (status, {"error"})


# -- manifests and algorithms ------------------------------------------------------------------------------------------


def test_a_manifest_is_served_as_it_was_signed(made: Recorded, service: TestClient) -> None:
    answer = service.get(f"{V}/manifests/{made.signed.manifest_id}")
    assert (answer.content, answer.headers["content-type"]) == (made.signed.manifest_bytes, "application/c2pa")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_active_manifest_alone(made: Recorded, service: TestClient) -> None:
    """A painted clip's store has one manifest; what is cut out of it must be that store again, to the byte."""
    url = f"{V}/manifests/{made.signed.manifest_id}"
    assert service.get(url, params={"returnActiveManifest": "true"}).content == made.signed.manifest_bytes
    assert service.get(url, params={"returnActiveManifest": "false"}).content == made.signed.manifest_bytes
    assert service.get(url, params={"returnActiveManifest": "perhaps"}).status_code == 400


@pytest.mark.parametrize("name", ["urn:c2pa:nobody", "..%2F..%2Fkeys", "x" * 3000, "%00"])
def test_unknown_manifests(service: TestClient, name: str) -> None:
    assert service.get(f"{V}/manifests/{name}").status_code == 404


def test_a_kept_manifest_that_was_changed_is_not_served(made: Recorded, tmp_path: Path) -> None:
    shutil.copytree(made.home.root, tmp_path / "home")
    home = Home(tmp_path / "home")
    kept = home.manifests / f"{made.content_id}.c2pa"
    kept.write_bytes(b"something else")
    with TestClient(make_app(home)) as service:
        answer = service.get(f"{V}/manifests/{made.signed.manifest_id}")
        assert (answer.status_code, answer.json()) == (500, {"error": "the service could not answer"})
        kept.unlink()
        assert service.get(f"{V}/manifests/{made.signed.manifest_id}").status_code == 404


def test_the_algorithms_are_those_that_clips_are_marked_with(service: TestClient) -> None:
    answer = service.get(f"{V}/services/supportedAlgorithms").json()
    assert {"alg": ALG} in answer["watermarks"]
    assert answer["fingerprints"] == [{"alg": LOOKS_ALG}]


def test_discovery(made: Recorded, service: TestClient, tmp_path: Path) -> None:
    found = service.get("/.well-known/c2pa-soft-binding-resolution").json()
    capabilities = service.get(found["capabilitiesEndpoint"]).json()
    assert found["apiEndpoint"] == V
    assert found["c2paSpecificationVersion"] == capabilities["c2paSpecificationVersion"] == "2.4.0"
    assert capabilities["supportedCapabilities"] == ["queryByContent"]
    assert service.get(found["statusEndpoint"]).json()["status"] == "ok"
    fetching = ServiceSettings(reference_hosts=("media.example",))
    with TestClient(make_app(Home(tmp_path / "nowhere"), fetching)) as broken:
        assert broken.get(found["statusEndpoint"]).json()["status"] == "down"
        assert "queryByReference" in broken.get(found["capabilitiesEndpoint"]).json()["supportedCapabilities"]


def test_long_values_go_by_post(made: Recorded, service: TestClient) -> None:
    query = {"alg": ALG, "value": "A" * 4000}
    assert service.get(f"{V}/matches/byBinding", params=query).status_code == 414
    assert service.post(f"{V}/matches/byBinding", json=query).json() == {"matches": []}
    many = {"alg": ALG, "value": value_of(made), "maxResults": 5000}
    assert len(service.get(f"{V}/matches/byBinding", params=many).json()["matches"]) == 1


# -- byContent ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_stripped_clip_leads_to_its_manifest(made: Recorded, url: str, stripped: Path) -> None:
    with ResolutionClient(url, seconds=PATIENCE) as client:
        [match] = client.by_content(stripped)
        assert match.manifest_id == made.signed.manifest_id
        assert match.similarity is not None
        assert 50 < match.similarity <= 100
        assert client.manifest(match.manifest_id) == made.signed.manifest_bytes
        assert client.by_content(stripped, alg=ALGORITHMS[1]) == []


@pytest.mark.slow
def test_an_unmarked_copy_leads_to_the_manifest_by_its_looks(made: Recorded, url: str, tmp_path: Path) -> None:
    from safegen.media import read_clip
    from safegen.media.video_hash import video_hash

    encode_video(clip(3, 33, 96, 128), 16, tmp_path / "copy.mp4")  # what the sample's mark was put on
    seen = video_hash(read_clip(tmp_path / "copy.mp4").frames, 16)
    shown = video_hash(read_clip(made.signed.path).frames, 16)
    assert seen is not None
    assert shown is not None
    with ResolutionClient(url, seconds=PATIENCE) as client:
        assert client.by_content(tmp_path / "copy.mp4") == [], "likeness answers where it is asked for by name alone"
        [match] = client.by_content(tmp_path / "copy.mp4", alg=LOOKS_ALG)
        assert (match.manifest_id, (match.similarity or 0) >= 50) == (made.signed.manifest_id, True)
        assert client.by_content(tmp_path / "copy.mp4", alg=ALG) == []
        # One half second of a copy is found most times only: a piece of it may differ in more bits than are tried.
        for value in (b"".join(seen.windows), shown.windows[0]):
            [match] = client.by_binding(LOOKS_ALG, value)
            assert (match.manifest_id, (match.similarity or 0) >= 50) == (made.signed.manifest_id, True)
        assert client.by_binding(LOOKS_ALG, bytes(32)) == client.by_binding(LOOKS_ALG, b"short") == []


@pytest.mark.slow
def test_looks_can_be_asked_for_where_there_is_a_mark(made: Recorded, url: str, stripped: Path) -> None:
    with ResolutionClient(url, seconds=PATIENCE) as client:
        assert [m.manifest_id for m in client.by_content(stripped, alg=LOOKS_ALG)] == [made.signed.manifest_id]


@pytest.mark.slow
def test_a_hint_counts_only_where_no_mark_is_read(made: Recorded, url: str, tmp_path: Path) -> None:
    encode_video(clip(5, 33, 96, 128), 16, tmp_path / "plain.mp4")
    with ResolutionClient(url, seconds=PATIENCE) as client:
        hint = (ALG, bytes.fromhex(made.content_id))
        assert client.by_content(tmp_path / "plain.mp4", hint=hint) == [RemoteMatch(made.signed.manifest_id)]


def test_what_is_no_media_is_415(service: TestClient) -> None:
    for content, kind in ((b"no media", "video/mp4"), (b"x", "multipart/form-data"), (b"x", ""), (b"{}", "video")):
        answer = service.post(f"{V}/matches/byContent", content=content, headers={"Content-Type": kind})
        assert (answer.status_code, set(answer.json())) == (415, {"error"})
    answer = service.post(f"{V}/matches/byContent", content=b"", headers={"Content-Type": "video/mp4"})
    assert answer.status_code == 400


def test_a_large_asset_is_refused_announced_or_not(
    service: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    url, headers = f"{V}/matches/byContent", {"Content-Type": "video/mp4"}
    assert service.post(url, content=bytes((4 << 20) + 1), headers=headers).status_code == 413
    chunks = (bytes(1 << 20) for _ in range(6))
    assert service.post(url, content=chunks, headers=headers).status_code == 413
    assert not list(tmp_path.iterdir())


def test_reading_that_takes_too_long_is_ended(made: Recorded, stripped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    execute = asyncio.create_subprocess_exec

    async def remember(*arguments: Any, **options: Any) -> Any:
        started.append(await execute(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", remember)
    with TestClient(make_app(made.home, ServiceSettings(seconds=0.2))) as service:
        answer = service.post(
            f"{V}/matches/byContent", content=stripped.read_bytes(), headers={"Content-Type": "video/mp4"}
        )
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
    assert [process.returncode for process in started] == [-9]


def test_no_more_are_read_at_once_than_allowed(made: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading is what counts: assets that arrive slowly take no place from others."""
    from safegen.service import service as module

    reading = module.read_asset

    async def slower(*args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0.3)
        return await reading(*args, **kwargs)

    monkeypatch.setattr(module, "read_asset", slower)
    clip = made.stripped(tmp_path / "stripped.mp4").read_bytes()
    app = make_app(made.home, ServiceSettings(concurrent=1))

    async def ask() -> list[int]:
        import httpx

        async def never() -> Any:
            yield b"\0"
            await asyncio.sleep(60)

        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x", timeout=60) as client:

            async def one(content: Any) -> int:
                headers = {"Content-Type": "video/mp4"}
                return (await client.post(f"{V}/matches/byContent", content=content, headers=headers)).status_code

            arriving = [asyncio.create_task(one(never())) for _ in range(2)]
            await asyncio.sleep(0.1)
            found = sorted(await asyncio.gather(*(one(clip) for _ in range(3))))
            for task in arriving:
                task.cancel()
            return found

    assert asyncio.run(ask()) == [200, 503, 503]


def test_a_home_that_cannot_answer_says_nothing_of_itself(tmp_path: Path) -> None:
    with TestClient(make_app(Home(tmp_path / "nowhere"))) as service:
        answer = service.get(f"{V}/matches/byBinding", params={"alg": ALG, "value": "AAAAAAAAAAA="})
    assert (answer.status_code, answer.json()) == (500, {"error": "the service could not answer"})


# -- who may ask -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def locked(made: Recorded) -> Iterator[TestClient]:
    with TestClient(make_app(made.home, ServiceSettings(token="open-sesame"))) as client:
        yield client


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer", "Basic open-sesame", "open-sesame", "Bearer é"])
def test_without_the_token_nothing_is_answered(locked: TestClient, made: Recorded, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header.encode()}
    for method, path in (
        ("GET", f"{V}/matches/byBinding?alg={ALG}&value={value_of(made)}"),
        ("POST", f"{V}/matches/byContent"),
        ("POST", f"{V}/matches/byReference"),
        ("GET", f"{V}/manifests/{made.signed.manifest_id}"),
    ):
        answer = locked.request(method, path, headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert locked.get(f"{V}/services/supportedAlgorithms").status_code == 200


def test_with_the_token(made: Recorded) -> None:
    with listening(make_app(made.home, ServiceSettings(token="open-sesame"))) as url:
        with ResolutionClient(url, token="open-sesame") as client:
            assert client.by_binding(ALG, made.content_id) == [RemoteMatch(made.signed.manifest_id)]
            assert ALG in client.supported_algorithms()
        with ResolutionClient(url, token="wrong") as client, pytest.raises(ResolutionError, match="401"):
            client.by_binding(ALG, made.content_id)


def test_authorisation_can_be_replaced(made: Recorded) -> None:
    with TestClient(make_app(made.home, authorise=lambda token: token == "other")) as service:
        path = f"{V}/manifests/{made.signed.manifest_id}"
        assert service.get(path).status_code == 401
        assert service.get(path, headers={"Authorization": "bearer other"}).status_code == 200


# -- the client --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [b"", b"[]", b"{", b'{"matches": 1}', b'{"matches": [{}]}', b'{"matches": [{"manifestId": ""}]}', b" " * (2 << 20)],
)
def test_nonsense_from_a_service_is_our_error(answer: bytes) -> None:
    import httpx

    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=answer))
    with ResolutionClient("https://x/v1", transport=transport) as client, pytest.raises(ResolutionError):
        client.by_binding(ALG, b"12345678")


def test_the_client_follows_no_redirect_and_sends_no_token_in_the_clear() -> None:
    import httpx

    moved = httpx.MockTransport(lambda _: httpx.Response(302, headers={"Location": "https://elsewhere/"}))
    with ResolutionClient("https://x/v1", transport=moved) as client, pytest.raises(ResolutionError, match="302"):
        client.manifest("urn:c2pa:x")
    with pytest.raises(InputError, match="clear"):
        ResolutionClient("http://example.org/v1", token="t")
    with pytest.raises(InputError):
        ResolutionClient("ftp://example.org")


def test_openapi_is_served(service: TestClient) -> None:
    described = service.get("/openapi.json").json()
    assert described["info"]["version"] == "2.4.0"
    assert set(described["paths"]) == {
        "/matches/byBinding", "/matches/byContent", "/matches/byReference", "/manifests/{activeManifestId}",
        "/services/supportedAlgorithms", "/services/capabilities", "/services/status",
        "/.well-known/c2pa-soft-binding-resolution",
    }  # fmt: skip
    assert json.dumps(described).count("$ref") > 20


def test_openapi_asks_for_a_token_where_one_is_needed(service: TestClient, locked: TestClient) -> None:
    assert "security" not in service.get("/openapi.json").json()
    assert locked.get("/openapi.json").json()["security"] == [{"bearer": []}]
