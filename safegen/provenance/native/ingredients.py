"""Input files as ingredients. What a reader finds wrong with their manifests is part of the assertion.

The reader is c2pa-rs, so c2pa-rs makes the assertions: it writes a scratch manifest under a key made for it alone. Of
that, the ingredient assertions and the manifests that the inputs brought are kept as they are, byte for byte.
"""

from __future__ import annotations

import datetime as dt
import io
import json
from typing import Any, Final

import c2pa

from safegen.errors import ProvenanceError
from safegen.keys.pki import issue_pki
from safegen.provenance.engine import guess_format, make_context
from safegen.provenance.manifest import GENERATED, InputFile
from safegen.provenance.native import jumbf
from safegen.provenance.native.claim import Ingredients

_LABEL: Final = "c2pa.ingredient"
_SCRATCH: Final[dict[str, Any]] = {
    "claim_version": 2,
    "claim_generator_info": [{"name": "scratch", "version": "0"}],
    "assertions": [
        {
            "label": "c2pa.actions.v2",
            "created": True,
            "data": {"actions": [{"action": "c2pa.created", "digitalSourceType": GENERATED}]},
        }
    ],
}


def collect(inputs: tuple[InputFile, ...], trust_anchors_pem: str = "") -> Ingredients:
    """Return the assertions about ``inputs``, in their order, and their manifests. ProvenanceError names a bad input.

    ``trust_anchors_pem`` decides which of their signers the assertions call trusted.
    """
    if not inputs:
        return Ingredients()
    scratch = jumbf.manifests(_scratch_store(inputs, trust_anchors_pem))
    *brought, active = scratch
    boxes = [box for box in active.children() if box.kind == jumbf.ASSERTIONS]
    assertions = tuple(b for store in boxes for b in store.children() if b.label.startswith(_LABEL))
    if [_relationship(b) for b in assertions] != [str(i.relationship) for i in inputs]:
        raise ProvenanceError("the library did not record the inputs one for one")
    return Ingredients(assertions, tuple(brought))


def _relationship(assertion: jumbf.Superbox) -> str:
    value = assertion.cbor()
    return str(value.get("relationship")) if isinstance(value, dict) else ""


def _scratch_store(inputs: tuple[InputFile, ...], anchors: str) -> bytes:
    pki = issue_pki("scratch", dt.datetime.now(dt.UTC))
    info = c2pa.C2paSignerInfo(b"es256", pki.chain, pki.signing_key, None)
    with (
        c2pa.Signer.from_info(info) as signer,
        c2pa.Builder(json.dumps(_SCRATCH), make_context(anchors)) as builder,
    ):
        for item in inputs:
            try:
                with item.path.open("rb") as stream:
                    builder.add_ingredient(json.dumps(item.definition()), guess_format(item.path), stream)
            except (OSError, c2pa.C2paError) as error:
                raise ProvenanceError(
                    f"cannot record the input {item.path}: {error}",
                    remedy="Give an intact image or video file; if its credential is damaged, a copy without it.",
                ) from error
        builder.set_no_embed()
        try:
            return bytes(builder.sign(signer, "application/octet-stream", io.BytesIO(b"scratch"), io.BytesIO()))
        except c2pa.C2paError as error:
            raise ProvenanceError(f"cannot record the inputs: {error}") from error
