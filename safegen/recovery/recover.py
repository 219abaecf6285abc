"""Finding the credential that was kept for a clip, by its mark or else its looks, and giving it back to the file.

    from safegen.recovery.recover import recover

    done = recover(Path("stripped.mp4"), Path("restored.mp4"))

A platform that strips metadata strips the C2PA manifest and leaves the mark. The mark names the clip, and this home has
kept the clip's manifest and its pictures, whose hashes the ledger holds. Signed is only what mark, ledger and pictures
agree on over the whole file: an honest claim about a new asset (``safegen.provenance.restoring``), never the claim that
these bytes are the ones that were signed first. It is recorded in the ledger, and ``safegen verify`` answers
``recovered`` for it. What is less than that (the pictures could not be compared, or only part of the file is the
clip's, or it merely looks like one, ``safegen.likeness``) gets the kept manifest beside it, for people to look at, and
no signature. See docs/recovery.md.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safegen.errors import InputError, LedgerDamagedError, LedgerError
from safegen.files import Target
from safegen.keys import KeyStore
from safegen.media import read_clip
from safegen.provenance.engine import embeds
from safegen.provenance.kept_manifests import load_manifest
from safegen.provenance.read import sidecar_path
from safegen.provenance.restoring import Restoration, restore_file
from safegen.provenance.signing_identity import Seal
from safegen.provenance.trust import Trust
from safegen.release.recording import appender, record_and_place
from safegen.settings import MARK_FRAMES, Home
from safegen.types import LOOKS_ALG, Basis, ContentId, Finding, Json, Progress, Status, Verdict, soft_binding_alg
from safegen.verification.credential_judging import keeps_inside
from safegen.verification.verifier import Verifier, verify

if TYPE_CHECKING:
    from safegen.ledger import Entry
    from safegen.likeness import Likeness

# Imported where they are used: what loads sqlalchemy.


class Outcome(StrEnum):
    """How a look-up ended. From ``no_mark`` to ``damaged`` there is nothing to give.

    ``unproven``: a manifest is kept that may be this file's; nothing is signed for it.
    """

    FOUND = "found"
    RESTORED = "restored"
    NO_MARK = "no_mark"
    COPIED = "copied"
    UNRECORDED = "unrecorded"
    NOT_KEPT = "not_kept"
    DAMAGED = "damaged"
    UNPROVEN = "unproven"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Found:
    """What a file leads to. The manifest store (JUMBF bytes), its URN and ``alg`` are there if it was found, or
    unproven.

    ``pictures`` is how the comparison with the clip's kept pictures ended, as the verdict's evidence says it; found
    means that they are the same where the mark is, and ``whole`` that they are the whole file. ``similarity``: how well
    they agree, 0 to 100. ``alike`` are the clips that the file looks like, looked for where no mark names one.
    """

    outcome: Outcome
    summary: str
    verdict: Verdict
    content_id: ContentId | None = None
    entry: int | None = None
    alg: str = ""
    manifest: bytes = b""
    manifest_id: str = ""
    pictures: Mapping[str, Json] = field(default_factory=dict)
    similarity: int | None = None
    alike: tuple[Likeness, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether mark, ledger and pictures agree over the whole file."""
        return self.outcome is Outcome.FOUND and self.pictures.get("whole") is True


@dataclass(frozen=True, slots=True)
class Recovery:
    """What ``recover`` did. All from ``output`` on is set where a file was restored; ``recovered`` is what was kept.

    ``alg`` is that of the mark, or of the looks, by which it was found. Where it is unproven, ``sidecar`` is the kept
    manifest to look at.
    """

    outcome: Outcome
    summary: str
    content_id: ContentId | None
    output: Path | None = None
    sidecar: Path | None = None
    manifest_id: str = ""
    recovered: str = ""
    entry: int | None = None
    alg: str = ""

    def to_json(self) -> dict[str, Json]:
        """Return the result as plain JSON values, in the documented shape."""
        return {
            "outcome": str(self.outcome),
            "summary": self.summary,
            "content_id": self.content_id,
            "output": None if self.output is None else str(self.output),
            "sidecar": None if self.sidecar is None else str(self.sidecar),
            "manifest_id": self.manifest_id or None,
            "recovered_manifest_id": self.recovered or None,
            "entry": self.entry,
            "alg": self.alg or None,
        }


def find(path: Path, *, home: Home | None = None, progress: Progress | None = None) -> Found:
    """Look up the manifest kept for the clip that ``path``'s mark names. Writes nothing, touches no network.

    Where no mark names one, it is that of the clip that ``path`` looks like, if there is one and no second: unproven. A
    copied mark, a mark of nobody's and an entry that does not hold are outcomes. Raises InputError if there is no file
    that can be decoded.
    """
    home = home or Home.default()
    verdict = verify(path, home=home, progress=progress)
    mark, ledger = _finding(verdict, Basis.WATERMARK), _finding(verdict, Basis.LEDGER)
    named = _named(mark)

    def ended(outcome: Outcome, summary: str) -> Found:
        return Found(outcome, summary, verdict, named)

    if mark.status is Status.FAIL:
        return ended(Outcome.COPIED, mark.summary)
    if named is not None and mark.evidence.get("status") == "uncompared":
        found = _recorded(ended(Outcome.FOUND, ""), ledger, verdict.entry)
        found = _by_mark(found, mark, home) if found.outcome is Outcome.FOUND else found
        return replace(found, outcome=Outcome.UNPROVEN, summary=mark.summary) if found.manifest else found
    if mark.status is Status.ABSENT:
        return _by_looks(path, home, ended(Outcome.NO_MARK, mark.summary))
    if mark.status is Status.INCONCLUSIVE:
        return _by_looks(path, home, ended(Outcome.UNDECIDED, mark.summary))
    if mark.status is not Status.PASS or named is None:
        return ended(Outcome.UNDECIDED, mark.summary)
    if verdict.content_id != named:
        return ended(Outcome.DAMAGED, "The file's credential and its mark name different clips.")
    found = _recorded(ended(Outcome.FOUND, ""), ledger, verdict.entry)
    return _by_mark(found, mark, home) if found.outcome is Outcome.FOUND else found


def recover(
    path: Path,
    output: Path,
    *,
    sidecar: bool = False,
    force: bool = False,
    home: Home | None = None,
    progress: Progress | None = None,
) -> Recovery:
    """Give the stripped file ``path`` its credential back, as ``output``: signed by this home and recorded.

    With ``sidecar`` the manifest goes into ``<output's name>.c2pa`` and ``output`` is an exact copy of ``path`` (or
    ``path`` itself, which then is left alone). What cannot be given back is an outcome; then nothing is written, but
    for what is unproven the kept manifest, as ``<output's name>.kept.c2pa``. Raises
    InputError if ``path`` cannot be decoded or carries a credential of its own, or ``output`` cannot be written;
    KeyStoreError, ProvenanceError or LedgerError if signing or recording fails, and leaves nothing.
    """
    home = home or Home.default()
    path, output = Path(path).expanduser(), Path(output).expanduser()
    target, beside = _targets(path, output, sidecar=sidecar, force=force)
    found = find(path, home=home, progress=progress)
    credential = _finding(found.verdict, Basis.METADATA)
    if credential.status is not Status.ABSENT:
        remedy = "Keep it: a sound credential is worth more than one given back. `safegen verify` says what it claims."
        if credential.status is not Status.PASS:
            remedy = "`safegen verify` judges it. Recover from a copy without it (ffmpeg -c copy)."
        if keeps_inside(credential, found.content_id):
            remedy = "The credential of this clip is inside it already, as its parent: there is nothing to recover."
        raise InputError(
            f"{path} carries a credential of its own, which recovery would hide: {credential.summary}", remedy=remedy
        )
    if found.outcome is Outcome.FOUND and not found.whole:
        why = f"The mark names clip {found.content_id}, but only part of what the file shows is that clip's."
        found = replace(found, outcome=Outcome.UNPROVEN, summary=why)
    if found.outcome is Outcome.UNPROVEN:
        return _beside(found, output, force=force)
    if found.outcome is not Outcome.FOUND:
        return Recovery(found.outcome, found.summary, found.content_id)
    return _restore(path, found, target, beside, home)


def _beside(found: Found, output: Path, *, force: bool) -> Recovery:
    """Write the kept manifest beside the output: not where readers look for a file's credential, for it is none."""
    sidecar = Target.check(output.with_name(f"{output.name}.kept.c2pa"), suffix=".c2pa", force=force)
    with sidecar.scratch() as scratch:
        scratch.signed.write_bytes(found.manifest)
        sidecar.place(scratch.signed)
    return Recovery(
        Outcome.UNPROVEN, found.summary, found.content_id, sidecar=sidecar.path, recovered=found.manifest_id,
        alg=found.alg,
    )  # fmt: skip


def _finding(verdict: Verdict, basis: Basis) -> Finding:
    return next(f for f in verdict.findings if f.basis is basis)


def _named(mark: Finding) -> ContentId | None:
    value = mark.evidence.get("content_id")
    return ContentId(value) if isinstance(value, str) else None


def _recorded(found: Found, ledger: Finding, entry: int | None) -> Found:
    """Add the entry, if its finding holds; else say what is wrong with it."""
    if ledger.status is Status.PASS and entry is not None:
        return replace(found, entry=entry)
    wrong = {Status.ABSENT: Outcome.UNRECORDED, Status.FAIL: Outcome.DAMAGED}
    return replace(found, outcome=wrong.get(ledger.status, Outcome.UNDECIDED), summary=ledger.summary)


def _by_mark(found: Found, mark: Finding, home: Home) -> Found:
    found = _kept(found, home)
    if found.outcome is not Outcome.FOUND:
        return found
    pictures = mark.evidence.get("pictures")
    compared = pictures if isinstance(pictures, Mapping) else {}
    left = compared.get("unexplained")
    return replace(
        found,
        summary=f"The mark names clip {found.content_id} of ledger entry {found.entry}, whose manifest is kept.",
        alg=soft_binding_alg(str(mark.evidence.get("scheme"))),
        pictures=compared,
        similarity=round(100 * (1 - left)) if isinstance(left, int | float) else None,
    )


def _by_looks(path: Path, home: Home, unmarked: Found) -> Found:
    """Look for the clip that the file looks like; ``unmarked`` is the answer where there is none."""
    from safegen.ledger import Ledger
    from safegen.likeness import find_by_pictures

    if not home.keys.exists():
        return unmarked  # it has made nothing
    try:
        with Ledger.open(home.ledger_url, create=False, read_only=True) as ledger:
            alike = find_by_pictures(read_clip(path, max_frames=MARK_FRAMES, tolerant=True), ledger, home)
    except LedgerDamagedError as error:
        return replace(unmarked, outcome=Outcome.DAMAGED, summary=f"The ledger contradicts itself: {error}.")
    except LedgerError as error:
        why = f"{unmarked.summary} The ledger could not be searched for clips that look like it: {error}."
        return replace(unmarked, outcome=Outcome.UNDECIDED, summary=why)
    if not alike:
        return unmarked
    if len(alike) > 1:
        entries = ", ".join(str(each.entry) for each in alike[:5])
        why = f"{unmarked.summary} Several recorded clips look like it, of ledger entries {entries}."
        return replace(unmarked, outcome=Outcome.UNDECIDED, summary=why, alike=alike)
    [only] = alike
    finding, entry = Verifier(home).look_up(path, only.content_id)
    found = replace(unmarked, outcome=Outcome.FOUND, content_id=only.content_id, alike=alike)
    found = _recorded(found, finding, entry)
    if found.outcome is Outcome.FOUND:
        found = _kept(found, home)
    if found.outcome is not Outcome.FOUND:
        return found
    summary = (
        f"No mark names a clip, but the pictures look like those of clip {only.content_id} of ledger entry {entry},"
        " whose manifest is kept. That is likeness, and no proof of origin."
    )
    return replace(found, outcome=Outcome.UNPROVEN, summary=summary, alg=LOOKS_ALG, similarity=only.similarity)


def _kept(found: Found, home: Home) -> Found:
    """Add the manifest kept for the clip, where it is the one that the ledger recorded."""
    from safegen.ledger import Ledger

    assert found.content_id is not None and found.entry is not None  # noqa: S101, PT018 - the caller has found both
    with Ledger.open(home.ledger_url, create=False, read_only=True) as ledger:
        entry = ledger.get(found.entry)
    manifest = load_manifest(home, found.content_id)
    if manifest is None:
        return replace(found, outcome=Outcome.NOT_KEPT, summary="The manifest of this clip is no longer kept here.")
    if hashlib.sha256(manifest).hexdigest() != entry.event.manifest_sha256:
        summary = "The manifest kept for this clip is not the one that the ledger recorded."
        return replace(found, outcome=Outcome.DAMAGED, summary=summary)
    return replace(found, manifest=manifest, manifest_id=_manifest_id(entry))


def _manifest_id(entry: Entry) -> str:
    named = entry.body.get("manifest_id")
    if not isinstance(named, str):
        raise LedgerError(f"entry {entry.index} names no manifest", remedy="It was written by something else.")
    return named


def _targets(path: Path, output: Path, *, sidecar: bool, force: bool) -> tuple[Target | None, Target | None]:
    """Where the file and the sidecar go, checked; None for what is not written."""
    if output.suffix.lower() != path.suffix.lower():
        raise InputError(
            f"The output {output.name} does not end in {path.suffix}, as the file itself does.",
            remedy="Recovery changes no format: give the output the same ending.",
        )
    same = output.exists() and path.exists() and output.samefile(path)
    if same and not sidecar:
        raise InputError("The output is the file itself.", remedy="Choose another name, or write a --sidecar.")
    if not sidecar and path.is_file() and not embeds(path):
        raise InputError(
            f"No C2PA manifest can be put into {path.name}: its format has no place for one.",
            remedy="Write it beside the file with --sidecar.",
        )
    target = None if same else Target.check(output, suffix=path.suffix.lower(), force=force)
    beside = Target.check(sidecar_path(output), suffix=".c2pa", force=force) if sidecar else None
    return target, beside


def _words(pictures: Mapping[str, Json]) -> str:
    """What was found, and over which frames, as the new manifest says it."""
    spans: Any = pictures["spans"]
    time, area, left = (f"{100 * float(str(pictures[name])):.0f} %" for name in ("time", "area", "unexplained"))
    return (
        f"found in frames {spans[0]['first']} to {spans[-1]['last']} ({spans[0]['start']} to {spans[-1]['end']} s); the"
        f" pictures kept of that clip explain {time} of the file's time and {area} of its area, and leave {left} of"
        " their own area unexplained"
    )


def _restore(path: Path, found: Found, target: Target | None, beside: Target | None, home: Home) -> Recovery:
    from safegen.ledger import EventKind, Ledger

    assert found.content_id is not None  # noqa: S101 - it was found by it
    keys = KeyStore.load(home)
    seal = Seal.of(home, keys)
    anchors = Trust.of(home, (keys, *KeyStore.retired(home))).own_anchors_pem
    what = Restoration(found.content_id, (found.alg,), dt.datetime.now(dt.UTC), _words(found.pictures))
    final = path if target is None else target.path
    # Named so that the sidecar is found beside the scratch copy, as it will be beside the finished file.
    scratch = final if target is None else final.with_name(f".{final.stem}.{secrets.token_hex(4)}{final.suffix}")
    waiting = None if beside is None else sidecar_path(scratch)
    try:
        with Ledger.open(
            home.ledger_url, key=keys.ledger_key, origin=keys.ledger_name, busy_seconds=home.ledger_busy_seconds
        ) as ledger:
            signed = restore_file(
                path, scratch, found.manifest, what, keys, anchors_pem=anchors, seal=seal, sidecar=waiting
            )
            body: dict[str, Json] = {
                "recovered_manifest_id": found.manifest_id,
                "recovered_entry": found.entry,
                "alg": found.alg,
                "pictures": {k: v for k, v in found.pictures.items() if k != "spans"},
                "sidecar": beside is not None,
            }

            def place() -> None:
                if waiting is not None and beside is not None and waiting != beside.path:
                    beside.place(waiting)
                if target is not None:
                    target.place(scratch)

            receipt = record_and_place(signed, place, appender(ledger, found.content_id), EventKind.RECOVERED, body)
    except BaseException:
        for leftover in (None if target is None else scratch, waiting):
            if leftover is not None:
                leftover.unlink(missing_ok=True)
        raise
    return Recovery(
        Outcome.RESTORED, found.summary, found.content_id, final, None if beside is None else beside.path,
        signed.manifest_id, found.manifest_id, receipt.index, found.alg,
    )  # fmt: skip
