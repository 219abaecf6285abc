"""What is personal in entries, who it is kept for, and how a person's data are shown and erased (docs/privacy.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from safegen.errors import InputError, LedgerDamagedError
from safegen.keys import KeyStore
from safegen.provenance.kept_manifests import discard_kept
from safegen.types import ContentId, Json

if TYPE_CHECKING:
    from safegen.ledger.erasure import Erasure
    from safegen.ledger.store import Ledger
    from safegen.ledger.subjects import Personal, PersonalField
    from safegen.settings import Home

# Imported where they are used: what loads sqlalchemy.

FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "requester": ("requester",),
    "texts": ("texts", "salts"),
    "project": ("project",),
    "reviewer": ("by", "reason"),
    "holder": ("holder",),
}
"""Kinds of personal data, and the fields of entries that hold them; ``salts`` are those of the texts' commitments."""

CONTENT: Final = "content:"
"""Begins the subject of a run that names nobody: its personal fields are erased by its content id."""


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure came to. ``entry`` records it; ``resumed`` are entries of earlier ones that had broken off."""

    subject: str
    entry: int | None
    fields: int
    manifests: int
    resumed: tuple[int, ...] = ()
    earlier: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Json]:
        """Return the result as plain JSON values."""
        return {
            "subject": self.subject, "erased": self.entry is not None, "entry": self.entry, "fields": self.fields,
            "manifests": self.manifests, "resumed": list(self.resumed), "earlier": list(self.earlier),
        }  # fmt: skip


def check_requester(subject: str) -> str:
    """Return who a run is for, "" for nobody; InputError if that is no name of a data subject."""
    from safegen.ledger.subjects import check_subject

    if subject.startswith(CONTENT):
        raise InputError(f"A data subject cannot be named {CONTENT}...", remedy="That stands for runs without one.")
    return subject and check_subject(subject)


def split_run(body: Mapping[str, Json], subject: str) -> tuple[dict[str, Json], dict[str, Json]]:
    """Part what a run's entry would say into (what stands in the leaf, what is kept as personal fields).

    Where texts are kept, or the run is for a named subject, the salts of the texts' commitments are kept too: without
    them nobody can try a guess, not with the home's key either.
    """
    said: dict[str, Any] = dict(body)
    kept: dict[str, Json] = {"requester": subject} if subject else {}
    if project := said.pop("project", ""):
        kept["project"] = project
    texts: dict[str, Any] = {source: dict(record) for source, record in (said.get("texts") or {}).items()}
    clear = {source: record.pop("text") for source, record in texts.items() if "text" in record}
    if clear:
        kept["texts"] = clear
    if clear or subject:
        commitments: dict[str, Any] = {source: record["commitment"] for source, record in texts.items()}
        if said.get("prompt_commitment"):
            said["prompt_commitment"] = dict(said["prompt_commitment"])
            commitments["prompt_commitment"] = said["prompt_commitment"]
        salts: dict[str, Json] = {}
        for source, record in texts.items():
            record["commitment"] = commitments[source] = dict(record["commitment"])
        for source, commitment in commitments.items():
            salts[source] = commitment.pop("salt")
        kept["salts"] = salts
    return said | ({"texts": texts} if texts else {}), kept


def subject_of_run(subject: str, content_id: ContentId) -> str:
    """Whose key a run's personal fields are under: the named subject's, else one of this run alone."""
    return subject or f"{CONTENT}{content_id}"


# -- commands ----------------------------------------------------------------------------------------------------------


@contextmanager
def opened(home: Home, *, write: bool) -> Iterator[tuple[Ledger, Personal, bytes]]:
    """Open a home's ledger with its personal fields; the key of commitments is empty where nothing is written."""
    from safegen.ledger.store import Ledger
    from safegen.ledger.subjects import Personal

    if write:
        keys = KeyStore.load(home)
        with Ledger.open(
            home.ledger_url, key=keys.ledger_key, origin=keys.ledger_name, create=False,
            busy_seconds=home.ledger_busy_seconds,
        ) as ledger:  # fmt: skip
            yield ledger, Personal(ledger, home), keys.commitment_key
        return
    with Ledger.open(home.ledger_url, create=False, read_only=True) as ledger:
        yield ledger, Personal(ledger, home), b""


def export_subject(home: Home, subject: str) -> dict[str, Json]:
    """Return everything that the ledger holds about a subject, decrypted (GDPR Art. 15), and which entries it is in.

    A field that was altered is listed with its ``problem``. KeyStoreError where it cannot be decrypted at all.
    """
    from safegen.ledger.erasure import earlier

    with opened(home, write=False) as (ledger, personal, _):
        held = personal.held(subject)
        found: list[Json] = [one.to_json() | _about(ledger, one) for one in held]
        return {"subject": subject, "fields": found, "erased_by": list(earlier(personal, subject))}


def entries_about(home: Home, subject: str) -> tuple[int, ...]:
    """Return the entries that hold something about a subject, and those that say what was erased of it, in order.

    LedgerDamagedError where a field was altered, KeyStoreError where none can be decrypted.
    """
    from safegen.ledger.erasure import earlier

    with opened(home, write=False) as (_, personal, _key):
        held = personal.held(subject)
        for one in held:
            if one.problem:
                raise LedgerDamagedError(
                    f"A personal field of {subject!r} was altered: {one.problem}",
                    remedy="`safegen ledger subject` shows which; `safegen ledger fsck` looks at all.",
                )
        return tuple(sorted({one.entry for one in held if one.entry is not None} | set(earlier(personal, subject))))


def erase(home: Home, subject: str, *, ground: str, manifests: bool = False) -> Erased:
    """Destroy all that can be read about a subject, record it, and end erasures that had broken off.

    ``manifests``: the kept manifests and pictures of the clips that it was about go too; `safegen recover` then finds
    them no more, and their marks on other pictures are no longer told.
    ``Erased.entry`` is None where nothing was held. Raises KeyStoreError where the wrapping key is missing or another,
    LedgerBusyError where a reader keeps old pages alive; then the key is destroyed, and erasing again records it.
    """
    from safegen.ledger.erasure import begin_erasure, earlier

    with opened(home, write=True) as (ledger, personal, commitment_key):
        resumed = resume(home, ledger)
        clips = _clips(ledger, personal.held(subject)) if manifests else ()
        begun = begin_erasure(personal, subject, ground=ground, commitment_key=commitment_key, manifests=clips)
        done = None if begun is None else complete(home, ledger, begun)
        before = tuple(entry for entry in earlier(personal, subject) if entry != done)
    fields = 0 if begun is None else int(str(begun.body["fields"]))
    return Erased(subject, done, fields, len(clips), resumed, before)


def resume(home: Home, ledger: Ledger) -> tuple[int, ...]:
    """End the erasures that had broken off; returns their entries."""
    from safegen.ledger.erasure import unfinished

    return tuple(complete(home, ledger, one) for one in unfinished(ledger))


def complete(home: Home, ledger: Ledger, erasure: Erasure) -> int:
    """Take an erasure whose key is destroyed to its end; returns the entry that records it."""
    from safegen.ledger.erasure import finish, scrub

    scrub(ledger, erasure)
    for content_id in erasure.manifests:
        discard_kept(home, ContentId(content_id))
    return finish(ledger, erasure)


def _about(ledger: Ledger, held: PersonalField) -> dict[str, Json]:
    if held.entry is None:
        return {"kind": None, "time": None, "content_id": None}
    entry = ledger.get(held.entry)
    return {"kind": entry.kind, "time": entry.time, "content_id": entry.content_id}


def _clips(ledger: Ledger, held: list[PersonalField]) -> tuple[str, ...]:
    """Content ids of the clips that entries with these fields released."""
    found: dict[str, None] = {}
    for index in sorted({one.entry for one in held if one.entry is not None}):
        entry = ledger.get(index)
        if entry.kind == "generated" and entry.content_id is not None:
            found[str(entry.content_id)] = None
    return tuple(found)
