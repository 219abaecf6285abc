"""Reading Content Credentials from files that nobody vouches for. Never any network."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from safegen.errors import UnreadableMediaError
from safegen.provenance.credential import Credential, CredentialState, Origin
from safegen.provenance.examining import Reading, Report
from safegen.provenance.report import UNTRUSTED, clean, to_credential
from safegen.provenance.sandbox import ReadLimits

if TYPE_CHECKING:
    from safegen.provenance.trust import Trust

__all__ = ["UNTRUSTED", "find_sidecar", "read_credential", "read_manifest_store"]

MAX_SIDECAR_BYTES: Final = 64 << 20
MAX_FRAGMENTS: Final = 10_000

_REMOTE: Final = re.compile(r"must fetch remote manifests from url (\S+)")


def read_credential(
    path: Path,
    *,
    trust_anchors_pem: str = "",
    manifest_bytes: bytes | None = None,
    trust: Trust | None = None,
    fragments: Sequence[Path] = (),
    limits: ReadLimits | None = None,
) -> Credential:
    """Read and validate the active manifest of ``path``: embedded, else in the sidecar ``<name>.c2pa`` beside it.

    ``trust_anchors_pem`` holds the roots whose signatures count as trusted; none by default. ``manifest_bytes``, if
    given, is validated against the file instead of what the file carries. ``trust`` (in place of the anchors) tells
    this home's own signers from those of trust lists and from unknown ones, and says whose time-stamps count. A file
    without a manifest, or with a broken one, is a state and no error; UnreadableMediaError means that there is no
    readable, non-empty file at all.

    ``fragments`` are DASH or CMAF segments, and ``path`` their initialisation segment: all of them must match, and
    ``problem`` names the first that does not. ``limits`` (of ``$SAFEGEN_READ_SECONDS`` by default) bound time and
    memory: a file that would take more is unreadable, and ``problem`` says so.
    """
    if len(fragments) > MAX_FRAGMENTS:
        raise UnreadableMediaError(
            f"{len(fragments)} fragments are too many", remedy=f"Read at most {MAX_FRAGMENTS} at a time."
        )
    limits = limits or ReadLimits.from_environment()
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for whoever writes into it
            raise UnreadableMediaError(f"{path} is no file", remedy="Give a media file.")
        with path.open("rb") as file:
            if not file.read(1):
                raise UnreadableMediaError(f"{path} is empty", remedy="Give a media file.")
            reading = Reading(file, path, fragments, limits)
            # Time-stamping CAs stand among the anchors of this first reading; _judge sees to it that they vouch for
            # nothing but time.
            anchors = trust_anchors_pem if trust is None else trust.own_anchors_pem + trust.anchors("tsa")
            origin = Origin.EMBEDDED if manifest_bytes is None else Origin.GIVEN
            found = _understood(reading.report(anchors, manifest_bytes), origin)
            if found.state is CredentialState.ABSENT and origin is Origin.EMBEDDED:
                manifest_bytes = find_sidecar(path)
                if manifest_bytes is not None:
                    found = _understood(reading.report(anchors, manifest_bytes), Origin.SIDECAR)
            if trust is None:
                return found
            return _judge(found, trust, lambda pem: _understood(reading.report(pem, manifest_bytes), found.origin))
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


def _understood(report: Report, origin: Origin) -> Credential:
    problem = clean(report.problem)
    if not report.error:
        return replace(to_credential(report.store, origin), problem=problem)
    if report.error == "ManifestNotFound":
        return Credential(CredentialState.ABSENT)
    if report.error == "NotSupported" and origin is Origin.EMBEDDED:
        return Credential(CredentialState.ABSENT, problem="a file of this format cannot carry a manifest")
    remote = _REMOTE.search(problem)
    if remote:
        return Credential(
            CredentialState.ABSENT,
            remote_url=remote[1],
            problem="the file names a manifest on the network; safegen does not fetch it",
        )
    return Credential(CredentialState.UNREADABLE, origin, problem=problem)
