"""Reading Content Credentials from files that nobody vouches for. Never any network."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from safegen.errors import UnreadableMediaError
from safegen.provenance.credential import Credential, CredentialState, Origin
from safegen.provenance.examining import LIMIT, Reading, Report
from safegen.provenance.remains import has_no_trace, hidden_store
from safegen.provenance.report import UNTRUSTED, clean, to_credential
from safegen.provenance.sandbox import ReadLimits

if TYPE_CHECKING:
    from safegen.provenance.trust import Trust

__all__ = ["UNTRUSTED", "Sidecar", "read_credential", "read_manifest_store", "sidecar_path", "sidecars"]

MAX_SIDECAR_BYTES: Final = 64 << 20
MAX_FRAGMENTS: Final = 10_000

_PRERELEASE: Final = "prerelease content detected"  # the library's words
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
    """Read and validate the active manifest of ``path``: embedded, else in a sidecar beside it.

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
            if origin is Origin.EMBEDDED:
                found = _seen_or_gone(found, file)
            if found.state is CredentialState.ABSENT and origin is Origin.EMBEDDED:
                for beside in sidecars(path):
                    fitted = _fitted(_understood(reading.report(anchors, beside.store), Origin.SIDECAR), beside)
                    if fitted.state is not CredentialState.ABSENT:
                        found, manifest_bytes = fitted, beside.store
                        break
                    found = replace(found, problem=fitted.problem or found.problem)
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


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A manifest store that lies beside a file, and its own file's name."""

    name: str
    store: bytes


def sidecar_path(path: Path) -> Path:
    """Where the manifest goes that ``path`` does not carry itself: ``<name>.c2pa``, the ending of ``path`` included."""
    return path.with_name(f"{path.name}.c2pa")


def sidecars(path: Path) -> Iterator[Sidecar]:
    """Yield what lies beside ``path``: ``<name>.c2pa`` first, then ``<name without ending>.c2pa``.

    Other tools write the second, which files of one name and several endings share: it may belong to another one.
    """
    for beside in dict.fromkeys((sidecar_path(path), path.with_suffix(".c2pa"))):
        if beside != path and beside.is_file() and beside.stat().st_size <= MAX_SIDECAR_BYTES:
            yield Sidecar(beside.name, beside.read_bytes())


def _seen_or_gone(found: Credential, file: BinaryIO) -> Credential:
    """Tell a store that is there and broken, which is damage, from one that is gone or never was."""
    if found.state not in (CredentialState.ABSENT, CredentialState.UNREADABLE) or found.out_of_bounds:
        return found
    if _PRERELEASE in found.problem:
        return replace(found, problem="its manifest is of a form from before C2PA 1.0, which is not read")
    if hidden_store(file):
        why = f": {found.problem}" if found.problem else ""
        return Credential(
            CredentialState.INVALID, Origin.EMBEDDED, problem=f"the file holds a manifest store, but it is damaged{why}"
        )
    if found.state is CredentialState.UNREADABLE and has_no_trace(file):
        return Credential(CredentialState.ABSENT, problem="its boxes do not fill it, and none holds a manifest")
    return found


def _fitted(found: Credential, beside: Sidecar) -> Credential:
    """A sidecar's credential where it is this file's; else none, and why: what lies beside a file never outranks it."""
    if found.state is CredentialState.ABSENT or (found.state is CredentialState.UNREADABLE and not found.out_of_bounds):
        return Credential(CredentialState.ABSENT, problem=f"{beside.name} beside it holds no manifest")
    if found.content_matches is False:
        return Credential(CredentialState.ABSENT, problem=f"{beside.name} beside it belongs to another file")
    return replace(found, sidecar=beside.name)


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
    return Credential(CredentialState.UNREADABLE, origin, problem=problem, out_of_bounds=report.error == LIMIT)
