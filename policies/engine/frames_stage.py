"""The frame classifiers of a pack at work: they load with the first frames, and what they see goes into the case."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING

from safegen.errors import PolicyError
from safegen.policies.engine.case import Case
from safegen.policies.engine.running import Runner, loader
from safegen.policies.pack.model import Pack
from safegen.policies.pictures.joint import JointHit, Where, joint_hits
from safegen.policies.pictures.judging import Looked, judge_category, look
from safegen.policies.pictures.nudenet import FrameClassifier
from safegen.types import Action, Json, Reason

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FRAME_STAGE_SECONDS = 30.0
"""What a frame classifier may take for one call before it counts as failed, beyond ``FRAME_SECONDS`` a frame."""


@dataclass(frozen=True, slots=True)
class Context:
    """What the texts beside pictures hold: word lists that occur, categories raised; or why they could not be read."""

    words: frozenset[str]
    topics: frozenset[str]
    failed: str = ""


class FrameJudge:
    """The frame classifiers of one pack. Safe to share between threads."""

    def __init__(self, pack: Pack, factories: Mapping[str, Callable[[], FrameClassifier]], seconds: float) -> None:
        self._pack = pack
        self._factories = factories
        self._seconds = seconds
        self._runners: dict[str, Runner[FrameClassifier]] = {}
        self._lock = threading.Lock()

    def postures(self) -> list[dict[str, Json]]:
        """Return which classifiers are ready, as plain JSON values."""
        told: list[dict[str, Json]] = []
        for spec in self._pack.frames.specs:
            held = self._runners.get(spec.name)
            known: dict[str, Json] = {"name": spec.name, "use": spec.use, "required": spec.required}
            told.append(held.posture() if held is not None else known | {"status": "loads on first use"})
        return told

    def judge(
        self,
        frames: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
        fps: float,
        source: str,
        case: Case,
        where: Where,
        context: Context,
        *,
        every: bool = False,
    ) -> None:
        """Judge uint8 [H, W, 3] RGB frames (``fps`` 0: stills) together with the text beside them, into ``case``.

        With ``every`` all frames are looked at, whatever rate the pack names.
        """
        case.sources.append(source)
        policy = self._pack.frames
        if every:
            policy = replace(policy, sample_fps=max(policy.sample_fps, fps))
        ran = False
        for spec in policy.specs:
            with self._lock:
                if spec.name not in self._runners:
                    self._runners[spec.name] = Runner(spec, loader(spec, self._factories))
            runner = self._runners[spec.name]
            if runner.failure is not None:
                case.failure(runner.failure, source)
                continue
            started = perf_counter()
            try:
                limit = min(spec.time_limit_s, self._seconds)
                looked = look(runner.classifier, list(frames), fps, policy, limit)
                joint = joint_hits(looked, where, policy.min_hits, context.words, context.topics)
                if context.failed:
                    raise PolicyError(f"the text beside the pictures could not be read: {context.failed}")
            except (Exception, SystemExit) as exc:
                case.failure(runner.failed(started, exc), source)
                continue
            ran = True
            case.runs.append(runner.ran(started, 1, f"{len(looked.times)} of {len(frames)} frames"))
            self._apply(looked, joint, source, spec.name, case)
        if not ran:  # whatever the pack makes of a failure: pictures that no model looked at are not judged
            case.reasons.append(Reason("frames_not_judged", Action.BLOCK, 1.0, 1.0, source, "engine"))

    def _apply(self, looked: Looked, joint: Sequence[JointHit], source: str, name: str, case: Case) -> None:
        for category, rule in self._pack.frames.rules.items():
            score, reason, spans = judge_category(looked, category, rule, self._pack.frames, source, name)
            case.score(category, score)
            case.spans.extend(spans)
            if reason is not None:
                case.reasons.append(reason)
        for hit in joint:
            of_category = self._pack.rules.get(hit.rule.category)
            if of_category is None:
                continue
            action, threshold = of_category.judge(hit.rule.score)
            if action is Action.REWRITE:  # words can be changed, pictures cannot
                action = Action.REVIEW
            when = None if hit.frame is None else round(hit.frame / looked.fps, 3)
            case.score(hit.rule.category, hit.rule.score)
            case.reasons.append(Reason(
                hit.rule.category, action, hit.rule.score, threshold, source, f"joint:{hit.rule.id}", time_s=when
            ))  # fmt: skip
