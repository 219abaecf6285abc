"""Whether a suspect shows what a clip showed: half second by half second, against the clip's kept pictures.

    comparing = Comparing(KeptPictures.from_bytes(data), corners)
    spans = [comparing.judge(shown) for shown in watch(frames, fps, stretches=marked)]
    answer = conclude(spans)

Two things are asked of every half second, since a mark is easily laid on other pictures. Is what was there found, as
far as it can be seen? And is all that is seen explained by it (``explaining``)? Edits of many kinds pass; a picture of
which more than UNEXPLAINED shows something else does not. docs/fingerprint.md says what is missed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safegen.opencv import cv2
from safegen.watermark.fingerprint.explaining import Explainer, Judged
from safegen.watermark.fingerprint.kept_pictures import KeptPictures, Look, between, with_neighbours
from safegen.watermark.fingerprint.placing import Corners, Laid, Matrix, align, lay, places
from safegen.watermark.fingerprint.recolouring import distance
from safegen.watermark.fingerprint.shown import LUMA, Shown

UNEXPLAINED = 0.06
"""Share of what is seen of the clip's picture that may show something else: small captions, logos."""

DIFFERENT = 0.45
"""Share of what is seen above which it is another picture, if at least half as much is unexplained as is found."""

SEEN = 0.15
"""Share of the clip's picture that must be seen to say anything."""

BLIND = 0.4
"""Share of what is seen that may move so much that hardly anything foreign would show there."""

CONTRAST = 0.12
"""Share of the kept picture's contrast that must be left to say anything."""

LOUD = 0.6
"""What is unexplained, as a share of what is found (both in levels): above it, also a small thing is too much."""

FLAT = 4.0
"""Standard deviation, in levels, around a point beside the clip's picture up to which it shows nothing."""

FORMS = 15.0
"""Levels (root mean square) of form from which on a kept picture is like no other; camera footage mostly has more."""

BOOST = 3.0
"""How many times the kept picture's contrast a suspect may have of it: explanations that take more are made up."""

SHARE = 0.9
"""Share of the time that must be the clip's."""

PLACINGS = 4
"""How often the place is looked for anew, in half seconds that the last place does not explain."""

CANDIDATES = 6
"""Kept pictures that are tried for a half second, those that look most like it first."""


@dataclass(frozen=True, slots=True)
class Span:
    """One half second of a suspect: frames ``first`` to ``last``, ``start`` to ``end`` in seconds.

    ``same`` is None where nothing can be said; then ``why``. ``unexplained`` and ``seen`` are shares of the clip's
    picture: of what is seen of it, what shows something else; and of all of it, what is seen. ``explained`` is the
    share of the suspect's own picture that shows the clip, or nothing: flat borders. ``place`` takes pixels of the
    suspect's canvas to those of the kept pictures, and ``foreign`` are the latter's cells that are unexplained.
    """

    first: int
    last: int
    start: float
    end: float
    same: bool | None
    unexplained: float
    seen: float
    contrast: float
    explained: float
    place: Matrix | None = None
    foreign: NDArray[np.bool_] | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The answer for a file, or for some part of it. ``same``: True, False, or None where it cannot be told."""

    same: bool | None
    unexplained: float
    seen: float
    spans: tuple[Span, ...]
    why: str = ""


class Comparing:
    """Compares half seconds of one suspect, in any order, with the kept pictures of one clip.

    ``corners`` say where the suspect's picture lies on the clip's plane (an extraction's evidence names them); None: it
    is the whole picture, stretched.
    """

    def __init__(self, kept: KeptPictures, corners: Corners | None = None) -> None:
        self._kept = kept
        self._corners = corners
        looks = with_neighbours(kept.looks)
        halves = [between(one, other) for one, other in zip(kept.looks, kept.looks[1:], strict=False)]
        self._looks: tuple[Look, ...] = (*looks, *halves)
        self._thumbs = np.stack([_thumb(look) for look in self._looks])
        self._explainers: dict[int, Explainer] = {}
        self._place: Matrix | None = None
        self._shape: tuple[int, ...] = ()
        self._left = PLACINGS

    def judge(self, shown: Shown) -> Span:
        """Compare one half second."""
        shape = shown.mean.shape[:2]
        if shape != self._shape:
            self._place, self._shape, self._left = None, shape, PLACINGS
        best: tuple[Judged, Matrix, Laid] | None = None
        if self._place is not None:
            best = self._judged(shown, self._place)
            if best is not None and _share(best) <= UNEXPLAINED / 2:
                return self._span(shown, best)
        if self._left:
            self._left -= 1
            for place in self._found(shown):
                other = self._judged(shown, place)
                if other is not None and (best is None or _share(other) < _share(best)):
                    best, self._place = other, place
        return self._span(shown, best)

    def _found(self, shown: Shown) -> list[Matrix]:
        """The best place as the mark tells it, and the same made exact."""
        tried = []
        for place in places(self._kept, shown.mean.shape, self._corners):
            laid = self._lay(shown, place)
            if laid.weight.mean() >= SEEN:
                n, cost = self._nearest(laid)
                tried.append((cost, n, place))
        if not tried:
            return []
        _, n, place = min(tried, key=lambda t: t[0])
        exact = align(shown, place, self._explainer(n), self._kept, whole=self._corners is None)
        return [place, exact]

    def _lay(self, shown: Shown, place: Matrix) -> Laid:
        return lay(shown, place, self._kept, whole=self._corners is None)

    def _judged(self, shown: Shown, place: Matrix) -> tuple[Judged, Matrix, Laid] | None:
        laid = self._lay(shown, place)
        if laid.weight.mean() < SEEN:
            return None
        n, _ = self._nearest(laid)
        return self._explainer(n).judge(laid.look, laid.weight, laid.grain, laid.faint, shown.frames), place, laid

    def _nearest(self, laid: Laid) -> tuple[int, float]:
        """Which kept picture explains it best, and what it costs."""
        thumb = _thumb(laid.look) * _thumb_of(laid.weight)
        alike = np.abs(np.einsum("nyx,yx->n", self._thumbs, thumb))
        few = np.argsort(-alike, kind="stable")[:CANDIDATES].tolist()
        costs = [(self._explainer(n).cost(laid.look.picture, laid.weight), n) for n in few]
        cost, n = min(costs)
        return n, cost

    def _is_plain(self, laid: Laid) -> bool:
        """Whether one plain change of colour leads from the kept picture to what is seen."""
        n, _ = self._nearest(laid)
        return distance(self._looks[n].picture, laid.look.picture, laid.weight) <= 1

    def _explainer(self, n: int) -> Explainer:
        if n not in self._explainers:
            if len(self._explainers) > 4 * CANDIDATES:
                self._explainers.clear()
            self._explainers[n] = Explainer(self._looks[n])
        return self._explainers[n]

    def _span(self, shown: Shown, best: tuple[Judged, Matrix, Laid] | None) -> Span:
        at = (shown.first, shown.last, shown.start, shown.end)
        if best is None:
            return Span(*at, None, 0.0, 0.0, 0.0, 0.0, why="too little of the clip's picture is seen")
        judged, place, laid = best
        share, seen = _share(best), judged.seen
        loud = judged.unexplained > LOUD * judged.explained + 1
        why, same = "", None
        if seen < SEEN:
            why = "too little of the clip's picture is seen"
        elif judged.contrast < CONTRAST:
            why = "too little contrast is left"
        elif share <= UNEXPLAINED and not loud:
            if judged.blind > BLIND * seen and judged.out_of_step > UNEXPLAINED * seen:
                why = "it moves too much to tell"
            elif judged.forms >= FORMS or (judged.contrast <= BOOST and self._is_plain(laid)):
                same = True
            else:
                why = "it would take more recolouring than edits do"
        elif share > DIFFERENT and judged.unexplained > 0.5 * judged.form:
            same = False
        else:
            why = "part of the picture shows something else"
        covered, beside = _beside(place, shown, laid.weight.shape)
        explained = 1 - beside - covered * share
        return Span(*at, same, share, seen, judged.contrast, explained, place, judged.foreign, why)


def compare(kept: KeptPictures, shown: Iterable[Shown], corners: Corners | None = None) -> Comparison:
    """Compare all that is shown; see ``conclude``."""
    comparing = Comparing(kept, corners)
    return conclude([comparing.judge(one) for one in shown])


def conclude(spans: Sequence[Span]) -> Comparison:
    """One answer from half seconds, each counting by its length.

    The same: SHARE of the time shows the clip. Another: half of the time shows something else, or more.
    """
    length = np.array([span.end - span.start for span in spans])
    if not spans or not length.sum() > 0:
        return Comparison(None, 0.0, 0.0, tuple(spans), "nothing could be compared")
    part = length / length.sum()
    unexplained = float(sum(p * s.unexplained for p, s in zip(part, spans, strict=True)))
    seen = float(sum(p * s.seen for p, s in zip(part, spans, strict=True)))
    said = {kind: float(sum(p for p, s in zip(part, spans, strict=True) if s.same is kind)) for kind in (True, False)}
    if said[True] >= SHARE:
        return Comparison(True, unexplained, seen, tuple(spans))
    if said[False] >= 0.5:
        return Comparison(False, unexplained, seen, tuple(spans))
    why = max((s.why for s in spans if s.same is None), key=lambda w: sum(s.why == w for s in spans), default="")
    return Comparison(None, unexplained, seen, tuple(spans), why or "only part of the time shows the clip")


def _share(judged: tuple[Judged, Matrix, Laid]) -> float:
    """Foreign cells as a share of those that are seen."""
    found = judged[0]
    return float(found.foreign.mean()) / max(found.seen, 1e-6)


def _thumb(look: Look) -> NDArray[np.float32]:
    """The picture's form, small, of norm 1."""
    small = _thumb_of(look.luma)
    form = small - cv2.GaussianBlur(small, (0, 0), 4.0, borderType=cv2.BORDER_REFLECT)
    return np.asarray(form / (float(np.linalg.norm(form)) + 1.0), np.float32)


def _thumb_of(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(plane, (32, 32), interpolation=cv2.INTER_AREA), np.float32)


def _beside(place: Matrix, shown: Shown, grid: tuple[int, ...]) -> tuple[float, float]:
    """The share of the canvas in which the kept pictures lie, and the share beside them where there is something."""
    light = shown.mean @ LUMA
    h, w = light.shape
    corners = np.array([[[0, 0], [grid[1], 0], [grid[1], grid[0]], [0, grid[0]]]], np.float64)
    there = cv2.perspectiveTransform(corners, np.linalg.inv(place))[0]
    inside = np.zeros((h, w), np.uint8)
    cv2.fillConvexPoly(inside, np.clip(np.rint(there), -8 * w, 8 * w).astype(np.int32), (1,))
    near = max(3, round(min(h, w) / 32))
    around = np.ones((near, near), np.uint8)
    spread = cv2.blur(light**2, (near, near)) - cv2.blur(light, (near, near)) ** 2
    something = (spread > FLAT**2) & (cv2.dilate(inside, around) == 0)
    wide = cv2.dilate(something.astype(np.uint8), np.ones((4 * near, 4 * near), np.uint8))
    return float(inside.mean()), float(((wide > 0) & (inside == 0)).mean())
