"""Input files as ingredients. What a reader finds wrong with their manifests is part of the assertion.

The reader is c2pa-rs, so c2pa-rs makes the assertions: it writes a scratch manifest under a key made for it alone. Of
that, the ingredient assertions and the manifests that the inputs brought are kept as they are, byte for byte.
"""

from __future__ import annotations

import datetime as dt
import io
import secrets
from typing import Final

import c2pa

from safegen.errors import ProvenanceError
from safegen.keys.pki import issue_pki
from safegen.provenance.assertions import GENERATED, ActionName, Actions, ManifestAction
from safegen.provenance.library import open_builder
from safegen.provenance.manifest import Ingredient, KeptManifest, Manifest
from safegen.provenance.native import jumbf
from safegen.provenance.native.claim import Ingredients

_LABEL: Final = "c2pa.ingredient"


def collect(inputs: tuple[Ingredient, ...], trust_anchors_pem: str = "") -> Ingredients:
    """Return the assertions about ``inputs``, in their order, and their manifests. ProvenanceError names a bad input.

    ``trust_anchors_pem`` decides which of their signers the assertions call trusted.
    """
    if not inputs:
        return Ingredients()
    scratch = jumbf.manifests(_scratch_store(inputs, trust_anchors_pem))
    *brought, active = scratch
    boxes = [box for box in active.children() if box.kind == jumbf.ASSERTIONS]
    found = [b for store in boxes for b in store.children() if b.label.startswith(_LABEL)]
    if [_relationship(b) for b in found] != [str(i.relationship) for i in inputs]:
        raise ProvenanceError("the library did not record the inputs one for one")
    made = tuple(_completed(box, item) for box, item in zip(found, inputs, strict=True))
    return Ingredients(made, tuple(brought))


def _relationship(assertion: jumbf.Superbox) -> str:
    value = assertion.cbor()
    return str(value.get("relationship")) if isinstance(value, dict) else ""


def _completed(assertion: jumbf.Superbox, item: Ingredient) -> jumbf.Superbox:
    """Add the marks by which a kept manifest was found, which the library cannot write."""
    if not (isinstance(item, KeptManifest) and item.matched):
        return assertion
    value = assertion.cbor() | {"softBindingsMatched": True, "softBindingAlgorithmsMatched": list(item.matched)}
    return jumbf.cbor_box(jumbf.CBOR, assertion.label, value, salt=secrets.token_bytes(16))


def _scratch_store(inputs: tuple[Ingredient, ...], anchors: str) -> bytes:
    pki = issue_pki("scratch", dt.datetime.now(dt.UTC))
    info = c2pa.C2paSignerInfo(b"es256", pki.chain, pki.signing_key, None)
    opening = ManifestAction(ActionName.CREATED, "scratch", source_type=GENERATED)
    scratch = Manifest("scratch", "application/octet-stream", (Actions((opening,)),), inputs)
    try:
        with c2pa.Signer.from_info(info) as signer, open_builder(scratch, anchors) as builder:
            builder.set_no_embed()
            return bytes(builder.sign(signer, scratch.media_format, io.BytesIO(b"scratch"), io.BytesIO()))
    except c2pa.C2paError as error:
        raise ProvenanceError(f"cannot record the inputs: {error}") from error
