"""The review queue: runs that wait for a person, what that person said, and what a later run may do because of it.

Everything is a ledger entry: the run that stopped (``blocked``, action ``review``), each word on it (``reviewed``) and
each use of an approval (``approval_used``), so that changing or taking out any of them shows. An approval is bound to
one request by a commitment to all of it, policy included; it expires, and is used up. A denial stands.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from safegen.errors import InputError, LedgerDamagedError, LedgerError
from safegen.keys.commitment import check_commitment, commit_text
from safegen.types import Action, ContentId, Decision, Json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from safegen.ledger import Entry, Ledger, Receipt
    from safegen.ledger.subjects import Personal

# Imported where they are used: what loads sqlalchemy.

Stage = Literal["request", "frames"]
"""Where a run can wait for a person: before anything is drawn, or once the frames are."""

Answer = Literal["approve", "deny"]

MAX_DAYS: Final = 366
MAX_USES: Final = 1000
_SEE: Final = "`safegen review list` names what waits."


@dataclass(frozen=True, slots=True)
class Word:
    """What a person said about a run: an approval counts until ``expires``, for so many ``uses``."""

    entry: int
    answer: Answer
    by: str
    reason: str
    time: str
    expires: dt.datetime | None = None
    uses: int = 0

    def to_json(self) -> dict[str, Json]:
        """Return the word as plain JSON values."""
        expires = None if self.expires is None else self.expires.isoformat(timespec="seconds")
        return {
            "entry": self.entry, "answer": self.answer, "by": self.by, "reason": self.reason, "time": self.time,
            "expires": expires, "uses": self.uses,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """A run that stopped for review. ``words`` were said about it, oldest first; ``spent`` approvals of it used."""

    entry: Entry
    stage: Stage
    words: tuple[Word, ...]
    spent: Mapping[int, int]  # approval's entry -> uses
    personal: Mapping[str, Json] = field(default_factory=dict)  # the entry's personal fields that are held

    @property
    def denied(self) -> Word | None:
        """The first denial, which stands whatever was said besides."""
        return next((word for word in self.words if word.answer == "deny"), None)

    def state(self, now: dt.datetime) -> str:
        """``waiting``, ``denied``, ``approved``, or ``used`` or ``expired`` where no approval counts any more."""
        if self.denied is not None:
            return "denied"
        if not self.words:
            return "waiting"
        alive = [word for word in self.words if word.expires is not None and now < word.expires]
        if any(self.spent.get(word.entry, 0) < word.uses for word in alive):
            return "approved"
        return "used" if alive else "expired"

    @property
    def decision(self) -> Mapping[str, Any]:
        """What the run was stopped by, as it was recorded: without words of the texts."""
        found: Any = self.entry.body.get("decision" if self.stage == "request" else "frames_decision")
        return found if isinstance(found, Mapping) else {}

    @property
    def categories(self) -> tuple[str, ...]:
        """Which categories wanted a person, in order."""
        return tuple(sorted({category for category, _ in _asked(self.decision)}))

    @property
    def asked(self) -> frozenset[tuple[str, str]]:
        """(category, source) of every reason that wanted a person at this stage or an earlier one."""
        both = ("decision",) if self.stage == "request" else ("decision", "frames_decision")
        return frozenset(pair for name in both for pair in _asked(self.entry.body.get(name)))

    @property
    def text(self) -> Mapping[str, Json] | None:
        """The texts by source, where the policy records them and they are held still; None where not."""
        kept, texts = self.personal.get("texts"), self.entry.body.get("texts")
        if isinstance(kept, Mapping):
            return kept
        held = texts.items() if isinstance(texts, Mapping) else ()  # entries of old hold them in clear
        return {source: held["text"] for source, held in held if isinstance(held, Mapping) and "text" in held} or None

    def to_json(self, now: dt.datetime) -> dict[str, Json]:
        """Return the case as plain JSON values."""
        body = self.entry.body
        reasons: Any = self.decision.get("reasons", ())
        kept = ("category", "score", "threshold", "source", "classifier", "time_s")
        decision: dict[str, Json] = {
            "action": str(Action.REVIEW),
            "categories": list(self.categories),
            "reasons": [{k: r.get(k) for k in kept} for r in reasons if isinstance(r, Mapping)],
            "spans": self.decision.get("spans", []),
            "policy_id": self.decision.get("policy_id"),
            "policy_sha256": self.entry.event.policy_sha256,
        }
        return {
            "entry": self.entry.index,
            "content_id": self.entry.content_id,
            "time": self.entry.time,
            "stage": self.stage,
            "state": self.state(now),
            "decision": decision,
            "model": self.entry.event.model,
            "mode": body.get("mode"),
            "seed": body.get("seed"),
            "prompt_commitment": body.get("prompt_commitment"),
            "text": self.text,
            "requester": self.personal.get("requester"),
            "words": [word.to_json() for word in self.words],
        }


@dataclass(frozen=True, slots=True)
class Approval:
    """An approval that a run may use, and the case that it answers."""

    word: Word
    case: int
    stage: Stage
    asked: frozenset[tuple[str, str]]

    def covers(self, decision: Decision, stage: Stage) -> bool:
        """Whether it was given for all that this decision asks, at this stage or a later one."""
        return (stage == "request" or self.stage == "frames") and set(_asked(decision)) <= self.asked

    def to_json(self) -> dict[str, Json]:
        """Return what a run's own entry says of it."""
        return {"entry": self.word.entry, "of": self.case}


def request_text(fields: Mapping[str, Json]) -> str:
    """Return all that a request asks for as one text, to be committed to: JSON of its fields in a fixed order."""
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))


def commit_request(text: str, key: bytes) -> dict[str, str]:
    """Commit to a request, so that its approval can be found again by who has the request and the home's key."""
    return commit_text(text, key)


class Reviews:
    """The queue of one ledger. ``key`` commits to requests; ``public_key`` is the one that must sign the ledger.

    ``personal`` holds who reviewed and why, and the texts: without it names and texts are empty, and nothing is said.
    """

    def __init__(
        self, ledger: Ledger, *, key: bytes = b"", public_key: Ed25519PublicKey, personal: Personal | None = None
    ) -> None:
        self._personal = personal
        self._ledger = ledger
        self._key = key
        self._public_key = public_key

    # -- people ------------------------------------------------------------------------------------------------------

    def cases(self) -> Iterator[Case]:
        """Yield every run that stopped for review, oldest first, with what was said about it."""
        words, spent = self._words(names=True), self._spent()
        for entry in self._entries("blocked"):
            stage = _stage(entry)
            if stage is not None:
                kept = {} if self._personal is None else self._personal.opened(entry)
                yield Case(entry, stage, tuple(words.get(entry.index, ())), spent, kept)

    def case(self, index: int) -> Case:
        """Return one case; InputError if no run stopped for review with that entry."""
        for case in self.cases():
            if case.entry.index == index:
                return case
        raise InputError(f"Entry {index} is no run that waits for review.", remedy=_SEE)

    def approve(self, index: int, *, by: str, reason: str, days: float = 7.0, uses: int = 1) -> Receipt:
        """Let the same request pass review, ``uses`` times within ``days``. InputError if it was denied."""
        case = self.case(index)
        if case.denied is not None:
            raise InputError(
                f"Entry {index} was denied by {case.denied.by} (entry {case.denied.entry}), and a denial stands.",
                remedy="Change the request, or the policy.",
            )
        now = dt.datetime.now(dt.UTC)
        if case.state(now) == "approved":
            raise InputError(
                f"Entry {index} is approved already.", remedy=f"`safegen review show {index}` says by whom."
            )
        if not 0 < days <= MAX_DAYS or not 1 <= uses <= MAX_USES:
            raise InputError(
                f"An approval for {days:g} days and {uses} uses is not possible.",
                remedy=f"Up to {MAX_DAYS} days and {MAX_USES} uses.",
            )
        expires = (now + dt.timedelta(days=days)).isoformat(timespec="seconds")
        return self._say(case, "approve", by, reason, {"expires": expires, "uses": uses})

    def deny(self, index: int, *, by: str, reason: str) -> Receipt:
        """Refuse the request for good, as long as the policy is the same; takes back an approval."""
        case = self.case(index)
        if case.denied is not None:
            raise InputError(
                f"Entry {index} was denied already.", remedy=f"`safegen review show {index}` says by whom."
            )
        return self._say(case, "deny", by, reason, {})

    def _say(self, case: Case, answer: Answer, by: str, reason: str, more: Mapping[str, Json]) -> Receipt:
        from safegen.ledger import Event, EventKind

        if not by.strip() or len(by) > 200 or not by.isprintable():
            raise InputError("A review needs the name of who reviews.", remedy="Give it with --by.")
        if len(reason) > 2000:
            raise InputError("The reason is longer than 2000 characters.", remedy="Keep it short.")
        if self._personal is None:
            raise LedgerError(
                "the queue was opened without what keeps the names of reviewers", remedy="Give personal=."
            )
        body = {"of": case.entry.index, "of_leaf": case.entry.leaf_hash, **more}
        event = Event(
            EventKind.REVIEWED, content_id=case.entry.content_id, body=body, model=case.entry.event.model,
            policy_sha256=case.entry.event.policy_sha256, action=answer,
        )  # fmt: skip
        return self._personal.append(event, by, {"by": by, "reason": reason})

    # -- runs --------------------------------------------------------------------------------------------------------

    def answer(self, text: str, stage: Stage, seed: int, decision: Decision) -> Approval | Word | None:
        """Return what was said about this very request: an approval that can be used, a denial, or None.

        An approval counts for the reasons that its reviewer saw and no others; one given for frames counts for that
        seed alone, and covers the request's own review as well. LedgerDamagedError where the ledger as a whole does not
        verify: then no approval counts.
        """
        now = dt.datetime.now(dt.UTC)
        found: Approval | None = None
        for case in self._answered(text):
            if case.denied is not None and (case.stage == "request" or case.entry.body.get("seed") == seed):
                return case.denied
            if case.stage == "frames" and case.entry.body.get("seed") != seed:
                continue
            for word in case.words:
                approval = Approval(word, case.entry.index, case.stage, case.asked)
                alive = word.expires is not None and now < word.expires
                if alive and case.spent.get(word.entry, 0) < word.uses and approval.covers(decision, stage):
                    found = found or approval
        if found is not None:
            self._check_ledger()
        return found

    def use(self, approval: Approval, content_id: ContentId) -> bool:
        """Use an approval up once more for a run; False where another run was quicker.

        The use is recorded first and counted then: the ledger orders what two runs do at once.
        """
        from safegen.ledger import Event, EventKind

        body: dict[str, Json] = {"approval": approval.word.entry, "of": approval.case}
        mine = self._ledger.append(Event(EventKind.APPROVAL_USED, content_id=content_id, body=body)).index
        return self._spent(before=mine).get(approval.word.entry, 0) < approval.word.uses

    def _answered(self, text: str) -> Iterator[Case]:
        """Yield the cases of this very request about which something was said, oldest first."""
        words = self._words()
        spent = self._spent() if words else {}
        for index in sorted(words):
            entry = self._ledger.get(index)
            stage, commitment = _stage(entry), entry.body.get("request_commitment")
            same = isinstance(commitment, Mapping) and check_commitment(text, self._key, _texts(commitment))
            if stage is not None and same:
                yield Case(entry, stage, tuple(words[index]), spent)

    def _check_ledger(self) -> None:
        """Verify the whole ledger: a denial or a use that was edited away is in no row that could be looked at."""
        report = self._ledger.verify(self._public_key)
        if not report.ok:
            raise LedgerDamagedError(f"the ledger does not verify: {report.problems[0].summary}", remedy=_VERIFY)

    # -- reading -----------------------------------------------------------------------------------------------------

    def _entries(self, kind: str) -> Iterator[Entry]:
        for entry in self._ledger.entries(kind=kind):
            if entry.damage:
                raise LedgerDamagedError(f"entry {entry.index}: {entry.damage}", remedy=_VERIFY)
            yield entry

    def _words(self, *, names: bool = False) -> dict[int, list[Word]]:
        found: dict[int, list[Word]] = {}
        for entry in self._entries("reviewed"):
            body: Mapping[str, Any] = entry.body
            said = entry.event.action
            if type(body.get("of")) is not int or said not in ("approve", "deny"):
                continue  # another use of the same kind
            answer: Answer = "approve" if said == "approve" else "deny"
            expires, uses = None, 0
            try:
                if answer == "approve":
                    expires, uses = dt.datetime.fromisoformat(str(body["expires"])), int(body["uses"])
                by, reason = (self._said_by(entry, name) if names else "" for name in ("by", "reason"))
                word = Word(entry.index, answer, by, reason, entry.time, expires, uses)
            except (KeyError, ValueError, TypeError) as error:
                raise LedgerDamagedError(f"entry {entry.index} is no review: {error}", remedy=_VERIFY) from error
            found.setdefault(int(body["of"]), []).append(word)
        return found

    def _said_by(self, entry: Entry, name: str) -> str:
        return "" if self._personal is None else self._personal.text(entry, name)

    def _spent(self, before: int | None = None) -> dict[int, int]:
        """Uses of each approval, by runs that did not break off: what failed or was cancelled drew nothing."""
        uses = [e for e in self._entries("approval_used") if before is None or e.index < before]
        if not uses:
            return {}
        broken = {e.content_id for kind in ("failed", "cancelled", "withdrawn") for e in self._entries(kind)}
        found: dict[int, int] = {}
        for entry in uses:
            approval = entry.body.get("approval")
            if type(approval) is int and entry.content_id not in broken:
                found[approval] = found.get(approval, 0) + 1
        return found


_VERIFY: Final = "`safegen ledger fsck` says what is wrong."


def _stage(entry: Entry) -> Stage | None:
    """Where a run stopped for a person; None for an entry that is no such run."""
    stage = entry.body.get("stage", "request")
    if entry.kind != "blocked" or entry.event.action != Action.REVIEW:
        return None
    return "request" if stage == "request" else "frames" if stage == "frames" else None


def _texts(commitment: Mapping[str, Json]) -> dict[str, str]:
    return {name: str(value) for name, value in commitment.items()}


def _asked(decision: Decision | Mapping[str, Any] | Any) -> Iterator[tuple[str, str]]:
    if isinstance(decision, Decision):
        yield from ((r.category, r.source) for r in decision.reasons if r.action.stops)
    elif isinstance(decision, Mapping):
        for reason in decision.get("reasons", ()):
            if isinstance(reason, Mapping) and reason.get("action") in (Action.REVIEW, Action.BLOCK):
                yield str(reason.get("category")), str(reason.get("source"))
