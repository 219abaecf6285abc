"""Bounds of reading: time, memory, processes, threads, and no network."""

from __future__ import annotations

import gc
import http.server
import json
import multiprocessing
import os
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import c2pa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from safegen.errors import ConfigError, ProvenanceError, VerificationError
from safegen.keys import KeyStore
from safegen.provenance import hard_binding, sandbox
from safegen.provenance.credential import CredentialState
from safegen.provenance.file_signing import sign_file
from safegen.provenance.manifest import InputFile, Mode, Relationship
from safegen.provenance.read import read_credential
from safegen.provenance.sandbox import SECONDS_VARIABLE, ReadLimits
from safegen.provenance.survey import is_ordinary_store
from tests.processes import in_fork, in_own_interpreter
from tests.unit.provenance import native_pki
from tests.unit.provenance.provenance_samples import make_clip, make_spec, make_still
from tests.unit.provenance.reading_samples import embed, manifest_store, reference, swollen_store


@pytest.fixture(scope="module")
def signed(folder: Path, keys: KeyStore) -> Path:
    make_clip(folder / "clip.mp4")
    return sign_file(folder / "clip.mp4", folder / "signed.mp4", make_spec(), keys).path


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read in a process of their own."""
    read: list[Path] = []
    run = sandbox.run

    def noting(task: sandbox.Task, limits: ReadLimits, seconds: float) -> object:
        read.append(task.path)
        return run(task, limits, seconds)

    monkeypatch.setattr(sandbox, "run", noting)
    return read


def with_store(signed: Path, target: Path, store: bytes) -> Path:
    target.write_bytes(embed(signed.read_bytes(), store))
    return target


# --- time and memory --------------------------------------------------------------------------------------------------


def test_ordinary_files_are_read_here(
    tmp_path: Path, signed: Path, keys: KeyStore, processes: list[Path], shared_data: Path
) -> None:
    still = make_still(tmp_path / "still.png")
    paths = [signed, signed.parent / "clip.mp4", still]
    suffixes = (".mp4", ".mov", ".heic", ".avif", ".jpg", ".jpeg", ".webp", ".wav")
    paths += [p for p in (shared_data / "c2pa").rglob("*") if p.suffix in suffixes]
    for path in paths:
        read_credential(path)
    assert {p.name for p in processes} <= {"rs-nested_moov_1000.mp4"}


@pytest.mark.slow
def test_time_limit(tmp_path: Path, signed: Path, processes: list[Path]) -> None:
    """The library would work for half a minute, and would not hear of any deadline meanwhile."""
    store = swollen_store(manifest_store(signed.read_bytes()), assertions=20_000)
    assert not is_ordinary_store(store)
    path = with_store(signed, tmp_path / "slow.mp4", store)
    found = read_credential(path, limits=ReadLimits(seconds=1))
    assert found.state is CredentialState.UNREADABLE
    assert "longer than" in found.problem
    assert SECONDS_VARIABLE in found.problem
    assert processes == [path]


@pytest.mark.slow
def test_an_input_beyond_the_limits_is_not_signed_into_anything(
    tmp_path: Path, signed: Path, keys: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECONDS_VARIABLE, "0.5")
    store = swollen_store(manifest_store(signed.read_bytes()), assertions=20_000)
    swollen = with_store(signed, tmp_path / "swollen.mp4", store)
    source = make_clip(tmp_path / "clip.mp4")
    spec = make_spec(mode=Mode.VIDEO, ingredients=(InputFile(swollen, Relationship.PARENT),))
    with pytest.raises(ProvenanceError, match="swollen"):
        sign_file(source, tmp_path / "out.mp4", spec, keys)
    assert not (tmp_path / "out.mp4").exists()


def test_memory_limit(tmp_path: Path, signed: Path, processes: list[Path]) -> None:
    store = swollen_store(manifest_store(signed.read_bytes()), repeats=3_000)
    assert not is_ordinary_store(store)
    path = with_store(signed, tmp_path / "big.mp4", store)
    found = read_credential(path, limits=ReadLimits(memory=150 << 20))
    assert found.state is CredentialState.UNREADABLE
    assert "memory" in found.problem
    assert processes == [path]


def test_report_of_unreasonable_length(tmp_path: Path, signed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = with_store(signed, tmp_path / "long.mp4", swollen_store(manifest_store(signed.read_bytes()), repeats=400))
    monkeypatch.setattr("safegen.provenance.survey.MAX_REPEATED", 1000)
    monkeypatch.setattr(sandbox, "MAX_ANSWER", 1000)
    found = read_credential(path)
    assert found.state is CredentialState.UNREADABLE
    assert found.problem


@pytest.mark.parametrize("change", [{"assertions": 300}, {"manifests": 60}, {"repeats": 60}], ids=str)
def test_what_is_much_is_read_all_the_same(
    tmp_path: Path, signed: Path, keys: KeyStore, change: dict[str, int]
) -> None:
    path = with_store(signed, tmp_path / "much.mp4", swollen_store(manifest_store(signed.read_bytes()), **change))
    assert read_credential(path, trust_anchors_pem=keys.root_pem) == reference(path, keys.root_pem)


def test_separate_process_gives_the_same_credential(
    tmp_path: Path, signed: Path, keys: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safegen.provenance.examining.is_ordinary_store", lambda _: False)
    store = manifest_store(signed.read_bytes())
    found = read_credential(signed, trust_anchors_pem=keys.root_pem, manifest_bytes=store)
    assert found == reference(signed, keys.root_pem, store)
    assert found.state is CredentialState.TRUSTED
    found = read_credential(signed.parent / "clip.mp4", trust_anchors_pem=keys.root_pem, manifest_bytes=b"junk")
    assert found == reference(signed.parent / "clip.mp4", keys.root_pem, b"junk")


def test_process_that_cannot_be_started(signed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safegen.provenance.examining.is_ordinary_store", lambda _: False)
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(VerificationError, match="process"):
        read_credential(signed, manifest_bytes=b"x")


def test_modules_in_the_working_folder_are_not_loaded(
    tmp_path: Path, signed: Path, monkeypatch: pytest.MonkeyPatch, processes: list[Path]
) -> None:
    """A folder of downloads may hold a file called json.py."""
    for name in ("json.py", "c2pa.py", "signal.py"):
        (tmp_path / name).write_text(f"open({str(tmp_path / 'loaded')!r}, 'w')")
    gif = tmp_path / "a.gif"
    gif.write_bytes(b"GIF89a")
    monkeypatch.chdir(tmp_path)
    read_credential(Path("a.gif"))
    assert len(processes) == 1
    assert not (tmp_path / "loaded").exists()


def test_compressed_manifests_are_never_ordinary(signed: Path) -> None:
    store = manifest_store(signed.read_bytes())
    assert is_ordinary_store(store)
    assert not is_ordinary_store(store.replace(b"c2ma", b"brob"))


@pytest.mark.parametrize("how", ["nested", "side by side", "damaged"])
def test_index_of_too_many_boxes(tmp_path: Path, processes: list[Path], how: str) -> None:
    """The library's time grows with the square of their number: these would take minutes."""
    boxes = b"\0\0\0\x08" + (b"trak" if how == "nested" else b"free")
    boxes *= 150_000
    if how != "side by side":
        boxes = (len(boxes) + 8).to_bytes(4, "big") + b"moov" + boxes
    path = tmp_path / "boxes.mp4"
    path.write_bytes(b"\0\0\0\x10ftypisom\0\0\2\0" + boxes + (b"\0\0\0\x07mdat" if how == "damaged" else b""))
    found = read_credential(path, limits=ReadLimits(seconds=1))
    assert found.state is CredentialState.UNREADABLE
    assert "longer than" in found.problem
    assert processes == [path]


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan", "inf"])
def test_bad_setting(signed: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(SECONDS_VARIABLE, text)
    with pytest.raises(ConfigError, match=SECONDS_VARIABLE):
        read_credential(signed)


def test_setting(signed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECONDS_VARIABLE, "2.5")
    assert ReadLimits.from_environment() == ReadLimits(seconds=2.5)
    monkeypatch.setenv(SECONDS_VARIABLE, "")
    assert ReadLimits.from_environment() == ReadLimits()
    assert ReadLimits().seconds_for(200 << 20) == 40


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_does_not_grow(signed: Path, keys: KeyStore) -> None:
    def resident() -> int:
        gc.collect()
        line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmRSS"))
        return int(line.split()[1])

    for _ in range(40):
        read_credential(signed, trust_anchors_pem=keys.root_pem)
    before = resident()
    for _ in range(150):
        read_credential(signed, trust_anchors_pem=keys.root_pem)
    assert resident() - before < 2_048


# --- processes and threads --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("large", [False, True])
def test_read_before_and_after_a_fork(signed: Path, keys: KeyStore, large: bool) -> None:
    """In an interpreter of its own: what other tests left running here may hold locks, which a fork inherits."""
    in_own_interpreter(_read_and_fork, signed, keys.root_pem, large)


def _read_and_fork(path: Path, anchors: str, large: bool) -> None:
    if large:
        hard_binding.LARGE = 0  # type: ignore[misc]
    expected = read_credential(path, trust_anchors_pem=anchors)
    assert expected.state is CredentialState.TRUSTED

    def same() -> None:
        assert read_credential(path, trust_anchors_pem=anchors) == expected

    assert in_fork(same) == 0
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_state, [(path, anchors)] * 6) == ["trusted"] * 6
    same()


def _state(arguments: tuple[Path, str]) -> str:
    return str(read_credential(arguments[0], trust_anchors_pem=arguments[1]).state)


@pytest.mark.slow
@pytest.mark.parametrize("large", [False, True])
def test_threads(tmp_path: Path, signed: Path, keys: KeyStore, monkeypatch: pytest.MonkeyPatch, large: bool) -> None:
    if large:
        monkeypatch.setattr(hard_binding, "LARGE", 0)
    spoilt = tmp_path / "spoilt.mp4"
    content = bytearray(signed.read_bytes())
    content[-20] ^= 1
    spoilt.write_bytes(content)
    wanted = [(path, read_credential(path, trust_anchors_pem=keys.root_pem)) for path in (signed, spoilt)]
    assert [w.state for _, w in wanted] == ["trusted", "invalid"]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda w: read_credential(w[0], trust_anchors_pem=keys.root_pem) == w[1], wanted * 40))
    assert all(found)


# --- network ----------------------------------------------------------------------------------------------------------


class Counting(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def do_POST(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def connections() -> Iterator[tuple[int, list[object]]]:
    """A port of this machine, and the connections that were made to it."""
    made: list[object] = []

    class Server(http.server.HTTPServer):
        def get_request(self) -> tuple[socket.socket, object]:
            request = super().get_request()
            made.append(request[1])
            return request

    server = Server(("127.0.0.1", 0), Counting)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port, made
    server.shutdown()
    server.server_close()
    thread.join()


def test_nothing_that_a_file_names_is_fetched(
    tmp_path: Path, signed: Path, keys: KeyStore, connections: tuple[int, list[object]], processes: list[Path]
) -> None:
    port, made = connections
    remote = tmp_path / "remote.mp4"
    info = c2pa.C2paSignerInfo(b"es256", keys.certificate_chain_pem.encode(), keys.signing_key, None)
    with (
        c2pa.Signer.from_info(info) as signer,
        c2pa.Builder(json.dumps(make_spec().definition()), c2pa.Context.from_dict({"version": 1})) as builder,
        (signed.parent / "clip.mp4").open("rb") as source,
        remote.open("x+b") as target,
    ):
        builder.set_no_embed()
        builder.set_remote_url(f"http://127.0.0.1:{port}/manifest.c2pa")
        builder.sign(signer, "video/mp4", source, target)
    found = read_credential(remote, trust_anchors_pem=keys.root_pem)
    assert found.remote_url == f"http://127.0.0.1:{port}/manifest.c2pa"
    read_credential(remote, fragments=[remote])
    assert len(processes) == 1
    assert made == []
    with pytest.raises(c2pa.C2paError):  # the control: so it is with the library's defaults
        c2pa.Reader(str(remote))
    assert made


def test_no_responder_is_asked(
    tmp_path: Path, signed: Path, connections: tuple[int, list[object]], monkeypatch: pytest.MonkeyPatch,
    processes: list[Path],
) -> None:  # fmt: skip
    port, made = connections
    place = x509.AccessDescription(
        x509.AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(f"http://127.0.0.1:{port}/ocsp/")
    )
    pki = native_pki.make_pki()
    leaf = native_pki.issue(
        "Signer", "es256", pki.issuing, native_pki.CLAIM_SIGNING, native_pki.Eku.EMAIL_PROTECTION,
        extra=x509.AuthorityInformationAccess([place]),
    )  # fmt: skip
    key = leaf.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    info = c2pa.C2paSignerInfo(b"es256", (leaf.pem + pki.issuing.pem).encode(), key, None)
    target = tmp_path / "ocsp.mp4"
    settings = {"version": 1, "verify": {"verify_after_sign": False}}
    with (
        c2pa.Signer.from_info(info) as signer,
        c2pa.Builder(json.dumps(make_spec().definition()), c2pa.Context.from_dict(settings)) as builder,
        (signed.parent / "clip.mp4").open("rb") as source,
        target.open("x+b") as out,
    ):
        builder.sign(signer, "video/mp4", source, out)
    before = len(made)
    assert read_credential(target, trust_anchors_pem=pki.root.pem).state is CredentialState.TRUSTED
    monkeypatch.setattr(hard_binding, "LARGE", 0)
    assert read_credential(target, trust_anchors_pem=pki.root.pem).state is CredentialState.TRUSTED
    monkeypatch.setattr("safegen.provenance.examining.is_ordinary_store", lambda _: False)
    store = manifest_store(target.read_bytes())
    found = read_credential(target, trust_anchors_pem=pki.root.pem, manifest_bytes=store)
    assert found.state is CredentialState.TRUSTED
    assert len(processes) == 1
    assert len(made) == before
    asking = {"version": 1, "verify": {"ocsp_fetch": True}, "trust": {"trust_anchors": pki.root.pem}}
    with target.open("rb") as file, c2pa.Reader("video/mp4", file, None, c2pa.Context.from_dict(asking)):
        assert len(made) > before  # the control
