"""The C2PA library as a writer: its signer around ours, its builder around our manifests."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import c2pa

from safegen.errors import ProvenanceError
from safegen.provenance.engine import guess_format, make_context
from safegen.provenance.manifest import Ingredient, KeptManifest, Manifest
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
        add_ingredients(builder, manifest.ingredients)
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


def add_ingredients(builder: Any, ingredients: Iterable[Ingredient]) -> None:
    """Add what definitions leave out: files as streams, so that their manifests come along, and kept manifests.

    Inputs that cannot carry manifests are named only. ProvenanceError names a bad input.
    """
    for ingredient in ingredients:
        if isinstance(ingredient, KeptManifest):
            builder.add_resource(ingredient.resource, io.BytesIO(ingredient.store))
            continue
        try:
            with ingredient.path.open("rb") as stream:
                builder.add_ingredient(json.dumps(ingredient.definition()), guess_format(ingredient.path), stream)
        except (OSError, c2pa.C2paError) as error:
            raise ProvenanceError(
                f"cannot record the input {ingredient.path}: {error}",
                remedy="Give an intact image or video file; if its credential is damaged, a copy without it.",
            ) from error
