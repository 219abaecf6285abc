"""The moderation engine: judges prompts, images and frames under one policy pack and explains every decision.

    engine = Engine.load("default")
    decision = engine.judge(Request("a red ball bouncing on grass at sunset"))
    decision.action.stops  # False

It fails closed: a required classifier that is missing, raises, takes too long, or returns something that is not a score
ends in the pack's ``on_error`` or ``on_missing_classifier`` action with a failed run on record, never in a silent pass.
Nothing here imports torch; OpenCV loads only once there are frames to look at, and guard models only
where a pack asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NoReturn

from safegen.errors import BlockedError
from safegen.policies.engine.case import Case, check_hits, is_negative
from safegen.policies.engine.frames_stage import FRAME_STAGE_SECONDS, Context, FrameJudge
from safegen.policies.engine.request import Request, check_frames, check_request
from safegen.policies.engine.rewriting import rewrite_prompt
from safegen.policies.engine.running import Runner, loader
from safegen.policies.guards.registry import GUARDS
from safegen.policies.pack.loading import ClassifierSpec, Pack, list_packs, load_pack
from safegen.policies.pictures.nudenet import FrameClassifier, NudeNet
from safegen.policies.text.encoder import EncoderClassifier
from safegen.policies.text.hits import TextClassifier
from safegen.policies.text.language import unreadable
from safegen.policies.text.lexicon import Lexicon
from safegen.policies.text.naming import people_in
from safegen.policies.text.views import View, views_of
from safegen.types import Action, Decision, Json, Reason, Rewrite

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FRAME_CLASSIFIERS", "TEXT_CLASSIFIERS", "Engine", "Request", "known_classifiers", "list_packs"]

TEXT_CLASSIFIERS: Mapping[str, Callable[[], TextClassifier]] = {
    "lexicon": Lexicon.load,
    "encoder": EncoderClassifier.load,
}
FRAME_CLASSIFIERS: Mapping[str, Callable[[], FrameClassifier]] = {"nudenet": NudeNet}
_BATCH = 1024  # requests; bounds the memory of the feature counts


def known_classifiers() -> dict[str, frozenset[str]]:
    """Return which classifiers this build has, under "text" and "frames"."""
    return {"text": frozenset({*TEXT_CLASSIFIERS, *GUARDS}), "frames": frozenset(FRAME_CLASSIFIERS)}


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
        guards: Mapping[str, Callable[[ClassifierSpec], TextClassifier]] = GUARDS,
        frame_seconds: float = FRAME_STAGE_SECONDS,
    ) -> None:
        """Load the pack's text classifiers; a required one that cannot load makes every decision a block."""
        self.pack = pack
        self._text = [Runner(spec, loader(spec, text_classifiers, guards)) for spec in pack.specs]
        self._frames = FrameJudge(pack, frame_classifiers, frame_seconds)

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
            batch = asked[at : at + _BATCH]
            for request, (decision, case) in zip(batch, self._judge_batch(batch), strict=True):
                rewritten = decision.action is Action.REWRITE
                decisions.append(self._rewritten(request, decision, case) if rewritten else decision)
        return decisions

    def _judge_batch(self, asked: Sequence[Request]) -> list[tuple[Decision, Case]]:
        started = perf_counter()
        cases = [Case(self.pack) for _ in asked]
        owners: list[Case] = []
        texts: list[_Text] = []
        for request, case in zip(asked, cases, strict=True):
            for source, raw in request.all_texts():
                owners.append(case)
                texts.append(_Text(source, raw, views_of(raw)))
                case.sources.append(source)
        self._judge_texts(texts, owners)
        share = (perf_counter() - started) / max(len(asked), 1)
        decided = []
        for request, case in zip(asked, cases, strict=True):
            began = perf_counter()
            clips: list[tuple[str, Sequence[NDArray[np.uint8]] | NDArray[np.uint8], float]] = []
            if request.images:
                clips.append(("image", request.images, 0.0))
            if request.video is not None:
                clips.append(("video", request.video.frames, request.video.fps))
            clips += [(name, clip.frames, clip.fps) for name, clip in request.clips]
            if clips:
                context = self._context(request.all_texts(), case)
                for source, frames, fps in clips:
                    self._frames.judge(frames, fps, source, case, "conditioning", context)
            decided.append((case.decide(share + perf_counter() - began), case))
        return decided

    def judge_frames(self, frames: NDArray[np.uint8], fps: float, text: str = "", *, every: bool = False) -> Decision:
        """Judge generated frames, uint8 [T, H, W, 3] RGB; ``fps`` gives the times in the reasons (0 for stills).

        ``text`` is what they were generated from: what a picture shows may depend on it (``data/joint.yaml``). With
        ``every`` no frame is passed over.
        """
        started = perf_counter()
        check_frames(frames, fps)
        case = Case(self.pack)
        context = self._context([("prompt", text)], Case(self.pack))
        self._frames.judge(frames, fps, "frames", case, "frames", context, every=every)
        return case.decide(perf_counter() - started)

    def _context(self, texts: Sequence[tuple[str, str]], case: Case) -> Context:
        """Return what pictures are judged together with: the word lists and the categories that the texts reach."""
        topics = {c for c, score in case.scores.items() if c in self.pack.rules and self.pack.rules[c].lowest <= score}
        try:
            lexicon = self._lexicon()
            words = [lexicon.lists_in(views_of(raw)) for source, raw in texts if not is_negative(source)]
        except Exception as exc:
            return Context(frozenset(), frozenset(topics), type(exc).__name__)
        return Context(frozenset().union(*words), frozenset(topics))

    def people(self, texts: Iterable[tuple[str, str]]) -> frozenset[str]:
        """Return the names in the texts, given as (source, text), that are judged; PolicyError if none can be read."""
        lexicon = self._lexicon()
        names = [people_in(lexicon, views_of(text)) for source, text in texts if not is_negative(source)]
        return frozenset().union(*names)

    def _lexicon(self) -> Lexicon:
        held = [runner.classifier for runner in self._text if runner.failure is None]
        return next((c for c in held if isinstance(c, Lexicon)), None) or Lexicon.load()

    def refuse_embeddings(self) -> NoReturn:
        """Refuse a prompt that is given as embeddings without its text: no classifier can read it. BlockedError."""
        reason = Reason("embeddings_without_text", Action.BLOCK, 1.0, 1.0, "prompt", "engine")
        case = Case(self.pack, reasons=[reason], sources=["prompt_embeds"])
        raise BlockedError(
            "the prompt was given as embeddings, which cannot be moderated",
            case.decide(0.0),
            remedy="Give the prompt as text.",
        )

    def describe(self) -> dict[str, Json]:
        """Return the effective policy and which classifiers are ready, as plain JSON values."""
        classifiers: list[Json] = [{"kind": "text", **runner.posture()} for runner in self._text]
        classifiers += [{"kind": "frames", **posture} for posture in self._frames.postures()]
        return {
            "id": self.pack.id,
            "version": self.pack.version,
            "sha256": self.pack.sha256,
            "schema_sha256": self.pack.schema_sha256,
            "classifiers": classifiers,
            "policy": dict(self.pack.document),
        }

    # -- texts -------------------------------------------------------------------------------------------------

    def _judge_texts(self, texts: Sequence[_Text], owners: Sequence[Case]) -> None:
        for text, case in zip(texts, owners, strict=True):
            if "prompt" in text.source and not is_negative(text.source) and (why := unreadable(text.raw, text.views)):
                action = self.pack.on_unsupported_language
                case.score("unsupported_language", 1.0)
                case.reasons.append(Reason("unsupported_language", action, 1.0, 1.0, text.source, f"language:{why}"))
        for runner in self._text:
            if runner.failure is not None:
                for case in _distinct(owners):
                    case.failure(runner.failure, "prompt")
                continue
            size = int(getattr(runner.classifier, "batch", _BATCH))
            for at in range(0, len(texts), size):
                self._score_texts(runner, texts[at : at + size], owners[at : at + size])

    def _score_texts(self, runner: Runner[TextClassifier], texts: Sequence[_Text], owners: Sequence[Case]) -> None:
        cases = _distinct(owners)
        started = perf_counter()
        try:
            views = [t.views for t in texts]
            found = check_hits(runner.call(lambda classifier: classifier.score(views)), len(texts))
        except Exception as exc:
            if len(cases) > 1:  # one text must not decide about the others
                for case in cases:
                    mine = [i for i, owner in enumerate(owners) if owner is case]
                    self._score_texts(runner, [texts[i] for i in mine], [case] * len(mine))
                return
            cases[0].failure(runner.failed(started, exc), "prompt")
            return
        run = runner.ran(started, len(texts))
        for case in cases:
            case.runs.append(run)
        for text, case, hits in zip(texts, owners, found, strict=True):
            case.hits(runner.spec.name, text.source, text.raw, hits)

    # -- rewriting ---------------------------------------------------------------------------------------------

    def _rewritten(self, request: Request, decision: Decision, case: Case) -> Decision:
        """Return ``decision`` with a prompt that passes, or as a block where no rewriting makes it pass."""
        started = perf_counter()
        prompt, replaced, runs = request.prompt, 0, list(decision.classifiers)
        categories: list[str] = []
        for number in range(1, self.pack.rewrite_rounds + 1):
            changed = rewrite_prompt(prompt, case.rewritable, self.pack.replacements)
            if changed is None:
                break
            prompt, replaced = changed[0], replaced + changed[1]
            categories += [c for c in dict.fromkeys(c for c, _ in case.rewritable) if c not in categories]
            changed_request = replace(request, prompt=prompt, images=(), video=None, clips=())  # pictures stay judged
            ((judged, case),) = self._judge_batch([changed_request])
            runs += judged.classifiers
            if judged.action is Action.REWRITE:
                continue
            if judged.action.stops:
                break
            done = Rewrite(prompt, tuple(categories), replaced, number)
            reasons = tuple(replace(r, source="rewritten_prompt") for r in judged.reasons)
            return replace(
                decision, rewrite=done, reasons=decision.reasons + reasons, classifiers=tuple(runs),
                milliseconds=decision.milliseconds + (perf_counter() - started) * 1000,
                words_withheld=decision.words_withheld or judged.words_withheld,
            )  # fmt: skip
        reason = Reason("rewrite_failed", Action.BLOCK, 1.0, 1.0, "prompt", "engine")
        return replace(
            decision, action=Action.BLOCK, reasons=(reason, *decision.reasons), classifiers=tuple(runs),
            milliseconds=decision.milliseconds + (perf_counter() - started) * 1000,
        )  # fmt: skip


def _distinct(cases: Sequence[Case]) -> list[Case]:
    return list({id(case): case for case in cases}.values())
