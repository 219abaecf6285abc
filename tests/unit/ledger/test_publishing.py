"""Publishing a ledger, and having it witnessed over HTTP."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.testclient import TestClient

from safegen.errors import ConfigError, InputError, KeyStoreError, LedgerError
from safegen.ledger import Event, Ledger, VerifierKey
from safegen.ledger.cosignature import cosignatures
from safegen.ledger.publication import Folder, ObjectStore, WebServer, open_place
from safegen.ledger.witness import request_body
from safegen.ledger.witness_http import WitnessAddress, WitnessFolder, gather_cosignatures, make_app

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ORIGIN = "example.com/safegen"
VKEY = VerifierKey.of(ORIGIN, KEY)


def grow(ledger: Ledger, count: int, what: str = "n") -> None:
    for number in range(count):
        ledger.append(Event("generated", body={what: number}))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}", key=KEY, origin=ORIGIN) as opened:
        yield opened


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_copy_brought_up_to_date_holds_what_a_fresh_one_holds(ledger: Ledger, tmp_path: Path) -> None:
    assert ledger.publish(Folder(tmp_path / "old"), VKEY) is None
    for count in (3, 0, 252, 1, 1, 60):
        grow(ledger, count)
        ledger.publish(Folder(tmp_path / "old"), VKEY)
    ledger.publish(Folder(tmp_path / "new"), VKEY)
    old, new = contents(tmp_path / "old"), contents(tmp_path / "new")
    assert new.items() <= old.items()
    assert {name for name in old.keys() - new.keys() if ".p/" not in name} == set()
    assert ledger.publish(Folder(tmp_path / "old"), VKEY).files == 0  # type: ignore[union-attr]


def test_a_place_of_another_ledger_or_of_another_history_is_left_alone(ledger: Ledger, tmp_path: Path) -> None:
    grow(ledger, 5)
    ledger.publish(Folder(tmp_path / "place"), VKEY)
    before = contents(tmp_path / "place")
    with Ledger.open(f"sqlite:///{tmp_path / 'fork.db'}", key=KEY, origin=ORIGIN) as fork:
        grow(fork, 3, "other")
        with pytest.raises(LedgerError, match="rolled back"):
            fork.publish(Folder(tmp_path / "place"), VKEY)
        grow(fork, 9, "other")
        with pytest.raises(LedgerError, match="does not continue"):
            fork.publish(Folder(tmp_path / "place"), VKEY)
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    with Ledger.open(f"sqlite:///{tmp_path / 'other.db'}", key=other, origin=ORIGIN) as stranger:
        grow(stranger, 9)
        with pytest.raises(LedgerError, match="not this ledger's"):
            stranger.publish(Folder(tmp_path / "place"), VerifierKey.of(ORIGIN, other))
    assert contents(tmp_path / "place") == before


class _Shelf(BaseHTTPRequestHandler):
    files: dict[str, bytes]

    def do_GET(self) -> None:
        data = self.files.get(self.path)
        self._answer(404 if data is None else 200, data or b"")

    def do_PUT(self) -> None:
        if self.headers.get("Authorization") != "Bearer secret":
            self._answer(401, b"")
            return
        self.files[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(201, b"")

    def _answer(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.slow
def test_web_servers_and_object_stores_get_the_same_files(ledger: Ledger, tmp_path: Path) -> None:
    grow(ledger, 300)
    ledger.publish(Folder(tmp_path / "place"), VKEY)
    expected = contents(tmp_path / "place")
    shelf = type("Shelf", (_Shelf,), {"files": {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), shelf) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        ledger.publish(open_place(url, "secret"), VKEY)
        assert {name.lstrip("/"): data for name, data in shelf.files.items()} == expected  # type: ignore[attr-defined]
        grow(ledger, 1)
        with pytest.raises(LedgerError, match="401"):
            ledger.publish(WebServer(url), VKEY)
        server.shutdown()
    store = open_place("memory://tests/ledger")
    assert isinstance(store, ObjectStore)
    ledger.publish(store, VKEY)
    assert store.read("checkpoint") == (ledger.checkpoint() or "").encode()
    assert store.read("tile/0/000") == expected["tile/0/000"]
    assert store.read("nothing") is None
    with pytest.raises(ConfigError):
        open_place("nonsense-scheme://x")
    with pytest.raises(LedgerError):
        ledger.publish(open_place("http://127.0.0.1:9"), VKEY)


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[tuple[WitnessFolder, WitnessAddress]]:
    folder = WitnessFolder(tmp_path / "witness")
    vkey = folder.init("witness.example/one")
    folder.add_log(VKEY)
    server = uvicorn.Server(uvicorn.Config(make_app(folder), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    port = server.servers[0].sockets[0].getsockname()[1]
    yield folder, WitnessAddress(f"http://127.0.0.1:{port}", vkey)
    server.should_exit = True
    thread.join()


def test_checkpoints_get_cosigned_as_the_ledger_grows(
    ledger: Ledger, witness: tuple[WitnessFolder, WitnessAddress], tmp_path: Path
) -> None:
    folder, address = witness
    with pytest.raises(LedgerError, match="empty"):
        gather_cosignatures(ledger, [address])
    for count in (2, 5, 0):
        grow(ledger, count)
        cosigned = gather_cosignatures(ledger, [address])
        assert cosigned.witnesses == ("witness.example/one",), cosigned.missing
        found = cosignatures(cosigned.note, address.key)
        assert [c.witness for c in found] == ["witness.example/one"]
        assert abs((dt.datetime.now(dt.UTC) - found[0].time).total_seconds()) < 60
    seen = folder.seen(ORIGIN)
    assert seen is not None
    assert seen.size == 7
    # A cosigned checkpoint is a checkpoint, inside the ledger's own checks and where it is published.
    assert ledger.verify(KEY.public_key(), outside=[cosigned.note]).ok
    ledger.publish(Folder(tmp_path / "place"), VKEY)
    assert ledger.publish(Folder(tmp_path / "place"), VKEY, note=cosigned.note).files == 1  # type: ignore[union-attr]
    assert (tmp_path / "place" / "checkpoint").read_text() == cosigned.note


def test_a_rolled_back_ledger_gets_no_cosignature(
    ledger: Ledger, witness: tuple[WitnessFolder, WitnessAddress], tmp_path: Path
) -> None:
    grow(ledger, 7)
    assert gather_cosignatures(ledger, [witness[1]]).witnesses
    with Ledger.open(f"sqlite:///{tmp_path / 'fork.db'}", key=KEY, origin=ORIGIN) as fork:
        grow(fork, 4)
        assert "more than the ledger has" in gather_cosignatures(fork, [witness[1]]).missing["witness.example/one"]
        grow(fork, 8)
        assert "422" in gather_cosignatures(fork, [witness[1]]).missing["witness.example/one"]


def test_witnesses_that_do_not_answer_are_named(ledger: Ledger, witness: tuple[WitnessFolder, WitnessAddress]) -> None:
    grow(ledger, 1)
    gone = WitnessAddress("http://127.0.0.1:9", witness[1].key)
    assert "cannot be reached" in gather_cosignatures(ledger, [gone]).missing["witness.example/one"]
    with Ledger.open("sqlite://", key=Ed25519PrivateKey.generate(), origin="example.com/other") as stranger:
        grow(stranger, 1)
        assert "404" in gather_cosignatures(stranger, [witness[1]]).missing["witness.example/one"]


def test_what_a_witness_saw_is_not_forgotten_by_damage(ledger: Ledger, tmp_path: Path) -> None:
    folder = WitnessFolder(tmp_path / "w")
    folder.init("w.example")
    folder.add_log(VKEY)
    grow(ledger, 3)
    body = request_body(0, (), ledger.checkpoint() or "")
    with TestClient(make_app(folder)) as client:
        assert client.post("/add-checkpoint", content=body).status_code == 200
        record = next((tmp_path / "w" / "logs").iterdir())
        record.write_text("x")
        assert client.post("/add-checkpoint", content=body).status_code == 500
        assert client.post("/add-checkpoint", content=b"\xff").status_code == 400
        assert client.post("/add-checkpoint", content="x" * 70_000).status_code == 413
    with pytest.raises(KeyStoreError, match="damaged"):
        folder.seen(ORIGIN)
    with pytest.raises(KeyStoreError, match="already"):
        folder.init("again")
    with pytest.raises(KeyStoreError, match="no witness"):
        WitnessFolder(tmp_path / "none").load()
    with pytest.raises(ConfigError, match="another key"):
        folder.add_log(VerifierKey.of(ORIGIN, Ed25519PrivateKey.generate()))
    (tmp_path / "w" / "witness.json").write_text(json.dumps({"name": "w"}))
    with pytest.raises(KeyStoreError, match="no witness"):
        folder.load()


@pytest.mark.parametrize("text", ["", "https://w.example", "ftp://w x", f"https://w.example {VKEY}", "https://w a+b+c"])
def test_malformed_witness_addresses(text: str) -> None:
    with pytest.raises(InputError):
        WitnessAddress.parse(text)
