"""The text classifier that ships with safegen: hashed n-grams and one logistic regression per category, in numpy.

Weights and their description lie in ``weights/`` and are made by ``python -m safegen.policies.train``. The
description holds the weights' digest, and this module the description's rules; altered weights do not load.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from safegen.errors import PolicyError
from safegen.policies.features import BUCKETS, Counts, count
from safegen.policies.hits import Hit
from safegen.policies.lexicon import DATA, tokens
from safegen.policies.normalise import View

if TYPE_CHECKING:
    from numpy.typing import NDArray

WEIGHTS = Path(__file__).parent / "weights"
_REINSTALL = "Reinstall safegen: its weights are damaged."
_EXPLAINED_SCORE = 0.4
_EXPLAINED_LENGTH = 2000  # characters; longer texts would take too long to explain
_EXPLAINED_PARTS = 48
_MIN_SCORE = 0.05  # lower scores explain nothing and only lengthen decisions


@cache
def _names() -> re.Pattern[str]:
    lines = (DATA / "public_figures.txt").read_text(encoding="utf-8").splitlines()
    names = sorted((line for line in lines if line and not line.startswith("#")), key=len, reverse=True)
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, names))})\b")


def neutral(text: str) -> str:
    """Return a lower-case text with the names of known people replaced.

    Training data mention some people mostly in vile company. Their names alone must not count as evidence of violence;
    whether a real person may be shown is the likeness rules' business.
    """
    return _names().sub("a person", text)


class NgramClassifier:
    """Scores each category in [0, 1]. ``matrix``: float32 [BUCKETS, categories]; ``idf``: float32 [BUCKETS]."""

    name = "ngram"

    def __init__(
        self,
        categories: Sequence[str],
        matrix: NDArray[np.float32],
        bias: NDArray[np.float32],
        idf: NDArray[np.float32],
        version: str,
        digest: str | None,
    ) -> None:
        self.categories = tuple(categories)
        self.version = version
        self.weights_sha256 = digest
        self._matrix = matrix
        self._bias = bias
        self._idf = idf

    @classmethod
    def load(cls, folder: Path = WEIGHTS) -> NgramClassifier:
        """Read ``ngram.json`` and ``ngram.npz``; PolicyError where they are missing, altered or do not fit."""
        try:
            card = json.loads((folder / "ngram.json").read_text(encoding="utf-8"))
            body = (folder / "ngram.npz").read_bytes()
            digest = hashlib.sha256(body).hexdigest()
            if digest != card["sha256"]:
                raise PolicyError("the text classifier's weights were altered: ngram.npz", remedy=_REINSTALL)
            import io

            with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
                matrix = arrays["matrix"].astype(np.float32)
                bias, idf = arrays["bias"].astype(np.float32), arrays["idf"].astype(np.float32)
            categories = [str(c) for c in card["categories"]]
            version = str(card["version"])
            _names()
        except PolicyError:
            raise
        except Exception as exc:
            raise PolicyError(f"the text classifier's weights cannot be read: {exc}", remedy=_REINSTALL) from exc
        shapes = (matrix.shape, bias.shape, idf.shape)
        if shapes != ((BUCKETS, len(categories)), (len(categories),), (BUCKETS,)):
            raise PolicyError("the text classifier's weights have another shape than this version", remedy=_REINSTALL)
        return cls(categories, matrix, bias, idf, version, digest)

    def arrays(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Return matrix, bias and idf."""
        return self._matrix, self._bias, self._idf

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return float32 [texts, categories] for lower-case texts."""
        scores: NDArray[np.float32] = 1.0 / (
            1.0 + np.exp(-(self._project(count([neutral(text) for text in texts])) + self._bias))
        )
        return scores

    def _project(self, counts: Counts) -> NDArray[np.float32]:
        value = (1.0 + np.log(counts.counts)) * self._idf[counts.buckets]
        norm = np.sqrt(np.bincount(counts.rows, value.astype(np.float64) ** 2, counts.texts))
        value = value / np.maximum(norm, 1e-12)[counts.rows].astype(np.float32)
        out = np.zeros((counts.texts, len(self.categories)), np.float32)
        for at in range(len(self.categories)):
            column = self._matrix[:, at][counts.buckets]
            out[:, at] = np.bincount(counts.rows, value * column, counts.texts)
        return out

    def score(self, texts: Sequence[Sequence[View]]) -> list[list[Hit]]:
        """Return the hits of each text: per category the highest score over its reliable views."""
        flat = [(i, view) for i, views in enumerate(texts) for view in views if view.reliable]
        scores = self.probabilities([view.text for _, view in flat])
        if not np.isfinite(scores).all():
            raise ValueError("scores are not finite")
        best: list[dict[str, tuple[Hit, View]]] = [{} for _ in texts]
        for (i, view), row in zip(flat, scores, strict=True):
            for category, value in zip(self.categories, row, strict=True):
                held = best[i].get(category)
                if value >= _MIN_SCORE and (held is None or value > held[0].score):
                    best[i][category] = Hit(category, float(value), view.name, (0, 0)), view
        return [[self._explained(hit, view) for hit, view in hits.values()] for hits in best]

    def _explained(self, hit: Hit, view: View) -> Hit:
        """Give a high score the words that it rests on: those without which it drops most."""
        if hit.score < _EXPLAINED_SCORE or len(view.text) > _EXPLAINED_LENGTH:
            return hit
        words = tokens(view.text)
        step = -(-len(words) // _EXPLAINED_PARTS)
        spans = [(part[0][1], part[-1][2]) for part in (words[i : i + step] for i in range(0, len(words), step or 1))]
        if len(spans) < 2:
            return hit
        without = self.probabilities([view.text[:start] + view.text[end:] for start, end in spans])
        start, end = spans[int(np.argmin(without[:, self.categories.index(hit.category)]))]
        return replace(hit, span=view.raw_range(start, end))
