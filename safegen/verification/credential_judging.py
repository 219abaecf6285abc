"""Step (2) of verification: what a file's credential is worth, and what it says, in words for people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from safegen.provenance.credential import Credential, CredentialState, Origin
from safegen.provenance.vocabulary import MALFORMED, MISMATCHED
from safegen.types import Basis, ContentId, Finding, Json, Status

_MOST_INGREDIENTS: Final = 3


@dataclass(frozen=True, slots=True)
class Judged:
    """Outcome of step (2). ``ours``: intact and signed under this home's root."""

    finding: Finding
    credential: Credential | None = None
    ours: bool = False

    @property
    def denies_ai(self) -> bool:
        """Whether a sound credential names a camera or a person as the origin, and nowhere a model."""
        found = self.credential
        sound = found is not None and self.finding.status is Status.PASS
        return sound and found is not None and found.denies_ai and not found.ai_generated


def judge_credential(found: Credential) -> Judged:
    """Return what the credential that was read is worth: ``pass`` where it is intact, whoever signed it."""

    def outcome(status: Status, summary: str, *, ours: bool = False) -> Judged:
        return Judged(Finding(Basis.METADATA, status, summary, _evidence(found)), found, ours)

    match found.state:
        case CredentialState.ABSENT:
            why = f" ({found.problem})" if found.problem else ""
            evidence: dict[str, Json] = {"remote_url": found.remote_url} if found.remote_url else {}
            summary = f"The file carries no C2PA credential{why}."
            return Judged(Finding(Basis.METADATA, Status.ABSENT, summary, evidence))
        case CredentialState.TRUSTED:
            summary = f"The C2PA credential{_where(found)} is intact and signed by this home.{_identity(found)}"
            return outcome(Status.PASS, summary, ours=True)
        case CredentialState.VALID:
            return outcome(Status.PASS, " ".join(_of_others(found)))
        case CredentialState.UNREADABLE:
            summary = f"Whether there is a C2PA credential could not be read: {found.problem}."
            return outcome(Status.INCONCLUSIVE, summary)
        case _ if found.only_expired:
            summary = "The C2PA credential is intact; its certificate has expired since, without a trusted time-stamp."
            return outcome(Status.PASS, summary)
        case _:
            return outcome(Status.FAIL, f"The C2PA credential does not hold: {_what_is_wrong(found)}.")


def keeps_inside(metadata: Finding, content_id: ContentId | None) -> bool:
    """Whether a sound credential keeps one about this clip as its parent: whoever signed last has dropped nothing."""
    inside = metadata.evidence.get("ingredients")
    return metadata.status is Status.PASS and content_id is not None and isinstance(inside, list) and any(
        isinstance(i, dict) and (i.get("relationship"), i.get("content_id")) == ("parentOf", content_id) for i in inside
    )  # fmt: skip


def _of_others(found: Credential) -> Iterator[str]:
    """What another's credential says: who signed it, who vouches for them, and what it claims of the pictures."""
    who = found.organisation or found.signer or "an unnamed signer"
    if found.signer and found.signer != who:
        who = f"{who} ({found.signer})"
    vouched = f"whom the trust list {found.listed_by} vouches for" if found.listed_by else "an unknown signer"
    yield f"The C2PA credential{_where(found)} is intact, signed by {who}, {vouched}; not by this home."
    if found.ai_generated:
        origin = "AI-made, in whole or in part"
    elif found.denies_ai:
        origin = "made by a camera or a person"
    else:
        origin = "nothing of whether AI made it"
    made_with = f", with {found.claim_generator}" if found.claim_generator else ""
    when = found.timestamp or found.claimed_time
    dated = f", {when}" if when else ""
    yield f"It says: {origin}{made_with}{dated}{_made_from(found)}.{_identity(found)}"


def _made_from(found: Credential) -> str:
    titles = [i.title or "an unnamed file" for i in found.ingredients]
    if not titles:
        return ""
    more = f" and {len(titles) - _MOST_INGREDIENTS} more" if len(titles) > _MOST_INGREDIENTS else ""
    return f", made from {', '.join(titles[:_MOST_INGREDIENTS])}{more}"


def _where(found: Credential) -> str:
    return f" beside the file ({found.sidecar})" if found.sidecar else ""


def _identity(found: Credential) -> str:
    return " Whose identity it names could not be confirmed." if found.identity_problems else ""


def _what_is_wrong(found: Credential) -> str:
    """The failures, told apart: bytes that were changed, a store that is malformed, and what breaks another rule."""
    wrong = [code for code in found.failure_codes if code != "signingCredential.untrusted"]
    if not wrong:
        return found.problem or "its signature is not that of its signer"
    said = []
    for code in wrong:
        words = found.explanations.get(code, "")
        said.append(f"{code} ({words})" if words else code)
    if any(_rules_alone(found, code) for code in wrong):
        kind = "it does not meet the specification"
    elif any(code in MISMATCHED for code in wrong):
        kind = "bytes were changed after it was signed"
    elif any(code in MALFORMED for code in wrong):
        kind = "it is malformed"
    else:
        kind = "it does not meet the specification"
    return f"{kind}: {', '.join(said)}"


def _rules_alone(found: Credential, code: str) -> bool:
    """Whether a mismatch is one of rules: the library reports an exclusion that lies elsewhere as one of bytes."""
    words = found.explanations.get(code, "").lower()
    return code.endswith(".mismatch") and "exclusion" in words


def _evidence(found: Credential) -> dict[str, Json]:
    return {
        "state": str(found.state),
        "origin": found.sidecar if found.origin is Origin.SIDECAR else str(found.origin),
        "manifest_id": found.manifest_id,
        "signer": found.signer,
        "organisation": found.organisation,
        "claim_generator": found.claim_generator,
        "ai_generated": found.ai_generated,
        "denies_ai": found.denies_ai,
        "listed_by": found.listed_by or None,
        "claimed_time": found.claimed_time,
        "timestamp": found.timestamp,
        "timestamp_trusted": found.timestamp_trusted,
        "failures": list(found.failure_codes),
        "explanations": dict(found.explanations),
        "identity_problems": list(found.identity_problems),
        "ingredients": [
            {"title": i.title, "relationship": i.relationship, "content_id": i.content_id} for i in found.ingredients
        ],
    }
