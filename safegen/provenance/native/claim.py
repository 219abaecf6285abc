"""The manifest as bytes: assertions, claim and signature, from the model that the library's definition comes from."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import cbor2

from safegen.errors import ProvenanceError
from safegen.provenance.manifest import ManifestSpec
from safegen.provenance.native import cose, jumbf
from safegen.provenance.native.cose import ClaimSigner, Evidence
from safegen.provenance.native.jumbf import Superbox

ALG: Final = "sha256"
_SALT_BYTES: Final = 16
_DATE: Final = 0  # CBOR tag of an RFC 3339 date, the CDDL's tdate


@dataclass(frozen=True, slots=True)
class Ingredients:
    """Assertions about input files, in the order of ``ManifestSpec.ingredients``, and the manifests they brought."""

    assertions: tuple[Superbox, ...] = ()
    manifests: tuple[Superbox, ...] = ()


@dataclass(frozen=True, slots=True)
class HardBinding:
    """The assertion that ties the manifest to the file: its label and its data, the hash included."""

    label: str
    data: Mapping[str, Any]


class Draft:
    """A manifest of which only the hard binding is missing: its size can be asked before the file is hashed."""

    def __init__(
        self,
        spec: ManifestSpec,
        signer: ClaimSigner,
        ingredients: Ingredients,
        evidence: Evidence,
    ) -> None:
        self.urn = f"urn:c2pa:{uuid.uuid4()}"
        self._signer, self._evidence, self._ingredients = signer, evidence, ingredients
        self._definition = spec.definition()
        self._protected = cose.protected_header(signer)
        self._instance = f"xmp:iid:{uuid.uuid4()}"
        self._salt = secrets.token_bytes(_SALT_BYTES)
        self._created, self._gathered = _assertions(spec, self._definition, ingredients)

    def size(self, binding: HardBinding) -> int:
        """Return the manifest store's length in bytes for a binding whose hash may still be any 32 bytes."""
        claim, boxes = self._claim(binding)
        return len(self._store(boxes, claim, self._signature_room()))

    def finish(self, binding: HardBinding, size: int) -> bytes:
        """Sign, and return the manifest store with exactly ``size`` bytes."""
        claim, boxes = self._claim(binding)
        signature = cose.raw_signature(self._signer, self._protected, claim)
        header = cose.unprotected_header(self._evidence, self._protected, signature)
        room = len(self._signature_room()) + size - self.size(binding)
        return self._store(boxes, claim, cose.sign1(self._protected, header, signature, room))

    def _signature_room(self) -> bytes:
        header = cose.unprotected_header(self._evidence, self._protected, None)
        return cose.sign1(self._protected, header, bytes(self._signer.signature_size))

    def _claim(self, binding: HardBinding) -> tuple[bytes, list[bytes]]:
        hard = jumbf.cbor_box(jumbf.CBOR, binding.label, dict(binding.data), salt=self._salt)
        created = [*self._created, hard]
        (generator,) = _items(self._definition["claim_generator_info"])
        claim: dict[str, Any] = {
            "instanceID": self._instance,
            "claim_generator_info": generator,
            "signature": f"self#jumbf=/c2pa/{self.urn}/c2pa.signature",
            "created_assertions": [hashed_uri(b) for b in created],
            "gathered_assertions": [hashed_uri(b) for b in self._gathered],
            "dc:title": self._definition["title"],
            "alg": ALG,
        }
        return cbor2.dumps(claim), [b.raw for b in [*self._created, *self._gathered, hard]]

    def _store(self, assertions: Sequence[bytes], claim: bytes, signature: bytes) -> bytes:
        manifest = jumbf.superbox(
            jumbf.MANIFEST,
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


def _assertions(
    spec: ManifestSpec, definition: Mapping[str, Any], ingredients: Ingredients
) -> tuple[list[Superbox], list[Superbox]]:
    """Return created and gathered assertions; ingredients come first among the gathered ones."""
    if len(ingredients.assertions) != len(spec.ingredients):
        raise ProvenanceError(f"{len(spec.ingredients)} inputs, but assertions of {len(ingredients.assertions)}")
    references = {i.instance_id: hashed_uri(b) for i, b in zip(spec.ingredients, ingredients.assertions, strict=True)}
    created: list[Superbox] = []
    gathered = list(ingredients.assertions)
    for item in _items(definition["assertions"]):
        data = _as_cbor(str(item["label"]), item["data"], references)
        made = jumbf.cbor_box(jumbf.CBOR, str(item["label"]), data, salt=secrets.token_bytes(_SALT_BYTES))
        (created if item.get("created") else gathered).append(made)
    return created, gathered


def _as_cbor(label: str, data: Mapping[str, Any], references: Mapping[str, Any]) -> dict[str, Any]:
    """Put in what JSON cannot say: dates, byte strings, references to ingredients."""
    if label.startswith("c2pa.actions"):
        return {**data, "actions": [_action(action, references) for action in data["actions"]]}
    if label == "c2pa.soft-binding":
        blocks = [{**block, "value": soft_binding_bytes(block["value"])} for block in data["blocks"]]
        return {**data, "blocks": blocks, "pad": b""}
    return dict(data)


def _action(action: Mapping[str, Any], references: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(action)
    if "when" in made:
        made["when"] = cbor2.CBORTag(_DATE, made["when"])
    parameters = dict(made.get("parameters", {}))
    if "ingredientIds" in parameters:
        parameters["ingredients"] = [references[i] for i in parameters.pop("ingredientIds")]
        made["parameters"] = parameters
    return made


def soft_binding_bytes(value: str) -> bytes:
    """Return a soft binding's value as the byte string that C2PA 2.4 §18.10 wants: hex decoded, other text as UTF-8."""
    try:
        return bytes.fromhex(value)
    except ValueError:
        return value.encode()


def _items(value: Any) -> list[Any]:
    return list(value)
