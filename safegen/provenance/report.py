"""What the C2PA library reports of a file, as a Credential. Every value in it may be of any type: the file chose it."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from safegen.provenance.credential import Credential, CredentialState, Ingredient, Origin
from safegen.provenance.manifest import GENERATION_LABEL, Relationship, SoftBinding
from safegen.provenance.source_types import says_ai, says_camera_or_human
from safegen.types import ContentId, parse_content_id

MAX_TEXT: Final = 500
UNTRUSTED: Final = "signingCredential.untrusted"

_STATES: Final = {
    "Invalid": CredentialState.INVALID,
    "Valid": CredentialState.VALID,
    "Trusted": CredentialState.TRUSTED,
}
_HARD_BINDING: Final = re.compile(r"assertion\.(data|bmff|boxes|collection|multiAsset)Hash\.")
_OWN_ALGS: Final = "org.safegen."
_HEX: Final = re.compile(r"([0-9a-f]{2})*")
_NOT_ABOUT_SIGNATURE: Final = frozenset({UNTRUSTED, "signingCredential.expired"})
_IDENTITY: Final = "cawg."


def to_credential(store: Any, origin: Origin) -> Credential:
    """Turn the library's JSON report into a Credential."""
    manifests = _mapping(_mapping(store).get("manifests"))
    active_id = clean(_mapping(store).get("active_manifest"))
    manifest = _mapping(manifests.get(active_id))
    results = _mapping(_mapping(store).get("validation_results"))
    active = _mapping(results.get("activeManifest"))
    success = set(_codes(active.get("success")))
    complaints = [_mapping(item) for item in _items(active.get("failure"))]
    later = [
        _mapping(item)
        for delta in _items(results.get("ingredientDeltas"))
        for item in _items(_mapping(_mapping(delta).get("validationDeltas")).get("failure"))
    ]
    identity = [code for code in _codes([*complaints, *later]) if code.startswith(_IDENTITY)]
    failure = [code for code in _codes(complaints) if not code.startswith(_IDENTITY)]
    deltas = [code for code in _codes(later) if not code.startswith(_IDENTITY)]
    mismatch = any(_HARD_BINDING.match(code) for code in failure)
    match = any(_HARD_BINDING.match(code) and code.endswith(".match") for code in success)
    about_signature = [code for code in failure if code not in _NOT_ABOUT_SIGNATURE and not _HARD_BINDING.match(code)]
    state = _STATES.get(clean(_mapping(store).get("validation_state")), CredentialState.UNREADABLE)
    if identity and state is not CredentialState.UNREADABLE and not set(failure + deltas) - {UNTRUSTED}:
        # Whose identity could not be confirmed says nothing about the bytes (CAWG identity assertion 1.1, section 8).
        state = CredentialState.TRUSTED if "signingCredential.trusted" in success else CredentialState.VALID
    signature = _mapping(manifest.get("signature_info"))
    generation = _generation(manifest)
    return Credential(
        state=state,
        origin=origin,
        manifest_id=active_id or None,
        content_id=_content_id(manifest),
        run_id=clean(generation.get("runId")) or None,
        soft_bindings=tuple(_soft_bindings(manifest)),
        claim_generator=_claim_generator(manifest),
        signer=clean(signature.get("common_name")),
        organisation=clean(signature.get("issuer")),
        leaf_serial=_hex(signature.get("cert_serial_number")),
        timestamp=clean(signature.get("time")) or None,
        claimed_time=next((w for a in _actions(manifest) if (w := clean(a.get("when")))), None),
        signature_valid="claimSignature.validated" in success and not about_signature,
        signer_trusted="signingCredential.trusted" in success,
        timestamp_trusted="timeStamp.trusted" in success,
        content_matches=False if mismatch else (True if match else None),
        failure_codes=tuple(dict.fromkeys([*failure, *deltas])),
        ingredients=tuple(_ingredients(manifest, manifests)),
        ai_generated=_ai_generated(active_id, manifests),
        denies_ai=any(says_camera_or_human(clean(a.get("digitalSourceType"))) for a in _actions(manifest)),
        ingredient_failures=tuple(dict.fromkeys(code for code in deltas if code not in failure)),
        identity_problems=tuple(dict.fromkeys(identity)),
        explanations={
            code: words
            for item in (*complaints, *later)
            if (code := clean(item.get("code"))) and (words := clean(item.get("explanation")))
        },
    )


def _ingredients(manifest: Mapping[str, Any], manifests: Mapping[str, Any]) -> Iterator[Ingredient]:
    for item in map(_mapping, _items(manifest.get("ingredients"))):
        manifest_id, results = clean(item.get("active_manifest")), _mapping(item.get("validation_results"))
        yield Ingredient(
            title=clean(item.get("title")),
            relationship=clean(item.get("relationship")),
            manifest_id=manifest_id or None,
            content_id=_content_id(_mapping(manifests.get(manifest_id))),
            failure_codes=tuple(_codes(_mapping(results.get("activeManifest")).get("failure"))),
        )


def _ai_generated(active_id: str, manifests: Mapping[str, Any]) -> bool:
    """Whether the manifest, or one that its content descends from, names a generative source. Inputs do not count."""
    seen, waiting = set[str](), [active_id]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        manifest = _mapping(manifests.get(current))
        if any(says_ai(clean(action.get("digitalSourceType"))) for action in _actions(manifest)):
            return True
        waiting += [
            clean(item.get("active_manifest"))
            for item in map(_mapping, _items(manifest.get("ingredients")))
            if item.get("relationship") in (Relationship.PARENT, Relationship.COMPONENT)
        ]
    return False


def _assertions(manifest: Mapping[str, Any], label: str) -> Iterator[Mapping[str, Any]]:
    """Yield the data of assertions called ``label``, its later versions (``.v2``) and its copies (``__1``)."""
    wanted = re.compile(re.escape(label) + r"(\.v\d+)?(__\d+)?")
    for item in map(_mapping, _items(manifest.get("assertions"))):
        if wanted.fullmatch(clean(item.get("label"))):
            yield _mapping(item.get("data"))


def _actions(manifest: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for data in _assertions(manifest, "c2pa.actions"):
        yield from map(_mapping, _items(data.get("actions")))


def _generation(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    return next(_assertions(manifest, GENERATION_LABEL), {})


def _content_id(manifest: Mapping[str, Any]) -> ContentId | None:
    try:
        return parse_content_id(clean(_generation(manifest).get("contentId")))
    except ValueError:
        return None


def _soft_bindings(manifest: Mapping[str, Any]) -> Iterator[SoftBinding]:
    for data in _assertions(manifest, "c2pa.soft-binding"):
        for block in map(_mapping, _items(data.get("blocks"))):
            alg = clean(data.get("alg"))
            yield SoftBinding(alg, _binding_value(alg, clean(block.get("value"))), clean(data.get("name")))


def _binding_value(alg: str, value: str) -> str:
    """Return the hex of one of our marks. It stands in the manifest as hex or, as C2PA wants, as a byte string.

    The library shows a byte string as base64, and cannot say which of the two it read.
    """
    if not alg.startswith(_OWN_ALGS) or _HEX.fullmatch(value):
        return value
    try:
        return base64.b64decode(value, validate=True).hex()
    except ValueError:
        return value


def _claim_generator(manifest: Mapping[str, Any]) -> str:
    info = next(map(_mapping, _items(manifest.get("claim_generator_info"))), {})
    named = " ".join(filter(None, (clean(info.get("name")), clean(info.get("version")))))
    return named or clean(manifest.get("claim_generator"))


def _codes(value: object) -> list[str]:
    return [code for item in _items(value) if (code := clean(_mapping(item).get("code")))]


def _hex(value: object) -> str:
    text = clean(value)
    return f"{int(text):x}" if text.isascii() and text.isdigit() else ""


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def clean(value: object) -> str:
    """Return a text from a file, cut short and without control characters: it ends up on terminals. "" if no text."""
    if not isinstance(value, str):
        return ""
    return "".join(c if c.isprintable() else "\ufffd" for c in value[:MAX_TEXT])
