"""The prompt classifier that ships with safegen: a small transformer encoder with one head per category.

It is MiniLM (Wang et al., 2020, arXiv:2002.10957), fine-tuned by ``python -m safegen.policies.train`` and stored as
an int8 ONNX graph. onnxruntime runs it on one core, offline. ``weights/encoder.json`` holds the digests of the graph
and of the tokenizer, which are checked before either is used, and the calibration of every head. See
docs/moderation-model-card.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from safegen.errors import PolicyError
from safegen.policies.hits import Hit
from safegen.policies.normalise import View

if TYPE_CHECKING:
    from numpy.typing import NDArray

WEIGHTS = Path(__file__).parent / "weights"
_REINSTALL = "Reinstall safegen: its weights are damaged."
_WINDOW = 128  # tokens that are judged at once, as many as training showed
_STEP = 112  # from one window of a long text to the next
_BATCH_TOKENS = 2048  # bounds the memory of one run
_MIN_SCORE = 0.05  # lower scores explain nothing and only lengthen decisions
_EXPLAINED_SCORE = 0.3
_REACH = 0.25  # a word belongs to the explanation if it weighs this share of the weightiest one


@dataclass(frozen=True, slots=True)
class Card:
    """What ``encoder.json`` says: how to read the graph's logits."""

    version: str
    categories: tuple[str, ...]
    slope: NDArray[np.float32]  # a score is sigmoid(slope * logit + shift)
    shift: NDArray[np.float32]
    graph_sha256: str
    tokenizer_sha256: str
    sha256: str  # of the description itself, and so of all that it names


@dataclass(frozen=True, slots=True)
class _Piece:
    """A run of tokens of one text: ids, and where in the text each token lies ((0, 0) for special ones)."""

    text: int
    ids: tuple[int, ...]
    places: tuple[tuple[int, int], ...]


class EncoderClassifier:
    """Scores each category in [0, 1]. Safe to share between threads: it holds nothing but weights."""

    name = "encoder"

    def __init__(self, card: Card, session: Any, tokenizer: Any) -> None:
        self.version = card.version
        self.categories = card.categories
        self.weights_sha256: str | None = card.sha256
        self._card = card
        self._session = session
        self._tokenizer = tokenizer

    @classmethod
    def load(cls, folder: Path = WEIGHTS) -> EncoderClassifier:
        """Read the graph, the tokenizer and their description; PolicyError where one is missing, altered or unfit."""
        try:
            card = read_card(folder / "encoder.json")
            graph = (folder / "encoder.onnx").read_bytes()
            words = (folder / "tokenizer.json").read_bytes()
            for name, body, digest in (
                ("encoder.onnx", graph, card.graph_sha256),
                ("tokenizer.json", words, card.tokenizer_sha256),
            ):
                if hashlib.sha256(body).hexdigest() != digest:
                    raise PolicyError(f"the prompt classifier's weights were altered: {name}", remedy=_REINSTALL)
            session = open_session(graph)
            if session.get_outputs()[0].shape[-1] != len(card.categories):
                raise PolicyError("the prompt classifier's weights have other heads than named", remedy=_REINSTALL)
            return cls(card, session, open_tokenizer(words))
        except PolicyError:
            raise
        except Exception as exc:
            raise PolicyError(f"the prompt classifier's weights cannot be read: {exc}", remedy=_REINSTALL) from exc

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return float32 [texts, categories] for lower-case texts; a long text scores as its worst window."""
        logits = self.logits(texts)
        scores: NDArray[np.float32] = 1.0 / (1.0 + np.exp(-(logits * self._card.slope + self._card.shift)))
        return scores

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the uncalibrated logits, float32 [texts, categories]."""
        return self._judge(texts)[0]

    def score(self, texts: Sequence[Sequence[View]]) -> list[list[Hit]]:
        """Return the hits of each text: per category the highest score over its reliable views."""
        flat = [(i, view) for i, views in enumerate(texts) for view in views if view.reliable]
        logits, spans = self._judge([view.text for _, view in flat])
        scores = 1.0 / (1.0 + np.exp(-(logits * self._card.slope + self._card.shift)))
        if not np.isfinite(scores).all():
            raise ValueError("scores are not finite")
        best: list[dict[str, Hit]] = [{} for _ in texts]
        for at, ((i, view), row) in enumerate(zip(flat, scores, strict=True)):
            for k in np.flatnonzero(row >= _MIN_SCORE):
                category, value = self.categories[k], float(row[k])
                if category in best[i] and best[i][category].score >= value:
                    continue
                where = view.raw_range(*spans[at][k]) if value >= _EXPLAINED_SCORE else (0, 0)
                best[i][category] = Hit(category, value, view.name, where)
        return [list(hits.values()) for hits in best]

    def _judge(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], list[NDArray[np.int64]]]:
        """Return logits and, for each text, int64 [categories, 2]: the part of the text that each rests on."""
        pieces = [piece for i, text in enumerate(texts) for piece in self._pieces(i, text)]
        logits = np.full((len(texts), len(self.categories)), -np.inf, np.float32)
        spans = [np.zeros((len(self.categories), 2), np.int64) for _ in texts]
        for batch in _batches(pieces):
            ids = np.zeros((len(batch), max(len(p.ids) for p in batch)), np.int64)
            mask = np.zeros_like(ids)
            for k, piece in enumerate(batch):
                ids[k, : len(piece.ids)], mask[k, : len(piece.ids)] = piece.ids, 1
            found, parts = self._session.run(["logits", "parts"], {"ids": ids, "mask": mask})
            for piece, row, weight in zip(batch, found, parts, strict=True):
                # "not lower" rather than "higher": a score that is no number must stay one.
                better = np.flatnonzero(~(row <= logits[piece.text]))
                logits[piece.text, better] = row[better]
                for k in better:
                    spans[piece.text][k] = _span(weight[: len(piece.ids), k], piece.places)
        return logits, spans

    def _pieces(self, number: int, text: str) -> list[_Piece]:
        coded = self._tokenizer.encode(text, add_special_tokens=False)
        first, last = self._tokenizer.token_to_id("[CLS]"), self._tokenizer.token_to_id("[SEP]")
        room = _WINDOW - 2
        starts = range(0, max(1, len(coded.ids) - (room - _STEP)), _STEP) if len(coded.ids) > room else (0,)
        return [
            _Piece(
                number,
                (first, *coded.ids[at : at + room], last),
                ((0, 0), *coded.offsets[at : at + room], (0, 0)),
            )
            for at in starts
        ]


def read_card(path: Path) -> Card:
    """Read a description of weights; whatever is wrong with it ends in an exception that ``load`` wraps."""
    body = path.read_bytes()
    entry: Mapping[str, Any] = json.loads(body)
    heads = entry["heads"]
    return Card(
        version=str(entry["version"]),
        categories=tuple(str(name) for name in heads),
        slope=np.array([float(h["slope"]) for h in heads.values()], np.float32),
        shift=np.array([float(h["shift"]) for h in heads.values()], np.float32),
        graph_sha256=str(entry["sha256"]["encoder.onnx"]),
        tokenizer_sha256=str(entry["sha256"]["tokenizer.json"]),
        sha256=hashlib.sha256(body).hexdigest(),
    )


def open_session(graph: bytes) -> Any:
    """Return an onnxruntime session of the graph: one thread, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def open_tokenizer(words: bytes) -> Any:
    """Return a tokenizer that neither pads nor cuts."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(words.decode("utf-8"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _batches(pieces: Sequence[_Piece]) -> list[list[_Piece]]:
    """Return the pieces in batches of about one length, so that little is padded."""
    batches: list[list[_Piece]] = []
    for piece in sorted(pieces, key=lambda p: len(p.ids)):
        if batches and (len(batches[-1]) + 1) * len(piece.ids) <= _BATCH_TOKENS:
            batches[-1].append(piece)
        else:
            batches.append([piece])
    return batches


def _span(weight: NDArray[np.float32], places: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the range of the text around the weightiest token: its neighbours while they weigh enough."""
    real = [i for i, (start, end) in enumerate(places) if end > start]
    if not real:
        return 0, 0
    peak = max(real, key=lambda i: float(weight[i]))
    if not weight[peak] > 0:
        return 0, 0
    first = last = peak
    while first - 1 in real and (weight[first - 1] > _REACH * weight[peak] or _joined(places, first - 1)):
        first -= 1
    while last + 1 in real and (weight[last + 1] > _REACH * weight[peak] or _joined(places, last)):
        last += 1
    return places[first][0], places[last][1]


def _joined(places: Sequence[tuple[int, int]], i: int) -> bool:
    """Whether token ``i`` runs into the next one: both are parts of one word."""
    return places[i][1] == places[i + 1][0]
