"""The C2PA library as a writer: its signer around ours, its builder around our manifests."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import c2pa

from safegen.errors import ProvenanceError
from safegen.provenance.engine import guess_format, make_context
from safegen.provenance.examining import LIMIT, Reading
from safegen.provenance.manifest import Ingredient, InputFile, KeptManifest, Manifest
from safegen.provenance.read import sidecars
from safegen.provenance.sandbox import ReadLimits
from safegen.provenance.signers import CallbackSigner, Signer


def library_signer(signer: Signer, call: Remembering, url: str | None) -> Any:
    """Return the library's signer. For a callback it keeps 11 kB more free in the file than for a key that it has."""
    if isinstance(signer, CallbackSigner) and signer.key_pem:
        info = (signer.algorithm.encode(), signer.chain_pem.encode(), signer.key_pem, url.encode() if url else None)
        return c2pa.Signer.from_info(c2pa.C2paSignerInfo(*info))
    return c2pa.Signer.from_callback(call, c2pa.C2paSigningAlg[signer.algorithm.upper()], signer.chain_pem, url)


class Remembering:
    """The signer as the library calls it. The library only logs what a callback raises: it is kept here instead."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self.problem: BaseException | None = None

    def __call__(self, data: bytes) -> bytes:
        """Sign; nothing where that failed."""
        try:
            return self._signer.sign(data)
        except BaseException as error:  # Ctrl-C too must not vanish in foreign code
            self.problem = error
            return b""


@contextmanager
def open_builder(manifest: Manifest, anchors_pem: str, *, hosts: tuple[str, ...] = ()) -> Iterator[Any]:
    """Yield the library's builder of ``manifest``, its ingredients added."""
    context = make_context(anchors_pem, hosts=hosts)
    with c2pa.Builder(json.dumps(manifest.to_json()), context) as builder:
        if manifest.update:
            builder.set_intent(c2pa.C2paBuilderIntent.UPDATE)
        _add_ingredients(builder, manifest.ingredients, anchors_pem)
        yield builder


def report_on(path: Path, media_format: str, store: bytes, anchors_pem: str) -> dict[str, Any]:
    """Return what the library says of a manifest store held against a file. Raises C2paError or ValueError."""
    with path.open("rb") as stream, c2pa.Reader(media_format, stream, store, make_context(anchors_pem)) as reader:
        report: dict[str, Any] = json.loads(reader.json())
    return report


def manifest_ids(path: Path) -> tuple[str, ...]:
    """Return the URNs of all manifests that a file carries. Raises ProvenanceError."""
    try:
        with path.open("rb") as stream, c2pa.Reader(guess_format(path), stream, None, make_context()) as reader:
            return tuple(json.loads(reader.json())["manifests"])
    except (c2pa.C2paError, ValueError, KeyError) as error:
        raise ProvenanceError(f"the manifests of {path} cannot be read: {error}") from error


def media_type(path: Path) -> str:
    """Return a file's media type from its first bytes, or else from its name.

    Reading, the library finds out by itself. From an ingredient under a wrong type it drops the manifests, without a
    word.
    """
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "video/mp4")
    found = next((kind for start, kind in _SIGNATURES.items() if head.startswith(start)), None)
    if found == "RIFF":
        found = _RIFF.get(head[8:12])
    return found or guess_format(path)


_BRANDS: Final = {b"qt  ": "video/quicktime", b"avif": "image/avif", b"avis": "image/avif", b"heic": "image/heic"} | {
    b"heix": "image/heic", b"mif1": "image/heif", b"M4A ": "audio/mp4"
}  # fmt: skip
_SIGNATURES: Final = {
    b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif", b"RIFF": "RIFF",
    b"\x1a\x45\xdf\xa3": "video/x-matroska",
}  # fmt: skip
_RIFF: Final = {b"WEBP": "image/webp", b"AVI ": "video/x-msvideo", b"WAVE": "audio/wav"}


def _add_ingredients(builder: Any, ingredients: Iterable[Ingredient], anchors_pem: str) -> None:
    """Add what definitions leave out: files as streams, so that their manifests come along, and kept manifests.

    Inputs that cannot carry manifests are named only. ProvenanceError names a bad input.
    """
    for ingredient in ingredients:
        if isinstance(ingredient, KeptManifest):
            builder.add_resource(ingredient.resource, io.BytesIO(ingredient.store))
            continue
        _refuse_boundless(ingredient.path)
        try:
            kind = media_type(ingredient.path)
            definition = ingredient.definition()
            beside = _beside(ingredient, kind, anchors_pem)
            if beside is not None:
                builder.add_resource(beside.resource, io.BytesIO(beside.store))
                definition = beside.definition()
            with ingredient.path.open("rb") as stream:
                builder.add_ingredient(json.dumps(definition), kind, stream)
        except (OSError, c2pa.C2paError, ValueError) as error:
            raise ProvenanceError(
                f"cannot record the input {ingredient.path}: {error}",
                remedy="Give an intact image or video file; if its credential is damaged, a copy without it.",
            ) from error


def _refuse_boundless(path: Path) -> None:
    """Refuse an input that takes more time or memory to read than a reader allows: the library would take it all."""
    try:
        with path.open("rb") as file:
            found = Reading(file, path, (), ReadLimits.from_environment()).report("", None)
    except OSError as error:
        raise ProvenanceError(f"cannot record the input {path}: {error}", remedy="Give a readable file.") from error
    if found.error == LIMIT:
        raise ProvenanceError(
            f"cannot record the input {path}: {found.problem}", remedy="Give a copy of it without its credential."
        )


def _beside(item: InputFile, kind: str, anchors_pem: str) -> KeptManifest | None:
    """Return the manifest that lies in a sidecar, where the file has none in itself."""
    beside = next(sidecars(item.path), None)
    if beside is None:
        return None
    store = beside.store
    try:
        with item.path.open("rb") as stream, c2pa.Reader(kind, stream, None, make_context()):
            return None
    except (c2pa.C2paError.ManifestNotFound, c2pa.C2paError.NotSupported):
        report = report_on(item.path, kind, store, anchors_pem)
    fields = item.definition()
    return KeptManifest(
        store, kind, report, title=str(fields["title"]), instance_id=item.instance_id, relationship=item.relationship
    )
