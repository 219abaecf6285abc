"""Holds consent records against a request: whether each holds now and for this, and what that changes.

A consent turns a wait for review into leave to go on, where the only thing to review is whose likeness is drawn, and
every person recognised has allowed it. It lifts no block and no other category's review.
"""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from safegen.consent.trust import Revocation, Signer, verify_signature
from safegen.types import Action, Decision, Json, Reason

if TYPE_CHECKING:
    from safegen.consent.record import Consent, SignedConsent
    from safegen.policies.pack.loading import Pack

LIFTED: Final = frozenset({"likeness"})
"""The categories whose review a consent can answer."""

MEANING: Final[Mapping[str, str]] = {
    "valid": "holds",
    "unknown_signer": "is signed by a key that this home does not trust",
    "altered": "was changed after it was signed",
    "revoked": "was revoked",
    "not_yet_valid": "does not hold yet",
    "expired": "has expired",
    "use_not_allowed": "does not allow the use of the likeness",
    "other_project": "is for other projects",
    "excluded_context": "excludes what this request is about",
    "other_person": "is by somebody else than the person recognised",
}
"""Every state of a record and what it says, as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class ConsentCheck:
    """How one record stands. ``state`` is a key of ``MEANING``; no personal data, so that it may be recorded."""

    id: str
    digest: str
    signer: str
    state: str

    @property
    def valid(self) -> bool:
        """Whether the record holds."""
        return self.state == "valid"

    def to_json(self) -> dict[str, Json]:
        """Return the check as plain JSON values."""
        return {"id": self.id, "sha256": self.digest, "signer": self.signer, "state": self.state}


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What records are held against: the trusted signers, the revocations, the time, and the project that is named."""

    signers: tuple[Signer, ...]
    revoked: Mapping[str, Revocation]
    now: dt.datetime
    project: str = ""


def check_consent(signed: SignedConsent, given: Circumstances) -> str:
    """Return the record's state as far as it depends on no request: signature, revocation, time, use, project."""
    consent = signed.consent
    if problem := verify_signature(signed, given.signers):
        return problem
    if consent.id in given.revoked:
        return "revoked"
    if given.now < consent.not_before:
        return "not_yet_valid"
    if given.now >= consent.expires:
        return "expired"
    if "likeness" not in consent.uses:
        return "use_not_allowed"
    if consent.projects and given.project not in consent.projects:
        return "other_project"
    return "valid"


def apply_consents(
    decision: Decision,
    signed: Sequence[SignedConsent],
    given: Circumstances,
    *,
    pack: Pack,
    people: AbstractSet[str],
    images: Sequence[str] = (),
) -> tuple[Decision, tuple[ConsentCheck, ...]]:
    """Return the decision that the records leave, and how each of them stands.

    ``people``: the names recognised in the texts; ``images``: SHA-256 digests of the conditioning files. Review of a
    likeness is lifted where records that hold cover every name, and every file in which a face was seen with it.
    """
    checks = tuple(_check(one, decision, given, pack, people, images) for one in signed)
    if decision.action is not Action.REVIEW or not signed:
        return decision, checks
    asked = [r for r in decision.reasons if r.action.stops]
    likeness = [r for r in asked if r.category in LIFTED]
    if not likeness:
        return decision, checks
    held = [one.consent for one, check in zip(signed, checks, strict=True) if check.valid]
    if not _covered(held, people, images, likeness):
        failed = [Reason(f"consent_{c.state}", Action.REVIEW, 1.0, 1.0, "consent", c.id) for c in checks if not c.valid]
        if not failed:
            failed = [Reason("consent_other_person", Action.REVIEW, 1.0, 1.0, "consent", c.id) for c in checks]
        return replace(decision, reasons=(*failed, *decision.reasons)), checks
    used = tuple(Reason("consent", Action.ALLOW, 1.0, 1.0, "consent", c.id) for c in checks if c.valid)
    reasons = tuple(replace(r, action=Action.ALLOW) if r in likeness else r for r in decision.reasons)
    action = max((r.action for r in reasons), key=lambda a: a.severity, default=Action.ALLOW)
    return replace(decision, action=action, reasons=(*reasons, *used)), checks


def _check(
    signed: SignedConsent,
    decision: Decision,
    given: Circumstances,
    pack: Pack,
    people: AbstractSet[str],
    images: Sequence[str],
) -> ConsentCheck:
    consent = signed.consent
    state = check_consent(signed, given)
    if state == "valid" and any(_reached(c, decision, pack) for c in consent.excluded_contexts):
        state = "excluded_context"
    if state == "valid" and not any(is_named(consent, name) for name in people) and not set(images) & {*consent.images}:
        state = "other_person"
    return ConsentCheck(consent.id, signed.digest, signed.signer, state)


def _reached(context: str, decision: Decision, pack: Pack) -> bool:
    """Whether the request reaches a category's lowest threshold; one that the pack does not judge counts as reached."""
    rule = pack.rules.get(context)
    return rule is None or decision.scores.get(context, 0.0) >= rule.lowest


def _covered(
    held: Sequence[Consent], people: AbstractSet[str], images: Sequence[str], reasons: Sequence[Reason]
) -> bool:
    """Whether records cover all that is to be reviewed: every name, and the pictures where a face is the reason.

    A review of words in which nobody was recognised is covered by nobody.
    """
    pictured = [r for r in reasons if r.classifier.startswith("joint:")]
    worded = len(pictured) < len(reasons)
    if not all(any(is_named(consent, name) for consent in held) for name in people):
        return False
    if worded and not people:
        return False
    allowed = {digest for consent in held for digest in consent.images}
    return not pictured or (bool(images) and set(images) <= allowed)


def is_named(consent: Consent, name: str) -> bool:
    """Whether a name is the subject's or one of its aliases: case, accents, hyphens and a genitive aside."""
    return _bare(name) in {_bare(own) for own in consent.names}


def _bare(name: str) -> str:
    folded = unicodedata.normalize("NFKD", name).casefold()
    letters = "".join(c for c in folded if not unicodedata.combining(c))
    return " ".join(re.sub(r"[^\w\s]|_", " ", re.sub(r"['’]s?\b", "", letters)).split())
