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

from safegen.errors import BlockedError, PolicyError
from safegen.policies.classifier import NgramClassifier
from safegen.policies.frame_joint import JointHit, Where, joint_hits
from safegen.policies.frame_judging import Looked, judge_category, look
from safegen.policies.frames import FrameClassifier, NudeNet
from safegen.policies.hits import Hit, TextClassifier
from safegen.policies.language import unreadable
from safegen.policies.lexicon import Lexicon
from safegen.policies.normalise import View, views_of
from safegen.policies.pack import Pack, list_packs, load_pack
from safegen.policies.request import Request, check_frames, check_request
from safegen.types import Action, ClassifierRun, Decision, Json, Reason, RunStatus, Span

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FRAME_CLASSIFIERS", "TEXT_CLASSIFIERS", "Engine", "Request", "list_packs"]

TEXT_CLASSIFIERS: Mapping[str, Callable[[], TextClassifier]] = {"lexicon": Lexicon.load, "ngram": NgramClassifier.load}
FRAME_CLASSIFIERS: Mapping[str, Callable[[], FrameClassifier]] = {"nudenet": NudeNet}
_T = TypeVar("_T")
FRAME_STAGE_SECONDS = 30.0
"""What a frame classifier may take for one call before it counts as failed, beyond ``FRAME_SECONDS`` a frame."""
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
    spans: list[Span] = field(default_factory=list)

    def add(self, reason: Reason) -> None:
        if not _negative(reason.source) and not math.isnan(reason.score):
            self.scores[reason.category] = max(self.scores.get(reason.category, 0.0), reason.score)
        self.reasons.append(reason)


@dataclass(frozen=True, slots=True)
class _Context:
    """What the texts beside pictures hold: word lists that occur, categories raised; or why they could not be read."""

    words: frozenset[str]
    topics: frozenset[str]
    failed: str = ""


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
        frame_seconds: float = FRAME_STAGE_SECONDS,
    ) -> None:
        """Load the pack's text classifiers; one that cannot load makes every decision a block, with the reason."""
        self.pack = pack
        self._text = {name: _load(name, text_classifiers) for name in pack.text_classifiers}
        self._frame_factories = frame_classifiers
        self._frame_seconds = frame_seconds
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
            for source, raw in request.all_texts():
                owners.append(case)
                texts.append(_Text(source, raw, views_of(raw)))
                case.sources.append(source)
        self._judge_texts(texts, owners)
        share = (perf_counter() - started) / max(len(asked), 1)
        decisions = []
        for request, case in zip(asked, cases, strict=True):
            began = perf_counter()
            clips: list[tuple[str, Sequence[NDArray[np.uint8]], float]] = []
            if request.images:
                clips.append(("image", request.images, 0.0))
            if request.video is not None:
                clips.append(("video", request.video.frames, request.video.fps))
            clips += [(name, clip.frames, clip.fps) for name, clip in request.clips]
            if clips:
                context = self._context(request.all_texts(), case)
                for source, frames, fps in clips:
                    self._judge_clip(frames, fps, source, case, "conditioning", context)
            decisions.append(self._decide(case, share + perf_counter() - began))
        return decisions

    def judge_frames(self, frames: NDArray[np.uint8], fps: float, text: str = "") -> Decision:
        """Judge generated frames, uint8 [T, H, W, 3] RGB; ``fps`` gives the times in the reasons (0 for stills).

        ``text`` is what they were generated from: what a picture shows may depend on it (``data/joint.yaml``).
        """
        started = perf_counter()
        check_frames(frames, fps)
        case = _Case()
        self._judge_clip(frames, fps, "frames", case, "frames", self._context([("prompt", text)], _Case()))
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
            if "prompt" in text.source and not _negative(text.source) and (why := unreadable(text.raw, text.views)):
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
            if _negative(text.source):
                if action is Action.ALLOW:
                    continue
                action = Action.ALLOW  # naming what to avoid is no offence
            elif action is Action.ALLOW:
                case.scores[category] = max(case.scores.get(category, 0.0), hit.score)
                continue
            span = "" if rule.withhold_span else _span(text.raw, hit.span)
            case.add(Reason(category, action, hit.score, threshold, text.source, hit.detail or name, hit.view, span))

    # -- frames ------------------------------------------------------------------------------------------------

    def _context(self, texts: Sequence[tuple[str, str]], case: _Case) -> _Context:
        """Return what pictures are judged together with: the word lists and the categories that the texts reach."""
        topics = {c for c, score in case.scores.items() if c in self.pack.rules and self.pack.rules[c].lowest <= score}
        try:
            lexicon = self._text.get("lexicon")
            lexicon = lexicon if isinstance(lexicon, Lexicon) else Lexicon.load()
            words = [lexicon.lists_in(views_of(raw)) for source, raw in texts if not _negative(source)]
        except Exception as exc:
            return _Context(frozenset(), frozenset(topics), f"{type(exc).__name__}")
        return _Context(frozenset().union(*words), frozenset(topics))

    def _judge_clip(
        self,
        frames: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
        fps: float,
        source: str,
        case: _Case,
        where: Where,
        context: _Context,
    ) -> None:
        case.sources.append(source)
        ran = False
        for name in self.pack.frames.classifiers:
            if name not in self._frames:
                self._frames[name] = _load(name, self._frame_factories)
            classifier = self._frames[name]
            if isinstance(classifier, ClassifierRun):
                self._record_failure(case, classifier, source)
                continue
            started = perf_counter()
            try:
                looked = look(classifier, list(frames), fps, self.pack.frames, self._frame_seconds)
                joint = joint_hits(looked, where, self.pack.frames.min_hits, context.words, context.topics)
                if context.failed:
                    raise PolicyError(f"the text beside the pictures could not be read: {context.failed}")
            except Exception as exc:
                self._record_failure(case, _run(classifier, RunStatus.FAILED, started, 1, type(exc).__name__), source)
                continue
            ran = True
            case.runs.append(
                _run(classifier, RunStatus.RAN, started, 1, f"{len(looked.times)} of {len(frames)} frames")
            )
            self._apply_frames(looked, joint, source, name, case)
        if not ran:  # whatever the pack makes of a failure: pictures that no model looked at are not judged
            case.reasons.append(Reason("frames_not_judged", Action.BLOCK, 1.0, 1.0, source, "engine"))

    def _apply_frames(self, looked: Looked, joint: Sequence[JointHit], source: str, name: str, case: _Case) -> None:
        for category, rule in self.pack.frames.rules.items():
            score, reason, spans = judge_category(looked, category, rule, self.pack.frames, source, name)
            case.scores[category] = max(case.scores.get(category, 0.0), score)
            case.spans.extend(spans)
            if reason is not None:
                case.add(reason)
        for hit in joint:
            of_category = self.pack.rules.get(hit.rule.category)
            if of_category is None:
                continue
            action, threshold = of_category.judge(hit.rule.score)
            when = None if hit.frame is None else round(hit.frame / looked.fps, 3)
            case.add(Reason(
                hit.rule.category, action, hit.rule.score, threshold, source, f"joint:{hit.rule.id}", time_s=when
            ))  # fmt: skip

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
            spans=tuple(case.spans),
        )


def _negative(source: str) -> bool:
    """Whether a text names what is to be avoided: it is scored, and decides nothing."""
    return source.startswith("negative")


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
