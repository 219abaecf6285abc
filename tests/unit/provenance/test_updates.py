"""Signed files that are signed again: update manifests of both writers, read back by both engines."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
from pathlib import Path
from typing import Any

import c2pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safegen.errors import ProvenanceError, SafegenError
from safegen.keys import KeyStore
from safegen.provenance.backends import BACKENDS, Signing
from safegen.provenance.credential import CredentialState
from safegen.provenance.engine import make_context
from safegen.provenance.file_signing import SignedAsset, sign_file
from safegen.provenance.manifest import InputFile, Manifest, MediaFormat, Mode, Relationship
from safegen.provenance.native import jumbf, streaming
from safegen.provenance.native.updating import UPDATED
from safegen.provenance.read import read_credential
from safegen.provenance.restoring import Restoration, restore_file
from safegen.provenance.signers import CallbackSigner
from safegen.provenance.signing_identity import Seal
from safegen.provenance.updating import update_file
from safegen.settings import Home
from tests.quick import quick
from tests.unit.provenance.expiry import made_before_expiry
from tests.unit.provenance.native_pki import make_pki
from tests.unit.provenance.provenance_samples import ALG, CONTENT_ID, ffmpeg, make_clip, make_spec, make_still

FORMATS = {
    "clip.mp4": MediaFormat.MP4,
    "fragments.mp4": MediaFormat.MP4,
    "clip.mov": MediaFormat.MOV,
    "still.png": MediaFormat.PNG,
    "still.jpg": MediaFormat.JPEG,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("updates")
    clip, still = make_clip(made / "clip.mp4"), make_still(made / "still.png")
    ffmpeg("-i", clip, "-c", "copy", "-movflags", "frag_every_frame+empty_moov", made / "fragments.mp4")
    ffmpeg("-i", clip, "-c", "copy", made / "clip.mov")
    ffmpeg("-i", still, made / "still.jpg")
    return made


@pytest.fixture(scope="module")
def signed(folder: Path, keys: KeyStore) -> dict[str, SignedAsset]:
    return {
        f"{backend} {name}": sign_file(
            folder / name, folder / f"{backend}-{name}", make_spec(media_format=kind), keys,
            signing=Signing(BACKENDS[backend]),
        )
        for backend in BACKENDS for name, kind in FORMATS.items()
    }  # fmt: skip


def report(path: Path, anchors: str) -> dict[str, Any]:
    with path.open("rb") as file, c2pa.Reader("", file, None, make_context(anchors)) as reader:
        found: dict[str, Any] = json.loads(reader.json())
    return found


def assert_update(path: Path, earlier: str, anchors: str, count: int) -> None:
    """An update manifest as C2PA wants it, which c2pa-rs and an independent engine trust."""
    found = read_credential(path, trust_anchors_pem=anchors)
    assert (found.state, found.failure_codes, found.content_matches) == (CredentialState.TRUSTED, (), True)
    assert (found.content_id, found.ai_generated) == (CONTENT_ID, True)
    assert [(i.relationship, i.manifest_id) for i in found.ingredients] == [("parentOf", earlier)]
    everything = report(path, anchors)
    assert len(everything["manifests"]) == count
    active = everything["manifests"][everything["active_manifest"]]
    said = {a["label"]: a["data"] for a in active["assertions"]}
    assert [a["action"] for a in said["c2pa.actions.v2"]["actions"]] == ["c2pa.opened"]
    assert said["c2pa.actions.v2"]["actions"][0]["parameters"]["ingredients"]
    assert said["c2pa.actions.v2"]["allActionsIncluded"] is True
    assert not any(label.startswith("c2pa.hash.") for label in said)
    encypher = pytest.importorskip("encypher_c2pa")
    other = encypher.verify(str(path), trust_pem=anchors, no_default_trust=True, telemetry=False, online=False)
    assert (other["validation_state"], other["validation_results"]["failure"]) == ("Trusted", [])


def media(path: Path, tmp_path: Path) -> str:
    ffmpeg("-i", path, "-f", "framemd5", tmp_path / "frames.md5")
    return (tmp_path / "frames.md5").read_text()


@pytest.mark.parametrize("writer", BACKENDS)
@pytest.mark.parametrize("first", BACKENDS)
@pytest.mark.parametrize("name", quick(FORMATS, "clip.mp4", "still.jpg"))
def test_every_earlier_manifest_stays(
    signed: dict[str, SignedAsset], tmp_path: Path, keys: KeyStore, name: str, first: str, writer: str
) -> None:
    """Twice, the second time with the other writer; the first manifest's bytes are those that were signed."""
    original, suffix = signed[f"{first} {name}"], Path(name).suffix
    before = original.path.read_bytes()
    others = [b for n, b in BACKENDS.items() if n != writer]
    chain = [original]
    for step, backend in enumerate((BACKENDS[writer], *others), 1):
        target = tmp_path / f"{step}{suffix}"
        options = {"anchors_pem": keys.root_pem, "signing": Signing(backend)}
        chain.append(update_file(chain[-1].path, target, keys, **options))
        assert_update(target, chain[-2].manifest_id, keys.root_pem, step + 1)
        kept = jumbf.manifests(chain[-1].manifest_bytes)
        assert [m.label for m in kept] == [a.manifest_id for a in chain]
        assert [m.kind for m in kept] == [jumbf.MANIFEST] + [jumbf.UPDATE] * step
        assert kept[0].raw == jumbf.manifests(original.manifest_bytes)[0].raw
    assert original.path.read_bytes() == before
    assert media(chain[-1].path, tmp_path) == media(original.path, tmp_path)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", FORMATS)
def test_change_of_the_media_is_found_after_an_update(
    signed: dict[str, SignedAsset], tmp_path: Path, keys: KeyStore, name: str, backend: str
) -> None:
    target = tmp_path / name
    signing = Signing(BACKENDS[backend])
    update_file(signed[f"native {name}"].path, target, keys, anchors_pem=keys.root_pem, signing=signing)
    content = bytearray(target.read_bytes())
    mark = {".png": b"IDAT", ".jpg": b"\xff\xda"}.get(target.suffix, b"mdat")
    content[content.rindex(mark) + 20] ^= 1
    target.write_bytes(content)
    found = read_credential(target, trust_anchors_pem=keys.root_pem)
    assert (found.state, found.content_matches) == (CredentialState.INVALID, False)
    with pytest.raises(ProvenanceError, match="cannot be updated: invalid"):
        update_file(target, tmp_path / f"again{target.suffix}", keys, anchors_pem=keys.root_pem)
    assert not (tmp_path / f"again{target.suffix}").exists()


@pytest.mark.parametrize("backend", BACKENDS)
def test_another_signer(signed: dict[str, SignedAsset], tmp_path: Path, keys: KeyStore, backend: str) -> None:
    pki, earlier = make_pki("es384"), signed["native clip.mp4"]
    seal = Seal(CallbackSigner(pki.chain_pem, lambda data: bytes(keys_sign(pki, data)), "test"))
    anchors = keys.root_pem + pki.root.pem
    done = update_file(
        earlier.path, tmp_path / "out.mp4", keys, anchors_pem=anchors, seal=seal, signing=Signing(BACKENDS[backend])
    )
    assert_update(done.path, earlier.manifest_id, anchors, 2)
    assert done.signature["algorithm"] == "es384"


def keys_sign(pki: Any, data: bytes) -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    signature: bytes = pki.leaf.key.sign(data, ec.ECDSA(hashes.SHA384()))
    return signature


@pytest.mark.parametrize(("backend", "name"), [("native", "clip.mp4"), ("c2pa-python", "still.png")])
def test_certificate_that_expired_since(folder: Path, tmp_path: Path, name: str, backend: str) -> None:
    """The reason for a rotation. What a validator finds wrong by then stands in the ingredient."""
    home = Home(tmp_path / "home")
    spec = make_spec(media_format=FORMATS[name])
    old, first = made_before_expiry(
        home,
        lambda keys: sign_file(folder / name, tmp_path / name, spec, keys, signing=Signing(BACKENDS[backend])),
    )
    new = KeyStore.renew(home)
    anchors = new.root_pem + old.root_pem
    assert read_credential(first.path, trust_anchors_pem=anchors).only_expired
    options = {"anchors_pem": anchors, "signing": Signing(BACKENDS[backend])}
    done = update_file(first.path, tmp_path / f"out{first.path.suffix}", new, **options)
    found = read_credential(done.path, trust_anchors_pem=anchors)
    assert (found.state, found.leaf_serial) == (CredentialState.TRUSTED, new.leaf_serial)
    (parent,) = found.ingredients
    assert parent.manifest_id == first.manifest_id
    assert "signingCredential.expired" in parent.failure_codes


@pytest.mark.parametrize("kind", ["unsigned", "sidecar", "stranger", "exists", "no media"])
def test_files_that_are_not_updated(
    folder: Path, signed: dict[str, SignedAsset], tmp_path: Path, keys: KeyStore, kind: str
) -> None:
    source, out, anchors = tmp_path / "clip.mp4", tmp_path / "out.mp4", keys.root_pem
    source.write_bytes(signed["native clip.mp4"].path.read_bytes())
    if kind in ("unsigned", "sidecar"):
        source.write_bytes((folder / "clip.mp4").read_bytes())
    if kind == "sidecar":
        source.with_suffix(".c2pa").write_bytes(signed["native clip.mp4"].manifest_bytes)
    if kind == "stranger":
        anchors = ""
    if kind == "exists":
        out.write_bytes(b"precious")
    if kind == "no media":
        source.write_bytes(b"no media at all")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(ProvenanceError):
        update_file(source, out, keys, anchors_pem=anchors)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_video_made_from_an_updated_one_keeps_all(
    folder: Path, signed: dict[str, SignedAsset], tmp_path: Path, keys: KeyStore
) -> None:
    done = update_file(signed["native clip.mp4"].path, tmp_path / "a.mp4", keys, anchors_pem=keys.root_pem)
    spec = make_spec(mode=Mode.VIDEO, ingredients=(InputFile(done.path, Relationship.PARENT),))
    made = sign_file(folder / "clip.mp4", tmp_path / "b.mp4", spec, keys)
    assert len(report(made.path, keys.root_pem)["manifests"]) == 3
    assert read_credential(made.path, trust_anchors_pem=keys.root_pem).state is CredentialState.TRUSTED


@pytest.mark.parametrize("backend", BACKENDS)
def test_marks_that_matched_stand_in_the_ingredient(
    folder: Path, signed: dict[str, SignedAsset], tmp_path: Path, keys: KeyStore, backend: str
) -> None:
    """Natively; the library has no such field."""
    what = Restoration(CONTENT_ID, (ALG,), dt.datetime.now(dt.UTC))
    kept = signed["native clip.mov"].manifest_bytes
    done = restore_file(
        folder / "clip.mp4", tmp_path / "out.mp4", kept, what, keys, anchors_pem=keys.root_pem,
        signing=Signing(BACKENDS[backend]),
    )  # fmt: skip
    assert read_credential(done.path, trust_anchors_pem=keys.root_pem).state is CredentialState.TRUSTED
    active = jumbf.manifests(done.manifest_bytes)[-1]
    (store,) = [box for box in active.children() if box.kind == jumbf.ASSERTIONS]
    (ingredient,) = [box.cbor() for box in store.children() if box.label == "c2pa.ingredient.v3"]
    said = (ingredient.get("softBindingsMatched"), ingredient.get("softBindingAlgorithmsMatched"))
    assert said == ((True, [ALG]) if backend == "native" else (None, None))
    assert ingredient["validationResults"]["activeManifest"]["failure"][0]["code"] == "assertion.bmffHash.mismatch"


CUTS = st.one_of(st.just(1.0), st.floats(0, 1))
FLIPS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 7)), min_size=1, max_size=3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip.mp4", "still.png", "still.jpg"])
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=CUTS, flips=FLIPS)
def test_damaged_file_is_refused_or_updated_so_that_it_reads_back(
    signed: dict[str, SignedAsset],
    tmp_path: Path,
    keys: KeyStore,
    name: str,
    cut: float,
    flips: list[tuple[float, int]],
) -> None:
    """The containers alone, then all: never anything but our own errors, and no update of what does not hold."""
    content = bytearray(signed[f"native {name}"].path.read_bytes())
    for place, bit in flips:
        content[int(place**3 * (len(content) - 1))] ^= 1 << bit
    source, target = tmp_path / name, tmp_path / f"out{Path(name).suffix}"
    source.write_bytes(content[: int(cut * len(content))])
    with contextlib.suppress(SafegenError), source.open("rb") as file:
        container = UPDATED[FORMATS[name]](file)
        streaming.copy(file, io.BytesIO(), container, 10)
    try:
        update_file(source, target, keys, anchors_pem=keys.root_pem)
    except SafegenError:
        assert not target.exists()
        return
    assert read_credential(target, trust_anchors_pem=keys.root_pem).state is CredentialState.TRUSTED
    target.unlink()


def test_an_update_has_one_parent(folder: Path) -> None:
    parent = InputFile(folder / "clip.mp4", Relationship.PARENT)
    for wrong in ((), (parent, parent), (InputFile(folder / "still.png", Relationship.INPUT),)):
        with pytest.raises(ProvenanceError, match="one ingredient"):
            Manifest("t", "video/mp4", (), wrong, update=True)
