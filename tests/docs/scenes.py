"""What a page takes for granted: files, names and state that its blocks use and its reader would have.

Every page starts with a home that has keys and one clip, ``clip.mp4`` (entry 0), in its folder; where a page makes a
clip of that name itself, it is taken away.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from tests.docs.conftest import Scene
from tests.docs.pages import ROOT, blocks

Names = dict[str, Any]
Setting = Callable[[Scene, Names, ExitStack], None]
SCENES: dict[str, Setting] = {}


@contextmanager
def prepared(page: str, scene: Scene) -> Iterator[Names]:
    """The names that a page's Python blocks may use, with its scene set."""
    names: Names = {}
    with ExitStack() as stack:
        stack.enter_context(_environment(scene))
        if any("-o clip.mp4" in block.text or 'output="clip.mp4"' in block.text for block in blocks(page)):
            (scene.folder / "clip.mp4").unlink()
        if page in SCENES:
            SCENES[page](scene, names, stack)
        yield names


def _for(*pages: str) -> Callable[[Setting], Setting]:
    def kept(setting: Setting) -> Setting:
        SCENES.update(dict.fromkeys(pages, setting))
        return setting

    return kept


@contextmanager
def _environment(scene: Scene) -> Iterator[None]:
    before = os.environ.get("SAFEGEN_HOME")
    os.environ["SAFEGEN_HOME"] = str(scene.home)
    try:
        yield
    finally:
        os.environ.pop("SAFEGEN_HOME")
        if before is not None:
            os.environ["SAFEGEN_HOME"] = before


@_for("README.md", "docs/tutorial/wan.md", "docs/embedded-model.md")
def _models(scene: Scene, _names: Names, _stack: ExitStack) -> None:
    (scene.folder / "models").mkdir()
    (scene.folder / "models" / "wan").symlink_to(ROOT / "safegen" / "tinymodel" / "pipe")


@_for("docs/tutorial/postgresql.md")
def _postgresql(scene: Scene, _names: Names, stack: ExitStack) -> None:
    from tests.postgres import database

    scene.environment["DATABASE_URL"] = stack.enter_context(database("postgresql", scene.folder))


@_for("docs/audit.md")
def _audit(scene: Scene, _names: Names, _stack: ExitStack) -> None:
    scene.environment["VKEY"] = _vkey(scene)
    scene.prepare("safegen ledger checkpoint -o october.checkpoint")


@_for("docs/ledger-proofs.md")
def _proofs(scene: Scene, _names: Names, _stack: ExitStack) -> None:
    scene.environment["LEDGER_VKEY"] = _vkey(scene)


def _vkey(scene: Scene) -> str:
    from safegen.keys import KeyStore
    from safegen.ledger import VerifierKey
    from safegen.settings import Home

    keys = KeyStore.load(Home(scene.home), purpose="verify")
    return str(VerifierKey.of(keys.ledger_name, keys.ledger_public_key))


@_for("docs/consent.md")
def _consent(scene: Scene, _names: Names, _stack: ExitStack) -> None:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from PIL import Image

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    (scene.folder / "agency.key").write_bytes(private)
    (scene.folder / "agency.key").chmod(0o600)
    (scene.folder / "agency.pub").write_bytes(public)
    Image.new("RGB", (64, 64), "grey").save(scene.folder / "portrait.png")


@_for("docs/review.md")
def _review(scene: Scene, _names: Names, _stack: ExitStack) -> None:
    done = scene.sh("safegen generate 'Jane Smith walks along a beach' -o beach.mp4 --policy eu")
    assert done.returncode == 3, done.stdout


@_for("docs/labels.md")
def _labels(scene: Scene, _names: Names, _stack: ExitStack) -> None:
    scene.prepare("ffmpeg -v error -i clip.mp4 -c copy -fflags +bitexact encoded.mp4")


@_for("docs/fingerprint.md")
def _fingerprint(scene: Scene, names: Names, _stack: ExitStack) -> None:
    from types import SimpleNamespace

    from safegen.media import read_clip

    frames = read_clip(scene.folder / "clip.mp4").frames
    corners = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]
    names |= {
        "frames": frames, "suspect": frames, "extraction": SimpleNamespace(evidence={"corners": corners})
    }  # fmt: skip


@_for("docs/likeness.md")
def _likeness(scene: Scene, names: Names, stack: ExitStack) -> None:
    from safegen.ledger import Ledger
    from safegen.settings import Home

    shutil.copy(scene.folder / "clip.mp4", scene.folder / "unknown.mp4")
    names["home"] = Home(scene.home)
    names["ledger"] = stack.enter_context(Ledger.open(names["home"].ledger_url, create=False, read_only=True))


@_for("docs/ledger.md")
def _ledger(scene: Scene, names: Names, _stack: ExitStack) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from safegen.ledger import Event, Ledger

    key = Ed25519PrivateKey.generate()
    with Ledger.open(f"sqlite:///{scene.folder / 'example.db'}", key=key, origin="example.com/safegen") as ledger:
        saved = ledger.append(Event("generated", content_id="f" * 16, body={})).checkpoint
    names |= {"private_key": key, "saved_checkpoint": saved}


@_for("docs/probes.md")
def _probes(scene: Scene, names: Names, _stack: ExitStack) -> None:
    import safegen
    from safegen.generators import load, resolve
    from safegen.policies.probes.probe_set import SHIPPED

    shutil.copy(SHIPPED / "probe-tiny-water-text.safetensors", scene.folder / "my-probe.safetensors")
    names |= {"safegen": safegen, "my_pipeline": load(resolve("tiny"))}


@_for("docs/noise-sign.md")
def _noise_sign(_scene: Scene, names: Names, _stack: ExitStack) -> None:
    from safegen.generators import Card, load, resolve

    call = dict(Card.read(resolve("tiny")).resolve())
    names |= {"pipe": load(resolve("tiny")), "key": bytes(32), "call": call | {"num_inference_steps": 2}}


@_for("docs/provenance.md", "docs/native-writer.md")
def _signing(scene: Scene, names: Names, _stack: ExitStack) -> None:
    from safegen.keys import KeyStore
    from safegen.provenance.manifest import ManifestSpec
    from safegen.settings import Home
    from safegen.types import ContentId
    from tests.unit.provenance.provenance_samples import make_clip, make_spec, make_still

    home, clip = Home(scene.home), make_clip(scene.folder / "encoded.mp4")
    room = scene.folder / "room.mp4"
    scene.prepare("ffmpeg -v error -i encoded.mp4 -c copy -moov_size 60000 room.mp4")
    spec: ManifestSpec = make_spec()
    names |= {
        "home": home, "keys": KeyStore.load(home), "spec": spec, "source": clip, "encoded": clip,
        "destination": scene.folder / "signed.mp4", "temporary": scene.folder / "signed.mp4", "path": room,
        "picture": make_still(scene.folder / "first.png"), "content_id": ContentId("0123456789abcdef"),
        "payload": bytes(8), "prompt": "a red ball on grass", "ocsp_response_der": None, "ask_authority": None,
    }  # fmt: skip


@_for("docs/reading-credentials.md")
def _segments(scene: Scene, _names: Names, _stack: ExitStack) -> None:
    scene.prepare(
        "ffmpeg -v error -i clip.mp4 -c:v libx264 -g 4 -f dash -seg_duration 0.25 "
        "-init_seg_name init.mp4 -media_seg_name '$Number$.m4s' clip.mpd"
    )
