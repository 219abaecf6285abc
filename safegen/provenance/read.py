"""Reading Content Credentials from files that nobody vouches for. Never any network."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import c2pa

from safegen.errors import UnreadableMediaError
from safegen.provenance.credential import Credential, CredentialState, Ingredient, Origin
from safegen.provenance.engine import guess_format, make_context
from safegen.provenance.manifest import AI_SOURCE_TYPES, GENERATION_LABEL, Relationship, SoftBinding
from safegen.types import ContentId, parse_content_id

if TYPE_CHECKING:
    from safegen.provenance.trust import Trust

MAX_SIDECAR_BYTES: Final = 64 << 20
MAX_TEXT: Final = 500

_STATES: Final = {
    "Invalid": CredentialState.INVALID,
    "Valid": CredentialState.VALID,
    "Trusted": CredentialState.TRUSTED,
}
_HARD_BINDING: Final = re.compile(r"assertion\.(data|bmff|boxes|collection|multiAsset)Hash\.")
_REMOTE: Final = re.compile(r"must fetch remote manifests from url (\S+)")
_OWN_ALGS: Final = "org.safegen."
_HEX: Final = re.compile(r"([0-9a-f]{2})*")
UNTRUSTED: Final = "signingCredential.untrusted"
_NOT_ABOUT_SIGNATURE: Final = frozenset({UNTRUSTED, "signingCredential.expired"})


def read_credential(
    path: Path, *, trust_anchors_pem: str = "", manifest_bytes: bytes | None = None, trust: Trust | None = None
) -> Credential:
    """Read and validate the active manifest of ``path``: embedded, else in the sidecar ``<name>.c2pa`` beside it.

    ``trust_anchors_pem`` holds the roots whose signatures count as trusted; none by default. ``manifest_bytes``, if
    given, is validated against the file instead of what the file carries. ``trust`` (in place of the anchors) tells
    this home's own signers from those of trust lists and from unknown ones, and says whose time-stamps count. A file
    without a manifest, or with a broken one, is a state and no error; UnreadableMediaError means that there is no
    readable, non-empty file at all.
    """
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise UnreadableMediaError(f"{path} is empty", remedy="Give a media file.")
            # Time-stamping CAs stand among the anchors of this first reading; _judge sees to it that they vouch for
            # nothing but time.
            anchors = trust_anchors_pem if trust is None else trust.own_anchors_pem + trust.anchors("tsa")
            origin = Origin.EMBEDDED if manifest_bytes is None else Origin.GIVEN
            found = _read(file, path, anchors, manifest_bytes, origin)
            if found.state is CredentialState.ABSENT and origin is Origin.EMBEDDED:
                manifest_bytes = find_sidecar(path)
                if manifest_bytes is not None:
                    found = _read(file, path, anchors, manifest_bytes, Origin.SIDECAR)
            if trust is None:
                return found
            return _judge(found, trust, lambda pem: _read(file, path, pem, manifest_bytes, found.origin))
    except OSError as error:
        raise UnreadableMediaError(f"cannot read {path}: {error}", remedy="Give a readable media file.") from error


def _judge(found: Credential, trust: Trust, read_again: Callable[[str], Credential]) -> Credential:
    """Say whose credential this is: ours, a listed signer's or a stranger's."""
    if found.signer_trusted and found.leaf_serial not in trust.own_serials:
        codes = (*found.failure_codes, UNTRUSTED)
        state = CredentialState.VALID if found.state is CredentialState.TRUSTED else found.state
        found = replace(found, state=state, signer_trusted=False, failure_codes=codes)
    if found.signature_valid and not found.signer_trusted:
        for entry in trust.lists:
            if entry.kind == "signer" and read_again(entry.anchors_pem).signer_trusted:
                return replace(found, listed_by=entry.title)
    return found


def read_manifest_store(
    manifest_bytes: bytes, media_path: Path, *, trust_anchors_pem: str = "", trust: Trust | None = None
) -> Credential:
    """Validate a kept manifest store against a file whose mark named it.

    The file was changed since, so ``content_matches`` is normally False and ``state`` invalid: judge the manifest by
    ``signature_valid`` and ``signer_trusted``. Raises UnreadableMediaError as ``read_credential`` does.
    """
    return read_credential(media_path, trust_anchors_pem=trust_anchors_pem, manifest_bytes=manifest_bytes, trust=trust)


def find_sidecar(path: Path) -> bytes | None:
    """Return the manifest store that lies beside ``path``, if one does and is of bearable size."""
    beside = path.with_suffix(".c2pa")
    if beside == path or not beside.is_file() or beside.stat().st_size > MAX_SIDECAR_BYTES:
        return None
    return beside.read_bytes()


def _read(file: BinaryIO, path: Path, anchors: str, manifest: bytes | None, origin: Origin) -> Credential:
    file.seek(0)
    try:
        with c2pa.Reader(guess_format(path), file, manifest, make_context(anchors)) as reader:
            text = reader.json()
        return _credential(json.loads(text), origin)
    except c2pa.C2paError as error:
        return _failure(error, origin)
    except (ValueError, RecursionError) as error:  # the library's JSON, nested or odd beyond what Python reads
        return Credential(CredentialState.UNREADABLE, origin, problem=_text(str(error)))


def _failure(error: Exception, origin: Origin) -> Credential:
    problem = _text(str(error))
    if isinstance(error, c2pa.C2paError.ManifestNotFound):
        return Credential(CredentialState.ABSENT)
    if isinstance(error, c2pa.C2paError.NotSupported) and origin is Origin.EMBEDDED:
        return Credential(CredentialState.ABSENT, problem="a file of this format cannot carry a manifest")
    remote = _REMOTE.search(problem)
    if remote:
        return Credential(
            CredentialState.ABSENT,
            remote_url=remote[1],
            problem="the file names a manifest on the network; safegen does not fetch it",
        )
    return Credential(CredentialState.UNREADABLE, origin, problem=problem)


def _credential(store: Any, origin: Origin) -> Credential:
    """Turn the library's report into a Credential. Every value in it may be of any type: the file chose it."""
    manifests = _mapping(_mapping(store).get("manifests"))
    active_id = _text(_mapping(store).get("active_manifest"))
    manifest = _mapping(manifests.get(active_id))
    results = _mapping(_mapping(store).get("validation_results"))
    active = _mapping(results.get("activeManifest"))
    success, failure = set(_codes(active.get("success"))), _codes(active.get("failure"))
    deltas = [
        code
        for delta in _items(results.get("ingredientDeltas"))
        for code in _codes(_mapping(_mapping(delta).get("validationDeltas")).get("failure"))
    ]
    mismatch = any(_HARD_BINDING.match(code) for code in failure)
    match = any(_HARD_BINDING.match(code) and code.endswith(".match") for code in success)
    about_signature = [
        code
        for code in failure
        if code not in _NOT_ABOUT_SIGNATURE and not _HARD_BINDING.match(code) and not code.startswith("cawg.")
    ]
    signature = _mapping(manifest.get("signature_info"))
    generation = _generation(manifest)
    return Credential(
        state=_STATES.get(_text(_mapping(store).get("validation_state")), CredentialState.UNREADABLE),
        origin=origin,
        manifest_id=active_id or None,
        content_id=_content_id(manifest),
        run_id=_text(generation.get("runId")) or None,
        soft_bindings=tuple(_soft_bindings(manifest)),
        claim_generator=_claim_generator(manifest),
        signer=_text(signature.get("common_name")),
        organisation=_text(signature.get("issuer")),
        leaf_serial=_hex(signature.get("cert_serial_number")),
        timestamp=_text(signature.get("time")) or None,
        claimed_time=next((w for a in _actions(manifest) if (w := _text(a.get("when")))), None),
        signature_valid="claimSignature.validated" in success and not about_signature,
        signer_trusted="signingCredential.trusted" in success,
        timestamp_trusted="timeStamp.trusted" in success,
        content_matches=False if mismatch else (True if match else None),
        failure_codes=tuple(dict.fromkeys([*failure, *deltas])),
        ingredients=tuple(_ingredients(manifest, manifests)),
        ai_generated=_ai_generated(active_id, manifests),
    )


def _ingredients(manifest: Mapping[str, Any], manifests: Mapping[str, Any]) -> Iterator[Ingredient]:
    for item in map(_mapping, _items(manifest.get("ingredients"))):
        manifest_id, results = _text(item.get("active_manifest")), _mapping(item.get("validation_results"))
        yield Ingredient(
            title=_text(item.get("title")),
            relationship=_text(item.get("relationship")),
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
        if any(_text(action.get("digitalSourceType")) in AI_SOURCE_TYPES for action in _actions(manifest)):
            return True
        waiting += [
            _text(item.get("active_manifest"))
            for item in map(_mapping, _items(manifest.get("ingredients")))
            if item.get("relationship") in (Relationship.PARENT, Relationship.COMPONENT)
        ]
    return False


def _assertions(manifest: Mapping[str, Any], label: str) -> Iterator[Mapping[str, Any]]:
    """Yield the data of assertions called ``label``, its later versions (``.v2``) and its copies (``__1``)."""
    wanted = re.compile(re.escape(label) + r"(\.v\d+)?(__\d+)?")
    for item in map(_mapping, _items(manifest.get("assertions"))):
        if wanted.fullmatch(_text(item.get("label"))):
            yield _mapping(item.get("data"))


def _actions(manifest: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for data in _assertions(manifest, "c2pa.actions"):
        yield from map(_mapping, _items(data.get("actions")))


def _generation(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    return next(_assertions(manifest, GENERATION_LABEL), {})


def _content_id(manifest: Mapping[str, Any]) -> ContentId | None:
    try:
        return parse_content_id(_text(_generation(manifest).get("contentId")))
    except ValueError:
        return None


def _soft_bindings(manifest: Mapping[str, Any]) -> Iterator[SoftBinding]:
    for data in _assertions(manifest, "c2pa.soft-binding"):
        for block in map(_mapping, _items(data.get("blocks"))):
            alg = _text(data.get("alg"))
            yield SoftBinding(alg, _binding_value(alg, _text(block.get("value"))))


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
    named = " ".join(filter(None, (_text(info.get("name")), _text(info.get("version")))))
    return named or _text(manifest.get("claim_generator"))


def _codes(value: object) -> list[str]:
    return [code for item in _items(value) if (code := _text(_mapping(item).get("code")))]


def _hex(value: object) -> str:
    text = _text(value)
    return f"{int(text):x}" if text.isascii() and text.isdigit() else ""


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    """Return a text from a file, cut short and without control characters: it ends up on terminals. "" if no text."""
    if not isinstance(value, str):
        return ""
    return "".join(c if c.isprintable() else "\ufffd" for c in value[:MAX_TEXT])
