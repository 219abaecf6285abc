"""The native writer on files that are damaged, targets that cannot be written, and processes that are killed."""

from __future__ import annotations

import io
import os
import signal
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safegen.errors import ConfigError, ProvenanceError, SafegenError, UnreadableMediaError
from safegen.keys import KeyStore
from safegen.provenance.backends import BACKENDS, NativeBackend, Order, Signing
from safegen.provenance.credential import CredentialState
from safegen.provenance.file_signing import sign_file
from safegen.provenance.manifest import MediaFormat
from safegen.provenance.native import writer
from safegen.provenance.native.cose import ClaimSigner
from safegen.provenance.native.writer import Request, write, write_file, write_in_place
from safegen.provenance.read import read_credential
from safegen.provenance.signer_sources import store_signer
from tests.processes import in_fork
from tests.unit.provenance.provenance_samples import ffmpeg, make_clip, make_spec, make_still

FORMATS = {
    "clip.mp4": MediaFormat.MP4,
    "fragments.mp4": MediaFormat.MP4,
    "still.png": MediaFormat.PNG,
    "still.jpg": MediaFormat.JPEG,
}
MANY = settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("bad")
    make_clip(made / "clip.mp4")
    ffmpeg("-i", made / "clip.mp4", "-c", "copy", "-movflags", "frag_every_frame+empty_moov", made / "fragments.mp4")
    ffmpeg("-i", made / "clip.mp4", "-c", "copy", "-moov_size", "20000", made / "room.mp4")
    make_still(made / "still.png")
    ffmpeg("-i", made / "still.png", made / "still.jpg")
    return made


def damage(content: bytes, cut: float, flips: list[tuple[float, int]]) -> bytes:
    """Flip bits, most of them near the beginning where the structure lies, then cut the end off."""
    damaged = bytearray(content)
    for place, bit in flips:
        damaged[int(place**3 * (len(damaged) - 1))] ^= 1 << bit
    return bytes(damaged[: int(cut * len(damaged))])


CUTS = st.one_of(st.just(1.0), st.floats(0, 1))
FLIPS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 7)), max_size=4)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
@MANY
@given(cut=CUTS, flips=FLIPS)
def test_damaged_file_is_refused_or_signed_so_that_it_reads_back(
    folder: Path,
    tmp_path: Path,
    keys: KeyStore,
    signer: ClaimSigner,
    name: str,
    cut: float,
    flips: list[tuple[float, int]],
) -> None:
    """Never anything but our own errors. Where it was signed, the library must find it intact, or not a media file."""
    source, request = tmp_path / name, Request(make_spec(media_format=FORMATS[name]), signer)
    source.write_bytes(damage((folder / name).read_bytes(), cut, flips))
    out = io.BytesIO()
    try:
        write(source, out, request)
    except SafegenError:
        return
    signed = tmp_path / f"signed-{name}"
    signed.write_bytes(out.getvalue())
    found = read_credential(signed, trust_anchors_pem=keys.root_pem)
    assert found.state in (CredentialState.TRUSTED, CredentialState.UNREADABLE, CredentialState.ABSENT), found
    try:
        asset = sign_file(source, tmp_path / f"checked-{name}", request.spec, keys, signing=Signing(NativeBackend()))
    except SafegenError:
        assert found.state is not CredentialState.TRUSTED
    else:
        asset.path.unlink()


@pytest.mark.slow
@MANY
@given(cut=CUTS, flips=FLIPS)
def test_damaged_file_is_signed_in_place_whole_or_not_at_all(
    folder: Path, tmp_path: Path, keys: KeyStore, signer: ClaimSigner, cut: float, flips: list[tuple[float, int]]
) -> None:
    path = tmp_path / "room.mp4"
    path.write_bytes(content := damage((folder / "room.mp4").read_bytes(), cut, flips))
    try:
        write_in_place(path, Request(make_spec(), signer))
    except SafegenError:
        assert path.read_bytes() == content
    else:
        found = read_credential(path, trust_anchors_pem=keys.root_pem)
        assert found.state in (CredentialState.TRUSTED, CredentialState.UNREADABLE), found


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_truncated_file_is_refused(folder: Path, tmp_path: Path, signer: ClaimSigner, name: str, share: float) -> None:
    """Fragments may end after any fragment: all but the shortest cuts fall inside one."""
    content = (folder / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(UnreadableMediaError):
        write_file(tmp_path / name, tmp_path / "out", Request(make_spec(media_format=FORMATS[name]), signer))
    assert [p.name for p in tmp_path.iterdir()] == [name]


def mp4(*parts: bytes) -> bytes:
    return struct.pack(">I4s", 16, b"ftyp") + b"isom\0\0\0\0" + b"".join(parts)


def box(kind: bytes, content: bytes = b"", size: int | None = None) -> bytes:
    return struct.pack(">I4s", len(content) + 8 if size is None else size, kind) + content


def nested(*kinds: bytes, content: bytes = b"") -> bytes:
    for kind in reversed(kinds):
        content = box(kind, content)
    return content


TABLE = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
MDAT = box(b"mdat", bytes(32))
GROWS = "offset that outgrows 32 bits"  # not in place
DEFECTS = {
    "no index": mp4(MDAT),
    "no media": mp4(box(b"moov")),
    "two indexes": mp4(box(b"moov"), box(b"moov"), MDAT),
    "box of four bytes": mp4(box(b"moov", size=4), MDAT),
    "box beyond the end": mp4(box(b"moov"), box(b"mdat", size=2**32 - 1)),
    "long box beyond the end": mp4(box(b"moov"), struct.pack(">I4sQ", 1, b"mdat", 2**64 - 1)),
    "long box of nothing": mp4(box(b"moov"), struct.pack(">I4sQ", 1, b"mdat", 0), MDAT),
    "seven bytes at the end": mp4(box(b"moov"), MDAT, bytes(7)),
    "child beyond its parent": mp4(box(b"moov", box(b"trak", size=99)), MDAT),
    "child without an end": mp4(box(b"moov", box(b"mvhd", size=0)), MDAT),
    "edit list beyond its parent": mp4(nested(b"moov", b"trak", b"edts", content=box(b"elst", size=99)), MDAT),
    "more entries than bytes": mp4(nested(*TABLE, b"stco", content=struct.pack(">III", 0, 2**32 - 1, 0)), MDAT),
    "empty table": mp4(nested(*TABLE, b"co64"), MDAT),
    GROWS: mp4(nested(*TABLE, b"stco", content=struct.pack(">III", 0, 1, 2**32 - 9)), MDAT),
    "items at absolute offsets": mp4(nested(b"moov", b"meta", content=bytes(4) + box(b"iloc", bytes(8))), MDAT),
    "items at the top": mp4(box(b"moov"), box(b"meta", bytes(4)), MDAT),
    "index of 65 MB": mp4(box(b"moov", bytes(65 << 20)), MDAT),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_mp4_that_contradicts_itself(tmp_path: Path, signer: ClaimSigner, defect: str) -> None:
    source = tmp_path / "clip.mp4"
    source.write_bytes(DEFECTS[defect])
    with pytest.raises(UnreadableMediaError) as caught:
        write_file(source, tmp_path / "out.mp4", Request(make_spec(), signer))
    assert caught.value.remedy
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("defect", [name for name, content in DEFECTS.items() if MDAT in content and name != GROWS])
def test_index_that_contradicts_itself_is_not_signed_in_place(tmp_path: Path, signer: ClaimSigner, defect: str) -> None:
    """No offset in it changes, but readers that go through all of its boxes would give up."""
    path = tmp_path / "room.mp4"
    path.write_bytes(content := DEFECTS[defect].replace(MDAT, box(b"free", bytes(20000)) + MDAT))
    with pytest.raises(UnreadableMediaError):
        write_in_place(path, Request(make_spec(), signer))
    assert path.read_bytes() == content


def test_png_with_a_chunk_of_no_name_is_refused(folder: Path, tmp_path: Path, signer: ClaimSigner) -> None:
    content = bytearray((folder / "still.png").read_bytes())
    content[content.index(b"pHYs")] ^= 0x80
    (tmp_path / "still.png").write_bytes(content)
    with pytest.raises(UnreadableMediaError):
        write_file(
            tmp_path / "still.png", tmp_path / "out.png", Request(make_spec(media_format=MediaFormat.PNG), signer)
        )


def test_many_boxes(tmp_path: Path, signer: ClaimSigner) -> None:
    source = tmp_path / "clip.mp4"
    source.write_bytes(mp4(box(b"moov"), MDAT) + box(b"free") * 200_000)
    with pytest.raises(UnreadableMediaError, match="no box at byte"):
        write_file(source, tmp_path / "out.mp4", Request(make_spec(), signer))


# -- targets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["the source", "another file", "a link to the source", "a dangling link"])
def test_target_that_exists(folder: Path, tmp_path: Path, signer: ClaimSigner, kind: str) -> None:
    source, target = folder / "clip.mp4", tmp_path / "out.mp4"
    before = source.read_bytes()
    if kind == "the source":
        target = source
    elif kind == "another file":
        target.write_bytes(b"precious")
    else:
        target.symlink_to(source if kind == "a link to the source" else tmp_path / "nowhere")
    with pytest.raises(ProvenanceError, match="exists already"):
        write_file(source, target, Request(make_spec(), signer))
    assert source.read_bytes() == before
    assert kind != "another file" or target.read_bytes() == b"precious"
    assert not list(tmp_path.glob(".*"))


def test_target_that_appears_meanwhile(
    folder: Path, tmp_path: Path, signer: ClaimSigner, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.mp4"
    monkeypatch.setattr(writer.os, "fsync", lambda descriptor: target.write_bytes(b"precious"))
    with pytest.raises(ProvenanceError, match="exists already"):
        write_file(folder / "clip.mp4", target, Request(make_spec(), signer))
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("out.mp4", b"precious")]


def test_file_system_without_links(
    folder: Path, tmp_path: Path, keys: KeyStore, signer: ClaimSigner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(writer.os, "link", no_links)
    write_file(folder / "clip.mp4", tmp_path / "out.mp4", Request(make_spec(), signer))
    assert read_credential(tmp_path / "out.mp4", trust_anchors_pem=keys.root_pem).state is CredentialState.TRUSTED
    assert len(list(tmp_path.iterdir())) == 1


def test_places_that_cannot_be_written(folder: Path, tmp_path: Path, signer: ClaimSigner) -> None:
    request = Request(make_spec(), signer)
    with pytest.raises(ProvenanceError, match="cannot write"):
        write_file(folder / "clip.mp4", tmp_path / "no" / "out.mp4", request)
    with pytest.raises(ProvenanceError, match="cannot write"):
        write_file(folder / "clip.mp4", Path("/proc/out.mp4"), request)
    with pytest.raises(ProvenanceError, match="in place failed"):
        write_in_place(tmp_path, request)
    for source in (tmp_path, tmp_path / "missing.mp4"):
        with pytest.raises(ProvenanceError, match="failed"):
            write_file(source, tmp_path / "out.mp4", request)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="POSIX modes")
def test_read_only_targets(folder: Path, signer: ClaimSigner) -> None:
    request = Request(make_spec(), signer)
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        place = Path(name)
        path = place / "room.mp4"
        path.write_bytes(before := (folder / "room.mp4").read_bytes())
        path.chmod(0o444)
        place.chmod(0o555)

        def refused() -> None:
            with pytest.raises(ProvenanceError):
                write_in_place(path, request)
            with pytest.raises(ProvenanceError):
                write_file(path, place / "out.mp4", request)

        assert in_fork(refused, unprivileged=True) == 0
        assert [(p.name, p.read_bytes()) for p in place.iterdir()] == [("room.mp4", before)]
        place.chmod(0o777)
        path.chmod(0o666)
        assert in_fork(lambda: write_in_place(path, request), unprivileged=True) == 0


def test_full_disk(folder: Path, tmp_path: Path, signer: ClaimSigner, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer.os, "fsync", full)
    with pytest.raises(ProvenanceError, match="No space left"):
        write_file(folder / "clip.mp4", tmp_path / "out.mp4", Request(make_spec(), signer))
    assert not list(tmp_path.iterdir())


CHILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from tests.unit.provenance.provenance_samples import make_spec
from safegen.keys import KeyStore
from safegen.provenance.native import streaming
from safegen.provenance.native.cose import ClaimSigner
from safegen.provenance.native.writer import Request, write_file
from safegen.settings import Home
keys = KeyStore.load(Home(Path({home!r})))
passing, count = streaming._pass, 0
def slowly(*arguments):
    global count
    passing(*arguments)
    count += 1
    if count == {after}:
        print("writing", flush=True)
        time.sleep(60)
streaming._pass = slowly
signer = ClaimSigner.from_pem(keys.certificate_chain_pem, keys.signing_key)
write_file(Path({source!r}), Path({target!r}), Request(make_spec(), signer))
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_killed_while_writing(folder: Path, tmp_path: Path, keys: KeyStore) -> None:
    """The source is as it was and nothing bears the target's name; a leftover says by its name what it is."""
    source, target, home = folder / "clip.mp4", tmp_path / "out.mp4", folder / "home"
    before, modified = source.read_bytes(), source.stat().st_mtime_ns
    names = {"tests": str(Path(__file__).parents[3]), "home": str(home), "source": str(source), "target": str(target)}
    child = subprocess.Popen([sys.executable, "-c", CHILD.format(after=3, **names)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "writing\n"
    child.send_signal(signal.SIGKILL)
    assert child.wait(10) == -signal.SIGKILL
    child.stdout.close()
    assert (source.read_bytes(), source.stat().st_mtime_ns) == (before, modified)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".out.mp4.")
    assert left.name.endswith(".part")


class Killed(BaseException):
    pass


@pytest.mark.parametrize("calls", [1, 2])
def test_in_place_behind_ftyp_survives_a_crash_while_writing(
    folder: Path, tmp_path: Path, keys: KeyStore, signer: ClaimSigner, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """Until the last eight bytes are there the reserved box is what it was: the file plays and carries no manifest."""
    path, content = tmp_path / "room.mp4", (folder / "fragments.mp4").read_bytes()
    size = int.from_bytes(content[:4], "big")
    room = struct.pack(">I4s", 6000, b"free") + bytes(5992)
    path.write_bytes(content[:size] + room + content[size:])
    flush, count = writer.os.fsync, 0

    def killed(descriptor: int) -> None:
        nonlocal count
        flush(descriptor)
        count += 1
        if count == calls:
            raise Killed

    monkeypatch.setattr(writer.os, "fsync", killed)
    with pytest.raises(Killed):
        write_in_place(path, Request(make_spec(), signer))
    state = read_credential(path, trust_anchors_pem=keys.root_pem).state
    assert state is (CredentialState.ABSENT if calls == 1 else CredentialState.TRUSTED)
    left = bytearray(path.read_bytes())
    assert left[:size] == content[:size]
    assert left[size + 6000 :] == content[size:]


# -- the choice of a backend -------------------------------------------------------------------------------------------


def test_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAFEGEN_C2PA_BACKEND", raising=False)
    monkeypatch.delenv("SAFEGEN_C2PA_READ_BACK", raising=False)
    assert Signing.from_environment() == Signing(BACKENDS["native"], True)
    monkeypatch.setenv("SAFEGEN_C2PA_BACKEND", "c2pa-python")
    monkeypatch.setenv("SAFEGEN_C2PA_READ_BACK", "0")
    assert Signing.from_environment() == Signing(BACKENDS["c2pa-python"], False)
    monkeypatch.setenv("SAFEGEN_C2PA_READ_BACK", "no")
    with pytest.raises(ConfigError, match="READ_BACK"):
        Signing.from_environment()
    monkeypatch.setenv("SAFEGEN_C2PA_BACKEND", "rust")
    with pytest.raises(ConfigError, match="'rust'") as caught:
        Signing.from_environment()
    assert "native" in caught.value.remedy


def test_layouts_that_the_native_writer_does_not_know_are_left_to_the_library(
    folder: Path, tmp_path: Path, keys: KeyStore
) -> None:
    """Here items at the top of the file. With an OCSP answer, which the library would leave out, nothing is signed."""
    source = tmp_path / "items.mp4"
    handler = struct.pack(">I4s", 33, b"hdlr") + bytes(8) + b"null" + bytes(13)
    meta = struct.pack(">I4s", 12 + len(handler), b"meta") + bytes(4) + handler
    source.write_bytes((folder / "clip.mp4").read_bytes() + meta)
    signed = sign_file(source, tmp_path / "out.mp4", make_spec(), keys, signing=Signing())
    found = read_credential(signed.path, trust_anchors_pem=keys.root_pem)
    assert (found.state, found.content_matches) == (CredentialState.TRUSTED, True)
    order = Order(make_spec(), store_signer(keys), keys.root_pem, staple=b"an answer")
    with (tmp_path / "stapled.mp4").open("x+b") as target, pytest.raises(ProvenanceError, match="absolute offsets"):
        NativeBackend().write(source, target, order)


def test_formats_that_the_native_writer_does_not_know_are_left_to_the_library() -> None:
    assert {kind: Signing().backend_for(kind).name for kind in ("video/mp4", "image/png", "image/webp")} == {
        "video/mp4": "native", "image/png": "native", "image/webp": "c2pa-python",
    }  # fmt: skip


@pytest.mark.parametrize("read_back", [True, False])
@pytest.mark.parametrize("name", BACKENDS)
def test_reading_back_is_a_choice(folder: Path, tmp_path: Path, keys: KeyStore, name: str, read_back: bool) -> None:
    signing = Signing(BACKENDS[name], read_back)
    asset = sign_file(folder / "clip.mp4", tmp_path / "out.mp4", make_spec(), keys, signing=signing)
    found = read_credential(asset.path, trust_anchors_pem=keys.root_pem)
    assert (found.state, found.manifest_id) == (CredentialState.TRUSTED, asset.manifest_id)
