"""The manifest as bytes: assertions, claim and signature, from the typed model."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import cbor2

from safegen.errors import ProvenanceError
from safegen.provenance.manifest import Manifest
from safegen.provenance.native import cose, jumbf
from safegen.provenance.native.cose import ClaimSigner, Evidence
from safegen.provenance.native.jumbf import Superbox

ALG: Final = "sha256"
_SALT_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Ingredients:
    """Assertions about input files, in the order of ``Manifest.ingredients``, and the manifests they brought."""

    assertions: tuple[Superbox, ...] = ()
    manifests: tuple[Superbox, ...] = ()


@dataclass(frozen=True, slots=True)
class HardBinding:
    """The assertion that ties the manifest to the file: its label and its data, the hash included."""

    label: str
    data: Mapping[str, Any]


class Draft:
    """A manifest of which only the hard binding is missing: its size can be asked before the file is hashed.

    An update manifest has none; its ``binding`` is None.
    """

    def __init__(self, manifest: Manifest, signer: ClaimSigner, ingredients: Ingredients, evidence: Evidence) -> None:
        self.urn = f"urn:c2pa:{uuid.uuid4()}"
        self._signer, self._evidence, self._ingredients, self._manifest = signer, evidence, ingredients, manifest
        self._protected = cose.protected_header(signer)
        self._instance = f"xmp:iid:{uuid.uuid4()}"
        self._salt = secrets.token_bytes(_SALT_BYTES)
        self._created, self._gathered = _assertions(manifest, ingredients)

    def size(self, binding: HardBinding | None) -> int:
        """Return the manifest store's length in bytes for a binding whose hash may still be any 32 bytes."""
        claim, boxes = self._claim(binding)
        return len(self._store(boxes, claim, self._signature_room()))

    def finish(self, binding: HardBinding | None, size: int) -> bytes:
        """Sign, and return the manifest store with exactly ``size`` bytes."""
        claim, boxes = self._claim(binding)
        signature = cose.raw_signature(self._signer, self._protected, claim)
        header = cose.unprotected_header(self._evidence, self._protected, signature)
        room = len(self._signature_room()) + size - self.size(binding)
        return self._store(boxes, claim, cose.sign1(self._protected, header, signature, room))

    def _signature_room(self) -> bytes:
        header = cose.unprotected_header(self._evidence, self._protected, None)
        return cose.sign1(self._protected, header, bytes(self._signer.signature_size))

    def _claim(self, binding: HardBinding | None) -> tuple[bytes, list[bytes]]:
        hard = (
            [] if binding is None else [jumbf.cbor_box(jumbf.CBOR, binding.label, dict(binding.data), salt=self._salt)]
        )
        claim: dict[str, Any] = {
            "instanceID": self._instance,
            "claim_generator_info": self._manifest.generator(),
            "signature": f"self#jumbf=/c2pa/{self.urn}/c2pa.signature",
            "created_assertions": [hashed_uri(b) for b in [*self._created, *hard]],
            "gathered_assertions": [hashed_uri(b) for b in self._gathered],
            "dc:title": self._manifest.title,
            "alg": ALG,
        }
        if not self._gathered:
            del claim["gathered_assertions"]
        return cbor2.dumps(claim), [b.raw for b in [*self._created, *self._gathered, *hard]]

    def _store(self, assertions: Sequence[bytes], claim: bytes, signature: bytes) -> bytes:
        manifest = jumbf.superbox(
            jumbf.UPDATE if self._manifest.update else jumbf.MANIFEST,
            self.urn,
            jumbf.superbox(jumbf.ASSERTIONS, "c2pa.assertions", *assertions),
            jumbf.superbox(jumbf.CLAIM, "c2pa.claim.v2", jumbf.box(jumbf.CBOR, claim)),
            jumbf.superbox(jumbf.SIGNATURE, "c2pa.signature", jumbf.box(jumbf.CBOR, signature)),
        )
        return jumbf.superbox(jumbf.STORE, "c2pa", *(m.raw for m in self._ingredients.manifests), manifest)


def hashed_uri(target: Superbox) -> dict[str, Any]:
    """Return the reference to an assertion of the same manifest."""
    return {
        "url": f"self#jumbf=c2pa.assertions/{target.label}",
        "hash": hashlib.sha256(target.hashed).digest(),
    }


def _assertions(manifest: Manifest, ingredients: Ingredients) -> tuple[list[Superbox], list[Superbox]]:
    """Return created and gathered assertions; ingredients come first among the gathered ones."""
    if len(ingredients.assertions) != len(manifest.ingredients):
        raise ProvenanceError(f"{len(manifest.ingredients)} inputs, but assertions of {len(ingredients.assertions)}")
    named = zip(manifest.ingredients, ingredients.assertions, strict=True)
    references = {ingredient.instance_id: hashed_uri(made) for ingredient, made in named}
    created: list[Superbox] = []
    gathered = list(ingredients.assertions)
    seen: Counter[str] = Counter()
    for item in manifest.assertions:
        salt = secrets.token_bytes(_SALT_BYTES)
        label = f"{item.label}__{seen[item.label]}" if seen[item.label] else item.label
        seen[item.label] += 1
        made = jumbf.cbor_box(jumbf.CBOR, label, item.to_cbor(references), salt=salt)
        (created if item.created else gathered).append(made)
    return created, gathered
