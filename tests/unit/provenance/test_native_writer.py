"""Files signed natively, read back by the C2PA library and by an independent engine."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import c2pa
import cbor2
import pytest

from safegen.errors import MediaError, ProvenanceError, UnreadableMediaError
from safegen.keys import KeyStore
from safegen.provenance.backends import BACKENDS, Signing
from safegen.provenance.credential import CredentialState
from safegen.provenance.engine import make_context
from safegen.provenance.file_signing import sign_file
from safegen.provenance.manifest import InputFile, MediaFormat, Mode, Relationship, SoftBinding
from safegen.provenance.native import jumbf
from safegen.provenance.native.cose import ClaimSigner, Evidence
from safegen.provenance.native.ingredients import collect
from safegen.provenance.native.writer import Request, Written, write_file, write_in_place
from safegen.provenance.read import read_credential
from tests.unit.provenance.native_pki import TimestampAuthority, make_pki, ocsp_response
from tests.unit.provenance.provenance_samples import ALG, CONTENT_ID, ffmpeg, make_clip, make_spec, make_still

FORMATS = {
    "faststart.mp4": MediaFormat.MP4,
    "last.mp4": MediaFormat.MP4,
    "fragments.mp4": MediaFormat.MP4,
    "absolute.mp4": MediaFormat.MP4,
    "clip.mov": MediaFormat.MOV,
    "still.png": MediaFormat.PNG,
    "still.jpg": MediaFormat.JPEG,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of every layout: index first and last, fragments with relative and with absolute offsets."""
    made = tmp_path_factory.mktemp("native")
    clip, still = make_clip(made / "faststart.mp4"), make_still(made / "still.png")
    ffmpeg("-i", clip, "-c", "copy", made / "last.mp4")
    ffmpeg(
        "-i", clip, "-c", "copy", "-movflags", "frag_every_frame+empty_moov+default_base_moof", made / "fragments.mp4"
    )
    ffmpeg("-i", clip, "-c", "copy", "-movflags", "frag_every_frame+empty_moov", made / "absolute.mp4")
    ffmpeg("-i", clip, "-c", "copy", made / "clip.mov")
    ffmpeg("-i", clip, "-c", "copy", "-moov_size", "20000", made / "room.mp4")
    ffmpeg("-i", still, made / "still.jpg")
    return made


def boxes(path: Path) -> list[tuple[bytes, int, int]]:
    content, found, at = path.read_bytes(), [], 0
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        found.append((content[at + 4 : at + 8], at, size))
        at += size
    return found


def report(path: Path, anchors: str) -> dict[str, Any]:
    with path.open("rb") as file, c2pa.Reader("", file, None, make_context(anchors)) as reader:
        found: dict[str, Any] = json.loads(reader.json())
    return found


def active(path: Path, anchors: str) -> dict[str, Any]:
    store = report(path, anchors)
    manifest: dict[str, Any] = store["manifests"][store["active_manifest"]]
    return manifest


def codes(path: Path, anchors: str, kind: str) -> set[str]:
    return {c["code"] for c in report(path, anchors)["validation_results"]["activeManifest"][kind]}


def frames(path: Path, tmp_path: Path) -> str:
    """Digests of what is shown, and when. Equal packets, with equal parameters, decode to equal frames."""
    packets = ("-map", "0", "-c", "copy") if path.suffix in (".mp4", ".mov") else ()
    ffmpeg("-i", path, *packets, "-f", "framemd5", tmp_path / "frames.md5")
    return (tmp_path / "frames.md5").read_text()


def assert_trusted(path: Path, anchors: str) -> None:
    found = read_credential(path, trust_anchors_pem=anchors)
    assert (found.state, found.failure_codes) == (CredentialState.TRUSTED, ()), found
    assert (found.signature_valid, found.signer_trusted, found.content_matches) == (True, True, True)
    encypher = pytest.importorskip("encypher_c2pa")
    options = {"trust_pem": anchors, "no_default_trust": True, "telemetry": False, "online": False}
    other = encypher.verify(str(path), **options)
    assert (other["validation_state"], other["validation_results"]["failure"]) == ("Trusted", [])


@pytest.mark.parametrize("name", FORMATS)
def test_readers_trust_it_and_the_media_is_the_same(
    folder: Path, tmp_path: Path, keys: KeyStore, signer: ClaimSigner, name: str
) -> None:
    source, signed = folder / name, tmp_path / name
    written = write_file(source, signed, Request(make_spec(keys, media_format=FORMATS[name]), signer))
    assert_trusted(signed, keys.root_pem)
    found = read_credential(signed, trust_anchors_pem=keys.root_pem)
    assert (found.manifest_id, found.content_id) == (written.manifest_id, CONTENT_ID)
    assert codes(signed, keys.root_pem, "informational") == {"signingCredential.ocsp.skipped"}
    assert frames(signed, tmp_path) == frames(source, tmp_path)
    assert signed.stat().st_mode == source.stat().st_mode
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".md5"] == [name]


@pytest.mark.parametrize("name", FORMATS)
def test_change_of_the_media_is_found(
    folder: Path, tmp_path: Path, keys: KeyStore, signer: ClaimSigner, name: str
) -> None:
    signed = tmp_path / name
    write_file(folder / name, signed, Request(make_spec(media_format=FORMATS[name]), signer))
    content = bytearray(signed.read_bytes())
    media = {".png": b"IDAT", ".jpg": b"\xff\xda"}.get(signed.suffix, b"mdat")
    content[content.rindex(media) + 20] ^= 1
    signed.write_bytes(content)
    assert read_credential(signed, trust_anchors_pem=keys.root_pem).content_matches is False


@pytest.mark.parametrize("name", ["faststart.mp4", "clip.mov", "still.png", "still.jpg"])
def test_both_backends_say_the_same(folder: Path, tmp_path: Path, keys: KeyStore, name: str) -> None:
    """But for the soft binding: the library writes text where C2PA wants a byte string, which it reads as base64."""
    spec = make_spec(keys, media_format=FORMATS[name], soft_binding=SoftBinding(ALG, "00ff10"))
    said, read = [], []
    for backend in BACKENDS.values():
        signed = sign_file(folder / name, tmp_path / f"{backend.name}-{name}", spec, keys, signing=Signing(backend))
        manifest = active(signed.path, keys.root_pem)
        assertions = {a["label"]: a for a in manifest["assertions"] if not a["label"].startswith("c2pa.hash.")}
        del assertions["c2pa.soft-binding"]["data"]["blocks"][0]["value"]
        generator = {k: v for k, v in manifest["claim_generator_info"][0].items() if "c2pa_rs" not in k}
        said.append((assertions, generator, manifest["title"]))
        found = read_credential(signed.path, trust_anchors_pem=keys.root_pem)
        read.append((found.soft_bindings, found.content_id, found.run_id, found.claimed_time, found.ai_generated))
    assert said[0] == said[1]
    assert read[0] == read[1]
    assert read[0][0] == (SoftBinding(ALG, "00ff10"),)


def test_bytes_and_dates_have_their_cbor_types(folder: Path, tmp_path: Path, signer: ClaimSigner) -> None:
    written = write_file(folder / "still.png", tmp_path / "a.png", Request(png_spec(), signer))
    (manifest,) = jumbf.manifests(written.manifest_bytes)
    assertions, claim, signature = manifest.children()
    by_label = {b.label: b for b in assertions.children()}
    assert by_label["c2pa.soft-binding"].cbor()["blocks"][0]["value"] == bytes.fromhex("00ff10")
    assert by_label["c2pa.soft-binding"].cbor()["pad"] == b""
    assert b"\xc0\x74" + b"2026-07-01T12:00:00Z" in by_label["c2pa.actions.v2"].raw  # tag 0, text of 20 bytes
    assert claim.cbor()["created_assertions"][0]["url"].endswith("c2pa.actions.v2")
    sign1 = signature.cbor()
    assert (sign1.tag, sign1.value[2]) == (18, None)
    assert cbor2.loads(sign1.value[0])[1] == -7


def png_spec(**changes: Any) -> Any:
    return make_spec(media_format=MediaFormat.PNG, **changes)


@pytest.mark.parametrize("kind", ["es384", "es512", "ps256", "ed25519"])
def test_algorithms(folder: Path, tmp_path: Path, kind: str) -> None:
    pki = make_pki(kind)
    signer = ClaimSigner.from_pem(pki.chain_pem, pki.leaf.key_pem)
    write_file(folder / "still.png", tmp_path / "a.png", Request(png_spec(), signer))
    assert read_credential(tmp_path / "a.png", trust_anchors_pem=pki.root.pem).state is CredentialState.TRUSTED


@pytest.mark.parametrize("name", ["faststart.mp4", "still.png", "still.jpg"])
@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl as a time-stamp authority")
def test_staple_and_timestamp_satisfy_the_strict_profile(folder: Path, tmp_path: Path, name: str) -> None:
    pki, authority = make_pki(), TimestampAuthority(tmp_path)
    signer = ClaimSigner.from_pem(pki.chain_pem, pki.leaf.key_pem)
    evidence = Evidence(ocsp_response(pki), authority)
    signed = tmp_path / name
    write_file(folder / name, signed, Request(make_spec(media_format=FORMATS[name]), signer, evidence=evidence))
    anchors = pki.root.pem + authority.root.pem
    assert_trusted(signed, anchors)
    assert codes(signed, anchors, "informational") == set()
    assert {"timeStamp.trusted", "signingCredential.ocsp.notRevoked"} <= codes(signed, anchors, "success")
    assert read_credential(signed, trust_anchors_pem=anchors).timestamp
    assert authority.asked == 1
    encypher = pytest.importorskip("encypher_c2pa")
    options = {"trust_pem": anchors, "no_default_trust": True, "telemetry": False, "online": False}
    options |= {"trust_pem": pki.root.pem, "tsa_trust_pem": authority.root.pem}
    strict = encypher.verify(str(signed), strict_conformance=True, **options)
    assert (strict["validation_state"], strict["validation_results"]["failure"]) == ("Trusted", [])


def test_timestamp_that_outgrows_its_room(folder: Path, tmp_path: Path, signer: ClaimSigner) -> None:
    evidence = Evidence(timestamp=lambda message: bytes(300), timestamp_room=100)
    with pytest.raises(ProvenanceError, match="bytes more than were kept") as caught:
        write_file(folder / "still.png", tmp_path / "a.png", Request(png_spec(), signer, evidence=evidence))
    assert "timestamp_room" in caught.value.remedy
    assert not list(tmp_path.iterdir())


def unreachable(message: bytes) -> bytes:
    raise TimeoutError("no answer in 5 s")


@pytest.mark.parametrize("who", ["signer", "authority"])
def test_services_that_fail(folder: Path, tmp_path: Path, signer: ClaimSigner, who: str) -> None:
    request = {
        "signer": Request(png_spec(), ClaimSigner(-7, signer.chain, 64, unreachable)),
        "authority": Request(png_spec(), signer, evidence=Evidence(timestamp=unreachable)),
    }[who]
    with pytest.raises(ProvenanceError, match="no answer in 5 s"):
        write_file(folder / "still.png", tmp_path / "a.png", request)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("answer", [b"", bytes(64), bytes(70), b"\x30\x06\x02\x01\x01\x02\x01\x01"])
def test_signatures_of_another_key_or_of_none(folder: Path, tmp_path: Path, signer: ClaimSigner, answer: bytes) -> None:
    broken = ClaimSigner(-7, signer.chain, 64, lambda message: answer)
    with pytest.raises(ProvenanceError):
        write_file(folder / "still.png", tmp_path / "a.png", Request(png_spec(), broken))
    assert not list(tmp_path.iterdir())


def test_key_that_is_not_the_certificates() -> None:
    with pytest.raises(ProvenanceError, match="does not belong"):
        ClaimSigner.from_pem(make_pki().chain_pem, make_pki().leaf.key_pem)
    with pytest.raises(ProvenanceError, match="cannot be read"):
        ClaimSigner.from_pem("no certificate", b"no key")


def test_ingredients_bring_their_manifests(folder: Path, tmp_path: Path, keys: KeyStore, signer: ClaimSigner) -> None:
    """A JPEG, so that the manifest store is long enough for several segments."""
    chain = [folder / "still.png"]
    for step in range(9):
        inputs = (InputFile(chain[-1], Relationship.INPUT, f"step {step}"),)
        spec = png_spec(mode=Mode.IMAGE, ingredients=inputs)
        target = tmp_path / f"{step}.png"
        write_file(folder / "still.png", target, Request(spec, signer, collect(inputs, keys.root_pem)))
        chain.append(target)
    inputs = (InputFile(chain[-1], Relationship.PARENT, "last"), InputFile(folder / "still.jpg", Relationship.INPUT))
    spec = make_spec(mode=Mode.VIDEO, media_format=MediaFormat.JPEG, ingredients=inputs)
    signed = tmp_path / "signed.jpg"
    written = write_file(folder / "still.jpg", signed, Request(spec, signer, collect(inputs, keys.root_pem)))
    assert len(written.manifest_bytes) > 65_535
    assert_trusted(signed, keys.root_pem)
    found = read_credential(signed, trust_anchors_pem=keys.root_pem)
    assert [(i.relationship, i.title) for i in found.ingredients] == [
        ("parentOf", "last"),
        ("inputTo", "generation input"),
    ]
    assert found.ingredients[0].manifest_id == read_credential(chain[-1]).manifest_id
    assert len(report(signed, keys.root_pem)["manifests"]) == 10
    opened, edited = active(signed, keys.root_pem)["assertions"][0]["data"]["actions"][:2]
    assert [i["url"].rsplit("/")[-1] for i in opened["parameters"]["ingredients"]] == ["c2pa.ingredient.v3"]
    assert [i["url"].rsplit("/")[-1] for i in edited["parameters"]["ingredients"]] == ["c2pa.ingredient.v3__1"]


def test_inputs_that_were_not_collected(folder: Path, tmp_path: Path, signer: ClaimSigner) -> None:
    spec = png_spec(mode=Mode.IMAGE, ingredients=(InputFile(folder / "still.jpg", Relationship.INPUT),))
    with pytest.raises(ProvenanceError, match="1 inputs, but assertions of 0"):
        write_file(folder / "still.png", tmp_path / "a.png", Request(spec, signer))


# -- in place ----------------------------------------------------------------------------------------------------------


def with_room(source: Path, target: Path, room: int) -> Path:
    """Put a ``free`` box right behind ``ftyp``; the source's index must come after its media or hold no offsets."""
    content, (_, _, size) = source.read_bytes(), boxes(source)[0]
    rest = bytearray(content[size:])
    at = rest.index(b"stco") + 12
    (offset,) = struct.unpack_from(">I", rest, at)
    struct.pack_into(">I", rest, at, offset + room)
    target.write_bytes(content[:size] + struct.pack(">I4s", room, b"free") + bytes(room - 8) + rest)
    return target


def test_in_place_where_ffmpeg_left_room(folder: Path, tmp_path: Path, keys: KeyStore, signer: ClaimSigner) -> None:
    path = tmp_path / "room.mp4"
    shutil.copy(folder / "room.mp4", path)
    size, before = path.stat().st_size, frames(path, tmp_path)
    media = next(at for kind, at, _ in boxes(path) if kind == b"mdat")
    write_in_place(path, Request(make_spec(keys), signer))
    assert_trusted(path, keys.root_pem)
    assert (path.stat().st_size, frames(path, tmp_path)) == (size, before)
    assert [kind for kind, _, _ in boxes(path)][:4] == [b"ftyp", b"uuid", b"moov", b"free"]
    assert next(at for kind, at, _ in boxes(path) if kind == b"mdat") == media


@pytest.mark.parametrize("left", [0, 1, 7, 8, 9, 5000])
def test_in_place_in_a_room_behind_ftyp(
    folder: Path, tmp_path: Path, keys: KeyStore, signer: ClaimSigner, left: int
) -> None:
    """Rests too small for a box of their own become padding of the signature."""
    wanted = write_file(folder / "last.mp4", tmp_path / "a.mp4", Request(make_spec(), signer))
    hole = boxes(tmp_path / "a.mp4")[1][2]
    assert hole > len(wanted.manifest_bytes)
    path = with_room(folder / "last.mp4", tmp_path / "room.mp4", hole + left)
    before, written = frames(path, tmp_path), write_in_place(path, Request(make_spec(), signer))
    assert_trusted(path, keys.root_pem)
    assert frames(path, tmp_path) == before
    assert boxes(path)[1][2] == hole + (left if left < 8 else 0)
    assert written.manifest_bytes in path.read_bytes()


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("last.mp4", MediaError, "8 are reserved"),  # ffmpeg's own free box
        ("fragments.mp4", MediaError, "no room"),
        ("still.png", MediaError, "only MP4 and MOV"),
    ],
)
def test_in_place_without_room(
    folder: Path, tmp_path: Path, signer: ClaimSigner, name: str, error: type[Exception], words: str
) -> None:
    path = tmp_path / name
    shutil.copy(folder / name, path)
    with pytest.raises(error, match=words):
        write_in_place(path, Request(make_spec(media_format=FORMATS[name]), signer))
    assert path.read_bytes() == (folder / name).read_bytes()


def test_in_place_stamped(folder: Path, tmp_path: Path, keys: KeyStore, signer: ClaimSigner) -> None:
    """The room for the token is filled with padding where it is not used up."""
    path = tmp_path / "room.mp4"
    shutil.copy(folder / "room.mp4", path)
    evidence = Evidence(timestamp=lambda message: bytes(1000), timestamp_room=4000)
    write_in_place(path, Request(make_spec(), signer, evidence=evidence))
    assert "timeStamp.malformed" in codes(path, keys.root_pem, "informational")
    assert "assertion.bmffHash.match" in codes(path, keys.root_pem, "success")


def test_signing_twice_is_refused(folder: Path, tmp_path: Path, signer: ClaimSigner) -> None:
    def again(name: str) -> Callable[[], Written]:
        media_format = FORMATS.get(name, MediaFormat.MP4)
        request = Request(make_spec(media_format=media_format), signer)
        write_file(folder / name, tmp_path / name, request)
        return lambda: write_file(tmp_path / name, tmp_path / f"again-{name}", request)

    for name in ("last.mp4", "still.png", "still.jpg", "room.mp4"):
        with pytest.raises(ProvenanceError, match="already"):
            again(name)()
    with pytest.raises(ProvenanceError, match="already"):
        write_in_place(tmp_path / "room.mp4", Request(make_spec(), signer))


def test_wrong_format_is_named(folder: Path, tmp_path: Path, signer: ClaimSigner) -> None:
    for name in FORMATS:
        for media_format in (
            {*MediaFormat}
            - {FORMATS[name]}
            - ({MediaFormat.MP4, MediaFormat.MOV} if name.endswith(("mp4", "mov")) else set())
        ):
            with pytest.raises(UnreadableMediaError, match="this is no"):
                write_file(folder / name, tmp_path / "out", Request(make_spec(media_format=media_format), signer))


@pytest.mark.parametrize(
    ("name", "media_format"),
    [
        ("rs-c.mov", MediaFormat.MOV),  # a telephone's: media before the index, a "wide" box
        ("rs-video1_no_manifest.mp4", MediaFormat.MP4),
        ("rs-no_manifest.jpg", MediaFormat.JPEG),
        ("adobe-20220124-A.jpg", MediaFormat.JPEG),
    ],
)
def test_files_of_others(
    shared_data: Path, tmp_path: Path, keys: KeyStore, signer: ClaimSigner, name: str, media_format: MediaFormat
) -> None:
    source, signed = shared_data / "c2pa" / name, tmp_path / name
    write_file(source, signed, Request(make_spec(media_format=media_format), signer))
    assert_trusted(signed, keys.root_pem)
    assert frames(signed, tmp_path) == frames(source, tmp_path)


@pytest.mark.parametrize("name", ["rs-video1.mp4", "rs-legacy.mp4", "pyr-CA.jpg", "truepic-20230212-camera.jpg"])
def test_credentials_of_others_are_not_dropped(
    shared_data: Path, tmp_path: Path, signer: ClaimSigner, name: str
) -> None:
    media_format = MediaFormat.MP4 if name.endswith("mp4") else MediaFormat.JPEG
    with pytest.raises(ProvenanceError, match="already"):
        write_file(shared_data / "c2pa" / name, tmp_path / name, Request(make_spec(media_format=media_format), signer))


def test_fill_bytes_before_a_marker(folder: Path, tmp_path: Path, keys: KeyStore, signer: ClaimSigner) -> None:
    content = (folder / "still.jpg").read_bytes()
    at = content.index(b"\xff\xdb")
    (tmp_path / "filled.jpg").write_bytes(content[:at] + b"\xff\xff\xff" + content[at:])
    request = Request(make_spec(media_format=MediaFormat.JPEG), signer)
    write_file(tmp_path / "filled.jpg", tmp_path / "signed.jpg", request)
    assert read_credential(tmp_path / "signed.jpg", trust_anchors_pem=keys.root_pem).state is CredentialState.TRUSTED


@pytest.mark.parametrize("kind", ["size of 64 bits", "size of nought, to the end"])
def test_media_boxes_with_other_sizes(
    folder: Path, tmp_path: Path, keys: KeyStore, signer: ClaimSigner, kind: str
) -> None:
    source = tmp_path / "clip.mp4"
    if kind == "size of 64 bits":  # ffmpeg leaves the free box of 8 bytes before mdat for this very purpose
        content = bytearray((folder / "last.mp4").read_bytes())
        at = content.index(b"mdat") - 12
        (size,) = struct.unpack_from(">I", content, at + 8)
        struct.pack_into(">I4sQ", content, at, 1, b"mdat", size + 8)
    else:
        content = bytearray((folder / "faststart.mp4").read_bytes())
        struct.pack_into(">I", content, content.index(b"mdat") - 4, 0)
    source.write_bytes(content)
    signed = tmp_path / "signed.mp4"
    write_file(source, signed, Request(make_spec(), signer))
    assert_trusted(signed, keys.root_pem)
    assert frames(signed, tmp_path) == frames(source, tmp_path)
