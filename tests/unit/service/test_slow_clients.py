"""Clients that send half, or slowly, or take nothing: others are served, and they are let go."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn

from safegen.cli.serve import listen
from safegen.errors import ConfigError
from safegen.service import admission
from safegen.service.limits import ServiceSettings
from safegen.service.server import server_config
from safegen.settings import Home
from tests.unit.recovery.recovery_samples import ALG, Recorded, record

HEAD = b"POST /v1/matches/byContent HTTP/1.1\r\nHost: x\r\nContent-Type: video/mp4\r\nContent-Length: 100000\r\n"
PATIENCE = 60.0  # of the test: no limit that is asserted


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("made")
    return record(Home(folder / "home"), folder)


@contextlib.contextmanager
def serving(home: Home, settings: ServiceSettings) -> Iterator[int]:
    """A real server on a port of its own, in a thread."""
    config = server_config(home, settings)
    config.timeout_graceful_shutdown = 1
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[method-assign]
    with listen("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(PATIENCE)


def connect(port: int, data: bytes = b"", source: str = "127.0.0.1") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE, source_address=(source, 0))
    client.sendall(data)
    return client


def ask(port: int, made: Recorded, source: str = "127.0.0.1", **headers: str) -> httpx.Response:
    """An honest question."""
    with httpx.Client(transport=httpx.HTTPTransport(local_address=source), timeout=PATIENCE) as client:
        found = {"alg": ALG, "value": "AAAAAAAAAAA="}
        return client.get(f"http://127.0.0.1:{port}/v1/matches/byBinding", params=found, headers=headers)


def status_of(client: socket.socket) -> int:
    """The status that comes back, 0 where the connection is closed without one."""
    try:
        answer = client.recv(65536)
    except ConnectionResetError:
        return 0
    return int(answer.split()[1]) if answer else 0


def test_70_half_sent_requests_keep_nobody_waiting(made: Recorded) -> None:
    with serving(made.home, ServiceSettings()) as port:
        slow = [connect(port, HEAD) for _ in range(70)]
        try:
            for source in ("127.0.0.1", "127.0.0.2"):
                assert ask(port, made, source).status_code == 200
        finally:
            for client in slow:
                client.close()


def test_more_connections_than_there_may_be_close_the_one_that_waited_longest(made: Recorded) -> None:
    with serving(made.home, ServiceSettings(connections=8, per_address=2)) as port:
        first, *others = [connect(port, HEAD, f"127.0.0.{n}") for n in range(1, 9)]
        newest = connect(port, HEAD, "127.0.0.9")
        assert status_of(first) == 0, "closed"
        own = [connect(port, HEAD, "127.0.0.9") for _ in range(4)]
        assert status_of(newest) == 0, "and of one address likewise"
        assert ask(port, made, "127.0.0.9").status_code == 200
        for client in (*others, *own):
            client.close()


@pytest.mark.parametrize("data", [b"", b"GET / HT", HEAD], ids=["nothing", "half a line", "half a head"])
def test_a_head_that_does_not_come_is_not_waited_for(made: Recorded, data: bytes) -> None:
    with serving(made.home, ServiceSettings(head_seconds=0.3)) as port, connect(port, data) as client:
        assert status_of(client) == 0


def test_nor_is_the_next_head_of_a_connection(made: Recorded) -> None:
    settings = ServiceSettings(head_seconds=0.5)
    with (
        serving(made.home, settings) as port,
        connect(port, b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n") as client,
    ):
        answer = client.recv(1 << 20)
        assert answer.startswith(b"HTTP/1.1 200")
        client.sendall(b"GET /open")  # which stops uvicorn's own count for idle connections
        while client.recv(1 << 20):
            pass


def test_a_body_that_trickles_is_answered_408(made: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece comes soon after the last; it is all of them together that take too long."""
    monkeypatch.setattr(admission, "GRACE", 0.5)
    with serving(made.home, ServiceSettings()) as port, connect(port, HEAD + b"\r\n") as client:
        client.settimeout(0.1)
        for _ in range(600):
            with contextlib.suppress(TimeoutError):
                answer = client.recv(65536)
                break
            client.sendall(b"x")
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"connection: close" in answer.lower()


def test_small_bodies_are_not_waited_for_either(made: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "GRACE", 0.2)
    head = b"POST /v1/matches/byBinding HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    for more in (b"Content-Length: 20\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"):
        with serving(made.home, ServiceSettings()) as port, connect(port, head + more) as client:
            assert status_of(client) == 408


def test_the_slowest_body_gives_way_where_all_places_are_taken(made: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "YOUNG", 0.0)
    with serving(made.home, ServiceSettings(bodies=2)) as port:
        slower = connect(port, HEAD + b"\r\n", "127.0.0.2")
        quicker = connect(port, HEAD + b"\r\n" + bytes(50_000), "127.0.0.3")
        time.sleep(0.3)  # both have begun
        with connect(port, HEAD + b"\r\n", "127.0.0.4") as third:
            assert status_of(slower) == 408
            quicker.sendall(bytes(50_000))
            assert status_of(quicker) == 415, "all of it is there, and no media"
            third.sendall(bytes(100_000))
            assert status_of(third) == 415
        slower.close()
        quicker.close()


def test_an_address_has_so_many_requests_open(made: Recorded) -> None:
    with serving(made.home, ServiceSettings(per_address=2)) as port:
        held = [connect(port, HEAD + b"\r\nx", "127.0.0.5") for _ in range(2)]
        time.sleep(0.3)  # both have begun
        assert ask(port, made, "127.0.0.5").status_code == 429
        assert ask(port, made, "127.0.0.6").status_code == 200
        for client in held:
            client.close()


def test_an_address_has_a_quarter_of_all_bodies(made: Recorded) -> None:
    with serving(made.home, ServiceSettings(bodies=8)) as port:
        held = [connect(port, HEAD + b"\r\nx", "127.0.0.5") for _ in range(2)]
        time.sleep(0.3)  # both have begun
        with connect(port, HEAD + b"\r\nx", "127.0.0.5") as third:
            assert status_of(third) == 429
        assert ask(port, made, "127.0.0.5").status_code == 200, "what has no body is served"
        for client in held:
            client.close()


def test_addresses_are_those_that_a_trusted_proxy_tells_and_nobody_else_s(made: Recorded) -> None:
    for proxies, expected in ((("127.0.0.7",), 200), ((), 429)):
        with serving(made.home, ServiceSettings(per_address=2, proxies=proxies)) as port:
            mine = HEAD + b"X-Forwarded-For: 198.51.100.1\r\n\r\nx"
            held = [connect(port, mine, "127.0.0.7") for _ in range(2)]
            time.sleep(0.3)  # both have begun
            other = {"X-Forwarded-For": "198.51.100.2"}
            assert ask(port, made, "127.0.0.7", **other).status_code == expected
            for client in held:
                client.close()


def test_a_client_that_never_reads_its_answer_is_let_go(made: Recorded) -> None:
    settings = ServiceSettings(head_seconds=0.2, seconds=0.2)
    with serving(made.home, settings) as port, connect(port) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 400_000)


@pytest.mark.parametrize("text", ["nonsense", "10.0.0.0/33", "10.0.0.1/8"])
def test_proxies_that_are_no_addresses(text: str) -> None:
    with pytest.raises(ConfigError, match="PROXIES"):
        ServiceSettings.from_environment({"SAFEGEN_RESOLUTION_PROXIES": text})


def test_odd_requests_end_in_an_answer_or_a_closed_connection(made: Recorded, tmp_path: Path) -> None:
    odd = [
        b"\0" * 100 + b"\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: " + b"b" * 40_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"h%d: x\r\n" % n for n in range(5000)) + b"\r\n",
        HEAD.replace(b"100000", b"-1") + b"\r\n",
        HEAD.replace(b"100000", b"99999999999999999999") + b"\r\n",
        HEAD + b"Content-Length: 5\r\n\r\nhello",
        HEAD.replace(b"Content-Length: 100000", b"Transfer-Encoding: chunked") + b"\r\nzz\r\n",
        HEAD.replace(b"Content-Length: 100000", b"Transfer-Encoding: chunked") + b"\r\n0\r\n\r\n",
    ]
    with serving(made.home, ServiceSettings(head_seconds=2)) as port:
        for data in odd:
            with connect(port, data) as client:
                assert status_of(client) in (0, 400, 404, 413, 431), data[:60]
        pipelined = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 3
        with connect(port, pipelined) as client:
            got = b""
            while got.count(b"HTTP/1.1 200") < 3:
                got += client.recv(1 << 20)
        assert ask(port, made).status_code == 200
