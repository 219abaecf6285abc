"""crJSON, the JSON view of a file's manifests and how they validated (C2PA 2.4), as test harnesses ask for it.

The C2PA library writes it. What it cannot do is to keep two trust lists apart: an anchor given to it vouches for
signers and for time-stamps alike. So a file is read once more with each list alone, and what the wrong list vouched for
is put right.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO, Final

from safegen.errors import InputError, UnreadableMediaError, VerificationError
from safegen.provenance.certificates import pem_of, read_certificates
from safegen.provenance.examining import Reading
from safegen.provenance.read import sidecars
from safegen.provenance.report import clean
from safegen.provenance.sandbox import ReadLimits
from safegen.version import __version__

CONTEXT: Final = {"@vocab": "https://c2pa.org/crjson", "extras": "https://c2pa.org/crjson/extras"}

_SIGNER: Final = ("signingCredential.trusted", "signingCredential.untrusted")
_STAMP: Final = "timeStamp.trusted"
_NOTHING: Final = frozenset({"ManifestNotFound", "NotSupported"})
_GROUPS: Final = ("success", "informational", "failure")


def read_crjson(path: Path, *, signers_pem: str = "", authorities_pem: str = "") -> dict[str, Any]:
    """Validate ``path`` against two trust lists (PEM: who signs, whose time-stamps count) and return its crJSON.

    The manifest is the embedded one, else that of the sidecar ``<name>.c2pa``. No manifest, or a format that cannot
    carry any, gives a document without manifests. The time of validation is now, as the document says; nothing is ever
    fetched. Raises UnreadableMediaError if there is no file to read, VerificationError if what it carries cannot be
    read as manifests at all.
    """
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise UnreadableMediaError(f"{path} is empty", remedy="Give a media file.")
            read = _Reader(file, path)
            both = read(signers_pem + authorities_pem)
            if signers_pem or authorities_pem:
                _keep_apart(both, read(signers_pem), read(authorities_pem))
            return both
    except OSError as error:
        raise UnreadableMediaError(f"cannot read {path}: {error}", remedy="Give a readable media file.") from error


def read_anchors(path: Path) -> str:
    """Return the certificates in a PEM or DER file as PEM; InputError if there are none or one is damaged."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error}", remedy="Give a file of certificates.") from error
    return "".join(map(pem_of, read_certificates(content, str(path))))


class _Reader:
    """One file, read with different anchors. The bounds on time and memory are those of ``read_credential``."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._path = path
        self._reading = Reading(file, path, (), ReadLimits.from_environment())

    def __call__(self, anchors_pem: str) -> dict[str, Any]:
        found = self._document(None, anchors_pem)
        if not found["manifests"] and (beside := next(sidecars(self._path), None)) is not None:
            found = self._document(beside.store, anchors_pem)
        return found

    def _document(self, manifest: bytes | None, anchors_pem: str) -> dict[str, Any]:
        report = self._reading.report(anchors_pem, manifest, crjson=True)
        if report.error in _NOTHING:
            generator = {"name": "safegen", "version": __version__}
            return {"@context": dict(CONTEXT), "manifests": [], "jsonGenerator": generator}
        if report.error:
            raise VerificationError(
                f"the manifests of {self._path} cannot be read: {clean(report.problem)}",
                remedy="They are damaged beyond what crJSON can say, or lie on a network, which is never asked.",
            )
        found = report.store
        if not isinstance(found, dict) or not isinstance(found.get("manifests"), list):
            raise VerificationError(f"the C2PA library's crJSON of {self._path} has no manifests")
        return found


def _keep_apart(both: dict[str, Any], signers: dict[str, Any], authorities: dict[str, Any]) -> None:
    """Correct ``both`` where a manifest's signer, or its time-stamp, is vouched for by the wrong list alone."""
    for at, manifest in enumerate(both["manifests"]):
        # With the signers' list alone a stamped, expired certificate may look untrusted: so the question is not
        # whether that list vouches for the signer, but whether the other one does in its place.
        by_signers, by_authorities = _codes(_results(signers, at)), _codes(_results(authorities, at))
        wrong_signer = _SIGNER[0] in by_authorities and _SIGNER[0] not in by_signers
        wrong_stamp = _STAMP in by_signers and _STAMP not in by_authorities
        if wrong_stamp:
            # The time counts for whether a certificate was in force: only a reading without that list says it right.
            manifest["validationResults"] = _results(authorities, at)
        if wrong_stamp or wrong_signer:
            _put_signer(_results(both, at), trusted=_SIGNER[0] in by_signers)


def _results(document: dict[str, Any], at: int) -> dict[str, Any]:
    """The validation results of one manifest. VerificationError if two readings of a file differ in more than trust."""
    try:
        found = document["manifests"][at]["validationResults"]
        if not all(isinstance(entry["code"], str) for group in _GROUPS for entry in found[group]):
            raise TypeError("a code that is no text")
    except (LookupError, TypeError) as error:
        raise VerificationError(
            "the C2PA library's crJSON is not as specified", remedy="Verify the file alone."
        ) from error
    results: dict[str, Any] = found
    return results


def _codes(results: dict[str, Any]) -> set[str]:
    return {entry["code"] for entry in results["success"]}


def _put_signer(results: dict[str, Any], *, trusted: bool) -> None:
    """Replace what ``results`` say of the signer."""
    said = [entry for group in _GROUPS for entry in results[group] if entry["code"] in _SIGNER]
    for group in _GROUPS:
        results[group][:] = [entry for entry in results[group] if entry["code"] not in _SIGNER]
    where = {"url": said[0]["url"]} if said and "url" in said[0] else {}
    code, group = (_SIGNER[0], "success") if trusted else (_SIGNER[1], "failure")
    results[group].append({"code": code, **where, "explanation": f"signing certificate {code.rsplit('.')[-1]}"})
