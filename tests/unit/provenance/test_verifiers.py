"""Three engines judge what we sign: c2pa-rs, c2pa-wasm (another build of it, under Node), and encypher-c2pa (its own).

Files with plain signatures of a home, by both writers, and files with OCSP staple and time-stamp, by our own writer:
each in every mode and format, restored and signed again, and with one bit of the media changed.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from safegen.keys import KeyStore
from safegen.provenance.backends import BACKENDS, Signing
from safegen.provenance.crjson import read_crjson
from safegen.provenance.engine import EXTENDED_KEY_USAGES
from safegen.provenance.file_signing import sign_file
from safegen.provenance.manifest import InputFile, ManifestSpec, MediaFormat, Mode, Relationship
from safegen.provenance.native.cose import ClaimSigner, Evidence
from safegen.provenance.native.ingredients import collect
from safegen.provenance.native.writer import Request, write_file
from safegen.provenance.read import read_credential
from safegen.provenance.restoring import Restoration, restore_file
from safegen.provenance.updating import update_file
from safegen.settings import Home
from tests.unit.provenance import node_packages
from tests.unit.provenance.native_pki import TimestampAuthority, make_pki, ocsp_response
from tests.unit.provenance.provenance_samples import CONTENT_ID, WHEN, ffmpeg, flip, make_clip, make_spec, make_still

FORMATS = {
    "clip.mp4": (MediaFormat.MP4, b"mdat"),
    "clip.mov": (MediaFormat.MOV, b"mdat"),
    "still.png": (MediaFormat.PNG, b"IDAT"),
    "still.jpg": (MediaFormat.JPEG, b"\xff\xda"),
}
MODES = {
    Mode.TEXT: (),
    Mode.IMAGE: (("signed.png", Relationship.INPUT),),
    Mode.VIDEO: (("signed.mp4", Relationship.PARENT), ("still.jpg", Relationship.INPUT)),
}


@dataclass(frozen=True, slots=True)
class Signed:
    """Files by what they are, and the roots that they are to be trusted under."""

    plain: Mapping[str, Path]
    stamped: Mapping[str, Path]
    damaged: Mapping[str, Path]
    roots: str
    tsa_root: str

    @property
    def whole(self) -> dict[str, Path]:
        return {**self.plain, **self.stamped}


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command as time-stamp authority")
    folder = tmp_path_factory.mktemp("signed")
    keys, pki, authority = KeyStore.init(Home(folder / "home")), make_pki(), TimestampAuthority(folder)
    clip, still = make_clip(folder / "clip.mp4"), make_still(folder / "still.png")
    ffmpeg("-i", clip, "-c", "copy", folder / "clip.mov")
    ffmpeg("-i", still, folder / "still.jpg")
    signer, evidence = ClaimSigner.from_pem(pki.chain_pem, pki.leaf.key_pem), Evidence(ocsp_response(pki), authority)
    plain: dict[str, Path] = {}
    stamped: dict[str, Path] = {}

    def spec(name: str, mode: Mode) -> ManifestSpec:
        inputs = tuple(InputFile(folder / file, relationship) for file, relationship in MODES[mode])
        return make_spec(keys, media_format=FORMATS[name][0], mode=mode, ingredients=inputs)

    sign_file(clip, folder / "signed.mp4", spec("clip.mp4", Mode.TEXT), keys)
    sign_file(still, folder / "signed.png", spec("still.png", Mode.TEXT), keys)
    for at, (name, mode) in enumerate(itertools.product(FORMATS, MODES)):
        for backend in BACKENDS.values():
            made = sign_file(
                folder / name, folder / f"{at}-{backend.name}-{name}", spec(name, mode), keys, signing=Signing(backend)
            )
            plain[f"{backend.name}, {name}, {mode}"] = made.path
        said, path = spec(name, mode), folder / f"{at}-stamped-{name}"
        inputs = collect(said.ingredients, keys.root_pem)
        write_file(folder / name, path, Request(said, signer, inputs, evidence))
        stamped[f"stamped, {name}, {mode}"] = path
    for name in FORMATS:
        plain[f"restored, {name}"] = _restored(folder, name, keys)
        first, again = plain[f"native, {name}, {Mode.TEXT}"], folder / f"again-{name}"
        plain[f"signed again, {name}"] = update_file(first, again, keys, anchors_pem=keys.root_pem).path
    whole = {**plain, **stamped}
    # The engines take a tenth of a second per file: of each writer and format, one mode is enough here.
    damaged = {
        what: _damaged(path, folder / f"damaged-{path.name}")
        for what, path in whole.items()
        if not what.endswith((Mode.IMAGE, Mode.VIDEO))
    }
    return Signed(plain, stamped, damaged, keys.root_pem + pki.root.pem, authority.root.pem)


def _restored(folder: Path, name: str, keys: KeyStore) -> Path:
    kept = sign_file(folder / name, folder / f"kept-{name}", make_spec(media_format=FORMATS[name][0]), keys)
    changed = folder / f"changed-{name}"
    ffmpeg("-i", folder / name, "-vf", "negate", *(("-pix_fmt", "yuv420p") if "clip" in name else ()), changed)
    what = Restoration(CONTENT_ID, ("org.safegen.x.1",), WHEN)
    made = restore_file(
        changed, folder / f"restored-{name}", kept.manifest_bytes, what, keys, anchors_pem=keys.root_pem
    )
    return made.path


def _damaged(path: Path, target: Path) -> Path:
    """Change one bit of the coded pictures."""
    start = next(mark for name, (_, mark) in FORMATS.items() if path.name.endswith(name))
    return flip(path, target, path.read_bytes().rindex(start) + 20)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an engine says of a file."""

    state: str
    failures: tuple[str, ...]
    codes: frozenset[str]


def by_c2pa_rs(path: Path, signed: Signed) -> Answer:
    found = read_credential(path, trust_anchors_pem=signed.roots + signed.tsa_root)
    results = read_crjson(path, signers_pem=signed.roots, authorities_pem=signed.tsa_root)["manifests"][0]
    codes = {e["code"] for group in ("success", "informational") for e in results["validationResults"][group]}
    failures = [e["code"] for e in results["validationResults"]["failure"]]
    return Answer(str(found.state).title(), tuple(failures), frozenset(codes))


def by_encypher(path: Path, signed: Signed, *, strict: bool) -> Answer:
    encypher = pytest.importorskip("encypher_c2pa")
    report = encypher.verify(
        str(path), trust_pem=signed.roots, tsa_trust_pem=signed.tsa_root, no_default_trust=True, telemetry=False,
        online=False, strict_conformance=strict,
    )  # fmt: skip
    results = report["validation_results"]
    codes = {e["code"] for group in ("success", "informational") for e in results[group]}
    return Answer(report["validation_state"], tuple(e["code"] for e in results["failure"]), frozenset(codes))


@pytest.fixture(scope="module")
def by_wasm(signed: Signed) -> dict[Path, Answer]:
    """All files at once: one process of Node, and one compilation of the engine."""
    paths = [*signed.whole.values(), *signed.damaged.values()]
    media_type = {suffix: next(t for n, (t, _) in FORMATS.items() if n.endswith(suffix)) for suffix in _SUFFIXES}
    found: list[dict[str, Any]] = node_packages.run(
        "verify.mjs",
        {
            "anchors": signed.roots + signed.tsa_root,
            "usages": "\n".join(EXTENDED_KEY_USAGES) + "\n",
            "files": [{"path": str(path), "format": str(media_type[path.suffix])} for path in paths],
        },
    )
    assert [f["error"] for f in found if "error" in f] == []
    return {
        path: Answer(f["state"], tuple(f["failures"]), frozenset(f["codes"]))
        for path, f in zip(paths, found, strict=True)
    }


_SUFFIXES = (".mp4", ".mov", ".png", ".jpg")
_EVIDENCE = {"timeStamp.trusted", "signingCredential.ocsp.notRevoked"}


@pytest.mark.slow
def test_every_file_is_there(signed: Signed) -> None:
    assert (len(signed.plain), len(signed.stamped), len(signed.damaged)) == (32, 12, 20)


@pytest.mark.slow
def test_c2pa_rs_trusts_what_we_sign(signed: Signed) -> None:
    for what, path in signed.whole.items():
        answer = by_c2pa_rs(path, signed)
        assert (answer.state, answer.failures) == ("Trusted", ()), what
        assert what not in signed.stamped or answer.codes >= _EVIDENCE, what


@pytest.mark.slow
def test_encypher_trusts_what_we_sign_and_strictly_what_is_stapled_and_stamped(signed: Signed) -> None:
    for what, path in signed.whole.items():
        answer = by_encypher(path, signed, strict=what in signed.stamped)
        assert (answer.state, answer.failures) == ("Trusted", ()), what


def test_encypher_misses_staple_and_stamp_alone_in_a_plain_file(signed: Signed) -> None:
    missing = {"revocationInformationMissing", "trustedTimeStampMissing"}
    for what, path in signed.plain.items():
        answer = by_encypher(path, signed, strict=True)
        assert {code.rsplit(".")[-1] for code in answer.failures} == missing, (what, answer.failures)


@pytest.mark.slow
def test_wasm_trusts_what_we_sign(signed: Signed, by_wasm: dict[Path, Answer]) -> None:
    for what, path in signed.whole.items():
        answer = by_wasm[path]
        assert (answer.state, answer.failures) == ("Trusted", ()), what
        assert what not in signed.stamped or answer.codes >= _EVIDENCE, what


@pytest.mark.slow
def test_all_find_one_changed_bit(signed: Signed, by_wasm: dict[Path, Answer]) -> None:
    for what, path in signed.damaged.items():
        for answer in (by_c2pa_rs(path, signed), by_encypher(path, signed, strict=False), by_wasm[path]):
            assert answer.state == "Invalid", (what, answer)
            assert any("Hash.mismatch" in code for code in answer.failures), (what, answer.failures)
