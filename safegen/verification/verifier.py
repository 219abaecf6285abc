"""What can be known of a file: credential, mark, ledger and passive detector, and one verdict from them.

    import safegen

    verdict = safegen.verify("clip.mp4")

The steps, in order. Steps (3) and (5) need torch or take longest and can be left out (``neural=False``); what was left
out or could not run is a finding of its own and never counts as passed (ADR 0004):

 (1) the file is there and some of it can be decoded: else InputError, no verdict;
 (2) C2PA: a credential is there or not, intact or not, and signed by this home or by someone else;
 (3) mark: the blind extractors read the frames under this home's watermark keys; where they name a clip and no
     credential of ours vouches for every byte, what is to be seen is compared with the pictures that are kept of that
     clip, since a mark can be copied;
 (4) ledger: the entry that credential or mark names is intact, lies under the signed checkpoint and fits the file;
     where the credential is gone, the manifest kept for that entry is validated in its place;
 (5) passive detector, and labels in the metadata: hints for people, which no verdict rests on;
 (6) the verdict, by the rules of ``_decide``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from safegen.bounds.timelimit import check_time, seconds_for, time_limit
from safegen.detectors.forensic import score
from safegen.errors import (
    InputError,
    KeyStoreError,
    LedgerDamagedError,
    LedgerError,
    SafegenError,
    TimeLimitError,
)
from safegen.keys import KeyStore
from safegen.media import probe
from safegen.media.fragments import joined
from safegen.provenance.kept_manifests import load_manifest
from safegen.provenance.trust import Trust
from safegen.settings import Home
from safegen.types import LOOKS_ALG, Basis, ContentId, Finding, Json, Progress, Status, Verdict, VerdictKind
from safegen.verification.beginning import Beginning
from safegen.verification.coverage import is_whole, note_what_else_is_shown, note_what_is_marked
from safegen.verification.credential_judging import Judged, judge_credential
from safegen.verification.label_finding import find_labels
from safegen.verification.mark_reading import Mark, MarkReader, not_run
from safegen.verification.picture_check import check_pictures
from safegen.verification.unseen import why_unseen

if TYPE_CHECKING:
    from safegen.ledger import Entry, Ledger

# Imported where they are used: what loads c2pa or sqlalchemy.


def verify(
    path: str | Path,
    *,
    neural: bool = True,
    forensic: bool = False,
    fragments: Sequence[str | Path] = (),
    home: Home | None = None,
    progress: Progress | None = None,
    time_limit: float | None = None,
) -> Verdict:
    """Check ``path`` against this home's keys and ledger and return the verdict with its findings.

    ``forensic``: the passive detector is asked as well, whose hint no verdict rests on.
    ``fragments`` are segments, in order, that follow ``path`` as their initialisation segment (DASH, CMAF): the
    credential is validated with each, and the pictures are those of all together.
    ``time_limit``: seconds that all of it may take (``safegen.bounds.timelimit``), by its size if not said;
    when they run out the verdict is INCONCLUSIVE, whatever was found until then. Never touches the network and never
    writes but temporary files. A negative verdict is a result. Raises InputError (of which UnreadableMediaError is one)
    if there is no file that can be decoded.
    """
    verifier = Verifier(home or Home.default(), neural=neural, forensic=forensic, progress=progress)
    return verifier.verify(Path(path), tuple(map(Path, fragments)), time_limit)


def key_stores(home: Home) -> tuple[tuple[KeyStore, ...], str]:
    """Return a home's key stores, retired ones last, or none and why."""
    try:
        return (KeyStore.load(home, purpose="verify"), *KeyStore.retired(home)), ""
    except KeyStoreError as error:
        return (), str(error)


class Verifier:
    """The steps of the module's docstring over one home. Holds no file open between calls."""

    def __init__(
        self, home: Home, *, neural: bool = True, forensic: bool = False, progress: Progress | None = None
    ) -> None:
        self._home = home
        self._neural = neural
        self._forensic_asked = forensic
        self._told = progress

    def _progress(self, stage: str, done: float, total: float) -> None:
        check_time()  # between two ways of reading the mark, say
        if self._told is not None:
            self._told(stage, done, total)

    def verify(self, path: Path, fragments: tuple[Path, ...] = (), seconds: float | None = None) -> Verdict:
        """Run all steps on one file, or on an initialisation segment with its fragments, within ``seconds``."""
        if seconds is not None and not seconds > 0:
            raise InputError(f"a time limit of {seconds:g} s leaves no time", remedy="Give more than 0 seconds.")
        if seconds is None:
            seconds = seconds_for(sum(p.stat().st_size for p in (path, *fragments) if p.is_file()))
        with time_limit(seconds) as limit:
            try:
                if not fragments:
                    verdict = self._verify(path, path, ())
                else:
                    with joined(path, fragments) as media:
                        verdict = self._verify(media, path, fragments)
            except TimeLimitError as error:
                return _out_of_time(str(error))
            # Where a step was cut short, its finding may be too good or too bad.
            return replace(verdict, verdict=VerdictKind.INCONCLUSIVE) if limit.ran_out else verdict

    def _verify(self, path: Path, first: Path, fragments: tuple[Path, ...]) -> Verdict:
        """Decode ``path``; read the credential from ``first`` with its ``fragments``: the same file, or its parts."""
        with ThreadPoolExecutor(max_workers=1) as pool:
            # (1) ffmpeg works while we import and read
            readable = pool.submit(copy_context().run, partial(probe, path, tolerant=True))
            keys, key_problem = key_stores(self._home)
            if path.is_file():
                import safegen.ledger  # noqa: F401 - needed in (4), and a good part of the time
            unseen = why_unseen(path, readable)
        metadata = self._credential(first, keys, fragments)  # (2)
        check_time()
        clip = Beginning(path, readable.result()) if self._neural and not unseen else None
        mark = self._mark(path, clip, keys, key_problem, metadata, unseen)  # (3)
        if mark.content_id is not None and not metadata.ours:
            mark = note_what_else_is_shown(mark, path)
        named = metadata.credential.content_id if metadata.ours and metadata.credential else None
        ledger, entry = self._ledger(path, named or mark.content_id, metadata, keys)  # (4)
        check_time()
        forensic = self._forensic(clip, unseen)  # (5)
        findings = (metadata.finding, mark.finding, ledger, forensic, find_labels(first))
        kind = _decide(metadata, mark, ledger)  # (6)
        content_id = named or mark.content_id
        return Verdict(kind, content_id, entry, findings)

    def look_up(self, path: Path, content_id: ContentId) -> tuple[Finding, int | None]:
        """Step (4) for a clip that neither mark nor credential names: the finding, and its entry's index."""
        keys, _ = key_stores(self._home)
        return self._ledger(path, content_id, self._credential(path, keys), keys)

    # -- (2) credential ------------------------------------------------------------------------------------------------

    def _credential(self, path: Path, keys: Sequence[KeyStore], fragments: tuple[Path, ...] = ()) -> Judged:
        from safegen.provenance.read import read_credential

        found = read_credential(path, trust=Trust.of(self._home, keys), fragments=fragments)
        judged = judge_credential(found)
        if found.only_expired and self._recorded_this_file(path, found.content_id):
            # Anyone can make an expired certificate. What vouches for the file is the ledger, which holds its hash.
            return replace(judged, ours=True)
        return judged

    def _recorded_this_file(self, path: Path, content_id: ContentId | None) -> bool:
        from safegen.ledger import Ledger

        if content_id is None:
            return False
        try:
            with Ledger.open(self._home.ledger_url, create=False, read_only=True) as ledger:
                return _sha256(path) in {e.event.asset_sha256 for e in ledger.find_content(content_id)}
        except LedgerError:
            return False  # step (4) says so

    # -- (3) mark ------------------------------------------------------------------------------------------------------

    def _mark(
        self,
        path: Path,
        clip: Beginning | None,
        keys: Sequence[KeyStore],
        key_problem: str,
        metadata: Judged,
        unseen: str,
    ) -> Mark:
        """Read the mark; where it names a clip, see whether that clip's pictures carry it."""
        mark = MarkReader(self._home, self._progress).read(path, clip, keys, key_problem, unseen)
        if clip is None or mark.content_id is None or metadata.ours:
            return mark
        return note_what_is_marked(check_pictures(mark, path, clip.fps, self._home), clip.fps)

    # -- (4) ledger ----------------------------------------------------------------------------------------------------

    def _ledger(
        self, path: Path, content_id: ContentId | None, metadata: Judged, keys: Sequence[KeyStore]
    ) -> tuple[Finding, int | None]:
        if content_id is None:
            return Finding(Basis.LEDGER, Status.ABSENT, "Neither credential nor mark names an entry to look up."), None
        try:
            from safegen.ledger import Ledger

            with Ledger.open(self._home.ledger_url, create=False, read_only=True) as ledger:
                return self._look_up(ledger, path, content_id, metadata, keys)
        except LedgerDamagedError as error:
            return Finding(Basis.LEDGER, Status.FAIL, f"The ledger contradicts itself: {error}."), None
        except SafegenError as error:  # the ledger, or the manifest kept for its entry
            return not_run(Basis.LEDGER, f"The ledger could not be read: {error}."), None

    def _look_up(
        self, ledger: Ledger, path: Path, content_id: ContentId, metadata: Judged, keys: Sequence[KeyStore]
    ) -> tuple[Finding, int | None]:
        about = ledger.find_content(content_id)
        entry = next((e for e in about if e.kind == "generated"), None)
        if entry is None:
            summary = f"The ledger has no entry for content id {content_id}."
            return Finding(Basis.LEDGER, Status.ABSENT, summary, {"content_id": content_id}), None
        evidence: dict[str, Json] = {"entry": entry.index, "time": entry.time, "leaf_hash": entry.leaf_hash}
        problems = list(_entry_problems(ledger, entry, keys, evidence))
        rewritten: tuple[Entry, ...] = ()
        if metadata.ours:
            rewritten = _rewritten(path, about, metadata, evidence)
            if not rewritten:
                problems += _file_problems(path, entry, metadata, evidence)
            for later in rewritten:
                problems += _entry_problems(ledger, later, keys, evidence)
        elif metadata.finding.status is not Status.FAIL:
            problems += self._kept_manifest_problems(path, entry, keys, evidence)
        if problems:
            return Finding(Basis.LEDGER, Status.FAIL, " ".join(problems), evidence), entry.index
        summary = f"Entry {entry.index} of {entry.time} records this clip and lies under the signed checkpoint."
        if rewritten:
            if any(later.body.get("alg") == LOOKS_ALG for later in rewritten):
                evidence["by_looks"] = True  # no mark led to the credential
            what = "given back" if rewritten[0].kind == "recovered" else "signed again with"
            summary = (
                f"Entry {rewritten[0].index} of {rewritten[0].time} records that this file was {what} the credential of"
                f" the clip of entry {entry.index}; both lie under the signed checkpoint."
            )
        mark = entry.body.get("mark")
        if isinstance(mark, dict) and mark.get("weak"):
            summary += " Its mark was weak from the first: copies that are encoded again may have lost it."
        return Finding(Basis.LEDGER, Status.PASS, summary, evidence), entry.index

    def _kept_manifest_problems(
        self, path: Path, entry: Entry, keys: Sequence[KeyStore], evidence: dict[str, Json]
    ) -> list[str]:
        """Validate the manifest that was kept for the entry, where the file has lost its own."""
        from safegen.provenance.read import read_manifest_store

        assert entry.content_id is not None  # noqa: S101 - it was found by it
        kept = load_manifest(self._home, entry.content_id)
        if kept is None:
            evidence["kept_manifest"] = "missing"
            return []
        if hashlib.sha256(kept).hexdigest() != entry.event.manifest_sha256:
            return ["The manifest kept for this clip is not the one that the ledger recorded."]
        found = read_manifest_store(kept, path, trust=Trust.of(self._home, keys))
        evidence["kept_manifest"] = found.manifest_id
        evidence["kept_manifest_signature"] = "valid" if found.signature_valid else "invalid"
        return [] if found.signature_valid or found.only_expired else ["The kept manifest's signature does not hold."]

    # -- (5) passive detector ------------------------------------------------------------------------------------------

    def _forensic(self, clip: Beginning | None, unseen: str) -> Finding:
        if not self._forensic_asked or (clip is None and not unseen):
            return not_run(Basis.FORENSIC, "The passive detector was not asked (--forensic).")
        if clip is None:
            return not_run(Basis.FORENSIC, f"The passive detector could not run: {unseen}.")
        try:
            found = score(clip.frames, clip.fps)
        except ImportError as error:
            return not_run(Basis.FORENSIC, f"The passive detector could not run: {error.name} is not installed.")
        except SafegenError as error:
            return not_run(Basis.FORENSIC, f"The passive detector could not run: {error}")
        status, words = _FORENSIC[found.label]
        evidence: dict[str, Json] = {
            "label": found.label,
            "probability": round(found.probability, 3),
            "reasons": list(found.reasons),
            "model": found.model_id,
        }
        return Finding(Basis.FORENSIC, status, words, evidence)


def _out_of_time(why: str) -> Verdict:
    """The verdict on a file whose reading was given up: nothing is known of it, and each finding says why."""
    findings = tuple(not_run(basis, f"Not all of the file was looked at: {why}.") for basis in Basis)
    return Verdict(VerdictKind.INCONCLUSIVE, None, None, findings)


_FORENSIC: Mapping[str, tuple[Status, str]] = {
    "signs_of_ai": (Status.PASS, "The pictures' statistics resemble AI-made video: a hint, not proof."),
    "no_statement": (Status.INCONCLUSIVE, "The pictures' statistics allow no statement."),
}


def _entry_problems(ledger: Ledger, entry: Entry, keys: Sequence[KeyStore], evidence: dict[str, Json]) -> list[str]:
    from safegen.ledger import VerifierKey, verify_inclusion

    proof = ledger.prove(entry.index)
    evidence["checkpoint"] = proof.checkpoint
    for store in keys:
        verifier = VerifierKey.of(store.ledger_name, store.ledger_public_key)
        if verify_inclusion(proof, entry.leaf, verifier):
            return []
    return ["The checkpoint over the entry is not signed by this home's ledger key."]


def _rewritten(path: Path, about: Sequence[Entry], metadata: Judged, evidence: dict[str, Json]) -> tuple[Entry, ...]:
    """The entries that lead from the clip to this very file: it was given a credential back, or was signed again.

    The one that records the file, with this manifest, comes first; empty where the clip itself is what it must be.
    """
    manifest_id = None if metadata.credential is None else metadata.credential.manifest_id
    later = {e.index: e for e in about if e.kind in ("recovered", "resigned")}
    candidates = [e for e in later.values() if e.body.get("manifest_id") == manifest_id]
    if not candidates:
        return ()
    evidence["sha256"] = digest = _sha256(path)
    at = next((e for e in candidates if e.event.asset_sha256 == digest), None)
    found: list[Entry] = []
    while at is not None and at not in found:
        found.append(at)
        evidence.setdefault("restored" if at.kind == "recovered" else "resigned", at.index)
        previous = at.body.get("previous_entry")
        at = later.get(previous) if isinstance(previous, int) else None
    return tuple(found)


def _file_problems(path: Path, entry: Entry, metadata: Judged, evidence: dict[str, Json]) -> list[str]:
    evidence["sha256"] = digest = _sha256(path)
    problems = []
    if digest != entry.event.asset_sha256:
        problems.append("The ledger recorded another file under this content id.")
    if metadata.credential is not None and metadata.credential.manifest_id != entry.body.get("manifest_id"):
        problems.append("The ledger recorded another manifest for this clip.")
    return problems


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _decide(metadata: Judged, mark: Mark, ledger: Finding) -> VerdictKind:
    """Combine the findings; ADR 0004 and docs/verdicts.md hold the table. Detector and labels have no say."""
    credential, marked = metadata.credential, mark.finding.status
    if Status.FAIL in (metadata.finding.status, marked, ledger.status):
        return VerdictKind.TAMPERED
    if metadata.ours and credential is not None:
        if "by_looks" in ledger.evidence and marked is not Status.PASS:
            return VerdictKind.INCONCLUSIVE  # such a credential promises no mark; likeness is no origin
        contradiction = (
            marked is Status.ABSENT  # the credential says that a mark is there
            or (marked is Status.PASS and mark.content_id != credential.content_id)
            or ledger.status is Status.ABSENT  # signed with this home's key, never recorded
        )
        if contradiction:
            return VerdictKind.TAMPERED
        if marked is not Status.PASS or ledger.status is not Status.PASS:
            return VerdictKind.INCONCLUSIVE
        # A restored file's credential is sound, and says itself that these are not the bytes that were signed first.
        return VerdictKind.RECOVERED if "restored" in ledger.evidence else VerdictKind.VERIFIED
    if metadata.finding.status is Status.INCONCLUSIVE:
        return VerdictKind.INCONCLUSIVE  # a credential may be there, and broken
    if marked is Status.PASS:
        if metadata.denies_ai or ledger.status is Status.ABSENT:
            return VerdictKind.TAMPERED
        if ledger.status is not Status.PASS:
            return VerdictKind.INCONCLUSIVE
        return VerdictKind.RECOVERED if is_whole(mark.finding) else VerdictKind.PARTIAL
    if marked is Status.ABSENT and metadata.finding.status in (Status.PASS, Status.ABSENT):
        return VerdictKind.UNVERIFIED
    return VerdictKind.INCONCLUSIVE
