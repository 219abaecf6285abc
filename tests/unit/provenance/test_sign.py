"""Signing real files and reading them back."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import c2pa
import pytest

from safegen.errors import KeyStoreError, ProvenanceError, SafegenError
from safegen.keys import KeyStore, check_commitment
from safegen.keys import pki as key_pki
from safegen.provenance import file_signing
from safegen.provenance.backends import BACKENDS, LIBRARY, Order, Signing
from safegen.provenance.credential import Credential, CredentialState, Origin
from safegen.provenance.engine import make_context
from safegen.provenance.file_signing import SignedAsset, sign_file, sign_own_file
from safegen.provenance.manifest import InputFile, ManifestSpec, MediaFormat, Mode, Relationship
from safegen.provenance.read import read_credential
from safegen.provenance.signer_sources import store_signer
from safegen.provenance.signing_identity import Seal
from safegen.settings import Home
from safegen.types import ContentId
from tests.unit.provenance.provenance_samples import CANARY, CONTENT_ID, WHEN, ffmpeg, make_spec, make_still

PARENT_ID = ContentId("feedfacefeedface")


@pytest.fixture(scope="module")
def still(folder: Path) -> Path:
    return make_still(folder / "still.png")


@pytest.fixture(scope="module")
def signed_still(folder: Path, still: Path, keys: KeyStore) -> SignedAsset:
    spec = make_spec(keys, title="still.png", media_format=MediaFormat.PNG, content_id=PARENT_ID)
    return sign_file(still, folder / "signed.png", spec, keys)


@pytest.fixture(scope="module")
def signed_clip(folder: Path, clip: Path, keys: KeyStore) -> SignedAsset:
    return sign_file(clip, folder / "signed.mp4", make_spec(keys, content_id=PARENT_ID), keys)


def read(path: Path, keys: KeyStore) -> Credential:
    return read_credential(path, trust_anchors_pem=keys.root_pem)


def manifests(path: Path) -> dict[str, Any]:
    with path.open("rb") as file, c2pa.Reader("", file, None, make_context()) as reader:
        found: dict[str, Any] = json.loads(reader.json())["manifests"]
    return found


def decoded(path: Path, tmp_path: Path) -> bytes:
    raw = tmp_path / "frames.raw"
    ffmpeg("-i", path, "-f", "rawvideo", raw)
    return raw.read_bytes()


def test_signed_clip_reads_back_trusted(tmp_path: Path, clip: Path, signed_clip: SignedAsset, keys: KeyStore) -> None:
    found = read(signed_clip.path, keys)
    assert found.state is CredentialState.TRUSTED
    assert found.origin is Origin.EMBEDDED
    assert (found.signature_valid, found.signer_trusted, found.content_matches) == (True, True, True)
    assert found.failure_codes == ()
    assert found.manifest_id == signed_clip.manifest_id
    assert found.content_id == PARENT_ID
    assert found.run_id == "run-7"
    assert [(b.alg, b.value) for b in found.soft_bindings] == [("org.safegen.latent-residual.1", "00ff10")]
    assert found.ai_generated
    assert found.ingredients == ()
    assert found.claim_generator.startswith("safegen ")
    assert found.organisation == "safegen development"
    assert found.leaf_serial == keys.leaf_serial
    assert found.claimed_time == WHEN.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert found.timestamp is None
    assert signed_clip.sha256 == hashlib.sha256(signed_clip.path.read_bytes()).hexdigest()
    assert signed_clip.manifest_bytes in signed_clip.path.read_bytes()
    assert decoded(signed_clip.path, tmp_path) == decoded(clip, tmp_path)


def test_signed_still_reads_back_trusted(
    tmp_path: Path, still: Path, signed_still: SignedAsset, keys: KeyStore
) -> None:
    assert read(signed_still.path, keys).state is CredentialState.TRUSTED
    assert decoded(signed_still.path, tmp_path) == decoded(still, tmp_path)


def test_without_our_root_it_is_valid_only(signed_clip: SignedAsset, tmp_path: Path) -> None:
    stranger = KeyStore.init(Home(tmp_path))
    for anchors in ("", stranger.root_pem):
        found = read_credential(signed_clip.path, trust_anchors_pem=anchors)
        assert found.state is CredentialState.VALID
        assert found.signature_valid
        assert not found.signer_trusted


def test_library_defaults_agree(signed_clip: SignedAsset) -> None:
    """Not through our reader: the wrapper must not be what makes the file look good."""
    with c2pa.Reader(str(signed_clip.path)) as reader:
        report = json.loads(reader.json())
    assert report["validation_state"] == "Valid"
    codes = [f["code"] for f in report["validation_results"]["activeManifest"]["failure"]]
    assert codes == ["signingCredential.untrusted"]


def test_manifest_box_lies_between_ftyp_and_moov(signed_clip: SignedAsset) -> None:
    """C2PA 2.4 A.5.3, and players start sooner."""
    content = signed_clip.path.read_bytes()
    names, at = [], 0
    while at < len(content):
        names.append(content[at + 4 : at + 8])
        at += int.from_bytes(content[at : at + 4], "big")
    assert names[:3] == [b"ftyp", b"uuid", b"moov"]


@pytest.mark.parametrize("kind", ["unsigned", "signed"])
def test_image_to_video(
    tmp_path: Path, clip: Path, still: Path, signed_still: SignedAsset, keys: KeyStore, kind: str
) -> None:
    image = still if kind == "unsigned" else signed_still.path
    spec = make_spec(keys, mode=Mode.IMAGE, ingredients=(InputFile(image, Relationship.INPUT),))
    signed = sign_file(clip, tmp_path / "out.mp4", spec, keys)
    found = read(signed.path, keys)
    assert found.state is CredentialState.TRUSTED
    assert found.content_id == CONTENT_ID
    (ingredient,) = found.ingredients
    assert ingredient.relationship == "inputTo"
    kept = manifests(signed.path)
    if kind == "signed":
        assert (ingredient.manifest_id, ingredient.content_id) == (signed_still.manifest_id, PARENT_ID)
        assert set(kept) == {signed.manifest_id, signed_still.manifest_id}
    else:
        assert ingredient.manifest_id is None
        assert set(kept) == {signed.manifest_id}
    action = kept[signed.manifest_id]["assertions"][0]["data"]["actions"][0]
    assert action["action"] == "c2pa.created"
    assert [i["url"] for i in action["parameters"]["ingredients"]] == ["self#jumbf=c2pa.assertions/c2pa.ingredient.v3"]


@pytest.mark.parametrize("kind", ["unsigned", "signed"])
def test_video_to_video(tmp_path: Path, clip: Path, signed_clip: SignedAsset, keys: KeyStore, kind: str) -> None:
    video = clip if kind == "unsigned" else signed_clip.path
    spec = make_spec(keys, mode=Mode.VIDEO, ingredients=(InputFile(video, Relationship.PARENT),))
    signed = sign_file(clip, tmp_path / "out.mp4", spec, keys)
    found = read(signed.path, keys)
    assert found.state is CredentialState.TRUSTED
    assert found.ai_generated
    (ingredient,) = found.ingredients
    assert ingredient.relationship == "parentOf"
    assert ingredient.manifest_id == (signed_clip.manifest_id if kind == "signed" else None)
    actions = manifests(signed.path)[signed.manifest_id]["assertions"][0]["data"]["actions"]
    assert [a["action"] for a in actions] == ["c2pa.opened", "c2pa.edited", "c2pa.watermarked.bound"]
    assert actions[0]["parameters"]["ingredients"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["input", "input.dat", "input.jpg", "input.mkv"])
@pytest.mark.parametrize("kind", ["picture", "clip"])
def test_input_whose_name_says_nothing_or_lies_keeps_its_manifest(
    tmp_path: Path,
    clip: Path,
    signed_still: SignedAsset,
    signed_clip: SignedAsset,
    keys: KeyStore,
    kind: str,
    name: str,
    backend: str,
) -> None:
    earlier = signed_still if kind == "picture" else signed_clip
    (tmp_path / name).write_bytes(earlier.path.read_bytes())
    spec = make_spec(mode=Mode.VIDEO, ingredients=(InputFile(tmp_path / name, Relationship.PARENT),))
    signed = sign_file(clip, tmp_path / "out.mp4", spec, keys, signing=Signing(BACKENDS[backend]))
    found = read(signed.path, keys)
    assert (found.state, found.ingredients[0].manifest_id) == (CredentialState.TRUSTED, earlier.manifest_id)
    assert set(manifests(signed.path)) == {signed.manifest_id, earlier.manifest_id}


def make_sidecar(clip: Path, keys: KeyStore) -> bytes:
    signer = store_signer(keys)
    return LIBRARY.write(clip, None, Order(make_spec(content_id=PARENT_ID), signer, keys.root_pem))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["intact", "edited", "embedded too", "garbage"])
def test_input_whose_manifest_lies_beside_it_keeps_it(
    tmp_path: Path, clip: Path, signed_clip: SignedAsset, keys: KeyStore, kind: str, backend: str
) -> None:
    source = tmp_path / "input.mp4"
    source.write_bytes(clip.read_bytes() if kind != "embedded too" else signed_clip.path.read_bytes())
    store = make_sidecar(clip, keys) if kind != "garbage" else b"no store"
    source.with_suffix(".c2pa").write_bytes(store)
    if kind == "edited":
        source.write_bytes(clip.read_bytes()[:-1] + b"!")
    spec = make_spec(mode=Mode.VIDEO, ingredients=(InputFile(source, Relationship.PARENT),))
    if kind == "garbage":
        with pytest.raises(ProvenanceError, match="cannot record the input"):
            sign_file(clip, tmp_path / "out.mp4", spec, keys, signing=Signing(BACKENDS[backend]))
        return
    found = read(sign_file(clip, tmp_path / "out.mp4", spec, keys, signing=Signing(BACKENDS[backend])).path, keys)
    (ingredient,) = found.ingredients
    assert (found.state, ingredient.relationship, ingredient.title) == ("trusted", "parentOf", "source video")
    assert (ingredient.manifest_id == signed_clip.manifest_id) == (kind == "embedded too")
    assert ingredient.manifest_id is not None
    assert ingredient.failure_codes == (("assertion.bmffHash.mismatch",) if kind == "edited" else ())


def test_provenance_survives_two_generations(
    tmp_path: Path, clip: Path, signed_clip: SignedAsset, keys: KeyStore
) -> None:
    current, ids = signed_clip.path, {signed_clip.manifest_id}
    for step in range(2):
        spec = make_spec(mode=Mode.VIDEO, ingredients=(InputFile(current, Relationship.PARENT),))
        signed = sign_file(clip, tmp_path / f"{step}.mp4", spec, keys)
        current = signed.path
        ids.add(signed.manifest_id)
    assert set(manifests(current)) == ids


def test_input_with_a_broken_credential_is_recorded_as_broken(
    tmp_path: Path, clip: Path, signed_still: SignedAsset, keys: KeyStore
) -> None:
    content = bytearray(signed_still.path.read_bytes())
    content[content.rindex(b"IDAT") + 40] ^= 1
    broken = tmp_path / "broken.png"
    broken.write_bytes(content)
    spec = make_spec(mode=Mode.IMAGE, ingredients=(InputFile(broken, Relationship.INPUT),))
    found = read(sign_file(clip, tmp_path / "out.mp4", spec, keys).path, keys)
    assert found.state is CredentialState.TRUSTED
    assert "assertion.dataHash.mismatch" in found.ingredients[0].failure_codes


def test_no_thumbnails(tmp_path: Path, clip: Path, still: Path, signed_still: SignedAsset, keys: KeyStore) -> None:
    spec = make_spec(
        mode=Mode.IMAGE,
        ingredients=(InputFile(still, Relationship.INPUT), InputFile(signed_still.path, Relationship.INPUT)),
    )
    signed = sign_file(clip, tmp_path / "out.mp4", spec, keys)
    for asset in (signed, signed_still):
        assert b"thumbnail" not in asset.manifest_bytes
        assert b"IHDR" not in asset.manifest_bytes
        assert b"JFIF" not in asset.manifest_bytes


def test_prompt_is_nowhere_in_the_file(tmp_path: Path, clip: Path, signed_clip: SignedAsset, keys: KeyStore) -> None:
    spec = make_spec(keys)
    signed = sign_file(clip, tmp_path / "out.mp4", spec, keys)
    content = signed.path.read_bytes()
    assert spec.prompt_commitment is not None
    assert spec.prompt_commitment["value"].encode() in content
    assert check_commitment(CANARY, keys.commitment_key, spec.prompt_commitment)
    digest = hashlib.sha256(CANARY.encode())
    forms = [CANARY.encode(), CANARY.encode("utf-16-le"), b"canary", b"paper boat", digest.digest()]
    forms += [digest.hexdigest().encode(), spec.prompt_commitment["salt"].encode()]
    for form in forms:
        assert form not in content


def test_source_is_untouched_and_nothing_else_is_left(tmp_path: Path, clip: Path, keys: KeyStore) -> None:
    before, modified = clip.read_bytes(), clip.stat().st_mtime_ns
    sign_file(clip, tmp_path / "out.mp4", make_spec(), keys)
    assert clip.read_bytes() == before
    assert clip.stat().st_mtime_ns == modified
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]


def test_destination_is_the_source(clip: Path, keys: KeyStore) -> None:
    before = clip.read_bytes()
    with pytest.raises(ProvenanceError, match="exists already"):
        sign_file(clip, clip, make_spec(), keys)
    assert clip.read_bytes() == before


@pytest.mark.parametrize("kind", ["file", "link to the source", "dangling link", "folder"])
def test_destination_that_exists(tmp_path: Path, clip: Path, keys: KeyStore, kind: str) -> None:
    destination, before = tmp_path / "out.mp4", clip.read_bytes()
    if kind == "file":
        destination.write_bytes(b"precious")
    elif kind == "folder":
        destination.mkdir()
    else:
        destination.symlink_to(clip if kind == "link to the source" else tmp_path / "nowhere")
    with pytest.raises(ProvenanceError):
        sign_file(clip, destination, make_spec(), keys)
    assert clip.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]
    if kind == "file":
        assert destination.read_bytes() == b"precious"


def test_destination_in_a_folder_that_is_not_there(tmp_path: Path, clip: Path, keys: KeyStore) -> None:
    with pytest.raises(ProvenanceError, match="cannot write"):
        sign_file(clip, tmp_path / "no" / "out.mp4", make_spec(), keys)


def test_source_that_is_signed_already_is_refused(tmp_path: Path, signed_clip: SignedAsset, keys: KeyStore) -> None:
    """Signing it afresh would silently drop the manifest that it has."""
    with pytest.raises(ProvenanceError, match="cannot be signed as a new") as caught:
        sign_file(signed_clip.path, tmp_path / "out.mp4", make_spec(), keys)
    assert "ingredient" in caught.value.remedy
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"no media at all" * 100, b"\x00\x00\xff\xffftypisom"])
def test_source_that_is_no_media(tmp_path: Path, keys: KeyStore, content: bytes) -> None:
    source = tmp_path / "clip.mp4"
    source.write_bytes(content)
    with pytest.raises(SafegenError):
        sign_file(source, tmp_path / "out.mp4", make_spec(), keys)
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


def test_source_of_another_format(tmp_path: Path, still: Path, keys: KeyStore) -> None:
    with pytest.raises(ProvenanceError):
        sign_file(still, tmp_path / "out.mp4", make_spec(), keys)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["missing", "folder", "damaged"])
def test_ingredient_that_cannot_be_recorded(tmp_path: Path, clip: Path, keys: KeyStore, kind: str) -> None:
    image = tmp_path / "input.png"
    if kind == "folder":
        image.mkdir()
    elif kind == "damaged":
        image.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\xff" * 40)
    spec = make_spec(mode=Mode.IMAGE, ingredients=(InputFile(image, Relationship.INPUT),))
    with pytest.raises(ProvenanceError, match=r"cannot record the input .*input\.png"):
        sign_file(clip, tmp_path / "out.mp4", spec, keys)
    assert not (tmp_path / "out.mp4").exists()


def test_keys_that_only_verify(tmp_path: Path, clip: Path) -> None:
    home = Home(tmp_path / "home")
    KeyStore.init(home)
    (home.keys / "signing.key").unlink()
    with pytest.raises(KeyStoreError, match="verify but not sign"):
        sign_file(clip, tmp_path / "out.mp4", make_spec(), KeyStore.load(home, purpose="verify"))
    assert not (tmp_path / "out.mp4").exists()


def test_expired_certificate_cannot_sign(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that expire while a process runs: load() let them pass, the signature must not."""
    monkeypatch.setattr(key_pki, "LEAF_DAYS", 1 / 86400)  # begins five minutes ago, so over already
    home = Home(tmp_path / "home")
    with pytest.raises(KeyStoreError, match="expired"):
        KeyStore.init(home)
    keys = KeyStore.load(home, purpose="verify")
    with pytest.raises(ProvenanceError, match=r"signing .* failed"):
        sign_file(clip, tmp_path / "out.mp4", make_spec(), keys)
    assert not (tmp_path / "out.mp4").exists()


def test_result_that_does_not_verify_is_thrown_away(
    tmp_path: Path, clip: Path, keys: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk hands back other bytes than were written: found before the caller can publish the file."""
    flush = file_signing.os.fsync

    def damaging(descriptor: int) -> None:
        flush(descriptor)
        path = tmp_path / "out.mp4"
        content = bytearray(path.read_bytes())
        content[content.index(b"mdat") + 20] ^= 1
        path.write_bytes(content)

    monkeypatch.setattr(file_signing.os, "fsync", damaging)
    with pytest.raises(ProvenanceError, match="does not verify: invalid"):
        sign_file(clip, tmp_path / "out.mp4", make_spec(), keys)
    assert not list(tmp_path.iterdir())


def test_full_disk(tmp_path: Path, clip: Path, keys: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(file_signing.os, "fsync", full)
    with pytest.raises(ProvenanceError, match="No space left"):
        sign_file(clip, tmp_path / "out.mp4", make_spec(), keys)
    assert not list(tmp_path.iterdir())


def test_interrupt(tmp_path: Path, clip: Path, keys: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(file_signing.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sign_file(clip, tmp_path / "out.mp4", make_spec(), keys)
    assert not list(tmp_path.iterdir())


# -- a file of one's own -----------------------------------------------------------------------------------------------


@pytest.fixture
def roomy(tmp_path: Path, clip: Path) -> Path:
    """An encoded clip with room for a manifest."""
    ffmpeg("-i", clip, "-c", "copy", "-moov_size", "12000", tmp_path / "roomy.mp4")
    return tmp_path / "roomy.mp4"


def test_own_file_is_signed_where_it_is(tmp_path: Path, roomy: Path, keys: KeyStore) -> None:
    before = roomy.stat()
    at = roomy.read_bytes().index(b"mdat")
    signed = sign_own_file(roomy, tmp_path / "spare.mp4", make_spec(keys), keys)
    assert (signed.path, roomy.stat().st_ino, roomy.stat().st_size) == (roomy, before.st_ino, before.st_size)
    content = roomy.read_bytes()
    assert (content.index(b"mdat"), hashlib.sha256(content).hexdigest()) == (at, signed.sha256)
    assert signed.manifest_bytes in content
    found = read(roomy, keys)
    assert (found.state, found.manifest_id) == (CredentialState.TRUSTED, signed.manifest_id)
    assert [p.name for p in tmp_path.iterdir()] == ["roomy.mp4"]


@pytest.mark.parametrize("why", ["no room", "too little room", "another backend", "a picture"])
def test_own_file_without_room_is_copied(
    tmp_path: Path, clip: Path, still: Path, signed_clip: SignedAsset, keys: KeyStore, roomy: Path, why: str
) -> None:
    source = {"no room": clip, "a picture": still}.get(why, roomy)
    before, changes = source.read_bytes(), {}
    if why == "a picture":
        changes = {"media_format": MediaFormat.PNG}
    if why == "too little room":
        changes = {"mode": Mode.VIDEO, "ingredients": (InputFile(signed_clip.path, Relationship.PARENT),)}
    spare = tmp_path / f"spare{source.suffix}"
    signing = Signing(BACKENDS["c2pa-python" if why == "another backend" else "native"])
    signed = sign_own_file(source, spare, make_spec(keys, **changes), keys, signing=signing)
    assert (signed.path, source.read_bytes()) == (spare, before)
    assert read(spare, keys).state is CredentialState.TRUSTED


def test_own_file_that_cannot_be_signed_stays_what_it_was(
    tmp_path: Path, roomy: Path, keys: KeyStore, signed_clip: SignedAsset
) -> None:
    before = roomy.read_bytes()
    stamped = Seal(store_signer(keys), ("http://127.0.0.1:9/",))
    with pytest.raises(ProvenanceError, match="time-stamp"):
        sign_own_file(roomy, tmp_path / "spare.mp4", make_spec(), keys, seal=stamped)
    assert roomy.read_bytes() == before
    without = Seal(store_signer(keys), ("http://127.0.0.1:9/", "none"))
    signed = sign_own_file(roomy, tmp_path / "spare.mp4", make_spec(), keys, seal=without)
    assert signed.signature["timestamp"]["status"] == "unavailable"  # type: ignore[call-overload, index]
    assert signed.path == roomy
    assert [p.name for p in tmp_path.iterdir()] == ["roomy.mp4"]
    with pytest.raises(ProvenanceError, match="cannot be signed as a new"):
        sign_own_file(signed_clip.path, tmp_path / "other.mp4", make_spec(), keys)


class Listener(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.hits.append(self.path)  # type: ignore[attr-defined]
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def listener() -> Iterator[http.server.HTTPServer]:
    server = http.server.HTTPServer(("127.0.0.1", 0), Listener)
    server.hits = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def sign_remote(source: Path, target: Path, url: str, keys: KeyStore) -> bytes:
    """Write a file that names its manifest at ``url``, and return that manifest."""
    info = c2pa.C2paSignerInfo(b"es256", keys.certificate_chain_pem.encode(), keys.signing_key, None)
    with (
        c2pa.Signer.from_info(info) as signer,
        c2pa.Builder(json.dumps(make_spec().definition()), make_context()) as builder,
        source.open("rb") as stream,
        target.open("x+b") as out,
    ):
        builder.set_no_embed()
        builder.set_remote_url(url)
        return bytes(builder.sign(signer, "video/mp4", stream, out))


def test_remote_manifest_is_named_and_never_fetched(
    tmp_path: Path, clip: Path, keys: KeyStore, listener: http.server.HTTPServer
) -> None:
    url = f"http://127.0.0.1:{listener.server_port}/manifest.c2pa"
    remote = tmp_path / "remote.mp4"
    manifest = sign_remote(clip, remote, url, keys)
    found = read(remote, keys)
    assert (found.state, found.remote_url) == (CredentialState.ABSENT, url)
    assert "does not fetch" in found.problem
    spec = make_spec(mode=Mode.VIDEO, ingredients=(InputFile(remote, Relationship.PARENT),))
    sign_file(clip, tmp_path / "out.mp4", spec, keys)
    given = read_credential(remote, trust_anchors_pem=keys.root_pem, manifest_bytes=manifest)
    assert (given.state, given.origin) == (CredentialState.TRUSTED, Origin.GIVEN)
    assert listener.hits == []  # type: ignore[attr-defined]
    with pytest.raises(c2pa.C2paError):  # the control: with the library's defaults the listener is hit
        c2pa.Reader(str(remote))
    assert listener.hits == ["/manifest.c2pa"]  # type: ignore[attr-defined]


def specs(still: Path, signed: Path) -> dict[str, ManifestSpec]:
    return {
        "text": make_spec(),
        "image": make_spec(mode=Mode.IMAGE, ingredients=(InputFile(still, Relationship.INPUT),)),
        "video": make_spec(mode=Mode.VIDEO, ingredients=(InputFile(signed, Relationship.PARENT),)),
    }


@pytest.mark.parametrize("mode", ["text", "image", "video"])
def test_an_independent_verifier_agrees(
    tmp_path: Path, clip: Path, still: Path, signed_clip: SignedAsset, keys: KeyStore, mode: str
) -> None:
    """encypher-c2pa has an engine of its own; its strict profile wants revocation data and a time-stamp besides."""
    encypher = pytest.importorskip("encypher_c2pa")
    signed = sign_file(clip, tmp_path / "out.mp4", specs(still, signed_clip.path)[mode], keys)
    options = {"trust_pem": keys.root_pem, "no_default_trust": True, "telemetry": False, "online": False}
    report = encypher.verify(str(signed.path), **options)
    assert report["validation_state"] == "Trusted"
    assert report["validation_results"]["failure"] == []
    strict = encypher.verify(str(signed.path), strict_conformance=True, **options)
    assert {f["code"].rsplit(".", 1)[-1] for f in strict["validation_results"]["failure"]} == {
        "revocationInformationMissing",
        "trustedTimeStampMissing",
    }
