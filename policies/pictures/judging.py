"""From scores of single frames to what a policy says of a clip: confirmed hits, and the spans of time that they fill.

Frames are looked at ``sample_fps`` times a second over the whole clip, the first and the last always. Where one hits,
its neighbours are looked at too, so that a flash between two samples is still confirmed. A hit counts when it lasts:
``min_hits`` samples in a row, or as many frames in a row, must reach the threshold, so that one odd frame decides
nothing. A span then reaches to the nearest samples on either side that were found clean: what lies between two of them
is not known to be harmless.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from safegen.policies.pictures.nudenet import FrameClassifier, sample_times
from safegen.types import Action, Reason, Span

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from safegen.policies.pack.loading import FramePolicy, Rule

FRAME_SECONDS = 2.0
"""What one frame may take beyond a classifier's own time limit: twenty times what NudeNet takes on one slow core."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Looked:
    """What a classifier said of the frames of one clip that it was shown."""

    frames: int  # in the clip
    fps: float  # 0 for stills
    sampled: tuple[int, ...]  # frame indices at the policy's rate
    scores: Mapping[int, NDArray[np.float32]]  # per frame looked at, one score for each of ``classes``
    classes: tuple[str, ...]

    @property
    def times(self) -> tuple[int, ...]:
        """Indices of all frames looked at, rising."""
        return tuple(sorted(self.scores))

    def highest(self, labels: Sequence[str]) -> dict[int, float]:
        """Return, for each frame looked at, the highest score of any of these classes; 0 where it knows none."""
        at = [i for i, name in enumerate(self.classes) if name in set(labels)]
        return {i: float(row[at].max()) if at else 0.0 for i, row in self.scores.items()}


@dataclass(frozen=True, slots=True)
class Streak:
    """Frames in a row that hit: the score that all of them reach, the first that was seen, and the span's bounds."""

    score: float
    first: int
    start: int  # frames that may hit: from ``start`` up to, not including, ``end``
    end: int


def within(seconds: float, work: Callable[[], _T]) -> _T:
    """Return ``work()``; TimeoutError after ``seconds``. The thread that hangs is left behind: nothing can end it."""
    done: list[_T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as exc:  # handed to the caller, whatever it is
            failed.append(exc)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not done:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return done[0]


def look(
    classifier: FrameClassifier,
    frames: Sequence[NDArray[np.uint8]],
    fps: float,
    policy: FramePolicy,
    seconds: float,
) -> Looked:
    """Score the sampled frames, uint8 [H, W, 3] RGB, and the neighbours of those that hit.

    ``seconds``: the classifier's time limit for one call, to which ``FRAME_SECONDS`` come for each frame. TimeoutError
    if it takes longer; ValueError if what it returns are no scores.
    """
    sampled = sample_times(len(frames), fps, policy.sample_fps)
    found = _score(classifier, frames, sampled, seconds)
    hot = [i for i in sampled if _hits(found[i], classifier.classes, policy)]
    reach = policy.min_hits - 1
    near = sorted({j for i in hot for j in range(i - reach, i + reach + 1) if 0 <= j < len(frames)} - set(found))
    if near and fps > 0:
        found |= _score(classifier, frames, near, seconds)
    return Looked(len(frames), fps, tuple(sampled), found, tuple(classifier.classes))


def _score(
    classifier: FrameClassifier, frames: Sequence[NDArray[np.uint8]], which: Sequence[int], seconds: float
) -> dict[int, NDArray[np.float32]]:
    limit = seconds + FRAME_SECONDS * len(which)
    scores = np.asarray(within(limit, lambda: classifier.score([frames[i] for i in which])))
    if scores.shape != (len(which), len(classifier.classes)):
        raise ValueError("wrong number of scores")
    if not (np.isfinite(scores).all() and (scores >= 0).all() and (scores <= 1).all()):
        raise ValueError("scores outside [0, 1]")
    return dict(zip(which, scores, strict=True))


def _hits(row: NDArray[np.float32], classes: Sequence[str], policy: FramePolicy) -> bool:
    levels = {name: policy.rules[category].lowest for name, category in policy.classes.items()}
    return any(score >= levels.get(name, 2.0) for name, score in zip(classes, row, strict=True))


def needed(looked: Looked, min_hits: int) -> int:
    """How many looks in a row confirm a hit: one in stills, never more than there are."""
    return 1 if looked.fps <= 0 else min(min_hits, len(looked.sampled))


def confirmed(looked: Looked, scores: Mapping[int, float], min_hits: int) -> float:
    """Return the highest score that some ``min_hits`` looks in a row all reach."""
    return max((score for score, _, _ in _windows(looked, scores, min_hits)), default=0.0)


def streaks(looked: Looked, scores: Mapping[int, float], min_hits: int, level: float) -> list[Streak]:
    """Return the spans in which looks in a row reach ``level``, in order of time; they do not overlap."""
    hot = sorted((first, last, score) for score, first, last in _windows(looked, scores, min_hits) if score >= level)
    merged: list[tuple[int, int, float]] = []
    samples = looked.sampled
    for first, last, score in hot:
        if merged and first <= _next(samples, merged[-1][1], looked.frames):
            a, b, best = merged[-1]
            merged[-1] = (a, max(b, last), max(best, score))
        else:
            merged.append((first, last, score))
    return [
        Streak(score, first, _before(samples, first) + 1, _next(samples, last, looked.frames))
        for first, last, score in merged
    ]


def _windows(looked: Looked, scores: Mapping[int, float], min_hits: int) -> list[tuple[float, int, int]]:
    """Return (lowest score, first frame, last frame) of all looks in a row, in the samples and in frames side by side.

    Samples alone would miss a flash; frames side by side alone would miss what flickers.
    """
    count = needed(looked, min_hits)
    times = looked.times
    rows = [looked.sampled[i : i + count] for i in range(len(looked.sampled) - count + 1)]
    rows += [w for i in range(len(times) - count + 1) if (w := times[i : i + count])[-1] - w[0] == count - 1]
    return [(min(scores[i] for i in row), row[0], row[-1]) for row in rows]


def _before(times: Sequence[int], frame: int) -> int:
    return max((t for t in times if t < frame), default=-1)


def _next(times: Sequence[int], frame: int, end: int) -> int:
    return min((t for t in times if t > frame), default=end)


def judge_category(
    looked: Looked, category: str, rule: Rule, policy: FramePolicy, source: str, classifier: str
) -> tuple[float, Reason | None, tuple[Span, ...]]:
    """Return a category's confirmed score in a clip, the reason where it reaches a threshold, and the spans."""
    labels = [name for name, meant in policy.classes.items() if meant == category]
    scores = looked.highest(labels)
    score = confirmed(looked, scores, policy.min_hits)
    action, threshold = rule.judge(score)
    if action is Action.ALLOW:
        return score, None, ()
    fps = looked.fps
    remedy = policy.remedies.get(category, "")
    spans = []
    for streak in streaks(looked, scores, policy.min_hits, rule.lowest) if fps > 0 else ():
        taken, _ = rule.judge(streak.score)
        start, first, end = (round(i / fps, 3) for i in (streak.start, streak.first, streak.end))
        span = Span(category, taken, streak.score, source, start, end, first, remedy if taken.stops else "")
        spans.append(span)
    first_hit = min(i for i, s in scores.items() if s >= threshold)
    confirmed_first = [s.first_s for s in spans if s.score >= threshold]
    when = None if fps <= 0 else min(confirmed_first, default=round(first_hit / fps, 3))
    return score, Reason(category, action, score, threshold, source, classifier, time_s=when), tuple(spans)
