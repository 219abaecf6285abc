"""The storing side of the resolution API: who may, what is taken in, what it leads to, and that it stays apart."""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from safegen.errors import ConfigError
from safegen.keys import KeyStore
from safegen.ledger import Event, Ledger, downgrade, upgrade
from safegen.ledger.foreign_manifests import KINDS
from safegen.ledger.subjects import Personal
from safegen.media import encode_video
from safegen.provenance.file_signing import sign_file
from safegen.provenance.native.jumbf import manifests
from safegen.service import stored_manifests
from safegen.service.app import make_app
from safegen.service.bindings import ALGORITHMS, encode_value
from safegen.service.holders import read_holders
from safegen.service.limits import ServiceSettings
from safegen.service.stored_manifests import NotStoredError, Storage
from safegen.settings import Home
from tests.marked_clips import clip
from tests.unit.provenance.provenance_samples import make_spec
from tests.unit.recovery.recovery_samples import ALG, Recorded, record

V = "/v1"
KEEPER, BINDER, READER, OTHER = ("k" * 16, "b" * 16, "r" * 16, "o" * 16)
FOREIGN = "com.example.watermark.1"
VALUE = base64.b64encode(b"a watermark's value").decode()


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The manifest of a clip that another home has signed."""
    folder = tmp_path_factory.mktemp("foreign")
    encode_video(clip(1, 9, 64, 64), 16, folder / "plain.mp4")
    keys = KeyStore.init(Home(folder / "home"))
    return sign_file(folder / "plain.mp4", folder / "out.mp4", make_spec(), keys).manifest_bytes


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The manifest of one more clip of others."""
    folder = tmp_path_factory.mktemp("another")
    encode_video(clip(2, 9, 64, 64), 16, folder / "plain.mp4")
    keys = KeyStore.init(Home(folder / "home"))
    return sign_file(folder / "plain.mp4", folder / "out.mp4", make_spec(), keys).manifest_bytes


@pytest.fixture
def made(tmp_path: Path) -> Recorded:
    return record(Home(tmp_path / "home"), tmp_path)


@pytest.fixture
def holders(tmp_path: Path) -> Path:
    path = tmp_path / "holders"
    path.write_text(
        f"# who may\n\nkeeper {KEEPER} fetch:manifests,store:manifests,store:bindings\n"
        f"keeper {BINDER} store:bindings\nother {OTHER} store:manifests,store:bindings\n"
        f"reader {READER} fetch:manifests\n"
    )
    path.chmod(0o600)
    return path


@pytest.fixture
def service(made: Recorded, holders: Path) -> Iterator[TestClient]:
    settings = ServiceSettings.from_environment(
        {"SAFEGEN_RESOLUTION_HOLDERS_FILE": str(holders), "SAFEGEN_RESOLUTION_TOKEN": "p" * 16}
    )
    with TestClient(make_app(made.home, settings)) as client:
        yield client


def ask(service: TestClient, verb: str, path: str, token: str = KEEPER, **more: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"} | more.pop("headers", {})
    return service.request(verb, V + path, headers=headers, **more)


def store(service: TestClient, manifest: bytes, query: str = "", token: str = KEEPER) -> httpx.Response:
    headers = {"Content-Type": "application/c2pa"}
    return ask(service, "POST", f"/manifests{query}", token, content=manifest, headers=headers)


def binding(manifest_id: str, alg: str = FOREIGN, value: str = VALUE) -> dict[str, str]:
    return {"alg": alg, "bindingValue": value, "manifestId": manifest_id}


def matches(service: TestClient, alg: str = FOREIGN, value: str = VALUE) -> Any:
    answer = ask(service, "GET", "/matches/byBinding", params={"alg": alg, "value": value})
    return answer.json()["matches"]


def test_a_manifest_is_stored_bound_found_and_given_up(service: TestClient, made: Recorded, foreign: bytes) -> None:
    stored = store(service, foreign).json()["manifestId"]
    assert ask(service, "GET", f"/manifests/{stored}").content == foreign
    alone = ask(service, "GET", f"/manifests/{stored}?returnActiveManifest=true")
    assert (alone.status_code, 0 < len(alone.content) <= len(foreign)) == (200, True)
    assert ask(service, "POST", "/bindings", BINDER, json=binding(stored)).status_code == 204
    assert ask(service, "POST", "/bindings", BINDER, json=binding(stored)).status_code == 204
    assert matches(service) == [{"manifestId": stored, "stored": True}]
    assert ask(service, "DELETE", f"/manifests/{stored}").status_code == 204
    assert (matches(service), ask(service, "GET", f"/manifests/{stored}").status_code) == ([], 404)
    assert ask(service, "DELETE", f"/manifests/{stored}").status_code == 404
    assert list((made.home.root / "stored").iterdir()) == []
    with Ledger.open(made.home.ledger_url, create=False, read_only=True) as ledger:
        told = [(e.kind, Personal(ledger, made.home).opened(e)["holder"]) for e in ledger.entries() if e.kind in KINDS]
        assert told == [("stored", "keeper"), ("bound", "keeper"), ("unstored", "keeper")]
        assert ledger.verify().ok


def test_what_is_stored_is_not_what_was_made(service: TestClient, made: Recorded, foreign: bytes) -> None:
    """Nobody binds what he stored to a clip of this home: values of our own algorithms are given out here alone."""
    stored = store(service, foreign).json()["manifestId"]
    for alg in ALGORITHMS:
        for verb in ("POST", "PUT"):
            answer = ask(service, verb, "/bindings", json=binding(stored, alg, encode_value(made.content_id)))
            assert (answer.status_code, set(answer.json())) == (403, {"error"})
    assert matches(service, ALG, encode_value(made.content_id)) == [{"manifestId": made.signed.manifest_id}]
    with Ledger.open(made.home.ledger_url, create=False, read_only=True) as ledger:
        assert ledger.find_manifest(stored) is None
    assert store(service, made.signed.manifest_bytes).status_code == 409, "it is kept as the home's own"


def test_a_holder_does_nothing_to_what_another_one_stored(
    service: TestClient, made: Recorded, foreign: bytes, another: bytes
) -> None:
    mine = store(service, foreign).json()["manifestId"]
    theirs = store(service, another, token=OTHER).json()["manifestId"]
    for manifest_id, token in ((mine, KEEPER), (theirs, OTHER)):
        assert ask(service, "POST", "/bindings", token, json=binding(manifest_id)).status_code == 204
    assert ask(service, "DELETE", f"/manifests/{mine}", OTHER).status_code == 403
    for verb in ("POST", "PUT"):
        assert ask(service, verb, "/bindings", OTHER, json=binding(mine)).status_code == 403
    assert store(service, foreign, token=OTHER).status_code == 409
    assert ask(service, "PUT", "/bindings", OTHER, json=binding(theirs)).status_code == 204
    assert [m["manifestId"] for m in matches(service)] == [mine, theirs], "replaced among its holder's own"
    assert ask(service, "GET", f"/manifests/{mine}").content == foreign
    with Ledger.open(made.home.ledger_url, create=False, read_only=True) as ledger:
        told = [e.body["owner"] for e in ledger.entries() if e.kind == "stored"]
        assert len(set(told)) == 2, "a keyed hash tells them apart"
        assert not any(name in e.leaf for e in ledger.entries() for name in ("keeper", "other"))
    downgrade(made.home.ledger_url, "0003")
    upgrade(made.home.ledger_url)
    assert [m["manifestId"] for m in matches(service)] == [mine, theirs], "the indexes follow from the entries"


def test_what_was_stored_before_there_were_owners_is_its_holder_s(
    service: TestClient, made: Recorded, foreign: bytes
) -> None:
    manifest_id = manifests(foreign)[-1].label
    kept = made.home.root / "stored" / f"{hashlib.sha256(manifest_id.encode()).hexdigest()}.c2pa"
    kept.parent.mkdir()
    kept.write_bytes(foreign)
    body = {"manifest_id": manifest_id, "bytes": len(foreign)}
    keys = KeyStore.load(made.home)
    with Ledger.open(made.home.ledger_url, key=keys.ledger_key, origin=keys.ledger_name) as ledger:
        event = Event("stored", body=body, manifest_sha256=hashlib.sha256(foreign).hexdigest())
        Personal(ledger, made.home).append(event, "keeper", {"holder": "keeper"})
    assert ask(service, "GET", f"/manifests/{manifest_id}").content == foreign
    assert ask(service, "POST", "/bindings", OTHER, json=binding(manifest_id)).status_code == 403
    assert ask(service, "DELETE", f"/manifests/{manifest_id}", OTHER).status_code == 403
    assert ask(service, "POST", "/bindings", json=binding(manifest_id)).status_code == 204
    assert ask(service, "DELETE", f"/manifests/{manifest_id}").status_code == 204
    assert not kept.exists()


def test_a_binding_leads_to_so_many_manifests_of_a_holder(
    service: TestClient, foreign: bytes, another: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_manifests, "MOST_BOUND", 1)
    one, two = (store(service, manifest).json()["manifestId"] for manifest in (foreign, another))
    assert ask(service, "POST", "/bindings", json=binding(one)).status_code == 204
    assert ask(service, "POST", "/bindings", json=binding(two)).status_code == 409
    assert ask(service, "PUT", "/bindings", json=binding(two)).status_code == 204


@pytest.mark.slow
def test_requests_at_the_same_time_lose_nothing_and_are_no_fault_of_ours(
    made: Recorded, holders: Path, foreign: bytes, another: bytes
) -> None:
    """Two clients over two applications on one home store, bind and give up the same manifests; at the end one more
    request decides, and what it leaves is whole."""
    settings = ServiceSettings.from_environment({"SAFEGEN_RESOLUTION_HOLDERS_FILE": str(holders)})
    ids = [manifests(each)[-1].label for each in (foreign, another)]

    def client(seed: int) -> list[int]:
        dice = random.Random(seed)
        codes = []
        with TestClient(make_app(made.home, settings)) as service:
            for _ in range(25):
                n = dice.randrange(2)
                match dice.choice(("store", "bind", "replace", "drop", "read")):
                    case "store":
                        answer = store(service, (foreign, another)[n])
                    case "bind":
                        answer = ask(service, "POST", "/bindings", json=binding(ids[n]))
                    case "replace":
                        answer = ask(service, "PUT", "/bindings", json=binding(ids[n]))
                    case "drop":
                        answer = ask(service, "DELETE", f"/manifests/{ids[n]}")
                    case _:
                        answer = ask(service, "GET", f"/manifests/{ids[n]}")
                        assert answer.status_code != 200 or answer.content == (foreign, another)[n]
                codes.append(answer.status_code)
        return codes

    with ThreadPoolExecutor(3) as pool:
        codes = [code for found in pool.map(client, range(3)) for code in found]
    assert set(codes) <= {200, 204, 404, 409}
    with TestClient(make_app(made.home, settings)) as service:
        for manifest, manifest_id in zip((foreign, another), ids, strict=True):
            assert store(service, manifest).status_code == 200
            assert ask(service, "GET", f"/manifests/{manifest_id}").content == manifest
    assert len(list((made.home.root / "stored").iterdir())) == 2, "no file is left of what was given up"
    with Ledger.open(made.home.ledger_url, create=False, read_only=True) as ledger:
        assert ledger.verify().ok


@pytest.mark.parametrize("between", ["dropped", "stored again"])
def test_a_manifest_that_is_given_up_while_it_is_stored(
    made: Recorded, foreign: bytes, between: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process acts between a request's file and its entry, or between an entry and its file's removal."""
    one, two = Storage(made.home), Storage(made.home)
    manifest_id = one.take(foreign, "keeper")
    if between == "dropped":
        own = Storage._append

        def late(self: Storage, ledger: Ledger, event: Event, holder: str) -> None:
            monkeypatch.setattr(Storage, "_append", own)
            two.drop(manifest_id, "keeper")
            own(self, ledger, event, holder)

        monkeypatch.setattr(Storage, "_append", late)
        with pytest.raises(NotStoredError):
            one.drop(manifest_id, "keeper")
        assert two.read(manifest_id) is None
        assert one.take(foreign, "keeper") == manifest_id
    else:
        unlink = Path.unlink

        def later(self: Path, missing_ok: bool = False) -> None:
            monkeypatch.setattr(Path, "unlink", unlink)
            two.take(foreign, "keeper")
            unlink(self, missing_ok)

        monkeypatch.setattr(Path, "unlink", later)
        one.drop(manifest_id, "keeper")
    assert two.read(manifest_id) == foreign


def test_put_replaces(service: TestClient, made: Recorded, foreign: bytes, another: bytes) -> None:
    one, two = (store(service, manifest).json()["manifestId"] for manifest in (foreign, another))
    assert ask(service, "PUT", "/bindings", json=binding(two)).status_code == 404, "there is nothing to replace"
    for manifest_id in (one, two):
        ask(service, "POST", "/bindings", json=binding(manifest_id))
    assert [m["manifestId"] for m in matches(service)] == [one, two]
    assert ask(service, "PUT", "/bindings", json=binding(two)).status_code == 204
    assert [m["manifestId"] for m in matches(service)] == [two]
    downgrade(made.home.ledger_url, "0003")
    upgrade(made.home.ledger_url)
    assert [m["manifestId"] for m in matches(service)] == [two], "the indexes follow from the entries"
    assert ask(service, "GET", f"/manifests/{one}").content == foreign


def test_receipts(service: TestClient, made: Recorded, foreign: bytes) -> None:
    answer = store(service, foreign, "?returnReceipt=true").json()
    stored, receipt = answer["manifestId"], answer["receipt"]
    assert (receipt["@type"], receipt["repository"]["manifestId"]) == ("org.c2pa.manifest-receipt", stored)
    proof = receipt["anchor"]["proof"]
    from safegen.ledger import InclusionProof, verify_inclusion

    shown = InclusionProof.from_text(proof["value"], proof["leaf"])
    assert verify_inclusion(shown, proof["leaf"], KeyStore.load(made.home).ledger_public_key), "anyone can check it"
    path = f"/manifests/{stored}/receipts"
    assert ask(service, "GET", path, READER).json()["anchor"]["uri"] == receipt["anchor"]["uri"]
    checked = ask(service, "POST", path, READER, json=receipt).json()
    assert (checked["verified"], checked["anchor"]) == (True, receipt["anchor"])
    store(service, foreign)  # again: no second entry, and old receipts hold
    assert ask(service, "POST", path, json=receipt).json()["verified"] is True
    for broken in ({}, {"proof": 7}, {"proof": proof | {"alg": "none"}}, {"proof": proof | {"value": "x"}},
                   {"proof": proof | {"value": proof["value"].replace("index 1", "index 0")}}):  # fmt: skip
        said = ask(service, "POST", path, json={"anchor": broken}).json()
        assert (said["verified"], bool(said["error"])) == (False, True)
    assert ask(service, "GET", "/manifests/urn:c2pa:none/receipts").status_code == 404


def test_scopes(service: TestClient, foreign: bytes) -> None:
    assert store(service, foreign, token=BINDER).status_code == 403
    assert store(service, foreign, token=READER).status_code == 403
    assert store(service, foreign, token="nobody's").status_code == 401
    stored = store(service, foreign).json()["manifestId"]
    assert ask(service, "POST", "/bindings", READER, json=binding(stored)).status_code == 403
    assert ask(service, "DELETE", f"/manifests/{stored}", BINDER).status_code == 403
    assert ask(service, "GET", f"/manifests/{stored}", BINDER).status_code == 401, "it may bind and not fetch"
    for token in (READER, KEEPER, "p" * 16):
        assert ask(service, "GET", f"/manifests/{stored}", token).status_code == 200
    served = ask(service, "GET", "/services/capabilities").json()["supportedCapabilities"]
    assert {"storeManifests", "storeBindings", "receipts"} <= set(served)


def test_nothing_is_stored_unless_it_is_set_up(made: Recorded, foreign: bytes) -> None:
    with TestClient(make_app(made.home)) as service:
        assert store(service, foreign).status_code == 403
        assert ask(service, "POST", "/bindings", json=binding("urn:c2pa:x")).status_code == 403
        assert ask(service, "DELETE", f"/manifests/{made.signed.manifest_id}").status_code == 403
        assert ask(service, "GET", f"/manifests/{made.signed.manifest_id}/receipts").status_code == 403
        answer = ask(service, "GET", "/matches/byBinding", params={"alg": FOREIGN, "value": VALUE})
        assert answer.status_code == 400, "an algorithm of others"
        assert "/manifests" not in service.get("/openapi.json").json()["paths"]


def test_what_is_no_manifest(service: TestClient, made: Recorded, foreign: bytes) -> None:
    edited = bytearray(foreign)
    edited[edited.index(b"trainedAlgorithmicMedia")] ^= 1
    for wrong in (b"", b"no manifest", foreign[:-10], foreign + foreign, bytes(edited)):
        answer = store(service, wrong)
        assert (answer.status_code, set(answer.json())) == (400, {"error"})
    assert store(service, bytes((4 << 20) + 1)).status_code == 413
    assert ask(service, "POST", "/manifests", content=foreign, headers={"Content-Type": "video/mp4"}).status_code == 415
    assert store(service, foreign, "?returnReceipt=perhaps").status_code == 400
    assert not (made.home.root / "stored").exists()


@pytest.mark.parametrize(
    "wrong",
    [{"manifestId": "urn:c2pa:none"}, {"manifestId": "\0"}, {"alg": "a b"}, {"alg": ""}, {"bindingValue": "A"},
     {"bindingValue": "A" * 9000}, {"bindingValue": ""}],
)  # fmt: skip
def test_bindings_that_cannot_be(service: TestClient, foreign: bytes, wrong: dict[str, str]) -> None:
    stored = store(service, foreign).json()["manifestId"]
    answer = ask(service, "POST", "/bindings", json=binding(stored) | wrong)
    assert answer.status_code == (404 if "manifestId" in wrong else 400)


def test_a_stored_file_that_was_changed_is_no_answer(service: TestClient, made: Recorded, foreign: bytes) -> None:
    stored = store(service, foreign).json()["manifestId"]
    [path] = (made.home.root / "stored").iterdir()
    path.write_bytes(foreign + b"\0")
    assert ask(service, "GET", f"/manifests/{stored}").status_code == 500
    path.unlink()
    assert ask(service, "GET", f"/manifests/{stored}").status_code == 500
    assert store(service, foreign).status_code == 200, "stored again, it is there again"
    assert ask(service, "GET", f"/manifests/{stored}").content == foreign


@pytest.mark.parametrize(
    "text", ["", "# nobody\n", "name short store:manifests\n", f"name {KEEPER}\n", f"name {KEEPER} all\n"]
)
def test_files_of_holders_that_say_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "holders"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigError):
        read_holders(path)


def test_a_file_of_holders_that_others_may_read(holders: Path) -> None:
    holders.chmod(0o644)
    with pytest.raises(ConfigError, match="others may read"):
        read_holders(holders)
    with pytest.raises(ConfigError, match="cannot read"):
        read_holders(holders.with_name("none"))
