"""The moderation engine: judges prompts, images and frames under one policy pack and explains every decision.

    engine = Engine.load("default")
    decision = engine.judge(Request("a red ball bouncing on grass at sunset"))
    decision.action.stops  # False

It fails closed: a classifier that is missing, raises, or returns something that is not a score ends in the pack's
``on_error`` or ``on_missing_classifier`` action with a failed run on record, never in a silent pass. Nothing here
imports torch; onnxruntime and OpenCV load only once there are frames to look at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NoReturn, TypeVar

import numpy as np

from safegen.errors import BlockedError
from safegen.policies.classifier import NgramClassifier
from safegen.policies.frames import FrameClassifier, NudeNet, sample_times
from safegen.policies.hits import Hit, TextClassifier
from safegen.policies.language import unreadable
from safegen.policies.lexicon import Lexicon
from safegen.policies.normalise import View, views_of
from safegen.policies.pack import Pack, Rule, list_packs, load_pack
from safegen.policies.request import Request, check_frames, check_request
from safegen.types import Action, ClassifierRun, Decision, Json, Reason, RunStatus

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FRAME_CLASSIFIERS", "TEXT_CLASSIFIERS", "Engine", "Request", "list_packs"]

TEXT_CLASSIFIERS: Mapping[str, Callable[[], TextClassifier]] = {"lexicon": Lexicon.load, "ngram": NgramClassifier.load}
FRAME_CLASSIFIERS: Mapping[str, Callable[[], FrameClassifier]] = {"nudenet": NudeNet}
_T = TypeVar("_T")
_BATCH = 1024  # requests; bounds the memory of the feature counts
_MAX_SPAN = 80
_MAX_REASONS = 40  # a text of many matches is explained by its strongest ones


@dataclass(slots=True)
class _Case:
    """One decision in the making."""

    scores: dict[str, float] = field(default_factory=dict)
    reasons: list[Reason] = field(default_factory=list)
    runs: list[ClassifierRun] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    def add(self, reason: Reason) -> None:
        if reason.source != "negative_prompt" and not math.isnan(reason.score):
            self.scores[reason.category] = max(self.scores.get(reason.category, 0.0), reason.score)
        self.reasons.append(reason)


@dataclass(frozen=True, slots=True)
class _Text:
    source: str
    raw: str
    views: tuple[View, ...]


class Engine:
    """Judges requests and frames under one pack. Safe to share between threads once loaded."""

    def __init__(
        self,
        pack: Pack,
        *,
        text_classifiers: Mapping[str, Callable[[], TextClassifier]] = TEXT_CLASSIFIERS,
        frame_classifiers: Mapping[str, Callable[[], FrameClassifier]] = FRAME_CLASSIFIERS,
    ) -> None:
        """Load the pack's text classifiers; one that cannot load makes every decision a block, with the reason."""
        self.pack = pack
        self._text = {name: _load(name, text_classifiers) for name in pack.text_classifiers}
        self._frame_factories = frame_classifiers
        self._frames: dict[str, FrameClassifier | ClassifierRun] = {}

    @classmethod
    def load(cls, pack: str | Path = "default") -> Engine:
        """Load a shipped pack by name, or one from a YAML file. ConfigError names the field that is wrong."""
        return cls(load_pack(pack))

    def judge(self, request: Request) -> Decision:
        """Judge one request. InputError: the prompt is empty, too long, no text, or an image is no uint8 RGB array."""
        return self.judge_many([request])[0]

    def judge_many(self, requests: Iterable[Request | str]) -> list[Decision]:
        """Judge requests one by one, sharing the classifiers' batches; a string is a request with that prompt."""
        asked = [Request(r) if isinstance(r, str) else r for r in requests]
        for number, request in enumerate(asked):
            check_request(request, f"request {number}: " if len(asked) > 1 else "")
        decisions: list[Decision] = []
        for at in range(0, len(asked), _BATCH):
            decisions.extend(self._judge_batch(asked[at : at + _BATCH]))
        return decisions

    def _judge_batch(self, asked: Sequence[Request]) -> list[Decision]:
        started = perf_counter()
        cases = [_Case() for _ in asked]
        owners: list[_Case] = []
        texts: list[_Text] = []
        for request, case in zip(asked, cases, strict=True):
            for source, raw in (("prompt", request.prompt), ("negative_prompt", request.negative_prompt)):
                if raw.strip() or source == "prompt":
                    owners.append(case)
                    texts.append(_Text(source, raw, views_of(raw)))
                    case.sources.append(source)
        self._judge_texts(texts, owners)
        share = (perf_counter() - started) / max(len(asked), 1)
        decisions = []
        for request, case in zip(asked, cases, strict=True):
            began = perf_counter()
            if request.images:
                self._judge_clip(list(request.images), 0.0, "image", case)
            if request.video is not None:
                self._judge_clip(list(request.video.frames), request.video.fps, "video", case)
            decisions.append(self._decide(case, share + perf_counter() - began))
        return decisions

    def judge_frames(self, frames: NDArray[np.uint8], fps: float) -> Decision:
        """Judge generated frames, uint8 [T, H, W, 3] RGB; ``fps`` gives the times in the reasons (0 for stills)."""
        started = perf_counter()
        check_frames(frames, fps)
        case = _Case()
        self._judge_clip(list(frames), fps, "frames", case)
        return self._decide(case, perf_counter() - started)

    def refuse_embeddings(self) -> NoReturn:
        """Refuse a prompt that is given as embeddings without its text: no classifier can read it. BlockedError."""
        reason = Reason("embeddings_without_text", Action.BLOCK, 1.0, 1.0, "prompt", "engine")
        case = _Case(reasons=[reason], sources=["prompt_embeds"])
        raise BlockedError(
            "the prompt was given as embeddings, which cannot be moderated",
            self._decide(case, 0.0),
            remedy="Give the prompt as text.",
        )

    def describe(self) -> dict[str, Json]:
        """Return the effective policy and which classifiers are ready, as plain JSON values."""
        classifiers: list[Json] = []
        for name, loaded in self._text.items():
            classifiers.append({"kind": "text", **_posture(name, loaded)})
        for name in self.pack.frames.classifiers:
            held = self._frames.get(name)
            known = {"name": name, "status": "loads on first use"} if held is None else _posture(name, held)
            classifiers.append({"kind": "frames", **known})
        return {
            "id": self.pack.id,
            "version": self.pack.version,
            "sha256": self.pack.sha256,
            "classifiers": classifiers,
            "policy": dict(self.pack.document),
        }

    # -- texts -------------------------------------------------------------------------------------------------

    def _judge_texts(self, texts: Sequence[_Text], owners: Sequence[_Case]) -> None:
        for text, case in zip(texts, owners, strict=True):
            if text.source == "prompt" and (why := unreadable(text.raw, text.views)):
                action = self.pack.on_unsupported_language
                case.add(Reason("unsupported_language", action, 1.0, 1.0, text.source, f"language:{why}"))
        for name, classifier in self._text.items():
            if isinstance(classifier, ClassifierRun):
                for case in _distinct(owners):
                    self._record_failure(case, classifier, "prompt")
            else:
                self._score_texts(name, classifier, texts, owners)

    def _score_texts(
        self, name: str, classifier: TextClassifier, texts: Sequence[_Text], owners: Sequence[_Case]
    ) -> None:
        cases = _distinct(owners)
        started = perf_counter()
        try:
            found = _checked(classifier.score([t.views for t in texts]), len(texts))
        except Exception as exc:
            if len(cases) > 1:  # one text must not decide about the others
                for case in cases:
                    mine = [i for i, owner in enumerate(owners) if owner is case]
                    self._score_texts(name, classifier, [texts[i] for i in mine], [case] * len(mine))
                return
            self._record_failure(cases[0], _run(classifier, RunStatus.FAILED, started, 1, type(exc).__name__), "prompt")
            return
        run = _run(classifier, RunStatus.RAN, started, len(texts))
        for case in cases:
            case.runs.append(run)
        for text, case, hits in zip(texts, owners, found, strict=True):
            self._apply(name, text, hits, case)

    def _apply(self, name: str, text: _Text, hits: Sequence[Hit], case: _Case) -> None:
        best: dict[str, Hit] = {}
        for hit in hits:
            if hit.category not in best or hit.score > best[hit.category].score:
                best[hit.category] = hit
        for category, hit in best.items():
            rule = self.pack.rules.get(category)
            if rule is None:  # the pack does not know the category; it asks nothing of it
                continue
            action, threshold = rule.judge(hit.score)
            if text.source == "negative_prompt":
                if action is Action.ALLOW:
                    continue
                action = Action.ALLOW  # naming what to avoid is no offence
            elif action is Action.ALLOW:
                case.scores[category] = max(case.scores.get(category, 0.0), hit.score)
                continue
            span = "" if rule.withhold_span else _span(text.raw, hit.span)
            case.add(Reason(category, action, hit.score, threshold, text.source, hit.detail or name, hit.view, span))

    # -- frames ------------------------------------------------------------------------------------------------

    def _judge_clip(self, frames: Sequence[NDArray[np.uint8]], fps: float, source: str, case: _Case) -> None:
        case.sources.append(source)
        for name in self.pack.frames.classifiers:
            if name not in self._frames:
                self._frames[name] = _load(name, self._frame_factories)
            classifier = self._frames[name]
            if isinstance(classifier, ClassifierRun):
                self._record_failure(case, classifier, source)
                continue
            started = perf_counter()
            try:
                looked, times = self._look(classifier, frames, fps)
            except Exception as exc:
                self._record_failure(case, _run(classifier, RunStatus.FAILED, started, 1, type(exc).__name__), source)
                continue
            case.runs.append(_run(classifier, RunStatus.RAN, started, 1, f"{len(times)} of {len(frames)} frames"))
            hits_needed = 1 if fps <= 0 else min(self.pack.frames.min_hits, len(times))
            for category, rule in self.pack.frames.rules.items():
                self._apply_frames(name, category, rule, looked[category], times, hits_needed, fps, source, case)

    def _look(
        self, classifier: FrameClassifier, frames: Sequence[NDArray[np.uint8]], fps: float
    ) -> tuple[dict[str, list[float]], list[int]]:
        """Score the sampled frames and the neighbours of those that hit: a flash must not slip between samples."""
        policy = self.pack.frames
        sampled = sample_times(len(frames), fps, policy.sample_fps)
        by_frame = dict(zip(sampled, self._categories(classifier, [frames[i] for i in sampled]), strict=True))
        hot = [i for i, s in by_frame.items() if any(s[c] >= r.lowest for c, r in policy.rules.items())]
        reach = policy.min_hits - 1
        near = {j for i in hot for j in range(i - reach, i + reach + 1) if 0 <= j < len(frames)} - set(by_frame)
        if near and fps > 0:
            more = sorted(near)
            by_frame.update(zip(more, self._categories(classifier, [frames[i] for i in more]), strict=True))
        times = sorted(by_frame)
        return {c: [by_frame[i][c] for i in times] for c in policy.rules}, times

    def _categories(self, classifier: FrameClassifier, frames: Sequence[NDArray[np.uint8]]) -> list[dict[str, float]]:
        scores = np.asarray(classifier.score(frames))
        if scores.shape != (len(frames), len(classifier.classes)):
            raise ValueError("wrong number of scores")
        if not (np.isfinite(scores).all() and (scores >= 0).all() and (scores <= 1).all()):
            raise ValueError("scores outside [0, 1]")
        policy = self.pack.frames
        out = []
        for row in scores:
            found = dict.fromkeys(policy.rules, 0.0)
            for label, value in zip(classifier.classes, row, strict=True):
                category = policy.classes.get(label)
                if category is not None:
                    found[category] = max(found[category], float(value))
            out.append(found)
        return out

    def _apply_frames(
        self,
        name: str,
        category: str,
        rule: Rule,
        scores: Sequence[float],
        times: Sequence[int],
        hits_needed: int,
        fps: float,
        source: str,
        case: _Case,
    ) -> None:
        """A clip's score is its ``hits_needed``-th highest frame score, so one odd frame decides nothing."""
        score = sorted(scores, reverse=True)[hits_needed - 1]
        case.scores[category] = max(case.scores.get(category, 0.0), score)
        action, threshold = rule.judge(score)
        if action is Action.ALLOW:
            return
        first = next(i for i, s in zip(times, scores, strict=True) if s >= threshold)
        case.add(
            Reason(category, action, score, threshold, source, name, time_s=round(first / fps, 3) if fps > 0 else None)
        )

    # -- outcome -----------------------------------------------------------------------------------------------

    def _record_failure(self, case: _Case, run: ClassifierRun, source: str) -> None:
        missing = run.status is RunStatus.NOT_RUN
        action = self.pack.on_missing_classifier if missing else self.pack.on_error
        category = "classifier_missing" if missing else "classifier_failed"
        case.runs.append(run)
        case.reasons.append(Reason(category, action, 1.0, 1.0, source, run.name))

    def _withholds(self, reason: Reason) -> bool:
        """Whether a locked category was hit whose words must not be kept, not even under another category's name."""
        rule = self.pack.rules.get(reason.category)
        return rule is not None and rule.locked and rule.withhold_span

    def _decide(self, case: _Case, seconds: float) -> Decision:
        reasons = sorted(case.reasons, key=lambda r: (-r.action.severity, -r.score, r.category))[:_MAX_REASONS]
        if any(self._withholds(r) for r in reasons):
            reasons = [replace(r, span="") for r in reasons]
        action = max((r.action for r in reasons), key=lambda a: a.severity, default=Action.ALLOW)
        return Decision(
            action=action,
            scores=dict(sorted(case.scores.items())),
            reasons=tuple(reasons),
            classifiers=tuple(case.runs),
            policy_id=self.pack.id,
            policy_sha256=self.pack.sha256,
            sources=tuple(case.sources),
            milliseconds=seconds * 1000,
        )


def _load(name: str, factories: Mapping[str, Callable[[], _T]]) -> _T | ClassifierRun:
    """Load a classifier; where that fails, return the run that says so."""
    if name not in factories:
        return ClassifierRun(name, "", None, RunStatus.NOT_RUN, 0.0, "this build has no such classifier")
    started = perf_counter()
    try:
        return factories[name]()
    except Exception as exc:  # whatever a loader raises, the guard did not run: block, and say why
        return ClassifierRun(name, "", None, RunStatus.FAILED, (perf_counter() - started) * 1000, f"{exc}"[:200])


def _posture(name: str, loaded: object) -> dict[str, Json]:
    if isinstance(loaded, ClassifierRun):
        return {"name": name, "status": str(loaded.status), "detail": loaded.detail}
    version, digest = getattr(loaded, "version", ""), getattr(loaded, "weights_sha256", None)
    return {"name": name, "status": "ready", "version": version, "weights_sha256": digest}


def _run(
    classifier: TextClassifier | FrameClassifier, status: RunStatus, started: float, shared_by: int, detail: str = ""
) -> ClassifierRun:
    spent = (perf_counter() - started) * 1000 / max(shared_by, 1)
    return ClassifierRun(classifier.name, classifier.version, classifier.weights_sha256, status, spent, detail)


def _checked(found: list[list[Hit]], count: int) -> list[list[Hit]]:
    if len(found) != count:
        raise ValueError("wrong number of results")
    for hits in found:
        for hit in hits:
            if not (math.isfinite(hit.score) and 0.0 <= hit.score <= 1.0):
                raise ValueError("score outside [0, 1]")
    return found


def _span(raw: str, where: tuple[int, int]) -> str:
    """Return the matched words, cut to a readable length; nothing where they are the whole text."""
    words = _plain(raw[where[0] : where[1]])
    if words == _plain(raw):
        return ""
    return words if len(words) <= _MAX_SPAN else f"{words[: _MAX_SPAN - 1]}…"


def _plain(text: str) -> str:
    """Return the text on one line, without characters that do not print."""
    return " ".join("".join(c if c.isprintable() else " " * c.isspace() for c in text).split())


def _distinct(cases: Sequence[_Case]) -> list[_Case]:
    return list({id(case): case for case in cases}.values())
