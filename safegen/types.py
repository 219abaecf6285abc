"""Frozen value objects that pass between the parts of safegen. Imports nothing of ours."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NewType, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Json: TypeAlias = "bool | int | float | str | list[Json] | tuple[Json, ...] | Mapping[str, Json] | None"

Progress: TypeAlias = Callable[[str, float, float], None]
"""``progress(stage, done, total)``: told about every stage that can take over a second."""

ContentId = NewType("ContentId", str)
"""64 random bits that name one generated clip, as 16 lower-case hex digits."""

_CONTENT_ID = re.compile(r"[0-9a-f]{16}")


def new_content_id() -> ContentId:
    """Draw a fresh content id from the operating system's entropy."""
    return ContentId(secrets.token_hex(8))


def parse_content_id(text: str) -> ContentId:
    """Return ``text`` as a content id; ValueError if it is not 16 lower-case hex digits."""
    if not _CONTENT_ID.fullmatch(text):
        raise ValueError(f"not a content id (16 lower-case hex digits): {text!r}")
    return ContentId(text)


def soft_binding_alg(scheme: str) -> str:
    """The name under which C2PA soft bindings state a watermark scheme of ours (reverse DNS, with its version)."""
    return f"org.safegen.{scheme}.1"


LOOKS_ALG = soft_binding_alg("video-hash")
"""The soft binding that is taken from the pictures instead of put into them (``safegen.media.video_hash``)."""


class Basis(StrEnum):
    """What a finding rests on (EU Code of Practice, measure 2.3)."""

    METADATA = "metadata"
    WATERMARK = "watermark"
    LEDGER = "ledger"
    FORENSIC = "forensic"
    LABELS = "labels"


class Status(StrEnum):
    """How a check ended. Only ``inconclusive`` and ``not_run`` mean that the question stays open."""

    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    ABSENT = "absent"
    INCONCLUSIVE = "inconclusive"
    NOT_RUN = "not_run"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's outcome: its basis, how it ended, one plain sentence, and the evidence for it."""

    basis: Basis
    status: Status
    summary: str
    evidence: Mapping[str, Json] = field(default_factory=dict)

    def to_json(self) -> dict[str, Json]:
        """Return the finding as plain JSON values."""
        return {
            "basis": str(self.basis),
            "status": str(self.status),
            "summary": self.summary,
            "evidence": dict(self.evidence),
        }


class VerdictKind(StrEnum):
    """The overall answer about a file; docs/verdicts.md gives the definitions."""

    VERIFIED = "verified"
    RECOVERED = "recovered"
    PARTIAL = "partial"
    TAMPERED = "tampered"
    UNVERIFIED = "unverified"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The overall answer and the findings that it follows from. ``entry`` is the ledger entry's index."""

    verdict: VerdictKind
    content_id: ContentId | None
    entry: int | None
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Json]:
        """Return the verdict as plain JSON values, in the documented shape."""
        return {
            "verdict": str(self.verdict),
            "content_id": self.content_id,
            "entry": self.entry,
            "findings": [f.to_json() for f in self.findings],
        }


class Action(StrEnum):
    """What moderation decided, mildest first. ``review`` and ``block`` stop a generation; ``flag`` only records;
    ``rewrite`` lets a changed prompt through."""

    ALLOW = "allow"
    FLAG = "flag"
    REWRITE = "rewrite"
    REVIEW = "review"
    BLOCK = "block"

    @property
    def severity(self) -> int:
        """0 for allow up to 4 for block: the most severe of several wins."""
        return list(Action).index(self)

    @property
    def stops(self) -> bool:
        """Whether generation must not go on without a person's approval."""
        return self.severity >= Action.REVIEW.severity


class RunStatus(StrEnum):
    """Whether a classifier really ran."""

    RAN = "ran"
    NOT_RUN = "not_run"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ClassifierRun:
    """Which classifier was asked, in which version, and whether it really ran."""

    name: str
    version: str
    weights_sha256: str | None
    status: RunStatus
    milliseconds: float
    detail: str = ""
    required: bool = True  # by the policy: without it nothing passes

    def to_json(self) -> dict[str, Json]:
        """Return the run as plain JSON values."""
        return {
            "name": self.name,
            "version": self.version,
            "weights_sha256": self.weights_sha256,
            "status": str(self.status),
            "milliseconds": round(self.milliseconds, 2),
            "detail": self.detail,
            "required": self.required,
        }


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a category's action is what it is: which input, classifier and view, the span that matched, the score."""

    category: str
    action: Action
    score: float
    threshold: float
    source: str  # "prompt", "negative_prompt", "image", "video", "frames"
    classifier: str
    view: str = ""  # which normalised view of a text matched
    span: str = ""  # the matched words, empty where the policy withholds them
    time_s: float | None = None  # where in a clip, in seconds

    def to_json(self) -> dict[str, Json]:
        """Return the reason as plain JSON values."""
        return {
            "category": self.category,
            "action": str(self.action),
            "score": round(self.score, 4),
            "threshold": self.threshold,
            "source": self.source,
            "classifier": self.classifier,
            "view": self.view,
            "span": self.span,
            "time_s": self.time_s,
        }


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A prompt that was changed so that it passes: the words to generate from, and what was taken out why."""

    prompt: str = field(repr=False)  # never part of a record: those hold commitments
    categories: tuple[str, ...]
    replaced: int  # pieces of the prompt
    rounds: int

    def to_json(self) -> dict[str, Json]:
        """Return what was done, without the words."""
        return {"categories": list(self.categories), "replaced": self.replaced, "rounds": self.rounds}


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a clip that hit, in seconds: from ``start_s`` up to, not including, ``end_s``.

    It reaches to the nearest samples on either side that were found clean; ``first_s`` is the first frame that was seen
    to hit. ``remedy`` is what the policy wants done to it ("pixelate", "drop"), empty where it stops.
    """

    category: str
    action: Action
    score: float
    source: str
    start_s: float
    end_s: float
    first_s: float
    remedy: str = ""

    def to_json(self) -> dict[str, Json]:
        """Return the span as plain JSON values."""
        return {
            "category": self.category,
            "action": str(self.action),
            "score": round(self.score, 4),
            "source": self.source,
            "start_s": self.start_s,
            "end_s": self.end_s,
            "first_s": self.first_s,
            "remedy": self.remedy,
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy decided about a request or about frames, with everything needed to explain it."""

    action: Action
    scores: Mapping[str, float]
    reasons: tuple[Reason, ...]
    classifiers: tuple[ClassifierRun, ...]
    policy_id: str
    policy_sha256: str
    sources: tuple[str, ...]  # which inputs were judged
    milliseconds: float = 0.0
    policy_version: str = ""
    schema_sha256: str = ""  # digest of the JSON Schema that the pack was checked against
    rewrite: Rewrite | None = None
    words_withheld: bool = False  # the text concerns minors: no record may ever hold it in clear
    spans: tuple[Span, ...] = ()  # where in a clip the categories hit

    @property
    def explanation(self) -> str:
        """One sentence for people; names categories and never quotes the input."""
        hits = sorted({r.category for r in self.reasons if r.action.severity == self.action.severity})
        if self.action is Action.ALLOW or not hits:
            return f"{self.action} under policy {self.policy_id}"
        return f"{self.action} under policy {self.policy_id}: {', '.join(hits)}"

    def to_json(self) -> dict[str, Json]:
        """Return the decision as plain JSON values."""
        return {
            "action": str(self.action),
            "explanation": self.explanation,
            "scores": {k: round(v, 4) for k, v in self.scores.items()},
            "reasons": [r.to_json() for r in self.reasons],
            "classifiers": [c.to_json() for c in self.classifiers],
            "policy_id": self.policy_id,
            "policy_version": self.policy_version,
            "policy_sha256": self.policy_sha256,
            "schema_sha256": self.schema_sha256,
            "sources": list(self.sources),
            "rewrite": None if self.rewrite is None else self.rewrite.to_json(),
            "words_withheld": self.words_withheld,
            "spans": [s.to_json() for s in self.spans],
            "milliseconds": round(self.milliseconds, 2),
        }


@dataclass(frozen=True, slots=True)
class Clip:
    """Decoded frames: uint8 [T, H, W, 3] RGB, and frames per second (stills have T = 1 and fps 0)."""

    frames: NDArray[np.uint8]
    fps: float
