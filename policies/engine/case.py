"""One decision in the making: scores, reasons and runs as they come in, and the decision that they amount to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from safegen.policies.pack.model import KEEPER, Pack
from safegen.policies.text.hits import Hit
from safegen.types import Action, ClassifierRun, Decision, Reason, RunStatus, Span

MINORS = ("minors_sexual", "minors_harm")
"""Categories of texts whose words no decision shows, at whatever score."""

MINORS_PRESENT = "minors_present"
"""Raised by any mention of somebody under age: no record may hold such a text in clear."""

_MAX_SPAN = 80
_MAX_REASONS = 40  # a text of many matches is explained by its strongest ones


@dataclass(slots=True)
class Case:
    """What is known so far about one request or clip."""

    pack: Pack
    scores: dict[str, float] = field(default_factory=dict)
    reasons: list[Reason] = field(default_factory=list)
    runs: list[ClassifierRun] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    rewritable: list[tuple[str, tuple[int, int]]] = field(default_factory=list)  # category, range of the prompt
    spans: list[Span] = field(default_factory=list)
    minors: bool = False
    present: bool = False  # somebody under age is mentioned

    def score(self, category: str, value: float) -> None:
        """Keep the highest score of a category."""
        self.scores[category] = max(self.scores.get(category, 0.0), value)

    def failure(self, run: ClassifierRun, source: str) -> None:
        """Record a run that did not take place; it decides, unless the pack can do without the classifier."""
        self.runs.append(run)
        if not run.required:
            return
        missing = run.status is RunStatus.NOT_RUN
        action = self.pack.on_missing_classifier if missing else self.pack.on_error
        category = "classifier_missing" if missing else "classifier_failed"
        self.reasons.append(Reason(category, action, 1.0, 1.0, source, run.name))

    def hits(self, name: str, source: str, raw: str, hits: Sequence[Hit]) -> None:
        """Judge what a classifier found in a text, by the highest score of each category."""
        best: dict[str, Hit] = {}
        for hit in hits:
            self.minors |= hit.category in MINORS
            self.present |= hit.category == MINORS_PRESENT
            if hit.category not in best or hit.score > best[hit.category].score:
                best[hit.category] = hit
        for category, hit in best.items():
            self._hit(name, source, raw, hit)
            rule = self.pack.rules.get(category)
            if not is_negative(source) and rule is not None and rule.judge(hit.score)[0] is Action.REWRITE:
                same = [h for h in hits if h.category == category and rule.judge(h.score)[0] is Action.REWRITE]
                # Only the prompt itself is rewritten; another text that would need it has no place there.
                self.rewritable += [(category, h.span if source == "prompt" else (0, 0)) for h in same]

    def _hit(self, name: str, source: str, raw: str, hit: Hit) -> None:
        rule = self.pack.rules.get(hit.category)
        negative = is_negative(source)  # naming what to avoid is no offence
        if not negative:
            self.score(hit.category, hit.score)
        if rule is None:  # the pack does not know the category; it asks nothing of it
            return
        action, threshold = rule.judge(hit.score)
        if action is Action.ALLOW:
            return
        span = "" if rule.withhold_span else shown_span(raw, hit.span)
        self.reasons.append(
            Reason(
                hit.category, Action.ALLOW if negative else action, hit.score, threshold, source, hit.detail or name,
                hit.view, span,
            )
        )  # fmt: skip

    def decide(self, seconds: float) -> Decision:
        """Return the decision: the most severe action of all reasons."""
        decided = conclude(self.pack, self.scores, self.reasons, self.runs, self.sources, seconds * 1000)
        reasons, hidden = decided.reasons[:_MAX_REASONS], self._hidden()
        if hidden:
            reasons = tuple(replace(r, span="") for r in reasons)
        return replace(decided, reasons=reasons, words_withheld=hidden or self.present, spans=tuple(self.spans))

    def _hidden(self) -> bool:
        """Whether the text is about harm to minors, or nobody could tell: then no word of it is shown anywhere."""
        judged = "prompt" in self.sources
        known = any(r.name == KEEPER and r.status is RunStatus.RAN for r in self.runs)
        locked = any(
            (rule := self.pack.rules.get(r.category)) is not None and rule.locked and rule.withhold_span
            for r in self.reasons
        )
        return self.minors or locked or (judged and not known)


def conclude(
    pack: Pack,
    scores: Mapping[str, float],
    reasons: Iterable[Reason],
    runs: Iterable[ClassifierRun],
    sources: Iterable[str],
    milliseconds: float,
) -> Decision:
    """Return what follows under ``pack``: the most severe action of all reasons, which come gravest first."""
    ordered = tuple(sorted(reasons, key=lambda r: (-r.action.severity, -r.score, r.category)))
    return Decision(
        action=max((r.action for r in ordered), key=lambda a: a.severity, default=Action.ALLOW),
        scores=dict(sorted(scores.items())),
        reasons=ordered,
        classifiers=tuple(runs),
        policy_id=pack.id,
        policy_sha256=pack.sha256,
        sources=tuple(sources),
        milliseconds=milliseconds,
        policy_version=pack.version,
        schema_sha256=pack.schema_sha256,
    )


def is_negative(source: str) -> bool:
    """Whether a text names what is to be avoided: it is scored, and decides nothing."""
    return source.startswith("negative")


def check_hits(found: list[list[Hit]], count: int) -> list[list[Hit]]:
    """Return ``found``; ValueError unless it holds scores in [0, 1] for ``count`` texts."""
    if len(found) != count:
        raise ValueError("wrong number of results")
    for hits in found:
        for hit in hits:
            if not (math.isfinite(hit.score) and 0.0 <= hit.score <= 1.0):
                raise ValueError("score outside [0, 1]")
    return found


def shown_span(raw: str, where: tuple[int, int]) -> str:
    """Return the matched words, cut to a readable length; nothing where they are the whole text."""
    words = _plain(raw[where[0] : where[1]])
    if words == _plain(raw):
        return ""
    return words if len(words) <= _MAX_SPAN else f"{words[: _MAX_SPAN - 1]}…"


def _plain(text: str) -> str:
    """Return the text on one line, without characters that do not print."""
    return " ".join("".join(c if c.isprintable() else " " * c.isspace() for c in text).split())
