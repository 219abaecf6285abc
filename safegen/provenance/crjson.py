"""crJSON, the JSON view of a file's manifests and how they validated (C2PA 2.4), as test harnesses ask for it.

The C2PA library writes it. What it cannot do is to keep two trust lists apart: an anchor given to it vouches for
signers and for time-stamps alike. So a file is read once more with each list alone, and what the wrong list vouched for
is put right.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import c2pa
from cryptography.hazmat.primitives.serialization import Encoding

from safegen.errors import InputError, UnreadableMediaError, VerificationError
from safegen.provenance.certificates import read_certificates
from safegen.provenance.engine import guess_format, make_context
from safegen.provenance.read import find_sidecar
from safegen.version import __version__

CONTEXT: Final = {"@vocab": "https://c2pa.org/crjson", "extras": "https://c2pa.org/crjson/extras"}

_SIGNER: Final = ("signingCredential.trusted", "signingCredential.untrusted")
_STAMP: Final = "timeStamp.trusted"
_GROUPS: Final = ("success", "informational", "failure")


def read_crjson(path: Path, *, signers_pem: str = "", authorities_pem: str = "") -> dict[str, Any]:
    """Validate ``path`` against two trust lists (PEM: who signs, whose time-stamps count) and return its crJSON.

    The manifest is the embedded one, else that of the sidecar ``<name>.c2pa``. No manifest, or a format that cannot
    carry any, gives a document without manifests. The time of validation is now, as the document says; nothing is ever
    fetched. Raises UnreadableMediaError if there is no file to read, VerificationError if what it carries cannot be
    read as manifests at all.
    """
    both = _read(path, signers_pem + authorities_pem)
    if signers_pem and authorities_pem:
        _keep_apart(both, _read(path, signers_pem), _read(path, authorities_pem))
    return both


def read_anchors(path: Path) -> str:
    """Return the certificates in a PEM or DER file as PEM; InputError if there are none or one is damaged."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error}", remedy="Give a file of certificates.") from error
    return "".join(c.public_bytes(Encoding.PEM).decode() for c in read_certificates(content, str(path)))


def _read(path: Path, anchors_pem: str) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise UnreadableMediaError(f"{path} is empty", remedy="Give a media file.")
            found = _document(file, path, None, anchors_pem)
            if not found["manifests"] and (beside := find_sidecar(path)) is not None:
                found = _document(file, path, beside, anchors_pem)
            return found
    except OSError as error:
        raise UnreadableMediaError(f"cannot read {path}: {error}", remedy="Give a readable media file.") from error


def _document(file: Any, path: Path, manifest: bytes | None, anchors_pem: str) -> dict[str, Any]:
    file.seek(0)
    try:
        with c2pa.Reader(guess_format(path), file, manifest, make_context(anchors_pem)) as reader:
            found = json.loads(reader.crjson())
    except (c2pa.C2paError.ManifestNotFound, c2pa.C2paError.NotSupported):
        generator = {"name": "safegen", "version": __version__}
        return {"@context": dict(CONTEXT), "manifests": [], "jsonGenerator": generator}
    except (c2pa.C2paError, ValueError, RecursionError) as error:
        why = "".join(c if c.isprintable() else "\ufffd" for c in str(error)[:500])
        raise VerificationError(
            f"the manifests of {path} cannot be read: {why}",
            remedy="They are damaged beyond what crJSON can say, or lie on a network, which is never asked.",
        ) from error
    if not isinstance(found, dict) or not isinstance(found.get("manifests"), list):
        raise VerificationError(f"the C2PA library's crJSON of {path} has no manifests")
    return found


def _keep_apart(both: dict[str, Any], signers: dict[str, Any], authorities: dict[str, Any]) -> None:
    """Correct ``both`` where a manifest's signer, or its time-stamp, is vouched for by the wrong list alone."""
    for at, manifest in enumerate(both["manifests"]):
        # With the signers' list alone a stamped, expired certificate may look untrusted: so the question is not
        # whether that list vouches for the signer, but whether the other one does in its place.
        by_signers, by_authorities = _entries(signers, at), _entries(authorities, at)
        wrong_signer = _SIGNER[0] in by_authorities and _SIGNER[0] not in by_signers
        wrong_stamp = _STAMP in by_signers and _STAMP not in by_authorities
        if wrong_stamp:
            # The time counts for whether a certificate was in force: only a reading without that list says it right.
            manifest["validationResults"] = authorities["manifests"][at]["validationResults"]
        if wrong_stamp or wrong_signer:
            _put_signer(manifest["validationResults"], trusted=_SIGNER[0] in by_signers)


def _entries(document: dict[str, Any], at: int) -> set[str]:
    """The codes of success of one manifest."""
    results = document["manifests"][at].get("validationResults") or {}
    return {entry["code"] for entry in results.get("success") or ()}


def _put_signer(results: dict[str, Any], *, trusted: bool) -> None:
    """Replace what ``results`` say of the signer."""
    said = [entry for group in _GROUPS for entry in results[group] if entry["code"] in _SIGNER]
    for group in _GROUPS:
        results[group] = [entry for entry in results[group] if entry["code"] not in _SIGNER]
    where = {"url": said[0]["url"]} if said and "url" in said[0] else {}
    code, group = (_SIGNER[0], "success") if trusted else (_SIGNER[1], "failure")
    results[group].append({"code": code, **where, "explanation": f"signing certificate {code.rsplit('.')[-1]}"})
